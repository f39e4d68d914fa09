"""While nobody looks at the mount, the kernel is asked to forget what it was shown.

Owns: when that is, and at what pace.
Must not know: what the kernel keeps, whom it asks.

An inode that the kernel knows costs us half a kilobyte, a file's that was only listed a hundred bytes (see cold), and a walk leaves as many
behind as the table takes. The larger ones lie between everything else that was made meanwhile, and the few that stay of each stretch of
memory keep all of it from the system: what belongs to those is made anew at the end (`Inodes.settle`). Python's lists of free tuples and
the like do so too; a full collection empties them.

    WATCHING --many came, and then hardly any for `quiet_s`--> COOLING --all in line were asked for, or somebody looks--> WATCHING

What the kernel knows still answers for itself as long as it was told to believe it: nothing goes before that time has passed. Then every
look comes to us in any case, and whoever looks again pays for listings what he would have paid.

C1  What somebody has had open stays: with a file's inode its pages would go, which may have taken hours to read. So do directories: they
    are few, and somebody may be in them. The limit of the table holds for both (`Inodes.cold`).
C2  Nothing is asked for twice before others have come; a mount that nobody uses does nothing.
"""

from __future__ import annotations

import gc
import logging

import trio

from s3mount.fs.namespace import Namespace
from s3mount.fs.volume import Volume

log = logging.getLogger(__name__)

# Longer than what a program does between two looks at a tree that it walks.
QUIET_S = 20.0
# Where others' changes are heard, the kernel is told to believe for minutes: longer than somebody thinks between two commands.
FOLLOWED_QUIET_S = 600.0

# Lookups that are too many for nobody, and too few to be worth anything: half a megabyte at most.
FEW = 1000
# Those of who asks whether the mount is still there.
PASSING = 20

# The kernel forgets 10,000 inodes in some 0.3 s of processor time, half of it ours: so this is a few percent of a core.
STEP, STEP_S = 500, 0.25
# Directories in line of which what belongs to them is made anew, and files that are made records, at a time: ten milliseconds.
SETTLED, FOLDED = 5000, 1000
# Without an answer of the kernel: ten seconds. What it has not forgotten by then somebody uses.
ANSWERED_STEPS = 40


class Cooling:
    """Has the kernel forget the cold inodes of one volume."""

    def __init__(self, volume: Volume, namespace: Namespace) -> None:
        self._volume = volume
        self._inodes = volume.inodes
        self._namespace = namespace
        self._settled = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            looked = self._inodes.looked
            await trio.sleep(self.quiet_s)
            if self._inodes.looked - looked <= PASSING and self._inodes.looked - self._settled > FEW:
                await self._cool()

    @property
    def quiet_s(self) -> float:
        """How long nobody must have looked."""
        return max(self._volume.options.metadata_ttl_s, FOLLOWED_QUIET_S if self._volume.can.changes else QUIET_S)

    async def _cool(self) -> None:
        inodes, left = self._inodes, self._inodes.in_line
        looked = inodes.looked
        while left > 0:
            if not inodes.is_waiting(STEP):
                self._namespace.have_forgotten(inodes.unused(STEP))
                left -= STEP
            await trio.sleep(STEP_S)
            if inodes.looked - looked > PASSING:
                return
        await self._answered()
        for _ in range(0, inodes.warm, FOLDED):
            inodes.fold(FOLDED)
            await trio.sleep(STEP_S)
        inodes.compact()
        gc.collect()
        for _ in range(0, inodes.in_line, SETTLED):
            inodes.settle(SETTLED)
            await trio.sleep(STEP_S)
        inodes.compact()
        gc.collect()
        log.debug("Nobody looks: of what the kernel was shown %d inodes are left", len(inodes))
        self._settled = looked

    async def _answered(self) -> None:
        """Until the kernel has answered all it was asked."""
        least, steps = self._inodes.asked, 0
        while self._inodes.asked and steps < ANSWERED_STEPS:
            await trio.sleep(STEP_S)
            steps = steps + 1 if self._inodes.asked >= least else 0
            least = min(least, self._inodes.asked)

"""The upkeep of an open folder: check, sweep, scrub, compact, rebuild, reindex.

Owns: handing each the parts of the folder that it needs.
Must not know: how any of it is done.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from s3mount.engine import rebuild
from s3mount.engine.check import Checker
from s3mount.engine.compact import Compactor, CompactReport
from s3mount.engine.core import Core
from s3mount.engine.parts import Parts
from s3mount.engine.rebuild import RebuildReport
from s3mount.engine.reindex import Reindexer
from s3mount.engine.replay import Progress
from s3mount.engine.scrub import Scrubber, ScrubReport
from s3mount.engine.segment import BEGINNING
from s3mount.engine.sweep import Sweeper, SweepReport
from s3mount.errors import StoreError

log = logging.getLogger(__name__)

# Leftovers younger than this stay: whoever looks into a crash finds its traces for an hour.
GRACE_SECONDS = 3600.0


class Maintenance(Core):
    """Every method is safe beside any number of threads and processes that use the folder, and can be repeated."""

    _looked_at = BEGINNING.segment
    _compactor: Compactor | None = None
    _thread: threading.Thread | None = None

    def check(self) -> list[str]:
        """One sentence for each invariant that does not hold; empty: all is well. Changes nothing."""
        return Checker(self._parts()).check()

    def sweep(self, *, grace_seconds: float = GRACE_SECONDS) -> SweepReport:
        """Remove what crashes and ended processes left, if nobody touched it for *grace_seconds*. Raises NoSpace, Unavailable."""
        self.leases.forget_ended()
        return Sweeper(self._parts()).sweep(grace_seconds=grace_seconds)

    def scrub(self, progress: Progress | None = None) -> ScrubReport:
        """Read every stored byte and compare it with its hash; what does not match goes to quarantine. *progress* is told bytes."""
        return Scrubber(self._parts()).scrub(progress)

    def compact(self) -> CompactReport:
        """Write a snapshot of the state and drop the log that it makes superfluous. Raises NoSpace, Unavailable; nothing is lost then."""
        return Compactor(self._parts(), self.clock_ns).compact()

    def compact_when_due(self) -> None:
        """Begin a compaction in a thread of its own if much of the log is dead. Looks once per segment; called at each sync."""
        segment = self.log.end().segment
        if segment == self._looked_at or (self._thread is not None and self._thread.is_alive()):
            return
        self._looked_at = segment
        compactor = Compactor(self._parts(), self.clock_ns)
        if compactor.is_due():
            self._compactor = compactor
            self._thread = threading.Thread(target=_compact_aside, args=(compactor,), name="s3mount-compact", daemon=True)
            self._thread.start()

    def stop_compacting(self) -> None:
        """On return no thread of ours compacts. Idempotent."""
        if self._compactor is not None and self._thread is not None:
            self._compactor.stop()
            self._thread.join()

    def _parts(self) -> Parts:
        return Parts(self.layout, self.disk, self.lock, self.log, self.index, self.owner, self.bodies, self.syncing)

    def rebuild_index(self) -> int:
        """Replay the log beside the index and swap the result in, while everybody goes on; the record it stands at. See `reindex`."""
        return Reindexer(self._parts()).reindex()

    @staticmethod
    def rebuild(folder: Path, *, salvage: bool = False, progress: Progress | None = None) -> RebuildReport:
        """See `rebuild.rebuild`: make the index of a folder that nobody has open anew."""
        return rebuild.rebuild(folder, salvage=salvage, progress=progress)


def _compact_aside(compactor: Compactor) -> None:
    try:
        report = compactor.compact(wait=False)
        log.info("The log was compacted: %d segments dropped, %d bytes freed.", report.segments, report.bytes)
    except StoreError as error:
        log.info("The log was not compacted now: %s", error)
    except Exception:
        log.exception("The log could not be compacted.")

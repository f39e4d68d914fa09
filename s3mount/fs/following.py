"""What others do to the store is heard while it happens, so that what the kernel was told may hold for long.

Owns: asking the store, and making the tables and the kernel forget what others touched.
Must not know: how the store knows; what the kernel's time-outs are.

A store that tells what others change (`Capabilities.changes`) is asked several times in each time-to-live, which keeps its promise: their
change shows here after that at the latest. What is told meanwhile is *lasting* (`Attr.lasting`):

    told key          late answers about it are asked for again (`Changes`); the kernel forgets the entry and the attributes
    its directories   are looked at again; one that is gone goes here and in the kernel
    told prefix       the same for all that we know below it
    lost, or failed   the same for all that we know; while the store cannot tell, nothing lasts

F1  Only what the table of inodes knows lasts, under a name that says its key: else nobody could say which entry is to be forgotten. So
    "there is no such name" does not last, nor do escaped names and what is in pseudo-directories.
F2  A live file does not last: what becomes of its commit is our doing. One that lasted is forgotten when it is displaced.
F3  A file with several links does not last: of a link that goes, its own key is all that is told.
F4  Directories are looked at from the top down: below one that is gone there is nothing to forget any more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import trio

from s3mount.errors import S3MountError
from s3mount.fs.inode import DirInode, FileInode
from s3mount.fs.names import name_in, place_of
from s3mount.fs.namespace import Namespace
from s3mount.fs.options import Invalidate
from s3mount.fs.volume import Volume
from s3mount.model import Changed

log = logging.getLogger(__name__)

# Seconds between questions: a part of the time-to-live, since the kernel takes its time to forget; a question costs 0.2 ms of CPU.
ASKED_PER_TTL = 3
ASKED_AT_LEAST_EVERY_S = 1.0
ASKED_AT_MOST_EVERY_S = 0.02

# Directories looked at in one go before others get their turn.
AT_ONCE = 100

LOST = Changed(lost=True)


class Following:
    """Follows one volume's store, where that tells."""

    def __init__(self, volume: Volume, namespace: Namespace) -> None:
        self._volume = volume
        self._namespace = namespace
        self._root = volume.options.root
        if volume.can.changes:
            volume.inodes.on_displaced = self._displaced

    @property
    def _kernel(self) -> Invalidate | None:
        return self._volume.invalidate

    async def run(self) -> None:
        """Until cancelled; returns at once where there is nothing to follow, or no time for which anything holds."""
        period = min(self._volume.options.metadata_ttl_s / ASKED_PER_TTL, ASKED_AT_LEAST_EVERY_S)
        if not self._volume.can.changes or period < ASKED_AT_MOST_EVERY_S:
            return
        try:
            while True:
                await self.ask()
                await trio.sleep(period)
        finally:
            self._volume.following = False

    async def ask(self) -> None:
        """Ask once, and heed the answer."""
        volume = self._volume
        try:
            changed = await volume.store.changed()
        except S3MountError as error:
            log.info("What others change is not told now: %s", error)
            changed, tells = LOST, False
        else:
            tells = True
        if not volume.following:
            changed = LOST  # what was told before was told by others' leave
        if changed and (tells or volume.following):
            volume.following = False
            await self.heed(changed)
        volume.following = tells

    async def heed(self, changed: Changed) -> None:
        """Forget what others *changed*."""
        keys, stems = self._touched(changed)
        changes = self._volume.changes
        if changed.lost or changed.prefixes:
            changes.note_all()
        for name in [*keys, *(stem[:-1] for stem in stems)]:
            changes.note(name)
        for stem in stems:
            self._doubt(stem)
        for key in keys:
            self._forget(key)
        for number, stem in enumerate(sorted(stems)):
            await self._look_again(stem)
            if number % AT_ONCE == AT_ONCE - 1:
                await trio.lowlevel.checkpoint()

    # -- what is touched ----------------------------------------------------------------

    def _touched(self, changed: Changed) -> tuple[set[str], set[str]]:
        """Keys of objects, and stems of directories that may have come or gone with them or say something else."""
        inodes, root = self._volume.inodes, self._root
        prefixes = {prefix for prefix in changed.prefixes if prefix.startswith(root)}
        if changed.lost or any(root.startswith(prefix) for prefix in changed.prefixes):
            prefixes = {root}
        keys = {key for key in changed.keys if key.startswith(root)}
        stems = {stem for name in keys | prefixes for stem in self._stems_of(name)}
        for prefix in prefixes:
            keys.update(inodes.below(prefix))
            stems.update(inode.key for inode in inodes.directories_below(prefix) if inode.key.endswith("/"))
        keys.update(stem[:-1] for stem in stems)  # a directory that comes or goes shadows the object of its name, or no longer does
        return {key for key in keys if len(key) > len(root)}, stems - {root, ""}

    def _stems_of(self, name: str) -> Iterable[str]:
        """The directories below the root on the way to *name*, itself included if it is one's."""
        at = len(self._root)
        while (at := name.find("/", at) + 1) > 0:
            yield name[:at]

    # -- forgetting -----------------------------------------------------------------------

    def _doubt(self, stem: str) -> None:
        inode = self._volume.inodes.directory_at(stem)
        if inode is not None:
            inode.seen_s = -math.inf

    def _forget(self, key: str) -> None:
        """The object *key*: its entries, under the names that it may show by, and what is known of its inode."""
        inodes = self._volume.inodes
        number = inodes.doubt(key)
        if self._kernel is None:
            return
        if number:
            self._kernel.attributes(number)
        stem = place_of(key)[0]
        parent = inodes.directory_at(stem)
        if parent is None:
            return
        for shadowed in (False, True):
            shown = name_in(stem, key, shadowed=shadowed)
            if shown is not None and (shadowed or inodes.directory_at(key + "/") is None):
                self._kernel.entry(parent.ino, shown.name)

    def _displaced(self, inode: FileInode, key: str) -> None:
        if self._volume.following and self._kernel is not None:
            self._kernel.attributes(inode.ino)
            self._forget(key)

    async def _look_again(self, stem: str) -> None:
        inode = self._volume.inodes.directory_at(stem)
        if inode is None:
            return
        try:
            await self._namespace.marker_of(inode)
        except S3MountError:
            self._forget_directory(inode, stem)  # whoever wants it asks, and hears why
            return
        if inode.gone:
            self._forget_directory(inode, stem)
        elif self._kernel is not None:
            self._kernel.attributes(inode.ino)

    def _forget_directory(self, inode: DirInode, stem: str) -> None:
        parent_stem, name = place_of(stem[:-1])
        parent = self._volume.inodes.directory_at(parent_stem)
        if self._kernel is not None and parent is not None:
            self._kernel.entry(parent.ino, name)

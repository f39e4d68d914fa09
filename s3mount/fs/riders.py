"""The inodes that go along with one rename, and come back where it fails.

Owns: what each of them was before.
Must not know: how keys are moved, names.

Whoever holds a file reads from its copy before the source goes (`copied`). Nobody lets go of it before the rename is over, so that it can
still be as it was (`back`).
"""

from __future__ import annotations

from dataclasses import dataclass

from s3mount.fs.files import Files
from s3mount.fs.inode import FileInode
from s3mount.fs.journal import Move
from s3mount.fs.live import Live
from s3mount.fs.volume import Volume
from s3mount.model import ETag, ObjectInfo


@dataclass(frozen=True, slots=True)
class Rider:
    """What *inode* was before; *unsaved*: it had attributes that went with the copy."""

    inode: FileInode
    etag: ETag
    mtime: str | None
    live: Live | None
    committed: ObjectInfo | None
    unsaved: bool


class Riders:
    """Those of one rename; use it as a context, within the right to move the names."""

    def __init__(self, volume: Volume, files: Files) -> None:
        self._volume = volume
        self._files = files
        self._riders: list[Rider] = []

    async def __aenter__(self) -> Riders:
        return self

    async def __aexit__(self, *failure: object) -> None:
        for rider in self._riders:
            if rider.live is not None:
                rider.live.holders -= 1
                await self._files.retire_if_idle(rider.inode)

    async def copied(self, move: Move, info: ObjectInfo) -> None:
        """As `carry.Riders`."""
        self._volume.changes.note(move.source)
        inode = self._volume.inodes.file_at(move.source)
        if inode is None or inode.etag != move.etag:
            return
        live = inode.live
        committed, unsaved = (None, False) if live is None else (live.content.committed, live.unsaved)
        self._riders.append(Rider(inode, inode.etag, inode.mtime, live, committed, unsaved))
        if live is not None:
            live.holders += 1
        await self._files.carried(inode, info)

    async def back(self) -> None:
        """As `carry.Riders`."""
        for rider in self._riders:
            inode, live = rider.inode, rider.live
            self._volume.changes.note(inode.key)
            if live is not None and rider.committed is not None:
                await live.content.carried(rider.committed, former=inode.etag)
                live.unsaved = live.unsaved or rider.unsaved
            inode.etag, inode.mtime = rider.etag, rider.mtime

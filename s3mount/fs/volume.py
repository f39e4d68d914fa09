"""What all rooms of a mounted file system share.

Owns: the store, the options, the table of inodes, the gate, and the few facts that only this mount knows.
Must not know: what is done with them.

Only this mount knows of
- new files that have no object yet (`fresh`, by key): they are looked up, listed and moved like the others;
- directories whose last key went (`kept`): without a marker nothing in the store says that they are there (see implied).

`following`: what others change is heard (see following); else it may go unnoticed for a time-to-live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from stat import S_IFREG

import trio

from s3mount.errors import NameTooLong, ReadOnly
from s3mount.fs.attrs import Attributes, Defaults, decode
from s3mount.fs.buffers import BufferPool
from s3mount.fs.early import Uploads
from s3mount.fs.gate import Changes, Gate
from s3mount.fs.implied import Kept
from s3mount.fs.inode import ROOT, DirInode, FileInode
from s3mount.fs.inodes import Inodes
from s3mount.fs.moving import Moving
from s3mount.fs.options import FsOptions, Invalidate
from s3mount.fs.slots import Slots
from s3mount.fs.staging import StagingArea
from s3mount.model import NO_METADATA, Absent, Attr, Condition, Key, Metadata, ObjectInfo, number_of
from s3mount.store.api import Commit, ObjectStore


class Volume:
    """One mounted prefix of one bucket."""

    def __init__(self, store: ObjectStore, options: FsOptions, *, clock_ns: Callable[[], int], invalidate: Invalidate | None) -> None:
        self.moving = None if store.capabilities.atomic_rename else Moving(store, options.journal)
        self.store = store = self.moving or store
        self.can = store.capabilities
        self.options = options
        self.clock_ns = clock_ns
        self.invalidate = invalidate
        self.began_ns = clock_ns()
        self.defaults = Defaults(options.file_mode & ~options.umask, options.dir_mode & ~options.umask, options.uid, options.gid)
        self._implied = decode(NO_METADATA, directory=True, mtime_ns=self.began_ns, defaults=self.defaults)
        self.inodes = Inodes(DirInode(ROOT, options.root, self._implied, marked=False), limit=options.inode_limit)
        self.gate = Gate()
        self.changes = Changes()
        self.fresh: dict[str, FileInode] = {}
        self.kept = Kept()
        self.live: set[FileInode] = set()
        self.touched: set[DirInode] = set()
        self.staging = StagingArea(store.staging, make_room=store.sync if store.staging is not None else None)
        self.buffers = BufferPool()
        self.uploads = Uploads(store, slots=Slots.within(options.upload_memory)) if self.can.early_parts else None
        self.unsynced = trio.Event()
        self.following = False

    @property
    def root(self) -> DirInode:
        return self.inodes.root

    def require_writable(self) -> None:
        if self.options.read_only:
            raise ReadOnly("The bucket is mounted read-only.")

    def require_key(self, key: str) -> None:
        """Raise NameTooLong for a key (or prefix) that no store takes."""
        limit = self.options.key_bytes
        if len(key) > limit // 4 and len(key.encode()) > limit:
            raise NameTooLong(f"The path makes a key of more than {limit} bytes.")

    def mutated(self, key: str) -> None:
        """The store has carried out a mutation of *key*."""
        self.changes.note(key)
        if not self.can.durable:
            self.unsynced.set()

    async def settle(self, prefix: str = "") -> None:
        """On return what was renamed to below *prefix* lies there. Raises StoreErrors."""
        if self.moving is not None:
            await self.moving.settle(prefix)

    async def arrive(self, key: str) -> None:
        """On return what stands under *key* may be changed, and is there. Raises StoreErrors."""
        if self.moving is not None:
            await self.moving.arrive(key)

    # -- attributes -------------------------------------------------------------------

    def implied_attributes(self) -> Attributes:
        """Of a directory that only keys imply; as old as the mount, and one for all."""
        return self._implied

    def directory_attributes(self, marker: ObjectInfo | None) -> Attributes:
        if marker is None:
            return self.implied_attributes()
        return decode(marker.metadata or NO_METADATA, directory=True, mtime_ns=marker.mtime_ns, defaults=self.defaults)

    def file_attributes(self, info: ObjectInfo) -> Attributes:
        return decode(info.metadata or NO_METADATA, directory=False, mtime_ns=info.mtime_ns, defaults=self.defaults)

    def file_attr(self, ino: int, info: ObjectInfo, *, lasting: bool) -> Attr:
        """What stat shows of the object *info* under the number *ino*."""
        if info.metadata:
            return attr_of(ino, self.file_attributes(info), size=info.size, nlink=info.links, lasting=lasting)
        given, moment = self.defaults, info.mtime_ns
        return Attr(ino, S_IFREG | given.file_mode, info.links, given.uid, given.gid, 0, info.size, moment, moment, moment, lasting)

    def marker_commit(self, inode: DirInode, metadata: Metadata) -> Commit:
        """How a marker is made for a directory that somebody sees: it keeps its number."""
        number = number_of(inode.key) if inode is self.root else inode.ino
        return Commit(condition=self.absent, metadata=metadata, file_id=number if self.can.links else 0)

    @property
    def absent(self) -> Condition:
        """The condition under which something new is made, as far as the store can judge it."""
        return Absent() if self.can.conditional_put else None

    def touch(self, directory: DirInode) -> None:
        """An entry of *directory* came, went or was renamed. Written to its marker before long."""
        directory.touched_ns = self.clock_ns()
        self.touched.add(directory)

    def check(self) -> None:
        if self.moving is not None:
            self.moving.check()
        self.kept.check()
        for key, inode in self.fresh.items():
            assert inode.key == key, f"fresh {inode}"
            assert inode.live is not None, f"fresh {inode}"
            assert inode.live.fresh, f"fresh {inode}"
        assert all(inode.live is not None for inode in self.live), "live"
        assert {inode for inode in self.inodes if isinstance(inode, FileInode) and inode.live is not None} == self.live, "live"

    # -- new files --------------------------------------------------------------------

    def fresh_below(self, prefix: str) -> Iterator[str]:
        return (key for key in self.fresh if key.startswith(prefix))

    def fresh_in(self, stem: str) -> tuple[Key, ...]:
        """Keys of new files directly in *stem*, or in its pseudo-directories."""
        return tuple(Key(key) for key in self.fresh_below(stem) if "/" not in key[len(stem) :])


def attr_of(ino: int, attributes: Attributes, *, size: int, nlink: int, lasting: bool = False) -> Attr:
    return Attr(
        ino=ino,
        mode=attributes.mode,
        nlink=nlink,
        uid=attributes.uid,
        gid=attributes.gid,
        rdev=attributes.rdev,
        size=size,
        atime_ns=attributes.atime_ns,
        mtime_ns=attributes.mtime_ns,
        ctime_ns=attributes.ctime_ns,
        lasting=lasting,
    )


def directory_attr(inode: DirInode, *, lasting: bool = False) -> Attr:
    attributes = inode.attributes
    touched = max(inode.touched_ns, 0)
    return Attr(
        ino=inode.ino,
        mode=attributes.mode,
        nlink=0 if inode.gone else DIRECTORY_LINKS,
        uid=attributes.uid,
        gid=attributes.gid,
        rdev=0,
        size=0,
        atime_ns=attributes.atime_ns,
        mtime_ns=touched or attributes.mtime_ns,
        ctime_ns=touched or attributes.ctime_ns,
        lasting=lasting,
    )


# Subdirectories are not counted: that would take a listing. find(1) relies on the number only where a file system vouches for it.
DIRECTORY_LINKS = 2

"""One inode: a directory, or anything else.

Owns: what is known of it.
Must not know: the table that it stands in (see inodes), stores, time, pyfuse3.
"""

from __future__ import annotations

import math
import secrets
from enum import Enum
from typing import ClassVar

from s3mount.fs.attrs import Attributes
from s3mount.fs.cold import Entry
from s3mount.fs.live import Live
from s3mount.model import NUMBER_BITS, ETag, ObjectInfo

ROOT = 1
# Of an inode that has no object yet.
NO_ETAG = ETag("")

# One for all: an empty set of its own costs 216 bytes.
NO_KEYS: frozenset[str] = frozenset()

# Directories that are made at a time: 110 KiB.
SLAB = 1024


class Standing(Enum):
    NAMED = "named"
    UNNAMED = "unnamed"
    UNLINKED = "unlinked"
    DISPLACED = "displaced"


def fresh_number() -> int:
    return secrets.randbits(NUMBER_BITS - 1) + 2


class FileInode:
    """Anything but a directory. `etag` is the version that this mount last saw or made; "" before there is one.

    `sure`: nobody has changed what stands under its key since this mount looked, or that would have been heard (see following).
    `was_live`: it has been, so that the kernel may have pages of it.
    `mtime` is that version's, as its metadata says it, None while this mount changes it: the kernel owns the time of a file that it knows,
    so that one set by somebody else shows only on another inode.
    """

    __slots__ = ("__weakref__", "etag", "file_id", "ino", "key", "live", "lookups", "mtime", "others", "standing", "sure", "was_live")

    def __init__(self, ino: int, key: str, *, etag: ETag, file_id: int) -> None:
        self.ino = ino
        self.key = key
        self.etag = etag
        self.mtime: str | None = None
        self.file_id = file_id
        self.lookups = 0
        self.standing = Standing.NAMED
        self.others = NO_KEYS
        self.sure = False
        self.was_live = False
        self.live: Live | None = None

    def __repr__(self) -> str:
        return f"<FileInode {self.ino} {self.key!r} {self.standing.value} lookups={self.lookups} {self.live!r}>"

    @property
    def keys(self) -> frozenset[str]:
        return self.others | {self.key}

    def is_version(self, info: ObjectInfo) -> bool:
        """Whether the object *info* is this inode's, as this mount knows it."""
        if info.file_id and info.file_id != self.file_id:
            return False
        if self.live is not None:
            return info.etag == self.etag or self.live.may_have_made(info)
        return info.etag == self.etag and (self.mtime is None or info.metadata is None or info.metadata.get("mtime") == self.mtime)

    def saw(self, info: ObjectInfo) -> None:
        """*info* is the version that this mount has just seen or made."""
        self.etag = info.etag
        self.mtime = time_of(info)

    def entry(self) -> Entry | None:
        """What a record would keep of it; None where that is not all there is."""
        if self.live is not None or self.standing is not Standing.NAMED or self.others or self.file_id or not self.lookups:
            return None
        return Entry(self.key, self.etag, self.mtime, self.lookups, self.sure, self.was_live)

    @classmethod
    def of(cls, ino: int, entry: Entry) -> FileInode:
        inode = cls(ino, entry.key, etag=ETag(entry.etag), file_id=0)
        inode.mtime, inode.lookups, inode.sure, inode.was_live = entry.mtime, entry.lookups, entry.sure, entry.was_live
        return inode


def time_of(info: ObjectInfo) -> str | None:
    return info.metadata.get("mtime") if info.metadata is not None else None


class DirInode:
    """A directory. `attributes` are those seen last, at the time `seen_s`; `touched_ns` is a later change of entries, not yet written."""

    __slots__ = ("attributes", "gone", "handles", "ino", "key", "lookups", "marked", "seen_s", "touched_ns")

    _blank: ClassVar[list[DirInode]] = []

    def __new__(cls, *_: object, **__: object) -> DirInode:
        if not cls._blank:
            cls._blank.extend([object.__new__(cls) for _ in range(SLAB)])
        return cls._blank.pop()

    def __init__(self, ino: int, stem: str, attributes: Attributes, *, marked: bool) -> None:
        self.ino = ino
        self.key = stem
        self.attributes = attributes
        self.marked = marked
        self.seen_s = -math.inf
        self.touched_ns = 0
        self.lookups = 0
        self.handles = 0
        self.gone = False

    def __repr__(self) -> str:
        return f"<DirInode {self.ino} {self.key!r} lookups={self.lookups}{' gone' if self.gone else ''}>"

    def settle(self) -> tuple[object, ...]:
        """Make what belongs to it anew, equal to what was there, which is given. (Python copies no number or text unless it has to.)"""
        former = self.ino, self.key, self.seen_s, (its := self.attributes)
        self.ino, self.key, self.seen_s = self.ino ^ 0, self.key.encode().decode(), self.seen_s + 0.0
        if self.marked:
            atime_ns, mtime_ns, ctime_ns = its.atime_ns ^ 0, its.mtime_ns ^ 0, its.ctime_ns ^ 0
            self.attributes = Attributes(its.mode, its.uid, its.gid, atime_ns, mtime_ns, ctime_ns, its.rdev, its.xattrs)
        return former


Inode = FileInode | DirInode

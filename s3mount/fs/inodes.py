"""The inodes that the kernel knows, or that somebody holds open.

Owns: numbers, lookup counts, and which key names which inode.
Must not know: stores, time, pyfuse3. Nothing here awaits, so every method is atomic.

A file inode's standing:

             +-- by_key[key] is it --+         another key is known
    add --> NAMED --unname--> UNLINKED       (NAMED again)
              |  \\--unname, links are left--> UNNAMED --name--> NAMED
              \\--displace (somebody else replaced or deleted the object)--> DISPLACED --name (our overwrite won)--> NAMED

    NAMED      lookups, readdir and commits find it under its keys.
    UNNAMED    this mount removed the names it knew; hard links are left whose keys nobody told us. Found again by its file id.
    UNLINKED   no name is left: handles go on, nothing is ever committed.
    DISPLACED  another object has its key, or none: handles keep the old version; an edit fails, a full overwrite takes the key back.

Directories are known by their stem, which ends with "/" unless it is the root of a bucket or a pseudo-directory.

Directories stay when the files shown with them go (see cooling). Python gives memory back by the MiB: a few hundred bytes of a directory in
each would keep it. So they are made many at a time, and what belongs to those that stay is made anew afterwards, together (`settle`).

Invariants (`check`):
I1  Every inode is stored under its number; numbers are 1 for the root, else 2 or more.
I2  A key or stem names at most one file or directory; exactly the NAMED files are named by `key` and `others`.
I3  What is neither looked up, live nor waiting to be written is not stored (but the root is).
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import ClassVar

from s3mount.errors import Stale
from s3mount.fs.attrs import Attributes
from s3mount.fs.live import Live
from s3mount.model import NUMBER_BITS, ETag, ObjectInfo

ROOT = 1
# Of an inode that has no object yet.
NO_ETAG = ETag("")

# One for all: an empty set of its own costs 216 bytes.
NO_KEYS: frozenset[str] = frozenset()

# How many inodes the kernel is asked to forget before it has forgotten any: the questions wait in a queue, a few hundred bytes each.
ASKED = 1024
# For how many we look in vain before we ask for others: four rounds of questions.
PATIENCE = 4096

# Numbers of inodes that are gone, kept until the line of those that may go is made anew: each is 56 bytes between others that stay.
GONE, GONE_PER = 1024, 16

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

    __slots__ = ("etag", "file_id", "ino", "key", "live", "lookups", "mtime", "others", "standing", "sure", "was_live")

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
        self.mtime = info.metadata.get("mtime") if info.metadata is not None else None


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


class Inodes:
    """The table. *limit*: how many inodes may be looked up before cold ones are named for expulsion.

    `looked` counts the lookups. `on_displaced` is told which inode no longer has which key.
    """

    def __init__(self, root: DirInode, *, limit: int) -> None:
        self.root = root
        self._limit = limit
        self.looked = 0
        self._by_ino: dict[int, Inode] = {}
        self._files: dict[str, FileInode] = {}
        self._directories: dict[str, DirInode] = {}
        self._clock: deque[int] = deque()
        self._asked: set[int] = set()
        self._patience = PATIENCE
        self._former: list[object] = []
        self.on_displaced: Callable[[FileInode, str], None] | None = None
        self._store(root)
        self._directories[root.key] = root

    def __repr__(self) -> str:
        return f"<Inodes {len(self._by_ino)}, {len(self._clock)} in line>"

    def __len__(self) -> int:
        return len(self._by_ino)

    def __iter__(self) -> Iterator[Inode]:
        return iter(list(self._by_ino.values()))

    # -- finding ----------------------------------------------------------------------

    def get(self, ino: int) -> Inode:
        """Raises Stale for a number that is not known (any more)."""
        inode = self._by_ino.get(ino)
        if inode is None:
            raise Stale("The file is not known any more; look its name up again.")
        return inode

    def find(self, ino: int) -> Inode | None:
        return self._by_ino.get(ino)

    def file_at(self, key: str) -> FileInode | None:
        return self._files.get(key)

    def directory_at(self, stem: str) -> DirInode | None:
        return self._directories.get(stem)

    def number(self, wanted: int) -> int:
        """*wanted*, unless another inode has it or it is none; then a fresh one."""
        while wanted < 2 or wanted in self._by_ino:
            wanted = fresh_number()
        return wanted

    # -- coming and going -------------------------------------------------------------

    def add(self, inode: Inode) -> None:
        """Store a new inode under its number and its key, which nothing else may have."""
        self._store(inode)
        if isinstance(inode, FileInode):
            assert inode.key not in self._files
            self._files[inode.key] = inode
        else:
            assert inode.key not in self._directories
            self._directories[inode.key] = inode

    def _store(self, inode: Inode) -> None:
        assert inode.ino not in self._by_ino
        self._by_ino[inode.ino] = inode
        self._clock.append(inode.ino)
        if len(self._clock) > len(self._by_ino) + len(self._by_ino) // GONE_PER + GONE:
            self._clock = deque(self._by_ino)

    def remember(self, inode: Inode) -> None:
        inode.lookups += 1
        self.looked += 1

    def forget(self, ino: int, count: int) -> None:
        """The kernel gives *count* lookups back; unknown numbers are passed over."""
        inode = self._by_ino.get(ino)
        if inode is not None:
            inode.lookups = max(0, inode.lookups - count)
            self.drop_if_unused(inode)

    def drop_if_unused(self, inode: Inode) -> None:
        if inode.lookups or inode is self.root or self._by_ino.get(inode.ino) is not inode:
            return
        if isinstance(inode, FileInode):
            if inode.live is not None:
                return
            for key in inode.keys:
                if self._files.get(key) is inode:
                    del self._files[key]
        else:
            if inode.handles or inode.touched_ns:
                return
            if self._directories.get(inode.key) is inode:
                del self._directories[inode.key]
        del self._by_ino[inode.ino]
        self._asked.discard(inode.ino)

    # -- going early ------------------------------------------------------------------

    @property
    def in_line(self) -> int:
        """How many numbers stand in the line of those that may go; of some the inode is gone already."""
        return len(self._clock)

    @property
    def asked(self) -> int:
        """How many the kernel has been asked to forget and has not forgotten yet."""
        return len(self._asked)

    def cold(self, count: int) -> list[Inode]:
        """Up to *count* looked-up inodes that nobody holds, oldest first, while there are more than the limit.

        Directories are among them only where they are more than the limit by themselves.
        The caller asks the kernel to forget them; until it has, no more than `ASKED` are named at a time.
        """
        if len(self._by_ino) <= self._limit or self.is_waiting(count):
            return []
        return self._next_in_line(count, self._is_idle, among=8 * count)

    def unused(self, among: int) -> list[Inode]:
        """Of the next *among* in line, the files that nobody has had open since they were looked up. As `cold` otherwise."""
        return self._next_in_line(among, self._is_unused, among=among)

    def _next_in_line(self, count: int, wanted: Callable[[Inode], bool], *, among: int) -> list[Inode]:
        found: list[Inode] = []
        for _ in range(min(among, len(self._clock))):
            ino = self._clock.popleft()
            inode = self._by_ino.get(ino)
            if inode is None:
                continue
            self._clock.append(ino)
            if ino not in self._asked and wanted(inode):
                found.append(inode)
                self._asked.add(ino)
                if len(found) == count:
                    break
        return found

    def _is_unused(self, inode: Inode) -> bool:
        return isinstance(inode, FileInode) and not inode.was_live and self._is_idle(inode)

    def _is_idle(self, inode: Inode) -> bool:
        if isinstance(inode, FileInode):
            return inode.live is None and inode.standing is Standing.NAMED
        if len(self._directories) <= self._limit or inode is self.root:
            return False
        return not (inode.handles or inode.touched_ns or inode.gone)

    def is_waiting(self, count: int) -> bool:
        """Whether the kernel has been asked to forget enough for now, by somebody who would ask for *count* more.

        What it does not forget after long is given up: somebody uses it.
        """
        if len(self._asked) < ASKED:
            self._patience = PATIENCE
            return False
        self._patience -= count
        if self._patience <= 0:
            self._asked.clear()
        return True

    def settle(self, among: int) -> None:
        """Of the next *among* in line, make what belongs to directories anew; `compact` comes before (it gives room back) and after."""
        for _ in range(min(among, len(self._clock))):
            self._clock.rotate(-1)
            if isinstance(inode := self._by_ino.get(self._clock[-1]), DirInode):
                self._former.append(inode.settle())

    def compact(self) -> None:
        """After many have gone: tables keep the room of their largest time otherwise, and of what has settled what it was before."""
        self._by_ino = {inode.ino: inode for inode in self._by_ino.values()}
        self._directories = {inode.key: inode for inode in self._directories.values()}
        self._files = dict(self._files)
        self._clock, self._asked, self._former = deque(self._by_ino), set(self._asked), []

    # -- names of files ---------------------------------------------------------------

    def name(self, inode: FileInode, key: str) -> None:
        """*key* names *inode* from now on; what it named before is displaced there."""
        former = self._files.get(key)
        if former is inode:
            return
        if former is not None:
            self._take(former, key, Standing.DISPLACED)
        if inode.standing is Standing.NAMED:
            inode.others = inode.keys - {key}
        inode.key, inode.standing = key, Standing.NAMED
        inode.others -= {key}
        self._files[key] = inode

    def unname(self, key: str, *, links_left: bool) -> FileInode | None:
        """*key* names nothing any more, because this mount removed it."""
        inode = self._files.get(key)
        if inode is not None:
            self._take(inode, key, Standing.UNNAMED if links_left else Standing.UNLINKED)
        return inode

    def displace(self, inode: FileInode) -> None:
        """Somebody else has replaced or removed the object under all its keys."""
        if inode.standing is Standing.NAMED:
            keys = inode.keys
            for key in keys:
                del self._files[key]
            inode.others, inode.standing = NO_KEYS, Standing.DISPLACED
            self.drop_if_unused(inode)
            for key in keys:
                self._tell(inode, key)

    def displace_at(self, key: str) -> None:
        """Somebody else has given *key* to another object."""
        inode = self._files.get(key)
        if inode is not None:
            self._take(inode, key, Standing.DISPLACED)

    def _take(self, inode: FileInode, key: str, standing: Standing) -> None:
        del self._files[key]
        rest = inode.keys - {key}
        if rest:
            inode.key = min(rest) if inode.key == key else inode.key
            inode.others = rest - {inode.key} or NO_KEYS
        else:
            inode.key, inode.standing = key, standing
            self.drop_if_unused(inode)
        if standing is Standing.DISPLACED:
            self._tell(inode, key)

    def _tell(self, inode: FileInode, key: str) -> None:
        if self.on_displaced is not None:
            self.on_displaced(inode, key)

    # -- moving -----------------------------------------------------------------------

    def move_files(self, names: Mapping[str, str]) -> list[FileInode]:
        """Rename keys at once; what a target named is displaced: somebody else removed it. The inodes that were moved."""
        moved = {target: self._files.pop(source) for source, target in names.items()}
        for target, inode in moved.items():
            self.displace_at(target)
            self._files[target] = inode
        inodes = list(dict.fromkeys(moved.values()))
        for inode in inodes:
            keys = {names.get(key, key) for key in inode.others}
            inode.key = names.get(inode.key, inode.key)
            inode.others = frozenset(keys - {inode.key}) or NO_KEYS
        return inodes

    def below(self, prefix: str) -> list[str]:
        """The keys of files below *prefix*."""
        return [key for key in self._files if key.startswith(prefix)]

    def directories_below(self, prefix: str) -> list[DirInode]:
        """*prefix* itself and those below."""
        return [inode for stem, inode in self._directories.items() if stem.startswith(prefix)]

    def move_directories(self, names: Mapping[str, str]) -> None:
        """Rename stems at once; what a target named is gone: somebody else removed it."""
        moved = {target: self._directories.pop(source) for source, target in names.items()}
        for stem, inode in moved.items():
            self.remove_directory(stem)
            inode.key = stem
            self._directories[stem] = inode

    def remove_directory(self, stem: str) -> None:
        inode = self._directories.pop(stem, None)
        if inode is not None:
            inode.gone, inode.touched_ns = True, 0
            self.drop_if_unused(inode)

    # -- invariants -------------------------------------------------------------------

    def check(self) -> None:
        named: set[str] = set()
        for ino, inode in self._by_ino.items():
            assert ino == inode.ino, "I1"
            assert ino >= 2 or inode is self.root, "I1"
            if isinstance(inode, FileInode):
                named |= self._check_file(inode)
            else:
                assert inode is self.root or inode.lookups or inode.handles or inode.touched_ns, f"I3 {inode}"
                assert (self._directories.get(inode.key) is inode) != inode.gone, f"I2 {inode}"
        assert named == set(self._files), "I2"
        assert all(inode.ino in self._by_ino for inode in self._directories.values()), "I2"

    def _check_file(self, inode: FileInode) -> set[str]:
        assert inode.lookups or inode.live is not None, f"I3 {inode}"
        if inode.standing is not Standing.NAMED:
            assert not inode.others, f"I2 {inode}"
            return set()
        assert inode.key not in inode.others, f"I2 {inode}"
        assert all(self._files.get(key) is inode for key in inode.keys), f"I2 {inode}"
        return set(inode.keys)

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

A file that the kernel was only told of is kept as a record (see cold), made into an object when somebody asks for it. As long as anybody
has the object it is the one that is found: of those made first it is tried in turn whether any is let go by all when the table lets it go,
and only then it is a record again (`_fold`). What is live, or stands in no ordinary way, stays an object.

    not known --add--> object --nobody has it, and `WARM` have come after it--> record --asked for--> object
              --show--> record

Directories stay when the files shown with them go (see cooling). Python gives memory back by the MiB: a few hundred bytes of a directory in
each would keep it. So they are made many at a time, and what belongs to those that stay is made anew afterwards, together (`settle`).

Invariants (`check`):
I1  Every inode is stored under its number, as an object or as a record; numbers are 1 for the root, else 2 or more.
I2  A key or stem names at most one file or directory; exactly the NAMED files are named by `key` and `others`.
I3  What is neither looked up, live nor waiting to be written is not stored (but the root is).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from weakref import ref

from s3mount.errors import Stale
from s3mount.fs.cold import SURE, Cold
from s3mount.fs.inode import NO_KEYS, DirInode, FileInode, Inode, Standing, fresh_number, time_of
from s3mount.fs.line import Line
from s3mount.model import ObjectInfo, number_of

# Bytes of a record that count as one inode of the limit, so that long keys do not make it a larger one: what an object takes.
RECORD = 400

# How many objects of files there may be before the oldest are tried: what a program works with is not folded and made anew all the time,
# which costs 10 us. Some 2 MiB.
WARM = 5000


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
        self._cold = Cold()
        self._warm: deque[int] = deque()
        self._line = Line(self._cold)
        self._former: list[object] = []
        self.on_displaced: Callable[[FileInode, str], None] | None = None
        self._store(root)
        self._directories[root.key] = root

    def __repr__(self) -> str:
        return f"<Inodes {len(self)}, {self.in_line} in line>"

    def __len__(self) -> int:
        return len(self._by_ino) + len(self._cold)

    def __iter__(self) -> Iterator[Inode]:
        """Those that are objects: all that anybody has."""
        return iter(list(self._by_ino.values()))

    # -- finding ----------------------------------------------------------------------

    def get(self, ino: int) -> Inode:
        """Raises Stale for a number that is not known (any more)."""
        inode = self.find(ino)
        if inode is None:
            raise Stale("The file is not known any more; look its name up again.")
        return inode

    def find(self, ino: int) -> Inode | None:
        inode = self._by_ino.get(ino)
        if inode is None and (place := self._cold.find(ino)):
            inode = self._unfolded(place)
        return inode

    def file_at(self, key: str) -> FileInode | None:
        inode = self._files.get(key)
        if inode is None and (place := self._cold.at(key)):
            inode = self._unfolded(place)
        return inode

    def knows(self, key: str) -> bool:
        """Whether there is a `file_at` *key*."""
        return key in self._files or self._cold.at(key) != 0

    def directory_at(self, stem: str) -> DirInode | None:
        return self._directories.get(stem)

    def number(self, wanted: int) -> int:
        """*wanted*, unless another inode has it or it is none; then a fresh one."""
        while wanted < 2 or wanted in self._by_ino or self._cold.find(wanted):
            wanted = fresh_number()
        return wanted

    # -- coming and going -------------------------------------------------------------

    def add(self, inode: Inode) -> None:
        """Store a new inode under its number and its key, which nothing else may have."""
        self._store(inode)
        if isinstance(inode, FileInode):
            self._store_file(inode)
        else:
            assert inode.key not in self._directories
            self._directories[inode.key] = inode

    def _store(self, inode: Inode) -> None:
        assert inode.ino not in self._by_ino
        self._by_ino[inode.ino] = inode
        self._line.join(inode.ino, self._by_ino)

    def _store_file(self, inode: FileInode) -> None:
        assert inode.key not in self._files
        self._files[inode.key] = inode
        if inode.file_id:
            return
        self._warm.append(inode.ino)
        self.fold(min(2, len(self._warm) - WARM))

    def remember(self, inode: Inode) -> None:
        inode.lookups += 1
        self.looked += 1

    def forget(self, ino: int, count: int) -> None:
        """The kernel gives *count* lookups back; unknown numbers are passed over."""
        inode = self._by_ino.get(ino)
        if inode is not None:
            inode.lookups = max(0, inode.lookups - count)
            self.drop_if_unused(inode)
        elif self._cold.forget(ino, count) == 0:
            self._line.left(ino)

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
        self._line.left(inode.ino)

    # -- files without an object ------------------------------------------------------

    def glance(self, key: str, info: ObjectInfo) -> tuple[int, int]:
        """The number under which *info* at *key* can be shown without an inode, 0 if it must have one; its place, 0 if it is not known."""
        if info.file_id or key in self._files or key.endswith("/") or key != info.key:
            return 0, 0
        number = number_of(key)
        place = self._cold.find(number)
        if not place:
            return 0 if number in self._by_ino else number, 0
        return number if self._cold.is_version(place, key, info.etag, info.metadata) else 0, place

    def show(self, number: int, place: int, info: ObjectInfo, *, sure: bool) -> None:
        """The kernel has been told of *info* what a `glance` has just said (nothing was called in between): a lookup more."""
        self.looked += 1
        if place:
            if self._cold.told(place, sure=sure):
                return
            file = self._unfolded(place)
            file.lookups += 1
        elif self._cold.insert(number, info.key, info.etag, time_of(info), lookups=1, flags=SURE if sure else 0):
            return
        else:
            file = FileInode(number, info.key, etag=info.etag, file_id=0)
            file.saw(info)
            file.lookups = 1
            self.add(file)
        file.sure = sure

    def doubt(self, key: str) -> int:
        """What stands under *key* is not sure any more. Its number, 0 where it is not known."""
        if (inode := self._files.get(key)) is not None:
            inode.sure = False
            return inode.ino
        if place := self._cold.at(key):
            self._cold.doubt(place)
            return self._cold.number(place)
        return 0

    def _unfolded(self, place: int) -> FileInode:
        """The object of the record at *place*, which is none any more."""
        ino = self._cold.number(place)
        self.add(inode := FileInode.of(ino, self._cold.take(place)))
        return inode

    def _fold(self, ino: int) -> None:
        """Make a record of an object, unless somebody has it. (Whoever calls must not: so it is given by number.)"""
        inode = self._by_ino.get(ino)
        if not isinstance(inode, FileInode):
            return
        entry = inode.entry()
        if entry is not None and self._files.get(entry.key) is inode:  # it is on its way to another key otherwise
            held = ref(inode)
            del self._by_ino[ino], self._files[entry.key], inode
            inode = held()
            renamed = inode is None and number_of(entry.key) != ino
            if inode is None and not renamed and self._cold.add(ino, entry):
                return
            self._by_ino[ino] = self._files[entry.key] = inode or FileInode.of(ino, entry)
            if renamed:
                return  # it stays an object
        self._warm.append(ino)

    @property
    def warm(self) -> int:
        """How many objects of files may become records."""
        return len(self._warm)

    def fold(self, among: int) -> None:
        """Of the next *among* of those, make records of what nobody has."""
        for _ in range(min(among, len(self._warm))):
            self._fold(self._warm.popleft())

    # -- going early ------------------------------------------------------------------

    @property
    def in_line(self) -> int:
        """How many stand in the line of those that may go; some are gone already."""
        return len(self._line)

    @property
    def asked(self) -> int:
        """How many the kernel has been asked to forget and has not forgotten yet."""
        return self._line.asked

    def cold(self, count: int) -> list[DirInode | str]:
        """Up to *count* looked-up inodes that nobody holds, oldest first, while there are more than the limit: of files the keys.

        Directories are among them only where they are more than the limit by themselves.
        The caller asks the kernel to forget them; until it has, no more than `ASKED` are named at a time.
        """
        self._cold.tidy()
        if max(len(self), self._cold.live // RECORD) <= self._limit or self._line.is_waiting(count):
            return []
        return self._line.next(count, self._if_idle, among=8 * count, live=True)

    def unused(self, among: int) -> list[DirInode | str]:
        """Of the next *among* in line, the files that nobody has had open since they were looked up. As `cold` otherwise."""
        return self._line.next(among, self._if_unused, among=among, live=False)

    def _if_unused(self, ino: int) -> DirInode | str | None:
        inode = self._by_ino[ino]
        return inode.key if isinstance(inode, FileInode) and not inode.was_live and self._is_idle(inode) else None

    def _if_idle(self, ino: int) -> DirInode | str | None:
        if not self._is_idle(inode := self._by_ino[ino]):
            return None
        return inode.key if isinstance(inode, FileInode) else inode

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
        return self._line.is_waiting(count)

    def settle(self, among: int) -> None:
        """Of the next *among* in line, make what belongs to directories anew; `compact` comes before (it gives room back) and after."""
        for ino in self._line.around(among):
            if isinstance(inode := self._by_ino.get(ino), DirInode):
                self._former.append(inode.settle())

    def compact(self) -> None:
        """After many have gone: tables keep the room of their largest time otherwise, and of what has settled what it was before."""
        self._by_ino = {inode.ino: inode for inode in self._by_ino.values()}
        self._directories = {inode.key: inode for inode in self._directories.values()}
        self._files, self._warm = dict(self._files), deque(self._warm)
        self._cold.compact()
        self._line.compact(self._by_ino)
        self._former = []

    # -- names of files ---------------------------------------------------------------

    def name(self, inode: FileInode, key: str) -> None:
        """*key* names *inode* from now on; what it named before is displaced there."""
        former = self.file_at(key)
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
        inode = self.file_at(key)
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
        inode = self.file_at(key)
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
        moved = {target: self._popped(source) for source, target in names.items()}
        for target, inode in moved.items():
            self.displace_at(target)
            self._files[target] = inode
        inodes = list(dict.fromkeys(moved.values()))
        for inode in inodes:
            keys = {names.get(key, key) for key in inode.others}
            inode.key = names.get(inode.key, inode.key)
            inode.others = frozenset(keys - {inode.key}) or NO_KEYS
        return inodes

    def _popped(self, key: str) -> FileInode:
        """Without its key it is no record; nor is it one with another (so it need not be tried)."""
        inode = self._files.pop(key, None)
        if inode is None:
            place = self._cold.at(key)
            ino = self._cold.number(place)
            self._store(inode := FileInode.of(ino, self._cold.take(place)))
        return inode

    def below(self, prefix: str) -> list[str]:
        """The keys of files below *prefix*."""
        return [*(key for key in self._files if key.startswith(prefix)), *self._cold.below(prefix)]

    def unfold_below(self, prefix: str) -> Iterator[list[FileInode]]:
        """Objects for the records below *prefix*, ten milliseconds' at a time; they stay objects while the caller has them.

        Others may run in between; a few may be left that became records meanwhile.
        """
        for numbers in self._cold.some_below(prefix):
            yield [self._unfolded(place) for number in numbers if (place := self._cold.find(number))]

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
        self._cold.check()
        for place in self._cold:
            entry = self._cold.entry(place)
            assert self._cold.number(place) not in self._by_ino, "I1"
            assert entry.key not in named, "I2"
            assert entry.lookups, "I3"

    def _check_file(self, inode: FileInode) -> set[str]:
        assert inode.lookups or inode.live is not None, f"I3 {inode}"
        if inode.standing is not Standing.NAMED:
            assert not inode.others, f"I2 {inode}"
            return set()
        assert inode.key not in inode.others, f"I2 {inode}"
        assert all(self._files.get(key) is inode for key in inode.keys), f"I2 {inode}"
        return set(inode.keys)

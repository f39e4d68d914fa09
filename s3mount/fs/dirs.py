"""Reading directories: any size, in pages, stable while entries come and go.

Owns: open directories, positions in them, and how entries are offered to the kernel.
Must not know: how pages become entries (see listing), the kernel's buffers.

An entry's position is its number in the order in which this handle first told it. What is remembered of a directory being read: the last
page's entries, eight bytes for each entry told (a hash of its name), and a mark for each page, from which the listing can go on.

    read on     the rest of the last page, then the next page of the listing
    position 0  begins anew: what came meanwhile is seen
    any other   goes back to the mark of its page and lists that stretch again: entries keep their positions, known by the hash of their
                names; what came since is passed over, what went is left out (POSIX leaves both open)

D1  An entry that was there all the time is told exactly once between position 0 and the end, whatever pages and seeks there are.
D2  What is told was there when it was told: an entry whose key this mount changed after the page was asked for is looked up again.
D3  The store may have listed a page before or after what this mount did meanwhile: what this mount alone knew at either time is added.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter

from s3mount.errors import BadHandle, Invalid
from s3mount.fs.inode import DirInode, FileInode
from s3mount.fs.listing import END, Extras, Listed, Mark, Merge, Sort, moved
from s3mount.fs.namespace import Namespace, Sight, live_attr
from s3mount.fs.volume import Volume, directory_attr
from s3mount.model import Attr, ObjectInfo, Page


@dataclass(frozen=True, slots=True)
class Told:
    """A page that was told: the position before its first entry, where its listing begins, and how far it went."""

    first: int
    mark: Mark
    until: str


@dataclass(slots=True)
class Window:
    """Entries of one page with their positions; `then` is the count of changes when it was asked for."""

    entries: list[tuple[int, Listed]]
    then: int


class DirHandle:
    """One opendir. `hashes[n]` is the hash of the name at position n + 1; `stem` is what the directory was called at the last page."""

    __slots__ = ("hashes", "inode", "merge", "pages", "stem", "window")

    def __init__(self, inode: DirInode) -> None:
        self.inode = inode
        self.rewind()

    def rewind(self) -> None:
        self.stem = self.inode.key
        self.merge = Merge(self.stem)
        self.pages: list[Told] = []
        self.hashes = array("q")
        self.window = Window([], 0)

    def follow(self) -> None:
        """The directory may have been renamed: go on under its new name."""
        old, new = self.stem, self.inode.key
        if old != new:
            self.pages = [Told(page.first, page.mark.moved(old, new), moved(page.until, old, new)) for page in self.pages]
            self.merge = Merge(new, self.merge.mark.moved(old, new))
            self.stem = new


Bare = tuple[int, ObjectInfo]
"""A file that needs no inode: its place among those without (see `Inodes.glance`), and its object."""

Offer = tuple[Attr, FileInode | DirInode | Bare]
"""What the kernel is told of an entry, and its inode, which need not be in the table yet."""

Take = Callable[[bytes, Attr, int], bool]
"""Told an entry's name, its attributes, and behind which position reading goes on; whether it is accepted."""

POSITION = itemgetter(0)


class Directories:
    """Open directories of one volume."""

    def __init__(self, volume: Volume, namespace: Namespace) -> None:
        self._volume = volume
        self._namespace = namespace
        self._handles: dict[int, DirHandle] = {}
        self._numbers = itertools.count(1)

    def open(self, inode: DirInode) -> int:
        fh = next(self._numbers)
        self._handles[fh] = DirHandle(inode)
        inode.handles += 1
        return fh

    def release(self, fh: int) -> None:
        inode = self._handle(fh).inode
        del self._handles[fh]
        inode.handles -= 1
        self._volume.inodes.drop_if_unused(inode)

    def inode_of(self, fh: int) -> DirInode:
        return self._handle(fh).inode

    def _handle(self, fh: int) -> DirHandle:
        handle = self._handles.get(fh)
        if handle is None:
            raise BadHandle("The directory is not open.")
        return handle

    # -- telling ----------------------------------------------------------------------

    async def read(self, fh: int, start: int, take: Take) -> None:
        """Offer entries behind the position *start* until one is not accepted. Each that is has been looked up once more.

        Where this fails none has: the kernel is told of the failure, and of nothing that it accepted before.
        """
        handle, accepted = self._handle(fh), list[int]()
        if start == 0:
            handle.rewind()
        try:
            await self._tell(handle, start, take, accepted)
        except BaseException:
            for ino in accepted:
                self._volume.inodes.forget(ino, 1)
            raise
        self._namespace.expel(len(accepted))

    async def _tell(self, handle: DirHandle, start: int, take: Take, accepted: list[int]) -> None:
        inodes = self._volume.inodes
        while not handle.inode.gone:
            told, then = False, handle.window.then
            for position, listed in self._behind(handle, start):
                told, start = True, position
                lasts = self._namespace.lasts(handle.inode, listed.name)
                offer = self._listed(listed, then, lasts=lasts) or await self._looked_up(handle.inode, listed, lasts=lasts)
                if offer is None:
                    continue
                attr, inode = offer
                if not take(listed.name, attr, position):
                    return
                if isinstance(inode, tuple):
                    inodes.show(attr.ino, *inode, sure=attr.lasting)
                else:
                    if inodes.find(attr.ino) is None:
                        inodes.add(inode)
                    inodes.remember(inode)
                accepted.append(attr.ino)
            if not told and not await self._next_window(handle, start):
                return

    def _behind(self, handle: DirHandle, start: int) -> Iterable[tuple[int, Listed]]:
        """The window's entries behind *start*, if the window begins there."""
        entries = handle.window.entries
        return entries[bisect_right(entries, start, key=POSITION) :] if entries and entries[0][0] <= start + 1 else ()

    async def _next_window(self, handle: DirHandle, start: int) -> bool:
        """Load the page that holds the entry behind *start*; False at the end."""
        handle.follow()
        while start >= len(handle.hashes):
            if handle.merge.mark.position == END:
                return False
            await self._read_on(handle)
            handle.follow()
        entries = handle.window.entries
        if not (entries and entries[0][0] <= start + 1 <= entries[-1][0]):
            await self._read_again(handle, start)
        return True

    async def _read_on(self, handle: DirHandle) -> None:
        mark, first, then = handle.merge.mark, len(handle.hashes), self._volume.changes.now
        listed = await self._page(handle, mark.position)
        if listed is None:
            return
        entries = handle.merge.feed(*listed)
        handle.hashes.extend(hash(entry.name) for entry in entries)
        handle.window = Window(list(enumerate(entries, first + 1)), then)
        handle.pages.append(Told(first, mark, handle.merge.mark.position))

    async def _read_again(self, handle: DirHandle, start: int) -> None:
        """List once more the stretch that holds the entry behind *start*; the entries have the positions they had."""
        number = max(at for at, page in enumerate(handle.pages) if page.first <= start)
        told = handle.pages[number]
        last = handle.pages[number + 1].first if number + 1 < len(handle.pages) else len(handle.hashes)
        positions = {handle.hashes[at]: at + 1 for at in range(told.first, last)}
        then = self._volume.changes.now
        merge, entries, after = Merge(handle.inode.key, told.mark), list[tuple[int, Listed]](), told.mark.position
        while True:
            listed = await self._page(handle, after)
            if listed is None:
                handle.follow()
                return await self._read_again(handle, start)
            page, extras = listed
            for entry in merge.feed(page, extras, until=told.until):
                if (position := positions.get(hash(entry.name))) is not None:
                    entries.append((position, entry))
            if page.next is None or page.next >= told.until:
                break
            after = page.next
        handle.window = Window(_with_ends(sorted(entries, key=lambda entry: entry[0]), told.first + 1, last), then)

    async def _page(self, handle: DirHandle, after: str) -> tuple[Page, Extras] | None:
        """None where the directory moved meanwhile: nobody can tell whether the store listed it before or after."""
        volume, stem, then = self._volume, handle.stem, self._volume.changes.now
        files, kept = volume.fresh_in(stem), volume.kept.directly_in(stem)
        page = await volume.store.list(stem, delimiter="/", after=after)
        await volume.gate.wait_back(stem)
        if handle.inode.key != stem or volume.changes.since(stem, then):
            return None
        return page, Extras(files, tuple(dict.fromkeys([*kept, *volume.kept.directly_in(stem)])))

    # -- one entry --------------------------------------------------------------------

    def _listed(self, listed: Listed, then: int, *, lasts: bool) -> Offer | None:
        """The entry as the listing told it, where that said all there is to say, and still holds."""
        info, volume = listed.info, self._volume
        if info is None or info.metadata is None or listed.key in volume.fresh or volume.changes.since(listed.key, then):
            return None
        if volume.gate.is_away(listed.key):
            return None
        return self._file(listed.key, info, lasts=lasts)

    async def _looked_up(self, directory: DirInode, listed: Listed, *, lasts: bool) -> Offer | None:
        """The entry as it is now; None where it is gone."""
        if not listed.name:
            return None
        try:
            return self._sighted(await self._namespace.see(directory, listed.name), lasts=lasts)
        except Invalid:
            return None

    def _sighted(self, sight: Sight, *, lasts: bool) -> Offer | None:
        if sight.directory:
            return self._directory(sight.stem, sight.marker, lasts=lasts)
        if sight.fresh is not None and sight.fresh.live is not None:
            return live_attr(sight.fresh, sight.fresh.live), sight.fresh
        return None if sight.object is None else self._file(sight.key, sight.object, lasts=lasts)

    def _file(self, key: str, info: ObjectInfo, *, lasts: bool) -> Offer:
        lasts = lasts and info.links == 1
        number, place = self._volume.inodes.glance(key, info)
        if number:
            return self._volume.file_attr(number, info, lasting=lasts), (place, info)
        known = self._namespace.known_file(key, info)
        if known is not None:
            return self._namespace.file_attr(known, info, lasting=lasts), known
        file = FileInode(self._namespace.file_number(key, info), key, etag=info.etag, file_id=info.file_id)
        file.saw(info)
        file.sure = lasts
        return self._volume.file_attr(file.ino, info, lasting=lasts), file

    def _directory(self, stem: str, marker: ObjectInfo | None, *, lasts: bool) -> Offer:
        if self._volume.inodes.directory_at(stem) is not None:
            known = self._namespace.directory_inode(stem, marker)
            return directory_attr(known, lasting=lasts), known
        attributes = self._volume.directory_attributes(marker)
        inode = DirInode(self._namespace.directory_number(stem, marker), stem, attributes, marked=marker is not None)
        return directory_attr(inode, lasting=lasts), inode

    def check(self) -> None:
        for handle in self._handles.values():
            assert [page.first for page in handle.pages] == sorted(page.first for page in handle.pages)
            assert handle.inode.handles > 0


def _with_ends(entries: list[tuple[int, Listed]], first: int, last: int) -> list[tuple[int, Listed]]:
    """A window reaches from *first* to *last* even where the entries there are gone."""
    gone = Listed(b"", Sort.FILE, "")
    if not entries or entries[0][0] != first:
        entries = [(first, gone), *entries]
    if entries[-1][0] != last:
        entries = [*entries, (last, gone)]
    return entries

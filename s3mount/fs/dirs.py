"""Reading directories: any size, in pages, stable while entries come and go.

Owns: open directories, positions in them, and entries offered to the kernel but not yet accepted.
Must not know: how pages become entries (see listing), the kernel's buffers.

An entry's position is its number in the order in which this handle first told it. What is remembered of a directory being read: the last
page's entries, eight bytes for each entry told (a hash of its name), and a mark for each page, from which the listing can go on.

    read on     the rest of the last page, then the next page of the listing
    position 0  begins anew: what came meanwhile is seen
    any other   goes back to the mark of its page and lists that stretch again: entries keep their positions, known by the hash of their
                names; what came since is passed over, what went is left out (POSIX leaves both open)

D1  An entry that was there all the time is told exactly once between position 0 and the end, whatever pages and seeks there are.
D2  What is told was there when it was told: an entry whose key this mount changed after the page was asked for is looked up again.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from s3mount.errors import BadHandle, Invalid
from s3mount.fs.inodes import DirInode, FileInode, Inode
from s3mount.fs.listing import END, Extras, Listed, Mark, Merge, Sort, moved
from s3mount.fs.namespace import Namespace, Sight, live_attr
from s3mount.fs.options import DirEntry
from s3mount.fs.volume import Volume, attr_of, directory_attr
from s3mount.model import Attr, ObjectInfo, Page, cheap_value


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


@cheap_value
class Offer:
    """What a number stands for that was told to the kernel, and that it may accept; whether that lasts."""

    directory: str | None
    key: str
    info: ObjectInfo | None
    lasts: bool = False


class Directories:
    """Open directories of one volume."""

    def __init__(self, volume: Volume, namespace: Namespace) -> None:
        self._volume = volume
        self._namespace = namespace
        self._handles: dict[int, DirHandle] = {}
        self._numbers = itertools.count(1)
        self._offers: dict[int, Offer] = {}

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

    async def read(self, fh: int, start: int) -> AsyncGenerator[DirEntry, None]:
        """Entries behind the position *start*."""
        handle = self._handle(fh)
        if start == 0:
            handle.rewind()
        while not handle.inode.gone:
            told, then = False, handle.window.then
            for position, listed in self._behind(handle, start):
                told, start = True, position
                lasts = self._namespace.lasts(handle.inode, listed.name)
                offered = self._listed(listed, then, lasts=lasts) or await self._looked_up(handle.inode, listed, lasts=lasts)
                if offered is None:
                    continue
                attr, self._offers[attr.ino] = offered
                try:
                    yield DirEntry(listed.name, attr, position)
                finally:
                    self._offers.pop(attr.ino, None)
            if not told and not await self._next_window(handle, start):
                return

    def _behind(self, handle: DirHandle, start: int) -> Iterator[tuple[int, Listed]]:
        """The window's entries behind *start*, if the window begins there."""
        entries = handle.window.entries
        if entries and entries[0][0] <= start + 1:
            skip = next((at for at, (position, _) in enumerate(entries) if position > start), len(entries))
            return iter(entries[skip:])
        return iter(())

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
        extras = Extras(volume.fresh_in(stem), tuple(volume.kept.directly_in(stem)))
        page = await volume.store.list(stem, delimiter="/", after=after)
        await volume.gate.wait_back(stem)
        return None if handle.inode.key != stem or volume.changes.since(stem, then) else (page, extras)

    # -- one entry --------------------------------------------------------------------

    def _listed(self, listed: Listed, then: int, *, lasts: bool) -> tuple[Attr, Offer] | None:
        """The entry as the listing told it, where that said all there is to say, and still holds."""
        info = listed.info
        if info is None or info.metadata is None or listed.key in self._volume.fresh or self._volume.changes.since(listed.key, then):
            return None
        if self._volume.gate.is_away(listed.key):
            return None
        return self._file(listed.key, info, lasts=lasts)

    async def _looked_up(self, directory: DirInode, listed: Listed, *, lasts: bool) -> tuple[Attr, Offer] | None:
        """The entry as it is now; None where it is gone."""
        if not listed.name:
            return None
        try:
            return self._sighted(await self._namespace.see(directory, listed.name), lasts=lasts)
        except Invalid:
            return None

    def _sighted(self, sight: Sight, *, lasts: bool) -> tuple[Attr, Offer] | None:
        if sight.directory:
            return self._directory(sight.stem, sight.marker, lasts=lasts)
        if sight.fresh is not None and sight.fresh.live is not None:
            return live_attr(sight.fresh, sight.fresh.live), Offer(None, sight.key, None)
        return None if sight.object is None else self._file(sight.key, sight.object, lasts=lasts)

    def _file(self, key: str, info: ObjectInfo, *, lasts: bool) -> tuple[Attr, Offer]:
        known = self._namespace.known_file(key, info)
        lasts = lasts and info.links == 1
        offer = Offer(None, key, info, lasts)
        if known is not None:
            return self._namespace.file_attr(known, info, lasting=lasts), offer
        number = self._namespace.file_number(key, info)
        attributes = self._volume.file_attributes(info)
        return attr_of(number, attributes, size=info.size, nlink=info.links, lasting=lasts), offer

    def _directory(self, stem: str, marker: ObjectInfo | None, *, lasts: bool) -> tuple[Attr, Offer]:
        offer = Offer(stem, stem, marker)
        if self._volume.inodes.directory_at(stem) is not None:
            return directory_attr(self._namespace.directory_inode(stem, marker), lasting=lasts), offer
        inode = DirInode(self._namespace.directory_number(stem, marker), stem, self._volume.directory_attributes(marker), marked=False)
        return directory_attr(inode, lasting=lasts), offer

    def remember(self, ino: int) -> None:
        """The kernel has accepted the entry that was offered under *ino*: one lookup more."""
        offer = self._offers.get(ino)
        inode: Inode | None = self._volume.inodes.find(ino)
        if inode is None and offer is not None:
            inode = self._take_up(ino, offer)
        if inode is not None:
            self._volume.inodes.remember(inode)
            self._namespace.expel()

    def _take_up(self, ino: int, offer: Offer) -> Inode | None:
        inodes = self._volume.inodes
        if offer.directory is not None:
            attributes = self._volume.directory_attributes(offer.info)
            inodes.add(directory := DirInode(ino, offer.directory, attributes, marked=offer.info is not None))
            return directory
        if offer.info is None:
            return None
        inodes.add(file := FileInode(ino, offer.key, etag=offer.info.etag, file_id=offer.info.file_id))
        file.saw(offer.info)
        file.sure = offer.lasts
        return file

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

"""From pages of a listing to the entries of a directory.

Owns: the merge of objects, common prefixes and what only this mount knows into names, page by page.
Must not know: stores, inodes, handles. Pure; nothing here awaits.

What makes it more than a loop:

1.  An object "a" comes long before the prefix "a/" ("a-b" and "a.txt" lie between), and whether a directory shadows it decides its name.
    So an object is held back until the listing has passed "a/". What is held at a time are beginnings of one another: few.
2.  A component may show as a pseudo-directory (see names), and many components as the same one: it is told once.
3.  The directory's own marker is no entry, unless it has data.
4.  New files and directories that no key stands for yet (`Extras`) belong in between.
5.  A second pass over the same stretch (a seek backwards) must stop where the first one did: `feed` takes only what lies up to `until`.

Entries come in the order of component + "/", a directory before the object that it shadows. `position` is the last key or prefix taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from s3mount.fs.names import begun, meaning, name_in
from s3mount.model import Key, ObjectInfo, Page

# Behind every key: no UTF-8 text sorts after it.
END = "\U0010ffff" * 2

# Pseudo-directories told of that are remembered: components with the same beginning are neighbours, but for a few odd characters.
TOLD = 16


class Sort(Enum):
    FILE = auto()
    DIRECTORY = auto()
    CONTINUED = auto()
    """A pseudo-directory on the way to long components."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry: `key` is an object's or a directory's stem; `info` is what the listing said, None where it said nothing."""

    name: bytes
    sort: Sort
    key: str
    info: ObjectInfo | None = None


@dataclass(frozen=True, slots=True)
class Extras:
    """What this mount knows to be in the directory, whatever the store says: keys of new files, stems of directories."""

    files: tuple[Key, ...] = ()
    directories: tuple[str, ...] = ()


NO_EXTRAS = Extras()


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a merge stands between two pages."""

    position: str
    held: tuple[tuple[str, ObjectInfo | None], ...] = ()
    told: tuple[bytes, ...] = ()

    def moved(self, old: str, new: str) -> Mark:
        """The same place after the directory was renamed."""
        return Mark(moved(self.position, old, new), tuple((moved(key, old, new), info) for key, info in self.held), self.told)


START = Mark("")


def moved(text: str, old: str, new: str) -> str:
    """*text* with the prefix *new* for *old*, if it has that."""
    return new + text[len(old) :] if text.startswith(old) and text != END else text


class Merge:
    """The entries of the directory *stem*, from pages of `list(stem, delimiter="/")` that are fed in order."""

    def __init__(self, stem: str, mark: Mark = START) -> None:
        self._stem = stem
        self._in_pieces = bool(begun(stem))
        self._position = mark.position
        self._held = list(mark.held)
        self._told = mark.told

    @property
    def mark(self) -> Mark:
        """From here a merge can begin again."""
        return Mark(self._position, tuple(self._held), self._told)

    def feed(self, page: Page, extras: Extras = NO_EXTRAS, *, until: str = END) -> Iterator[Listed]:
        """The entries that are certain now. The last page (`next` is None, or *until* lies within it) brings out all that it covers."""
        last = page.next is None
        end = until if last else min(until, self._last_of(page))
        for text, info, directory in self._items(page, extras, end):
            yield from self._pass(text)
            if directory:
                yield from self._directory(text)
            else:
                self._held.append((text, info))
        if end == END:
            yield from self._pass(END)
        self._position = max(self._position, end)

    def _last_of(self, page: Page) -> str:
        ends = [self._position]
        if page.objects:
            ends.append(page.objects[-1].key)
        if page.prefixes:
            ends.append(page.prefixes[-1])
        return max(ends)

    def _items(self, page: Page, extras: Extras, end: str) -> list[tuple[str, ObjectInfo | None, bool]]:
        """Keys and prefixes behind the position, in order, each once; the page's word goes before what is extra."""
        items: dict[tuple[str, bool], ObjectInfo | None] = {(info.key, False): info for info in page.objects}
        items.update({(prefix, True): None for prefix in page.prefixes})
        for key in extras.files:
            items.setdefault((key, False), None)
        for stem in extras.directories:
            items.setdefault((stem, True), None)
        inside = ((text, info, directory) for (text, directory), info in items.items() if self._position < text <= end)
        return sorted(inside, key=lambda item: (item[0], item[2]))

    def _pass(self, text: str) -> Iterator[Listed]:
        """Objects that no directory can shadow any more, now that *text* is reached."""
        while self._held and self._held[-1][0] + "/" < text:
            key, info = self._held.pop()
            yield from self._file(key, info, shadowed=False)

    def _directory(self, stem: str) -> Iterator[Listed]:
        yield from self._entry(stem[:-1], Listed(b"", Sort.DIRECTORY, stem), shadowed=False)
        if self._held and self._held[-1][0] + "/" == stem:
            key, info = self._held.pop()
            yield from self._file(key, info, shadowed=True)

    def _file(self, key: str, info: ObjectInfo | None, *, shadowed: bool) -> Iterator[Listed]:
        if key == self._stem and not self._in_pieces and (info is None or not info.size):
            return
        yield from self._entry(key, Listed(b"", Sort.FILE, key, info), shadowed=shadowed)

    def _entry(self, key: str, entry: Listed, *, shadowed: bool) -> Iterator[Listed]:
        shown = name_in(self._stem, key, shadowed=shadowed)
        if shown is None:
            return
        if not shown.continued:
            yield Listed(shown.name, entry.sort, entry.key, entry.info)
        elif shown.name not in self._told:
            self._told = (*self._told[-TOLD:], shown.name)
            yield Listed(shown.name, Sort.CONTINUED, meaning(self._stem, shown.name).key)

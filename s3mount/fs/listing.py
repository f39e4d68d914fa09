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

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from operator import itemgetter, lt

from s3mount.fs.names import Shown, begun, meaning, name_in, plain_names
from s3mount.model import Key, ObjectInfo, Page, cheap_value

# Behind every key: no UTF-8 text sorts after it.
END = "\U0010ffff" * 2

# Pseudo-directories told of that are remembered: components with the same beginning are neighbours, but for a few odd characters.
TOLD = 16


class Sort(Enum):
    FILE = auto()
    DIRECTORY = auto()
    CONTINUED = auto()
    """A pseudo-directory on the way to long components."""


@cheap_value
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

# A key with what the listing said of it, or (True) a prefix.
Item = tuple[str, ObjectInfo | None, bool]
TEXT = itemgetter(0)


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

    def feed(self, page: Page, extras: Extras = NO_EXTRAS, *, until: str = END) -> list[Listed]:
        """The entries that are certain now. The last page (`next` is None, or *until* lies within it) brings out all that it covers."""
        end = until if page.next is None else min(until, self._last_of(page))
        entries: list[Listed] = []
        held = self._held
        items = () if self._feed_plain(page, extras, end, entries) else self._items(page, extras, end)
        for text, info, directory in items:
            while held and held[-1][0] + "/" < text:
                self._tell_object(*held.pop(), entries, shadowed=False)
            if directory:
                self._tell_directory(text, entries)
            else:
                held.append((text, info))
        while held and end == END:
            self._tell_object(*held.pop(), entries, shadowed=False)
        self._position = max(self._position, end)
        return entries

    def _feed_plain(self, page: Page, extras: Extras, end: str, entries: list[Listed]) -> bool:
        """Whether the page is of files alone that show as they are called, in that order: large directories are made of such."""
        objects = page.objects[1:] if page.objects and page.objects[0].key == self._stem and not page.objects[0].size else page.objects
        if page.prefixes or extras.files or extras.directories or len(objects) < 2:
            return False
        keys = [info.key for info in objects]
        names = plain_names(self._stem, keys)
        if names is None or keys[0] <= self._position or keys[-1] > end or not all(map(lt, [key + "/" for key in keys], keys[1:])):
            return False
        held = self._held
        while held and held[-1][0] + "/" < keys[0]:
            self._tell_object(*held.pop(), entries, shadowed=False)
        if held:
            return False
        held.append((keys.pop(), objects[-1]))
        entries += [Listed(name, Sort.FILE, key, info) for name, key, info in zip(names, keys, objects, strict=False)]
        return True

    def _last_of(self, page: Page) -> str:
        ends = [self._position]
        if page.objects:
            ends.append(page.objects[-1].key)
        if page.prefixes:
            ends.append(page.prefixes[-1])
        return max(ends)

    def _items(self, page: Page, extras: Extras, end: str) -> list[Item]:
        """Keys and prefixes behind the position, in order, each once; the page's word goes before what is extra."""
        items: list[Item] = [(info.key, info, False) for info in page.objects]
        items += [(prefix, None, True) for prefix in page.prefixes]
        if extras.files or extras.directories:
            known = {(text, directory) for text, _, directory in items}
            items += [(key, None, False) for key in extras.files if (key, False) not in known]
            items += [(stem, None, True) for stem in extras.directories if (stem, True) not in known]
        items = [item for item in items if self._position < item[0] <= end]
        items.sort(key=TEXT)
        return items

    def _tell_directory(self, stem: str, entries: list[Listed]) -> None:
        shown = name_in(self._stem, stem[:-1])
        if shown is not None:
            entries += self._shown(shown, Sort.DIRECTORY, stem, None)
        if self._held and self._held[-1][0] + "/" == stem:
            self._tell_object(*self._held.pop(), entries, shadowed=True)

    def _tell_object(self, key: str, info: ObjectInfo | None, entries: list[Listed], *, shadowed: bool) -> None:
        if key == self._stem and not self._in_pieces and (info is None or not info.size):
            return
        shown = name_in(self._stem, key, shadowed=shadowed)
        if shown is not None:
            entries += self._shown(shown, Sort.FILE, key, info)

    def _shown(self, shown: Shown, sort: Sort, key: str, info: ObjectInfo | None) -> Iterable[Listed]:
        if not shown.continued:
            return (Listed(shown.name, sort, key, info),)
        if shown.name in self._told:
            return ()
        self._told = (*self._told[-TOLD:], shown.name)
        return (Listed(shown.name, Sort.CONTINUED, meaning(self._stem, shown.name).key),)

"""From one directory to the next: where a walk of a tree goes on.

Owns: the order of directories, in each of the two orders in which trees are walked, and whether walks keep to it.
Must not know: files, what is fetched. Pure, but for asking `Siblings`.

A walk enters, behind the place where it is in a directory, what lies below that place; then the directories beside it, each with all below:

    a/ --> a/x/ --> a/y/ --> b/ --> b/x/ ...        by name: tar, grep -r, loaders that sort
                                                    by number: cp -r and others that sort each directory by inode (gnulib)

Nothing is expected before one step was as expected, so that whoever reads a single directory costs nothing more; nothing outside the
directory in which steps were seen, so that a walk which ends has nothing beyond its end fetched; and nothing for a while after a step that
was not (a loader that takes directories in no order).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import Protocol

from s3mount.cache.texts import parent_of
from s3mount.model import number_of

# Directories among which the next one must be: those without files are passed through.
NEXT = 8
# Steps that count, for better or worse.
TRUST = 2
# Directories whose order is remembered, and for how many seconds.
FAMILIES = 256
FRESH_SECONDS = 10.0

BY_NAME, BY_NUMBER = 0, 1


class Directories(Protocol):
    """What the listings know of directories, at no cost."""

    def directories(self, stem: str) -> Sequence[str] | None:
        """The directories in *stem*, as it ends with "/", in byte order; None where *stem* is not listed."""
        ...


class Onward:
    """Where walks in *order* go on."""

    def __init__(self, order: int) -> None:
        self.order = order
        self._families: OrderedDict[str, tuple[float, list[tuple[str | int, str]]]] = OrderedDict()
        self._trust = 0
        self._top: str | None = None

    def __repr__(self) -> str:
        return f"<Onward below {self._top!r} trust {self._trust}>"

    @property
    def keeps(self) -> bool:
        """Whether the last steps were all in this order."""
        return self._trust == TRUST

    def step(self, listings: Directories, here: str, there: str, now: float) -> None:
        """Somebody who was in the directory *here* is in *there* now."""
        if there not in islice(self._after(listings, here, "", now), NEXT):
            self._trust = max(self._trust - 1, -1)
            return
        self._trust = min(self._trust + 1, TRUST)
        top = _common(here, there)
        if self._top is None or not self._top.startswith(top):
            self._top = top

    def following(self, listings: Directories, here: str, key: str, now: float) -> Iterator[str]:
        """The directories that a walk enters next, from *key* in *here* on. Nothing where that is not known well enough."""
        top = self._top
        if self._trust <= 0 or top is None or not here.startswith(top):
            return iter(())
        return takewhile(lambda stem: stem.startswith(top), self._after(listings, here, key, now))

    def _after(self, listings: Directories, here: str, key: str, now: float) -> Iterator[str]:
        place = self._place(key) if key else None
        for stem in self._beyond(listings, here, place, now):
            yield from self._tree(listings, stem, now)
        while here:
            above = parent_of(here)
            for stem in self._beyond(listings, above, self._place(here), now):
                yield from self._tree(listings, stem, now)
            here = above

    def _tree(self, listings: Directories, stem: str, now: float) -> Iterator[str]:
        yield stem
        for child in self._beyond(listings, stem, None, now):
            yield from self._tree(listings, child, now)

    def _beyond(self, listings: Directories, stem: str, place: str | int | None, now: float) -> Iterator[str]:
        """The directories in *stem* behind *place*."""
        family = self._family(listings, stem, now)
        first = 0 if place is None else bisect_right(family, place, key=lambda member: member[0])
        return (member for _, member in islice(family, first, None))

    def _family(self, listings: Directories, stem: str, now: float) -> list[tuple[str | int, str]]:
        known = self._families.get(stem)
        if known is not None and now < known[0] + FRESH_SECONDS:
            return known[1]
        directories = listings.directories(stem)
        if directories is None:
            return []
        family = sorted((self._place(directory), directory) for directory in directories)
        self._families[stem] = now, family
        self._families.move_to_end(stem)
        if len(self._families) > FAMILIES:
            self._families.popitem(last=False)
        return family

    def _place(self, key: str) -> str | int:
        """What directories and files of one directory are sorted by: byte order is that of the code points."""
        return number_of(key) if self.order == BY_NUMBER else key


def _common(one: str, other: str) -> str:
    """The directory that both lie in."""
    while not other.startswith(one) or one == other:
        one = parent_of(one)
    return one

"""Files read one after the other in the order of their directory: which will be next.

Owns: what order a walk follows, where it is, how far ahead of it to look.
Must not know: how files are fetched, what is cached. Pure, but for asking `Siblings`.

Two orders are walked in practice: that of the listing (`tar`, `grep -r`, loaders that sort), and that of the inode numbers (`cp -r`:
gnulib sorts a directory so before it opens its files). A read of one file moves a head of the walk in either order:

                       head.at                     reach
    ... o  o  o  o  o  o  #  o  o  o  o  o  o  o  o  o |  o  o  o       # the file read last, o its siblings in that order
                  |<-GAP->|<-GAP->|                    |
                  a read here is    asked ahead up to here: DEPTHS[score] files, BYTES bytes
                  the same walk

Small gaps (what is cached, what is filtered out) and several readers out of step stay one walk; far from every head a read begins another.
Only steps forward count. The first two reads in a directory cost what they cost; a directory that is entered while a walk is under way
elsewhere is taken to be next on it from its first file on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from s3mount.model import MiB, ObjectInfo, number_of

# As many workers as a loader has, and as many files as a filter drops in between.
GAP = 8
# Files to be asked ahead after so many steps. The last fills every connection twice.
DEPTHS = (0, 4, 16, 64)
SURE = len(DEPTHS) - 1
# Unread bytes asked ahead of one walk: half a second of one good line.
BYTES = 32 * MiB
# Heads in one directory: readers that walk it each on their own.
HEADS = 8
# A directory larger than this is walked in the order of its listing alone, by stretches.
COMPLETE = 20_000
STRETCH = 1024
# All that is remembered of listings: some 20 MB.
REMEMBERED = 50_000
# Until then what was listed is believed to be what is there; a version that is not any more costs one refused request.
FRESH_SECONDS = 10.0
# A walk that paused longer is over.
IDLE_SECONDS = 10.0


class Siblings(Protocol):
    """What the listings know, at no cost."""

    def after(self, key: str, count: int) -> Sequence[ObjectInfo]:
        """Up to *count* objects of *key*'s directory (what lies before its last "/") behind *key*, in byte order. Empty: not known."""
        ...


class NoSiblings:
    def after(self, key: str, count: int) -> Sequence[ObjectInfo]:
        return ()


class Order:
    """A directory's files in one order."""

    __slots__ = ("files", "places")

    def __init__(self, files: Sequence[ObjectInfo]) -> None:
        self.files = files
        self.places = {info.key: place for place, info in enumerate(files)}


@dataclass(slots=True, eq=False)
class Head:
    """One reader's place in one order. Files up to place `reach` were asked ahead."""

    order: int
    at: int
    reach: int
    score: int = 0
    moved: float = 0.0


@dataclass(slots=True)
class Directory:
    """`orders` is empty until a second file is read here."""

    first: ObjectInfo
    listed: float = 0.0
    complete: bool = True
    orders: list[Order] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a read leads to: files to fetch for *head*, and the heads that are over. What lies before place `passed` was left out."""

    head: Head | None
    files: tuple[tuple[int, ObjectInfo], ...]
    passed: int
    over: tuple[Head, ...]


class Walks:
    """All walks; of each file its first *most* bytes are what is fetched ahead, of each walk *room* bytes."""

    def __init__(self, siblings: Siblings, *, most: int, room: int = BYTES) -> None:
        self.siblings = siblings
        self._most = most
        self._room = min(BYTES, room)
        self._directories: OrderedDict[str, Directory] = OrderedDict()
        self._sure_until = -1.0
        self._sure_order = 0
        self._over: list[Head] = []

    def read(self, info: ObjectInfo, now: float) -> Ahead:
        """A file is read for the first time since it was opened."""
        name = info.key[: info.key.rfind("/") + 1]
        directory = self._directories.get(name)
        if directory is None:
            directory = self._directories[name] = Directory(info)
            if now > self._sure_until:
                return self._ahead(directory, None)
        self._directories.move_to_end(name)
        if not directory.orders and directory.first.key == info.key and now > self._sure_until:
            return self._ahead(directory, None)
        self._list(name, directory, info, now)
        head = self._step(directory, info, now)
        return self._ahead(directory, head)

    # -- the directory ------------------------------------------------------------------

    def _list(self, name: str, directory: Directory, info: ObjectInfo, now: float) -> None:
        """Have its files in each order, unless they are known and fresh."""
        fresh = directory.orders and now < directory.listed + FRESH_SECONDS
        if fresh and (directory.complete or self._far_from_end(directory, info)):
            return
        former, directory.listed = directory.orders, now
        files = self.siblings.after(name, COMPLETE)
        directory.complete = len(files) < COMPLETE
        if not directory.complete:
            anchor = info if former else directory.first
            files = (anchor, *self.siblings.after(anchor.key, STRETCH))
        directory.orders = [Order(files)]
        if directory.complete:
            directory.orders.append(Order(sorted(files, key=lambda sibling: sibling.file_id or number_of(sibling.key))))
        self._carry_over(directory, former, now)
        self._forget_directories()

    def _far_from_end(self, directory: Directory, info: ObjectInfo) -> bool:
        place = directory.orders[0].places.get(info.key)
        return place is not None and place + DEPTHS[-1] < len(directory.orders[0].files)

    def _carry_over(self, directory: Directory, former: list[Order], now: float) -> None:
        """Put the heads where they are in the new orders; at first, before the file read first."""
        heads, directory.heads = directory.heads, []
        if not former:
            directory.heads = self._heads_at(directory, directory.first, now)
            self._trust(directory, now)
        for head in heads:
            key = former[head.order].files[head.at].key
            place = directory.orders[head.order].places.get(key) if head.order < len(directory.orders) else None
            if place is None and not directory.complete:
                place = 0
            if place is None:
                self._over.append(head)
            else:
                head.at = head.reach = place
                directory.heads.append(head)

    def _trust(self, directory: Directory, now: float) -> None:
        """Begin where a walk begins, and one is under way: this is its next directory."""
        for head in directory.heads:
            if now <= self._sure_until and head.order == self._sure_order and head.at < GAP:
                head.score = SURE - 1

    def _heads_at(self, directory: Directory, info: ObjectInfo, now: float) -> list[Head]:
        places = [order.places.get(info.key) for order in directory.orders]
        return [Head(number, place, place, moved=now) for number, place in enumerate(places) if place is not None]

    def _forget_directories(self) -> None:
        while (
            len(self._directories) > 1 and sum(len(order.files) for d in self._directories.values() for order in d.orders[:1]) > REMEMBERED
        ):
            _, directory = self._directories.popitem(last=False)
            self._over.extend(directory.heads)

    # -- the walk -----------------------------------------------------------------------

    def _step(self, directory: Directory, info: ObjectInfo, now: float) -> Head | None:
        """The head that this read belongs to, moved."""
        near = []
        for head in directory.heads:
            place = directory.orders[head.order].places.get(info.key)
            if place is not None and abs(place - head.at) <= GAP:
                near.append((head.score, -abs(place - head.at), place, head))
        if not near:
            self._begin(directory, info, now)
            return None
        for _, _, place, head in near:
            head.moved = now
            if place > head.at:
                head.at, head.reach = place, max(head.reach, place)
                head.score = min(head.score + 1, SURE)
        best = max(near, key=lambda entry: entry[:2])[3]
        if best.score == SURE:
            self._sure_until, self._sure_order = now + IDLE_SECONDS, best.order
        return best

    def _begin(self, directory: Directory, info: ObjectInfo, now: float) -> None:
        heads = directory.heads + self._heads_at(directory, info, now)
        heads.sort(key=lambda head: head.moved)
        directory.heads = heads[-HEADS:]
        self._over.extend(heads[:-HEADS])

    def _ahead(self, directory: Directory, head: Head | None) -> Ahead:
        over, self._over = tuple(self._over), []
        if head is None or not DEPTHS[head.score]:
            return Ahead(None, (), 0, over)
        order = directory.orders[head.order]
        files = []
        size = 0
        for place in range(head.at + 1, min(head.at + 1 + DEPTHS[head.score], len(order.files))):
            info = order.files[place]
            size += min(info.size, self._most)
            if size > self._room:
                break
            if place > head.reach:
                files.append((place, info))
                head.reach = place
        return Ahead(head, tuple(files), head.at - GAP, over)

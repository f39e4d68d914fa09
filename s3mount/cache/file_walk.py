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

A sure walk near the end of its directory looks into those that follow (see onward): as many files as it would look at here. They are waited
for by a head before their first file. Of those that are sorted by number, what is not listed yet is listed: in the order of names, whoever
knows the listings is ahead by himself, and with fewer requests (see walks).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from s3mount.cache.onward import BY_NAME, BY_NUMBER, Directories, Onward
from s3mount.cache.texts import stem_of
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
# All that is remembered of listings: some 20 MB; and directories, be their files known or not.
REMEMBERED = 50_000
DIRECTORIES = 1000
# Until then what was listed is believed to be what is there; a version that is not any more costs one refused request.
FRESH_SECONDS = 10.0
# A walk that paused longer is over.
IDLE_SECONDS = 10.0
# A directory that is not listed yet is taken to have as many files, so that a few of them are listed at a time.
UNLISTED = 8
# Files from one look at the directories that follow to the next.
LOOK_EVERY = 4
# The place of a head that nobody has come to.
BEFORE = -1


class Siblings(Directories, Protocol):
    """What the listings know, at no cost."""

    def after(self, key: str, count: int) -> Sequence[ObjectInfo]:
        """Up to *count* objects of *key*'s directory (what lies before its last "/") behind *key*, in byte order. Empty: not known."""
        ...

    def list_ahead(self, stem: str) -> None:
        """Have the directory *stem* listed, unless it is."""
        ...


class NoSiblings:
    def after(self, key: str, count: int) -> Sequence[ObjectInfo]:
        return ()

    def directories(self, stem: str) -> Sequence[str] | None:
        return None

    def list_ahead(self, stem: str) -> None:
        """There is nobody who could."""


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
    """`orders` is empty until a second file is read here. `look`: the place from which on those that follow are looked at again."""

    first: ObjectInfo
    look: int = 0
    listed: float = 0.0
    complete: bool = True
    orders: list[Order] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a read leads to: files to fetch for *head*, and the heads that are over. What lies before place `passed` was left out.

    `onward`: the same for the directories that follow.
    """

    head: Head | None
    files: tuple[tuple[int, ObjectInfo], ...]
    passed: int
    over: tuple[Head, ...] = ()
    onward: tuple[Ahead, ...] = ()


class Walks:
    """All walks; of each file its first *most* bytes are what is fetched ahead, of each walk *room* bytes."""

    def __init__(self, siblings: Siblings, *, most: int, room: int = BYTES) -> None:
        self.siblings = siblings
        self._most = most
        self._room = min(BYTES, room)
        self._directories: OrderedDict[str, Directory] = OrderedDict()
        self._sure_until = -1.0
        self._sure_order = 0
        self._onward = tuple(Onward(order) for order in (BY_NAME, BY_NUMBER))
        self._here: str | None = None
        self._since = 0.0
        self._over: list[Head] = []

    def read(self, info: ObjectInfo, now: float) -> Ahead:
        """A file is read for the first time since it was opened."""
        name = stem_of(info.key)
        self._enter(name, now)
        directory = self._directories.get(name)
        if directory is None:
            directory = self._directories[name] = Directory(info)
            if len(self._directories) > DIRECTORIES:
                self._over.extend(self._directories.popitem(last=False)[1].heads)
            if now > self._sure_until:
                return self._ahead(directory, None)
        self._directories.move_to_end(name)
        if not directory.orders and directory.first.key == info.key and now > self._sure_until:
            return self._ahead(directory, None)
        self._list(name, directory, info, now)
        head = self._step(directory, info, now)
        if head is None or head.score < SURE:
            return self._ahead(directory, head)
        self._sure_until, self._sure_order = now + IDLE_SECONDS, head.order
        return self._ahead(directory, head, self._beyond(name, directory, head, now))

    def _enter(self, name: str, now: float) -> None:
        """A file of *name* is read. Directories that are entered in order are a walk, however few files they have."""
        if self._here not in (None, name) and now <= self._since + IDLE_SECONDS:
            for onward in self._onward:
                onward.step(self.siblings, self._here or "", name, now)
                if onward.keeps:
                    self._sure_until, self._sure_order = now + IDLE_SECONDS, onward.order
        self._here, self._since = name, now

    # -- the directory ------------------------------------------------------------------

    def _list(self, name: str, directory: Directory, info: ObjectInfo, now: float) -> None:
        """Have its files in each order, unless they are known and fresh."""
        fresh = directory.orders and now < directory.listed + FRESH_SECONDS
        if fresh and (directory.complete or self._far_from_end(directory, info)):
            return
        former, directory.listed = directory.orders, now
        self._sort(directory, self.siblings.after(name, COMPLETE), info if former else directory.first)
        self._carry_over(directory, former, now)
        self._forget_directories()

    def _sort(self, directory: Directory, files: Sequence[ObjectInfo], anchor: ObjectInfo) -> None:
        """Set the orders of *directory*: of *files*, or of a stretch from *anchor* on where they are too many."""
        directory.complete = len(files) < COMPLETE
        if not directory.complete:
            files = (anchor, *self.siblings.after(anchor.key, STRETCH))
        directory.look = 0
        directory.orders = [Order(files)]
        if directory.complete:
            directory.orders.append(Order(sorted(files, key=lambda sibling: sibling.file_id or number_of(sibling.key))))

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
            if head.at == BEFORE:
                self._over.append(head)
                continue
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
                head.score = SURE if self._onward[head.order].keeps else SURE - 1

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
        return max(near, key=lambda entry: entry[:2])[3]

    def _begin(self, directory: Directory, info: ObjectInfo, now: float) -> None:
        directory.look = 0
        heads = directory.heads + self._heads_at(directory, info, now)
        heads.sort(key=lambda head: head.moved)
        directory.heads = heads[-HEADS:]
        self._over.extend(heads[:-HEADS])

    def _ahead(self, directory: Directory, head: Head | None, onward: tuple[Ahead, ...] = ()) -> Ahead:
        over, self._over = tuple(self._over), []
        if head is None or not DEPTHS[head.score]:
            return Ahead(None, (), 0, over)
        files, _ = self._reach(directory, head, DEPTHS[head.score], self._room)
        return Ahead(head, files, head.at - GAP, over, onward)

    def _reach(self, directory: Directory, head: Head, depth: int, room: int) -> tuple[tuple[tuple[int, ObjectInfo], ...], int]:
        """What is new among the *depth* files behind *head* that take no more than *room* bytes, and how many bytes are left."""
        order = directory.orders[head.order]
        files = []
        for place in range(head.at + 1, min(head.at + 1 + depth, len(order.files))):
            info = order.files[place]
            room -= min(info.size, self._most)
            if room < 0:
                break
            if place > head.reach:
                files.append((place, info))
                head.reach = place
        return tuple(files), room

    # -- the directories that follow ------------------------------------------------------

    def _beyond(self, name: str, directory: Directory, head: Head, now: float) -> tuple[Ahead, ...]:
        """What to fetch of the directories that follow, if *head* is near the end of this one."""
        order = directory.orders[head.order]
        left = DEPTHS[SURE] - (len(order.files) - 1 - head.at)
        if left <= 0 or not directory.complete or head.at < directory.look:
            return ()
        directory.look = head.at + LOOK_EVERY
        room = self._room - sum(min(info.size, self._most) for info in order.files[head.at + 1 :])
        ahead = []
        for stem in self._onward[head.order].following(self.siblings, name, order.files[head.at].key, now):
            if left <= 0 or room <= 0:
                break
            waiting = self._waiting(stem, head.order, now)
            if waiting is None:
                left -= UNLISTED
                continue
            following, there = waiting
            there.moved = now
            files, room = self._reach(following, there, left, room)
            left -= len(following.orders[there.order].files)
            if files:
                ahead.append(Ahead(there, files, BEFORE))
        return tuple(ahead)

    def _waiting(self, stem: str, order: int, now: float) -> tuple[Directory, Head] | None:
        """The directory *stem* with a head before its first file in *order*; None where it is not listed, has none, or is being read."""
        directory = self._directories.get(stem)
        if directory is not None:
            for head in directory.heads:
                if head.at == BEFORE and head.order == order:
                    return directory, head
            if not directory.heads or any(head.moved > now - IDLE_SECONDS for head in directory.heads):
                return None
        files = self.siblings.after(stem, COMPLETE)
        if order == BY_NUMBER:
            self.siblings.list_ahead(stem)
        if not files or len(files) == COMPLETE:
            return None
        if directory is not None:
            self._over.extend(directory.heads)
        head = Head(order, BEFORE, BEFORE, score=SURE - 1, moved=now)
        directory = self._directories[stem] = Directory(files[0], listed=now, heads=[head])
        self._sort(directory, files, files[0])
        self._forget_directories()
        return directory, head

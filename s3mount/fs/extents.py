"""Where the bytes of one file are: a table from file ranges to places.

Owns: the table, its cutting and joining, and the choice where new bytes go in a generation's log.
Must not know: I/O, tasks, stores. Plain and synchronous: every method is atomic between checkpoints.

Design. A file is a row of extents. Each is KEPT (the base version has these bytes at the same offset), STAGED (they lie in the log of a
generation, from `position` on) or a HOLE (zeros that nobody wrote). STAGED and HOLE carry the number of the generation that made them,
so that a commit of generation g can later say "all up to g is in the store now" (`settle`) however much was written meanwhile.

    generation 2's log: |AAAABB|                 file: | KEPT | A A A A | KEPT | HOLE | B B |
                         0   4 6                        0      10        14     30     90  92

The starts are kept in a list of their own, so that a look-up is one bisection and a change one splice of two lists: 100 000 extents
cost a memmove of 0.8 MB, some 30 microseconds. A tree would save that and cost more than that in Python.

Invariants (`check`):
E1  The extents cover 0 to `size`, in order, none empty, without gap or overlap.
E2  No two neighbours could be one extent (same kind and generation, and positions that run on).
E3  A KEPT extent has generation 0, position = start; STAGED and HOLE have a generation above 0.
E4  `live(g)` is the number of bytes that STAGED extents of generation g cover; `live(0)` speaks of the KEPT ones.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

# A write that falls into more pieces than this is appended in one: the dead bytes are cheaper than the system calls.
SCATTER_PIECES = 16


class Kind(Enum):
    KEPT = "kept"
    STAGED = "staged"
    HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Extent:
    """The file's bytes *start* to *stop*, and where they are."""

    start: int
    stop: int
    kind: Kind
    generation: int = 0
    position: int = 0

    def clip(self, start: int, stop: int) -> Extent:
        """The part of it that lies in *start* to *stop*."""
        start, stop = max(start, self.start), min(stop, self.stop)
        if start == self.start and stop == self.stop:
            return self
        shift = 0 if self.kind is Kind.HOLE else start - self.start
        return Extent(start, stop, self.kind, self.generation, self.position + shift)

    def runs_on(self, after: Extent) -> bool:
        """Whether *after*, which begins where this ends, is the same extent going on."""
        if self.kind is not after.kind or self.generation != after.generation:
            return False
        return self.kind is Kind.HOLE or after.position == self.position + self.stop - self.start


def kept(start: int, stop: int) -> Extent:
    return Extent(start, stop, Kind.KEPT, 0, start)


def joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """The same row with neighbours made one where they run on."""
    held: Extent | None = None
    for extent in extents:
        if held is None:
            held = extent
        elif held.runs_on(extent):
            held = replace(held, stop=extent.stop)
        else:
            yield held
            held = extent
    if held is not None:
        yield held


class Extents:
    """The table of one file."""

    __slots__ = ("_live", "_row", "_starts")

    def __init__(self, row: Iterable[Extent] = ()) -> None:
        self._row: list[Extent] = []
        self._starts: list[int] = []
        self._live: Counter[int] = Counter()
        self._put(0, 0, list(joined(row)))

    def __iter__(self) -> Iterator[Extent]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def __repr__(self) -> str:
        return f"<Extents {self.size} bytes in {len(self)}>"

    @property
    def size(self) -> int:
        return self._row[-1].stop if self._row else 0

    def live(self, generation: int) -> int:
        """How many bytes of *generation*'s log (0: of the base) the file still shows."""
        return self._live[generation]

    def copy(self) -> Extents:
        twin = Extents.__new__(Extents)
        twin._row, twin._starts, twin._live = self._row[:], self._starts[:], self._live.copy()
        return twin

    def slice(self, start: int, stop: int) -> list[Extent]:
        """The extents of *start* to *stop*, cut to it; nothing of what lies beyond the end."""
        if start >= min(stop, self.size):
            return []
        first, last = self._window(start, stop)
        if last - first == 1:
            return [self._row[first].clip(start, stop)]
        return [extent.clip(start, stop) for extent in self._row[first:last]]

    def overwrite(self, start: int, stop: int, *, generation: int, position: int, hole_generation: int = 0) -> None:
        """The bytes *start* to *stop* lie at *position* of *generation*'s log now; a gap behind the end becomes a hole.

        *hole_generation*: the generation of that hole, if another than *generation*.
        """
        if start > self.size:
            self.resize(start, hole_generation or generation)
        self._splice(Extent(start, stop, Kind.STAGED, generation, position))

    def resize(self, size: int, generation: int) -> None:
        """Cut to *size*, or grow to it by a hole of *generation*."""
        if size > self.size:
            self._splice(Extent(self.size, size, Kind.HOLE, generation))
        elif size < self.size:
            first, _ = self._window(size, self.size)
            edge = self._row[first]
            self._put(first, len(self._row), [edge.clip(edge.start, size)] if edge.start < size else [])

    def settle(self, generation: int) -> None:
        """Everything up to *generation* is in the base now."""
        self._put(0, len(self._row), list(self.committed(generation)))

    def gather(self, generation: int) -> None:
        """Everything up to *generation* lies in its log now, each byte at the position that is its offset."""
        row = (Extent(x.start, x.stop, Kind.STAGED, generation, x.start) if x.generation <= generation else x for x in self._row)
        self._put(0, len(self._row), list(joined(row)))

    def committed(self, generation: int) -> Iterator[Extent]:
        """The row as a commit sees it when all up to *generation* is in the base."""
        return joined(kept(extent.start, extent.stop) if extent.generation <= generation else extent for extent in self._row)

    def places(self, start: int, stop: int, *, generation: int, end: int) -> list[Extent]:
        """Where in *generation*'s log, which ends at *end*, to write *start* to *stop*: over what it has of that, else at its end."""
        found = list(self._places(start, stop, generation, end))
        return found if len(found) <= SCATTER_PIECES else [Extent(start, stop, Kind.STAGED, generation, end)]

    def check(self) -> None:
        at, live = 0, Counter[int]()
        for extent in self._row:
            assert extent.start == at < extent.stop, f"E1 {extent} at {at}"
            assert (extent.kind is Kind.KEPT) == (extent.generation == 0), f"E3 {extent}"
            assert extent.kind is not Kind.KEPT or extent.position == extent.start, f"E3 {extent}"
            at = extent.stop
            live[extent.generation] += extent.stop - extent.start if extent.kind is not Kind.HOLE else 0
        assert self._starts == [extent.start for extent in self._row], "E1 starts"
        assert not any(a.runs_on(b) for a, b in zip(self._row, self._row[1:], strict=False)), "E2"
        assert +live == +self._live, "E4"

    def _places(self, start: int, stop: int, generation: int, end: int) -> Iterator[Extent]:
        own = (x for x in self.slice(start, stop) if x.kind is Kind.STAGED and x.generation == generation)
        return joined(self._filled(start, stop, own, generation, end))

    @staticmethod
    def _filled(start: int, stop: int, own: Iterable[Extent], generation: int, end: int) -> Iterator[Extent]:
        for extent in (*own, Extent(stop, stop, Kind.HOLE)):
            if extent.start > start:
                yield Extent(start, extent.start, Kind.STAGED, generation, end)
                end += extent.start - start
            if extent.kind is Kind.STAGED:
                yield extent
            start = extent.stop

    def _window(self, start: int, stop: int) -> tuple[int, int]:
        """The indices, from and to, of the extents that *start* to *stop* touches."""
        return max(bisect_right(self._starts, start) - 1, 0), bisect_left(self._starts, stop)

    def _splice(self, new: Extent) -> None:
        if new.start == self.size:
            first = last = len(self._row)
        else:
            first, last = self._window(new.start, new.stop)
        row = [new]
        if first < last:
            left, right = self._row[first], self._row[last - 1]
            row = [left.clip(left.start, new.start)] if left.start < new.start else []
            row.append(new)
            if right.stop > new.stop:
                row.append(right.clip(new.stop, right.stop))
        if first and row[0] is new:
            first -= 1
            row.insert(0, self._row[first])
        if last < len(self._row) and row[-1] is new:
            row.append(self._row[last])
            last += 1
        self._put(first, last, list(joined(row)))

    def _put(self, first: int, last: int, row: list[Extent]) -> None:
        for extent in self._row[first:last]:
            self._count(extent, -1)
        for extent in row:
            self._count(extent, 1)
        self._row[first:last] = row
        self._starts[first:last] = [extent.start for extent in row]

    def _count(self, extent: Extent, sign: int) -> None:
        if extent.kind is not Kind.HOLE:
            self._live[extent.generation] += sign * (extent.stop - extent.start)

"""Where the bytes of one file are: a table from file ranges to places.

Owns: the table, its cutting and joining, and the choice where new bytes go in a generation's log.
Must not know: I/O, tasks, stores. Plain and synchronous: every method is atomic between checkpoints.

Design. A file is a row of extents. Each is KEPT (the base version has these bytes at the same offset), STAGED (they lie in the log of a
generation, from `position` on) or a HOLE (zeros that nobody wrote). STAGED and HOLE carry the number of the generation that made them,
so that a commit of generation g can later say "all up to g is in the store now" (`settle`) however much was written meanwhile.

    generation 2's log: |AAAABB|                 file: | KEPT | A A A A | KEPT | HOLE | B B |
                         0   4 6                        0      10        14     30     90  92

The row is kept in blocks (`Row`), so that a look-up is two bisections and a change splices a few hundred entries, whatever the length:
100 000 random writes into one list cost 70 microseconds each, most of it moving memory; into blocks, 20.

Invariants (`check`):
E0  No block is empty or longer than twice `BLOCK`, and `firsts` are the starts of the blocks.
E1  The extents cover 0 to `size`, in order, none empty, without gap or overlap.
E2  No two neighbours could be one extent (same kind and generation, and positions that run on).
E3  A KEPT extent has generation 0, position = start; STAGED and HOLE have a generation above 0.
E4  `live(g)` is the number of bytes that STAGED extents of generation g cover; `live(0)` speaks of the KEPT ones.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import chain, islice, pairwise
from operator import attrgetter

from s3mount.model import cheap_value

# Extents per block: splicing that many costs less than a microsecond, and a million extents make 2000 blocks.
BLOCK = 512
# A write that falls into more pieces than this is appended in one: the dead bytes are cheaper than the system calls.
SCATTER_PIECES = 16


_START = attrgetter("start")


class Kind(Enum):
    KEPT = "kept"
    STAGED = "staged"
    HOLE = "hole"


@cheap_value
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
            held = Extent(held.start, extent.stop, held.kind, held.generation, held.position)
        else:
            yield held
            held = extent
    if held is not None:
        yield held


class Row:
    """Extents in order, end to end."""

    __slots__ = ("_blocks", "_firsts")

    def __init__(self, row: Sequence[Extent] = ()) -> None:
        self._blocks = _cut(row)
        self._firsts = [block[0].start for block in self._blocks]

    def __iter__(self) -> Iterator[Extent]:
        return chain.from_iterable(self._blocks)

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    @property
    def stop(self) -> int:
        return self._blocks[-1][-1].stop if self._blocks else 0

    def copy(self) -> Row:
        twin = Row()
        twin._blocks, twin._firsts = [block[:] for block in self._blocks], self._firsts[:]
        return twin

    def touching(self, start: int, stop: int) -> list[Extent]:
        """The extents that have a byte between *start*, which lies in the row, and *stop*."""
        if not self._blocks:
            return []
        number, first = self._find(start)
        found: list[Extent] = []
        for block in islice(self._blocks, number, None):
            last = bisect_left(block, stop, first, key=_START)
            found += block[first:last]
            if last < len(block):
                break
            first = 0
        return found

    def replace(self, old: Sequence[Extent], new: Sequence[Extent]) -> None:
        """Put *new* in the place of *old*, neighbours in this row; *old* is empty only where the row is."""
        if not old:
            self._blocks, self._firsts = [[]], [0]
        number, first = self._find(old[0].start) if old else (0, 0)
        last_number = number
        block = self._blocks[number]
        if first + len(old) <= len(block):
            block[first : first + len(old)] = new
            if 0 < len(block) <= 2 * BLOCK:
                self._firsts[number] = block[0].start
                return
        else:
            last_number, last = self._find(old[-1].start)
            block = [*block[:first], *new, *self._blocks[last_number][last + 1 :]]
        blocks = [block] if 0 < len(block) <= 2 * BLOCK else _cut(block)
        self._blocks[number : last_number + 1] = blocks
        self._firsts[number : last_number + 1] = [block[0].start for block in blocks]

    def check(self) -> None:
        assert all(0 < len(block) <= 2 * BLOCK for block in self._blocks), "E0"
        assert self._firsts == [block[0].start for block in self._blocks], "E0"

    def _find(self, at: int) -> tuple[int, int]:
        """Which block, and which of its extents, has the byte *at*."""
        number = max(0, bisect_right(self._firsts, at) - 1)
        return number, max(0, bisect_right(self._blocks[number], at, key=_START) - 1)


def _cut(row: Sequence[Extent]) -> list[list[Extent]]:
    return [list(row[at : at + BLOCK]) for at in range(0, len(row), BLOCK)]


class Extents:
    """The table of one file."""

    __slots__ = ("_live", "_row")

    def __init__(self, row: Iterable[Extent] = ()) -> None:
        self._live: Counter[int] = Counter()
        self._row = Row()
        self._put([], list(joined(row)))

    def __iter__(self) -> Iterator[Extent]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def __repr__(self) -> str:
        return f"<Extents {self.size} bytes in {len(self)}>"

    @property
    def size(self) -> int:
        return self._row.stop

    def live(self, generation: int) -> int:
        """How many bytes of *generation*'s log (0: of the base) the file still shows."""
        return self._live[generation]

    def copy(self) -> Extents:
        twin = Extents.__new__(Extents)
        twin._row, twin._live = self._row.copy(), self._live.copy()
        return twin

    def slice(self, start: int, stop: int) -> list[Extent]:
        """The extents of *start* to *stop*, cut to it; nothing of what lies beyond the end."""
        if start >= min(stop, self.size):
            return []
        found = self._row.touching(start, stop)
        found[0] = found[0].clip(start, stop)
        if len(found) > 1:
            found[-1] = found[-1].clip(start, stop)
        return found

    def overwrite(self, start: int, stop: int, *, generation: int, position: int, hole_generation: int = 0) -> None:
        """The bytes *start* to *stop* lie at *position* of *generation*'s log now; a gap behind the end becomes a hole.

        *hole_generation*: the generation of that hole, if another than *generation*.
        """
        if start > self.size:
            self.resize(start, hole_generation or generation)
        self._lay(Extent(start, stop, Kind.STAGED, generation, position))

    def resize(self, size: int, generation: int) -> None:
        """Cut to *size*, or grow to it by a hole of *generation*."""
        if size > self.size:
            self._lay(Extent(self.size, size, Kind.HOLE, generation))
        elif size < self.size:
            cut = self._row.touching(size, self.size)
            self._put(cut, [cut[0].clip(0, size)] if cut[0].start < size else [])

    def settle(self, generation: int) -> None:
        """Everything up to *generation* is in the base now."""
        self._put(list(self._row), list(self.committed(generation)))

    def gather(self, generation: int) -> None:
        """Everything up to *generation* lies in its log now, each byte at the position that is its offset."""
        row = (Extent(x.start, x.stop, Kind.STAGED, generation, x.start) if x.generation <= generation else x for x in self._row)
        self._put(list(self._row), list(joined(row)))

    def committed(self, generation: int) -> Iterator[Extent]:
        """The row as a commit sees it when all up to *generation* is in the base."""
        return joined(kept(extent.start, extent.stop) if extent.generation <= generation else extent for extent in self._row)

    def places(self, start: int, stop: int, *, generation: int, end: int) -> list[Extent]:
        """Where in *generation*'s log, which ends at *end*, to write *start* to *stop*: over what it has of that, else at its end."""
        own = [x for x in self.slice(start, stop) if x.kind is Kind.STAGED and x.generation == generation]
        found = list(joined(_filled(start, stop, own, generation, end))) if own else []
        return found if 0 < len(found) <= SCATTER_PIECES else [Extent(start, stop, Kind.STAGED, generation, end)]

    def check(self) -> None:
        self._row.check()
        at, live = 0, Counter[int]()
        for extent in self._row:
            assert extent.start == at < extent.stop, f"E1 {extent} at {at}"
            assert (extent.kind is Kind.KEPT) == (extent.generation == 0), f"E3 {extent}"
            assert extent.kind is not Kind.KEPT or extent.position == extent.start, f"E3 {extent}"
            at = extent.stop
            live[extent.generation] += extent.stop - extent.start if extent.kind is not Kind.HOLE else 0
        assert not any(a.runs_on(b) for a, b in pairwise(self._row)), "E2"
        assert +live == +self._live, "E4"

    def _lay(self, new: Extent) -> None:
        """Put *new* over what is there, and join it with its neighbours."""
        old = self._row.touching(max(new.start - 1, 0), new.stop + 1)
        if len(old) == 1 and old[0].kind is Kind.KEPT and old[0].start < new.start and new.stop < old[0].stop:
            self._put(old, [kept(old[0].start, new.start), new, kept(new.stop, old[0].stop)])  # random writes, mostly: nothing to join
            return
        row = [new]
        if old and old[0].start < new.start:
            row.insert(0, old[0].clip(0, new.start))
        if old and old[-1].stop > new.stop:
            row.append(old[-1].clip(new.stop, old[-1].stop))
        self._put(old, list(joined(row)))

    def _put(self, old: Sequence[Extent], new: Sequence[Extent]) -> None:
        for extent in old:
            self._count(extent, -1)
        for extent in new:
            self._count(extent, 1)
        self._row.replace(old, new)

    def _count(self, extent: Extent, sign: int) -> None:
        if extent.kind is not Kind.HOLE:
            self._live[extent.generation] += sign * (extent.stop - extent.start)


def _filled(start: int, stop: int, own: Iterable[Extent], generation: int, end: int) -> Iterator[Extent]:
    """*own*, and between them places at the log's end, so that *start* to *stop* is covered."""
    for extent in (*own, Extent(stop, stop, Kind.HOLE)):
        if extent.start > start:
            yield Extent(start, extent.start, Kind.STAGED, generation, end)
            end += extent.start - start
        if extent.kind is Kind.STAGED:
            yield extent
        start = extent.stop

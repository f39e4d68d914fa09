"""Where the parts of an upload begin and end.

Owns: the cells of a content, and which parts an upload consists of that begins while it is written.
Must not know: stores, tasks, what was sent. Plain and synchronous.

A content is divided into cells, by the size of what it edits (0: all is new), whatever its own will be: 8 MiB each at first, twice as much
every 500, at most 1 GiB. That is 4 GiB of small ones, and with 10 000 of them more than the 5 TiB that an object may have. Of an edit,
the base has cells of its own, all alike, and from `anchor`, where it ends, they go on as those of a new file:

    |  cells of the base, as few as 5000  |rest|  8 MiB, ...  16 MiB, ...      a rest of less than S3's smallest part is the next one's

Each cell that was written is one part. What lies before the first of them (the head) is copied, and nobody wants it in small pieces:
its parts are the larger, the farther they are from its ends, for there programs patch most (a header; the trailer of an archive, which
what is appended begins with). What lies behind the last cell is cut when the file is closed. Numbers run from 1 without a gap: S3 takes
no other uploads with checksums.

    head 8 16 32 .. 256 256 .. 32 16 8 | first cell | cells, written and kept | ... | rest, copied, 256 each |
    parts 1, 2, ...                      as many as the head has + 1, + 2, ...

Invariants:
D1  Cells join, are at least 5 MiB and at most 5 GiB, and those of a new file reach 5 TiB with 10 000.
D2  `Plan.steps` join from 0 to the size, are numbered from 1 without a gap; a cell's number does not depend on the size.
D3  Each step but the last has at least 5 MiB.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from s3mount.fs.extents import Extents, Kind
from s3mount.model import ByteRange, GiB, MiB

# S3's limits of one upload: how many parts, and the smallest one but for the last.
PARTS = 10_000
LEAST_PART = 5 * MiB
# The first size (few requests, yet sixteen in memory are 128 MiB), how many cells have the same one, and the largest.
PART_BYTES = 8 * MiB
PARTS_ALIKE = 500
LARGEST_PART = 1 * GiB
# Cells of a base, at most: half of what an upload may have. Those of an object of 100 GiB have 32 MiB.
BASE_CELLS = 5000
# A copy within the service moves no bytes here; several of them at once are faster than one.
COPY_BYTES = 256 * MiB
# Largest part that is sent, kept bytes and all, because some of it was written: they are fetched for it, and it is in memory meanwhile.
MIXED_BYTES = 32 * MiB

_START = attrgetter("start")


class Grid:
    """The cells, numbered from 1, of an edit of an object of *base* bytes."""

    __slots__ = ("_tiers", "anchor", "base")

    def __init__(self, base: int = 0) -> None:
        self.base = base
        self._tiers = list(_base_tiers(base))
        number, self.anchor = 1, 0
        if self._tiers:
            first, start, size = self._tiers[-1]
            alike = (base - start) // size
            number, self.anchor = first + alike, start + alike * size
        self._tiers += _tiers(number, self.anchor)

    def __repr__(self) -> str:
        return f"<Grid over {self.base}>"

    def span_of(self, cell: int) -> ByteRange:
        """The bytes of *cell* of a file that reaches so far."""
        first, start, size = next(tier for tier in reversed(self._tiers) if tier[0] <= cell)
        begin = start + (cell - first) * size
        return ByteRange(begin, begin + size)

    def cell_at(self, offset: int) -> int:
        """The cell that has the byte *offset*."""
        first, start, size = next(tier for tier in reversed(self._tiers) if tier[1] <= offset)
        return first + (offset - start) // size

    def count(self, size: int) -> int:
        """How many cells a file of *size* bytes has."""
        return self.cell_at(size - 1) if size else 0

    def clipped(self, cell: int, size: int) -> ByteRange:
        """The bytes of *cell* of a file of *size* bytes, which has it."""
        span = self.span_of(cell)
        return ByteRange(span.start, min(span.stop, size))


Tier = tuple[int, int, int]
"""(first number, where it begins, size) of each run of cells that are alike."""


def _base_tiers(base: int) -> Iterator[Tier]:
    size = PART_BYTES
    while base // size > BASE_CELLS:
        size *= 2
    alike, rest = divmod(base, size)
    if alike:
        yield 1, 0, size
    if rest >= LEAST_PART:
        yield 1 + alike, alike * size, rest


def _tiers(number: int, start: int) -> Iterator[Tier]:
    size = PART_BYTES
    while True:
        yield number, start, size
        if size >= LARGEST_PART:
            return
        number, start, size = number + PARTS_ALIKE, start + PARTS_ALIKE * size, 2 * size


def is_full(table: Extents, span: ByteRange, *, settled: int = 0) -> bool:
    """Whether every byte of *span* was written since generation *settled*, and the file has all of them.

    Its ends are looked at first: asked with each of many scattered writes, it costs little until both are there.
    """

    def is_new(start: int, stop: int) -> bool:
        return all(extent.kind is Kind.STAGED and extent.generation > settled for extent in table.slice(start, stop))

    start, stop = span.start, span.stop
    return stop <= table.size and is_new(stop - 1, stop) and is_new(start, start + 1) and is_new(start, stop)


def is_mixed(table: Extents, span: ByteRange, *, settled: int) -> bool:
    """Whether some of what the file has there is the base's, and some is not."""
    return len({extent.generation <= settled for extent in table.slice(span.start, span.stop)}) > 1


def is_kept(table: Extents, span: ByteRange, *, settled: int) -> bool:
    """Whether the base has what the file has there."""
    return all(extent.generation <= settled for extent in table.slice(span.start, span.stop))


@dataclass(frozen=True, slots=True)
class Step:
    """Part *number*, to be copied or sent. *cell*: whose bytes it has; 0 for what is no cell's."""

    number: int
    span: ByteRange
    copied: bool
    cell: int = 0


class Plan:
    """What an upload consists of: the cells of *grid* from *first* on, and what lies before."""

    __slots__ = ("first", "grid", "head", "start")

    def __init__(self, grid: Grid, first: int) -> None:
        self.grid = grid
        self.first = first
        self.start = grid.span_of(first).start
        self.head = graded(self.start)

    def __repr__(self) -> str:
        return f"<Plan {len(self.head)} parts before cell {self.first} of {self.grid!r}>"

    @classmethod
    def of(cls, grid: Grid, ready: int, table: Extents, settled: int) -> Plan:
        """For *table*, whose first full cell is *ready*: what was written before goes with the head, where that is little."""
        plan = cls(grid, min(ready, grid.cell_at(grid.anchor)))
        if plan.suits(table, settled):
            return plan
        written = next((extent.start for extent in table if extent.generation > settled), 0)
        return cls(grid, min(plan.first, grid.cell_at(written)))

    def suits(self, table: Extents, settled: int) -> bool:
        """Whether the head of *table* is there, and what was written of it is little enough to send all of its part."""
        mixed = (span for span in self.head if not is_kept(table, span, settled=settled))
        return self.start <= table.size and all(span.length <= MIXED_BYTES for span in mixed)

    def is_spoilt_by(self, start: int, stop: int) -> bool:
        """Whether a head that was there is not any more when *start* to *stop* are written (see `suits`, which looks at all of it)."""
        if start >= self.start:
            return False
        first, last = bisect_right(self.head, start, key=_START) - 1, bisect_left(self.head, stop, key=_START)
        return any(span.length > MIXED_BYTES for span in self.head[first:last])

    def number_of(self, cell: int) -> int:
        return len(self.head) + 1 + cell - self.first

    def steps(self, table: Extents, settled: int, *, copies: bool) -> list[Step] | None:
        """All parts of *table*; *copies*: whether the service can copy from the base. None: this upload had better not become it."""
        if not self.suits(table, settled):
            return None

        def kept(span: ByteRange) -> bool:
            return copies and is_kept(table, span, settled=settled)

        last = self.grid.count(table.size)
        while last >= self.first and kept(self.grid.clipped(last, table.size)):
            last -= 1
        steps = [Step(number, span, kept(span)) for number, span in enumerate(self.head, start=1)]
        for cell in range(self.first, last + 1):
            span = self.grid.clipped(cell, table.size)
            if span.length > MIXED_BYTES and is_mixed(table, span, settled=settled):
                return None
            steps.append(Step(self.number_of(cell), span, kept(span), cell))
        for span in _cut(steps[-1].span.stop if steps else 0, table.size):
            steps.append(Step(len(steps) + 1, span, copied=True))
        return steps if len(steps) <= PARTS else None


def copied_singly(steps: Sequence[Step]) -> int:
    """How many requests less the cells to be copied among *steps* would take where neighbours went together."""
    copied = [step for step in steps if step.copied and step.cell]
    together, last = 0, -1
    room = 0
    for step in copied:
        if step.span.start != last or step.span.length > room:
            together, room = together + 1, COPY_BYTES
        last, room = step.span.stop, room - step.span.length
    return len(copied) - together


def graded(stop: int) -> Sequence[ByteRange]:
    """0 to *stop*, in parts that are the larger, the farther they are from both ends."""
    left: list[ByteRange] = []
    right: list[ByteRange] = []
    start, size = 0, PART_BYTES
    while stop - start >= 2 * size and not 0 < stop - start - 2 * size < LEAST_PART:
        left.append(ByteRange(start, start + size))
        right.append(ByteRange(stop - size, stop))
        start, stop, size = start + size, stop - size, min(2 * size, COPY_BYTES)
    middle = [ByteRange(start, stop)] if stop > start else []
    return (*left, *middle, *reversed(right))


def _cut(start: int, stop: int) -> Iterator[ByteRange]:
    for at in range(start, stop, COPY_BYTES):
        yield ByteRange(at, min(at + COPY_BYTES, stop))

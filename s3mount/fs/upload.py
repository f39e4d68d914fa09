"""Which parts of a file are at the store before it is closed: the decisions, without the sending.

Owns: where parts begin and end, when one may go, which of those that went are still true.
Must not know: stores, tasks, memory, why a commit wants them. Plain and synchronous: every method is atomic between checkpoints.

Parts have fixed places, whatever the file's size will be: 8 MiB each at first, twice as much every 500 parts, at most 1 GiB. That is 4 GiB
of small parts, and with 10 000 of them more than the 5 TiB that an object may have.

A part goes early once, as soon as every byte of it has been written. What is changed after that goes again, under its number, but not
before the commit: a program that comes back for each block (a database, a download in pieces) would else send everything many times.

    WANTING --full--> READY --begin--> SENDING --done, untouched--> SENT
       ^                |                 |                          |
       +---- cut off ---+                 +--failed, or touched--> LATE <-- touched        LATE and WANTING: the commit sends them

"Touched" is counted per part: at the beginning of a write, for what is read meanwhile may be half old and half new, and at its end, for
what was read before shows the old bytes. A part is true if nobody touched it since its reading began; one that a commit reads from its
frozen copy, if nobody did since the freezing.

Invariants (`check`):
U1  A number is at most one of READY and SENDING; READY ones never began before.
U2  `missing(size)` and the parts of `true_parts(size)` together are 1 to `count(size)`, none twice, and the latter have the right size.
U3  Parts join, are at least 5 MiB and at most 5 GiB, and 10 000 of them reach 5 TiB.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass
from functools import cache

from s3mount.fs.extents import Extents, Kind
from s3mount.model import ByteRange, GiB, MiB, Part

# S3's limit for one upload.
PARTS = 10_000
# The first size (few requests, yet sixteen in memory are 128 MiB), how many parts have the same one, and the largest.
PART_BYTES = 8 * MiB
PARTS_ALIKE = 500
LARGEST_PART = 1 * GiB
# An upload is worth its two more requests, and metadata that are fixed before the file is closed, from this many full parts on: a file
# below them goes at close, in one request or in a few at once, and with everything that chmod and utimens said until then.
START_PARTS = 4


@cache
def _tiers() -> tuple[tuple[int, int, int], ...]:
    """(first number, where it begins, size) of each run of parts that are alike."""
    tiers, number, start, size = [], 1, 0, PART_BYTES
    while number <= PARTS:
        tiers.append((number, start, size))
        if size == LARGEST_PART:
            break
        number, start, size = number + PARTS_ALIKE, start + PARTS_ALIKE * size, 2 * size
    return tuple(tiers)


def span_of(number: int) -> ByteRange:
    """The bytes of part *number* (1 to `PARTS`) of a file that reaches so far."""
    first, start, size = next(tier for tier in reversed(_tiers()) if tier[0] <= number)
    begin = start + (number - first) * size
    return ByteRange(begin, begin + size)


def number_at(offset: int) -> int:
    """The part that has the byte *offset*."""
    first, start, size = next(tier for tier in reversed(_tiers()) if tier[1] <= offset)
    return first + (offset - start) // size


def count(size: int) -> int:
    """How many parts a file of *size* bytes has."""
    return number_at(size - 1) if size else 0


def clipped(number: int, size: int) -> ByteRange:
    """The bytes of part *number* of a file of *size* bytes, which has it."""
    span = span_of(number)
    return ByteRange(span.start, min(span.stop, size))


def is_full(table: Extents, number: int) -> bool:
    """Whether every byte of a part has been written, and the file has all of them."""
    span = span_of(number)
    return span.stop <= table.size and all(extent.kind is Kind.STAGED for extent in table.slice(span.start, span.stop))


@dataclass(frozen=True, slots=True)
class Sent:
    """A part that the store has, as it was when it had been touched so often."""

    part: Part
    touches: int


class Parts:
    """The parts of one content, since it was new or emptied."""

    def __init__(self) -> None:
        self._touches: Counter[int] = Counter()
        self._frozen: Counter[int] = Counter()
        self._ready: list[int] = []
        self._sending: dict[int, int] = {}
        self._sent: dict[int, Sent] = {}
        self._went: set[int] = set()

    def __repr__(self) -> str:
        return f"<Parts {len(self._sent)} sent, {len(self._sending)} under way, {len(self._ready)} ready>"

    @property
    def ready(self) -> int:
        """How many wait to be sent."""
        return len(self._ready)

    @property
    def under_way(self) -> int:
        return len(self._sending)

    @property
    def next_ready(self) -> int | None:
        """The first part that may go now."""
        return self._ready[0] if self._ready else None

    def touched(self, start: int, stop: int) -> None:
        """The bytes *start* to *stop* are about to change, or have changed."""
        for number in range(number_at(start), number_at(stop - 1) + 1 if stop > start else 0):
            self._touches[number] += 1

    def written(self, start: int, stop: int, table: Extents) -> bool:
        """After `touched`: *start* to *stop* have been written, *table* shows them. Whether a part became ready."""
        fresh = [number for number in range(number_at(start), number_at(stop - 1) + 1) if self._is_news(number) and is_full(table, number)]
        for number in fresh:
            insort(self._ready, number)
        return bool(fresh)

    def _is_news(self, number: int) -> bool:
        return number not in self._went and number not in self._ready

    def resized(self, former: int, size: int) -> None:
        """The file had *former* bytes and has *size* now."""
        self.touched(min(former, size), max(former, size))
        self._ready = [number for number in self._ready if span_of(number).stop <= size]

    # -- sending ----------------------------------------------------------------------

    def freeze(self) -> None:
        """A commit takes the content as it is now: `begin_frozen` reads from there, whatever is written from here on."""
        self._frozen = self._touches.copy()

    def begin_frozen(self, number: int) -> None:
        """The bytes of part *number* are about to be read, as they were at `freeze`, and sent."""
        self.begin(number)
        self._sending[number] = self._frozen[number]

    def begin(self, number: int) -> None:
        """The bytes of part *number* are about to be read, as they are, and sent."""
        assert number not in self._sending, f"U1 {number}"
        if number in self._ready:
            self._ready.remove(number)
        self._went.add(number)
        self._sending[number] = self._touches[number]

    def done(self, number: int, part: Part) -> None:
        """The store has it as it was at `begin`."""
        self._sent[number] = Sent(part, self._sending.pop(number))

    def ended(self, number: int) -> None:
        """Nobody is sending it any more, whether it arrived (`done`) or not."""
        self._sending.pop(number, None)

    # -- what a commit needs --------------------------------------------------------------

    def true_parts(self, size: int) -> dict[int, Part]:
        """What the store has of the content as it is now, which has *size* bytes: parts by number."""
        return {
            number: sent.part
            for number in range(1, count(size) + 1)
            if (sent := self._sent.get(number)) and sent.touches == self._touches[number] and sent.part.size == clipped(number, size).length
        }

    def missing(self, size: int) -> list[int]:
        """The numbers that are not among `true_parts`."""
        there = self.true_parts(size)
        return [number for number in range(1, count(size) + 1) if number not in there]

    def check(self) -> None:
        assert self._ready == sorted(set(self._ready)), "U1"
        assert not set(self._ready) & set(self._sending), "U1"
        assert set(self._sending) | set(self._sent) <= self._went, "U1"
        assert not set(self._ready) & self._went, "U1"

"""Where the bytes of one version lie: a list of spans that can be had anew, changed in a few places, without walking all of it.

Owns: spans, and the list of them for one version. Must not know: descriptors, the index. Pure; a `Spans` never changes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import attrgetter

from s3mount.model import cheap_value

# Spans per block: an edit copies a block, and a list of the blocks. One flat list of 40 000 took 900 microseconds to copy, these take 30.
BLOCK = 256

_OFFSET = attrgetter("offset")


@cheap_value
class InBody:
    """At *offset* in the body *name*."""

    name: str
    offset: int


@cheap_value
class InLog:
    """At *offset* in the log segment *segment*."""

    segment: int
    offset: int


Place = InBody | InLog | None

File = str | int
"""A body's name or a segment's number."""


@cheap_value
class Span:
    """*length* bytes of the object from *offset* on stand at *place* (None: a hole, zeros)."""

    offset: int
    length: int
    place: Place

    @property
    def end(self) -> int:
        return self.offset + self.length

    def between(self, start: int, stop: int) -> Span:
        """What of it lies between *start* and *stop*; some of it does."""
        left, right = max(self.offset, start), min(self.end, stop)
        return Span(left, right - left, _moved(self.place, left - self.offset))


def file_of(place: InBody | InLog) -> File:
    return place.name if isinstance(place, InBody) else place.segment


class Spans:
    """The spans of one version, in order, from 0 to its size without gap. An empty version has none.

    They are kept in blocks, which a spliced list shares with the former one but for those that it changes.
    """

    __slots__ = ("_blocks", "_files", "_firsts", "_length")

    def __init__(self, items: Iterable[Span]) -> None:
        row = list(items)
        self._blocks = _cut(row)
        self._firsts = [block[0].offset for block in self._blocks]
        self._files = Counter(file_of(span.place) for span in row if span.place is not None)
        self._length = len(row)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Span]:
        return chain.from_iterable(self._blocks)

    def since(self, offset: int) -> Iterator[Span]:
        """From the span that has the byte *offset* on; none where that lies outside."""
        if not 0 <= offset < self.size:
            return
        number = bisect_right(self._firsts, offset) - 1
        first = bisect_right(self._blocks[number], offset, key=_OFFSET) - 1
        yield from islice(self._blocks[number], first, None)
        yield from chain.from_iterable(islice(self._blocks, number + 1, None))

    @property
    def files(self) -> Iterable[File]:
        """Each file once."""
        return self._files.keys()

    @property
    def bodies(self) -> Iterable[str]:
        """Each body that is a file, once."""
        return (file for file in self._files if isinstance(file, str))

    @property
    def size(self) -> int:
        return self._blocks[-1][-1].end if self._blocks else 0

    def spliced(self, pieces: Sequence[Span], size: int) -> Spans:
        """The content with *pieces* laid over it, cut or grown to *size*: what grows and no piece covers is a hole."""
        changed = Spans(())
        changed._blocks, changed._firsts = self._blocks[:], self._firsts[:]
        changed._files, changed._length = self._files.copy(), self._length
        if size > self.size:
            changed._replace(self.size, size, [Span(self.size, size - self.size, None)])
        elif size < self.size:
            changed._replace(size, self.size, [])
        for piece in pieces:
            changed._replace(piece.offset, piece.end, [piece])
        return changed

    def _replace(self, start: int, stop: int, new: Sequence[Span]) -> None:
        """Put *new* where the content from *start* to *stop* was. Only while it is being made; blocks are never changed."""
        begin = max(0, bisect_right(self._firsts, start) - 1)
        end = max(begin + 1, bisect_left(self._firsts, stop))
        row = list(chain.from_iterable(self._blocks[begin:end]))
        first = max(0, bisect_right(row, start, key=_OFFSET) - 1)
        if first < len(row) and row[first].end <= start:
            first += 1
        last = bisect_left(row, stop, key=_OFFSET)
        old = row[first:last]
        left = [old[0].between(0, start)] if old and old[0].offset < start else []
        right = [old[-1].between(stop, old[-1].end)] if old and old[-1].end > stop else []
        fresh = [*left, *new, *right]
        row[first:last] = fresh
        blocks = [row] if 0 < len(row) <= 2 * BLOCK else _cut(row)
        self._blocks[begin:end] = blocks
        self._firsts[begin:end] = [block[0].offset for block in blocks]
        self._length += len(fresh) - len(old)
        self._count(old, fresh)

    def _count(self, old: Sequence[Span], fresh: Sequence[Span]) -> None:
        self._files.update(file_of(span.place) for span in fresh if span.place is not None)
        self._files.subtract(file_of(span.place) for span in old if span.place is not None)
        for span in old:
            if span.place is not None and not self._files[file_of(span.place)]:
                del self._files[file_of(span.place)]


def _cut(row: Sequence[Span]) -> list[list[Span]]:
    return [list(row[at : at + BLOCK]) for at in range(0, len(row), BLOCK)]


def _moved(place: Place, by: int) -> Place:
    if isinstance(place, InBody):
        return InBody(place.name, place.offset + by)
    return None if place is None else InLog(place.segment, place.offset + by)

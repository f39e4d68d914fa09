"""Where the bytes of one version lie: a list of spans that can be had anew, changed in a few places, without walking all of it.

Owns: spans, and the list of them for one version. Must not know: descriptors, the index. Pure; a `Spans` never changes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InBody:
    """At *offset* in the body *name*."""

    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class InLog:
    """At *offset* in the log segment *segment*."""

    segment: int
    offset: int


Place = InBody | InLog | None

File = str | int
"""A body's name or a segment's number."""


@dataclass(frozen=True, slots=True)
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
    """The spans of one version, in order, from 0 to its size without gap. An empty version has none."""

    __slots__ = ("_files", "items", "starts")

    def __init__(self, items: Iterable[Span]) -> None:
        self.items = list(items)
        self.starts = [span.offset for span in self.items]
        self._files = Counter(file_of(span.place) for span in self.items if span.place is not None)

    def __len__(self) -> int:
        return len(self.items)

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
        return self.items[-1].end if self.items else 0

    def spliced(self, pieces: Sequence[Span], size: int) -> Spans:
        """The content with *pieces* laid over it, cut or grown to *size*: what grows and no piece covers is a hole."""
        changed = Spans(())
        changed.items, changed.starts, changed._files = self.items[:], self.starts[:], self._files.copy()
        if size > self.size:
            changed._replace(self.size, size, [Span(self.size, size - self.size, None)])
        elif size < self.size:
            changed._replace(size, self.size, [])
        for piece in pieces:
            changed._replace(piece.offset, piece.end, [piece])
        return changed

    def _replace(self, start: int, stop: int, new: Sequence[Span]) -> None:
        """Put *new* where the content from *start* to *stop* was. Only while it is being made."""
        first = max(0, bisect_right(self.starts, start) - 1)
        if first < len(self.items) and self.items[first].end <= start:
            first += 1
        last = bisect_left(self.starts, stop)
        old = self.items[first:last]
        left = [old[0].between(0, start)] if old and old[0].offset < start else []
        right = [old[-1].between(stop, old[-1].end)] if old and old[-1].end > stop else []
        fresh = [*left, *new, *right]
        self.items[first:last] = fresh
        self.starts[first:last] = [span.offset for span in fresh]
        self._files.update(file_of(span.place) for span in fresh if span.place is not None)
        self._files.subtract(file_of(span.place) for span in old if span.place is not None)
        for span in old:
            if span.place is not None and not self._files[file_of(span.place)]:
                del self._files[file_of(span.place)]


def _moved(place: Place, by: int) -> Place:
    if isinstance(place, InBody):
        return InBody(place.name, place.offset + by)
    return None if place is None else InLog(place.segment, place.offset + by)

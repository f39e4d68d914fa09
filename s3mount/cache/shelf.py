"""Which pieces are on disk, and which segment goes next.

Owns: the index in memory, use and eviction.
Must not know: files.

Pieces of a version are disjoint: one that is written again takes the place of those it overlaps. Their bytes lie dead in their segments
until those go, the one used longest ago first; a segment is used when a piece of it is read.

Invariants (`check`):
S1  The pieces of a version are sorted and disjoint, and each lies in a segment that is there.
S2  No more than `limit` bytes and `most` pieces remain after `make_room`, not counting the segment that is being written.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise

from s3mount.cache.segments import Piece, Segment


class Shelf:
    """At most *limit* bytes in *most* pieces."""

    def __init__(self, limit: int, most: int) -> None:
        self.limit = limit
        self.most = most
        self.size = 0
        self._count = 0
        self._segments: OrderedDict[int, Segment] = OrderedDict()
        self._versions: dict[bytes, list[Piece]] = {}

    def __len__(self) -> int:
        """Pieces, dead ones too."""
        return self._count

    @property
    def segments(self) -> Iterable[Segment]:
        return self._segments.values()

    def check(self) -> None:
        for pieces in self._versions.values():
            assert pieces, "S1"
            assert all(one.stop <= other.start for one, other in pairwise(pieces)), "S1"
            assert all(piece.segment in self._segments for piece in pieces), "S1"
        assert self.size == sum(segment.size for segment in self._segments.values()), "S2"
        assert self._count == sum(len(segment.pieces) for segment in self._segments.values()), "S2"

    def add_segment(self, segment: Segment) -> None:
        """Its pieces are the newest."""
        pieces, segment.pieces = segment.pieces, []
        self._segments[segment.number] = segment
        self.size += segment.size
        for piece in pieces:
            self._enter(piece)

    def add(self, pieces: Iterable[Piece]) -> None:
        """Freshly written pieces of segments that are there."""
        for piece in pieces:
            self._segments[piece.segment].size += piece.room
            self.size += piece.room
            self._enter(piece)

    def covering(self, digest: bytes, start: int, stop: int) -> list[Piece] | None:
        """The pieces that hold all of *start* to *stop*, in order; None if anything is missing."""
        pieces = self._versions.get(digest, [])
        at = bisect_right(pieces, start, key=lambda piece: piece.stop)
        found = []
        while start < stop and at < len(pieces) and pieces[at].start <= start:
            found.append(pieces[at])
            start = pieces[at].stop
            at += 1
        return found if start >= stop else None

    def touch(self, segment: int) -> None:
        if segment in self._segments:
            self._segments.move_to_end(segment)

    def forget(self, pieces: Iterable[Piece]) -> None:
        """They are damaged."""
        for piece in pieces:
            of = self._versions.get(piece.digest, [])
            at = bisect_left(of, piece.start, key=lambda other: other.start)
            if at < len(of) and of[at] == piece:
                del of[at]
                if not of:
                    del self._versions[piece.digest]

    def make_room(self, *, writing: int | None) -> list[int]:
        """Forget the segments that must go, never the one that is being written; return their numbers."""
        gone = []
        for number in list(self._segments):
            if self.size <= self.limit and self._count <= self.most:
                break
            if number != writing:
                segment = self._segments.pop(number)
                self.size -= segment.size
                self._count -= len(segment.pieces)
                self.forget(segment.pieces)
                gone.append(number)
        return gone

    def _enter(self, piece: Piece) -> None:
        self._count += 1
        self._segments[piece.segment].pieces.append(piece)
        pieces = self._versions.setdefault(piece.digest, [])
        first = bisect_right(pieces, piece.start, key=lambda other: other.stop)
        last = bisect_left(pieces, piece.stop, key=lambda other: other.start)
        pieces[first:last] = [piece]

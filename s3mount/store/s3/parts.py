"""How a content is cut into the parts of a multipart upload.

Owns: part sizes, and which parts the service can copy by itself.
Must not know: requests, files. Pure.

P1  The parts join from 0 to the size; every part but the last has at least `least(size)` bytes (S3: 5 MiB), none more than 5 GiB.
P2  There are at most 10 000 of them, up to S3's largest object (5 TiB): `least` grows with the size.
P3  A Copied part lies wholly in what is kept of the base. What is kept but too short for a part of its own is Sent, with its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from s3mount.model import Content, Hole, Kept, MiB, Piece, Staged
from s3mount.store.rules import PARTS

# S3's smallest part (but for the last one).
MIN_PART = 5 * MiB
# Few enough requests, small enough to hold eight of them in memory; carries 78 GiB in 10 000 parts.
PART_BYTES = 8 * MiB
# A copy within the service moves no bytes here; several of them at once are faster than one.
COPY_BYTES = 256 * MiB


@dataclass(frozen=True, slots=True)
class Copied:
    """Bytes *start* to *stop* of the base, which are at the same place in the new content."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes *start* to *stop* of the new content, which go through the client."""

    start: int
    stop: int


Cut = Copied | Sent


def least(size: int) -> int:
    """The fewest bytes of a part but the last, so that *size* bytes stay within the number of parts."""
    return max(MIN_PART, -(-size // (PARTS - 1)))


def cut(content: Content, *, copies: bool = True) -> list[Cut]:
    """The parts of *content*, in order; *copies*: whether the service can make some of what is kept."""
    minimum = least(content.size)
    kept = list(_kept_runs(content, minimum)) if copies else []
    cuts: list[Cut] = []
    at = 0
    while at < content.size:
        run = next((run for run in kept if run[0] <= at and run[1] - at >= minimum), None)
        if run is not None:
            cuts.append(Copied(at, min(run[1], at + max(COPY_BYTES, minimum))))
        else:
            cuts.append(Sent(at, _end_of_sent(at, content.size, minimum, kept)))
        at = cuts[-1].stop
    return cuts


def _end_of_sent(at: int, size: int, minimum: int, kept: list[tuple[int, int]]) -> int:
    """As far as a part reaches, less where a copy can take over: but never below the minimum."""
    end = min(at + max(PART_BYTES, minimum), size)
    for start, stop in kept:
        turn = max(start, at + minimum)
        if turn < end and stop - turn >= minimum:
            return turn
    return end


def _kept_runs(content: Content, minimum: int) -> Iterator[tuple[int, int]]:
    # S3 copies ranges only of sources that are larger than its smallest part.
    if content.base is None or content.base.size <= MIN_PART:
        return
    start = stop = 0
    for piece in content.pieces:
        if isinstance(piece, Kept):
            if piece.offset != stop:
                start = piece.offset
            stop = piece.offset + piece.length
        elif stop > start:
            if stop - start >= minimum:
                yield start, stop
            start = stop = 0
    if stop - start >= minimum:
        yield start, stop


def pieces_between(content: Content, start: int, stop: int) -> Iterator[Piece]:
    """The pieces of *content* that cover *start* to *stop*, cut to fit."""
    for piece in content.pieces:
        begin, end = max(piece.offset, start), min(piece.offset + piece.length, stop)
        if begin >= end:
            continue
        match piece:
            case Kept():
                yield Kept(begin, end - begin)
            case Hole():
                yield Hole(begin, end - begin)
            case Staged():
                yield Staged(begin, end - begin, piece.source, piece.position + begin - piece.offset)

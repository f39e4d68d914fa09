"""Positions in the log, and reading one segment.

Owns: how whole records are found in a segment's bytes: forwards, backwards from an end, behind damage.
Must not know: the other segments, what payloads mean, writing.
"""

from __future__ import annotations

import os

from s3mount.engine import codec
from s3mount.engine.search import Found, Search
from s3mount.model import KiB, cheap_value

# What a walk reads at once: a hundred thousand small records cost a few hundred calls, a catch-up with nothing new one short one.
WINDOW_BYTES = 256 * KiB


@cheap_value
class Position:
    """Just behind the record *seq*, in *segment* (its first record's number) at *offset*; *chain* is that record's checksum."""

    segment: int
    offset: int
    seq: int
    chain: int


BEGINNING = Position(segment=1, offset=0, seq=0, chain=0)


class SegmentReader:
    """Reads one segment forwards; -1 stands for a segment that is not there and reads as empty."""

    def __init__(self, fd: int, segment: int) -> None:
        self._fd = fd
        self._segment = segment
        self._buffer = b""
        self._at = 0

    @property
    def exists(self) -> bool:
        return self._fd >= 0

    def size(self) -> int:
        return os.fstat(self._fd).st_size if self.exists else 0

    def frame(self, offset: int) -> codec.Frame | None:
        """The whole record that begins at *offset*, if one does."""
        if not self.exists:
            return None
        self._fill(offset, codec.HEADER_BYTES)
        length = codec.frame_length(self._buffer, offset - self._at)
        if length is None:
            return None
        self._fill(offset, length)
        return codec.decode(self._buffer, offset - self._at)

    def _fill(self, offset: int, length: int) -> None:
        if self._at <= offset and offset + length <= self._at + len(self._buffer):
            return
        self._buffer = os.pread(self._fd, min(max(length, WINDOW_BYTES), max(0, self.size() - offset)), offset)
        self._at = offset

    def behind(self, offset: int) -> bytes:
        """Everything from *offset* on."""
        return os.pread(self._fd, max(0, self.size() - offset), offset) if self.exists else b""

    def survivor(self, end: Position) -> Position | None:
        """The position just before the first whole record behind *end* (behind the damage that follows it).

        An inline body may hold what looks like a record: such is no record of ours.
        """
        data = self.behind(end.offset)
        search = Search(data)
        found = search.find(0, seq_from=end.seq + 1)
        while found is not None and not self._may_follow(end, data, found):
            found = search.find(found.at + 1, seq_from=end.seq + 1)
        if found is None:
            return None
        return Position(segment=self._segment, offset=end.offset + found.at, seq=found.seq - 1, chain=found.chain)

    def _may_follow(self, end: Position, data: bytes, found: Found) -> bool:
        """Whether what was found behind *end* is no part of the record that is damaged there, and its numbers make sense."""
        torn, length = codec.claim(data), codec.frame_length(data) or 0
        if torn is not None and torn[:2] == (end.seq + 1, end.chain) and 0 < found.at < length and found.chain != torn[2]:
            return False
        most = max(end.seq + 1, self._segment) + found.at // codec.FRAME_BYTES
        return found.mark < found.seq <= most

    def ends_with(self, position: Position) -> bool:
        """Whether a whole record ends at *position* that has its number and checksum."""
        frame = self._frame_before(position.offset)
        return frame is not None and (frame.seq, frame.checksum) == (position.seq, position.chain)

    def last_mark(self, position: Position) -> int:
        """The mark of the record that ends at *position*; 0 if none does."""
        frame = self._frame_before(position.offset)
        return frame.mark if frame is not None else 0

    def _frame_before(self, end: int) -> codec.Frame | None:
        if not codec.FRAME_BYTES <= end <= self.size():
            return None
        length, _ = codec.ending(os.pread(self._fd, codec.TRAILER_BYTES, end - codec.TRAILER_BYTES))
        return self.frame(end - length) if codec.FRAME_BYTES <= length <= end else None

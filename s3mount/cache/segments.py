"""Files of cached bytes: how pieces lie in segments on disk, and reading them back without believing them.

Owns: the format, writing, scanning, verified reading. Synchronous: call it in worker threads.
Must not know: what is worth keeping, when a segment goes, who reads.

A segment is two files, only ever appended to by the process that made them:

    00000017.data     header, bytes, header, bytes, ...        a header: digest of the version, start, length, BLAKE3 of the bytes
    00000017.index    record, record, ...                      a record: digest, start, length, position in .data, CRC-32 of the record

Nothing is ever synced: what a crash or a power cut left behind is judged when it is read. An index is believed up to its first bad record;
bytes are believed when their header names them and their hash is right. A segment of a former process is read, not appended to.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from blake3 import blake3

from s3mount.model import KiB

# What is verified at once: a random read of one page costs the reading and hashing of a piece, 100 microseconds.
PIECE_BYTES = 256 * KiB
DIGEST_BYTES = 16

_HEADER = struct.Struct("<16sQI16s4x")
_RECORD = struct.Struct("<16sQII")
_CHECK = struct.Struct("<I")
RECORD_BYTES = _RECORD.size + _CHECK.size
HEADER_BYTES = _HEADER.size


class Damaged(Exception):
    """The bytes on disk are not what was written, or are gone. `pieces` should be forgotten."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__(f"{len(pieces)} cached pieces are damaged")
        self.pieces = pieces


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes *start* to *stop* of the version *digest*, in *segment* from *position* on (there stands the header)."""

    digest: bytes
    start: int
    stop: int
    segment: int
    position: int

    @property
    def room(self) -> int:
        return HEADER_BYTES + self.stop - self.start


@dataclass(slots=True)
class Segment:
    """A segment as it was found or is being written; `used_ns`: when it was used last."""

    number: int
    used_ns: int
    size: int = 0
    pieces: list[Piece] = field(default_factory=list)


def data_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.data"


def index_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.index"


def digest_of(*names: str) -> bytes:
    """What tells a version from all others: of the store's identity, the key, the ETag and the size."""
    return blake3("\0".join(names).encode("utf-8", "surrogateescape")).digest(DIGEST_BYTES)


class SegmentWriter:
    """Appends to a new segment. Any OSError leaves what was written before readable; begin another segment after it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._data = os.open(data_path(folder, number), flags, 0o600)
        try:
            self._index = os.open(index_path(folder, number), flags, 0o600)
        except OSError:
            os.close(self._data)
            raise

    def append(self, digest: bytes, start: int, data: memoryview) -> list[Piece]:
        """Write *data*, which stands at *start* of the version, and return its pieces."""
        pieces, parts = [], []
        for offset in range(0, data.nbytes, PIECE_BYTES):
            part = data[offset : offset + PIECE_BYTES]
            at = start + offset
            pieces.append(Piece(digest, at, at + part.nbytes, self.number, self.size))
            parts += [memoryview(_HEADER.pack(digest, at, part.nbytes, blake3(part).digest(16))), part]
            self.size += pieces[-1].room
        _write_all(self._data, parts)
        _write_all(self._index, [memoryview(b"".join(_record(piece) for piece in pieces))])
        return pieces

    def close(self) -> None:
        os.close(self._data)
        os.close(self._index)


def scan(folder: Path) -> list[Segment]:
    """The segments of *folder* in the order in which they were written. Removes what is no whole segment."""
    segments = []
    for number in sorted({int(path.stem) for path in folder.iterdir() if path.stem.isdecimal()}):
        segment = _found(folder, number)
        if segment.pieces:
            segments.append(segment)
        else:
            remove(folder, number)
    return segments


def remove(folder: Path, number: int) -> None:
    """Idempotent."""
    index_path(folder, number).unlink(missing_ok=True)
    data_path(folder, number).unlink(missing_ok=True)


def mark_used(folder: Path, number: int) -> None:
    """Remember across restarts that it was used now."""
    try:
        os.utime(data_path(folder, number))
    except OSError:  # it was removed
        pass


def read(folder: Path, pieces: Sequence[Piece], start: int, buffer: memoryview) -> None:
    """Fill *buffer*, which stands for the version from *start* on, from *pieces*, which cover it in order. Raises Damaged."""
    at = 0

    def run(numbered: tuple[int, Piece]) -> tuple[int, int]:
        nonlocal at
        _, piece = numbered
        begin = piece.position - at
        at += piece.room
        return piece.segment, begin

    for _, group in groupby(enumerate(pieces), run):
        _read_run(folder, [piece for _, piece in group], start, buffer)


def _read_run(folder: Path, pieces: Sequence[Piece], start: int, buffer: memoryview) -> None:
    """As `read`, for pieces that lie one behind the other in one segment."""
    headers = [bytearray(HEADER_BYTES) for _ in pieces]
    targets = [_target(piece, start, buffer) for piece in pieces]
    expected = sum(piece.room for piece in pieces)
    try:
        fd = os.open(data_path(folder, pieces[0].segment), os.O_RDONLY | os.O_CLOEXEC)
        try:
            got = os.preadv(fd, [part for pair in zip(headers, targets, strict=True) for part in pair], pieces[0].position)
        finally:
            os.close(fd)
    except OSError as error:
        raise Damaged(pieces) from error
    if got != expected:
        raise Damaged(pieces)
    for piece, header, target in zip(pieces, headers, targets, strict=True):
        if header != _HEADER.pack(piece.digest, piece.start, target.nbytes, blake3(target).digest(16)):
            raise Damaged([piece])
        lo, hi = max(piece.start, start), min(piece.stop, start + buffer.nbytes)
        if hi - lo < target.nbytes:
            buffer[lo - start : hi - start] = target[lo - piece.start : hi - piece.start]


def _target(piece: Piece, start: int, buffer: memoryview) -> memoryview:
    """Where *piece* is read to: its place in *buffer* where it fits whole, else a buffer of its own."""
    if piece.start >= start and piece.stop <= start + buffer.nbytes:
        return buffer[piece.start - start : piece.stop - start]
    return memoryview(bytearray(piece.stop - piece.start))


def _found(folder: Path, number: int) -> Segment:
    try:
        status = data_path(folder, number).stat()
    except FileNotFoundError:
        return Segment(number, 0)
    return Segment(number, status.st_mtime_ns, status.st_size, list(_listed(folder, number, status.st_size)))


def _listed(folder: Path, number: int, size: int) -> Iterator[Piece]:
    try:
        data = index_path(folder, number).read_bytes()
    except OSError:
        return
    for at in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        record = data[at : at + _RECORD.size]
        if _CHECK.unpack_from(data, at + _RECORD.size)[0] != zlib.crc32(record):
            return
        digest, start, length, position = _RECORD.unpack(record)
        if position + HEADER_BYTES + length > size:
            return
        yield Piece(digest, start, start + length, number, position)


def _record(piece: Piece) -> bytes:
    record = _RECORD.pack(piece.digest, piece.start, piece.stop - piece.start, piece.position)
    return record + _CHECK.pack(zlib.crc32(record))


def _write_all(fd: int, parts: Sequence[memoryview]) -> None:
    left = list(parts)
    while left:
        written = os.writev(fd, left)
        while left and written >= left[0].nbytes:
            written -= left.pop(0).nbytes
        if written:
            left[0] = left[0][written:]

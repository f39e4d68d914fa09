"""Searching whole frames in bytes that damage has cut to pieces, in time that grows with their number only. Pure.

Owns: which places may begin a frame, and the checksum of any stretch of the bytes without reading it again for each of them.
Must not know: segments, which frames belong to the log.

Bodies lie in the log as their owners wrote them, and may hold what looks like the beginnings and ends of a great many frames, each as
long as can be: with a checksum from scratch for each, 16 MiB of that would take a quarter of an hour. But CRC-32 is linear: that of a
stretch follows from those of the bytes before its two ends (`Stretches`), and that of two pieces from theirs (`joined`), as zlib's
crc32_combine does it. So each place costs the same, whatever length it claims.

    crc(A B) = shifted(crc(A), len(B)) ^ crc(B)          shifted(c, n): multiply by x^(8 n) modulo the polynomial
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from zlib import crc32

from s3mount.engine.codec import CHECKSUM, FRAME_BYTES, HEADER, HEADER_BYTES, MAGIC, TRAILER, TRAILER_BYTES, Buffer, frame_length

# Between two places whose checksum is kept: what is read again for each end of a stretch, at most.
STEP_BYTES = 1024

# CRC-32's polynomial, lowest power first, as zlib has it.
_POLYNOMIAL = 0xEDB88320

# A linear map of 32 bits: for each byte of the argument, the image of each of its values.
_Map = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A whole frame that begins at *at*, and what its header says."""

    at: int
    seq: int
    mark: int
    chain: int
    checksum: int


class Search:
    """Looks for frames in *buffer*, from anywhere, any number of times."""

    def __init__(self, buffer: Buffer) -> None:
        self._data = bytes(buffer)
        self._stretches = Stretches(self._data)

    def find(self, at: int, *, seq_from: int) -> Found | None:
        """The first whole frame that begins at or behind *at* and whose number is at least *seq_from*."""
        while (at := self._data.find(MAGIC, at)) >= 0:
            found = self._at(at)
            if found is not None and found.seq >= seq_from:
                return found
            at += 1
        return None

    def _at(self, at: int) -> Found | None:
        length = frame_length(self._data, at)
        if length is None or len(self._data) - at < length:
            return None
        (checksum,) = CHECKSUM.unpack_from(self._data, at + HEADER.size)
        end = at + length - TRAILER_BYTES
        if TRAILER.unpack_from(self._data, end) != (length, checksum):
            return None
        header = crc32(self._data[at : at + HEADER.size])
        if joined(header, self._stretches.crc(at + HEADER_BYTES, end), length - FRAME_BYTES) != checksum:
            return None
        _, _, _, seq, mark, chain = HEADER.unpack_from(self._data, at)
        return Found(at, seq, mark, chain, checksum)


class Stretches:
    """CRC-32 of any stretch of *data*. The first look at a place reads all before it, once; then a stretch costs microseconds."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._kept = [0]

    def crc(self, start: int, stop: int) -> int:
        return self._before(stop) ^ shifted(self._before(start), stop - start)

    def _before(self, place: int) -> int:
        step = place // STEP_BYTES
        while len(self._kept) <= step:
            begin = (len(self._kept) - 1) * STEP_BYTES
            self._kept.append(crc32(self._data[begin : begin + STEP_BYTES], self._kept[-1]))
        return crc32(self._data[step * STEP_BYTES : place], self._kept[step])


def joined(first: int, second: int, length: int) -> int:
    """The CRC-32 of two pieces, one behind the other, from theirs; the second has *length* bytes."""
    return shifted(first, length) ^ second


def shifted(crc: int, count: int) -> int:
    """What *crc* becomes when *count* bytes follow, but for what these say."""
    power = 0
    while count:
        if count & 1:
            a, b, c, d = _by(power)
            crc = a[crc & 255] ^ b[crc >> 8 & 255] ^ c[crc >> 16 & 255] ^ d[crc >> 24]
        count >>= 1
        power += 1
    return crc


@cache
def _by(power: int) -> _Map:
    """Shifting by 2 ** *power* bytes: by one, from the polynomial; else by half as many, twice."""
    if power == 0:
        return tuple(tuple(_by_one(value << 8 * place) for value in range(256)) for place in range(4))
    half = 1 << power - 1
    return tuple(tuple(shifted(value, half) for value in values) for values in _by(power - 1))


def _by_one(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc

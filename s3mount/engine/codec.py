"""The frame around one record of the log. Pure.

Owns: the bytes of a frame, and when they are whole.
Must not know: files, segments, what payloads mean.

    header   magic 4, payload length 4, blob length 4, seq 8, mark 8, chain 4, checksum 4      (little-endian, 36 bytes)
    payload  the transaction
    blobs    its inline bodies, one behind the other
    trailer  length of the whole frame 4, checksum 4: what ends here can be verified without reading from the segment's beginning

F1  The checksum (CRC-32) covers the header before it, the payload and the blobs.
F2  `chain` is the former record's checksum: a frame left over from another history of the file does not join.
F3  `mark` is the highest record that the writer knew to be synced with its bodies, so whatever a mark covers was durable:
    if it is damaged, that is damage, and not a tail that a crash left.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from s3mount.model import KiB, cheap_value

Buffer = bytes | bytearray | memoryview

MAGIC = b"s3L\x01"
HEADER = struct.Struct("<4sIIQQI")
CHECKSUM = struct.Struct("<I")
TRAILER = struct.Struct("<II")
HEADER_BYTES = HEADER.size + CHECKSUM.size
TRAILER_BYTES = TRAILER.size
FRAME_BYTES = HEADER_BYTES + TRAILER_BYTES

# Up to so many bytes are copied into one buffer: that takes a microsecond, to hand over several of them takes five.
JOINED_BYTES = 16 * KiB

# Lengths are 32-bit numbers; callers split long before (a frame is held in memory).
MAX_FRAME_BYTES = (1 << 32) - 1


@cheap_value
class Encoded:
    """A frame ready to be written: *buffers* joined are its bytes."""

    buffers: tuple[Buffer, ...]
    length: int
    checksum: int
    blobs_at: int
    """Where the blobs begin, from the frame's first byte."""


@cheap_value
class Frame:
    """A frame that was found whole. `payload` is a copy."""

    seq: int
    mark: int
    chain: int
    checksum: int
    payload: bytes
    blobs_at: int
    blob_bytes: int

    @property
    def length(self) -> int:
        return self.blobs_at + self.blob_bytes + TRAILER.size


def encode(seq: int, *, mark: int, chain: int, payload: Buffer, blobs: Sequence[Buffer] = ()) -> Encoded:
    """The frame of one record. Raises ValueError when it is too long to be framed."""
    blob_bytes = sum(len(blob) for blob in blobs)
    length = FRAME_BYTES + len(payload) + blob_bytes
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a record of {length} bytes is too long")
    header = HEADER.pack(MAGIC, len(payload), blob_bytes, seq, mark, chain)
    checksum = zlib.crc32(payload, zlib.crc32(header))
    for blob in blobs:
        checksum = zlib.crc32(blob, checksum)
    parts = (header, CHECKSUM.pack(checksum), payload, *blobs, TRAILER.pack(length, checksum))
    buffers = (b"".join(parts),) if length <= JOINED_BYTES else parts
    return Encoded(buffers=buffers, length=length, checksum=checksum, blobs_at=HEADER_BYTES + len(payload))


def frame_length(buffer: Buffer, at: int = 0) -> int | None:
    """How long the frame that begins at *at* claims to be; None if no header stands there. Unverified."""
    if len(buffer) - at < HEADER_BYTES:
        return None
    magic, payload_bytes, blob_bytes, _, _, _ = HEADER.unpack_from(buffer, at)
    return FRAME_BYTES + int(payload_bytes) + int(blob_bytes) if magic == MAGIC else None


def claim(buffer: Buffer, at: int = 0) -> tuple[int, int, int] | None:
    """Number, chain and checksum that the header at *at* claims; None if no header stands there. Unverified."""
    if frame_length(buffer, at) is None:
        return None
    _, _, _, seq, _, chain = HEADER.unpack_from(buffer, at)
    return seq, chain, CHECKSUM.unpack_from(buffer, at + HEADER.size)[0]


def decode(buffer: Buffer, at: int = 0) -> Frame | None:
    """The frame that begins at *at*; None unless it is whole."""
    length = frame_length(buffer, at)
    if length is None or len(buffer) - at < length:
        return None
    _, payload_bytes, blob_bytes, seq, mark, chain = HEADER.unpack_from(buffer, at)
    (checksum,) = CHECKSUM.unpack_from(buffer, at + HEADER.size)
    view = memoryview(buffer)[at : at + length]
    body = view[HEADER_BYTES : length - TRAILER.size]
    if zlib.crc32(body, zlib.crc32(view[: HEADER.size])) != checksum or TRAILER.unpack(view[-TRAILER.size :]) != (length, checksum):
        return None
    return Frame(
        seq=seq,
        mark=mark,
        chain=chain,
        checksum=checksum,
        payload=bytes(body[:payload_bytes]),
        blobs_at=HEADER_BYTES + payload_bytes,
        blob_bytes=blob_bytes,
    )


def ending(trailer: Buffer) -> tuple[int, int]:
    """Length and checksum of the frame that ends with *trailer* (`TRAILER_BYTES`). Unverified."""
    length, checksum = TRAILER.unpack(trailer)
    return int(length), int(checksum)

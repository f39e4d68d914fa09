"""Frames: what was written is found whole, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.engine import codec


def joined(frame: codec.Encoded) -> bytes:
    return b"".join(bytes(buffer) for buffer in frame.buffers)


def sample(seq: int = 7) -> bytes:
    return joined(codec.encode(seq, mark=3, chain=99, payload=b"payload", blobs=[b"one", b"", b"three"]))


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=300),
    st.lists(st.binary(max_size=50)),
)
def test_a_frame_is_read_as_it_was_written(seq: int, mark: int, chain: int, payload: bytes, blobs: list[bytes]) -> None:
    encoded = codec.encode(seq, mark=mark, chain=chain, payload=payload, blobs=blobs)
    data = joined(encoded)
    frame = codec.decode(b"junk" + data + b"junk", 4)
    assert frame is not None
    assert (frame.seq, frame.mark, frame.chain, frame.payload) == (seq, mark, chain, payload)
    assert (frame.checksum, frame.length, frame.blobs_at) == (encoded.checksum, encoded.length, encoded.blobs_at)
    assert data[frame.blobs_at : frame.blobs_at + frame.blob_bytes] == b"".join(blobs)
    assert len(data) == encoded.length == codec.frame_length(data)
    assert codec.ending(data[-codec.TRAILER_BYTES :]) == (encoded.length, encoded.checksum)


def test_a_frame_cut_anywhere_is_not_whole() -> None:
    data = sample()
    for size in range(len(data)):
        assert codec.decode(data[:size]) is None
        assert codec.decode(data[:size] + bytes(len(data) - size)) is None


def test_a_frame_with_any_byte_changed_is_not_whole() -> None:
    data = sample()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x40
        assert codec.decode(changed) is None


def test_a_payload_that_looks_like_a_frame_does_not_confuse() -> None:
    inner = sample(5)
    outer = joined(codec.encode(1, mark=0, chain=0, payload=inner))
    frame = codec.decode(outer)
    assert frame is not None
    assert frame.payload == inner


def test_a_record_beyond_four_gigabytes_is_refused() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return codec.MAX_FRAME_BYTES

    with pytest.raises(ValueError, match="too long"):
        codec.encode(1, mark=0, chain=0, payload=b"", blobs=[Long()])

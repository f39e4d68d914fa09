"""What is found behind damage: whole frames only, as soon as there are any, whatever a body pretends."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.engine import codec
from s3mount.engine.search import STEP_BYTES, Search, Stretches, joined
from s3mount.model import KiB, MiB


def frame(seq: int = 7, payload: bytes = b"payload", blobs: tuple[bytes, ...] = (b"one", b"", b"three")) -> bytes:
    return b"".join(bytes(buffer) for buffer in codec.encode(seq, mark=3, chain=99, payload=payload, blobs=blobs).buffers)


def places(data: bytes, seq_from: int = 0) -> list[int]:
    search, found = Search(data), []
    at = search.find(0, seq_from=seq_from)
    while at is not None:
        found.append(at.at)
        at = search.find(at.at + 1, seq_from=seq_from)
    return found


def test_a_frame_behind_damage_is_found_and_read() -> None:
    damaged = bytearray(frame(7))
    damaged[10] ^= 1
    data = bytes(damaged) + frame(8) + frame(9)
    found = Search(data).find(0, seq_from=8)
    whole = codec.decode(frame(8))
    assert found is not None
    assert whole is not None
    assert (found.at, found.seq, found.mark, found.chain) == (len(damaged), 8, whole.mark, whole.chain)
    assert found.checksum == whole.checksum
    assert places(data, 8) == [len(damaged), 2 * len(damaged)]


def test_an_older_frame_behind_damage_is_not_what_was_lost() -> None:
    assert places(b"damage" + frame(3), 8) == []


def test_large_frames_are_found_as_small_ones_are() -> None:
    sizes = [0, 1, STEP_BYTES - 1, STEP_BYTES, 3 * STEP_BYTES + 7, MiB]
    data, expected = b"x", []
    for size in sizes:
        expected.append(len(data))
        data += frame(payload=bytes(at % 251 for at in range(size)), blobs=()) + b"between"
    assert places(data) == expected


@given(st.binary(max_size=200), st.integers(0, 250), st.integers(1, 255))
def test_a_frame_that_was_changed_anywhere_is_not_found(payload: bytes, at: int, by: int) -> None:
    data = bytearray(frame(payload=payload, blobs=()))
    data[at % len(data)] ^= by
    assert places(bytes(data)) == []


@given(st.binary(max_size=4000), st.data())
def test_the_checksum_of_any_stretch_is_that_of_its_bytes(data: bytes, draw: st.DataObject) -> None:
    data = data * 3
    start = draw.draw(st.integers(0, len(data)))
    stop = draw.draw(st.integers(start, len(data)))
    assert Stretches(data).crc(start, stop) == zlib.crc32(data[start:stop])
    assert joined(zlib.crc32(data[:start]), zlib.crc32(data[start:]), len(data) - start) == zlib.crc32(data)


def pretending(size: int) -> bytes:
    """Half of it beginnings of frames, half of it their ends: the first fits the last, and so on inwards. None is whole."""
    count = size // codec.FRAME_BYTES
    beginnings, ends = [], []
    for number in range(count):
        length = count * codec.FRAME_BYTES - number * (codec.HEADER_BYTES + codec.TRAILER_BYTES)
        beginnings.append(codec.HEADER.pack(codec.MAGIC, length - codec.FRAME_BYTES, 0, 7, 3, 99) + codec.CHECKSUM.pack(number))
        ends.append(codec.TRAILER.pack(length, number))
    return b"".join(beginnings) + b"".join(reversed(ends))


def test_a_body_that_pretends_to_be_a_thousand_frames_is_read_a_few_times_and_not_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def counting(data: bytes | memoryview, value: int = 0) -> int:
        nonlocal read
        read += len(data)
        return zlib.crc32(data, value)

    data = pretending(64 * KiB) + frame(8)
    monkeypatch.setattr("s3mount.engine.search.crc32", counting)
    assert places(data) == [len(data) - len(frame(8))]
    assert read < len(data) * 2 * (STEP_BYTES + codec.FRAME_BYTES) / codec.FRAME_BYTES

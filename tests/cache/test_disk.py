"""Blocks kept on disk: across restarts, crashes, damage, a full disk and a second process."""

from __future__ import annotations

import errno
import logging
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from trio.testing import MockClock

from s3mount.cache import segments
from s3mount.cache.blocks import Blocks
from s3mount.cache.disk import FOLDER, Disk
from s3mount.cache.options import CacheOptions
from s3mount.cache.segments import PIECE_BYTES, Damaged, Piece, Segment, SegmentWriter, data_path, digest_of, index_path
from s3mount.cache.shelf import Shelf
from s3mount.cache.tasks import Background
from s3mount.model import GiB, Key, KiB, MiB
from tests.cache.kit import Remote, pattern, read, read_all, remote_of

A = Key("a")
D = digest_of("store", "key", "etag", "1")


def mounted(remote: Remote, folder: Path, *, limit: int = 1 * GiB, memory: int = 32 * MiB, identity: str = "here/bucket") -> Blocks:
    return Blocks(remote, CacheOptions(identity=identity, memory_limit=memory, folder=folder, disk_limit=limit))


async def read_file(blocks: Blocks, key: str = "a") -> bytes:
    remote = blocks.inner
    assert isinstance(remote, Remote)
    pin = await blocks.pin(Key(key), known=await remote.inner.head(Key(key)))
    data = await read_all(pin)
    await pin.aclose()
    if blocks.disk is not None:
        await blocks.disk.wait_written()
    return data


def files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*.data"))


async def test_after_a_remount_nothing_is_fetched_again(tmp_path: Path) -> None:
    data, small = pattern(9 * MiB + 77), pattern(30_000, seed=1)
    remote = await remote_of({"a": data, "b": small}, latency=0, bandwidth=1e12)
    for _ in range(3):
        blocks = mounted(remote, tmp_path)
        assert await read_file(blocks) == data
        assert await read_file(blocks, "b") == small
        blocks.check()
        await blocks.aclose()

    assert remote.bytes_sent == len(data) + len(small)


@pytest.mark.slow
async def test_what_does_not_fit_into_memory_is_read_from_disk_again(tmp_path: Path) -> None:
    data = pattern(16 * MiB)
    remote = await remote_of({"a": data}, latency=0, bandwidth=50e6)
    blocks = mounted(remote, tmp_path)
    assert await read_file(blocks) == data
    await blocks.aclose()
    once = remote.bytes_sent
    blocks = mounted(remote, tmp_path, memory=4 * MiB)
    assert await read_file(blocks) == data
    assert await read_file(blocks) == data
    await blocks.aclose()

    assert remote.bytes_sent == once == len(data)


async def test_random_reads_are_served_from_disk_too(tmp_path: Path) -> None:
    data = pattern(4 * MiB)
    remote = await remote_of({"a": data}, latency=0, bandwidth=1e12)
    blocks = mounted(remote, tmp_path)
    await read_file(blocks)
    await blocks.aclose()
    sent = len(remote.gets)
    blocks = mounted(remote, tmp_path)
    pin = await blocks.pin(A, known=await remote.inner.head(A))
    rng = random.Random(1)
    for _ in range(50):
        offset = rng.randrange(len(data) - 5000)
        buffer = bytearray(5000)
        await read(pin, offset, memoryview(buffer))
        assert buffer == data[offset : offset + 5000]
    await pin.aclose()
    await blocks.aclose()

    assert len(remote.gets) == sent


async def test_another_version_or_another_bucket_is_not_mistaken_for_it(tmp_path: Path) -> None:
    old, new = pattern(100_000), pattern(100_000, seed=1)
    remote = await remote_of({"a": old}, latency=0, bandwidth=1e12)
    blocks = mounted(remote, tmp_path)
    assert await read_file(blocks) == old
    await remote.inner.put(A, new)
    assert await read_file(blocks) == new
    await blocks.aclose()

    other = await remote_of({"a": old}, latency=0, bandwidth=1e12)
    blocks = mounted(other, tmp_path, identity="there/bucket")
    assert await read_file(blocks) == old
    await blocks.aclose()
    assert len(other.gets) == 1


@pytest.mark.parametrize("harm", ["flip", "cut data", "cut index", "garbage index", "remove data", "remove index", "empty"])
async def test_damage_is_noticed_and_costs_a_request(tmp_path: Path, harm: str) -> None:
    data = pattern(2 * MiB)
    remote = await remote_of({"a": data}, latency=0, bandwidth=1e12)
    blocks = mounted(remote, tmp_path)
    await read_file(blocks)
    await blocks.aclose()
    [path] = files(tmp_path)
    index = path.with_suffix(".index")
    match harm:
        case "flip":
            with path.open("r+b") as file:
                file.seek(700_000)
                byte = file.read(1)
                file.seek(700_000)
                file.write(bytes([byte[0] ^ 1]))
        case "cut data":
            os.truncate(path, 1_000_000)
        case "cut index":
            os.truncate(index, os.stat(index).st_size - 5)
        case "garbage index":
            index.write_bytes(index.read_bytes()[:40] + random.Random(1).randbytes(1000))
        case "remove data":
            path.unlink()
        case "remove index":
            index.unlink()
        case "empty":
            os.truncate(path, 0)
            os.truncate(index, 0)
    once = len(remote.gets)

    for _ in range(2):
        blocks = mounted(remote, tmp_path)
        assert await read_file(blocks) == data
        blocks.check()
        await blocks.aclose()
    again = len(remote.gets)
    assert again > once
    blocks = mounted(remote, tmp_path)
    assert await read_file(blocks) == data
    await blocks.aclose()
    assert len(remote.gets) == again


@pytest.mark.slow
async def test_the_disk_limit_holds_and_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    limit = 16 * MiB
    remote = await remote_of({f"f{number}": pattern(1 * MiB, number) for number in range(40)}, latency=0, bandwidth=1e12)
    blocks = mounted(remote, tmp_path, limit=limit, memory=8 * MiB)
    for number in range(40):
        await read_file(blocks, f"f{number}")
        if number % 5 == 0:
            await blocks.aclose()
            blocks = mounted(remote, tmp_path, limit=limit, memory=8 * MiB)
            await read_file(blocks, "f0")
    await blocks.aclose()

    assert sum(path.stat().st_size for path in files(tmp_path)) <= limit + 2 * MiB
    sent = len(remote.gets)
    blocks = mounted(remote, tmp_path, limit=limit)
    await read_file(blocks, "f39")
    await read_file(blocks, "f0")
    assert len(remote.gets) == sent
    await read_file(blocks, "f3")
    assert len(remote.gets) > sent
    await blocks.aclose()


async def test_a_second_process_is_told_and_goes_on_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = pattern(1 * MiB)
    remote = await remote_of({"a": data}, latency=0, bandwidth=1e12)
    first, second = mounted(remote, tmp_path), mounted(remote, tmp_path)
    assert await read_file(first) == data
    assert await read_file(second) == data
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"The cache folder {tmp_path} is not used: another process uses it."
    ]
    await first.aclose()
    await second.aclose()
    third = mounted(remote, tmp_path)
    sent = len(remote.gets)
    assert await read_file(third) == data
    assert len(remote.gets) == sent
    await third.aclose()


async def test_a_full_disk_ends_writing_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    data = pattern(8 * MiB)
    remote = await remote_of({"a": data})
    full = True
    writev = os.writev

    def short_of_room(fd: int, parts: list[memoryview]) -> int:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return writev(fd, parts)

    monkeypatch.setattr(os, "writev", short_of_room)
    blocks = mounted(remote, tmp_path)
    assert await read_file(blocks) == data
    assert await read_file(blocks) == data
    await blocks.aclose()

    assert [record.message for record in caplog.records] == [f"The cache folder {tmp_path} cannot be written: No space left on device."]
    blocks.check()
    full = False
    blocks = mounted(remote, tmp_path)
    assert await read_file(blocks) == data
    await blocks.aclose()


async def test_a_folder_that_cannot_be_made_is_said_and_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    data = pattern(100)
    remote = await remote_of({"a": data}, latency=0, bandwidth=1e12)
    blocks = mounted(remote, tmp_path / "file")
    assert await read_file(blocks) == data
    await blocks.aclose()

    assert "is not used: Not a directory" in caplog.text


async def test_nobody_else_may_look_into_the_folder(tmp_path: Path) -> None:
    remote = await remote_of({"a": pattern(100)}, latency=0, bandwidth=1e12)
    blocks = mounted(remote, tmp_path / "cache")
    await read_file(blocks)
    await blocks.aclose()

    assert stat.S_IMODE((tmp_path / "cache" / FOLDER).stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache" / FOLDER).iterdir()} == {0o600}


# -- the format -----------------------------------------------------------------------------


def written(folder: Path, start: int, data: bytes, *, number: int = 1, digest: bytes = D) -> list[Piece]:
    writer = SegmentWriter(folder, number)
    pieces = writer.append(digest, start, memoryview(data))
    writer.close()
    return pieces


def test_any_part_of_what_was_written_is_read_back(tmp_path: Path) -> None:
    data = pattern(3 * PIECE_BYTES + 100)
    written(tmp_path, 1000, data)
    [segment] = segments.scan(tmp_path)
    assert [piece.stop - piece.start for piece in segment.pieces] == [PIECE_BYTES] * 3 + [100]
    shelf = Shelf(1 << 40, 1000)
    shelf.add_segment(segment)
    rng = random.Random(3)
    for _ in range(100):
        start = rng.randrange(len(data))
        stop = rng.randrange(start, len(data)) + 1
        pieces = shelf.covering(D, 1000 + start, 1000 + stop)
        assert pieces is not None
        buffer = bytearray(stop - start)
        segments.read(tmp_path, pieces, 1000 + start, memoryview(buffer))
        assert buffer == data[start:stop]
    assert shelf.covering(D, 999, 1001) is None
    assert shelf.covering(D, 1000, 1000 + len(data) + 1) is None


def test_a_piece_that_was_written_over_another_is_not_read(tmp_path: Path) -> None:
    pieces = written(tmp_path, 0, pattern(1000))
    other = written(tmp_path, 0, pattern(1000, seed=1), number=2, digest=digest_of("x"))
    data_path(tmp_path, 1).write_bytes(data_path(tmp_path, 2).read_bytes())

    assert other != pieces
    with pytest.raises(Damaged):
        segments.read(tmp_path, pieces, 0, memoryview(bytearray(1000)))


def test_a_segment_that_is_nothing_is_removed(tmp_path: Path) -> None:
    written(tmp_path, 0, pattern(1000))
    index_path(tmp_path, 1).write_bytes(b"")
    data_path(tmp_path, 7).write_bytes(b"half")
    (tmp_path / "other.data").write_bytes(b"not ours")

    assert segments.scan(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["other.data"]


def test_the_shelf_keeps_pieces_disjoint_and_within_its_limits() -> None:
    rng = random.Random(5)
    shelf = Shelf(200 * KiB, 60)
    number = 0
    truth: dict[int, Piece] = {}
    for step in range(600):
        if step % 10 == 0:
            number += 1
            shelf.add_segment(Segment(number, 0))
        start = rng.randrange(100) * 100
        piece = Piece(D, start, start + rng.choice([100, 500, 2000]), number, step)
        shelf.add([piece])
        truth = {at: other for at, other in truth.items() if other.stop <= piece.start or other.start >= piece.stop}
        truth |= dict.fromkeys(range(piece.start, piece.stop, 100), piece)
        gone = shelf.make_room(writing=number)
        truth = {at: other for at, other in truth.items() if other.segment not in gone}
        shelf.check()
        assert len(shelf) <= 60 or {segment.number for segment in shelf.segments} == {number}
        for at in range(0, 12_000, 700):
            found = shelf.covering(D, at - at % 100, at - at % 100 + 100)
            assert (found[0] if found else None) == truth.get(at - at % 100)


def test_a_disk_shows_its_state(tmp_path: Path) -> None:
    assert "not in use" in repr(Disk(tmp_path, 1 * MiB, identity="x", background=Background()))


@pytest.mark.slow
def test_after_a_kill_every_piece_that_is_listed_reads_back_whole(tmp_path: Path) -> None:
    script = (
        "import random, sys; from pathlib import Path; from s3mount.cache.segments import SegmentWriter, digest_of\n"
        "writer, at, rng = SegmentWriter(Path(sys.argv[1]), 1), 0, random.Random(1)\n"
        "while True:\n"
        "    data = rng.randbytes(rng.randrange(1, 400_000)); writer.append(digest_of('x'), at, memoryview(data)); at += len(data)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    try:
        while not index_path(tmp_path, 1).exists() or index_path(tmp_path, 1).stat().st_size < 3000:
            assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()

    rng = random.Random(1)
    truth = b"".join(rng.randbytes(rng.randrange(1, 400_000)) for _ in range(60))
    [segment] = segments.scan(tmp_path)
    assert len(segment.pieces) > 50
    for piece in segment.pieces[:80]:
        buffer = bytearray(piece.stop - piece.start)
        segments.read(tmp_path, [piece], piece.start, memoryview(buffer))
        if piece.stop <= len(truth):
            assert buffer == truth[piece.start : piece.stop]

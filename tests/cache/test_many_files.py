"""Two hundred files at once: the memory limit holds, in slots and in what the process takes; all get on, none twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.cache.blocks import Blocks
from s3mount.cache.options import CacheOptions
from s3mount.model import ETag, Key, KiB, MiB, ObjectInfo
from tests.cache.kit import Remote, read, remote_of

FILES = 200


def resident() -> int:
    """Bytes of memory that this process takes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def hollow() -> Remote:
    remote = await remote_of({})
    remote.hollow = True
    return remote


def info_of(number: int, size: int) -> ObjectInfo:
    return ObjectInfo(Key(f"f{number}"), size, ETag("e"), 0)


async def read_along(blocks: Blocks, info: ObjectInfo, *, pause: float = 0.0) -> float:
    """Read all of it; return when that was done."""
    pin = await blocks.pin(info.key, known=info)
    buffer = memoryview(bytearray(128 * KiB))
    for offset in range(0, info.size, buffer.nbytes):
        await read(pin, offset, buffer[: min(buffer.nbytes, info.size - offset)])
        await trio.sleep(pause)
    await pin.aclose()
    return trio.current_time()


@pytest.mark.slow
@pytest.mark.parametrize("limit", [32 * MiB, 96 * MiB])
async def test_with_200_open_files_the_memory_limit_holds(autojump_clock: MockClock, limit: int) -> None:
    remote = await hollow()
    blocks = Blocks(remote, CacheOptions(memory_limit=limit))
    before = resident()
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            blocks.check()
            most = max(most, resident())
            await trio.sleep(1.0)

    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as readers:
                for number in range(FILES):
                    readers.start_soon(read_along, blocks, info_of(number, 2 * MiB))
            nursery.cancel_scope.cancel()

    assert blocks.arena.used <= blocks.arena.limit <= limit
    slots = {id(block.slot): block.slot for version in blocks.versions for block in version if block.slot is not None}
    assert sum(slot.size for slot in slots.values()) <= limit
    assert most - before <= limit + 40 * MiB  # 200 readers' own buffers (25 MiB) and the objects that describe blocks
    assert remote.bytes_sent <= 1.1 * FILES * 2 * MiB
    await blocks.aclose()


@pytest.mark.slow
async def test_readers_that_stand_still_do_not_keep_the_memory_from_one_that_reads(autojump_clock: MockClock) -> None:
    remote = await hollow()
    blocks = Blocks(remote, CacheOptions(memory_limit=64 * MiB))
    pins = []
    for number in range(FILES):
        info = info_of(number, 64 * MiB)
        pins.append(await blocks.pin(info.key, known=info))
        buffer = memoryview(bytearray(128 * KiB))
        for offset in range(0, 512 * KiB, 128 * KiB):
            await read(pins[-1], offset, buffer)
    await trio.sleep(5)
    then = trio.current_time()
    done = await read_along(blocks, info_of(FILES, 256 * MiB))

    assert 256 * MiB / (done - then) > 3 * 90e6
    for pin in pins:
        await pin.aclose()
    blocks.check()
    await blocks.aclose()


@pytest.mark.slow
async def test_a_slow_reader_is_not_starved_by_fast_ones(autojump_clock: MockClock) -> None:
    remote = await hollow()
    blocks = Blocks(remote, CacheOptions(memory_limit=64 * MiB))
    waits: list[float] = []

    async def slow() -> None:
        info = info_of(99, 16 * MiB)
        pin = await blocks.pin(info.key, known=info)
        buffer = memoryview(bytearray(128 * KiB))
        for offset in range(0, info.size, buffer.nbytes):
            then = trio.current_time()
            await read(pin, offset, buffer)
            waits.append(trio.current_time() - then)
            await trio.sleep(0.02)
        await pin.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow)
        for number in range(6):
            nursery.start_soon(read_along, blocks, info_of(number, 128 * MiB))

    assert max(waits) < 0.5
    assert sum(waits[16:]) / len(waits[16:]) < 0.02
    await blocks.aclose()


@pytest.mark.slow
async def test_readers_side_by_side_get_on_alike(autojump_clock: MockClock) -> None:
    remote = await hollow()
    blocks = Blocks(remote, CacheOptions(memory_limit=128 * MiB))
    done: list[float] = []

    async def one(number: int) -> None:
        done.append(await read_along(blocks, info_of(number, 64 * MiB)))

    then = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(one, number)

    assert max(done) - then < 1.6 * (min(done) - then)
    assert 8 * 64 * MiB / (max(done) - then) > 0.5 * 16 * 90e6
    await blocks.aclose()

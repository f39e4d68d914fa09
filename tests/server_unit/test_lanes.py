"""Lanes: each in order, none waits for another, what is ahead is bounded, an error ends the body."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3mount.model import KiB, MiB
from s3mount.server.lanes import Block, Lanes, Room, Step


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def test_each_lane_gets_every_block_in_order(threads: ThreadPoolExecutor) -> None:
    one, other = bytearray(), bytearray()

    def into(target: bytearray) -> Step:
        return lambda block: target.extend(b"".join(block))

    blocks = [(bytes([number]), bytes([number + 1])) for number in range(0, 200, 2)]

    async def run() -> None:
        lanes = Lanes([into(one), into(other)], threads, Room(4 * MiB))
        for block in blocks:
            await lanes.give(block)
        await lanes.finish()
        await lanes.end()

    asyncio.run(run())
    assert one == other == bytes(range(200))


def test_a_slow_lane_holds_the_sender_back_and_not_the_other_lane(threads: ThreadPoolExecutor) -> None:
    gate, both = threading.Event(), threading.Event()
    quick: list[Block] = []

    def slowly(block: Block) -> None:
        gate.wait(30)

    def quickly(block: Block) -> None:
        quick.append(block)
        if len(quick) == 2:
            both.set()

    async def run() -> None:
        lanes = Lanes([slowly, quickly], threads, Room(0))
        await lanes.give((b"1",))
        second = asyncio.ensure_future(lanes.give((b"2",)))
        assert await asyncio.to_thread(both.wait, 30)
        assert not second.done()
        gate.set()
        await second
        await lanes.finish()
        await lanes.end()

    asyncio.run(run())
    assert quick == [(b"1",), (b"2",)]


def test_an_error_ends_the_body(threads: ThreadPoolExecutor) -> None:
    done: list[Block] = []

    def fail(block: Block) -> None:
        done.append(block)
        raise OSError("full")

    async def run() -> None:
        lanes = Lanes([fail], threads, Room(MiB))
        with pytest.raises(OSError, match="full"):
            await give_many(lanes)
        await lanes.end()

    async def give_many(lanes: Lanes) -> None:
        for number in range(1000):
            await lanes.give((bytes(number),))
        await lanes.finish()

    asyncio.run(run())
    assert len(done) == 1


def test_nothing_is_under_way_behind_the_end_of_a_cancelled_body(threads: ThreadPoolExecutor) -> None:
    begun, gate = threading.Event(), threading.Event()
    ended: list[Block] = []

    def step(block: Block) -> None:
        begun.set()
        gate.wait(30)
        ended.append(block)

    async def body(room: Room) -> None:
        lanes = Lanes([step], threads, room)
        try:
            for _ in range(10):
                await lanes.give((b"x",))
        finally:
            await lanes.end()

    async def run() -> None:
        task = asyncio.ensure_future(body(Room(0)))
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert len(ended) == 1


def test_many_bodies_get_small_blocks_and_two_each() -> None:
    room = Room(32 * MiB)
    room.enter()
    assert (room.block, room.share) == (1 * MiB, 32)
    for _ in range(99):
        room.enter()
    assert (room.block, room.share) == (256 * KiB, 2)
    for _ in range(99):
        room.leave()
    assert room.block == 1 * MiB

"""Intake: every byte once and none more, a bounded number of blocks, what is given up is received into nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

import pytest

from s3mount.model import KiB, MiB
from s3mount.server.intake import Intake
from s3mount.server.lanes import Room
from s3mount.server.s3errors import S3Error

FOR_EVER = 3600.0


class Sender:
    """What a client sends and a connection that reads it: as much as an intake has room for, as long as it is read."""

    def __init__(self, data: bytes, room: Room) -> None:
        self.left = memoryview(data)
        self.reading = True
        self.ended = 0
        self.nowhere = memoryview(bytearray(64 * KiB))
        self.intake = Intake(len(data), room, line=self, nowhere=self.nowhere, ended=self._end)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def _end(self) -> None:
        self.ended += 1

    def send(self, most: int = 100 * MiB) -> int:
        """Up to *most* bytes; how many went."""
        sent = 0
        while self.reading and not self.ended and sent < most:
            space = self.intake.space()
            count = min(len(space), len(self.left), most - sent)
            space[:count] = self.left[:count]
            self.left = self.left[count:]
            self.intake.filled(count)
            sent += count
        return sent


def small_room() -> Room:
    """One with small blocks."""
    room = Room(0)
    room.enter()
    return room


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(work())


@pytest.mark.parametrize("size", [1, 256 * KiB, 256 * KiB + 1, 3 * MiB + 77])
@pytest.mark.parametrize("piece", [5000, 200 * KiB, 10 * MiB])
def test_a_body_comes_whole_in_blocks_however_it_is_sent(size: int, piece: int) -> None:
    data = random.Random(size).randbytes(size)
    room = small_room()

    async def work() -> None:
        sender, got = Sender(data, room), bytearray()
        while sender.left:
            sender.send(piece)
            while sender.intake._waiting:
                found = await sender.intake.next(FOR_EVER)
                assert found is not None
                got += found[0][: found[1]]
                room.take_back(found[0])
        assert await sender.intake.next(FOR_EVER) is None
        assert got == data
        assert sender.ended == 1

    run(work)


@pytest.mark.parametrize(("room", "ahead"), [(Room(8 * MiB), 2), (small_room(), 1)])
def test_the_connection_waits_while_blocks_are_full_and_goes_on_behind_them(room: Room, ahead: int) -> None:
    size = room.block

    async def work() -> None:
        sender = Sender(bytes(4 * size), room)
        assert sender.send() == ahead * size
        assert not sender.reading
        assert await sender.intake.next(FOR_EVER)
        assert sender.reading
        assert sender.send() == size
        assert not sender.reading
        for _ in range(3):
            assert await sender.intake.next(FOR_EVER)
            sender.send()
        assert await sender.intake.next(FOR_EVER) is None
        assert sender.ended == 1

    run(work)


def test_a_body_that_is_given_up_is_received_into_nothing_and_its_memory_is_lent_again() -> None:
    room = Room(8 * Room.SMALL * Room.LEAST)

    async def work() -> None:
        size = room.block
        sender = Sender(bytes(5 * size + 1), room)
        sender.send()
        sender.intake.give_up()
        sender.intake.give_up()
        assert sender.reading
        assert sender.send() == 3 * size + 1
        assert sender.ended == 1

    run(work)
    first, second = room.lend(), room.lend()
    assert first is not second


def test_a_client_that_hangs_up_leaves_an_incomplete_body() -> None:
    async def work() -> None:
        sender = Sender(bytes(3 * Room.SMALL), small_room())
        sender.send(Room.SMALL + 1)
        assert await sender.intake.next(FOR_EVER)
        waiting = asyncio.ensure_future(sender.intake.next(FOR_EVER))
        await asyncio.sleep(0)
        sender.intake.lost()
        with pytest.raises(S3Error, match="IncompleteBody"):
            await waiting
        sender.intake.give_up()
        assert sender.ended == 0

    run(work)


def test_a_client_that_sends_nothing_is_not_waited_for() -> None:
    async def work() -> None:
        sender = Sender(bytes(3 * Room.SMALL), small_room())
        with pytest.raises(S3Error, match="RequestTimeout"):
            await sender.intake.next(0.0)

    run(work)


def test_memory_is_kept_for_others_up_to_half_of_the_room() -> None:
    room = Room(8 * MiB)
    lent = [room.lend() for _ in range(6)]
    for block in lent:
        room.take_back(block)
    again = [room.lend() for _ in range(6)]
    assert sum(any(block is former for former in lent) for block in again) == 4

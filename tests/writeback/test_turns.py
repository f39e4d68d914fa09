"""Turns by key: one at a time, in order, and nobody is forgotten."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from s3mount.writeback.turns import Turns


async def test_turns_of_a_key_come_one_by_one() -> None:
    turns, order = Turns(), list[int]()

    async def take(number: int) -> None:
        async with turns.of("a"):
            order.append(number)
            await trio.lowlevel.checkpoint()
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(take, number)
    assert order[0::2] == order[1::2]
    assert sorted(order[::2]) == [0, 1, 2, 3]


async def test_who_gives_up_waiting_leaves_the_turn_to_the_next() -> None:
    turns, served = Turns(), list[str]()
    given_up = trio.CancelScope()

    async def impatient() -> None:
        with given_up:
            async with turns.of("a"):
                served.append("impatient")

    async def patient() -> None:
        async with turns.of("a"):
            served.append("patient")

    async with trio.open_nursery() as nursery, turns.of("a"):
        nursery.start_soon(impatient)
        await wait_all_tasks_blocked()
        nursery.start_soon(patient)
        await wait_all_tasks_blocked()
        given_up.cancel()
        await wait_all_tasks_blocked()
        assert served == []
    assert served == ["patient"]


async def test_who_is_cancelled_as_his_turn_comes_hands_it_on() -> None:
    turns, served = Turns(), list[str]()
    given_up = trio.CancelScope()

    async def impatient() -> None:
        with given_up:
            async with turns.of("a"):
                served.append("impatient")
                await trio.lowlevel.checkpoint()
                served.append("went on")

    async with trio.open_nursery() as nursery:
        async with turns.of("a"):
            nursery.start_soon(impatient)
            await wait_all_tasks_blocked()
        given_up.cancel()
    async with turns.of("a"):
        assert served == ["impatient"]


async def test_turns_of_other_keys_do_not_wait_and_leave_nothing_behind() -> None:
    turns = Turns()
    async with turns.of("a"), turns.of("b"):
        pass
    assert not turns._waiting

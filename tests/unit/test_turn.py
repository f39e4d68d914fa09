"""The lock of a content's commits."""

from __future__ import annotations

import trio
import trio.testing

from s3mount.fs.turn import Turn


async def test_a_free_turn_is_taken_without_a_checkpoint() -> None:
    turn = Turn()
    with trio.testing.assert_no_checkpoints():
        async with turn:
            pass


async def test_those_who_wait_come_in_order_and_a_newcomer_does_not_slip_in() -> None:
    turn, came = Turn(), []

    async def come(name: str) -> None:
        async with turn:
            came.append(name)

    async with trio.open_nursery() as nursery:
        async with turn:
            for name in ("a", "b"):
                nursery.start_soon(come, name)
                await trio.testing.wait_all_tasks_blocked()
        await come("late")
    assert came == ["a", "b", "late"]


async def test_who_is_cancelled_while_waiting_never_had_the_turn() -> None:
    turn, scope = Turn(), trio.CancelScope()

    async def come() -> None:
        with scope:
            async with turn:
                raise AssertionError

    async with trio.open_nursery() as nursery, turn:
        nursery.start_soon(come)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
    assert scope.cancelled_caught
    async with turn:
        pass

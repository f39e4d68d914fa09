"""How fast a line is taken to be, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from s3mount.cache.budget import ROOM_AT_LEAST, Budget, Line
from s3mount.model import GiB, MiB


class Someone:
    def relax(self) -> None:
        """Has nothing to give back."""


async def answer(line: Line, parts: Sequence[int], *, latency: float, seconds: float) -> None:
    """One answer in *parts*, each of which takes *seconds*."""
    with line.carries(sum(parts)) as brought:
        await trio.sleep(latency)
        done = 0
        for part in parts:
            await trio.sleep(seconds)
            done += part
            brought(done)
        brought(done)


async def answers(line: Line, count: int, parts: Sequence[int], *, latency: float, seconds: float) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(lambda: answer(line, parts, latency=latency, seconds=seconds))


async def test_a_line_is_not_taken_for_slow_because_its_answers_begin_late(autojump_clock: MockClock) -> None:
    line = Line()
    await answers(line, 4, [1 * MiB] * 8, latency=2.0, seconds=0.1)

    assert line.rate == pytest.approx(40 * MiB, rel=0.2)


async def test_answers_that_come_in_one_piece_tell_of_a_slow_line_too(autojump_clock: MockClock) -> None:
    line = Line()
    await answers(line, 4, [1 * MiB], latency=0.0, seconds=4.0)

    assert line.rate == pytest.approx(1 * MiB, rel=0.2)
    assert Budget(1 * GiB, line).room(Someone()) == ROOM_AT_LEAST


async def test_a_line_is_judged_by_its_last_seconds(autojump_clock: MockClock) -> None:
    line = Line()
    await answer(line, [1 * MiB] * 40, latency=0.0, seconds=0.01)
    await answer(line, [1 * MiB] * 40, latency=0.0, seconds=0.5)

    assert line.rate < 4 * MiB


async def test_a_line_that_carried_nothing_large_is_not_known(autojump_clock: MockClock) -> None:
    line = Line()
    await answer(line, [4096], latency=1.0, seconds=1.0)

    assert line.rate == float("inf")

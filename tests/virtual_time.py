"""A virtual clock that stands still while a thread works.

Owns: `standing_still`.
Must not know: what is tested, what threads do.

trio's MockClock jumps to the next deadline once no task has anything to do, and takes a task that waits for a thread for one of those:
where the disk or the machine is slow, what waits two seconds for a pause would come before what was written first. Here nobody's deadline
comes as long as a thread has work; then no time need be lost either, to be on the safe side, before each jump.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from s3mount.writeback.worker import Worker


class Stillness:
    """`clock`, and how many threads it waits for."""

    def __init__(self) -> None:
        self.clock = MockClock(autojump_threshold=0)
        self._working = 0

    @contextmanager
    def while_one_works(self) -> Iterator[None]:
        self._working += 1
        self.clock.autojump_threshold = math.inf
        try:
            yield
        finally:
            self._working -= 1
            self.clock.autojump_threshold = math.inf if self._working else 0


@contextmanager
def standing_still() -> Iterator[MockClock]:
    """The clock; within the block it knows of trio's threads and of the workers."""
    stillness, run_sync, do = Stillness(), trio.to_thread.run_sync, Worker._do

    async def known(work: Callable[..., Any], *arguments: Any, limiter: trio.CapacityLimiter | None = None, **more: Any) -> Any:
        """Who waits for a thread's turn may wait for time to pass."""
        turns, one = limiter or trio.to_thread.current_default_thread_limiter(), object()
        await turns.acquire_on_behalf_of(one)
        try:
            with stillness.while_one_works():
                return await run_sync(work, *arguments, limiter=trio.CapacityLimiter(1), **more)
        finally:
            turns.release_on_behalf_of(one)

    async def done(worker: Worker, *work: Any) -> None:
        with stillness.while_one_works():
            await do(worker, *work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", known)
        patch.setattr(Worker, "_do", done)
        yield stillness.clock

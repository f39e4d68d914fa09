"""Deadlines: one that always holds, one that costs nothing unless the work waits, and one that may come earlier than was said.

Owns: `strictly_within`, `within`, `Bounded`.
Must not know: what is given up.

A trio cancel scope costs a quarter of a whole small request (15 of 55 microseconds, measured), and most of those are answered without
waiting for anything. So `within` lets the coroutine take its first step without one. Only if it then wants to wait is a scope opened around
the rest.

That is sound as long as the coroutine has no scope of its own open at that moment: scopes must be closed in the reverse order. Where it
has one (a store's time-out, a nursery) it is left with that.
"""

from __future__ import annotations

import math
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar, cast

import trio

Answer = TypeVar("Answer")


async def strictly_within(seconds: float, work: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of *work*; TooSlowError when it took longer than *seconds*."""
    with trio.fail_after(seconds):
        return await work


class Bounded:
    """Work that has *seconds* each, and no longer than until `end` (of trio's clock), which may be told while it is under way."""

    def __init__(self, seconds: float) -> None:
        self.end = math.inf
        self._seconds = seconds
        self._under_way: set[trio.CancelScope] = set()

    async def strictly(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """The result of *work*; TooSlowError when it took longer."""
        with trio.fail_at(min(self.end, trio.current_time() + self._seconds)) as scope:
            self._under_way.add(scope)
            try:
                return await work
            finally:
                self._under_way.discard(scope)

    def end_by(self, moment: float) -> None:
        self.end = moment
        for scope in self._under_way:
            scope.deadline = min(scope.deadline, moment)


@types.coroutine
def within(seconds: float, work: Coroutine[Any, Any, Answer]) -> Generator[Any, Any, Answer]:
    """As `strictly_within`, unless *work* first waits inside a cancel scope of its own."""
    task = trio.lowlevel.current_task()
    outside = task._cancel_status
    try:
        trap = work.send(None)
    except StopIteration as done:
        return cast(Answer, done.value)
    if task._cancel_status is not outside:
        return (yield from _resumed(work, trap))
    with trio.fail_after(seconds):  # noqa: ASYNC100 (it waits wherever the coroutine does)
        return (yield from _resumed(work, trap))


def _resumed(work: Coroutine[Any, Any, Answer], trap: Any) -> Generator[Any, Any, Answer]:
    """What `await work` does, for a coroutine that has already asked the event loop for *trap*."""
    while True:
        problem: BaseException | None = None
        answer = None
        try:
            answer = yield trap
        except BaseException as error:
            problem = error
        try:
            trap = work.send(answer) if problem is None else work.throw(problem)
        except StopIteration as done:
            return cast(Answer, done.value)

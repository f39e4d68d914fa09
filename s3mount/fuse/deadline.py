"""Deadlines: one that always holds, one that costs nothing unless the work waits, and one that may come earlier than was said.

Owns: `strictly_within`, `within`, `Bounded`.
Must not know: what is given up.

A trio cancel scope costs a quarter of a whole small request (15 of 55 microseconds, measured), and most of those are answered without
waiting for anything. So `within` lets the coroutine begin without one. Only when it wants to wait is a scope opened around the rest.

That is sound as long as the coroutine has no scope of its own open at that moment: scopes must be closed in the reverse order. While it
has one (a store's time-out, a nursery, a shield) it is left with that; the next time that it waits without, it gets ours.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
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
        with self._scope():
            return await work

    @types.coroutine
    def within(self, work: Coroutine[Any, Any, Answer]) -> Generator[Any, Any, Answer]:
        """As `strictly`, but for what *work* waits for inside cancel scopes of its own."""
        return (yield from _stepped(work, self._scope))

    @contextmanager
    def _scope(self) -> Iterator[None]:
        with trio.fail_at(min(self.end, trio.current_time() + self._seconds)) as scope:
            self._under_way.add(scope)
            try:
                yield
            finally:
                self._under_way.discard(scope)

    def end_by(self, moment: float) -> None:
        self.end = moment
        for scope in self._under_way:
            scope.deadline = min(scope.deadline, moment)


@types.coroutine
def within(seconds: float, work: Coroutine[Any, Any, Answer]) -> Generator[Any, Any, Answer]:
    """As `strictly_within`, but for what *work* waits for inside cancel scopes of its own."""
    return (yield from _stepped(work, lambda: trio.fail_after(seconds)))


def _stepped(work: Coroutine[Any, Any, Answer], scope: Callable[[], AbstractContextManager[object]]) -> Generator[Any, Any, Answer]:
    """The result of *work*, in *scope* from when it first waits outside of scopes of its own."""
    task = trio.lowlevel.current_task()
    outside = task._cancel_status
    go_on: Callable[[Any], Any] = work.send
    answer = None
    while True:
        try:
            trap = go_on(answer)
        except StopIteration as done:
            return cast(Answer, done.value)
        if task._cancel_status is outside:
            with scope():
                return (yield from _resumed(work, trap))
        try:
            answer = yield trap
            go_on = work.send
        except BaseException as problem:
            answer, go_on = problem, work.throw


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

"""Taking turns by key.

Owns: the locks of the keys that somebody works on.
Must not know: what is done in a turn.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType

import trio


class Turns:
    """Who comes first is let in first."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[trio.lowlevel.Task]] = {}

    def of(self, key: str) -> Turn:
        """For `async with`: nobody else has the turn of *key* meanwhile."""
        return Turn(self._waiting, key)


class Turn:
    """One of *key*. (A generator's context and a lock cost 10 us more: each close has one.)

    Who has the turn is not in the queue, and hands it to the first who is.
    """

    __slots__ = ("_key", "_waiting")

    def __init__(self, waiting: dict[str, deque[trio.lowlevel.Task]], key: str) -> None:
        self._waiting = waiting
        self._key = key

    async def __aenter__(self) -> None:
        queue = self._waiting.get(self._key)
        if queue is None:
            self._waiting[self._key] = deque()
            return
        task = trio.lowlevel.current_task()
        queue.append(task)

        def leave(_: object) -> trio.lowlevel.Abort:
            queue.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        queue = self._waiting[self._key]
        if queue:
            trio.lowlevel.reschedule(queue.popleft())
        else:
            del self._waiting[self._key]


async def take(lock: trio.Lock) -> None:
    """As `lock.acquire`, without a round of the event loop where it is free."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()

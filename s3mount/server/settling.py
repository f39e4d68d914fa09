"""Changes made on the event loop, and the sync that many of them share.

Owns: what is done at once and what in a thread; one settling at a time.
Must not know: what is changed.

A small change costs some hundred microseconds on the loop, a thread hop as much again, and it would fight the loop for the interpreter.
So it is made here, where nothing is in its way, and only the waiting for the disk goes to a thread: one sync for all changes made since the
one before began. Where it would have to wait (another process writes, a checkpoint is due) all of it goes to a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from s3mount.engine.commit import Debt
from s3mount.engine.engine import Engine
from s3mount.engine.lock import WouldWait

P = ParamSpec("P")
T = TypeVar("T")


class Settler:
    """Durable changes of *engine*, made by one event loop; *threads* are for what waits."""

    def __init__(self, engine: Engine, threads: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._threads = threads
        self._debts: list[Debt] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._work: asyncio.Task[None] | None = None

    async def change(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What *function* gives, once it is durable. Raises what it raises, OutcomeUnknown."""
        debts: list[Debt] = []
        try:
            with self._engine.lock.in_a_hurry(debts):
                result = function(*args, **kwargs)
        except WouldWait:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))
        if debts:
            await self._settled(debts)
        return result

    async def _settled(self, debts: list[Debt]) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._debts += debts
        self._waiting.append(done)
        if self._work is None:
            self._work = loop.create_task(self._settle_all())
        await done

    async def _settle_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            waiting, debts = self._waiting, self._debts
            self._waiting, self._debts = [], []
            try:
                await loop.run_in_executor(self._threads, self._engine.settle, debts)
            except Exception as error:
                _tell(waiting, error)
            else:
                _tell(waiting, None)
        self._work = None


def _tell(waiting: list[asyncio.Future[None]], error: Exception | None) -> None:
    """Whoever still waits hears of it."""
    for one in waiting:
        if one.done():
            continue
        if error is None:
            one.set_result(None)
        else:
            one.set_exception(error)

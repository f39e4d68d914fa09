"""Taking turns by key.

Owns: the locks of the keys that somebody works on.
Must not know: what is done in a turn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio


@dataclass(slots=True)
class _Turn:
    lock: trio.Lock
    wanted: int = 0


class Turns:
    """Who comes first is let in first."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Nobody else has the turn of *key* meanwhile."""
        turn = self._turns.setdefault(key, _Turn(trio.Lock()))
        turn.wanted += 1
        try:
            await take(turn.lock)
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[key]


async def take(lock: trio.Lock) -> None:
    """As `lock.acquire`, without a round of the event loop where it is free."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()

"""Who may have a part of an upload in memory and under way.

Owns: how many there are, of all files together, and who is next.
Must not know: what a part is, how it is sent.

Parts of commits wait for their turn (`taking`), for somebody waits in close for them, and go before those that only ask whether one is free
(`take_nowait`). Among those who wait, whoever has the fewest under way is next: no file starves the others.

O1  At most `PARTS_AT_ONCE` are taken, and they have at most `BUDGET_BYTES` (one that is larger goes alone).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from s3mount.model import MiB

# Sixteen connections fill any line that a single machine has, and sixteen parts of 8 MiB are 128 MiB of memory.
PARTS_AT_ONCE = 16
BUDGET_BYTES = 128 * MiB


class Slots:
    """Who may have a part in memory and under way."""

    def __init__(self, parts: int = PARTS_AT_ONCE, budget: int = BUDGET_BYTES) -> None:
        self._parts, self._budget = parts, budget
        self._under_way: dict[object, int] = {}
        self._waiting: list[tuple[object, int, trio.Event]] = []
        self.used = 0

    @property
    def taken(self) -> int:
        return sum(self._under_way.values())

    def of(self, owner: object) -> int:
        """How many *owner* has."""
        return self._under_way.get(owner, 0)

    @property
    def waited_for(self) -> bool:
        return bool(self._waiting)

    def fits(self, size: int) -> bool:
        return self.taken < self._parts and (not self.used or self.used + size <= self._budget)

    def take_nowait(self, owner: object, size: int) -> None:
        """Only if it `fits`."""
        assert self.fits(size), "O1"
        self._under_way[owner] = self.of(owner) + 1
        self.used += size

    @asynccontextmanager
    async def taking(self, owner: object, size: int) -> AsyncIterator[None]:
        """One for *owner*, before all who only ask whether one is free."""
        if self._waiting or not self.fits(size):
            turn = (owner, size, trio.Event())
            self._waiting.append(turn)
            try:
                await turn[2].wait()
            except trio.Cancelled:
                if turn[2].is_set():
                    self.give(owner, size)
                else:
                    self._waiting.remove(turn)
                raise
        else:
            self.take_nowait(owner, size)
        try:
            yield
        finally:
            self.give(owner, size)

    def give(self, owner: object, size: int) -> None:
        self._under_way[owner] -= 1
        self.used -= size
        if not self._under_way[owner]:
            del self._under_way[owner]
        while self._waiting:
            turn = min(self._waiting, key=lambda waiting: self.of(waiting[0]))
            if not self.fits(turn[1]):
                return
            self._waiting.remove(turn)
            self.take_nowait(turn[0], turn[1])
            turn[2].set()

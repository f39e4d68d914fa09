"""Who may have a part of an upload in memory and under way.

Owns: how many there are, of all files together, and who is next.
Must not know: what a part is, how it is sent.

Parts of commits wait for their turn (`taking`), for somebody waits in close for them, and go before those that only ask whether one is free
(`take_nowait`). Among those who wait, whoever has the fewest under way is next: no file starves the others.

How many are worth it is judged from how long they take (see width); the memory grows with them.

O1  None is taken where then more than `parts` were, or more than `budget` bytes (one that is larger goes alone).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from s3mount.fs.width import LEAST, MOST, Width
from s3mount.model import MiB

# For each that may be under way: a part of the first size. Larger ones are fewer at once.
EACH_BYTES = 8 * MiB


class Slots:
    """Who may have a part in memory and under way."""

    def __init__(self, width: Width | None = None, *, each: int = EACH_BYTES) -> None:
        self.width = width or Width()
        self._each = each
        self._under_way: dict[object, int] = {}
        self._waiting: list[tuple[object, int, trio.Event]] = []
        self.used = 0

    @classmethod
    def within(cls, memory: int) -> Slots:
        """As many as *memory* bytes hold, but never fewer than fill most lines."""
        return cls(Width(most=max(LEAST, min(MOST, memory // EACH_BYTES))))

    @property
    def parts(self) -> int:
        return self.width.at_once

    @property
    def budget(self) -> int:
        return self.width.at_once * self._each

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
        return self.taken < self.parts and (not self.used or self.used + size <= self.budget)

    def take_nowait(self, owner: object, size: int) -> None:
        """Only if it `fits`."""
        assert self.fits(size), "O1"
        self._under_way[owner] = self.of(owner) + 1
        self.used += size

    def arrived(self, size: int, seconds: float) -> None:
        """A part of *size* bytes, which still has its slot, took *seconds*."""
        self.width.arrived(size, seconds, full=not self.fits(size))

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

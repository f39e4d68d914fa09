"""How much may be fetched ahead of each sequential reader.

Owns: who counts as active, and the share of each.
Must not know: what is done with it.

All that read sequentially now share alike. One that has not read for a while does not count, and what was fetched ahead for it loses its
protection: it stays until somebody needs the room.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import trio

# A player or a loader pauses for a second or two between reads and still goes on; beyond that its memory serves others better.
IDLE_SECONDS = 3.0


class Reader(Protocol):
    def relax(self) -> None:
        """Others may have its room."""
        ...


class Budget:
    """*limit* bytes, shared."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._active: OrderedDict[Reader, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._active)

    def room(self, reader: Reader) -> int:
        """The share of *reader*, which reads now."""
        now = trio.current_time()
        self._active[reader] = now
        self._active.move_to_end(reader)
        while (oldest := next(iter(self._active.items())))[1] < now - IDLE_SECONDS:
            self._active.popitem(last=False)
            oldest[0].relax()
        return self._limit // len(self._active)

    def leave(self, reader: Reader) -> None:
        """*reader* does not read any more. Idempotent."""
        self._active.pop(reader, None)

"""How much may be fetched ahead of each sequential reader.

Owns: who counts as active, the share of each, and how fast the line has been.
Must not know: what is done with it.

All that read sequentially now share alike. One that has not read for a while does not count, and what was fetched ahead for it loses its
protection: it stays until somebody needs the room.

No reader is given more than the line brings in HORIZON seconds: on a slow line many requests side by side would only delay the one whose
bytes are read next. The line's speed is what came while anything large was under way; small requests tell of its latency alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from s3mount.model import KiB, MiB

# A player or a loader pauses for a second or two between reads and still goes on; beyond that its memory serves others better.
IDLE_SECONDS = 3.0
# So much of the line's bytes may be on their way at most: a wait that nobody takes for a fault.
HORIZON_SECONDS = 2.0
# Enough to learn how fast the line is.
ROOM_AT_LEAST = 2 * MiB
# Requests from this size on count for the speed of the line, whose memory is a few seconds.
LARGE_BYTES = 256 * KiB
MEMORY_SECONDS = 4.0


class Line:
    """How fast bytes come while large requests are under way."""

    def __init__(self) -> None:
        self._running = 0
        self._since = 0.0
        self._seconds = 0.0
        self._bytes = 0.0

    def __repr__(self) -> str:
        return f"<Line {self.rate / MiB:.1f} MiB/s>"

    @property
    def rate(self) -> float:
        """Bytes a second; infinite while nothing is known."""
        self._pass()
        return self._bytes / self._seconds if self._seconds > 0 and self._bytes else float("inf")

    @contextmanager
    def carries(self, size: int) -> Iterator[Callable[[int], None]]:
        """While a request for *size* bytes is under way; tell what is given how many of them have come so far."""
        if size < LARGE_BYTES:
            yield lambda count: None
            return
        most = 0

        def brought(count: int) -> None:
            nonlocal most
            self._bytes += max(0, count - most)
            most = max(count, most)

        self._pass()
        self._running += 1
        try:
            yield brought
        finally:
            self._pass()
            self._running -= 1

    def _pass(self) -> None:
        now = trio.current_time()
        if self._running:
            self._seconds += now - self._since
        self._since = now
        if self._seconds > MEMORY_SECONDS:
            self._bytes *= MEMORY_SECONDS / self._seconds
            self._seconds = MEMORY_SECONDS


class Reader(Protocol):
    def relax(self) -> None:
        """Others may have its room."""
        ...


class Budget:
    """*limit* bytes, shared by those who read over *line*."""

    def __init__(self, limit: int, line: Line) -> None:
        self._limit = limit
        self._line = line
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
        share = self._limit // len(self._active)
        return int(min(share, max(ROOM_AT_LEAST, self._line.rate * HORIZON_SECONDS)))

    def leave(self, reader: Reader) -> None:
        """*reader* does not read any more. Idempotent."""
        self._active.pop(reader, None)

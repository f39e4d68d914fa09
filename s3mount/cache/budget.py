"""How much may be fetched ahead of each sequential reader.

Owns: who counts as active, the share of each, and how fast the line has been.
Must not know: what is done with it.

All that read sequentially now share alike. One that has not read for a while does not count, and what was fetched ahead for it loses its
protection: it stays until somebody needs the room.

No reader is given more than the line brings in HORIZON seconds: on a slow line many requests side by side would only delay the one whose
bytes are read next. The line's speed is what came while any large answer was coming. The time to its first byte does not count: counted, a
line whose connections are each slow would be taken for slow as long as few of them are open, and few would be opened because of that (at
300 ms and 9 MB/s a gigabyte took 10.4 s instead of 7). Small requests tell of latency alone.
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
    """How fast bytes come while large requests are being answered."""

    def __init__(self) -> None:
        self._under_way = 0
        self._coming = 0
        self._since = 0.0
        self._seconds = 0.0
        self._bytes = 0.0
        # Seconds that each answer would have had by now, had it been under way all the time and shared them fairly.
        self._share = 0.0

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
        self._pass()
        answer = _Answer(self, size, self._share)
        self._under_way += 1
        try:
            yield answer.brought
        finally:
            answer.end()
            self._pass()
            self._under_way -= 1

    def begins(self, count: int) -> None:
        """An answer has begun, with *count* bytes."""
        self._pass()
        self._coming += 1
        self._bytes += count

    def goes_on(self, count: int) -> None:
        self._pass()
        self._bytes += count

    def ends(self) -> None:
        self._pass()
        self._coming -= 1

    def came_at_once(self, count: int, began: float) -> None:
        """Nothing was said before all was there: it took its part of the time since the mark *began*, the wait for its first byte too."""
        self._pass()
        self._bytes += count
        self._seconds += self._share - began

    def _pass(self) -> None:
        now = trio.current_time()
        if self._coming:
            self._seconds += now - self._since
        if self._under_way:
            self._share += (now - self._since) / self._under_way
        self._since = now
        if self._seconds > MEMORY_SECONDS:
            self._bytes *= MEMORY_SECONDS / self._seconds
            self._seconds = MEMORY_SECONDS


class _Answer:
    """One large answer on *line*, from its first byte on."""

    def __init__(self, line: Line, size: int, began: float) -> None:
        self._line = line
        self._size = size
        self._began = began
        self._most = 0
        self._coming = False

    def brought(self, count: int) -> None:
        """*count* bytes have come so far."""
        more, self._most = count - self._most, max(count, self._most)
        if more <= 0:
            return
        if self._coming:
            self._line.goes_on(more)
        elif count < self._size:
            self._coming = True
            self._line.begins(count)
        else:
            self._line.came_at_once(count, self._began)

    def end(self) -> None:
        if self._coming:
            self._line.ends()


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

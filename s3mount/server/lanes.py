"""Work on a body while it arrives: several lanes, each in order, in threads.

Owns: which block is worked on when, how far the sender may be ahead, the memory that blocks lie in.
Must not know: what is done with a block.

    loop --give--> lane: block, block, block --> a thread works on what is there, a few blocks at a turn, then others get theirs
         <--wait-- where a lane has too much before it

1. A lane works on its blocks one after the other; lanes do not wait for each other. The slowest (MD5) never stands still for the others.
2. How much may wait is shared out: one body alone may be far ahead, a hundred at once a block or two each (`Room`).
3. Memory for blocks is lent and given back, since fresh memory has to be cleared by the kernel first. It is given back when every lane is
   done with the block: `Lanes.under_way` counts those that are not, from the last one on.
4. The first error of a lane ends the body: what waits is dropped, and whoever gives the next block or asks for the end gets it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from s3mount.model import KiB, MiB

Block = Sequence[bytes | memoryview]
Step = Callable[[Block], None]

# Blocks that a lane works on before others get their turn.
TURN = 4


class Room:
    """How much bodies may have waiting: *size* bytes in all, but two small blocks for each. Memory for half as much is kept for others."""

    LEAST = 2
    SMALL, LARGE = 256 * KiB, 1 * MiB

    def __init__(self, size: int) -> None:
        self._size = size
        self._bodies = 0
        self._free: list[bytearray] = []

    @property
    def crowded(self) -> bool:
        """Whether more bodies are under way than there are processors."""
        return self._bodies > (os.cpu_count() or 1)

    @property
    def tight(self) -> bool:
        """Whether memory is what counts, and not hops."""
        return self.block == self.SMALL

    def lend(self) -> bytearray:
        """Memory for a block."""
        size = self.block
        if self._free and len(self._free[-1]) != size:
            self._free.clear()
        return self._free.pop() if self._free else bytearray(size)

    def take_back(self, block: bytearray) -> None:
        """Nobody looks at what was lent any more."""
        if len(block) == self.block and (len(self._free) + 1) * len(block) <= self._size // 2:
            if self._free and len(self._free[-1]) != len(block):
                self._free.clear()
            self._free.append(block)

    def enter(self) -> None:
        self._bodies += 1

    def leave(self) -> None:
        self._bodies -= 1

    @property
    def block(self) -> int:
        """How large a block is, bytes: fewer hops for a few bodies, less memory for many."""
        return self.LARGE if self._bodies * self.LARGE * self.LEAST <= self._size else self.SMALL

    @property
    def share(self) -> int:
        """How many blocks a body may have waiting."""
        return max(self.LEAST, self._size // (max(1, self._bodies) * self.block))


class Lane:
    """*step* on each block in order, in threads of *executor*, where *moved* is called after each."""

    def __init__(self, step: Step, executor: Executor, moved: Callable[[], None]) -> None:
        self._step = step
        self._executor = executor
        self._moved = moved
        self._lock = threading.Lock()
        self._waiting: deque[Block] = deque()
        self._running = False
        self.error: Exception | None = None

    @property
    def length(self) -> int:
        """Blocks that are not done."""
        return len(self._waiting)

    def put(self, block: Block) -> None:
        with self._lock:
            self._waiting.append(block)
            begin = not self._running
            self._running = True
        if begin:
            self._executor.submit(self._work)

    def drop(self) -> None:
        """What has not begun will not."""
        with self._lock:
            while len(self._waiting) > 1:
                self._waiting.pop()

    def _work(self) -> None:
        for _ in range(TURN):
            try:
                if self.error is None:
                    self._step(self._waiting[0])
            except Exception as error:
                self.error = error
            if not self._advance():
                return
        self._executor.submit(self._work)

    def _advance(self) -> bool:
        """The first block is done; whether there is another."""
        with self._lock:
            self._waiting.popleft()
            self._running = bool(self._waiting)
            more = self._running
        self._moved()
        return more


class Lanes:
    """One body's: `give` blocks, then `finish`; `end` in any case, with nothing under way behind it."""

    def __init__(self, steps: Sequence[Step], executor: Executor, room: Room) -> None:
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._waits = False
        self._lanes = [Lane(step, executor, self._moved) for step in steps]
        room.enter()

    @property
    def under_way(self) -> int:
        """How many of the last blocks some lane is not done with."""
        return max(lane.length for lane in self._lanes)

    async def give(self, block: Block) -> None:
        """Returns when the next may come. Raises what a step raised."""
        for lane in self._lanes:
            lane.put(block)
        await self._until(lambda: self.under_way < self._room.share)
        self._raise()

    async def finish(self) -> None:
        """Returns when all is done. Raises what a step raised."""
        await self._until(lambda: not self.under_way)
        self._raise()

    async def end(self) -> None:
        """Drop what has not begun, and wait for what has. A cancellation waits as well: the caller is about to close files."""
        for lane in self._lanes:
            lane.drop()
        try:
            await self._until(lambda: not self.under_way)
        except asyncio.CancelledError:
            await self._until(lambda: not self.under_way)
            raise
        finally:
            self._room.leave()

    def _moved(self) -> None:
        """In a thread. The loop is only told where it waits: it says so first, and looks again then."""
        if self._waits:
            self._waits = False
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._wake.clear()
            self._waits = True
            if is_so():
                return
            await self._wake.wait()

    def _raise(self) -> None:
        for lane in self._lanes:
            if lane.error is not None:
                raise lane.error

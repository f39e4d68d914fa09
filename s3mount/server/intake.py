"""A long body from the socket into blocks, past aiohttp's parser and stream.

Owns: where the next bytes of such a body go, when its connection is read, the blocks until somebody has them.
Must not know: HTTP, what bytes mean, who works on the blocks.

    socket --recv_into--> the block that is being filled --full--> waits for `next` --> the caller, who gives it back to the `Room`

Every byte is received once, where it is hashed and written from: the parser would copy it into an object of its own, fresh memory that
the kernel has to clear, and wake the handler for each of thousands of pieces.

1. Not a byte more is taken than the body has: what follows it is for the parser again.
2. While two full blocks wait (one, where memory is tight) the connection is not read, so that TCP slows the client down.
3. A body that is given up is received all the same, into nothing, as long as somebody leaves the connection open: only so is it known where
   the next request begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from s3mount.server.lanes import Room
from s3mount.server.s3errors import S3Error


class Line(Protocol):
    """What is needed of a transport."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Intake:
    """The next *size* bytes of the connection *line*, one or more; *ended* is called when they are here, *nowhere* is for what is given up.

    `space` and `filled` are what a buffered protocol is asked; `next` until it gives None, `give_up` in any case.
    """

    __slots__ = ("_block", "_ended", "_filled", "_given_up", "_left", "_line", "_lost", "_nowhere", "_paused", "_room", "_waiting", "_wake")

    def __init__(self, size: int, room: Room, *, line: Line, nowhere: memoryview, ended: Callable[[], None]) -> None:
        self._left = size
        self._room = room
        self._line = line
        self._nowhere = nowhere
        self._ended = ended
        self._block: bytearray | None = None
        self._filled = 0
        self._waiting: deque[tuple[bytearray, int]] = deque()
        self._wake = asyncio.Event()
        self._paused = self._given_up = self._lost = False

    # -- what the connection says -----------------------------------------------------

    def space(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._given_up:
            return self._nowhere[: self._left]
        if self._block is None:
            self._block = self._room.lend()
            self._filled = 0
        return memoryview(self._block)[self._filled : self._filled + self._left]

    def filled(self, count: int) -> None:
        """So many bytes have come into the `space`."""
        self._left -= count
        self._filled += count
        if self._block is not None and (not self._left or self._filled == len(self._block)):
            self._hand_over()
        if not self._left:
            self._ended()

    def lost(self) -> None:
        """No more will come."""
        self._lost = True
        self._wake.set()

    def _hand_over(self) -> None:
        """The block is full, or the last."""
        assert self._block is not None
        self._waiting.append((self._block, self._filled))
        self._block = None
        self._wake.set()
        if self._left and len(self._waiting) >= (1 if self._room.tight else 2):
            self._paused = True
            self._line.pause_reading()

    # -- what the handler asks --------------------------------------------------------

    async def next(self, patience_s: float) -> tuple[bytearray, int] | None:
        """A block and how many bytes are in it; it is the caller's, who gives it back. None behind the last.

        Raises IncompleteBody when the client is gone, RequestTimeout when nothing came for *patience_s* seconds.
        """
        while not self._waiting:
            if not self._left:
                return None
            if self._lost:
                raise S3Error("IncompleteBody")
            await self._more(patience_s)
        self._go_on()
        return self._waiting.popleft()

    async def _more(self, patience_s: float) -> None:
        left = self._left
        self._wake.clear()
        try:
            async with asyncio.timeout(patience_s):
                await self._wake.wait()
        except TimeoutError:
            if self._left == left:
                raise S3Error("RequestTimeout") from None

    def _go_on(self) -> None:
        if self._paused and not self._lost:
            self._paused = False
            self._line.resume_reading()

    def give_up(self) -> None:
        """Nobody asks for more. Idempotent."""
        if self._given_up:
            return
        self._given_up = True
        for block in (self._block, *(block for block, _ in self._waiting)):
            if block is not None:
                self._room.take_back(block)
        self._block = None
        self._waiting.clear()
        self._go_on()

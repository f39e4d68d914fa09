"""How much may wait on the local disk: whoever brings more than there is room for waits in his close.

Owns: the limit, who is let in next, what a full disk means.
Must not know: what is brought, how it is sent.

    close --> room? --no: all that waits is hurried--> something arrived --> room? ...
                `-yes--> taken --disk full--> something is on its way? --arrived--> taken again
                           |                    `-- nothing is, or it fails --> NoSpace
                           '--> answered

R1  Together, what waits, what is being taken and what the store refused (until somebody decides) has at most `limit` bytes; but where
    nothing waits, one file is taken, however large.
R2  Who came first is let in first: a large file does not wait for ever behind small ones.
R3  While the store is away nobody is refused for the limit's sake: he waits until it is back, or his request is given up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

import trio

from s3mount.errors import NoSpace, Unavailable
from s3mount.writeback.pending import Pending
from s3mount.writeback.sender import BACKLOG, Sender

T = TypeVar("T")


class Room:
    """The room for what *pending* holds; *sender* makes more of it."""

    def __init__(self, pending: Pending, sender: Sender, limit: int) -> None:
        self.limit = limit
        self.closed = False
        self._pending = pending
        self._sender = sender
        self._taking = 0
        self._door = trio.Lock()

    def __repr__(self) -> str:
        return f"<Room {self._pending.holding.waiting}+{self._taking} of {self.limit}>"

    def held(self, size: int) -> Held:
        """For `async with`: room for *size* bytes, which are on their way into the journal meanwhile.

        Raises Unavailable where the store is closed first.
        """
        return Held(self, size)

    async def _take(self, size: int) -> None:
        if size and (self._door.locked() or not self._fits(size)):
            await self._wait_behind_others(size)
        else:
            self._taking += size

    def _give_back(self, size: int) -> None:
        self._taking -= size
        self._pending.moved.unpark_all()

    async def _wait_behind_others(self, size: int) -> None:
        async with self._door:
            await self._wait(size)
            self._taking += size

    async def _wait(self, size: int) -> None:
        while not self._fits(size):
            if self.closed:
                raise Unavailable("The mount has ended.")
            # With a backlog nothing is put off, and looking through all of it for each file would take longer than sending that.
            if len(self._pending.chains) < BACKLOG:
                self._sender.hurry([entry for entry in self._pending.chains if not entry.failed])
            await self._pending.moved.park()

    def _fits(self, size: int) -> bool:
        holding = self._pending.holding
        there = holding.waiting + self._taking
        return not there or there + holding.refused + size <= self.limit

    async def patiently(self, take: Callable[[], Awaitable[T]]) -> T:
        """Do *take* until the disk has room for it, as long as there is hope. Raises NoSpace."""
        while True:
            try:
                return await take()
            except NoSpace:
                if not await self._made():
                    raise

    async def _made(self) -> bool:
        """Whether something has left the disk since; False where nothing does."""
        pending, left, failures = self._pending, self._pending.leaving.left, self._pending.failures
        self._sender.hurry(list(pending.chains))
        while pending.leaving.left == left:
            if self.closed or not (len(pending.chains) or pending.leaving.under_way) or pending.failures > failures:
                return False
            await pending.moved.park()
        return True


class Held:
    """Room for the time of an `async with` block. (A generator's context costs 5 us more: each close has one.)"""

    __slots__ = ("_room", "_size")

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self._size = size

    async def __aenter__(self) -> None:
        await self._room._take(self._size)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._room._give_back(self._size)

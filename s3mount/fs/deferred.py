"""Changes of attributes that wait a moment for what comes next.

Owns: for how long, how many may wait, who is saved when.
Must not know: what a change says, how it is saved, names.

Where attributes are changed by having the object copied onto itself, a chmod and a utimens in a row are one copy; and a rename that follows
(rsync: write aside, close, chmod, utimens, rename) is a copy in any case, which carries them. So a change is shown at once and saved

    - by the copy of a rename, by a commit of the content,
    - by fsync and sync, before they return (not by close: rsync opens the file once more for an fchmod),
    - else here, `WAIT_S` after the first change that waits.

What was never synced may be lost in a crash. Whoever changes more files than can wait is held up until there is room.

D1  At most `MOST` wait untouched: the oldest of more are saved before their time; beyond twice as many the next one waits to be let in.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

# A program that sets mode, owner and time, and then renames, does so within milliseconds; others see a change within their time-to-live.
WAIT_S = 1.0
# A changed file that waits takes some kilobytes, and a thousand copies 32 at a time are a second's work: umount and fsync wait for that.
MOST = 1000
# Copies under way at once.
AT_ONCE = 32
# What is being saved when the background ends is finished, as far as that takes so long: nobody could tell else whether it happened.
GRACE_S = 20.0


class Deferred(Generic[T]):
    """Things that are to be saved before long, by *save*, which never fails."""

    def __init__(self, save: Callable[[T], Awaitable[None]]) -> None:
        self._save = save
        self._due: OrderedDict[T, float] = OrderedDict()
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._running = False

    def __repr__(self) -> str:
        return f"<Deferred {len(self._due)} waiting>"

    @property
    def running(self) -> bool:
        """Whether anything that is added is saved some time."""
        return self._running

    async def add(self, thing: T) -> None:
        """*thing* has changed, or changed again."""
        self._due.setdefault(thing, trio.current_time() + WAIT_S)
        self._news.unpark_all()
        while self._running and len(self._due) > 2 * MOST:
            await self._room.park()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. What waits then is left to whoever saves everything."""
        slots, scopes = trio.Semaphore(AT_ONCE), set[trio.CancelScope]()

        async def save(thing: T) -> None:
            scope = trio.CancelScope(shield=True, deadline=math.inf if self._running else trio.current_time() + GRACE_S)
            scopes.add(scope)
            try:
                with scope:
                    await self._save(thing)
            finally:
                scopes.discard(scope)
                slots.release()

        self._running = True
        task_status.started()
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    thing = await self._next()
                    await slots.acquire()
                    nursery.start_soon(save, thing)
            finally:
                self._running = False
                self._room.unpark_all()
                for scope in scopes:
                    scope.deadline = trio.current_time() + GRACE_S

    async def _next(self) -> T:
        """Take the oldest, when its time has come."""
        while True:
            if not self._due:
                await self._news.park()
                continue
            thing, due = next(iter(self._due.items()))
            left = due - trio.current_time()
            if left <= 0 or len(self._due) > MOST:
                del self._due[thing]
                self._room.unpark_all()
                return thing
            with trio.move_on_after(left):
                await self._news.park()

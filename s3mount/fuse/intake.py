"""Which task reads the kernel's next request, and when the event loop gets its turn.

Owns: the wait for the next request, in the place of pyfuse3's.
Must not know: requests, handlers.

pyfuse3's tasks take turns: each waits for a lock, then in the event loop for the device, and wakes the next one before it serves what it
read. That is two rounds of the loop for each request, and takes as long as most requests take to be answered. But a task that has answered
without waiting for anything can as well look for the next request itself. So

    serving --answered, within its turn--> looks: a request is there, or comes in a moment --> serving, without a round of the loop
       |                                     `--none--> listens in the loop, or is idle where somebody else listens
       `--has to wait for something--> an idle task is woken, to listen

This is handed to pyfuse3 in the place of its module `trio`, by the door that its own layer for asyncio uses. It stands on how pyfuse3's
tasks use that module: a pyfuse3 that was not read for it (see `READ`) is left to its own way.

N1  A read never blocks the loop. Who is told that there is a request has just seen it, and nobody of us runs between that and the reading.
    But the kernel may take it back there, when whoever asks is killed: that is why the device is made not to block, and pyfuse3's task,
    which knows only devices that do, begins again.
N2  While a task is idle, another one listens, or is about to look.
N3  Requests are served in a row for no longer than a turn in each round of the loop: a turn begins with whoever has listened, of whom there
    is one in a round. However many others go on in that round, for them it is the same turn.
N4  Nobody waits outside of the loop while a request is being served: what that waits for comes through the loop.
"""

from __future__ import annotations

import logging
import os
import select
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any

import pyfuse3
import trio

log = logging.getLogger(__name__)

# How long requests are served in a row before others get their turn: meanwhile no socket of a store is read.
TURN_S = 0.0005

# How long one waits for a request outside of the loop: a program that has its answer asks again within 10 to 50 microseconds. The kernel
# adds some 50. Where a close waits for this machine alone, with a store far away: a thousand files of 30 KB are copied in with a tenth less
# of processor time (six rounds of the loop less for each file), and nothing is read more slowly from that store.
MOMENT_S = 0.0001

# select(2) takes no higher numbers.
SELECTABLE = 1024

# The versions of pyfuse3 whose main loop was read and found to do with `Intake` as with trio. Tasks of another one might wait for a wake-up
# that never comes.
READ = ("3.5.",)


class Intake:
    """The tasks of one main loop. *moment_s* 0: nobody waits outside of the loop. `taken_back`: how many requests were, see N1."""

    def __init__(self, *, moment_s: float, turn_s: float = TURN_S) -> None:
        self._moment_s = moment_s
        self._turn_s = turn_s
        self.taken_back = 0
        self._device = -1
        self._until = 0.0
        self._reader: trio.lowlevel.Task | None = None
        self._idle: list[trio.lowlevel.Task] = []
        self._resting = False
        self._serving = 0
        self._closed = False

    # -- waiting ----------------------------------------------------------------------

    async def wait_readable(self, fd: int) -> None:
        """Until there is a request, which the caller then reads before anything else. Raises ClosedResourceError after `close`."""
        if fd != self._device:
            os.set_blocking(fd, False)
            self._device = fd
        task = trio.lowlevel.current_task()
        in_turn = perf_counter() < self._until
        while not self._closed:
            alone = self._reader is None or self._reader is task
            if in_turn and _is_readable(fd, 0.0 if self._serving or not alone else self._moment_s):
                self._reader = None if alone else self._reader
                return
            in_turn = self._resting = True
            if alone:
                self._reader = task
                await trio.lowlevel.wait_readable(fd)
            else:
                await self._idles(task)
        raise trio.ClosedResourceError("no more requests are read")

    async def _idles(self, task: trio.lowlevel.Task) -> None:
        def leave(_: object) -> trio.lowlevel.Abort:
            if task in self._idle:
                self._idle.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle.append(task)
        await trio.lowlevel.wait_task_rescheduled(leave)

    def close(self) -> None:
        """Whoever waits is told so, now and from now on. Idempotent."""
        self._closed = True
        while self._idle:
            trio.lowlevel.reschedule(self._idle.pop())

    # -- serving ----------------------------------------------------------------------

    async def serve(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run *work*, which reads requests and serves them, as one of the tasks."""
        while True:
            try:
                return await self._steps(work(*args))  # type: ignore[arg-type]  # pyfuse3's are coroutines
            except BlockingIOError:
                self.taken_back += 1

    @types.coroutine
    def _steps(self, work: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """What `await work` does, but it knows of each wait."""
        task = trio.lowlevel.current_task()
        go_on, answer = work.send, None
        try:
            while True:
                if self._reader is task:
                    self._until = perf_counter() + self._turn_s
                trap = go_on(answer)
                rests, self._resting = self._resting, False
                self._serving += not rests
                self._have_one_listen()
                try:
                    answer = yield trap
                    go_on = work.send
                except BaseException as problem:
                    answer = problem
                    go_on = work.throw
                finally:
                    self._serving -= not rests
        except StopIteration:
            pass
        finally:
            self._reader = None if self._reader is task else self._reader
            self._have_one_listen()

    def _have_one_listen(self) -> None:
        if self._reader is None and self._idle:
            self._reader = self._idle.pop()
            trio.lowlevel.reschedule(self._reader)

    def check(self) -> None:
        """Between the steps of tasks."""
        assert self._reader is not None or not self._idle, "N2"


def _is_readable(fd: int, patience_s: float) -> bool:
    if fd < SELECTABLE:
        return bool(select.select((fd,), (), (), patience_s)[0])
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


# -- what pyfuse3 takes for trio ---------------------------------------------------------------


@contextmanager
def in_place_of_trio(intake: Intake) -> Iterator[None]:
    """Have pyfuse3's main loop run on *intake*, if it can."""
    if not pyfuse3.__version__.startswith(READ):
        log.info("pyfuse3 %s waits for requests in its own way", pyfuse3.__version__)
        yield
        return
    pyfuse3.trio = _Trio(intake)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        pyfuse3.trio = trio  # type: ignore[attr-defined]


class _Trio:
    """`trio`, but for what tells tasks to read."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.lowlevel = _Lowlevel(intake)

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    def Lock(self) -> _Open:
        return _Open()

    @asynccontextmanager
    async def open_nursery(self) -> AsyncIterator[_Nursery]:
        async with trio.open_nursery() as nursery:
            yield _Nursery(nursery, self._intake)


class _Lowlevel:
    """`trio.lowlevel`, likewise."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.wait_readable = intake.wait_readable

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    def notify_closing(self, fd: int) -> None:
        self._intake.close()
        trio.lowlevel.notify_closing(fd)


class _Nursery:
    """What starts there serves requests."""

    def __init__(self, nursery: trio.Nursery, intake: Intake) -> None:
        self._nursery = nursery
        self._intake = intake

    def start_soon(self, work: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        self._nursery.start_soon(self._intake.serve, work, *args, name=name)


class _Open:
    """A lock that nobody needs: `Intake.wait_readable` may be called by all tasks at once."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

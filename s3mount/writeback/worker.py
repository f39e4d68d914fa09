"""A thread that does blocking work for tasks, one piece after another.

Owns: the thread, the way there and back.
Must not know: what the work is.

    call --> its turn --> [queue] --> thread: work, then ring --> the task that waits for the bell

trio's own way back from a thread goes through a queue of the loop, and takes it three rounds: as long as a small transaction. Here the
task itself waits for the bell, an eventfd, and is woken in the first.

Only the thread ends the bell's descriptor, when it ends itself: told so by `close`, or because nobody has the worker any more.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

import trio

from s3mount.writeback.turns import take

T = TypeVar("T")


class _Piece(Generic[T]):
    """Of work. `done`: it has a result, or an error."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: T | None = None
        self._error: BaseException | None = None
        self.done = False

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return cast(T, self._result)

    def do(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        self.done = True


Queue = SimpleQueue[_Piece[Any] | None]


class Worker:
    """One thread, which begins with the first call."""

    def __init__(self) -> None:
        self._turn = trio.Lock()
        self._queue: Queue | None = None
        self._bell = -1

    async def call(self, work: Callable[[], T]) -> T:
        """What *work* returns or raises, there. Not cancellable. Raises RuntimeError where there is no thread to be had."""
        piece = _Piece(work)
        with trio.CancelScope(shield=True):
            await self._in_turn(piece)
        return piece.outcome()

    async def shielded(self, work: Callable[[], T]) -> T:
        """As `call`, for whoever is shielded from being cancelled already: another scope would cost 15 us."""
        piece = _Piece(work)
        await self._in_turn(piece)
        return piece.outcome()

    async def _in_turn(self, piece: _Piece[T]) -> None:
        await take(self._turn)
        try:
            await self._do(piece)
        finally:
            self._turn.release()

    async def _do(self, piece: _Piece[T]) -> None:
        queue = self._queue or self._begun()
        queue.put(piece)
        while not piece.done:
            await trio.lowlevel.wait_readable(self._bell)
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)

    def _begun(self) -> Queue:
        queue: Queue = SimpleQueue()
        try:
            bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            raise RuntimeError(f"no thread can be told of: {error.strerror}") from error
        try:
            threading.Thread(target=_serve, args=(queue, bell), name="s3mount journal", daemon=True).start()
        except BaseException:
            os.close(bell)
            raise
        self._queue, self._bell = queue, bell
        weakref.finalize(self, queue.put, None)
        return queue

    def close(self) -> None:
        """The thread ends when it has done what it was given. Idempotent; a later call begins another one."""
        if self._queue is not None:
            self._queue.put(None)
            self._queue = None


def _serve(queue: Queue, bell: int) -> None:
    try:
        while (piece := queue.get()) is not None:
            piece.do()
            del piece
            os.eventfd_write(bell, 1)
    finally:
        os.close(bell)

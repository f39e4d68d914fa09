"""Work that goes on behind an answer: done by several hands, and tried again where it fails, less and less often.

Owns: what is to be done at once and what waits, the pause between two tries, what of it the log and the user are told.
Must not know: what the work is, stores, inodes.

    add --> [queue] --work--> over
               ^        `-- fails, or is put off --> [waiting]
               `-- after a pause: `AT_ONCE` of them; when one is over that had failed: all of them

The pause is doubled from `RETRY_S` to `RETRY_MAX_S` while nothing gets through: rights that were revoked come back by somebody's hand, not
within seconds. Whoever cannot wait does the work himself (`failed` and `over` are told of that as well).

L1  What has failed waits, or is in the queue, or in somebody's hands, until it is over.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import trio

from s3mount.errors import S3MountError
from s3mount.fs.copies import AT_ONCE, each
from s3mount.fs.kept import Stuck
from s3mount.model import Key

log = logging.getLogger(__name__)

T = TypeVar("T")

# Between two tries: twice as long after each in which nothing got through.
RETRY_S = 5.0
RETRY_MAX_S = 300.0


@dataclass(frozen=True, slots=True)
class About:
    """What an item is, for the user: the object in the bucket that is stuck, how large it is, what is the matter with it."""

    key: Key
    size: int
    matter: str


@dataclass(slots=True)
class Failure:
    """What came of an item so far."""

    since_ns: int
    error: S3MountError
    tries: int = 0


class Later(Generic[T]):
    """*work* raises StoreErrors, having told `failed`; it tells `over` of what is done. *about* says what is the matter with an item."""

    def __init__(
        self, work: Callable[[T], Awaitable[None]], about: Callable[[T], About], clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._work = work
        self._about = about
        self._clock_ns = clock_ns
        self._queue: deque[T] = deque()
        self._waiting: dict[T, None] = {}
        self._failures: dict[T, Failure] = {}
        self._said: set[tuple[str, type[S3MountError]]] = set()
        self._pause_s = RETRY_S
        self._news = trio.lowlevel.ParkingLot()
        self._delays = trio.lowlevel.ParkingLot()
        self._passes = trio.lowlevel.ParkingLot()

    # -- what there is to do ------------------------------------------------------------

    def add(self, items: Iterable[T]) -> None:
        """To be done at once."""
        self._queue.extend(items)
        self._news.unpark_all()

    def put_off(self, items: Iterable[T]) -> None:
        """To be done after the next pause."""
        self._waiting.update((item, None) for item in items)
        self._delays.unpark_all()

    def failed(self, item: T, error: S3MountError, kind: str) -> None:
        """To be tried again. Of each *kind* of work and of error one is told in the log, as long as anything is stuck."""
        failure = self._failures.setdefault(item, Failure(self._clock_ns(), error))
        failure.error, failure.tries = error, failure.tries + 1
        if (kind, type(error)) not in self._said:
            self._said.add((kind, type(error)))
            log.warning("%s It is tried again, less and less often: s3mount status shows what is left.", self._told(item, failure).reason)
        self.put_off((item,))

    def over(self, item: T) -> None:
        """It is done: if it had failed, others may get through as well."""
        if self.forget(item):
            self._pause_s = RETRY_S
            self.add(self._waiting)
            self._waiting.clear()
            self._passes.unpark_all()

    def forget(self, item: T) -> bool:
        """It is nobody's work any more; whether it had failed."""
        self._waiting.pop(item, None)
        had_failed = self._failures.pop(item, None) is not None
        if not self._failures:
            self._said.clear()
            self._pause_s = RETRY_S
        return had_failed

    # -- doing it -----------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._try_again)
            for _ in range(AT_ONCE):
                nursery.start_soon(self._hand)

    async def _hand(self) -> None:
        while True:
            while not self._queue:
                await self._news.park()
            item = self._queue.popleft()
            try:
                await self._work(item)
            except S3MountError:
                pass  # it was told, and waits
            except BaseException:
                self._queue.appendleft(item)
                raise

    async def _try_again(self) -> None:
        while True:
            while not self._waiting:
                await self._delays.park()
            with trio.move_on_after(self._pause_s) as pause:
                await self._passes.park()
            if pause.cancelled_caught:
                self._pause_s = min(2 * self._pause_s, RETRY_MAX_S)
                self._next()

    def _next(self) -> None:
        chosen = list(islice(self._waiting, AT_ONCE))
        for item in chosen:
            del self._waiting[item]
        self.add(chosen)

    async def retry(self, keys: Collection[str]) -> dict[str, str]:
        """Do now what has failed and is about *keys*; why some of it still cannot be done."""
        refused: dict[str, str] = {}

        async def again(item: T) -> None:
            try:
                await self._work(item)
            except S3MountError as error:
                refused[self._about(item).key] = str(error)

        await each([item for item in self._failures if self._about(item).key in keys], again)
        return refused

    # -- telling ------------------------------------------------------------------------

    @property
    def failures(self) -> int:
        return len(self._failures)

    def stuck(self, count: int) -> list[Stuck]:
        """The first *count* of those that have failed."""
        return [self._told(item, failure) for item, failure in islice(self._failures.items(), count)]

    def _told(self, item: T, failure: Failure) -> Stuck:
        about = self._about(item)
        reason = f"{about.matter}: {failure.error}"
        return Stuck(key=about.key, size=about.size, since_ns=failure.since_ns, reason=reason, tries=failure.tries)

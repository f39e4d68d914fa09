"""Limited: how many requests of each kind run at once.

Owns: one limiter per kind of request, so that slow commits never starve `head` and `list`.
Must not know: why a request is slow.

A request that waits its turn holds nothing else, and turns are taken in the order of asking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from s3mount.errors import StoreError
from s3mount.store.api import ObjectStore
from s3mount.store.wrap.base import Kind, Op, Wrapper

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests of each kind at once. Bytes need few connections to fill a line; small requests wait on latency and need more."""

    look: int = 64
    read: int = 32
    change: int = 64
    commit: int = 16
    medium: int = 8


class Limited(Wrapper):
    """*inner*, within *limits*."""

    def __init__(self, inner: ObjectStore, limits: Limits = Limits()) -> None:
        super().__init__(inner)
        self._limiters = {kind: trio.CapacityLimiter(getattr(limits, kind.value)) for kind in Kind}
        self._asked: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        # Each request is its own borrower: one task may well have two under way (a pin's read within another's callback).
        borrower = object()
        limiter = self._limiters[op.kind]
        await limiter.acquire_on_behalf_of(borrower)
        self._asked[op.verb] += 1
        try:
            return await call()
        except StoreError as error:
            self._failed[type(error).__name__] += 1
            raise
        finally:
            limiter.release_on_behalf_of(borrower)

    def statistics(self) -> dict[str, object]:
        """What was asked so far, by verb; what failed, by error; how many requests are under way, and wait for their turn."""
        limiters = [limiter.statistics() for limiter in self._limiters.values()]
        return {
            "requests": dict(self._asked),
            "failures": dict(self._failed),
            "under_way": sum(limiter.borrowed_tokens for limiter in limiters),
            "queued": sum(limiter.tasks_waiting for limiter in limiters),
        }

    def waiting(self, kind: Kind) -> int:
        """How many requests of *kind* wait their turn."""
        return self._limiters[kind].statistics().tasks_waiting

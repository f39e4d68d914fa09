"""Faulty: a store that fails as told, for tests of everything that must live with it.

Owns: what a fault is, scripted and seeded plans of faults.
Must not know: who deserves it.

A fault may strike before the request reaches the store (it did not happen) or on the way back (it happened, the reply is lost);
either may be late. A read that does not wait (`get_into_nowait`) is never answered at once, so that faults reach it too.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from s3mount.errors import OutcomeUnknown, StoreError, Throttled, Unavailable
from s3mount.store.api import ObjectStore
from s3mount.store.wrap.base import Op, Wrapper

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What befalls one request, in this order; times in seconds."""

    delay: float = 0.0
    until: trio.Event | None = None
    before: StoreError | None = None
    """Raised in place of the request."""
    after: StoreError | None = None
    """Raised in place of its reply."""
    reply_delay: float = 0.0


NOTHING = Fault()


def lost_request() -> Fault:
    """The mutation did not happen, and nobody can tell."""
    return Fault(before=OutcomeUnknown("The connection broke."))


def lost_reply() -> Fault:
    """The mutation happened, and nobody can tell."""
    return Fault(after=OutcomeUnknown("The connection broke."))


class Script:
    """Faults by verb, each used once, in order; a request without one goes through."""

    def __init__(self) -> None:
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def add(self, verb: str, *faults: Fault) -> None:
        self._faults[verb].extend(faults)

    @property
    def used_up(self) -> bool:
        return not any(self._faults.values())

    def __call__(self, op: Op) -> Fault:
        queue = self._faults.get(op.verb)
        return queue.popleft() if queue else NOTHING


def seeded(seed: int, *, rate: float, slowest: float = 0.0) -> Callable[[Op], Fault]:
    """A plan by which a share *rate* of all requests fails, any way that they can, and each takes up to *slowest* seconds."""
    rng = random.Random(seed)

    def plan(op: Op) -> Fault:
        delay = rng.uniform(0, slowest)
        if rng.random() >= rate:
            return Fault(delay=delay)
        choices = [Fault(delay=delay, before=Unavailable("Injected.")), Fault(delay=delay, before=Throttled("Injected."))]
        if op.mutates and not op.once:
            choices += [lost_request(), lost_reply()]
        return rng.choice(choices)

    return plan


class Faulty(Wrapper):
    """*inner*, as *plan* allows."""

    def __init__(self, inner: ObjectStore, plan: Callable[[Op], Fault]) -> None:
        super().__init__(inner)
        self._plan = plan

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        fault = self._plan(op)
        if fault.delay:
            await trio.sleep(fault.delay)
        if fault.until is not None:
            await fault.until.wait()
        if fault.before is not None:
            raise fault.before
        result = await call()
        if fault.reply_delay:
            await trio.sleep(fault.reply_delay)
        if fault.after is not None:
            raise fault.after
        return result

    def at_once(self, op: Op, call: Callable[[], bool]) -> bool:
        return False

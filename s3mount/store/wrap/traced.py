"""Traced: how many requests of each verb, and one debug line for each.

Owns: the counts and the line.
Must not know: bytes, metadata, credentials; a line carries the verb, the key, the duration and the kind of failure, nothing else.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from s3mount.store.api import ObjectStore
from s3mount.store.wrap.base import Op, Wrapper

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Traced(Wrapper):
    """*inner*, counted. `requests` is by verb; a read that was answered at once counts as "pin.get_into_nowait"."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.requests: Counter[str] = Counter()

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        self.requests[op.verb] += 1
        if not logger.isEnabledFor(logging.DEBUG):
            return await call()
        started = trio.current_time()
        outcome = "done"
        try:
            return await call()
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            logger.debug("%s %r %s in %.1f ms", op.verb, op.key, outcome, (trio.current_time() - started) * 1000)

    def at_once(self, op: Op, call: Callable[[], bool]) -> bool:
        answered = call()
        self.requests["pin.get_into_nowait"] += answered
        return answered

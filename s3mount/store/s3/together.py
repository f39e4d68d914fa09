"""Several requests at once, failing as one.

Owns: starting them, at most so many at a time, and raising the first failure as itself rather than in a group.
Must not know: what the requests are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

T = TypeVar("T")


async def together(jobs: Sequence[Callable[[], Awaitable[T]]], *, at_once: int) -> list[T]:
    """The results of *jobs*, in their order. The first failure cancels the others and is raised."""
    results: dict[int, T] = {}
    failures: list[Exception] = []
    waiting = iter(enumerate(jobs))

    async def work(scope: trio.CancelScope) -> None:
        for number, job in waiting:
            try:
                results[number] = await job()
            except Exception as error:
                failures.append(error)
                scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(min(at_once, len(jobs))):
            nursery.start_soon(work, nursery.cancel_scope)
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(jobs))]

"""Going through the keys of a store.

Owns: following pages to their end, deleting by the thousand, doing several things at once.
Must not know: URLs, options, files.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import trio

from s3mount.cli.output import Progress
from s3mount.model import ObjectInfo, Page
from s3mount.store.api import PAGE_KEYS, ObjectStore

# Objects under way at once: enough to hide a network's round trip, few enough for two cores and their memory (a buffer each).
JOBS = 8

T = TypeVar("T")


async def pages(store: ObjectStore, prefix: str, *, delimiter: str = "") -> AsyncGenerator[Page, None]:
    """All pages of the keys that begin with *prefix*."""
    after: str | None = ""
    while after is not None:
        page = await store.list(prefix, delimiter=delimiter, after=after)
        yield page
        after = page.next


async def objects(store: ObjectStore, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
    """All objects whose keys begin with *prefix*, in byte order."""
    async with aclosing(pages(store, prefix)) as listing:
        async for page in listing:
            for info in page.objects:
                yield info


async def delete_below(store: ObjectStore, prefix: str, progress: Progress) -> int:
    """Delete every object whose key begins with *prefix*; how many those were. Raises the first refusal."""
    deleted = 0
    while keys := [info.key for info in (await store.list(prefix, limit=PAGE_KEYS)).objects]:
        failures = await store.delete_many(keys)
        if failures:
            raise failures[0].error
        deleted += len(keys)
        progress(len(keys))
    return deleted


async def for_each(items: AsyncGenerator[T, None], work: Callable[[T], Awaitable[None]], *, jobs: int = JOBS) -> None:
    """Do *work* for each of *items*, at most *jobs* at once; the first failure ends all."""
    send, receive = trio.open_memory_channel[T](0)
    async with trio.open_nursery() as nursery:
        for _ in range(jobs):
            nursery.start_soon(_work_off, receive.clone(), work)
        receive.close()
        async with send, aclosing(items):
            async for item in items:
                await send.send(item)


async def _work_off(receive: trio.MemoryReceiveChannel[T], work: Callable[[T], Awaitable[None]]) -> None:
    async with receive:
        async for item in receive:
            await work(item)

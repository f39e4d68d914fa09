"""What the tests of remembered metadata share: a store that counts and takes its time, and a bucket full of keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import trio

from s3mount.cache.options import CacheOptions
from s3mount.cache.remember import Remembering
from s3mount.model import ETag, Found, Key, ObjectInfo, Page
from s3mount.store.api import PAGE_KEYS, ObjectStore
from s3mount.store.bucket import Blob, Bucket, File
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op, Wrapper

T = TypeVar("T")

# The real world: seconds to the first byte.
LATENCY = 0.03

EMPTY = Blob.of(b"")


class Slow(Wrapper):
    """Counts requests as S3 would get them (`find` is a HEAD and a LIST), each taking `LATENCY`."""

    def __init__(self, inner: ObjectStore, *, latency: float = LATENCY) -> None:
        super().__init__(inner)
        self.counts: Counter[str] = Counter()
        self.most = 0
        self._flying = 0
        self._latency = latency

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        for verb in ("head", "list") if op.verb == "find" else (op.verb,):
            self.counts[verb] += 1
        self._flying += 1
        self.most = max(self.most, self._flying)
        try:
            await trio.sleep(self._latency)
            return await call()
        finally:
            self._flying -= 1

    async def find(self, name: str) -> Found:
        """As S3 answers it: the object by HEAD, the rest by LIST."""

        async def ask() -> Found:
            found = await self.inner.find(name)
            return found if found.object is None else Found(await self.inner.head(Key(name)), found.marker, found.implied)

        return await self.around(Op("find", name), ask)

    def taken(self) -> Counter[str]:
        """The counts since this was last asked."""
        counts, self.counts = self.counts, Counter()
        return counts

    @property
    def requests(self) -> int:
        return sum(self.counts.values())


def fill(bucket: Bucket, keys: Iterable[str], *, size: int = 5) -> None:
    """Make objects under *keys*, fast."""
    blob = Blob.of(b"x" * size) if size else EMPTY
    for number, key in enumerate(sorted(keys), 1):
        file = File(
            number + 1000, blob, ETag(f"{number:032x}"), 10**18 + number, "application/octet-stream", "STANDARD", {"n": str(number)}, {key}
        )
        bucket.keys[key] = file
        bucket.files[file.id] = file
    bucket.order = sorted(bucket.keys)


@asynccontextmanager
async def remembering(keys: Iterable[str] = (), *, latency: float = LATENCY, **options: Any) -> AsyncIterator[tuple[Remembering, Slow]]:
    """A remembering store over a slow one with *keys*."""
    memory = MemoryStore(LIKE_S3)
    fill(memory.bucket, keys)
    slow = Slow(memory, latency=latency)
    async with around(slow, **options) as store:
        yield store, slow


@asynccontextmanager
async def around(inner: ObjectStore, **options: Any) -> AsyncIterator[Remembering]:
    """*inner*, remembered; its tables are sound at the end."""
    store = Remembering(inner, CacheOptions(**{"attributes": "list", **options}))
    try:
        yield store
        store.tables.check()
    finally:
        await store.aclose()


async def walk_pages(store: ObjectStore, prefix: str = "") -> AsyncIterator[Page]:
    after = ""
    while True:
        page = await store.list(prefix, delimiter="/", after=after)
        yield page
        if page.next is None:
            return
        after = page.next


async def list_all(store: ObjectStore, prefix: str = "") -> tuple[list[ObjectInfo], list[str]]:
    """All pages of one directory."""
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    async for page in walk_pages(store, prefix):
        objects += page.objects
        prefixes += page.prefixes
    return objects, prefixes


async def walk(store: ObjectStore, prefix: str = "") -> AsyncIterator[ObjectInfo]:
    """As find(1) goes: a directory is read wholly, then each of its directories in turn."""
    objects, prefixes = await list_all(store, prefix)
    for info in objects:
        yield info
    for directory in prefixes:
        assert (await store.find(directory[:-1])).is_directory
        async for info in walk(store, directory):
            yield info


def plain(infos: Sequence[ObjectInfo]) -> list[tuple[str, str, int]]:
    return [(info.key, info.etag, info.size) for info in infos]


def bare(page: Page) -> Page:
    """Without metadata."""
    return Page(tuple(replace(info, metadata=None, content_type="") for info in page.objects), page.prefixes, page.next)


PAGE = PAGE_KEYS

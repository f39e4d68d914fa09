"""Buckets of an S3 service, for one command: opened, looked at first, wrapped.

Owns: the order of the wrappers around S3Store, what a first look may change (the region), the sentence for a missing bucket.
Must not know: what is done with a store, the embedded store.

    names and attributes -> write-back (if chosen) -> blocks (a mount's) -> Past (where it shows what was) -> Retrying -> Limited
        -> Markers (where the service has none) -> S3Store
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from s3mount.cache.blocks import Blocks
from s3mount.cache.build import remembered, remembered_over
from s3mount.cache.options import CacheOptions
from s3mount.cli.state import uploads_folder
from s3mount.cli.store_options import Choice
from s3mount.config import StoreUrl
from s3mount.errors import Busy, Misdirected, NoSuchBucket
from s3mount.model import Key, MiB
from s3mount.store.api import ObjectStore
from s3mount.store.past import Past
from s3mount.store.s3 import buckets
from s3mount.store.s3.answers import NotAllowed
from s3mount.store.s3.client import Client, open_client
from s3mount.store.s3.conditions import is_known, require_judged
from s3mount.store.s3.markers import Markers, keeps_markers
from s3mount.store.s3.options import S3Options
from s3mount.store.s3.store import S3Store, open_s3
from s3mount.store.wrap.limited import Limited, Limits
from s3mount.store.wrap.retrying import Policy, Retrying
from s3mount.writeback.options import Spool
from s3mount.writeback.store import WriteBack

logger = logging.getLogger("s3mount")

# Reads: what 32 fetches ahead and some on demand need at once. Looks are cheap for a service and wait on latency alone.
# Commits: parts of files that are being written (at most 32), beside the closes of small ones. What they leave is for looks.
LIMITS = Limits(look=64, read=48, change=64, commit=56)

# What a single command fetches ahead of itself: several ranges of 8 MiB for each of the objects that it copies at once.
COMMAND_BYTES = 256 * MiB


class Remote:
    """The S3 service that *choice* names. *cache*: remember what it says (a mount; a single command has no second question).

    *at_ns*: show buckets as they were then. *write_back*: commits wait there first. *writes*: this is for long, and for writing.
    """

    def __init__(
        self,
        choice: Choice,
        cache: CacheOptions | None = None,
        *,
        at_ns: int | None = None,
        write_back: Spool | None = None,
        writes: bool = False,
    ) -> None:
        self._writes = writes
        self._write_back = write_back
        self._at_ns = at_ns
        self._choice = choice
        self._options = choice.s3
        self._policy = Policy(budget=choice.retry_for_s)
        self._cache = cache

    async def open(self, url: StoreUrl) -> ObjectStore:
        """The store of *url*'s bucket, after a first look. Raises NoSuchBucket, Misdirected, AccessDenied and others."""
        store = await self._reach(url, self._options)
        plain: ObjectStore = store
        if self._writes:
            plain = await self._prepare(store, url)
        if self._cache is not None:
            await store.prepare()
        patient: ObjectStore = Retrying(Limited(plain, LIMITS), self._policy)
        identity = f"{store.client.endpoint}/{url.bucket}"
        if self._at_ns is not None:
            patient, identity = Past(patient, self._at_ns), f"{identity}@{self._at_ns}"
        if self._cache is None:
            return Blocks(patient, CacheOptions(memory_limit=COMMAND_BYTES))
        cache = replace(self._cache, identity=identity)
        return remembered(patient, cache) if self._write_back is None else await _late(patient, cache, self._write_back, str(url))

    async def _reach(self, url: StoreUrl, options: S3Options) -> S3Store:
        store = await open_s3(options, url.bucket, policy=self._policy, begun=uploads_folder(url, self._choice))
        try:
            await self._look(store.client, url)
        except Misdirected as error:
            await _closed(store)
            if self._options.region or not error.region or error.region == options.region:
                raise
            logger.info("The bucket %s is in region %s", url.bucket, error.region)
            return await self._reach(url, replace(options, region=error.region))
        except NoSuchBucket:
            await _closed(store)
            raise NoSuchBucket(f"There is no bucket {url.bucket!r} at {store.client.endpoint}") from None
        except BaseException:
            await _closed(store)
            raise
        return store

    async def _prepare(self, store: S3Store, url: StoreUrl) -> ObjectStore:
        """What is looked at before the first write; *store* as it is written to. Raises UsageError.

        A service that judges conditions is a store of objects; one that does not may be a front of something else.
        """
        prefix = url.key if not url.key or url.key.endswith("/") else f"{url.key}/"
        plain: ObjectStore = store
        try:
            if not is_known(store.client.endpoint):
                if store.capabilities.conditional_put:
                    await require_judged(store, prefix, endpoint=store.client.endpoint)
                elif not await keeps_markers(Retrying(store, self._policy), prefix):
                    plain = Markers(store)
            await store.sweep()
        except BaseException:
            await _closed(store)
            raise
        return plain

    async def _look(self, client: Client, url: StoreUrl) -> None:
        try:
            await buckets.probe(client, url.bucket, url.key)
        except NotAllowed:
            # Who may read an object need not be allowed to list: only a mount cannot do without.
            if self._cache is not None:
                raise

    # -- buckets ----------------------------------------------------------------------

    async def buckets(self) -> Sequence[buckets.BucketInfo]:
        """All buckets of these credentials."""
        async with self._client() as client:
            return await buckets.list_buckets(client)

    async def create_bucket(self, url: StoreUrl) -> None:
        """Raises BucketExists, InvalidName."""
        async with self._client() as client:
            await buckets.create_bucket(client, url.bucket)

    async def delete_bucket(self, url: StoreUrl) -> None:
        """Raises NoSuchBucket, BucketNotEmpty."""
        async with self._client() as client:
            await buckets.delete_bucket(client, url.bucket)

    async def restore(self, url: StoreUrl, *, days: int, tier: str) -> bool:
        """Have *url*'s object brought back from its archive; False where that is under way already. Raises NotFound, AccessDenied."""
        async with self._client() as client:
            return await buckets.restore(client, url.bucket, Key(url.key), days=days, tier=tier)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        client = await open_client(self._options)
        try:
            yield client
        finally:
            with trio.CancelScope(shield=True):
                await client.aclose()


async def _late(store: ObjectStore, cache: CacheOptions, spool: Spool, url: str) -> ObjectStore:
    """*store* with its caches, and commits that are in *folder* first; without that where another process has the folder."""
    blocks = Blocks(store, cache)
    try:
        late = await WriteBack.open(blocks, spool.folder, limit=spool.limit, about={"url": url})
    except Busy:
        logger.warning("Another mount of %s has --write-back already: this one commits at close.", url)
        return remembered_over(blocks, blocks, cache)
    except BaseException:
        with trio.CancelScope(shield=True):
            await blocks.aclose()
        raise
    remembering = remembered_over(late, blocks, cache)
    late.listener.stored, late.listener.forget, late.listener.known = remembering.made, remembering.forget, remembering.known
    remembering.as_stored = late.as_stored
    return remembering


async def _closed(store: S3Store) -> None:
    with trio.CancelScope(shield=True):
        await store.aclose()

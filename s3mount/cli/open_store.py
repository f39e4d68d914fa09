"""From a URL to a store: the only place that chooses an implementation.

Owns: which program stands behind `local://` and `s3://`, where the embedded store's folder is, the sentence for a missing bucket.
Must not know: what is done with the store.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, cast

import trio

from s3mount.cache.options import CacheOptions
from s3mount.cli.importing import imported
from s3mount.cli.report import os_reason
from s3mount.cli.store_options import Choice
from s3mount.config import StoreUrl
from s3mount.errors import FROM_OS, NoSuchBucket, NotFound, Unavailable, UsageError
from s3mount.store.api import ObjectStore
from s3mount.store.wrap.traced import Traced

if TYPE_CHECKING:
    from s3mount.cli.remote import Remote
    from s3mount.engine.engine import Engine
    from s3mount.writeback.options import Spool

logger = logging.getLogger("s3mount")


def default_folder() -> Path:
    """The folder that is meant where nothing was said: $S3MOUNT_DATA, else `s3mount` in $XDG_DATA_HOME (~/.local/share)."""
    if named := os.environ.get("S3MOUNT_DATA"):
        return Path(named)
    base = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share") / "s3mount"


def data_folder(given: Path | None) -> Path:
    """The embedded store's folder, absolute: *given*, or the default."""
    return (given or default_folder()).expanduser().absolute()


def open_engine(folder: Path, *, create: bool) -> Engine:
    """The engine on *folder*. Raises StoreErrors that name the folder; NotFound without *create* where there is none."""
    # Imported when it is wanted: a command on s3:// can do without.
    engine = imported("s3mount.engine.engine").Engine
    try:
        return cast("Engine", engine.open(folder, create=create))
    except OSError as error:
        kind = FROM_OS.get(error.errno or 0, Unavailable)
        raise kind(f"The data folder {folder} cannot be used: {os_reason(error)}.") from error


class Bucket(Protocol):
    """What is known of a bucket as such; times in nanoseconds since 1970."""

    @property
    def name(self) -> str: ...
    @property
    def created_ns(self) -> int: ...


class Stores:
    """The stores that one command works on, each opened once; leaving the context closes them.

    *create* makes the data folder where it is missing; without it, a missing folder is a store without buckets. *cache* (a mount's) is for
    the stores behind a network. *at_ns*: show buckets as they were then. *write_back*: commit to this spool first (a mount's, of s3://).
    *writes*: look whether the store of a mount is fit for that.
    """

    def __init__(
        self,
        choice: Choice,
        *,
        create: bool = False,
        cache: CacheOptions | None = None,
        at_ns: int | None = None,
        write_back: Spool | None = None,
        writes: bool = False,
    ) -> None:
        self._choice = choice
        self._at_ns = at_ns
        self._write_back = write_back
        self._writes = writes
        self._folder = data_folder(choice.data)
        self._create = create
        self._cache = cache
        self._engine: Engine | None = None
        self._stores: dict[tuple[str, str], ObjectStore] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with trio.CancelScope(shield=True):
            for store in self._stores.values():
                await store.aclose()
            if self._engine is not None:
                await trio.to_thread.run_sync(self._engine.close)

    async def open(self, url: StoreUrl) -> ObjectStore:
        """The store of *url*'s bucket. Raises NoSuchBucket with the command that makes it."""
        place = (url.scheme, url.bucket)
        if place not in self._stores:
            try:
                self._stores[place] = wrapped(await (self._open_remote(url) if url.scheme == "s3" else self._open_local(url)))
            except NoSuchBucket as error:
                raise NoSuchBucket(f"{str(error).rstrip('.')}: make it with `s3mount mb {self._make(url)}`.") from None
        return self._stores[place]

    async def _open_remote(self, url: StoreUrl) -> ObjectStore:
        return await self._remote().open(url)

    async def _open_local(self, url: StoreUrl) -> ObjectStore:
        try:
            engine = await self._open_engine()
            await trio.to_thread.run_sync(engine.require_bucket, url.bucket)
        except (NotFound, NoSuchBucket):
            raise NoSuchBucket(self._no_bucket(url)) from None
        store: ObjectStore = imported("s3mount.store.local").LocalStore(engine, url.bucket)
        if self._at_ns is None:
            return store
        # Imported when it is wanted, as `remote` is.
        past: ObjectStore = imported("s3mount.cli.as_it_was").as_it_was(store, self._at_ns, self._cache)
        return past

    async def buckets(self, url: StoreUrl) -> Sequence[Bucket]:
        """All buckets of *url*'s kind of store."""
        if url.scheme == "s3":
            return await self._remote().buckets()
        try:
            engine = await self._open_engine()
        except NotFound:
            return []
        return await trio.to_thread.run_sync(engine.buckets)

    async def create_bucket(self, url: StoreUrl) -> None:
        """Raises BucketExists, InvalidName."""
        if url.scheme == "s3":
            return await self._remote().create_bucket(url)
        engine = await self._open_engine()
        await trio.to_thread.run_sync(engine.create_bucket, url.bucket)

    async def delete_bucket(self, url: StoreUrl) -> None:
        """Raises NoSuchBucket, BucketNotEmpty."""
        if url.scheme == "s3":
            return await self._remote().delete_bucket(url)
        try:
            engine = await self._open_engine()
            await trio.to_thread.run_sync(engine.delete_bucket, url.bucket)
        except (NotFound, NoSuchBucket):
            raise NoSuchBucket(self._no_bucket(url)) from None

    async def sync(self) -> None:
        """On return, whatever was done to the stores survives a power cut."""
        for store in self._stores.values():
            if not store.capabilities.durable:
                await store.sync()

    async def _open_engine(self) -> Engine:
        if self._engine is None:
            self._engine = await trio.to_thread.run_sync(lambda: open_engine(self._folder, create=self._create))
        return self._engine

    def _remote(self) -> Remote:
        # Imported when it is wanted: aiobotocore takes longer to import than a command on the embedded store takes altogether.
        remote = imported("s3mount.cli.remote")
        service: Remote = remote.Remote(self._choice, self._cache, at_ns=self._at_ns, write_back=self._write_back, writes=self._writes)
        return service

    def _no_bucket(self, url: StoreUrl) -> str:
        return f"There is no bucket {url.bucket!r} in {self._folder}"

    def _make(self, url: StoreUrl) -> str:
        where = "" if url.scheme == "s3" or self._folder == data_folder(None) else f" --data {self._folder}"
        return f"{url.scheme}://{url.bucket}{where}"


def wrapped(store: ObjectStore) -> ObjectStore:
    """*store* with what every store of a command gets: each request in the log, where the level is debug.

    The embedded store is a function call away: no reply is lost, nothing throttles. What lies behind a network is wrapped by `remote`.
    """
    return Traced(store) if logger.isEnabledFor(logging.DEBUG) else store


def require_bucket_named(url: StoreUrl) -> None:
    """Raise UsageError where *url* names no bucket."""
    if not url.bucket:
        raise UsageError(f"{url} names no bucket: write {url.scheme}://BUCKET.")


@asynccontextmanager
async def open_store(
    url: StoreUrl,
    choice: Choice,
    *,
    create_bucket: bool = False,
    cache: CacheOptions | None = None,
    at_ns: int | None = None,
    write_back: Spool | None = None,
    writes: bool = False,
) -> AsyncIterator[ObjectStore]:
    """The store of *url*'s bucket for as long as the context lasts; *create_bucket* makes it where it is missing.

    Raises NoSuchBucket with the command that makes the bucket, StoreErrors that name the data folder or the service.
    """
    require_bucket_named(url)
    async with Stores(choice, create=create_bucket, cache=cache, at_ns=at_ns, write_back=write_back, writes=writes) as stores:
        try:
            store = await stores.open(url)
        except NoSuchBucket:
            if not create_bucket:
                raise
            await stores.create_bucket(url)
            store = await stores.open(url)
        yield store

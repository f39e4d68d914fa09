"""From a URL to a store: the only place that chooses an implementation.

Owns: which program stands behind `local://` (and later `s3://`), where the embedded store's folder is, the sentence for a missing bucket.
Must not know: what is done with the store.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
import trio

from s3mount.cli.report import os_reason
from s3mount.config import StoreUrl
from s3mount.engine.engine import Engine
from s3mount.engine.values import BucketInfo
from s3mount.errors import FROM_OS, NoSuchBucket, NotFound, Unavailable, UsageError
from s3mount.store.api import ObjectStore
from s3mount.store.local import LocalStore
from s3mount.store.wrap.traced import Traced

logger = logging.getLogger("s3mount")

data_option: Callable[..., Any] = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="S3MOUNT_DATA",
    show_envvar=True,
    help="The embedded store's folder; default: s3mount in the user's data directory (XDG).",
)


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
    try:
        return Engine.open(folder, create=create)
    except OSError as error:
        kind = FROM_OS.get(error.errno or 0, Unavailable)
        raise kind(f"The data folder {folder} cannot be used: {os_reason(error)}.") from error


class Stores:
    """The stores that one command works on, each opened once; leaving the context closes them.

    *create* makes the data folder where it is missing; without it, a missing folder is a store without buckets.
    """

    def __init__(self, data: Path | None, *, create: bool = False) -> None:
        self._folder = data_folder(data)
        self._create = create
        self._engine: Engine | None = None
        self._stores: dict[str, ObjectStore] = {}

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
        if url.bucket not in self._stores:
            try:
                engine = await self._open_engine(url)
                await trio.to_thread.run_sync(engine.require_bucket, url.bucket)
            except (NotFound, NoSuchBucket):
                raise NoSuchBucket(self._how_to_make(url)) from None
            self._stores[url.bucket] = wrapped(LocalStore(engine, url.bucket))
        return self._stores[url.bucket]

    async def buckets(self, url: StoreUrl) -> Sequence[BucketInfo]:
        """All buckets of *url*'s kind of store."""
        try:
            engine = await self._open_engine(url)
        except NotFound:
            return []
        return await trio.to_thread.run_sync(engine.buckets)

    async def create_bucket(self, url: StoreUrl) -> None:
        """Raises BucketExists, InvalidName."""
        engine = await self._open_engine(url)
        await trio.to_thread.run_sync(engine.create_bucket, url.bucket)

    async def delete_bucket(self, url: StoreUrl) -> None:
        """Raises NoSuchBucket, BucketNotEmpty."""
        try:
            engine = await self._open_engine(url)
            await trio.to_thread.run_sync(engine.delete_bucket, url.bucket)
        except (NotFound, NoSuchBucket):
            raise NoSuchBucket(self._no_bucket(url)) from None

    async def sync(self) -> None:
        """On return, whatever was done to the stores survives a power cut."""
        for store in self._stores.values():
            if not store.capabilities.durable:
                await store.sync()

    async def _open_engine(self, url: StoreUrl) -> Engine:
        require_local(url)
        if self._engine is None:
            self._engine = await trio.to_thread.run_sync(lambda: open_engine(self._folder, create=self._create))
        return self._engine

    def _no_bucket(self, url: StoreUrl) -> str:
        return f"There is no bucket {url.bucket!r} in {self._folder}"

    def _how_to_make(self, url: StoreUrl) -> str:
        where = "" if self._folder == data_folder(None) else f" --data {self._folder}"
        return f"{self._no_bucket(url)}: make it with `s3mount mb {url.scheme}://{url.bucket}{where}`."


def wrapped(store: ObjectStore) -> ObjectStore:
    """*store* with what every store of a command gets: each request in the log, where the level is debug.

    The embedded store is a function call away: no reply is lost, nothing throttles. Retrying and Limited are for stores behind a network.
    """
    return Traced(store) if logger.isEnabledFor(logging.DEBUG) else store


def require_local(url: StoreUrl) -> None:
    """Raise UsageError for the kinds of store that this version does not have."""
    if url.scheme != "local":
        raise UsageError(f"{url.scheme}:// comes with a later version of s3mount; this one has local://.")


def require_bucket_named(url: StoreUrl) -> None:
    """Raise UsageError where *url* names no bucket."""
    if not url.bucket:
        raise UsageError(f"{url} names no bucket: write {url.scheme}://BUCKET.")


@asynccontextmanager
async def open_store(url: StoreUrl, *, data: Path | None = None, create_bucket: bool = False) -> AsyncIterator[ObjectStore]:
    """The store of *url*'s bucket for as long as the context lasts; *create_bucket* makes it where it is missing.

    Raises UsageError for a kind of store that this version does not have, NoSuchBucket with the command that makes the bucket,
    StoreErrors that name the data folder.
    """
    require_bucket_named(url)
    async with Stores(data, create=create_bucket) as stores:
        try:
            store = await stores.open(url)
        except NoSuchBucket:
            if not create_bucket:
                raise
            await stores.create_bucket(url)
            store = await stores.open(url)
        yield store

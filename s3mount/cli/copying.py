"""What cp and mv do: go through the sources, and bring each thing to its target.

Owns: which single copies a request means, in which direction each goes, where a rename will do.
Must not know: options' spelling, how bytes move (transfer does).

A source directory keeps its name at a target directory, as with cp(1); its empty directories become markers (`name/`), and markers become
empty directories. Symbolic links are followed to files; links to directories, and what is neither, are passed over with a warning.
"""

from __future__ import annotations

import logging
import mimetypes
import os
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import trio

from s3mount.cli import transfer
from s3mount.cli.open_store import Stores
from s3mount.cli.output import Progress
from s3mount.cli.places import (
    File,
    Pipe,
    Place,
    as_prefix,
    inside,
    is_directory,
    key_of,
    last_name,
    object_at,
    path_of,
    plain_name,
    with_key,
)
from s3mount.cli.walk import delete_below, objects
from s3mount.config import StoreUrl
from s3mount.errors import AlreadyExists, NotFound, UsageError
from s3mount.model import Key, ObjectInfo
from s3mount.store.api import Commit, ObjectStore

logger = logging.getLogger("s3mount")

DEFAULT_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to be copied. `size` in bytes (None: a pipe's end is not known); `empty_directory`: a directory with nothing in it."""

    source: Place
    target: Place
    size: int | None
    empty_directory: bool = False


@dataclass(frozen=True, slots=True)
class Copier:
    """Carries out copies between files, pipes and the stores of one command."""

    stores: Stores
    content_type: str | None = None

    async def plan(self, pairs: Sequence[tuple[Place, Place]], *, recursive: bool) -> AsyncGenerator[Item, None]:
        """Every single copy that bringing each source to its place takes. Raises UsageError, NotFound, OSError."""
        for source, place in pairs:
            require_outside(source, place)
            async with aclosing(self._below(source, place, recursive=recursive)) as items:
                async for item in items:
                    yield item

    async def targets(self, sources: Sequence[Place], target: Place) -> list[tuple[Place, Place]]:
        """Each source with the place that its copy gets. Raises UsageError."""
        into = await is_directory(target, await self.store_of(target))
        if len(sources) > 1 and not into:
            raise UsageError(f"{target} is no directory: several sources need one to go into.")
        for source in sources:
            require_store(source, target)
        return [(source, inside(target, last_name(source)) if into else target) for source in sources]

    async def store_of(self, place: Place) -> ObjectStore | None:
        """The store of *place*'s bucket, None for files and pipes."""
        return await self.stores.open(place) if isinstance(place, StoreUrl) else None

    async def _below(self, source: Place, target: Place, *, recursive: bool) -> AsyncGenerator[Item, None]:
        if isinstance(source, Pipe):
            yield Item(source, target, None)
        elif isinstance(source, File):
            for item in files_below(source.path, target, recursive=recursive):
                yield item
        else:
            async with aclosing(self._objects_below(source, target, recursive=recursive)) as items:
                async for item in items:
                    yield item

    async def _objects_below(self, source: StoreUrl, target: Place, *, recursive: bool) -> AsyncGenerator[Item, None]:
        store = await self.stores.open(source)
        found = await store.find(plain_name(source))
        if (info := object_at(source, found)) is not None:
            both = recursive and found.is_directory and not isinstance(target, Pipe)
            yield Item(source, beside_folder(target) if both else target, info.size)
            if not both:
                return
        elif not found.is_directory:
            raise NotFound(f"There is nothing at {source}.")
        elif isinstance(target, Pipe):
            raise UsageError(f"{source} is a prefix: standard output takes one object.")
        elif not recursive:
            raise UsageError(f"{source} is a prefix: copy what is below it with -r.")
        prefix = as_prefix(source.key)
        async with aclosing(with_shadows(objects(store, prefix))) as listing:
            async for info, shadowed in listing:
                yield object_item(with_key(source, info.key), target, info.key.removeprefix(prefix), info.size, shadowed=shadowed)

    async def copy(self, item: Item, progress: Progress) -> None:
        """Do one copy. Raises what reading and writing raise."""
        match item.source, item.target:
            case source, File(folder) if item.empty_directory:
                folder.mkdir(parents=True, exist_ok=True)
            case Pipe(), StoreUrl() as url:
                stream = sys.stdin.buffer
                await transfer.upload_stream(await self.stores.open(url), Key(url.key), stream, self._commit(url.key), progress)
            case File(path), StoreUrl() as url:
                await self._upload(path, url, item, progress)
            case StoreUrl() as url, (File() | Pipe()) as target:
                await self._download(url, target, progress)
            case StoreUrl() as source, StoreUrl() as target:
                await self._copy_object(source, target, progress, item.size or 0)
            case source, target:
                raise AssertionError(f"{source} to {target}: see require_store")

    def _commit(self, name: str) -> Commit:
        guessed = mimetypes.guess_type(name)[0]
        return transfer.new_commit(self.content_type or guessed or DEFAULT_TYPE)

    async def _upload(self, path: Path, url: StoreUrl, item: Item, progress: Progress) -> None:
        store = await self.stores.open(url)
        if item.empty_directory:
            await store.put(Key(as_prefix(url.key)), b"", transfer.new_commit("application/x-directory"))
        else:
            await transfer.upload_file(store, Key(url.key), path, self._commit(path.name), progress)

    async def _download(self, url: StoreUrl, target: File | Pipe, progress: Progress) -> None:
        pin = await (await self.stores.open(url)).pin(Key(url.key))
        try:
            if isinstance(target, Pipe):
                await transfer.write_out(pin, sys.stdout.buffer, progress)
            else:
                target.path.parent.mkdir(parents=True, exist_ok=True)
                await transfer.download(pin, target.path, progress)
        finally:
            await pin.aclose()

    async def _copy_object(self, source: StoreUrl, target: StoreUrl, progress: Progress, size: int) -> None:
        store = await self.stores.open(source)
        if source == target:
            raise UsageError(f"{source} and its copy are the same object.")
        if source.store == target.store:
            await store.copy(Key(source.key), Key(target.key), commit=await self._new_type(store, source))
            progress(size)
            return
        pin = await store.pin(Key(source.key))
        try:
            await transfer.copy_between(pin, await self.stores.open(target), Key(target.key), progress)
        finally:
            await pin.aclose()

    async def _new_type(self, store: ObjectStore, source: StoreUrl) -> Commit | None:
        if self.content_type is None:
            return None
        info = await store.head(Key(source.key))
        return transfer.new_commit(self.content_type, Commit(metadata=info.metadata or {}, storage_class=info.storage_class))

    async def remove_source(self, item: Item) -> None:
        """What makes a copy a move: from here on the copy is the only one, so it is made safe from a power cut first."""
        await self._make_durable(item.target)
        if isinstance(item.source, StoreUrl):
            await (await self.stores.open(item.source)).delete(Key(item.source.key))
        elif isinstance(item.source, File) and not item.empty_directory:
            item.source.path.unlink()

    async def _make_durable(self, target: Place) -> None:
        if isinstance(target, File):
            await trio.to_thread.run_sync(transfer.sync_file, target.path)
        elif isinstance(target, StoreUrl):
            store = await self.stores.open(target)
            if not store.capabilities.durable:
                await store.sync(Key(target.key))


def require_store(source: Place, target: Place) -> None:
    """Raise UsageError where neither side is in a store."""
    if not isinstance(source, StoreUrl) and not isinstance(target, StoreUrl):
        raise UsageError(f"Neither {source} nor {target} is in a store: use cp, or write a URL as local://BUCKET/KEY.")


def require_outside(source: Place, target: Place) -> None:
    """Raise UsageError where *target* lies below *source*: copying would never end."""
    if not isinstance(source, StoreUrl) or not isinstance(target, StoreUrl) or source.store != target.store:
        return
    if target.key != source.key and as_prefix(target.key).startswith(as_prefix(source.key)):
        raise UsageError(f"{source} cannot be copied into itself.")


def files_below(source: Path, target: Place, *, recursive: bool) -> Iterator[Item]:
    """The files and the empty directories of *source*, which is one file or a directory. Raises UsageError, OSError."""
    status = source.stat()
    if not source.is_dir():
        yield Item(File(source), target, status.st_size)
        return
    if not recursive:
        raise UsageError(f"{source} is a directory: copy it with -r.")
    for folder, folders, files in os.walk(source, onerror=_raise):
        folders.sort()
        for path in (Path(folder, name) for name in folders):
            if path.is_symlink():
                logger.warning("%s is a link to a directory: passed over.", path)
        for path in (Path(folder, name) for name in sorted(files)):
            place = inside(target, key_of(path.relative_to(source)))
            if path.is_file():
                yield Item(File(path), place, path.stat().st_size)
            else:
                logger.warning("%s is neither a file nor a directory: passed over.", path)
        if not folders and not files:
            yield Item(File(Path(folder)), inside(target, key_of(Path(folder).relative_to(source))), 0, empty_directory=True)


def _raise(error: OSError) -> None:
    raise error


def object_item(source: StoreUrl, target: Place, relative: str, size: int, *, shadowed: bool) -> Item:
    """The copy of one object, *relative* to the prefix that is copied to *target*."""
    if isinstance(target, Pipe):
        return Item(source, target, size)
    if isinstance(target, StoreUrl):
        return Item(source, with_key(target, as_prefix(target.key) + relative), size)
    if not size and (not relative or relative.endswith("/")):
        return Item(source, inside(target, relative.removesuffix("/")), size, empty_directory=True)
    return Item(source, File(target.path / path_of(relative, shadowed=shadowed)), size)


def beside_folder(target: Place) -> Place:
    """Where an object goes while what lies below it makes *target* a folder; in a store both have room."""
    if not isinstance(target, File):
        return target
    return File(target.path.parent / path_of(key_of(Path(target.path.name)), shadowed=True))


async def with_shadows(infos: AsyncGenerator[ObjectInfo, None]) -> AsyncGenerator[tuple[ObjectInfo, bool], None]:
    """Each of *infos* (in byte order), and whether keys lie below it as if it were a directory; held back until that is certain."""
    held: list[ObjectInfo] = []
    async with aclosing(infos):
        async for info in infos:
            while held and not comes_below(held[-1].key, info.key) and _is_past(held[-1].key, info.key):
                yield held.pop(), False
            if held and comes_below(held[-1].key, info.key):
                yield held.pop(), True
            held.append(info)
    while held:
        yield held.pop(), False


def comes_below(key: str, other: str) -> bool:
    """Whether *other* lies below `key/`."""
    return not key.endswith("/") and other.startswith(key + "/")


def _is_past(key: str, other: str) -> bool:
    """Whether nothing behind *other*, in byte order, can lie below `key/`."""
    return key.endswith("/") or other.encode() > (key + "/").encode()


async def total_bytes(items: AsyncGenerator[Item, None]) -> int:
    """What a progress bar counts to."""
    async with aclosing(items):
        return sum([item.size or 0 async for item in items])


# -- moving within one bucket -------------------------------------------------------------


async def rename_within(store: ObjectStore, source: StoreUrl, target: StoreUrl) -> int:
    """Rename an object, or a prefix with all below it, in a store that can; how many keys that were.

    Raises NotFound; UsageError for a prefix moved into itself; AlreadyExists where the target prefix has keys.
    """
    found = await store.find(plain_name(source))
    if object_at(source, found) is not None:
        await store.rename(Key(source.key), Key(target.key))
        return 1
    if not found.is_directory:
        raise NotFound(f"There is nothing at {source}.")
    old, new = as_prefix(source.key), as_prefix(target.key)
    if new.startswith(old):
        raise UsageError(f"{source} cannot be moved into itself.")
    if old.startswith(new) or (await store.find(new.removesuffix("/"))).object is not None:
        raise AlreadyExists(f"{target} exists already and is in the way.")
    return await store.rename_prefix(old, new)


async def remove_below(store: ObjectStore, url: StoreUrl, progress: Progress) -> int:
    """Delete the object at *url* and everything below it; how many objects those were."""
    deleted = 0
    if url.key and object_at(url, await store.find(plain_name(url))) is not None:
        await store.delete(Key(url.key))
        deleted = 1
    return deleted + await delete_below(store, as_prefix(url.key), progress)


async def remove_empty_folders(folder: Path) -> None:
    """Remove the folders that are left when their files have been moved. Raises OSError where something is in one of them."""
    for path, _, _ in await trio.to_thread.run_sync(lambda: list(os.walk(folder, topdown=False))):
        os.rmdir(path)

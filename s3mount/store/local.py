"""LocalStore: one bucket of the embedded engine, as an object store on trio.

Owns: what runs on the event loop and what in a thread, and how many threads of each kind.
Must not know: how the engine stores anything.

L1  Looks at the index (`head`, `find`, short pages), opening a version, and reads that the page cache answers run on the loop: they take
    some ten microseconds, a thread hop a hundred.
L2  So do changes of one key that fit into a record and need not be durable, among them edits of a few pages of a large file, when nobody
    else holds the write lock and nothing else is due: they write to the page cache only, some hundred microseconds. Where they would
    have to wait they are done in a thread. Removals in a row share what they can (the engine's `linger`); every look sees them at once.
L3  Everything else runs in worker threads, each kind with a limiter of its own, so that any number of slow commits holds up neither reads
    nor looks nor renames.
L4  A thread that was started is waited for, cancelled or not: a mutation is never abandoned half-way, a buffer never filled behind its
    owner's back. A cancellation that comes while a call waits for its turn means that it did not happen.
L5  A commit to a file that exists keeps the content headers and tags that a server gave it, and drops the checksums of its former bytes.
L6  Without *durable*, what is acknowledged survives the process at once, and a power cut after `sync`.
L7  A change that finds the medium full is tried once more after a sync, which deletes what was removed; NoSpace means that this failed too.
    One whose outcome is open is not tried again, but the sync helps the index to follow the log: the next look tells.

The engine belongs to whoever opened it: `aclose` leaves it open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from s3mount.engine.engine import Engine
from s3mount.engine.extra import tags_of, with_tags
from s3mount.engine.follow import Follower
from s3mount.engine.lock import WouldWait
from s3mount.engine.objects import is_quick_edit
from s3mount.engine.reader import Reader
from s3mount.engine.values import How, VersionInfo
from s3mount.engine.version_queries import Place
from s3mount.errors import NoSpace, OutcomeUnknown, StoreError
from s3mount.model import (
    ByteRange,
    Changed,
    Condition,
    Content,
    ETag,
    Found,
    Key,
    KiB,
    Metadata,
    ObjectInfo,
    Page,
    Part,
    Space,
    Upload,
    Version,
    VersionPlace,
    Versions,
)
from s3mount.store.api import EVERYTHING, PAGE_KEYS, Arrived, Commit, Failure
from s3mount.store.aspects import NULL_VERSION, TAGS, URL, Plain, tags_in, tags_out, url_of
from s3mount.store.rules import changed

T = TypeVar("T")

# Pages up to this many keys are looked up on the loop: about 10 us per key.
SHORT_PAGE = 32

# Contents up to this many bytes are put on the loop: hashing and writing 128 KiB takes 0.3 ms, and so does a thread under load, at least.
LOOP_BYTES = 128 * KiB

# Threads of each kind. Commits that wait together share one sync of the log, so there may be more of them than processors.
COMMITS = 16
CHANGES = 8
READS = 16
LOOKS = 4
SYNCS = 8


class LocalStore(Plain):
    """*bucket* of *engine*. *durable*: each acknowledged mutation survives a power cut (and waits for the disk)."""

    def __init__(self, engine: Engine, bucket: str, *, durable: bool = False) -> None:
        """Raises NoSuchBucket."""
        engine.require_bucket(bucket)
        self._engine = engine
        self._bucket = bucket
        self._durable = durable
        self.capabilities = replace(EVERYTHING, durable=durable, changes=True)
        self.staging: Path | None = engine.staging
        self._commits = trio.CapacityLimiter(COMMITS)
        self._changes = trio.CapacityLimiter(CHANGES)
        self._reads = trio.CapacityLimiter(READS)
        self._looks = trio.CapacityLimiter(LOOKS)
        self._syncs = trio.CapacityLimiter(SYNCS)
        self._follower: Follower | None = None

    def __repr__(self) -> str:
        return f"<LocalStore {self._bucket!r} in {self._engine.folder}>"

    async def _at_once(self, limiter: trio.CapacityLimiter, call: Callable[..., T], *args: object, **options: object) -> T:
        """A small change: on the loop if nothing stands in its way, else in a thread."""
        call = partial(call, self._bucket, *args, **options)
        if not self._durable:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                with self._engine.lock.in_a_hurry():
                    return call()
            except (WouldWait, NoSpace):
                pass
            except OutcomeUnknown:
                await _in_thread(limiter, self._make_room)
                raise
        return await _in_thread(limiter, partial(self._with_room, call))

    async def _commit(self, call: Callable[..., T], *args: object, **options: object) -> T:
        call = partial(call, self._bucket, *args, durable=self._durable, **options)
        return await _in_thread(self._commits, partial(self._with_room, call))

    async def _change(self, call: Callable[..., T], *args: object, **options: object) -> T:
        call = partial(call, self._bucket, *args, durable=self._durable, **options)
        return await _in_thread(self._changes, partial(self._with_room, call))

    def _with_room(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except NoSpace:
            if not self._make_room():
                raise
        except OutcomeUnknown:
            self._make_room()
            raise
        return call()

    def _make_room(self) -> bool:
        try:
            self._engine.sync()
        except StoreError:
            return False
        return True

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._engine.head(self._bucket, key)

    async def find(self, name: str) -> Found:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._engine.find(self._bucket, name)

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        ask = partial(self._engine.list, self._bucket, prefix, delimiter=delimiter, after=after, limit=min(limit, PAGE_KEYS))
        if limit > SHORT_PAGE:
            return await _in_thread(self._looks, ask)
        await trio.lowlevel.checkpoint_if_cancelled()
        return ask()

    async def aspect(self, key: Key, name: str) -> str | None:
        if name == URL:
            return url_of("local", self._bucket, key)
        if name == TAGS:
            return tags_out(tags_of((await self.head(key)).extra))
        return await super().aspect(key, name)

    async def list_versions(self, prefix: str = "", *, after: VersionPlace | None = None) -> Versions:
        place = Place(after.key, after.version_id or None) if after else Place()
        page = await _in_thread(self._looks, partial(self._engine.version_page, self._bucket, prefix, after=place, limit=PAGE_KEYS))
        entries = tuple(map(_version, page.versions))
        return Versions(entries, VersionPlace(entries[-1].key, entries[-1].version_id) if page.next else None)

    async def head_version(self, key: Key, version_id: str) -> ObjectInfo:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._engine.head_version(self._bucket, key, version_id)

    async def version_aspect(self, key: Key, version_id: str, name: str) -> str | None:
        if name == URL:
            return url_of("local", self._bucket, key)
        if name == TAGS:
            return tags_out(tags_of((await self.head_version(key, version_id)).extra))
        return await super().version_aspect(key, version_id, name)

    # -- reading ----------------------------------------------------------------------

    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo:
        if buffer.nbytes != span.length:
            raise ValueError(f"{span.length} bytes do not fill a buffer of {buffer.nbytes}")
        pin = await self.pin(key, if_match=if_match)
        try:
            if span.stop > pin.info.size:
                raise ValueError(f"bytes {span.start}-{span.stop} do not lie in an object of {pin.info.size} bytes")
            if not pin.get_into_nowait(span.start, buffer):
                await pin.get_into(span.start, buffer)
        finally:
            await pin.aclose()
        return pin.info

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> LocalPin:
        await trio.lowlevel.checkpoint_if_cancelled()
        if_match = known.etag if known else if_match
        reader = self._engine.open_object_nowait(self._bucket, key, if_match=if_match)
        if reader is None:
            reader = await _in_thread(self._reads, partial(self._engine.open_object, self._bucket, key, if_match=if_match))
        return LocalPin(reader, self._reads)

    async def pin_version(self, info: ObjectInfo) -> LocalPin:
        ask = partial(self._engine.open_version, self._bucket, info.key, info.version_id or NULL_VERSION)
        return LocalPin(await _in_thread(self._reads, ask), self._reads)

    # -- committing -------------------------------------------------------------------

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        if len(data) <= LOOP_BYTES:
            return await self._at_once(self._commits, self._engine.put, key, data, _how(commit), durable=self._durable)
        return await self._commit(self._engine.put, key, data, _how(commit))

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        if is_quick_edit(content):
            return await self._at_once(self._commits, self._engine.adopt, key, content, _how(commit), durable=self._durable)
        return await self._commit(self._engine.adopt, key, content, _how(commit))

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        return await self._at_once(
            self._changes, self._engine.update, key, metadata, if_match=if_match, file_id=file_id, durable=self._durable
        )

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        if name != TAGS:
            return await super().set_aspect(key, name, value, if_match=if_match, file_id=file_id)
        tags = tags_in(value)

        def change(info: ObjectInfo) -> bytes | None:
            if info.etag != if_match:
                raise changed(key)
            return with_tags(info.extra, tags)

        return await self._change(self._engine.set_extra, key, change)

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        await self._at_once(self._changes, self._engine.delete, key, if_match=if_match, durable=self._durable, lingers=True)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        failed = await self._change(self._engine.delete_many, keys)
        return [Failure(each.key, each.error) for each in failed]

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        how = None if commit is None else _how(commit)
        return await self._commit(self._engine.copy, source, target, if_match=if_match, how=how, condition=condition)

    # -- names ------------------------------------------------------------------------

    async def rename(self, source: Key, target: Key, *, replace: bool = True) -> None:
        await self._at_once(self._changes, self._engine.rename, source, target, replace=replace, durable=self._durable)

    async def rename_prefix(self, source: str, target: str, *, replace: bool = True) -> int:
        return await self._change(self._engine.rename_prefix, source, target, replace=replace)

    async def exchange(self, a: str, b: str) -> None:
        await self._change(self._engine.exchange, a, b)

    async def link(self, source: Key, target: Key) -> ObjectInfo:
        return await self._at_once(self._changes, self._engine.link, source, target, durable=self._durable)

    async def reserve(self, key: Key) -> None:
        await self._at_once(self._changes, self._engine.reserve, key)

    async def release(self, key: Key) -> None:
        await self._at_once(self._changes, self._engine.release, key)

    # -- others -----------------------------------------------------------------------

    async def changed(self) -> Changed:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._follower is not None and not self._follower.is_behind():
            return Changed()
        return await _in_thread(self._looks, self._changed)

    def _changed(self) -> Changed:
        if self._follower is None:
            self._follower = self._engine.follow(self._bucket)
        return self._follower.changed()

    # -- multipart --------------------------------------------------------------------

    async def create_upload(self, key: Key, commit: Commit = Commit()) -> Upload:  # noqa: B008 (frozen)
        return await self._change(self._engine.create_upload, key, _how(commit))

    async def put_part(self, upload: Upload, number: int, data: bytes | bytearray | memoryview) -> Part:
        return await self._commit(self._engine.put_part, upload, number, data)

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        return await self._commit(self._engine.complete_upload, upload, parts)

    async def abort_upload(self, upload: Upload) -> None:
        await self._change(self._engine.abort_upload, upload)

    async def list_uploads(self) -> Sequence[Upload]:
        return await _in_thread(self._looks, partial(self._engine.uploads, self._bucket))

    # -- the medium -------------------------------------------------------------------

    async def sync(self, key: Key | None = None) -> None:
        await _in_thread(self._syncs, partial(self._engine.sync, self._bucket, key))

    async def space(self) -> Space:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._engine.space()

    async def aclose(self) -> None:
        """Nothing to release: the engine is somebody else's, pins are their holders'."""


class LocalPin:
    """An open version: its reader holds the descriptors that keep it readable."""

    def __init__(self, reader: Reader, limiter: trio.CapacityLimiter) -> None:
        self._reader = reader
        self._limiter = limiter

    @property
    def info(self) -> ObjectInfo:
        return self._reader.info

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        return self._reader.read_into_nowait(offset, buffer)

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        return None

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        await _in_thread(self._limiter, partial(self._reader.read_into, offset, buffer))

    async def aclose(self) -> None:
        self._reader.close()


async def _in_thread(limiter: trio.CapacityLimiter, call: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(call, abandon_on_cancel=False, limiter=limiter)


def _version(info: VersionInfo) -> Version:
    return Version(
        info.key,
        info.version_id,
        latest=info.latest,
        marker=info.marker,
        size=info.size,
        etag=ETag(info.etag),
        mtime_ns=info.mtime_ns,
        storage_class=info.storage_class,
    )


def _how(commit: Commit) -> How:
    return How(
        condition=commit.condition,
        metadata=commit.metadata,
        content_type=commit.content_type,
        storage_class=commit.storage_class,
        commit_id=commit.commit_id,
        file_id=commit.file_id,
        carries=True,
    )

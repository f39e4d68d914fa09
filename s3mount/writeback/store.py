"""WriteBack: a store whose commits are in the journal when they return, and in the store inside before long.

Owns: what each verb of the protocol means for what is pending.
Must not know: how any of it is done (see the modules beside), POSIX, which store is inside.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import trio

from s3mount.errors import NotFound, PreconditionFailed, StoreError
from s3mount.model import (
    Condition,
    Content,
    ETag,
    Kept,
    Key,
    Matches,
    Metadata,
    ObjectInfo,
    Part,
    Staged,
    StagedBytes,
    Upload,
)
from s3mount.store.api import COMMIT_ID, Capabilities, Commit, Failure, ObjectStore, Relocation
from s3mount.store.aspects import without_commit_id
from s3mount.store.rules import DELETE_KEYS, changed, not_found, require_key, require_metadata
from s3mount.writeback.arriving import Arriving
from s3mount.writeback.chains import Entry, judge
from s3mount.writeback.holding import fresh_name
from s3mount.writeback.journal import INLINE_BYTES, Journal
from s3mount.writeback.options import LIMIT
from s3mount.writeback.pending import Listener
from s3mount.writeback.records import Op, Piece, Record, Stored, is_local
from s3mount.writeback.relocating import described, plan, require_apart, require_version
from s3mount.writeback.sender import GATHER_S, SETTLE_S

log = logging.getLogger(__name__)


class WriteBack(Arriving):
    """*inner*, later. Make it with `open`; `aclose` stops sending, what is left stays in the journal."""

    @classmethod
    async def open(
        cls,
        inner: ObjectStore,
        folder: Path,
        *,
        limit: int = LIMIT,
        about: dict[str, str] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> WriteBack:
        """Around *inner*, with the journal in *folder*; what a former mount left there is sent from now on. *limit*: see `Room`.

        Raises Busy where another process does that, NewerFormat, Corrupt, NoSpace, AccessDenied, Unavailable.
        """
        journal = await trio.to_thread.run_sync(lambda: Journal.open(folder, about=about))
        store = cls(inner, journal, limit=limit, clock_ns=clock_ns)
        records = await trio.to_thread.run_sync(journal.records)
        store._sender.start()
        store._pending.restore(records)
        if len(store._pending.chains):
            log.info("%d changes that a former mount left are on their way to the bucket", len(store._pending.chains))
        if store._pending.failed_records:
            log.warning("%d files wait that the bucket has refused: see s3mount pending", store._pending.failed_records)
        return store

    def __repr__(self) -> str:
        return f"<WriteBack {self._pending!r} {self.inner!r}>"

    @property
    def capabilities(self) -> Capabilities:
        return replace(
            self.inner.capabilities,
            atomic_rename=False,
            relocate=True,
            links=False,
            part_copy=True,
            adopt=True,
            reserve=False,
            early_parts=False,
            durable=False,
            deferred=True,
        )

    @property
    def staging(self) -> Path:
        return self._journal.staging

    @property
    def listener(self) -> Listener:
        """Whoever remembers what is shown sets what he wants to be told."""
        return self._pending.listener

    def as_stored(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        """*infos* as the store calls them, up to the first that it has not got."""
        found: list[ObjectInfo] = []
        for info in infos:
            etag: ETag | None = info.etag
            if is_local(info.etag):
                etag = None if self._pending.overlay.is_pending(info.key) else self._pending.overlay.real(info.key, info.etag)
            if etag is None:
                break
            found.append(info if etag == info.etag else replace(info, etag=etag))
        return found

    def check(self) -> None:
        self._pending.check()

    async def aclose(self) -> None:
        """What is left stays in the journal for the next mount. Idempotent."""
        if not self._room.closed:
            self._room.closed = True
            await self._sender.aclose()
            await self._pending.leaving.settle()
            self._pending.moved.unpark_all()
            left = len(self._pending.chains)
            await self._pending.together.call(self._journal.close)
            self._pending.together.close()
            await self.inner.aclose()
            if left:
                log.info("%d changes are not in the bucket yet; they are safe in %s, the next mount sends them", left, self._journal.folder)

    # -- committing -------------------------------------------------------------------

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        size = memoryview(data).nbytes
        if size > INLINE_BYTES:
            source = _Bytes(memoryview(data).cast("B"))
            return await self.adopt(key, Content(size, (Staged(0, size, source, 0),)), commit)
        name = fresh_name()
        pieces = (Stored(0, size, name, 0),) if size else ()
        record = self._record(key, commit, size, pieces)
        async with self._room.held(size):
            return await self._room.patiently(lambda: self._enter(record, {name: bytes(data)} if size else {}))

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        sources = {id(piece.source): piece.source for piece in content.pieces if isinstance(piece, Staged)}
        names = {number: fresh_name() for number in sources}
        pieces: list[Piece] = []
        for piece in content.pieces:
            if isinstance(piece, Staged):
                pieces.append(Stored(piece.offset, piece.length, names[id(piece.source)], piece.position))
            else:
                pieces.append(piece)
        record = self._record(key, commit, content.size, tuple(pieces))
        base = self._translated_base(key, content.base) if record.keeps else None
        judge(key, self._pending.chains.newest(key), record.condition)
        record, wanted = replace(record, base=base), {names[number]: source for number, source in sources.items()}
        async with self._room.held(record.stored_bytes):
            bodies = await self._room.patiently(lambda: trio.to_thread.run_sync(self._take, wanted))
            try:
                return await self._room.patiently(lambda: self._enter(record, bodies))
            except BaseException:
                await self._pending.together.call(self._journal.forget, list(bodies))
                raise

    def _record(self, key: Key, commit: Commit, size: int, pieces: tuple[Piece, ...]) -> Record:
        require_key(key)
        require_metadata({**commit.metadata, COMMIT_ID: commit.commit_id or "0" * 32}, self.inner.capabilities.metadata_bytes)
        return Record(
            key=key,
            op=Op.PUT,
            condition=commit.condition,
            commit_id=commit.commit_id or secrets.token_hex(16),
            size=size,
            pieces=pieces,
            metadata=commit.metadata,
            content_type=commit.content_type,
            storage_class=commit.storage_class,
            former=commit.former.etag if commit.former is not None and commit.former.key == key else "",
        )

    async def _enter(self, record: Record, bodies: dict[str, bytes | int]) -> ObjectInfo:
        async with self._pending.turn(record.key):
            condition = self._translated(record.key, record.condition)
            record = record if condition is record.condition else replace(record, condition=condition)
            return await self._pending.put(record, bodies, due=trio.current_time() + SETTLE_S)

    def _translated(self, key: Key, condition: Condition) -> Condition:
        """*condition* in the store's words where nothing is pending: so the journal need not know what was."""
        if isinstance(condition, Matches) and self._pending.chains.newest(key) is None:
            real = self._pending.overlay.real(key, condition.etag)
            return condition if real is None else Matches(real)
        return condition

    def _translated_base(self, key: Key, base: ObjectInfo | None) -> ObjectInfo | None:
        if base is None or self._pending.chains.newest(key) is not None:
            return base
        return replace(base, etag=self._pending.overlay.real(key, base.etag) or base.etag)

    def _take(self, sources: dict[str, StagedBytes]) -> dict[str, bytes | int]:
        taken: dict[str, bytes | int] = {}
        try:
            for name, source in sources.items():
                taken[name] = self._journal.take(name, source)
            if any(isinstance(held, int) for held in taken.values()):
                self._journal.sync_bodies()
        except BaseException:
            for name in sources:
                self._journal.path_of(name).unlink(missing_ok=True)
            raise
        return taken

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        require_metadata(metadata, self.inner.capabilities.metadata_bytes)
        plain = without_commit_id(metadata)
        while True:
            there = None if self._pending.chains.newest(key) is not None else await self._there(key, if_match)
            async with self._pending.turn(key):
                newest = self._pending.chains.newest(key)
                if newest is not None:
                    return await self._update(newest, plain, if_match)
                if there is not None:
                    record = described(there, plain)
                    return await self._pending.put(record, {}, due=trio.current_time() + SETTLE_S, synced=False)

    async def _there(self, key: Key, etag: ETag | None) -> ObjectInfo:
        """The version *etag* (None: the current one) in the store, as that calls it, with all that it says."""
        known = None if etag is None or is_local(etag) else self._pending.listener.known(key, etag)
        if known is not None and known.metadata is not None:
            return known
        if etag is not None and is_local(etag):
            return await self._real(key, etag)
        info = await self.inner.head(key)
        if etag not in (None, info.etag):
            raise changed(key)
        return info

    async def _update(self, newest: Entry, metadata: Metadata, if_match: ETag | None) -> ObjectInfo:
        """What is pending, otherwise described."""
        key = newest.record.key
        if newest.record.op is Op.DELETE:
            raise not_found(key)
        judge(key, newest, None if if_match is None else Matches(if_match))
        if newest.replaceable:
            return await self._pending.amend(newest, replace(newest.record, metadata=metadata))
        return await self._describe(newest.record, metadata)

    async def _describe(self, former: Record, metadata: Metadata) -> ObjectInfo:
        """Behind *former*, which is being sent: the same bytes with other metadata. A small body is sent again, a large one is not."""
        record = replace(
            former,
            id=0,
            commit_id=secrets.token_hex(16),
            condition=Matches(former.etag),
            metadata=metadata,
            former=former.etag,
            attempts=0,
            reason="",
            error="",
        )
        if former.size > INLINE_BYTES or former.keeps:
            record = replace(record, pieces=(Kept(0, former.size),), base=former.info)
        due = trio.current_time() + SETTLE_S
        try:
            return await self._pending.put(record, {}, due=due)
        except NotFound:  # it arrived meanwhile, and its body is gone
            record = replace(
                record, pieces=(Kept(0, former.size),), base=former.info, condition=self._translated(former.key, record.condition)
            )
            return await self._pending.put(record, {}, due=due)

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        etag = await self._settled(key, if_match)
        assert etag is not None
        info = await self.inner.set_aspect(key, name, value, if_match=etag)
        self._pending.overlay.alias(key, None, None)
        return info

    async def _settled(self, key: Key, etag: ETag | None) -> ETag | None:
        """Once nothing of *key* is pending: *etag* as the store calls it."""
        await self.sync(key)
        return (await self._real(key, etag)).etag if etag is not None and is_local(etag) else etag

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        async with self._pending.turn(key):
            condition = self._translated(key, None if if_match is None else Matches(if_match))
            await self._pending.remove(key, condition, due=trio.current_time() + GATHER_S)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        if len(keys) > DELETE_KEYS:
            raise ValueError(f"{len(keys)} keys in one delete; at most {DELETE_KEYS}")
        failures: list[Failure] = []

        async def delete(key: Key) -> None:
            try:
                await self.delete(key)
            except StoreError as error:
                failures.append(Failure(key, error))

        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(delete, key)
        return failures

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        newest = self._pending.chains.newest(source)
        if newest is not None:
            if newest.record.op is Op.DELETE:
                raise not_found(source)
            judge(source, newest, None if if_match is None else Matches(if_match))
            if not newest.record.keeps:
                try:
                    return await self._copy_pending(newest, target, commit, condition)
                except NotFound:
                    pass  # it arrived meanwhile
        etag = await self._settled(source, if_match)
        await self.sync(target)
        info = await self.inner.copy(source, target, if_match=etag, commit=commit, condition=condition)
        self._pending.overlay.alias(target, None, None)
        return info

    async def _copy_pending(self, entry: Entry, target: Key, commit: Commit | None, condition: Condition) -> ObjectInfo:
        """A second record over the same bodies."""
        former = entry.record
        commit = commit or Commit(
            condition=condition, metadata=former.metadata, content_type=former.content_type, storage_class=former.storage_class
        )
        record = self._record(target, replace(commit, commit_id=commit.commit_id or secrets.token_hex(16)), former.size, former.pieces)
        async with self._pending.turn(target):
            record = replace(record, condition=self._translated(target, record.condition))
            info = await self._pending.put(record, {}, due=max(entry.due, trio.current_time() + SETTLE_S))
            made = self._pending.chains.newest(target)
            if made is not None and made.record.etag == info.etag:
                self._pending.holding.remember(made, entry.data)
            return info

    async def relocate(self, moves: Sequence[Relocation]) -> Sequence[ObjectInfo]:
        require_apart(moves)
        for move in moves:
            require_key(move.target)
        keys = sorted({key for move in moves for key in (move.source.key, move.target)})
        while True:
            stored = await self._stored([move.source for move in moves])
            async with AsyncExitStack() as turns:
                for key in keys:
                    await turns.enter_async_context(self._pending.turn(key))
                now = trio.current_time()
                made = plan(self._pending, moves, stored, due=now + SETTLE_S, gone=now + GATHER_S)
                if not made.before:
                    await self._pending.enter(made.steps, synced=True)
                    return made.infos
            await self.arrival([entry for key in made.before for entry in self._pending.chains.of(key)])

    async def _stored(self, infos: Sequence[ObjectInfo]) -> dict[Key, ObjectInfo]:
        """Those of *infos* that are in the store, as that calls them, with all that it says of them."""
        found: dict[Key, ObjectInfo] = {}
        failures: list[StoreError] = []

        async def look(info: ObjectInfo) -> None:
            try:
                found[info.key] = await self._as_there(info)
            except StoreError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for info in infos:
                if self._pending.chains.newest(info.key) is None:
                    nursery.start_soon(look, info)
        if failures:
            raise failures[0]
        return found

    async def _as_there(self, info: ObjectInfo) -> ObjectInfo:
        if is_local(info.etag):
            real = await self._real(info.key, info.etag)
            return replace(real if info.metadata is None else info, etag=real.etag)
        return info if info.metadata is not None else require_version(await self.inner.head(info.key), info)

    # -- multipart: nobody who commits late needs it ---------------------------------------

    async def create_upload(self, key: Key, commit: Commit = Commit()) -> Upload:  # noqa: B008 (frozen)
        if isinstance(commit.condition, Matches):
            try:
                commit = replace(commit, condition=Matches(await self._settled(key, commit.condition.etag) or commit.condition.etag))
            except (PreconditionFailed, NotFound):
                pass  # judged at completion
        return await self.inner.create_upload(key, commit)

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        await self.sync(upload.key)
        info = await self.inner.complete_upload(upload, parts)
        self._pending.overlay.alias(upload.key, None, None)
        return info


class _Bytes:
    """What `put` was given, as staged bytes."""

    path = None

    def __init__(self, data: memoryview) -> None:
        self.length = len(data)
        self._data = data

    def read_into(self, position: int, buffer: memoryview) -> None:
        buffer[:] = self._data[position : position + len(buffer)]

"""Dealing with one record of a journal: sending its content after all, removing it.

Owns: the order of looking, sending and removing; what is said when somebody else was there first.
Must not know: commands, what is printed.

    retry     look for the commit id (it may have arrived) -- there --> remove the record
                   `-- not there --> commit as it was to be, or over whatever is there --> remove the record
                                          `-- refused: the record stays, with the reason

The journal of what was kept belongs to nobody for longer than a transaction. That of a mount with --write-back is the mount's while it
lives: then it is asked (`decide`); else what it has left is sent as the next one would (`drain`).
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from s3mount.cli.open_store import Stores
from s3mount.cli.pending_items import Item
from s3mount.cli.pending_keeper import INCOMPLETE
from s3mount.cli.pending_places import PendingPlace
from s3mount.errors import AlreadyExists, Busy, NotFound, PreconditionFailed, S3MountError, Stale, StoreError, Unavailable
from s3mount.fs.delivery import deliver, look
from s3mount.model import Content, ETag, Hole, Kept, Key, Matches, ObjectInfo, Piece, Staged
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.wrap.base import Wrapper
from s3mount.writeback.journal import Amend, Journal, Leave
from s3mount.writeback.records import Op, Record, State, Stored, commit_of, is_local
from s3mount.writeback.store import WriteBack

# How long a mount may take to store what it was asked to, before we stop looking.
HEED_S = 30.0
LOOK_AGAIN_S = 0.2

# By which a store says that somebody else was there.
OVERTAKEN = (PreconditionFailed, AlreadyExists, NotFound, Stale)


@dataclass(frozen=True, slots=True)
class Body:
    """A body of a journal, as `model.StagedBytes`."""

    journal: Journal
    name: str
    length: int
    path: Path | None = None

    def read_into(self, position: int, buffer: memoryview) -> None:
        self.journal.read_into(self.name, position, buffer)


# -- retry ------------------------------------------------------------------------------------


async def send(stores: Stores, item: Item, *, overwrite: bool) -> None:
    """Commit a content that nobody will send by himself, and have its record removed. Raises StoreError: then it stays, and says why."""
    place, folder, record = record_of(item)
    if record.error == INCOMPLETE:
        raise Unavailable(f"{record.key!r} lacks bytes that were written but could not be kept; export what there is of it.")
    with _alone(place), Journal.visit(folder) as journal:
        if not any(other.id == record.id for other in journal.records()):
            return
        try:
            store = await stores.open(place.url)
            if await look(store, record.key, record.commit_id) is None:
                await _commit(store, journal, await in_its_words(store, record), overwrite=overwrite)
        except StoreError as error:
            reason = _overtaken(record) if isinstance(error, OVERTAKEN) else error
            _note(journal, record, reason)
            raise reason from error
    await (remove(item) if item.mount is None else decide(item, "discard"))


async def _commit(store: ObjectStore, journal: Journal, record: Record, *, overwrite: bool) -> None:
    commit = Commit(
        condition=None if overwrite or not store.capabilities.conditional_put else record.condition,
        metadata=record.metadata,
        content_type=record.content_type,
        storage_class=record.storage_class,
        commit_id=record.commit_id,
        former=ObjectInfo(record.key, 0, ETag(record.former), 0) if record.former else None,
    )
    if record.op is Op.DELETE:
        await store.delete(record.key)
        return
    content = _content(journal, record)
    await deliver(store, record.key, commit.commit_id, lambda: store.adopt(record.key, content, commit))


async def in_its_words(store: ObjectStore, record: Record) -> Record:
    """*record*, where it speaks of a version by what a mount with --write-back called it, in the store's own words. Raises StoreError."""
    former = ETag(record.former)
    if former and is_local(former):
        info = await look(store, record.key, commit_of(former))
        record = replace(record, former=info.etag if info is not None else "")
    condition, base = record.condition, record.base
    if isinstance(condition, Matches) and is_local(condition.etag):
        info = await _as_there(store, record, record.key, condition.etag)
        condition, base = Matches(info.etag), base and (base if record.reads else replace(info, size=base.size))
    if base is not None and is_local(base.etag):
        base = replace(await _as_there(store, record, base.key, base.etag), size=base.size)
    return replace(record, condition=condition, base=base)


async def _as_there(store: ObjectStore, record: Record, key: Key, etag: ETag) -> ObjectInfo:
    """What *etag*, of a mount with --write-back, has become under *key*."""
    info = await look(store, key, commit_of(etag))
    if info is None:
        raise PreconditionFailed(f"{record.key!r} is an edit of a version that is not in the bucket.")
    return info


def _content(journal: Journal, record: Record) -> Content:
    ends: dict[str, int] = {}
    for piece in record.pieces:
        if isinstance(piece, Stored):
            ends[piece.body] = max(ends.get(piece.body, 0), piece.position + piece.length)
    bodies = {name: Body(journal, name, length) for name, length in ends.items()}

    def staged(piece: Stored | Kept | Hole) -> Piece:
        return Staged(piece.offset, piece.length, bodies[piece.body], piece.position) if isinstance(piece, Stored) else piece

    return Content(record.size, tuple(staged(piece) for piece in record.pieces), record.base if record.keeps else None)


def _overtaken(record: Record) -> StoreError:
    if record.keeps:
        return PreconditionFailed(f"{record.key!r} was replaced by somebody else, and this edit is of the version before; export it.")
    return PreconditionFailed(f"{record.key!r} was changed by somebody else; --overwrite stores this one over it, export saves it.")


def _note(journal: Journal, record: Record, error: StoreError) -> None:
    tried = replace(record, attempts=record.attempts + 1, reason=str(error), error=type(error).__name__)
    try:
        journal.apply([Amend(tried)])
    except S3MountError:
        pass  # the caller is told in any case


@contextmanager
def _alone(place: PendingPlace) -> Iterator[None]:
    """Nobody else retries in *place* meanwhile; what a mount does is no matter. Raises Busy."""
    fd = os.open(place.folder / "retrying", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Busy(f"Another s3mount retry works on {place.url} just now.") from None
    finally:
        os.close(fd)


class Lent(Wrapper):
    """A store that whoever has borrowed it does not close."""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def drain(stores: Stores, item: Item) -> None:
    """Send what a mount with --write-back left behind, as the next one would. Raises Busy where one is there, StoreError."""
    place, _, record = record_of(item)
    with _quiet("s3mount.writeback"):
        store = await WriteBack.open(Lent(await stores.open(place.url)), place.write_back)
        try:
            if record.state is State.FAILED:
                await store.decide("retry", [record.id])
            await store.sync(record.key)
        finally:
            with trio.CancelScope(shield=True):
                await store.aclose()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """What fails is told by the command itself, file by file."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


# -- removing ---------------------------------------------------------------------------------


async def remove(item: Item) -> None:
    """Take the record out of its journal. Raises Busy where somebody else works there."""
    _, folder, record = record_of(item)
    with Journal.open(folder) as journal:
        journal.apply([Leave((record.id,))])


async def decide(item: Item, verb: str) -> None:
    """Have the mount that writes the journal back `retry` or `discard` what the store has refused. Raises Unavailable where it cannot.

    After a retry, that is known only when the store has answered again.
    """
    _, folder, record = record_of(item)
    mount = item.mount
    assert mount is not None
    await trio.to_thread.run_sync(lambda: mount.ask("decide", verb=verb, ids=[record.id]))
    if verb == "discard":
        return
    with Journal.visit(folder) as journal, trio.move_on_after(HEED_S):
        while (now := next((other for other in journal.records() if other.id == record.id), None)) is not None:
            if now.state is State.FAILED:
                raise Unavailable(now.reason)
            await trio.sleep(LOOK_AGAIN_S)
        return
    raise Unavailable("its mount has been asked, and is still at it; s3mount status shows how far it is.")


def record_of(item: Item) -> tuple[PendingPlace, Path, Record]:
    """The place, the folder of the journal and the record of something that lies in one."""
    assert item.place is not None
    assert item.journal is not None
    assert item.record is not None
    return item.place, item.journal, item.record

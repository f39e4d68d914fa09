"""Dealing with one record of a journal: sending its content after all, writing it into a file, removing it.

Owns: the order of looking, sending and removing; what is said when somebody else was there first.
Must not know: commands, what is printed.

    retry     look for the commit id (it may have arrived) -- there --> remove the record
                   `-- not there --> commit as it was to be, or over whatever is there --> remove the record
                                          `-- refused: the record stays, with the reason
    export    new bytes from the journal, the rest from the version that they are an edit of, if that can still be had

The journal of what was kept belongs to nobody for longer than a transaction. That of a mount with --write-back is the mount's while it
lives: then it is asked (`decide`); else what it has left is sent as the next one would (`drain`).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from s3mount.cli.open_store import Stores
from s3mount.cli.output import Progress
from s3mount.cli.pending_items import Item
from s3mount.cli.pending_places import PendingPlace
from s3mount.cli.transfer import write_all
from s3mount.errors import AlreadyExists, Busy, NotFound, PreconditionFailed, S3MountError, Stale, StoreError, Unavailable
from s3mount.fs.attrs import Defaults, decode
from s3mount.fs.delivery import deliver, look
from s3mount.model import Content, Hole, Kept, Matches, MiB, Piece, Staged
from s3mount.store.api import Commit, ObjectStore, Pin
from s3mount.store.wrap.base import Wrapper
from s3mount.writeback.journal import Amend, Journal, Leave
from s3mount.writeback.records import Op, Record, State, Stored, commit_of, is_local
from s3mount.writeback.store import WriteBack

STEP_BYTES = 8 * MiB

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
    place, folder, record = _of(item)
    with _alone(place), Journal.visit(folder) as journal:
        if not any(other.id == record.id for other in journal.records()):
            return
        try:
            store = await stores.open(place.url)
            if await look(store, record.key, record.commit_id) is None:
                await _commit(store, journal, await _called(store, record), overwrite=overwrite)
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
    )
    if record.op is Op.DELETE:
        await store.delete(record.key)
        return
    content = _content(journal, record)
    await deliver(store, record.key, commit.commit_id, lambda: store.adopt(record.key, content, commit))


async def _called(store: ObjectStore, record: Record) -> Record:
    """*record*, where it speaks of a version by what a mount with --write-back called it, in the store's own words. Raises StoreError."""
    wanted = record.condition.etag if isinstance(record.condition, Matches) else record.base.etag if record.base else None
    if wanted is None or not is_local(wanted):
        return record
    info = await look(store, record.key, commit_of(wanted))
    if info is None:
        raise PreconditionFailed(f"{record.key!r} is an edit of a version that is not in the bucket.")
    base = record.base and replace(info, size=record.base.size)
    return replace(record, base=base, condition=Matches(info.etag) if record.condition else None)


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
    place, _, record = _of(item)
    # What fails is told by the command itself, file by file.
    logging.getLogger("s3mount.writeback").setLevel(logging.CRITICAL)
    store = await WriteBack.open(Lent(await stores.open(place.url)), place.write_back)
    try:
        if record.state is State.FAILED:
            await store.decide("retry", [record.id])
        await store.sync(record.key)
    finally:
        with trio.CancelScope(shield=True):
            await store.aclose()


# -- removing ---------------------------------------------------------------------------------


async def remove(item: Item) -> None:
    """Take the record out of its journal. Raises Busy where somebody else works there."""
    _, folder, record = _of(item)
    with Journal.open(folder) as journal:
        journal.apply([Leave((record.id,))])


async def decide(item: Item, verb: str) -> None:
    """Have the mount that writes the journal back `retry` or `discard` what the store has refused. Raises Unavailable where it cannot.

    After a retry, that is known only when the store has answered again.
    """
    _, folder, record = _of(item)
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


# -- export -----------------------------------------------------------------------------------


async def export(stores: Stores, item: Item, path: Path, progress: Progress, *, partial: bool) -> None:
    """Write the content into the new file *path*, whole or not at all; *partial*: with zeros for what cannot be had any more.

    Raises StoreError, FileExistsError and other OSErrors.
    """
    place, folder, record = _of(item)
    with _new_file(path) as fd, Journal.visit(folder) as journal:
        for piece in record.pieces:
            if isinstance(piece, Stored):
                await trio.to_thread.run_sync(_copy_body, journal, piece, fd, progress)
        os.ftruncate(fd, record.size)
        if record.keeps:
            await _fill(stores, place, record, fd, progress, partial=partial)
        _dress(fd, record)


async def _fill(stores: Stores, place: PendingPlace, record: Record, fd: int, progress: Progress, *, partial: bool) -> None:
    kept = [piece for piece in record.pieces if isinstance(piece, Kept)]
    try:
        store = await stores.open(place.url)
        pin = await _base(store, await _called(store, record))
        try:
            for piece in kept:
                await _copy_base(pin, piece, fd, progress)
        finally:
            await pin.aclose()
    except StoreError as error:
        if partial and isinstance(error, OVERTAKEN):
            return
        lacking, whole = sum(piece.length for piece in kept), record.size
        if isinstance(error, OVERTAKEN):
            raise NotFound(
                f"{lacking} of its {whole} bytes were those of a version that is gone; --partial writes zeros for them."
            ) from error
        raise


async def _base(store: ObjectStore, record: Record) -> Pin:
    base = record.base
    assert base is not None
    try:
        pin = await store.pin(base.key, if_match=base.etag)
    except OVERTAKEN:
        if base.version_id is None:
            raise
        return await store.pin_version(base)
    return pin


async def _copy_base(pin: Pin, piece: Kept, fd: int, progress: Progress) -> None:
    buffer = memoryview(bytearray(min(piece.length, STEP_BYTES)))
    for at in range(piece.offset, piece.offset + piece.length, STEP_BYTES):
        part = buffer[: min(STEP_BYTES, piece.offset + piece.length - at)]
        await pin.get_into(at, part)
        write_all(fd, part, at)
        progress(part.nbytes)


def _copy_body(journal: Journal, piece: Stored, fd: int, progress: Progress) -> None:
    buffer = memoryview(bytearray(min(piece.length, STEP_BYTES)))
    for at in range(0, piece.length, STEP_BYTES):
        part = buffer[: min(STEP_BYTES, piece.length - at)]
        journal.read_into(piece.body, piece.position + at, part)
        write_all(fd, part, piece.offset + at)
        progress(part.nbytes)


def _dress(fd: int, record: Record) -> None:
    """Mode and time as the file was to have them."""
    attributes = decode(record.metadata, directory=False, mtime_ns=record.created_ns, defaults=Defaults(0o600, 0o700, 0, 0))
    os.fchmod(fd, attributes.mode & 0o777)
    os.utime(fd, ns=(attributes.atime_ns, attributes.mtime_ns))


@contextmanager
def _new_file(path: Path) -> Iterator[int]:
    """A file that appears at *path* when the block is over, unless something is there."""
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield fd
        os.fsync(fd)
        _give_name(partial, path)
    finally:
        os.close(fd)
        partial.unlink(missing_ok=True)


def _give_name(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        partial.rename(path)


async def export_from_mount(item: Item, path: Path, source: Path, progress: Progress) -> None:
    """Copy what a mount shows as *source*: it has the bytes."""
    with _new_file(path) as fd:
        await trio.to_thread.run_sync(_copy_shown, source, fd, progress)


def _copy_shown(source: Path, fd: int, progress: Progress) -> None:
    shown = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = 0
        while data := os.pread(shown, STEP_BYTES, at):
            at += write_all(fd, memoryview(data), at)
            progress(len(data))
        status = os.fstat(shown)
        os.fchmod(fd, status.st_mode & 0o777)
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        try:
            os.close(shown)
        except OSError:
            pass  # the close tries to store the file, and may fail as before


def _of(item: Item) -> tuple[PendingPlace, Path, Record]:
    assert item.place is not None
    assert item.journal is not None
    assert item.record is not None
    return item.place, item.journal, item.record

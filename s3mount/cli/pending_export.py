"""Writing what could not be stored into a local file.

Owns: where the bytes come from, that a file appears whole or not at all and over nothing.
Must not know: commands, what is printed.

New bytes come from the journal, the rest of an edit from the version that it is an edit of, if that can still be had; what a mount still
holds comes through the mount.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from s3mount.cli.open_store import Stores
from s3mount.cli.output import Progress
from s3mount.cli.pending_items import Item
from s3mount.cli.pending_places import PendingPlace
from s3mount.cli.pending_send import OVERTAKEN, in_its_words, record_of
from s3mount.cli.transfer import write_all
from s3mount.errors import NotFound, StoreError
from s3mount.fs.attrs import Defaults, decode
from s3mount.model import Kept, MiB
from s3mount.store.api import ObjectStore, Pin
from s3mount.writeback.journal import Journal
from s3mount.writeback.records import Record, Stored

STEP_BYTES = 8 * MiB


async def export(stores: Stores, item: Item, path: Path, progress: Progress, *, partial: bool) -> None:
    """Write the content into the new file *path*, whole or not at all; *partial*: with zeros for what cannot be had any more.

    Raises StoreError, FileExistsError and other OSErrors.
    """
    place, folder, record = record_of(item)
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
        pin = await _base(store, await in_its_words(store, record))
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
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
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

"""Fetching what a refused copy is a copy of, before that is replaced.

Owns: how its bytes come into a body of the journal.
Must not know: when that is needed, what becomes of the record.

A file was renamed, something new has taken its old name, and the bucket refuses the copy under the new one: then the only bytes there are
lie under the old name, and what waits there is about to replace them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import trio

from s3mount.model import Kept, Key, MiB, ObjectInfo
from s3mount.store.api import ObjectStore
from s3mount.writeback.bodies import COPY_BYTES
from s3mount.writeback.holding import fresh_name
from s3mount.writeback.journal import Journal
from s3mount.writeback.records import Piece, Record, Stored

STEP_BYTES = 8 * MiB


class Fetched:
    """A file in the staging folder, as staged bytes."""

    def __init__(self, path: Path, length: int) -> None:
        self.path: Path | None = path
        self.length = length

    def read_into(self, position: int, buffer: memoryview) -> None:
        assert self.path is not None
        with open(self.path, "rb", buffering=0) as file:
            while buffer:
                count = os.preadv(file.fileno(), [buffer[:COPY_BYTES]], position)
                if not count:
                    raise EOFError(position)
                buffer, position = buffer[count:], position + count


async def rescued(store: ObjectStore, journal: Journal, record: Record, base: ObjectInfo) -> tuple[Record, dict[str, bytes | int]]:
    """*record* with bytes of its own for what it keeps of *base*, and the body in which they are. Raises StoreErrors, leaving none."""
    name = fresh_name()
    path = journal.staging / name
    pieces: list[Piece] = [
        Stored(piece.offset, piece.length, name, piece.offset) if isinstance(piece, Kept) else piece for piece in record.pieces
    ]
    try:
        for piece in record.pieces:
            if isinstance(piece, Kept):
                await _fetch(store, base, piece, path)
        source = Fetched(path, max(piece.offset + piece.length for piece in record.pieces if isinstance(piece, Kept)))
        held = await trio.to_thread.run_sync(_taken, journal, name, source)
    finally:
        path.unlink(missing_ok=True)
    return replace(record, pieces=tuple(pieces), base=None), {name: held}


def _taken(journal: Journal, name: str, source: Fetched) -> bytes | int:
    try:
        held = journal.take(name, source)
        if isinstance(held, int):
            journal.sync_bodies()
    except BaseException:
        journal.path_of(name).unlink(missing_ok=True)
        raise
    return held


async def _fetch(store: ObjectStore, base: ObjectInfo, piece: Kept, path: Path) -> None:
    pin = await store.pin(Key(base.key), known=base)
    buffer = memoryview(bytearray(min(piece.length, STEP_BYTES)))
    try:
        for offset in range(piece.offset, piece.offset + piece.length, STEP_BYTES):
            part = buffer[: min(STEP_BYTES, piece.offset + piece.length - offset)]
            await pin.get_into(offset, part)
            await trio.to_thread.run_sync(_write, path, offset, part)
    finally:
        await pin.aclose()


def _write(path: Path, offset: int, part: memoryview) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while part:
            count = os.pwrite(fd, part, offset)
            part, offset = part[count:], offset + count
    finally:
        os.close(fd)

"""Snapshots: the state behind one record, from which a replay can begin instead of at record 1.

Owns: their form, writing and reading them.
Must not know: when one is worth making (`compact`), what the rows mean.

A file of frames like a segment's, with numbers and chain of its own from 1 and 0 on:
    first    the position in the log that the state belongs to
    others   records of `Rows` operations, table by table
    last     an empty payload: the snapshot is complete
It is written aside and comes to its name by a rename, synced: a name that ends with .snap is a whole snapshot or damaged later.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack

from s3mount.engine import codec, records, schema
from s3mount.engine.apply import apply
from s3mount.engine.disk import Disk
from s3mount.engine.layout import Layout
from s3mount.engine.search import Search
from s3mount.engine.segment import Position
from s3mount.errors import Corrupt

# Rows per frame: about 100 KiB, so that memory does not grow with the state.
ROWS_PER_FRAME = 500

# What a snapshot is called before it is whole.
ASIDE_SUFFIX = ".snapshot"


class SnapshotWriter:
    """Writes one snapshot aside, in *folder* (whose owner's death makes it a leftover); `publish` gives it its name, `discard` drops it."""

    def __init__(self, layout: Layout, disk: Disk, position: Position, folder: Path) -> None:
        self._layout = layout
        self._disk = disk
        self._position = position
        self._path = folder / f"{position.seq}.{secrets.token_hex(4)}{ASIDE_SUFFIX}"
        self._fd = disk.create(self._path)
        self._offset = 0
        self._seq = 0
        self._chain = 0

    def write_state(self, db: sqlite3.Connection, go_on: Callable[[], None] = lambda: None) -> None:
        """Write all of *db*, a read transaction at the snapshot's position. *go_on* is called now and then and may raise to stop it."""
        at = self._position
        self._append(msgpack.packb((at.segment, at.offset, at.seq, at.chain)))
        for table in schema.LOGGED_TABLES:
            cursor = db.execute(f"SELECT * FROM {table}")  # a name of ours
            while rows := cursor.fetchmany(ROWS_PER_FRAME):
                go_on()
                op = records.Rows(table=table, rows=tuple(tuple(row) for row in rows))
                self._append(records.encode(records.Record(time_ns=0, bodies=(), ops=(op,))))
        self._append(b"")

    def _append(self, payload: bytes) -> None:
        self._seq += 1
        frame = codec.encode(self._seq, mark=0, chain=self._chain, payload=payload)
        self._disk.write_all(self._fd, frame.buffers, self._offset)
        self._offset += frame.length
        self._chain = frame.checksum

    def publish(self) -> None:
        """On return the snapshot survives a power cut. Whatever its records name must have been synced before."""
        self._disk.fsync(self._fd)
        os.close(self._fd)
        self._disk.rename(self._path, self._layout.snapshot(self._position.seq))
        self._disk.fsync_dir(self._layout.log)

    def discard(self) -> None:
        os.close(self._fd)
        self._disk.unlink(self._path)


def newest(layout: Layout) -> int | None:
    """The record behind which the newest snapshot stands; None: there is no snapshot."""
    return max(layout.snapshots(), default=None)


def load(path: Path, db: sqlite3.Connection) -> Position:
    """Fill the empty index *db* from the snapshot, inside the caller's transaction. Raises Corrupt unless it is whole."""
    frames = _frames(path)
    position = Position(*msgpack.unpackb(next(frames)))
    for payload in frames:
        apply(db, records.decode(payload), position.seq, None)
    return position


def position_of(path: Path) -> Position:
    """The position that the snapshot belongs to. Raises Corrupt unless it is whole."""
    frames = _frames(path)
    position = Position(*msgpack.unpackb(next(frames)))
    for _ in frames:
        pass
    return position


def claimed_position(path: Path) -> Position | None:
    """As `position_of`, from the first frame alone; None where that is damaged."""
    try:
        return Position(*msgpack.unpackb(next(_frames(path))))
    except Corrupt:
        return None


def pieces(path: Path) -> Iterator[bytes]:
    """The payloads of all frames that are whole, whatever stands between them; not the first and the last frame of the snapshot."""
    data = path.read_bytes()
    search = Search(data)
    found = search.find(0, seq_from=0)
    while found is not None:
        frame = codec.decode(data, found.at)
        assert frame is not None
        if frame.seq > 1 and frame.payload:
            yield frame.payload
        found = search.find(found.at + frame.length, seq_from=0)


def _frames(path: Path) -> Iterator[bytes]:
    """The payloads, up to the empty last one."""
    chain, seq, at = 0, 0, 0
    with path.open("rb") as file:
        while True:
            frame = _read_frame(file.fileno(), at)
            if frame is None or (frame.seq, frame.chain) != (seq + 1, chain):
                raise Corrupt(
                    f"The snapshot {path} is damaged at byte {at}: what it held of the log's first {int(path.stem)} records is lost."
                )
            if not frame.payload:
                return
            yield frame.payload
            chain, seq, at = frame.checksum, frame.seq, at + frame.length


def _read_frame(fd: int, at: int) -> codec.Frame | None:
    length = codec.frame_length(os.pread(fd, codec.HEADER_BYTES, at))
    if length is None or at + length > os.fstat(fd).st_size:
        return None
    return codec.decode(os.pread(fd, length, at))

"""The journal's SQLite file: its tables, rows as records, its errors as ours.

Owns: the schema and its version, what a column holds, what SQLite and the system say and what that means.
Must not know: what is written when, and why.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from s3mount.errors import FROM_OS, AccessDenied, Busy, Corrupt, NewerFormat, NoSpace, StoreError, Unavailable
from s3mount.model import Key, KiB, MiB
from s3mount.writeback.bodies import sync
from s3mount.writeback.records import (
    Op,
    Record,
    State,
    base_from_text,
    base_to_text,
    condition_from_text,
    condition_to_text,
    metadata_from_text,
    metadata_to_text,
    pieces_from_text,
    pieces_to_text,
)

# 2: `shared` in place of `uses`, which had a row for each body of each record: a fifth of what a close cost here.
FORMAT = 2
NAME = "journal.sqlite"

# Of each change SQLite writes whole pages: with 4 KiB, a close of 30 KB writes 44 KiB to its log (eight pages of bytes, three others) and
# again as much when the log goes into the file, and takes a fifth less of processor than with 16 KiB, which are 190 KiB. (Putting the log
# off to an idle moment halves that and saves nothing: a log that grows is slower to sync than one that is written over.)
PAGE_BYTES = 4 * KiB
# What stays in the file for the changes to come: a program that writes a thousand small files needs as much.
SPARE_BYTES = 32 * MiB
# How long another process of ours may hold the write lock: it writes rows, syncs, and is gone.
BUSY_S = 20.0

SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, op TEXT NOT NULL, state TEXT NOT NULL, condition TEXT NOT NULL,
    commit_id TEXT NOT NULL, size INTEGER NOT NULL, pieces TEXT NOT NULL, base TEXT NOT NULL, metadata TEXT NOT NULL,
    content_type TEXT NOT NULL, storage_class TEXT NOT NULL, former TEXT NOT NULL, created_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL,
    attempts INTEGER NOT NULL, reason TEXT NOT NULL, error TEXT NOT NULL
);
CREATE TABLE bodies (name TEXT PRIMARY KEY, length INTEGER NOT NULL, data BLOB);
"""
# Bodies that several records name: by how many more than one.
SHARED = "CREATE TABLE shared (body TEXT PRIMARY KEY, more INTEGER NOT NULL) WITHOUT ROWID"
COLUMNS = (
    "key, op, state, condition, commit_id, size, pieces, base, metadata, content_type, storage_class, former, created_ns, updated_ns,"
    " attempts, reason, error"
)
ENTER = f"INSERT INTO records ({COLUMNS}) VALUES ({', '.join('?' * 17)})"
AMEND = f"UPDATE records SET {', '.join(f'{name.strip()} = ?' for name in COLUMNS.split(','))} WHERE id = ?"


def record_of(number: int, *row: Any) -> Record:
    key, op, state, condition, commit_id, size, pieces, base, metadata, kind, storage, former, created, updated, attempts, reason, error = (
        row
    )
    return Record(
        id=number,
        key=Key(key),
        op=Op(op),
        state=State(state),
        condition=condition_from_text(condition),
        commit_id=commit_id,
        size=size,
        pieces=pieces_from_text(pieces),
        base=base_from_text(base),
        metadata=metadata_from_text(metadata),
        content_type=kind,
        storage_class=storage,
        former=former,
        created_ns=created,
        updated_ns=updated,
        attempts=attempts,
        reason=reason,
        error=error,
    )


def row_of(record: Record) -> tuple[object, ...]:
    return (
        record.key,
        record.op.value,
        record.state.value,
        condition_to_text(record.condition),
        record.commit_id,
        record.size,
        pieces_to_text(record.pieces),
        base_to_text(record.base),
        metadata_to_text(record.metadata),
        record.content_type,
        record.storage_class,
        record.former,
        record.created_ns,
        record.updated_ns,
        record.attempts,
        record.reason,
        record.error,
    )


def connected(folder: Path) -> sqlite3.Connection:
    path = folder / NAME
    # Only a new one is opened here: closing any descriptor of a file takes the locks of all others of this process away.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    base = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    try:
        (version,) = base.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise NewerFormat(f"A newer version of s3mount wrote the journal in {folder}.")
        if not version:
            base.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            base.execute("PRAGMA auto_vacuum = INCREMENTAL")
        base.execute("PRAGMA journal_mode = WAL")
        if not version:
            base.execute("BEGIN IMMEDIATE")
            if base.execute("PRAGMA user_version").fetchone() == (0,):
                for statement in (*SCHEMA.split(";"), SHARED):
                    base.execute(statement)
                base.execute(f"PRAGMA user_version = {FORMAT}")
            base.execute("COMMIT")
            sync(folder)
            sync(folder.parent)
    except BaseException:
        base.close()
        raise
    return base


def upgrade(base: sqlite3.Connection) -> None:
    """Make a journal of the former format one of this format. For the owner; one transaction. Idempotent."""
    if not is_former(base):
        return
    base.execute("PRAGMA synchronous = FULL")
    base.execute("BEGIN IMMEDIATE")
    try:
        base.execute(SHARED)
        base.execute("INSERT INTO shared SELECT body, count(*) - 1 FROM uses GROUP BY body HAVING count(*) > 1")
        base.execute("DROP TABLE uses")
        base.execute(f"PRAGMA user_version = {FORMAT}")
        base.execute("COMMIT")
    except BaseException:
        if base.in_transaction:
            base.execute("ROLLBACK")
        raise


def is_former(base: sqlite3.Connection) -> bool:
    """Whether nobody has upgraded it yet: a process of the former version may own it."""
    (version,) = base.execute("PRAGMA user_version").fetchone()
    return bool(version < FORMAT)


def say_used(base: sqlite3.Connection, number: int, names: Iterable[str]) -> None:
    """In a journal of the former format: record *number*, which is new, names the bodies *names*, as its owner expects to be told."""
    base.executemany("INSERT INTO uses VALUES (?, ?)", [(number, name) for name in names])


def shrink(base: sqlite3.Connection) -> None:
    """Give the disk back what the file does not need any more, unless that is little. Raises sqlite3.Error, as where others use it."""
    free, pages, page_bytes = (base.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count", "page_size"))
    if free * page_bytes < SPARE_BYTES:
        return
    (kind,) = base.execute("PRAGMA auto_vacuum").fetchone()
    if kind:
        base.executescript("PRAGMA incremental_vacuum")  # execute() would stop at the first page
    elif free * 2 > pages:
        # A journal of a version that did not shrink: written anew once, it can.
        base.execute("PRAGMA auto_vacuum = INCREMENTAL")
        base.execute("VACUUM")
    base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """What SQLite and the system say, as errors of ours."""
    try:
        yield
    except OSError as error:
        kind: type[StoreError] = FROM_OS.get(error.errno or 0, Unavailable)
        raise kind(f"The write-back folder {folder} cannot be used: {error.strerror or error}.") from error
    except sqlite3.Error as error:
        raise _meaning(error)(f"The journal in {folder} cannot be used: {error}.") from error


def _meaning(error: sqlite3.Error) -> type[StoreError]:
    # The lowest byte is the primary result code.
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return NoSpace
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return AccessDenied
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Corrupt
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Busy
        case _:
            return Unavailable

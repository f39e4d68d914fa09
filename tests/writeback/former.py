"""A journal as the former version (format 1) wrote it, by its SQL.

Owns: its schema, and what it entered for a record.
Must not know: how this version writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, op TEXT NOT NULL, state TEXT NOT NULL, condition TEXT NOT NULL,
    commit_id TEXT NOT NULL, size INTEGER NOT NULL, pieces TEXT NOT NULL, base TEXT NOT NULL, metadata TEXT NOT NULL,
    content_type TEXT NOT NULL, storage_class TEXT NOT NULL, former TEXT NOT NULL, created_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL,
    attempts INTEGER NOT NULL, reason TEXT NOT NULL, error TEXT NOT NULL
);
CREATE TABLE bodies (name TEXT PRIMARY KEY, length INTEGER NOT NULL, data BLOB);
CREATE TABLE uses (record INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (record, body)) WITHOUT ROWID;
CREATE INDEX uses_of_body ON uses (body);
PRAGMA user_version = 1;
"""
COLUMNS = (
    "key, op, state, condition, commit_id, size, pieces, base, metadata, content_type, storage_class, former, created_ns, updated_ns,"
    " attempts, reason, error"
)


class Former:
    """The journal in *folder*, and what a process of the former version entered there."""

    def __init__(self, folder: Path) -> None:
        for path in (folder, folder / "bodies", folder / "staging"):
            path.mkdir(mode=0o700, parents=True)
        self._folder = folder
        with self._base() as base:
            base.execute("PRAGMA journal_mode = WAL")
            base.executescript(SCHEMA)

    def _base(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self._folder / "journal.sqlite", isolation_level=None))

    def enter(self, key: str, commit_id: str, pieces: str, size: int, names: Iterable[str], bodies: Mapping[str, bytes | Path]) -> None:
        """A put; *names* of its bodies, of which *bodies* are new: in the journal, or as files."""
        with self._base() as base:
            row = (
                key,
                "put",
                "queued",
                "absent",
                commit_id,
                size,
                pieces,
                "",
                '{"mode": "33188"}',
                "text/plain",
                "STANDARD",
                "",
                5,
                5,
                0,
                "",
                "",
            )
            number = base.execute(f"INSERT INTO records ({COLUMNS}) VALUES ({', '.join('?' * 17)})", row).lastrowid
            for name, data in bodies.items():
                if isinstance(data, Path):
                    data.rename(self._folder / "bodies" / name)
                    base.execute("INSERT INTO bodies VALUES (?, ?, NULL)", (name, size))
                else:
                    base.execute("INSERT INTO bodies VALUES (?, ?, ?)", (name, len(data), data))
            base.executemany("INSERT INTO uses VALUES (?, ?)", [(number, name) for name in names])

    def uses(self) -> list[tuple[int, str]]:
        with self._base() as base:
            return base.execute("SELECT record, body FROM uses ORDER BY record, body").fetchall()

"""Checking: do the invariants of the package hold? Changes nothing.

Owns: one question per invariant, and a sentence per violation.
Must not know: how to mend what it finds (rebuild, scrub, sweep).

I1 is asked by replaying the log, from the snapshot on, into a temporary index, up to where the real one stands, and comparing all
rows. Tables that replay does not give back alike are left out: `dead` and `unsynced` lose rows when bodies are synced and deleted,
which no record says.
Bytes are not compared with their hashes here (`scrub` does that).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import zip_longest

from s3mount.engine import records, schema, snapshot
from s3mount.engine.bodies import digest_of
from s3mount.engine.index import Index
from s3mount.engine.log import Entry, Gap
from s3mount.engine.parts import Parts
from s3mount.engine.replay import apply_entry
from s3mount.engine.segment import BEGINNING, Position
from s3mount.errors import Corrupt

# Violations of one kind that are spelled out.
SPELLED_OUT = 5

# Tables that replay gives back row by row, with the columns that order them.
REPLAYED = {
    "bucket": "id",
    "name": "bucket, key",
    "file": "id",
    "extent": "file, offset",
    "body": "id",
    "history": "bucket, key, rank",
    "upload": "id",
    "part": "upload, number",
}

# What a statement finds violates the invariant; its first column says where.
QUESTIONS = {
    "I2: a name without a file of its bucket": """
        SELECT n.key FROM name n LEFT JOIN file f ON f.id = n.file AND f.bucket = n.bucket WHERE f.id IS NULL""",
    "I2: a name in no bucket": "SELECT n.key FROM name n LEFT JOIN bucket b ON b.id = n.bucket WHERE b.id IS NULL",
    "I2: a file whose links are not its names": """
        SELECT f.id FROM file f WHERE f.id > 0 AND (f.links < 1 OR f.links <> (SELECT count(*) FROM name n WHERE n.file = f.id))""",
    "I3: extents of no file and no part": """
        SELECT DISTINCT e.file FROM extent e
        WHERE NOT EXISTS (SELECT 1 FROM file f WHERE f.id = e.file) AND NOT EXISTS (SELECT 1 FROM part p WHERE p.file = e.file)""",
    "I4: a body whose references are not its extents": """
        SELECT b.id FROM body b LEFT JOIN (SELECT body, count(*) AS uses FROM extent GROUP BY body) e ON e.body = b.id
        WHERE b.refs < 1 OR b.refs <> coalesce(e.uses, 0)""",
    "I4: an extent outside of its body": """
        SELECT e.file FROM extent e LEFT JOIN body b ON b.id = e.body
        WHERE e.body IS NOT NULL AND (b.id IS NULL OR e.body_offset < 0 OR e.body_offset + e.length > b.size)""",
    "I6: a body that is dead and alive": "SELECT d.name FROM dead d JOIN body b ON b.name = d.name",
    "I8: a version in history whose file is not its own": """
        SELECT h.key FROM history h LEFT JOIN file f ON f.id = h.file
        WHERE h.file IS NOT NULL AND (f.id IS NULL OR f.id >= 0 OR f.links <> 1 OR f.bucket <> h.bucket)""",
    "I8: a file of the history that no version names": """
        SELECT f.id FROM file f WHERE f.id < 0 AND (SELECT count(*) FROM history h WHERE h.file = f.id) <> 1""",
    "I9: a part of no upload": "SELECT p.upload FROM part p LEFT JOIN upload u ON u.id = p.upload WHERE u.id IS NULL OR p.file >= 0",
}


class Checker:
    """Checks one folder, beside whoever uses it."""

    def __init__(self, parts: Parts) -> None:
        self._layout = parts.layout
        self._log = parts.log
        self._index = parts.index
        self._bodies = parts.bodies

    def check(self) -> list[str]:
        """One sentence per violation; empty: all is well. Reads the log and the index whole, and looks at every body's file."""
        before = self._files_of_the_log()
        found = self._check()
        if found and self._files_of_the_log() != before:
            found = self._check()
        return found

    def _files_of_the_log(self) -> tuple[list[int], list[int]]:
        """A compaction during a check changes them: then what was found may be its doing."""
        return self._layout.segments()[:1], self._layout.snapshots()

    def _check(self) -> list[str]:
        with self._index.snapshot() as db:
            found = [*self._against_log(db), *_against_itself(db), *_extents_that_do_not_join(db), *self._bodies_without_bytes(db)]
        return found

    # -- I1 ---------------------------------------------------------------------------

    def _against_log(self, db: sqlite3.Connection) -> Iterator[str]:
        replayed = sqlite3.connect("", isolation_level=None)
        try:
            schema.create(replayed)
            replayed.execute("BEGIN")
            brought: dict[str, int] = {}
            yield from self._replay(replayed, Index.position(db), brought)
            yield from self._unlisted(db, brought)
            for table, order in REPLAYED.items():
                yield from _differences(db, replayed, table, order)
        except (Corrupt, FileNotFoundError) as error:
            yield str(error)  # a compaction may have dropped the snapshot: then it is asked again
        finally:
            replayed.close()

    def _replay(self, db: sqlite3.Connection, end: Position, brought: dict[str, int]) -> Iterator[str]:
        """*brought* is filled with the bodies that records behind the last mark brought, and these records."""
        seq = snapshot.newest(self._layout)
        mark = self._log.mark
        start = BEGINNING if seq is None else snapshot.load(self._layout.snapshot(seq), db)
        at = start
        for item in self._log.walk(start):
            if isinstance(item, Gap):
                if item.end.seq < end.seq:
                    yield f"The log is damaged in segment {item.end.segment} at byte {item.end.offset}: {item.lost} cannot be read."
                continue
            if item.position.seq > end.seq:
                break
            apply_entry(db, item)
            at = item.position
            mark = max(mark, item.mark)
            brought.update(_named(item))
        for name in [name for name, seq in brought.items() if seq <= mark]:
            del brought[name]
        if at != end:
            yield f"I1: the index stands at record {end.seq}, the log gives record {at.seq} there."

    def _unlisted(self, db: sqlite3.Connection, brought: dict[str, int]) -> Iterator[str]:
        for name, seq in brought.items():
            alive = db.execute("SELECT 1 FROM body WHERE digest = ? AND name = ?", (bytes.fromhex(digest_of(name)), name)).fetchone()
            if alive and not db.execute("SELECT 1 FROM unsynced WHERE name = ?", (name,)).fetchone():
                yield f"I7: the body {name} of record {seq} may not be synced and is not listed."

    # -- I5, I6 -----------------------------------------------------------------------

    def _bodies_without_bytes(self, db: sqlite3.Connection) -> Iterator[str]:
        for name, size in db.execute("SELECT name, size FROM body WHERE name IS NOT NULL"):
            found = self._size(name)
            if found != size and self._is_still("SELECT 1 FROM body WHERE name = ?", name):
                yield (
                    f"I5: the body {name} has {found} bytes instead of {size}."
                    if found is not None
                    else f"I5: the body {name} has no file."
                )
        for name, seq in db.execute("SELECT name, seq FROM dead"):
            if self._size(name) is None and self._synced() < seq and self._is_still("SELECT 1 FROM dead WHERE name = ?", name):
                yield f"I6: the body {name}, dead since record {seq}, was deleted before a mark covered that."
        for segment, end in db.execute(
            "SELECT segment, max(offset + size) FROM body WHERE segment IS NOT NULL GROUP BY segment"
        ).fetchall():
            path = self._layout.segment(segment)
            if not path.exists() or path.stat().st_size < end:
                yield f"I5: the log's segment {segment} lacks inline bodies up to byte {end}."

    def _synced(self) -> int:
        """The highest record that a mark or a snapshot covers."""
        return max(self._log.newest_mark(), snapshot.newest(self._layout) or 0)

    def _size(self, name: str) -> int | None:
        try:
            return self._bodies.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def _is_still(self, question: str, name: str) -> bool:
        """Asked of the latest state: the one that is being checked may be over."""
        with self._index.read() as db:
            return db.execute(question, (name,)).fetchone() is not None


def _named(entry: Entry) -> dict[str, int]:
    """The body files that a record brings."""
    return {body.name: entry.position.seq for body in records.decode(entry.payload).bodies if body.name} if entry.payload else {}


def _against_itself(db: sqlite3.Connection) -> Iterator[str]:
    for question, statement in QUESTIONS.items():
        rows = db.execute(statement).fetchmany(SPELLED_OUT + 1)
        for where, *_ in rows[:SPELLED_OUT]:
            yield f"{question}: {_shown(where)}."
        if len(rows) > SPELLED_OUT:
            yield f"{question}: and more."


def _shown(where: object) -> str:
    return repr(where.decode(errors="replace")) if isinstance(where, bytes) else str(where)


def _extents_that_do_not_join(db: sqlite3.Connection) -> Iterator[str]:
    """I3. Every content is walked once, in order."""
    wanted = dict(db.execute("SELECT id, size FROM file UNION ALL SELECT file, size FROM part").fetchall())
    ends: dict[int, int] = {}
    for file, offset, length in db.execute("SELECT file, offset, length FROM extent ORDER BY file, offset"):
        if offset != ends.get(file, 0) or length <= 0:
            yield f"I3: the extents of {file} do not join at {offset}."
        ends[file] = offset + length
    for file, size in wanted.items():
        if ends.get(file, 0) != size:
            yield f"I3: the extents of {file} end at {ends.get(file, 0)}, its size is {size}."


def _differences(db: sqlite3.Connection, replayed: sqlite3.Connection, table: str, order: str) -> Iterator[str]:
    statement = f"SELECT * FROM {table} ORDER BY {order}"
    for ours, theirs in zip_longest(db.execute(statement), replayed.execute(statement)):
        if ours != theirs:
            yield f"I1: table {table}: the index has {ours}, replaying the log gives {theirs}."
            return

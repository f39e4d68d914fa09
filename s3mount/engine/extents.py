"""File contents in the index: extent rows, and how often each body is referred to.

Owns: the tables extent, body, dead and unsynced while a record is applied.
Must not know: names, buckets, versions.

One `Extents` serves one record. It gathers by how much the references of each body change and settles that once, at the end: a body
that loses its last extent and gains another within the record stays alive, and one that nobody refers to in the end dies (I4).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from s3mount.engine.records import NewBody, Piece, made_id

# Where an inline body lies: segment, offset. None for a body with a file.
Place = tuple[int, int] | None

_INSERT = "INSERT INTO extent (file, offset, length, body, body_offset) VALUES (?, ?, ?, ?, ?)"
# From the extent that reaches into the range (the last one to begin at or before it) to the last that begins in it.
_TOUCHED = """
    SELECT offset, length, body, body_offset FROM extent
    WHERE file = ?1 AND offset < ?3 AND offset >= coalesce((SELECT max(offset) FROM extent WHERE file = ?1 AND offset <= ?2), 0)
    ORDER BY offset
"""


class Extents:
    """The contents that one record changes. `settle` ends it."""

    def __init__(self, db: sqlite3.Connection, seq: int, bodies: Sequence[NewBody], places: Sequence[Place]) -> None:
        self._db = db
        self._seq = seq
        self._bodies = bodies
        self._places = list(places)
        self._change = {made_id(seq, number): 0 for number in range(len(bodies))}

    def holds(self, body: int) -> bool:
        return self._db.execute("SELECT 1 FROM body WHERE id = ?", (body,)).fetchone() is not None

    # -- one file's content -----------------------------------------------------------

    def clear(self, file: int) -> None:
        """Drop all of it."""
        rows = self._db.execute("SELECT body FROM extent WHERE file = ?", (file,)).fetchall()
        if not rows:
            return
        self._db.execute("DELETE FROM extent WHERE file = ?", (file,))
        for (body,) in rows:
            self._refer(body, -1)

    def copy(self, source: int, target: int) -> None:
        """Give *target*, which has none, the content of *source*."""
        self._db.execute(
            "INSERT INTO extent (file, offset, length, body, body_offset) "
            "SELECT ?, offset, length, body, body_offset FROM extent WHERE file = ?",
            (target, source),
        )
        self._db.execute(
            "INSERT OR IGNORE INTO unsynced (name, file, seq) SELECT name, ?, seq FROM unsynced WHERE file = ?", (target, source)
        )
        for body, count in self._db.execute("SELECT body, count(*) FROM extent WHERE file = ? GROUP BY body", (source,)).fetchall():
            self._refer(body, count)

    def move(self, source: int, target: int, shift: int = 0) -> None:
        """Hand the content of *source* over to *target*, *shift* bytes further on."""
        self._db.execute("UPDATE extent SET file = ?, offset = offset + ? WHERE file = ?", (target, shift, source))
        self._db.execute("UPDATE OR REPLACE unsynced SET file = ? WHERE file = ?", (target, source))

    def fill(self, file: int, pieces: Iterable[Piece]) -> None:
        """Lay *pieces* where *file* has nothing."""
        for offset, length, body, body_offset in pieces:
            number = None if body is None else made_id(self._seq, -1 - body) if body < 0 else body
            self._db.execute(_INSERT, (file, offset, length, number, body_offset))
            self._refer(number, 1)
            if body is not None:
                self._note_unsynced(file, body)

    def splice(self, file: int, pieces: Sequence[Piece], old_size: int, size: int) -> None:
        """Lay *pieces* over the content, which has *old_size* bytes and is cut or grown to *size*."""
        if size < old_size:
            self._cut(file, size, old_size)
        for piece in pieces:
            self._cut(file, piece[0], piece[0] + piece[1])
        self.fill(file, pieces)
        if old_size < size:
            self._fill_gaps(file, old_size, size)

    def _fill_gaps(self, file: int, start: int, stop: int) -> None:
        """What no extent covers between *start* and *stop* is a hole."""
        at = start
        for offset, length, _, _ in [*self._db.execute(_TOUCHED, (file, start, stop)).fetchall(), (stop, 0, None, 0)]:
            if at < offset:
                self._db.execute(_INSERT, (file, at, offset - at, None, 0))
            at = max(at, offset + length)

    def _cut(self, file: int, start: int, stop: int) -> None:
        """Leave nothing between *start* and *stop*."""
        for offset, length, body, body_offset in self._db.execute(_TOUCHED, (file, start, stop)).fetchall():
            end = offset + length
            if end <= start:
                continue
            self._db.execute("DELETE FROM extent WHERE file = ? AND offset = ?", (file, offset))
            self._refer(body, -1)
            for left, right in ((offset, start), (stop, end)):
                if left < right:
                    place = 0 if body is None else body_offset + left - offset
                    self._db.execute(_INSERT, (file, left, right - left, body, place))
                    self._refer(body, 1)

    # -- bodies -----------------------------------------------------------------------

    def _refer(self, body: int | None, count: int) -> None:
        if body is not None:
            self._change[body] = self._change.get(body, 0) + count

    def _note_unsynced(self, file: int, body: int) -> None:
        if body >= 0:
            self._db.execute(
                "INSERT OR IGNORE INTO unsynced (name, file, seq) "
                "SELECT name, ?, seq FROM unsynced WHERE name = (SELECT name FROM body WHERE id = ?) LIMIT 1",
                (file, body),
            )
        elif self._bodies[-1 - body].name:
            self._db.execute("INSERT OR IGNORE INTO unsynced VALUES (?, ?, ?)", (self._bodies[-1 - body].name, file, self._seq))

    def relocate(self, body: int, number: int) -> None:
        """The bytes of the inline body *body* are those of this record's new body *number* from now on."""
        place = self._places[number]
        if place is not None:
            self._db.execute("UPDATE body SET segment = ?, offset = ? WHERE id = ? AND name IS NULL", (*place, body))

    def settle(self) -> None:
        """Write the new counts of references; what has none left dies."""
        for body, change in self._change.items():
            number = body - made_id(self._seq, 0)
            if 0 <= number < len(self._bodies):
                self._settle_new(body, number, change)
            elif change:
                self._settle_old(body, change)

    def _settle_new(self, body: int, number: int, refs: int) -> None:
        new = self._bodies[number]
        if not refs:
            self._bury(new.name, new.size)
            return
        segment, offset = self._places[number] or (None, None)
        self._db.execute(
            "INSERT INTO body (id, digest, size, refs, name, segment, offset) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (body, new.digest, new.size, refs, new.name or None, segment, offset),
        )

    def _settle_old(self, body: int, change: int) -> None:
        if change < 0:
            dying = self._db.execute("SELECT name, size FROM body WHERE id = ? AND refs <= ?", (body, -change)).fetchone()
            if dying is not None:
                self._db.execute("DELETE FROM body WHERE id = ?", (body,))
                self._bury(*dying)
                return
        self._db.execute("UPDATE body SET refs = refs + ? WHERE id = ?", (change, body))

    def _bury(self, name: str | None, size: int) -> None:
        if name:
            self._db.execute("INSERT OR IGNORE INTO dead (name, size, seq) VALUES (?, ?, ?)", (name, size, self._seq))

"""Rebuilding on demand: the index from the log, and what can be saved when the log is damaged.

Owns: salvage: what is kept, what is lost, and leaving a folder that is sound.
Must not know: how a rebuild at open goes (`recovery` does both the usual way).

A rebuild replays the log; where that is damaged it changes nothing and says so. A salvage then takes the state from wherever it is whole:

    the index, if it is usable, else what is whole of the snapshot, else nothing
    -> every record behind it that can be read, gaps passed over
    -> rows that lack what they stand on are removed (`TIDY`), their objects named as lost
    -> bodies that nothing names any more go to quarantine, where no sweeper takes them
    -> a snapshot of the result: from here on the log is whole
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s3mount.engine import records, snapshot
from s3mount.engine.apply import apply
from s3mount.engine.bodies import Bodies
from s3mount.engine.disk import Disk
from s3mount.engine.index import Index
from s3mount.engine.layout import Layout, prepare
from s3mount.engine.lock import WriteLock
from s3mount.engine.log import Entry, Gap, Log
from s3mount.engine.recovery import discard_index, fresh_index, make_index, note_clean, require_alone, settle, usable_index
from s3mount.engine.replay import Progress, apply_entry
from s3mount.engine.segment import BEGINNING, Position
from s3mount.errors import Corrupt

# Operations that are about no bucket, or make or unmake one.
NO_BUCKET = (
    records.MakeBucket,
    records.DropBucket,
    records.SetMetadata,
    records.SetExtra,
    records.PutPart,
    records.Complete,
    records.EndUpload,
    records.Move,
    records.Rows,
)

# Lost objects that are named one by one.
NAMED_OBJECTS = 100

# Contents that are not whole: extents that do not join, lie in no body, or end before the size.
BROKEN = """
    SELECT f.id FROM (SELECT id, size FROM file UNION ALL SELECT file, size FROM part) f
    WHERE f.size <> (SELECT coalesce(sum(e.length), 0) FROM extent e LEFT JOIN body b ON b.id = e.body
                     WHERE e.file = f.id AND (e.body IS NULL OR e.body_offset + e.length <= b.size))
"""

# Buckets whose making was lost are called so, and their number.
SALVAGED = "salvaged-"

# Each statement removes or mends what lacks its ground; in this order nothing is left that lacks any.
TIDY = (
    f"INSERT OR IGNORE INTO bucket SELECT DISTINCT bucket, '{SALVAGED}' || bucket, 0, 'off' FROM name",
    "DELETE FROM name WHERE NOT EXISTS (SELECT 1 FROM file f WHERE f.id = name.file AND f.bucket = name.bucket)",
    "DELETE FROM history WHERE file IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM file f WHERE f.id = history.file AND f.bucket = history.bucket)",
    "DELETE FROM part WHERE NOT EXISTS (SELECT 1 FROM upload u WHERE u.id = part.upload)",
    "UPDATE file SET links = "
    "(SELECT count(*) FROM name n WHERE n.file = file.id) + (SELECT count(*) FROM history h WHERE h.file = file.id)",
    "DELETE FROM file WHERE links = 0",
    "DELETE FROM extent WHERE NOT EXISTS (SELECT 1 FROM file f WHERE f.id = extent.file) "
    "AND NOT EXISTS (SELECT 1 FROM part p WHERE p.file = extent.file)",
    "UPDATE body SET refs = (SELECT count(*) FROM extent e WHERE e.body = body.id)",
    "DELETE FROM body WHERE refs = 0",
    "DELETE FROM dead WHERE name IN (SELECT name FROM body WHERE name IS NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """How many records the log has, and what of it is lost (sentences; empty: nothing)."""

    records: int
    lost: tuple[str, ...] = ()


def rebuild(folder: Path, *, salvage: bool = False, disk: Disk | None = None, progress: Progress | None = None) -> RebuildReport:
    """Make the index of *folder* anew from the log. *progress* is told bytes.

    With *salvage*, what cannot be read is left out, with whatever builds on it, instead of raising Corrupt (then nothing was changed).
    Raises Busy while other processes use the folder, NotFound, NewerFormat.
    """
    disk = disk or Disk()
    layout = prepare(folder, disk, create=False)
    lock = WriteLock(layout.lock)
    try:
        with lock:
            require_alone(layout)
            return _rebuild(layout, disk, salvage=salvage, progress=progress)
    finally:
        lock.close()


def _rebuild(layout: Layout, disk: Disk, *, salvage: bool, progress: Progress | None) -> RebuildReport:
    lost = _without_voids(layout, disk) if salvage else []
    journal = Log(layout, disk)
    try:
        settle(layout, disk, journal)
        index = make_index(layout, disk, journal, progress)
        with index.read() as db:
            report = RebuildReport(records=Index.position(db).seq, lost=tuple(lost))
        index.close()
    except Corrupt:
        if not salvage:
            raise
        report = _Salvage(layout, disk, journal, lost).run()
    finally:
        journal.close()
    note_clean(layout)
    return report


def _without_voids(layout: Layout, disk: Disk) -> list[str]:
    """Put a damaged list of void records aside; what that costs."""
    try:
        json.loads(layout.voids.read_text())
    except FileNotFoundError:
        return []
    except ValueError:
        disk.rename(layout.voids, layout.quarantine / f"voids-{secrets.token_hex(4)}")
        return ["Which records a power cut made unusable: what they changed may show again, with bodies missing."]
    return []


class _Salvage:
    """One salvage, alone in the folder and under the write lock."""

    def __init__(self, layout: Layout, disk: Disk, journal: Log, lost: list[str]) -> None:
        self._layout = layout
        self._disk = disk
        self._journal = journal
        self._bodies = Bodies(layout, disk, layout.staging)
        self._lost = lost

    def run(self) -> RebuildReport:
        index = usable_index(self._layout, self._journal, examine=True)
        if index is None:
            self._from_the_snapshot()
            index = Index(self._layout.index)
        try:
            with index.write() as db:
                at = self._follow(db)
                if self._lost:
                    self._lost += _tidied(db)
                Index.set_position(db, at)
            self._seal(index, at)
        finally:
            index.close()
        return RebuildReport(records=at.seq, lost=tuple(self._lost))

    # -- the state --------------------------------------------------------------------

    def _from_the_snapshot(self) -> None:
        index = fresh_index(self._layout, self._disk)
        try:
            seq = snapshot.newest(self._layout)
            if seq is not None:
                with index.write() as db:
                    Index.set_position(db, self._load(self._layout.snapshot(seq), seq, db))
        finally:
            index.close()
        discard_index(self._layout, self._disk)
        self._disk.rename(self._layout.new_index, self._layout.index)

    def _load(self, path: Path, seq: int, db: sqlite3.Connection) -> Position:
        """All of the snapshot that is whole; the position to go on from."""
        try:
            position = snapshot.position_of(path)
        except Corrupt as error:
            self._lost.append(str(error))
            start = self._journal.start_of(seq + 1)
            position = Position(start.segment, start.offset, seq, start.chain)
        for payload in snapshot.pieces(path):
            apply(db, records.decode(payload), seq, None)
        return position

    def _follow(self, db: sqlite3.Connection) -> Position:
        """Apply every record behind the state that can be read; where the last one ends."""
        at = state = Index.position(db)
        for item in self._walk(state):
            if isinstance(item, Gap):
                self._lost.append(f"In segment {item.end.segment} of the log, from byte {item.end.offset} on: {item.lost}.")
                if item.resume is None:
                    self._journal.cut(item.end)
            elif item.position.seq > state.seq:
                _make_buckets(db, item)
                apply_entry(db, item)
                at = item.position
        return at

    def _walk(self, state: Position) -> Iterator[Entry | Gap]:
        """From *state* on; from its segment's beginning, where it does not name the end of a record."""
        exact = state == BEGINNING or self._journal.holds(state)
        start = state if exact else self._journal.start_of(state.seq + 1)
        for item in self._journal.walk(start):
            known = item.resume if isinstance(item, Gap) else None
            if known is None or known.seq > state.seq or exact:
                yield item

    # -- the end ----------------------------------------------------------------------

    def _seal(self, index: Index, at: Position) -> None:
        """Make the state durable as a snapshot, behind the damage; first whatever it names."""
        with index.snapshot() as db:
            for (name,) in db.execute("SELECT DISTINCT name FROM unsynced").fetchall():
                self._bodies.sync(name)
            if self._lost:
                self._set_aside_orphans(db)
            writer = snapshot.SnapshotWriter(self._layout, self._disk, at, self._layout.log)
            writer.write_state(db)
        for _ in self._journal.scan(at):
            raise AssertionError("the log goes on behind what was salvaged")
        self._journal.sync()
        writer.publish()

    def _set_aside_orphans(self, db: sqlite3.Connection) -> None:
        known = {name for (name,) in db.execute("SELECT name FROM body WHERE name IS NOT NULL UNION ALL SELECT name FROM dead")}
        for path in self._bodies.files():
            if path.name not in known:
                self._disk.rename(path, self._layout.quarantine / path.name)


def _make_buckets(db: sqlite3.Connection, entry: Entry) -> None:
    """Where the record that made a bucket is lost, what was put into it need not be."""
    ops = records.decode(entry.payload).ops if entry.payload else ()
    for bucket in {op.bucket for op in ops if not isinstance(op, NO_BUCKET)}:
        db.execute("INSERT OR IGNORE INTO bucket VALUES (?, ?, 0, 'off')", (bucket, f"{SALVAGED}{bucket}"))


def _tidied(db: sqlite3.Connection) -> list[str]:
    """Remove what lacks its ground; the objects that costs, as sentences."""
    db.execute(f"CREATE TEMP TABLE broken AS {BROKEN}")
    names = db.execute(
        "SELECT b.name, n.key FROM name n LEFT JOIN bucket b ON b.id = n.bucket LEFT JOIN file f ON f.id = n.file "
        "WHERE f.id IS NULL OR n.file IN (SELECT id FROM broken) ORDER BY 1, 2"
    ).fetchall()
    for table, column in (("extent", "file"), ("part", "file"), ("file", "id")):
        db.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT id FROM broken)")
    db.execute("DROP TABLE broken")
    for statement in TIDY:
        db.execute(statement)
    lost = [f"The object '{bucket}/{key.decode(errors='replace')}' is lost." for bucket, key in names[:NAMED_OBJECTS]]
    return lost if len(names) <= NAMED_OBJECTS else [*lost, f"{len(names) - NAMED_OBJECTS} more objects are lost."]

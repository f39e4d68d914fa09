"""A new index beside the living one, put in its place while everybody goes on.

Owns: replaying into a database aside, and the swap.
Must not know: what rows mean, why somebody doubts the index.

    aside     replay the newest snapshot and the log into a database of its own; no lock, readers and writers go on
    lock      bring both indexes to the log's end
    swap      in one transaction of the living index, put the new rows in the place of all the old ones

Other processes see the swap as they see any commit. The file stays the same, so nobody has to open anything again; what belongs to this
index alone (leases, reservations) stays. Compaction waits meanwhile, since it drops what is being replayed. Interrupted anywhere, the
living index is as it was, and what is aside goes with its owner's folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path

from s3mount.engine.index import Index
from s3mount.engine.lock import turn
from s3mount.engine.log import Damaged, Entry, Gap
from s3mount.engine.parts import Parts
from s3mount.engine.recovery import load_snapshot
from s3mount.engine.replay import CHUNK_RECORDS, apply_entry, catch_up, forget_synced
from s3mount.engine.schema import LOGGED_TABLES
from s3mount.engine.segment import Position
from s3mount.errors import Busy, Corrupt

ASIDE = "index.new"


class Reindexer:
    """Makes one folder's index anew. Safe beside any number of processes that use it."""

    def __init__(self, parts: Parts) -> None:
        self._layout = parts.layout
        self._lock = parts.lock
        self._log = parts.log
        self._index = parts.index
        self._path = parts.owner.folder / ASIDE

    def reindex(self, beside: Callable[[], object] = lambda: None) -> int:
        """The record that the new index stands at. *beside* is called once before the lock is taken.

        Raises Damaged (the log cannot be followed), Busy (another thread of ours is at it), NoSpace, Unavailable: nothing is changed then.
        """
        with turn(self._layout.compacting, wait=True):
            if self._path.exists():
                raise Busy("The index is being made anew already.")
            try:
                return self._reindex(beside)
            finally:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def _reindex(self, beside: Callable[[], object]) -> int:
        fresh = Index(self._path)
        try:
            at = self._replay(fresh, load_snapshot(self._layout, fresh))
            beside()
            with self._lock:
                return self._swap(fresh, at)
        finally:
            fresh.close()

    def _replay(self, fresh: Index, at: Position) -> Position:
        """Follow the log from *at* up to the first thing that is no record: the end, a record that is just being written, or damage."""
        walk = self._log.walk(at)
        going_on = True
        while going_on:
            with fresh.write() as db:
                at, going_on = _follow(walk, db, at)
                Index.set_position(db, at)
            if fresh.is_checkpoint_due():
                fresh.checkpoint()
        return at

    def _swap(self, fresh: Index, at: Position) -> int:
        with self._index.write() as db:
            catch_up(self._log, db)
        at = self._replay(fresh, at)
        if at != self._log.end():
            raise Damaged(Gap(at, self._log.end()))
        with fresh.write() as db:
            forget_synced(db, self._log.mark)
        fresh.close()
        _replace(self._index, self._path, at)
        return at.seq


def _follow(walk: Generator[Entry | Gap, None, Position], db: sqlite3.Connection, at: Position) -> tuple[Position, bool]:
    """Apply the next `CHUNK_RECORDS`; where that leads, and whether there may be more."""
    for _ in range(CHUNK_RECORDS):
        try:
            item = next(walk)
        except StopIteration as end:
            return end.value, False
        if isinstance(item, Gap):
            return item.end, False
        apply_entry(db, item)
        at = item.position
    return at, True


def _replace(index: Index, source: Path, reached: Position) -> None:
    index.writer.execute("ATTACH DATABASE ? AS fresh", (str(source),))
    try:
        with index.write() as db:
            for table in LOGGED_TABLES:
                _take_over(db, table)
            Index.set_position(db, reached)
    finally:
        index.writer.execute("DETACH DATABASE fresh")


def _take_over(db: sqlite3.Connection, table: str) -> None:
    db.execute(f"DELETE FROM main.{table}")
    db.execute(f"INSERT INTO main.{table} SELECT * FROM fresh.{table}")
    (before,) = db.execute(f"SELECT count(*) FROM fresh.{table}").fetchone()
    (after,) = db.execute(f"SELECT count(*) FROM main.{table}").fetchone()
    if before != after:
        raise Corrupt(f"The index's table {table} could not be made anew.")

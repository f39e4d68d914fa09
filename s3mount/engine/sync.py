"""Durability: what must be synced before it is acknowledged, marks, and the end of dead bodies.

Owns: the order of syncs, when a mark is made, the deletion of bodies whose death is durable.
Must not know: operations.

D1  A durable commit is acknowledged when its bodies (bytes, then names) and the log up to its record are synced. Bytes of its own bodies
    are synced before the record is appended, outside of the lock; the rest after, outside of the lock as well.
D2  A mark N says: the log up to record N is synced, and so is every body that these records name. It rides in every later record (`codec`).
D3  A body is deleted only when a mark behind its death is itself synced: until then a power cut may bring back the version that needs it.
D4  A failed sync fails the engine for writing (`log`, L5): the kernel has dropped the pages, and a second fsync would lie.

A body is in the table `unsynced` from the record that brings it until a mark covers that. What this process has synced since is
remembered here, so that it is synced once.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from s3mount.engine.bodies import Bodies
from s3mount.engine.index import Index
from s3mount.engine.lock import WriteLock
from s3mount.engine.log import Log
from s3mount.engine.replay import catch_up, forget_synced

log = logging.getLogger(__name__)

# Durable commits between marks: a power cut makes the next open read so many bodies again, at most.
COMMITS_PER_MARK = 256

# Dead bodies deleted between two short holds of the write lock.
DEAD_AT_ONCE = 500

# No record has this number.
NEVER = -1


class Sync:
    """Syncs for one engine. Thread-safe; none of it may be called with the write lock held."""

    def __init__(self, lock: WriteLock, log: Log, index: Index, bodies: Bodies) -> None:
        self._lock = lock
        self._log = log
        self._index = index
        self._bodies = bodies
        self._mutex = threading.Lock()
        self._marking = threading.Lock()
        self._synced: set[str] = set()
        self._commits = 0
        self._durable_mark = 0
        self._quiet_at = NEVER

    def commit(self, names: Iterable[str] = (), *, commits: int = 1) -> None:
        """Make *commits* durable whose own bodies *names* have their bytes synced already. Raises Unavailable, NoSpace."""
        fresh = list(names)
        if fresh:
            with self._failing():
                self._bodies.sync_names(fresh)
            self._remember(fresh)
        self._log.sync()
        self._mark_when_due(commits)

    def file(self, file_id: int) -> None:
        """Make everything committed to this file durable, by whomever; 0: what was removed. Raises Unavailable, NoSpace."""
        with self._index.read() as db:
            end = Index.position(db)
            names = _names(db.execute("SELECT name FROM unsynced WHERE file = ?", (file_id,)))
        self._sync_bodies(names)
        self._log.sync(end)
        self._mark_when_due()

    def all(self) -> None:
        """Make everything durable that was committed before, mark it, and delete what died before it. Raises Unavailable, NoSpace."""
        with self._marking:
            seq, names = self._pending()
            if seq != self._quiet_at:
                self._sync_bodies(names)
                self._log.sync()
                self._mark(seq, names)
            self._bury()

    # -- bodies -----------------------------------------------------------------------

    def _pending(self) -> tuple[int, list[str]]:
        """The last record, and which bodies up to it may not be synced."""
        with self._lock, self._index.write() as db:
            catch_up(self._log, db)
            return self._log.end().seq, _names(db.execute("SELECT DISTINCT name FROM unsynced"))

    def _sync_bodies(self, names: Iterable[str]) -> None:
        with self._mutex:
            fresh = [name for name in names if name not in self._synced]
        for name in fresh:
            with self._failing():
                self._bodies.sync(name)
        self._remember(fresh)

    def _remember(self, names: Iterable[str]) -> None:
        with self._mutex:
            self._synced.update(names)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._log.fail(error) from error

    # -- marks ------------------------------------------------------------------------

    def _mark_when_due(self, commits: int = 1) -> None:
        with self._mutex:
            self._commits += commits
            due = self._commits >= COMMITS_PER_MARK
            if due:
                self._commits = 0
        if due:
            self.all()

    def _mark(self, seq: int, names: Iterable[str]) -> None:
        """Everything up to *seq* is synced: say so in the log."""
        self._log.advance_mark(seq)
        with self._lock, self._index.write() as db:
            catch_up(self._log, db)
            position = self._log.append(b"").position
            Index.set_position(db, position)
            forget_synced(db, seq)
            self._log.own.note(position.seq)
        self._quiet_at = position.seq if position.seq == seq + 1 else NEVER
        with self._mutex:
            self._synced.difference_update(names)

    # -- the dead ---------------------------------------------------------------------

    def _bury(self) -> None:
        """Delete bodies whose death a synced mark covers, unless a reader leases them. A dead body gains no leases: no lock is needed."""
        mark = self._log.mark
        while names := self._deletable(mark):
            if self._durable_mark < mark:
                self._log.sync()
                self._durable_mark = mark
            if not self._delete(names):
                return
            with self._lock, self._index.write() as db:
                db.executemany("DELETE FROM dead WHERE name = ?", ((name,) for name in names))

    def _delete(self, names: Iterable[str]) -> bool:
        try:
            for name in names:
                self._bodies.delete(name)
        except OSError as error:
            log.warning("Bodies that nothing names any more cannot be deleted: %s.", error.strerror)
            return False
        return True

    def _deletable(self, mark: int) -> list[str]:
        with self._index.read() as db:
            return _names(
                db.execute("SELECT name FROM dead WHERE seq <= ? AND name NOT IN (SELECT name FROM lease) LIMIT ?", (mark, DEAD_AT_ONCE))
            )


def _names(cursor: sqlite3.Cursor) -> list[str]:
    return [name for (name,) in cursor.fetchall()]

"""From the log into the index: what every holder of the write lock does before anything else.

Owns: catching up with records that others appended, and mending a tail that a crash left.
Must not know: why somebody catches up. All of it happens under the write lock.

A crash in mid-append leaves a tail that is no whole record, and nothing behind it: the next holder of the lock cuts it off (into
quarantine, with a warning). A crash between append and apply leaves a record that the index has not seen: replaying it is catching up,
no more. Everything else that does not join is damage, and is raised.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from itertools import islice

from s3mount.engine import records
from s3mount.engine.apply import apply
from s3mount.engine.index import Index
from s3mount.engine.log import END, Damaged, Entry, Gap, Log
from s3mount.engine.segment import Position

log = logging.getLogger(__name__)

# Records per SQLite transaction of a long replay: large enough to cost little, small enough that the WAL stays small.
CHUNK_RECORDS = 2000

Progress = Callable[[int, int], None]
"""Called now and then with what is done and what there is to do, in the same unit."""


def catch_up(journal: Log, db: sqlite3.Connection) -> None:
    """Apply what others appended, inside the caller's write transaction *db*. Raises Damaged; then the index is as far as it can be."""
    try:
        _apply_all(journal, db, journal.scan(Index.position(db)))
    except Damaged as damage:
        mend(journal, damage)
        _apply_all(journal, db, journal.scan(Index.position(db)))


def _apply_all(journal: Log, db: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    mark = journal.mark
    for entry in entries:
        apply_entry(db, entry)
        Index.set_position(db, entry.position)
    if journal.mark > mark:
        forget_synced(db, journal.mark)


def apply_entry(db: sqlite3.Connection, entry: Entry) -> None:
    """Apply one record; a mark alone (an empty payload) has nothing to apply."""
    if entry.payload:
        apply(db, records.decode(entry.payload), entry.position.seq, entry.inline_at)


def forget_synced(db: sqlite3.Connection, mark: int) -> None:
    """What a mark covers needs no syncing any more."""
    db.execute("DELETE FROM unsynced WHERE seq <= ?", (mark,))


def replay(journal: Log, index: Index, after: Position | None, progress: Progress | None = None) -> int:
    """Bring *index* from *after* to the end of the log, in transactions of its own; how many records that took. *progress* is told bytes.

    Raises Damaged.
    """
    count = 0
    before = journal.bytes_before()
    entries = journal.scan(after)
    while chunk := list(islice(entries, CHUNK_RECORDS)):
        with index.write() as db:
            _apply_all(journal, db, chunk)
            forget_synced(db, journal.mark)
        count += len(chunk)
        if progress is not None:
            at = chunk[-1].position
            progress(before[at.segment] + at.offset, before[END])
    return count


def mend(journal: Log, damage: Damaged) -> None:
    """Cut off a tail that a crash left; raise *damage* again if it is anything else."""
    if not is_tail(damage.gap, journal.mark):
        raise damage
    journal.cut(damage.gap.end)


def is_tail(gap: Gap, mark: int) -> bool:
    """Whether a crash explains *gap*: nothing whole behind it, nothing that was known to be synced in it."""
    return gap.resume is None and gap.end.seq >= mark

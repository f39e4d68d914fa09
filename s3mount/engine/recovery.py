"""Opening a folder: whatever happened to it, afterwards log and index agree, and hold what was acknowledged.

Owns: the order of steps at open, what a power cut costs, when the index is made anew, and making it.
Must not know: operations. All of it happens under the write lock.

    open ── same boot ──────────────> index usable? ── yes ──> catch up ──> open
      └─── another boot ─> settle ──────┘   └──── no ──> rebuild ──┘

Settle (the machine was booted since, so a power cut may lie between): whatever lies behind the newest mark is verified, in order.
S1  Where the log does not go on, it is cut: a sync covers everything before it, so nothing behind a record that is torn was acknowledged.
S2  A record whose new bodies are not all whole was not acknowledged either (its bodies are synced before that): it becomes void.
    What builds on it does nothing.
S3  A gap that a mark covers is damage. It is never cut away.
S4  Cuts and voids are synced before the boot id is written; until then, settling happens again.
S5  An index that may have seen a void record is gone, and that is synced, before the record is declared void: nobody would know later.

The index is usable if its position names a record that is there, whole and with the right checksum, and SQLite finds nothing wrong.
It is examined whenever it was not closed in order (`note_clean`). One that is ahead of the log (synced sooner) is not usable.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from s3mount.engine import records, snapshot
from s3mount.engine.bodies import Bodies
from s3mount.engine.disk import Disk
from s3mount.engine.index import Index
from s3mount.engine.layout import Layout, publish, stored_boot_id
from s3mount.engine.lock import is_alive
from s3mount.engine.log import Damaged, Entry, Gap, Log
from s3mount.engine.replay import Progress, catch_up, mend, replay
from s3mount.engine.segment import BEGINNING, Position
from s3mount.errors import Busy, Corrupt

log = logging.getLogger(__name__)


def open_state(layout: Layout, disk: Disk, boot_id: str) -> tuple[Log, Index]:
    """Log and index, in agreement and up to date. Raises Corrupt (Damaged) where a record is lost that the index has not seen, Busy.

    *boot_id* names the machine's present boot; "" counts as a new one every time.
    """
    journal = Log(layout, disk)
    rebooted = not boot_id or stored_boot_id(layout) != boot_id
    if rebooted:
        settle(layout, disk, journal)
    index = usable_index(layout, journal, examine=rebooted or not _is_clean(layout)) or make_index(layout, disk, journal)
    try:
        with index.write() as db:
            catch_up(journal, db)
        if rebooted:
            publish(layout.boot, boot_id.encode(), disk)
    except BaseException:
        index.close()
        raise
    return journal, index


# -- after a power cut ----------------------------------------------------------------


def settle(layout: Layout, disk: Disk, journal: Log) -> None:
    """Decide for good what a power cut left of the records behind the newest mark (S1 to S4). Idempotent."""
    mark, start = _settled(layout, journal)
    bodies = Bodies(layout, disk, layout.staging)
    torn: list[Position] = []
    for item in journal.walk(start):
        if isinstance(item, Gap):
            if item.end.seq >= mark:
                journal.cut(item.end)
                break
            log.error("%s", Damaged(item))
        elif item.position.seq > mark and not _is_whole(item, bodies):
            torn.append(item.position)
    if torn:
        numbers = ", ".join(str(at.seq) for at in torn)
        log.warning("After a power cut the unsynced changes %s are not whole and were dropped.", numbers)
        discard_index(layout, disk)
        journal.void(torn)


def _settled(layout: Layout, journal: Log) -> tuple[int, Position]:
    """The last record that needs no verification (a mark or a snapshot says so), and a position at or before it to walk from."""
    seq = snapshot.newest(layout) or 0
    mark = max(journal.newest_mark(), seq)
    start = journal.start_of(mark + 1)
    claimed = snapshot.claimed_position(layout.snapshot(seq)) if seq > start.seq else None
    return mark, claimed or start


def _is_whole(entry: Entry, bodies: Bodies) -> bool:
    named = records.decode(entry.payload).bodies if entry.payload else ()
    return all(bodies.is_whole(body.name, body.size) for body in named if body.name)


# -- the index ------------------------------------------------------------------------


def usable_index(layout: Layout, journal: Log, *, examine: bool) -> Index | None:
    """The index, if it belongs to the log as it is now; *examine*: only if SQLite finds nothing wrong with it."""
    if not layout.index.exists():
        return None
    try:
        index = Index(layout.index)
    except sqlite3.DatabaseError as error:
        log.warning("The index cannot be used (%s).", error)
        return None
    try:
        reason = _fault(layout, index, journal, examine=examine)
    except (sqlite3.DatabaseError, Corrupt) as error:
        reason = str(error)
    if reason is None:
        return index
    index.close()
    log.warning("The index cannot be used (%s).", reason)
    return None


def _fault(layout: Layout, index: Index, journal: Log, *, examine: bool) -> str | None:
    with index.read() as db:
        if examine:
            (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if answer != "ok":
                return str(answer)
        at = Index.position(db)
    if at.seq < (snapshot.newest(layout) or 0):
        return f"it stands at record {at.seq}, where the log does not begin any more"
    return None if journal.take_up(at) else f"it has seen record {at.seq}, which the log does not hold"


def make_index(layout: Layout, disk: Disk, journal: Log, progress: Progress | None = None) -> Index:
    """A new index from the log; the old one goes when the new one is complete.

    Raises Busy while others use the folder, Damaged, Corrupt; then the old one stays.
    """
    require_alone(layout)
    try:
        count = _fill(layout, disk, journal, progress)
    except Damaged as damage:
        mend(journal, damage)
        count = _fill(layout, disk, journal, progress)
    discard_index(layout, disk)
    disk.rename(layout.new_index, layout.index)
    if count:
        log.info("The index was made anew from %d records.", count)
    return Index(layout.index)


def _fill(layout: Layout, disk: Disk, journal: Log, progress: Progress | None) -> int:
    index = fresh_index(layout, disk)
    try:
        return replay(journal, index, load_snapshot(layout, index), progress)
    finally:
        index.close()


def fresh_index(layout: Layout, disk: Disk) -> Index:
    """An empty index beside the one in use."""
    _discard(layout.index_files(layout.new_index), disk)
    return Index(layout.new_index)


def load_snapshot(layout: Layout, index: Index) -> Position:
    """Fill the empty *index* from the newest snapshot; where the replay begins."""
    seq = snapshot.newest(layout)
    if seq is None:
        return BEGINNING
    with index.write() as db:
        at = snapshot.load(layout.snapshot(seq), db)
        Index.set_position(db, at)
    return at


def discard_index(layout: Layout, disk: Disk) -> None:
    """Idempotent, durable on return: no part of it joins the next one. The database goes first: SQLite ignores the rest without it."""
    _discard(layout.index_files(layout.index), disk)
    disk.fsync_dir(layout.folder)


def _discard(files: Iterable[Path], disk: Disk) -> None:
    for path in files:
        if path.exists():
            disk.unlink(path)


def require_alone(layout: Layout) -> None:
    """Raises Busy while a living process has the folder open."""
    owners = [name for name in os.listdir(layout.staging) if is_alive(layout.staging / name)]
    if owners:
        raise Busy(f"The index of {layout.folder} has to be made anew, but other processes use the folder: end them first.")


# -- closing in order -----------------------------------------------------------------


def note_clean(layout: Layout) -> None:
    """Remember how the closed index looks, so that the next open need not examine it; never fails. Under the write lock."""
    fingerprint = _fingerprint(layout)
    try:
        _clean_note(layout).unlink(missing_ok=True)
        if fingerprint is not None:
            _clean_note(layout).touch(mode=0o600)
            _clean_note(layout).write_text(fingerprint)
    except OSError as error:
        log.info("The next open will examine the index: %s.", error)


def _is_clean(layout: Layout) -> bool:
    fingerprint = _fingerprint(layout)
    try:
        return fingerprint is not None and _clean_note(layout).read_text(errors="replace") == fingerprint
    except OSError:
        return False


def _clean_note(layout: Layout) -> Path:
    return layout.folder / "index.clean"


def _fingerprint(layout: Layout) -> str | None:
    """None while there is a write-ahead log: somebody has the index open, or had it open and was killed."""
    database, *rest = layout.index_files(layout.index)
    if any(path.exists() for path in rest) or not database.exists():
        return None
    status = database.stat()
    return json.dumps([status.st_ino, status.st_size, status.st_mtime_ns])

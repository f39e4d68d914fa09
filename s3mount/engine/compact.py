"""Compaction: a snapshot of the state, after which the log before it is needed only for the inline bodies in it.

Owns: when segments may go, and moving what little lives in them.
Must not know: what rows mean (`snapshot`), how a body is moved in the index (`apply`).

    evacuate   inline bodies of segments that are mostly dead move to the end of the log, by ordinary records
    sync       everything, with a mark: a snapshot must not name what a power cut may still take (K1)
    snapshot   of one read transaction, written aside, synced, renamed
    drop       older snapshots, then each segment that lies wholly before the snapshot and holds no live inline body

K1  A snapshot at record n is published only when a mark covers n.
K2  The last segment stays: it is where the log goes on, and where every index stands.
K3  What lives at record n keeps its segment, whatever happened since: a power cut may take that back.
Interrupted anywhere, it leaves a log that is whole; compacting again completes it. Readers have their own descriptors of segments.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from s3mount.engine import records, snapshot
from s3mount.engine.apply import apply
from s3mount.engine.index import Index
from s3mount.engine.lock import turn
from s3mount.engine.parts import Parts
from s3mount.engine.replay import catch_up
from s3mount.errors import StoreError, Unavailable
from s3mount.model import MiB

# A segment with less of it alive than this is worth moving: at most as many bytes are written as are freed.
LIVE_SHARE = 0.5

# Dead bytes of the log that are worth a compaction by themselves.
DUE_BYTES = 256 * MiB

# Inline bytes moved in one record.
MOVED_BYTES = 1 * MiB


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Segments dropped, the bytes that freed, inline bodies moved."""

    segments: int
    bytes: int
    moved: int


@dataclass(frozen=True, slots=True)
class _Inline:
    id: int
    digest: bytes
    size: int
    offset: int


class Compactor:
    """Compacts one folder's log. Safe beside any number of processes that use it."""

    def __init__(self, parts: Parts, clock_ns: Callable[[], int]) -> None:
        self._layout = parts.layout
        self._disk = parts.disk
        self._lock = parts.lock
        self._log = parts.log
        self._index = parts.index
        self._bodies = parts.bodies
        self._sync = parts.sync
        self._staging = parts.owner.folder
        self._clock_ns = clock_ns
        self._stopped = threading.Event()

    def is_due(self) -> bool:
        """Whether compacting now frees much more than it writes."""
        segments = self._layout.segments()[:-1]
        stored = sum(self._size(self._layout.segment(segment)) for segment in segments)
        worth = max(DUE_BYTES, *(2 * self._size(self._layout.snapshot(seq)) for seq in self._layout.snapshots()), 0)
        if stored < worth:
            return False
        with self._index.read() as db:
            (live,) = db.execute("SELECT coalesce(sum(size), 0) FROM body WHERE segment <= ?", (segments[-1],)).fetchone()
        return stored - int(live) >= worth

    def compact(self, *, wait: bool = True) -> CompactReport:
        """Raises NoSpace, Unavailable; then the log is as good as before. Without *wait*: nothing, if another process is at it."""
        with turn(self._layout.compacting, wait=wait) as ours:
            return self._compact() if ours else CompactReport(0, 0, 0)

    def stop(self) -> None:
        """Let a compaction in another thread end soon, its work undone; it raises Unavailable."""
        self._stopped.set()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Unavailable("The compaction of the log was stopped.")

    def _compact(self) -> CompactReport:
        moved = sum(self._evacuate(segment) for segment in self._mostly_dead())
        seq, live = self._publish_snapshot()
        dropped = [self._drop(segment) for segment in self._droppable(seq, live)]
        self._disk.fsync_dir(self._layout.log)
        return CompactReport(segments=len(dropped), bytes=sum(dropped), moved=moved)

    # -- evacuation -------------------------------------------------------------------

    def _mostly_dead(self) -> list[int]:
        with self._index.read() as db:
            live = dict(db.execute("SELECT segment, sum(size) FROM body WHERE segment IS NOT NULL GROUP BY segment").fetchall())
        closed = [segment for segment in self._layout.segments()[:-1] if segment in live]
        return [segment for segment in closed if live[segment] < LIVE_SHARE * self._size(self._layout.segment(segment))]

    def _size(self, path: Path) -> int:
        """0 where another process that compacts has dropped it."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def _evacuate(self, segment: int) -> int:
        moved = 0
        last = -1
        while True:
            self._go_on()
            with self._lock, self._index.write() as db:
                catch_up(self._log, db)
                batch = _batch(db, segment, last)
                if not batch:
                    return moved
                moved += self._move(db, segment, batch)
                last = batch[-1].id

    def _move(self, db: sqlite3.Connection, segment: int, batch: list[_Inline]) -> int:
        """Log the bodies again, under the lock. What does not match its hash stays: the scrubber reports it."""
        whole = [(body, data) for body, data in self._read(segment, batch) if self._bodies.hash_bytes(data) == body.digest]
        if not whole:
            return 0
        record = records.Record(
            time_ns=self._clock_ns(),
            bodies=tuple(records.NewBody(digest=body.digest, size=body.size, name="") for body, _ in whole),
            ops=(records.Move(pairs=tuple((body.id, number) for number, (body, _) in enumerate(whole))),),
        )
        appended = self._log.append(records.encode(record), [data for _, data in whole])
        apply(db, record, appended.position.seq, appended.inline[0])
        Index.set_position(db, appended.position)
        return len(whole)

    def _read(self, segment: int, batch: list[_Inline]) -> Iterator[tuple[_Inline, bytes]]:
        fd = self._log.open_segment(segment)
        try:
            for body in batch:
                yield body, os.pread(fd, body.size, body.offset)
        finally:
            os.close(fd)

    # -- snapshot ---------------------------------------------------------------------

    def _publish_snapshot(self) -> tuple[int, set[int]]:
        """The record behind which the new snapshot stands, and the segments that hold inline bodies of it."""
        with self._index.snapshot() as db:
            position = Index.position(db)
            live = {segment for (segment,) in db.execute("SELECT DISTINCT segment FROM body WHERE segment IS NOT NULL").fetchall()}
            writer = snapshot.SnapshotWriter(self._layout, self._disk, position, self._staging)
            try:
                writer.write_state(db, self._go_on)
            except (OSError, StoreError):
                writer.discard()
                raise
        self._sync.all()
        writer.publish()
        for seq in self._layout.snapshots()[:-1]:
            self._remove(self._layout.snapshot(seq))
        return position.seq, live

    # -- dropping ---------------------------------------------------------------------

    def _droppable(self, seq: int, live: set[int]) -> list[int]:
        """Segments wholly before record *seq* + 1 without inline bodies that the snapshot names (K3); none gains any (K2)."""
        segments = self._layout.segments()
        return [this for this, following in pairwise(segments) if following <= seq + 1 and this not in live]

    def _drop(self, segment: int) -> int:
        return self._remove(self._layout.segment(segment))

    def _remove(self, path: Path) -> int:
        """Its size; 0 where another process that compacts was quicker."""
        try:
            size = path.stat().st_size
            self._disk.unlink(path)
        except FileNotFoundError:
            return 0
        return size


def _batch(db: sqlite3.Connection, segment: int, after: int) -> list[_Inline]:
    """The next inline bodies of *segment*, by id, together about `MOVED_BYTES`."""
    batch: list[_Inline] = []
    size = 0
    for row in db.execute("SELECT id, digest, size, offset FROM body WHERE segment = ? AND id > ? ORDER BY id", (segment, after)):
        batch.append(_Inline(*row))
        size += batch[-1].size
        if size >= MOVED_BYTES:
            break
    return batch

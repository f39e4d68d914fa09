"""Scrubbing: read every byte that is stored and compare it with its hash.

Owns: reading, comparing, quarantine, and saying which objects damage concerns.
Must not know: how to mend it. Nothing is ever deleted here.

Bodies in files that do not match go to quarantine: what is left reads as Corrupt instead of wrong. Inline bodies and the log itself stay
where they are (a segment holds much else) and are reported.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from s3mount.engine import snapshot
from s3mount.engine.layout import Layout
from s3mount.engine.lock import turn
from s3mount.engine.log import Gap, Log
from s3mount.engine.parts import Parts
from s3mount.engine.replay import Progress
from s3mount.engine.segment import BEGINNING
from s3mount.errors import Corrupt

# Objects that a sentence about damage names; it counts the others.
NAMED_OBJECTS = 5

# Rows of the index read at once: no read transaction stays open while bodies are read.
ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """How many bodies were read, their bytes, how many went to quarantine; `damaged`: one sentence for each damage (empty: all is well)."""

    bodies: int
    bytes: int
    quarantined: int
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Body:
    id: int
    digest: bytes
    size: int
    name: str | None
    segment: int
    offset: int


class Scrubber:
    """Scrubs one folder. Safe beside any number of processes that use it."""

    def __init__(self, parts: Parts) -> None:
        self._layout = parts.layout
        self._lock = parts.lock
        self._log = parts.log
        self._index = parts.index
        self._bodies = parts.bodies
        self._damaged: list[str] = []
        self._quarantined = 0
        self._read_of_body = 0
        self._went_on: Callable[[int], None] = lambda count: None

    def scrub(self, progress: Progress | None = None) -> ScrubReport:
        """Read all; *progress* is told bytes, within a large body too, and may raise to end it."""
        self._damaged, self._quarantined = [], 0
        with self._index.read() as db:
            (total,) = db.execute("SELECT coalesce(sum(size), 0) FROM body").fetchone()
        bodies = done = 0

        def went_on(count: int) -> None:
            self._read_of_body += count
            if progress is not None:
                progress(done + self._read_of_body, max(total, done + self._read_of_body))

        self._went_on = went_on
        for body in self._all():
            self._read_of_body = 0
            self._verify(body)
            bodies += 1
            done += body.size
            if progress is not None:
                progress(done, max(total, done))
        self._damaged += self._log_damage()
        return ScrubReport(bodies=bodies, bytes=done, quarantined=self._quarantined, damaged=tuple(self._damaged))

    def _log_damage(self) -> list[str]:
        """Found without the lock, where a record under way or a compaction look like damage; so it is looked for again with it."""
        if not log_damage(self._layout, self._log):
            return []
        with turn(self._layout.compacting, wait=True), self._lock:
            return log_damage(self._layout, self._log)

    def _all(self) -> Iterator[_Body]:
        last = -1
        while True:
            with self._index.read() as db:
                rows = db.execute(
                    "SELECT id, digest, size, name, coalesce(segment, 0), coalesce(offset, 0) FROM body WHERE id > ? ORDER BY id LIMIT ?",
                    (last, ROWS_AT_ONCE),
                ).fetchall()
            if not rows:
                return
            for row in rows:
                yield _Body(*row)
            last = rows[-1][0]

    def _verify(self, body: _Body) -> None:
        fault = self._fault(body, self._went_on)
        if fault is None:
            return
        with self._lock, self._index.read() as db:
            if (now := _look_up(db, body.id)) is None or (fault := self._fault(now)) is None:
                return
            concerned = objects_of(db, body.id)
            if now.name is not None and self._bodies.quarantine(now.name) is not None:
                self._quarantined += 1
                fault += " and went to quarantine"
        self._damaged.append(f"{fault}; it belongs to {concerned}.")

    def _fault(self, body: _Body, went_on: Callable[[int], None] = lambda count: None) -> str | None:
        """What is wrong with *body*; None: nothing. Nobody is told of steps under the lock: they may wait."""
        if body.name is None:
            return self._fault_inline(body)
        path = self._bodies.path(body.name)
        try:
            if path.stat().st_size != body.size:
                return f"The body {body.name} has {path.stat().st_size} bytes instead of {body.size}"
            if self._bodies.hash_file(path, went_on=went_on) != body.digest:
                return f"The body {body.name} does not match its hash"
        except FileNotFoundError:
            return f"The body {body.name} is missing"
        except OSError as error:
            return f"The body {body.name} cannot be read ({error.strerror})"
        return None

    def _fault_inline(self, body: _Body) -> str | None:
        where = f"The body at byte {body.offset} of the log's segment {body.segment}"
        try:
            fd = self._log.open_segment(body.segment)
        except FileNotFoundError:
            return f"{where} is missing"
        try:
            data = os.pread(fd, body.size, body.offset)
        except OSError as error:
            return f"{where} cannot be read ({error.strerror})"
        finally:
            os.close(fd)
        return None if self._bodies.hash_bytes(data) == body.digest else f"{where} does not match its hash"


def _look_up(db: sqlite3.Connection, body: int) -> _Body | None:
    row = db.execute("SELECT id, digest, size, name, coalesce(segment, 0), coalesce(offset, 0) FROM body WHERE id = ?", (body,)).fetchone()
    return None if row is None else _Body(*row)


def objects_of(db: sqlite3.Connection, body: int) -> str:
    """Which objects have bytes in *body*, for a sentence. Reads every extent: for damage only."""
    names = db.execute(
        "SELECT DISTINCT b.name, n.key FROM extent e JOIN name n ON n.file = e.file JOIN bucket b ON b.id = n.bucket WHERE e.body = ?",
        (body,),
    ).fetchall()
    if not names:
        return "no current object (an older version, or an upload under way)"
    shown = ", ".join(f"'{bucket}/{key.decode(errors='replace')}'" for bucket, key in names[:NAMED_OBJECTS])
    return shown if len(names) <= NAMED_OBJECTS else f"{shown} and {len(names) - NAMED_OBJECTS} more"


def log_damage(layout: Layout, log: Log) -> list[str]:
    """What cannot be read of the log and the snapshot that a rebuild would begin with, as sentences."""
    seq = snapshot.newest(layout)
    try:
        start = BEGINNING if seq is None else snapshot.position_of(layout.snapshot(seq))
    except Corrupt as error:
        return [str(error)]
    gaps = [item for item in log.walk(start) if isinstance(item, Gap)]
    return [f"The log is damaged in segment {gap.end.segment} at byte {gap.end.offset}: {gap.lost} cannot be read." for gap in gaps]

"""Readers, and what keeps alive the bodies that they hold no descriptor of.

Owns: the table lease. Must not know: what is read, or by whom.

A reader of few bodies holds a descriptor of each, and needs nothing else. For one of many bodies, rows in the index name them all. They are
written in the transaction that looks the version up, under the write lock: a body that is not dead then is not deleted before its lease
goes. Ended leases are removed with the next ones, at a sync, and at the end; those of a process that was killed, by the sweeper.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import deque
from collections.abc import Callable

from s3mount.engine.parts import Parts
from s3mount.engine.reader import HELD_BODIES, Reader
from s3mount.engine.spans import Spans
from s3mount.model import ObjectInfo


class Leases:
    """Makes readers; one per engine. Thread-safe."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._numbers = itertools.count(1)
        self._ended: deque[int] = deque()

    def needed(self, spans: Spans) -> bool:
        return len(spans) > HELD_BODIES and sum(1 for _ in spans.bodies) > HELD_BODIES

    def reader(self, info: ObjectInfo, spans: Spans) -> Reader:
        """Raises FileNotFoundError when a body is gone: look again."""
        return Reader(info, spans, self._parts.bodies, self._parts.log)

    def leased_reader(self, look: Callable[[sqlite3.Connection], tuple[ObjectInfo, Spans]]) -> Reader:
        """As `reader`, of what *look* finds, with leases on all its bodies."""
        number = next(self._numbers)
        with self._parts.lock, self._parts.index.write() as db:
            self._forget_ended(db)
            info, spans = look(db)
            rows = ((self._parts.owner.id, number, name) for name in spans.bodies)
            db.executemany("INSERT INTO lease (owner, reader, name) VALUES (?, ?, ?)", rows)
        try:
            return Reader(info, spans, self._parts.bodies, self._parts.log, on_close=lambda: self._ended.append(number))
        except BaseException:
            self._ended.append(number)
            raise

    def forget_ended(self) -> None:
        if self._ended:
            with self._parts.lock, self._parts.index.write() as db:
                self._forget_ended(db)

    def forget_all(self, db: sqlite3.Connection) -> None:
        """This process ends: nothing is read any more, nothing is claimed."""
        db.execute("DELETE FROM lease WHERE owner = ?", (self._parts.owner.id,))
        db.execute("DELETE FROM reservation WHERE owner = ?", (self._parts.owner.id,))

    def _forget_ended(self, db: sqlite3.Connection) -> None:
        while self._ended:
            db.execute("DELETE FROM lease WHERE owner = ? AND reader = ?", (self._parts.owner.id, self._ended.popleft()))

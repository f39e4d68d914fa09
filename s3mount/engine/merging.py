"""Small edits side by side become one body: appending a line a hundred thousand times must not leave a hundred thousand extents.

Owns: which neighbours of a new piece are written again together with it.
Must not know: why something is written. Runs in a decision, under the write lock.

A new inline piece takes in the inline extent before or behind it if that is not longer than what it has gathered so far, up to
INLINE_BYTES. As in a binary counter, each byte is so written again at most log2(INLINE_BYTES / piece) times, and dense small edits end as
extents of 8 to 16 KiB. A neighbour is taken in only if its body still has the hash it had: damage is not given a new name.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from s3mount.engine.bodies import Bodies
from s3mount.engine.contents import Fresh, Laid
from s3mount.engine.lock import WouldWait
from s3mount.engine.log import Log
from s3mount.engine.values import INLINE_BYTES

_NEIGHBOUR = """
    SELECT e.offset, e.length, e.body_offset, b.digest, b.size, b.segment, b.offset FROM extent e JOIN body b ON b.id = e.body
    WHERE e.file = ? AND b.segment IS NOT NULL AND e.offset = (SELECT max(offset) FROM extent WHERE file = ? AND offset <= ?)
"""


@dataclass(frozen=True, slots=True)
class _Run:
    """Bytes to be written from *start* on."""

    start: int
    data: bytes

    @property
    def stop(self) -> int:
        return self.start + len(self.data)

    def has_room_for(self, length: int) -> bool:
        return 0 < length <= len(self.data) and length + len(self.data) <= INLINE_BYTES


class Merger:
    """Merges pieces that are to be laid over the content of *file*, which will have *size* bytes.

    Without *wait*, raises WouldWait where a neighbour has to be read from the medium.
    """

    def __init__(self, db: sqlite3.Connection, log: Log, bodies: Bodies, file: int, size: int, *, wait: bool = True) -> None:
        self._db = db
        self._log = log
        self._bodies = bodies
        self._file = file
        self._size = size
        self._flags = 0 if wait else os.RWF_NOWAIT

    def merged(self, laid: Sequence[Laid]) -> list[Laid]:
        """*laid* in order, with the neighbours taken in; what lies between two pieces is kept of the base, so it may be taken in once."""
        done: list[Laid] = []
        bounds = [*(each.offset for each in laid), self._size]
        for each, limit in zip(laid, bounds[1:], strict=True):
            floor = done[-1].offset + done[-1].length if done else 0
            done.append(self._grown(each, floor, limit))
        return done

    def _grown(self, piece: Laid, floor: int, limit: int) -> Laid:
        """*piece* with what it takes in, which lies between *floor* and *limit*."""
        if piece.body is None or piece.body.data is None or piece.length * 2 > INLINE_BYTES:
            return piece
        first = run = _Run(piece.offset, bytes(memoryview(piece.body.data)[piece.body_offset : piece.body_offset + piece.length]))
        while (grown := self._with_former(run, floor) or self._with_following(run, limit)) is not None:
            run = grown
        if run is first:
            return piece
        return Laid(run.start, len(run.data), Fresh(self._bodies.hash_bytes(run.data), len(run.data), run.data), 0)

    def _with_former(self, run: _Run, floor: int) -> _Run | None:
        if run.start <= floor:
            return None
        row = self._db.execute(_NEIGHBOUR, (self._file, self._file, run.start - 1)).fetchone()
        if row is None or row[0] < floor or row[0] + row[1] < run.start or not run.has_room_for(run.start - row[0]):
            return None
        data = self._bytes_of(*row[2:])
        return None if data is None else _Run(row[0], data[: run.start - row[0]] + run.data)

    def _with_following(self, run: _Run, limit: int) -> _Run | None:
        if run.stop >= limit:
            return None
        row = self._db.execute(_NEIGHBOUR, (self._file, self._file, run.stop)).fetchone()
        if row is None:
            return None
        stop = row[0] + row[1]
        if stop <= run.stop or stop > limit or not run.has_room_for(stop - run.stop):
            return None
        data = self._bytes_of(*row[2:])
        return None if data is None else _Run(run.start, run.data + data[run.stop - row[0] : row[1]])

    def _bytes_of(self, start: int, digest: bytes, size: int, segment: int, offset: int) -> bytes | None:
        """An inline body from *start* on, if it is sound."""
        try:
            fd = self._log.open_segment(segment)
        except FileNotFoundError:
            return None
        try:
            data = bytearray(size)
            count = os.preadv(fd, [data], offset, self._flags)
        except OSError:
            if self._flags:
                raise WouldWait from None
            raise
        finally:
            os.close(fd)
        if count < size and self._flags:
            raise WouldWait  # the page cache has the first of it only; or it is damaged, which who waits finds out
        return bytes(data[start:]) if self._bodies.hash_bytes(data) == digest else None

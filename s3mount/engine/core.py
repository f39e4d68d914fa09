"""What every theme of the engine stands on: the parts of an open folder, fresh ids and tags, reservations, leases.

Owns: the parts' lifetime; names claimed before they are committed; bodies kept for readers that hold no descriptor.
Must not know: objects, uploads, renames.
"""

from __future__ import annotations

import itertools
import secrets
import sqlite3
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from s3mount.engine import queries
from s3mount.engine.bodies import Bodies
from s3mount.engine.commit import Answer, Commits, T, Transaction
from s3mount.engine.contents import Fresh
from s3mount.engine.disk import Disk
from s3mount.engine.index import Index
from s3mount.engine.layout import Layout
from s3mount.engine.lock import Owner, WriteLock, is_alive
from s3mount.engine.log import Log
from s3mount.engine.names import key_bytes
from s3mount.engine.reader import HELD_BODIES, Reader
from s3mount.engine.records import Piece
from s3mount.engine.spans import Spans
from s3mount.engine.sync import Sync
from s3mount.engine.values import ETAG_SUFFIX
from s3mount.errors import FROM_OS, AlreadyExists, PreconditionFailed, Unavailable
from s3mount.model import ETag, Key, ObjectInfo

# Extents that are read in less time than a hop to a thread takes (100 us).
QUICK_SPANS = 64

# Files whose spans are remembered: those being edited in small pieces now. A hundred thousand spans take 20 MiB.
KNOWN_FILES = 8


def exists(key: str) -> AlreadyExists:
    return AlreadyExists(f"{key!r} exists already.")


def changed(key: str) -> PreconditionFailed:
    return PreconditionFailed(f"{key!r} is another version by now.")


@dataclass(frozen=True, slots=True)
class Parts:
    """An open folder, in pieces."""

    layout: Layout
    disk: Disk
    lock: WriteLock
    log: Log
    index: Index
    owner: Owner
    bodies: Bodies
    sync: Sync


class Core:
    """The parts, and what needs no more than them. Thread-safe."""

    def __init__(self, parts: Parts, clock_ns: Callable[[], int]) -> None:
        self.layout = parts.layout
        self.disk = parts.disk
        self.lock = parts.lock
        self.log = parts.log
        self.index = parts.index
        self.owner = parts.owner
        self.bodies = parts.bodies
        self.syncing = parts.sync
        self.clock_ns = clock_ns
        self.commits = Commits(
            layout=parts.layout,
            lock=parts.lock,
            log=parts.log,
            index=parts.index,
            bodies=parts.bodies,
            sync=parts.sync,
            clock_ns=clock_ns,
        )
        self.leases = Leases(parts)
        self.known_spans = KnownSpans()
        # A run of numbers from a random place: two processes do not meet, and neighbours in time are neighbours in the index.
        self._file_ids = itertools.count(secrets.randbits(61) + 2)
        self._reserved: set[tuple[int, bytes]] = set()

    @property
    def folder(self) -> Path:
        return self.layout.folder

    @property
    def staging(self) -> Path:
        """This process's folder for files to be adopted; swept when the process is gone."""
        return self.owner.folder

    def new_file_id(self) -> int:
        return next(self._file_ids)

    def new_etag(self) -> ETag:
        """A tag that no other version has."""
        return ETag(secrets.token_hex(16) + ETAG_SUFFIX)

    @contextmanager
    def os_errors(self) -> Iterator[None]:
        """What the operating system refuses becomes a StoreError."""
        try:
            yield
        except OSError as error:
            raise FROM_OS.get(error.errno or 0, Unavailable)(f"The data folder cannot be written: {error.strerror}.") from error

    def sync_staged(self, fresh: Iterable[Fresh]) -> None:
        """Sync the bytes of staged files, before the lock is taken."""
        with self.os_errors():
            for body in fresh:
                if body.path is not None:
                    self.bodies.sync_file(body.path)

    # -- reservations -----------------------------------------------------------------

    def reserve(self, bucket: str, key: Key) -> None:
        """Claim an absent key until this process commits it, releases it, or ends. Raises AlreadyExists, also for its own claim."""
        raw = key_bytes(key)

        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            taken = tx.db.execute("SELECT 1 FROM name WHERE bucket = ? AND key = ?", (where, raw)).fetchone() is not None
            if taken or (where, raw) in self._reserved or self.reserved_by_other(tx.db, where, raw):
                raise exists(key)
            tx.db.execute("INSERT OR REPLACE INTO reservation (bucket, key, owner) VALUES (?, ?, ?)", (where, raw, self.owner.id))
            self._reserved.add((where, raw))
            return lambda db: None

        self.commits.run(decide, durable=False)

    def release(self, bucket: str, key: Key) -> None:
        """Give a reservation back; idempotent. Raises NoSuchBucket."""
        raw = key_bytes(key)

        def decide(tx: Transaction) -> Answer[None]:
            self.free(tx.db, queries.require_bucket(tx.db, bucket).id, raw)
            return lambda db: None

        self.commits.run(decide, durable=False)

    def reserved_by_other(self, db: sqlite3.Connection, bucket: int, key: bytes) -> bool:
        """Whether another living process has claimed *key*."""
        row = db.execute("SELECT owner FROM reservation WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
        return row is not None and row[0] != self.owner.id and is_alive(self.layout.staging / row[0])

    def reserved(self, db: sqlite3.Connection, bucket: int, key: bytes) -> bool:
        """Whether any living process, this one included, has claimed *key*."""
        return (bucket, key) in self._reserved or self.reserved_by_other(db, bucket, key)

    def freeing(self, bucket: int, key: bytes, answer: Answer[T]) -> Answer[T]:
        """*answer*, after this process's claim on *key* ended: the key is committed."""
        if (bucket, key) not in self._reserved:
            return answer

        def free_first(db: sqlite3.Connection) -> T:
            self.free(db, bucket, key)
            return answer(db)

        return free_first

    def free(self, db: sqlite3.Connection, bucket: int, key: bytes) -> None:
        """This process's claim on *key*, if any, is over."""
        if (bucket, key) in self._reserved:
            self._reserved.discard((bucket, key))
            db.execute("DELETE FROM reservation WHERE bucket = ? AND key = ? AND owner = ?", (bucket, key, self.owner.id))


class Leases:
    """Readers of manifests with many bodies: rows in the index keep the bodies that no descriptor holds.

    A lease is written in the transaction that reads the manifest, under the write lock: a body that is not dead then is not deleted
    before the lease goes. Ended leases are removed with the next ones, at a sync, and at the end.
    """

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
        return Reader(info, spans, self._parts.bodies, self._parts.log, on_close=lambda: self._ended.append(number))

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


class KnownSpans:
    """Spans of contents with many extents, by file and ETag: a file that is edited and read in turn is not walked anew each time.

    An edit takes them from version to version. Compaction may move what they name: whoever finds a file gone forgets them.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._known: OrderedDict[int, tuple[str, Spans]] = OrderedDict()

    def get(self, file: int, etag: str) -> Spans | None:
        with self._mutex:
            known = self._known.get(file)
            return known[1] if known is not None and known[0] == etag else None

    def put(self, file: int, etag: str, spans: Spans) -> None:
        if len(spans) <= QUICK_SPANS:
            return
        with self._mutex:
            self._known[file] = (etag, spans)
            self._known.move_to_end(file)
            while len(self._known) > KNOWN_FILES:
                self._known.popitem(last=False)

    def edit(self, db: sqlite3.Connection, file: int, etags: tuple[str, str], pieces: Iterable[Piece], size: int) -> None:
        """*file* went from one ETag to the other, with *pieces* laid over it: the index knows where these lie."""
        known = self.get(file, etags[0])
        if known is not None:
            new = [span for piece in pieces for span in queries.spans_between(db, file, piece[0], piece[0] + piece[1])]
            self.put(file, etags[1], known.spliced(new, size))

    def forget(self, file: int) -> None:
        with self._mutex:
            self._known.pop(file, None)

"""What every theme of the engine stands on: the parts of an open folder, fresh ids and tags, reservations.

Owns: names claimed before they are committed; what makes ids and tags fresh.
Must not know: objects, uploads, renames.
"""

from __future__ import annotations

import itertools
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from s3mount.engine import queries
from s3mount.engine.commit import Answer, Commits, T, Transaction
from s3mount.engine.contents import Fresh
from s3mount.engine.known import KnownSpans
from s3mount.engine.leases import Leases
from s3mount.engine.linger import Linger
from s3mount.engine.lock import is_alive
from s3mount.engine.names import key_bytes
from s3mount.engine.parts import Parts
from s3mount.engine.spare import SPARE_NAME, Spare
from s3mount.engine.values import ETAG_SUFFIX
from s3mount.errors import FROM_OS, AlreadyExists, PreconditionFailed, Unavailable
from s3mount.model import ETag, Key


def exists(key: str) -> AlreadyExists:
    return AlreadyExists(f"{key!r} exists already.")


def changed(key: str) -> PreconditionFailed:
    return PreconditionFailed(f"{key!r} is another version by now.")


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
        self.spare = Spare(self.layout.folder / SPARE_NAME)
        self.linger = Linger(parts.lock, parts.owner.folder)
        self.commits = Commits(
            lock=parts.lock,
            log=parts.log,
            index=parts.index,
            bodies=parts.bodies,
            sync=parts.sync,
            spare=self.spare,
            linger=self.linger,
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
        """Sync the bytes of staged files, before the lock is taken. A caller's file that failed may come again: D4 of `sync`."""
        for body in fresh:
            if body.path is None:
                continue
            with self.os_errors():
                try:
                    self.bodies.sync_file(body.path)
                except OSError as error:
                    if body.ours:
                        raise
                    raise self.log.fail(error) from error

    # -- reservations -----------------------------------------------------------------

    def reserve(self, bucket: str, key: Key) -> None:
        """Claim an absent key until this process commits it, releases it, or ends. Raises AlreadyExists, also for its own claim."""
        raw = key_bytes(key)
        claims: list[tuple[int, bytes]] = []

        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            taken = tx.db.execute("SELECT 1 FROM name WHERE bucket = ? AND key = ?", (where, raw)).fetchone() is not None
            if taken or (where, raw) in self._reserved or self.reserved_by_other(tx.db, where, raw):
                raise exists(key)
            tx.db.execute("INSERT OR REPLACE INTO reservation (bucket, key, owner) VALUES (?, ?, ?)", (where, raw, self.owner.id))
            claims.append((where, raw))
            self._reserved.update(claims)
            return lambda db: None

        try:
            self.commits.run(decide, durable=False)
        except BaseException:
            self._reserved.difference_update(claims)
            raise

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

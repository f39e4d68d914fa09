"""Versions of objects, in buckets that keep them: listed, read and removed one by one; objects removed under conditions.

Owns: what names a version, what a removal leaves and tells. Must not know: how versions come about (`history`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from s3mount.engine import queries, version_queries
from s3mount.engine.commit import Answer, Transaction
from s3mount.engine.names import key_bytes, sought_bytes
from s3mount.engine.objects import Objects
from s3mount.engine.reader import Reader
from s3mount.engine.records import Remove, RemoveVersion, SetExtra
from s3mount.engine.spans import Spans
from s3mount.engine.values import DELETE_KEYS, Doomed, Removed, VersionInfo, VersionPage
from s3mount.engine.version_queries import Place, internal
from s3mount.errors import NotFound, S3MountError
from s3mount.model import Key, ObjectInfo

START = Place()


class Versions(Objects):
    def versions(self, bucket: str, prefix: str = "") -> Sequence[VersionInfo]:
        """Every version and delete marker under *prefix*, by key, the latest first. Raises NoSuchBucket."""
        with self.index.snapshot() as db:
            return version_queries.versions(db, bucket, prefix)

    def version_page(self, bucket: str, prefix: str = "", *, delimiter: str = "", after: Place = START, limit: int = 1000) -> VersionPage:
        """As `versions`, *limit* at a time; with *delimiter* as in `list`. Raises NoSuchBucket."""
        with self.index.snapshot() as db:
            return version_queries.page(db, bucket, prefix, delimiter=delimiter, after=after, limit=limit)

    def head_version(self, bucket: str, key: Key, version_id: str) -> ObjectInfo:
        """Raises NotFound (also for a delete marker), NoSuchBucket."""
        with self.index.snapshot() as db:
            return queries.version(db, bucket, key, version_id)

    def find_marker(self, bucket: str, key: Key, version_id: str | None = None) -> VersionInfo | None:
        """The delete marker with this id, or the one that hides *key* now; None for none. Raises NoSuchBucket."""
        with self.index.snapshot() as db:
            return version_queries.marker(db, bucket, key, version_id)

    def open_version(self, bucket: str, key: Key, version_id: str) -> Reader:
        """As `open_object`, of this version."""

        def look(db: sqlite3.Connection) -> tuple[ObjectInfo, Spans]:
            info = queries.version(db, bucket, key, version_id)
            return info, queries.spans(db, info.file_id)

        return self.opened(look)

    def set_extra(
        self, bucket: str, key: Key, change: Callable[[ObjectInfo], bytes | None], *, version_id: str | None = None, durable: bool = True
    ) -> ObjectInfo:
        """Keep with a version what *change* makes of it; ETag and last-modified stay. The former info. Raises NotFound, NoSuchBucket."""

        def decide(tx: Transaction) -> Answer[ObjectInfo]:
            found = queries.at_version(tx.db, bucket, key, version_id)
            tx.ops.append(SetExtra(found.file_id, change(found)))
            tx.files.add(found.file_id)
            return lambda db: found

        return self.commits.run(decide, durable=durable)

    # -- removing ---------------------------------------------------------------------

    def delete_version(self, bucket: str, key: Key, version_id: str, *, durable: bool = True) -> None:
        """Remove a version or delete marker for good; the latest of the others becomes current. Idempotent. Raises NoSuchBucket."""
        raw = key_bytes(key)

        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            if _is_there(tx.db, where, raw, version_id):
                tx.ops.append(RemoveVersion(where, raw, internal(version_id)))
            return lambda db: None

        self.commits.run(decide, durable=durable, frees=True)

    def remove(self, bucket: str, doomed: Sequence[Doomed], *, durable: bool = True) -> Sequence[Removed | S3MountError]:
        """Remove objects and versions in one transaction, as S3 does: in a bucket that keeps versions, a key without a version id gets
        a delete marker even where nothing is. What cannot be done comes back as its error, in place.

        Raises NoSuchBucket, ValueError (more than 1000).
        """
        if len(doomed) > DELETE_KEYS:
            raise ValueError(f"{len(doomed)} objects in one delete; at most {DELETE_KEYS}")

        def decide(tx: Transaction) -> Answer[Sequence[Removed | S3MountError]]:
            found = queries.require_bucket(tx.db, bucket)
            outcomes = [self._remove_one(tx, found.id, bucket, one, marks=found.versioning != "off") for one in doomed]
            return lambda db: [_told(db, found.id, outcome) for outcome in outcomes]

        return self.commits.run(decide, durable=durable, frees=True)

    def _remove_one(self, tx: Transaction, where: int, bucket: str, one: Doomed, *, marks: bool) -> Removed | S3MountError:
        try:
            raw = key_bytes(one.key)
            if one.check is not None:
                one.check(_seen(tx.db, bucket, one))
        except S3MountError as error:
            return error
        if one.version_id is None:
            if marks or self.named(tx, where, raw)[0]:
                tx.ops.append(Remove(where, (raw,), tx.time_ns, marks))
            return Removed(one.key, None, marker=marks)
        marker = version_queries.marker(tx.db, bucket, one.key, one.version_id)
        if _is_there(tx.db, where, raw, one.version_id):
            tx.ops.append(RemoveVersion(where, raw, internal(one.version_id)))
        return Removed(one.key, one.version_id, marker=marker is not None)


def _is_there(db: sqlite3.Connection, bucket: int, key: bytes, version_id: str) -> bool:
    row = db.execute(
        "SELECT 1 FROM name WHERE bucket = ?1 AND key = ?2 AND version = ?3 "
        "UNION ALL SELECT 1 FROM history WHERE bucket = ?1 AND key = ?2 AND version = ?3",
        (bucket, key, internal(version_id)),
    ).fetchone()
    return row is not None


def _seen(db: sqlite3.Connection, bucket: str, one: Doomed) -> ObjectInfo | None:
    """What a condition is to judge."""
    try:
        return queries.at_version(db, bucket, one.key, one.version_id)
    except NotFound:
        return None


def _told(db: sqlite3.Connection, bucket: int, outcome: Removed | S3MountError) -> Removed | S3MountError:
    """With the version id of the delete marker that was made."""
    if not isinstance(outcome, Removed) or outcome.version_id is not None or not outcome.marker:
        return outcome
    row = db.execute(
        "SELECT version FROM history WHERE bucket = ? AND key = ? ORDER BY rank DESC LIMIT 1", (bucket, sought_bytes(outcome.key))
    ).fetchone()
    return Removed(outcome.key, None, marker=True, marker_version=(row[0] or queries.NULL_ID) if row else None)

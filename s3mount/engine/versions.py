"""Versions of objects, in buckets that keep them: listed, read and removed one by one.

Owns: what names a version. Must not know: how versions come about (`history`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from s3mount.engine import queries
from s3mount.engine.commit import Answer, Transaction
from s3mount.engine.names import key_bytes, sought_bytes
from s3mount.engine.objects import Objects
from s3mount.engine.reader import Reader
from s3mount.engine.records import RemoveVersion
from s3mount.engine.spans import Spans
from s3mount.engine.values import VersionInfo
from s3mount.model import Key, ObjectInfo


class Versions(Objects):
    def versions(self, bucket: str, prefix: str = "") -> Sequence[VersionInfo]:
        """Every version and delete marker under *prefix*, by key, the latest first. Raises NoSuchBucket."""
        with self.index.snapshot() as db:
            return queries.versions(db, bucket, prefix)

    def head_version(self, bucket: str, key: Key, version_id: str) -> ObjectInfo:
        """Raises NotFound (also for a delete marker), NoSuchBucket."""
        with self.index.snapshot() as db:
            return queries.version(db, bucket, key, version_id)

    def open_version(self, bucket: str, key: Key, version_id: str) -> Reader:
        """As `open_object`, of this version."""

        def look(db: sqlite3.Connection) -> tuple[ObjectInfo, Spans]:
            info = queries.version(db, bucket, key, version_id)
            return info, queries.spans(db, info.file_id)

        return self.opened(look)

    def delete_version(self, bucket: str, key: Key, version_id: str, *, durable: bool = True) -> None:
        """Remove a version or delete marker for good; the latest of the others becomes current. Idempotent. Raises NoSuchBucket."""
        raw = key_bytes(key)

        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            version = "" if version_id == queries.NULL_ID else version_id
            there = tx.db.execute(
                "SELECT 1 FROM name WHERE bucket = ?1 AND key = ?2 AND version = ?3 "
                "UNION ALL SELECT 1 FROM history WHERE bucket = ?1 AND key = ?2 AND version = ?3",
                (where, sought_bytes(key), version),
            ).fetchone()
            if there is not None:
                tx.ops.append(RemoveVersion(where, raw, version))
            return lambda db: None

        self.commits.run(decide, durable=durable, frees=True)

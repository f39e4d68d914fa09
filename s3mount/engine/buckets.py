"""Buckets: made, dropped, listed, told to keep versions, with what a server keeps of them.

Owns: what a bucket may be called and when it may go. Must not know: objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from s3mount.engine import queries
from s3mount.engine.commit import Answer, Transaction
from s3mount.engine.core import Core
from s3mount.engine.names import require_bucket_name
from s3mount.engine.records import DropBucket, MakeBucket, SetSetting, SetVersioning
from s3mount.engine.values import BucketInfo, Versioning
from s3mount.errors import BucketExists, BucketNotEmpty


class Buckets(Core):
    def create_bucket(self, bucket: str) -> None:
        """Raises BucketExists, InvalidName."""
        require_bucket_name(bucket)

        def decide(tx: Transaction) -> Answer[None]:
            if tx.db.execute("SELECT 1 FROM bucket WHERE name = ?", (bucket,)).fetchone() is not None:
                raise BucketExists(f"The bucket {bucket!r} exists already.")
            tx.ops.append(MakeBucket(self.new_file_id(), bucket, tx.time_ns))
            return lambda db: None

        self.commits.run(decide, durable=True)

    def delete_bucket(self, bucket: str) -> None:
        """Aborts its uploads. Raises NoSuchBucket; BucketNotEmpty while objects or older versions are left."""

        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            for table, what in (("name", "objects"), ("history", "older versions of objects")):
                if tx.db.execute(f"SELECT 1 FROM {table} WHERE bucket = ? LIMIT 1", (where,)).fetchone() is not None:
                    raise BucketNotEmpty(f"The bucket {bucket!r} still holds {what}.")
            tx.ops.append(DropBucket(where))
            return lambda db: None

        self.commits.run(decide, durable=True, frees=True)

    def set_versioning(self, bucket: str, state: Versioning) -> None:
        """Once enabled it can only be suspended: ValueError for "off" then. Raises NoSuchBucket."""

        def decide(tx: Transaction) -> Answer[None]:
            found = queries.require_bucket(tx.db, bucket)
            if state == "off" and found.versioning != "off":
                raise ValueError(f"the bucket {bucket!r} keeps versions; that can only be suspended")
            if state != found.versioning:
                tx.ops.append(SetVersioning(found.id, state))
            return lambda db: None

        self.commits.run(decide, durable=True)

    def set_setting(self, bucket: str, name: str, value: bytes | None) -> None:
        """Keep *value* with the bucket under *name*, opaque to the engine; None takes it away. Idempotent. Raises NoSuchBucket."""

        def decide(tx: Transaction) -> Answer[None]:
            tx.ops.append(SetSetting(queries.require_bucket(tx.db, bucket).id, name, value))
            return lambda db: None

        self.commits.run(decide, durable=True)

    def setting(self, bucket: str, name: str) -> bytes | None:
        """What is kept with the bucket under *name*; None for nothing. Raises NoSuchBucket."""
        with self.index.snapshot() as db:
            where = queries.require_bucket(db, bucket).id
            row = db.execute("SELECT value FROM setting WHERE bucket = ? AND name = ?", (where, name)).fetchone()
            return None if row is None else bytes(row[0])

    def buckets(self) -> Sequence[BucketInfo]:
        """By name."""
        with self.index.read() as db:
            return queries.buckets(db)

    def require_bucket(self, bucket: str) -> BucketInfo:
        """Raises NoSuchBucket."""
        with self.index.read() as db:
            return queries.require_bucket(db, bucket)

"""Names and files in the index while a record is applied, and what a bucket that keeps versions remembers of them.

Owns: the tables name, file and history: binding, unbinding, archiving.
Must not know: bodies, how contents are kept.

What a key names is its current version. Before it is replaced or removed it is *retired*:

    versioning off        it is dropped; a file whose last name goes, goes
    enabled               it moves into history (under a new negative file id), and a removal leaves a delete marker
    suspended             as enabled if it has a version id; the null version is replaced, in history too
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from s3mount.engine.extents import Extents
from s3mount.engine.values import Versioning

NULL_VERSION = ""

_CURRENT = (
    "SELECT n.file, n.version, n.since_ns, b.versioning FROM name n JOIN bucket b ON b.id = n.bucket WHERE n.bucket = ? AND n.key = ?"
)


class Names:
    """The names that one record changes. *make_id* numbers what the engine makes itself."""

    def __init__(self, db: sqlite3.Connection, extents: Extents, make_id: Callable[[], int]) -> None:
        self._db = db
        self._extents = extents
        self._make_id = make_id
        self._versioning: dict[int, Versioning] = {}

    # -- questions --------------------------------------------------------------------

    def versioning(self, bucket: int) -> Versioning | None:
        """None: there is no such bucket."""
        if bucket not in self._versioning:
            row = self._db.execute("SELECT versioning FROM bucket WHERE id = ?", (bucket,)).fetchone()
            if row is None:
                return None
            self._versioning[bucket] = row[0]
        return self._versioning[bucket]

    def forget(self, bucket: int) -> None:
        self._versioning.pop(bucket, None)

    def file_of(self, bucket: int, key: bytes) -> int | None:
        row = self._db.execute("SELECT file FROM name WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
        return None if row is None else int(row[0])

    def keys_of(self, file: int) -> list[bytes]:
        return [key for (key,) in self._db.execute("SELECT key FROM name WHERE file = ? ORDER BY key", (file,)).fetchall()]

    # -- binding ----------------------------------------------------------------------

    def new_version(self, bucket: int) -> str:
        """The version id of what is written now."""
        return f"{self._make_id():016x}" if self.versioning(bucket) == "enabled" else NULL_VERSION

    def bind(self, bucket: int, key: bytes, file: int, *, since_ns: int | None = None) -> None:
        """Make *key*, which names nothing, name *file*, whose `links` count it already; since now, if that is not when it was written."""
        self._db.execute(
            "INSERT INTO name (bucket, key, file, version, since_ns) VALUES (?, ?, ?, ?, ?)",
            (bucket, key, file, self.new_version(bucket), since_ns),
        )

    def count_link(self, file: int) -> None:
        self._db.execute("UPDATE file SET links = links + 1 WHERE id = ?", (file,))

    def retire(self, bucket: int, key: bytes) -> bool:
        """Take away what *key* names now, keeping it as a version where the bucket does that; whether there was anything."""
        row = self._db.execute(_CURRENT, (bucket, key)).fetchone()
        if row is None:
            return False
        file, version, since_ns, self._versioning[bucket] = row
        if self._keeps(bucket, version):
            self._archive(bucket, key, file, version, since_ns)
        self._db.execute("DELETE FROM name WHERE bucket = ? AND key = ?", (bucket, key))
        self._unlink(file)
        return True

    def _unlink(self, file: int) -> None:
        """One name or history row less; a file without any goes."""
        if self._db.execute("DELETE FROM file WHERE id = ? AND links <= 1", (file,)).rowcount:
            self._extents.clear(file)
        else:
            self._db.execute("UPDATE file SET links = links - 1 WHERE id = ?", (file,))

    def remove(self, bucket: int, key: bytes, time_ns: int, *, mark: bool = False) -> None:
        """What a delete of *key* without a version id does; nothing where it names nothing, unless a *mark* is to stand there."""
        if self.retire(bucket, key) or (mark and self.versioning(bucket) is not None):
            self.mark_deleted(bucket, key, time_ns)

    # -- versions ---------------------------------------------------------------------

    def _keeps(self, bucket: int, version: str) -> bool:
        state = self.versioning(bucket)
        return state == "enabled" or (state == "suspended" and version != NULL_VERSION)

    def before_rewrite(self, file: int) -> None:
        """*file* is about to get new content under its id: keep the old one for every key that names it."""
        rows = self._db.execute("SELECT bucket, key, version, since_ns FROM name WHERE file = ? ORDER BY key", (file,)).fetchall()
        for bucket, key, version, since_ns in rows:
            if self.versioning(bucket) == "off":
                return
            if self._keeps(bucket, version):
                self._archive(bucket, key, file, version, since_ns)
            self.make_room(bucket, key)
            renewed = (self.new_version(bucket), bucket, key)
            self._db.execute("UPDATE name SET version = ?, since_ns = NULL WHERE bucket = ? AND key = ?", renewed)

    def mark_deleted(self, bucket: int, key: bytes, time_ns: int) -> None:
        """Leave a delete marker, where the bucket has such things."""
        if self.versioning(bucket) != "off":
            self.make_room(bucket, key)
            self._remember(bucket, key, self.new_version(bucket), None, time_ns)

    def make_room(self, bucket: int, key: bytes) -> None:
        """*key* is about to get a new version. While versioning is suspended there is one null version, the latest."""
        if self.versioning(bucket) == "suspended":
            self.drop_version(bucket, key, NULL_VERSION)

    def _archive(self, bucket: int, key: bytes, file: int, version: str, since_ns: int | None) -> None:
        kept = -self._make_id()
        self._db.execute(
            "INSERT INTO file (id, bucket, size, etag, mtime_ns, content_type, storage_class, metadata, links, extra) "
            "SELECT ?, bucket, size, etag, mtime_ns, content_type, storage_class, metadata, 1, extra FROM file WHERE id = ?",
            (kept, file),
        )
        self._extents.copy(file, kept)
        (mtime_ns,) = self._db.execute("SELECT mtime_ns FROM file WHERE id = ?", (kept,)).fetchone()
        self._remember(bucket, key, version, kept, mtime_ns if since_ns is None else since_ns)

    def _remember(self, bucket: int, key: bytes, version: str, file: int | None, mtime_ns: int) -> None:
        self._db.execute(
            "INSERT INTO history (bucket, key, rank, version, file, mtime_ns) VALUES (?, ?, ?, ?, ?, ?)",
            (bucket, key, self._make_id(), version, file, mtime_ns),
        )

    def drop_version(self, bucket: int, key: bytes, version: str) -> None:
        """Remove a version or delete marker from the history; idempotent."""
        row = self._db.execute(
            "SELECT rank, file FROM history WHERE bucket = ? AND key = ? AND version = ?", (bucket, key, version)
        ).fetchone()
        if row is None:
            return
        self._db.execute("DELETE FROM history WHERE bucket = ? AND key = ? AND rank = ?", (bucket, key, row[0]))
        if row[1] is not None:
            self._unlink(row[1])

    def drop_current(self, bucket: int, key: bytes) -> None:
        """Remove the current version for good; nothing of it stays in history."""
        file = self.file_of(bucket, key)
        if file is not None:
            self._db.execute("DELETE FROM name WHERE bucket = ? AND key = ?", (bucket, key))
            self._unlink(file)

    def drop_all(self, bucket: int) -> None:
        """Remove every name and version of a bucket. A live one is empty before it is dropped."""
        for (key,) in self._db.execute("SELECT key FROM name WHERE bucket = ?", (bucket,)).fetchall():
            self.drop_current(bucket, key)
        for key, version in self._db.execute("SELECT key, version FROM history WHERE bucket = ?", (bucket,)).fetchall():
            self.drop_version(bucket, key, version)

    def promote(self, bucket: int, key: bytes, file: int) -> None:
        """Where nothing is current and the newest of the history is no marker, it becomes current, as the file *file*."""
        row = self._db.execute(
            "SELECT rank, version, file, mtime_ns FROM history WHERE bucket = ? AND key = ? ORDER BY rank DESC LIMIT 1", (bucket, key)
        ).fetchone()
        if row is None or row[2] is None or self.file_of(bucket, key) is not None:
            return
        rank, version, kept, since_ns = row
        self._db.execute("UPDATE file SET id = ? WHERE id = ?", (file, kept))
        self._extents.move(kept, file)
        self._db.execute("DELETE FROM history WHERE bucket = ? AND key = ? AND rank = ?", (bucket, key, rank))
        self._db.execute(
            "INSERT INTO name (bucket, key, file, version, since_ns) VALUES (?, ?, ?, ?, ?)", (bucket, key, file, version, since_ns)
        )

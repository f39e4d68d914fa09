"""The state machine of the store: what each operation does to the index. Live commits and replay both come through here (I1).

Owns: the meaning of every operation.
Must not know: the log, locks, who asks. Deterministic: the same records give the same rows.

An operation whose ground is gone (a power cut dropped the record that laid it) does nothing; one that names a body which is not there takes
its whole record with it. Live commits were validated before, so they never meet either.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from s3mount.engine.extents import Extents, Place
from s3mount.engine.history import Names
from s3mount.engine.names import end_of
from s3mount.engine.records import (
    BeginUpload,
    Complete,
    DropBucket,
    EndUpload,
    Exchange,
    Link,
    MakeBucket,
    Move,
    NewBody,
    PutPart,
    Record,
    Remove,
    RemoveVersion,
    Rename,
    RenamePrefix,
    Rows,
    SetExtra,
    SetMetadata,
    SetSetting,
    SetVersioning,
    Write,
    made_id,
    references,
)
from s3mount.engine.schema import LOGGED_TABLES

# size, etag, mtime_ns, content_type, storage_class, metadata, extra
Attributes = tuple[Any, ...]

# Begins no key: 0xFF is no byte of UTF-8. Where names wait while they are exchanged.
_ASIDE = b"\xff"


def apply(db: sqlite3.Connection, record: Record, seq: int, inline_at: tuple[int, int] | None) -> bool:
    """Apply one record inside the caller's transaction; *inline_at* is (segment, offset) of its first inline body.

    False: a body that it refers to is not there, so it did not happen.
    """
    change = _Change(db, record, seq, inline_at)
    if not all(map(change.extents.holds, references(record))):
        return False
    for op in record.ops:
        _METHODS[type(op)](change, op)
    change.extents.settle()
    return True


def places_of(bodies: Sequence[NewBody], inline_at: tuple[int, int] | None) -> Iterator[Place]:
    """Where each new body of a record lies, if its inline bodies stand one behind the other from *inline_at* on."""
    if inline_at is None:
        yield from (None for _ in bodies)
        return
    segment, offset = inline_at
    for body in bodies:
        yield None if body.name else (segment, offset)
        offset += 0 if body.name else body.size


class _Change:
    """One record on its way into the index."""

    def __init__(self, db: sqlite3.Connection, record: Record, seq: int, inline_at: tuple[int, int] | None) -> None:
        self.db = db
        places = tuple(places_of(record.bodies, inline_at))
        self.extents = Extents(db, seq, record.bodies, places)
        self._seq = seq
        self._numbers = itertools.count(len(record.bodies))
        self.names = Names(db, self.extents, self._make_id)

    def _make_id(self) -> int:
        return made_id(self._seq, next(self._numbers))

    # -- buckets ----------------------------------------------------------------------

    def make_bucket(self, op: MakeBucket) -> None:
        self.db.execute("INSERT OR IGNORE INTO bucket VALUES (?, ?, ?, 'off')", (op.bucket, op.name, op.created_ns))

    def drop_bucket(self, op: DropBucket) -> None:
        self.names.drop_all(op.bucket)
        for (upload,) in self.db.execute("SELECT id FROM upload WHERE bucket = ?", (op.bucket,)).fetchall():
            self.end_upload(EndUpload(upload))
        self.db.execute("DELETE FROM setting WHERE bucket = ?", (op.bucket,))
        self.db.execute("DELETE FROM bucket WHERE id = ?", (op.bucket,))
        self.names.forget(op.bucket)

    def set_setting(self, op: SetSetting) -> None:
        if op.value is None:
            self.db.execute("DELETE FROM setting WHERE bucket = ? AND name = ?", (op.bucket, op.name))
        elif self.names.versioning(op.bucket) is not None:
            self.db.execute("INSERT OR REPLACE INTO setting (bucket, name, value) VALUES (?, ?, ?)", (op.bucket, op.name, op.value))

    def set_versioning(self, op: SetVersioning) -> None:
        self.db.execute("UPDATE bucket SET versioning = ? WHERE id = ?", (op.state, op.bucket))
        self.names.forget(op.bucket)

    # -- contents ---------------------------------------------------------------------

    def write(self, op: Write) -> None:
        old_size = self._base_size(op)
        if old_size is None or self.names.versioning(op.bucket) is None:
            return
        attributes = (op.size, op.etag, op.mtime_ns, op.content_type, op.storage_class, op.metadata, op.extra)
        exists = op.key is None or not self._make_file(op.bucket, op.file, attributes)
        if op.key is None and not self._file_exists(op.file):
            return
        if exists:
            self.names.before_rewrite(op.file)
        if op.base_file != op.file:
            if exists:
                self.extents.clear(op.file)
            if op.base_file:
                self.extents.copy(op.base_file, op.file)
        if op.base_file:
            self.extents.splice(op.file, op.pieces, old_size, op.size)
        else:
            self.extents.fill(op.file, op.pieces)
        if exists:
            self._rewrite_file(op.file, attributes)
        if op.key is not None:
            self._make_name(op.bucket, op.key, op.file, counted=not exists)

    def _base_size(self, op: Write) -> int | None:
        """How long the content is that *op* builds on; None if that is not there any more."""
        if not op.base_file:
            return 0
        row = self.db.execute("SELECT size FROM file WHERE id = ? AND etag = ?", (op.base_file, op.base_etag)).fetchone()
        return None if row is None else int(row[0])

    def _file_exists(self, file: int) -> bool:
        return self.db.execute("SELECT 1 FROM file WHERE id = ?", (file,)).fetchone() is not None

    def _make_file(self, bucket: int, file: int, attributes: Attributes) -> bool:
        """A file about to get its first name; False if it exists already, unchanged."""
        made = self.db.execute(
            "INSERT OR IGNORE INTO file (id, bucket, size, etag, mtime_ns, content_type, storage_class, metadata, extra, links) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
            (file, bucket, *attributes),
        )
        return made.rowcount == 1

    def _rewrite_file(self, file: int, attributes: Attributes) -> None:
        self.db.execute(
            "UPDATE file SET size = ?, etag = ?, mtime_ns = ?, content_type = ?, storage_class = ?, metadata = ?, extra = ? WHERE id = ?",
            (*attributes, file),
        )

    def _make_name(self, bucket: int, key: bytes, file: int, *, counted: bool = False) -> None:
        """Make *key* name *file*; *counted*: its `links` count that already."""
        former = self.names.file_of(bucket, key)
        if former == file:
            return
        if former is not None:
            self.names.retire(bucket, key)
        self.names.make_room(bucket, key)
        if not counted:
            self.names.count_link(file)
        self.names.bind(bucket, key, file)

    def set_metadata(self, op: SetMetadata) -> None:
        self.db.execute("UPDATE file SET metadata = ? WHERE id = ?", (op.metadata, op.file))

    def set_extra(self, op: SetExtra) -> None:
        self.db.execute("UPDATE file SET extra = ? WHERE id = ?", (op.extra, op.file))

    def move(self, op: Move) -> None:
        for body, number in op.pairs:
            self.extents.relocate(body, number)

    # -- names ------------------------------------------------------------------------

    def remove(self, op: Remove) -> None:
        for key in op.keys:
            self.names.remove(op.bucket, key, op.time_ns, mark=op.mark)

    def remove_version(self, op: RemoveVersion) -> None:
        row = self.db.execute("SELECT version FROM name WHERE bucket = ? AND key = ?", (op.bucket, op.key)).fetchone()
        if row is not None and row[0] == op.version:
            self.names.drop_current(op.bucket, op.key)
        else:
            self.names.drop_version(op.bucket, op.key, op.version)
        self.names.promote(op.bucket, op.key, self._make_id())

    def link(self, op: Link) -> None:
        row = self.db.execute("SELECT 1 FROM file WHERE id = ? AND bucket = ?", (op.file, op.bucket)).fetchone()
        if row is not None:
            self._make_name(op.bucket, op.key, op.file)

    def rename(self, op: Rename) -> None:
        source, target = (self.names.file_of(op.bucket, key) for key in (op.source, op.target))
        if source is None or source == target or not self._is_content(source, op.etag):
            return
        if self.names.versioning(op.bucket) != "off":
            self._move_with_versions(op.bucket, [(op.source, op.target)], op.time_ns)
            return
        if target is not None:
            self.names.retire(op.bucket, op.target)
        self._rename_key(op.bucket, op.source, op.target)

    def _is_content(self, file: int, etag: str) -> bool:
        """Whether *file* holds the content *etag* ("": any)."""
        return not etag or self.db.execute("SELECT 1 FROM file WHERE id = ? AND etag = ?", (file, etag)).fetchone() is not None

    def rename_prefix(self, op: RenamePrefix) -> None:
        if self._first_under(op.bucket, op.source) is None or self._holds_below(op.bucket, op.target):
            return
        if self.names.versioning(op.bucket) != "off":
            self.names.remove(op.bucket, op.target, op.time_ns)
            self._move_with_versions(op.bucket, self._renamed(op.bucket, op.source, op.target), op.time_ns)
            return
        self.names.retire(op.bucket, op.target)
        self._shift(op.bucket, op.source, op.target)

    def exchange(self, op: Exchange) -> None:
        a_to, b_to = exchanged(op.a, op.b)
        if self._first_at(op.bucket, op.a) is None or self._first_at(op.bucket, op.b) is None:
            return
        if any(self._first_at(op.bucket, name) is not None for name in {a_to, b_to} - {op.a, op.b}):
            return
        if self.names.versioning(op.bucket) != "off":
            moves = [*self._renamed(op.bucket, op.a, a_to), *self._renamed(op.bucket, op.b, b_to)]
            self._move_with_versions(op.bucket, moves, op.time_ns)
            return
        self._shift(op.bucket, op.a, _ASIDE + op.a)
        self._shift(op.bucket, op.b, b_to)
        self._shift(op.bucket, _ASIDE + op.a, a_to)

    def _rename_key(self, bucket: int, source: bytes, target: bytes) -> None:
        self.db.execute("UPDATE name SET key = ? WHERE bucket = ? AND key = ?", (target, bucket, source))

    def _shift(self, bucket: int, source: bytes, target: bytes) -> None:
        """Rename a name, a key or every key under a prefix; nothing is in the way."""
        if not source.endswith(b"/"):
            self._rename_key(bucket, source, target)
            return
        # Insert and delete touch the B-trees in order; an UPDATE of the same keys takes more than twice as long.
        where = (bucket, source, end_of(source))
        self.db.execute(
            "INSERT INTO name (bucket, key, file, version) SELECT bucket, CAST(? || substr(key, ?) AS BLOB), file, version "
            "FROM name WHERE bucket = ? AND key >= ? AND key < ?",
            (target, len(source) + 1, *where),
        )
        self.db.execute("DELETE FROM name WHERE bucket = ? AND key >= ? AND key < ?", where)

    def _first_under(self, bucket: int, prefix: bytes, behind: bytes = b"") -> bytes | None:
        row = self.db.execute(
            "SELECT key FROM name WHERE bucket = ? AND key >= ? AND key < ? LIMIT 1", (bucket, prefix + behind, end_of(prefix))
        ).fetchone()
        return None if row is None else row[0]

    def _holds_below(self, bucket: int, prefix: bytes) -> bool:
        """Whether a key other than *prefix* itself begins with it."""
        return self._first_under(bucket, prefix, behind=b"\0") is not None

    def _first_at(self, bucket: int, name: bytes) -> object | None:
        return self._first_under(bucket, name) if name.endswith(b"/") else self.names.file_of(bucket, name)

    def _renamed(self, bucket: int, source: bytes, target: bytes) -> list[tuple[bytes, bytes]]:
        if not source.endswith(b"/"):
            return [(source, target)]
        rows = self.db.execute(
            "SELECT key FROM name WHERE bucket = ? AND key >= ? AND key < ? ORDER BY key", (bucket, source, end_of(source))
        ).fetchall()
        return [(key, target + key[len(source) :]) for (key,) in rows]

    def _move_with_versions(self, bucket: int, moves: Iterable[tuple[bytes, bytes]], time_ns: int) -> None:
        """Rename keys at once. Each source keeps its versions and gets a delete marker, each target a new version."""
        files = [(source, target, self.names.file_of(bucket, source)) for source, target in moves]
        for source, _, file in files:
            assert file is not None
            self.names.count_link(file)
            self.names.retire(bucket, source)
        targets = {target for _, target, _ in files}
        for source in (source for source, _, _ in files if source not in targets):
            self.names.mark_deleted(bucket, source, time_ns)
        for _, target, file in files:
            assert file is not None
            self.names.retire(bucket, target)
            self.names.make_room(bucket, target)
            self.names.bind(bucket, target, file, since_ns=time_ns)

    # -- uploads ----------------------------------------------------------------------

    def begin_upload(self, op: BeginUpload) -> None:
        if self.names.versioning(op.bucket) is not None:
            self.db.execute(
                "INSERT INTO upload (id, bucket, key, started_ns, condition, file, content_type, storage_class, metadata, extra) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(op.upload, op.bucket, op.key, op.started_ns, op.condition, op.file),
                    *(op.content_type, op.storage_class, op.metadata, op.extra),
                ),
            )

    def put_part(self, op: PutPart) -> None:
        if self.db.execute("SELECT 1 FROM upload WHERE id = ?", (op.upload,)).fetchone() is None:
            return
        file = -self._make_id()
        self._drop_parts("upload = ? AND number = ?", op.upload, op.number)
        self.extents.fill(file, op.pieces)
        row = (op.upload, op.number, file, op.size, op.etag, op.mtime_ns, op.extra)
        self.db.execute("INSERT INTO part (upload, number, file, size, etag, mtime_ns, extra) VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def complete(self, op: Complete) -> None:
        upload = self.db.execute(
            "SELECT bucket, content_type, storage_class, metadata, coalesce(?, extra) FROM upload WHERE id = ?", (op.extra, op.upload)
        ).fetchone()
        rows = self.db.execute("SELECT number, file, size FROM part WHERE upload = ?", (op.upload,)).fetchall()
        parts = {number: (file, size) for number, file, size in rows}
        if upload is None or not parts.keys() >= set(op.parts):
            return
        bucket, *of_upload = upload
        attributes = (sum(parts[number][1] for number in op.parts), op.etag, op.mtime_ns, *of_upload)
        exists = op.key is None or not self._make_file(bucket, op.file, attributes)
        if op.key is None and not self._file_exists(op.file):
            return
        if exists:
            self.names.before_rewrite(op.file)
            self.extents.clear(op.file)
        size = 0
        for number in op.parts:
            self.extents.move(parts[number][0], op.file, size)
            size += parts[number][1]
        if exists:
            self._rewrite_file(op.file, attributes)
        if op.key is not None:
            self._make_name(bucket, op.key, op.file, counted=not exists)
        self.end_upload(EndUpload(op.upload))

    def end_upload(self, op: EndUpload) -> None:
        self._drop_parts("upload = ?", op.upload)
        self.db.execute("DELETE FROM upload WHERE id = ?", (op.upload,))

    def _drop_parts(self, where: str, *values: object) -> None:
        for (file,) in self.db.execute(f"SELECT file FROM part WHERE {where}", values).fetchall():
            self.extents.clear(file)
        self.db.execute(f"DELETE FROM part WHERE {where}", values)

    # -- snapshots --------------------------------------------------------------------

    def rows(self, op: Rows) -> None:
        if op.table not in LOGGED_TABLES or not op.rows:
            return
        columns = [row[1] for row in self.db.execute(f"PRAGMA table_info({op.table})")][: len(op.rows[0])]
        marks = ", ".join("?" * len(columns))
        self.db.executemany(f"INSERT OR REPLACE INTO {op.table} ({', '.join(columns)}) VALUES ({marks})", op.rows)


def exchanged(a: bytes, b: bytes) -> tuple[bytes, bytes]:
    """What the names *a* and *b* are called after their exchange: each keeps its kind, a key or a prefix."""
    return b.rstrip(b"/") + (b"/" if a.endswith(b"/") else b""), a.rstrip(b"/") + (b"/" if b.endswith(b"/") else b"")


_METHODS: dict[type[Any], Callable[[_Change, Any], None]] = {
    MakeBucket: _Change.make_bucket,
    DropBucket: _Change.drop_bucket,
    SetVersioning: _Change.set_versioning,
    Write: _Change.write,
    SetMetadata: _Change.set_metadata,
    SetExtra: _Change.set_extra,
    SetSetting: _Change.set_setting,
    Remove: _Change.remove,
    RemoveVersion: _Change.remove_version,
    Rename: _Change.rename,
    RenamePrefix: _Change.rename_prefix,
    Exchange: _Change.exchange,
    Link: _Change.link,
    BeginUpload: _Change.begin_upload,
    PutPart: _Change.put_part,
    Complete: _Change.complete,
    EndUpload: _Change.end_upload,
    Move: _Change.move,
    Rows: _Change.rows,
}

"""What the index answers: buckets, one object, a name, a page of a listing, the spans of a content.

Owns: the reading SQL, and rows -> values. Must not know: connections, locks.

Each function is one statement where it can be, so that it sees one state without a transaction. The bucket is found by its name in the same
statement; only an empty answer asks whether there is such a bucket at all.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Generator, Sequence
from typing import Any

from s3mount.engine.names import end_of, rolled_up, sought_bytes
from s3mount.engine.records import unpack_metadata
from s3mount.engine.spans import InBody, InLog, Span, Spans
from s3mount.engine.values import BucketInfo
from s3mount.errors import NoSuchBucket, NotFound
from s3mount.model import ETag, Found, Key, ObjectInfo, Page

Row = Sequence[Any]

_COLUMNS = "n.key, f.size, f.etag, f.mtime_ns, f.content_type, f.storage_class, f.metadata, f.id, f.links, n.version, f.extra"
_BUCKET = "(SELECT id FROM bucket WHERE name = ?)"
_NAMED_IN = (
    "SELECT b.id, f.id, f.etag FROM bucket b LEFT JOIN name n ON n.bucket = b.id AND n.key = ? LEFT JOIN file f ON f.id = n.file "
    "WHERE b.name = ?"
)
_HEAD = f"SELECT {_COLUMNS} FROM name n JOIN file f ON f.id = n.file WHERE n.bucket = {_BUCKET} AND n.key = ?"
_RANGE = (
    f"SELECT {_COLUMNS} FROM name n CROSS JOIN file f ON f.id = n.file WHERE n.bucket = {{}} AND n.key >= ? AND n.key < ? ORDER BY n.key"
)
_FIND = (
    f"{_HEAD} UNION ALL SELECT * FROM ({_RANGE.format(_BUCKET)} LIMIT 2) "
    f"UNION ALL SELECT {', '.join(['NULL'] * len(_COLUMNS.split(',')))} FROM bucket WHERE name = ?"
)
_LIST = _RANGE.format("?")
_NEXT = "SELECT key FROM name WHERE bucket = ? AND key >= ? AND key < ? ORDER BY key LIMIT 1"
_HEAD_IN = f"SELECT {_COLUMNS} FROM name n JOIN file f ON f.id = n.file WHERE n.bucket = ? AND n.key = ? AND n.file = ?"
_HEAD_BY_FILE = f"SELECT {_COLUMNS} FROM file f JOIN name n ON n.file = f.id WHERE f.id = ? ORDER BY n.key LIMIT 1"
_SPANS = """
    SELECT e.offset, e.length, e.body, b.name, b.segment, coalesce(b.offset, 0) + e.body_offset
    FROM extent e LEFT JOIN body b ON b.id = e.body WHERE e.file = ? AND e.offset >= ? AND e.offset < ? ORDER BY e.offset LIMIT ?
"""
_VERSION = f"""
    SELECT {_COLUMNS} FROM name n JOIN file f ON f.id = n.file WHERE n.bucket = ?1 AND n.key = ?2 AND n.version = ?3
    UNION ALL
    SELECT {_COLUMNS} FROM history n JOIN file f ON f.id = n.file WHERE n.bucket = ?1 AND n.key = ?2 AND n.version = ?3
"""

# No offset is higher: SQLite's integers end there.
MOST = (1 << 63) - 1

# What S3 calls the version that was made without versioning.
NULL_ID = "null"


def info_of(row: Row) -> ObjectInfo:
    return ObjectInfo(
        Key(row[0].decode(errors="surrogatepass")),
        row[1],
        ETag(row[2]),
        row[3],
        row[4],
        row[5],
        unpack_metadata(row[6]),
        row[7],
        row[8],
        row[9] or None,
        row[10],
    )


# -- buckets --------------------------------------------------------------------------


def buckets(db: sqlite3.Connection) -> list[BucketInfo]:
    return [BucketInfo(*row) for row in db.execute("SELECT name, created_ns, versioning, id FROM bucket ORDER BY name")]


def require_bucket(db: sqlite3.Connection, bucket: str) -> BucketInfo:
    """Raises NoSuchBucket."""
    row = db.execute("SELECT name, created_ns, versioning, id FROM bucket WHERE name = ?", (bucket,)).fetchone()
    if row is None:
        raise NoSuchBucket(f"There is no bucket {bucket!r}.")
    return BucketInfo(*row)


# -- objects --------------------------------------------------------------------------


def named_in(db: sqlite3.Connection, bucket: str, key: bytes) -> tuple[int, int, str]:
    """The bucket, and file and ETag that *key* names in it: 0 and "" for none. Raises NoSuchBucket."""
    row = db.execute(_NAMED_IN, (key, bucket)).fetchone()
    if row is None:
        raise NoSuchBucket(f"There is no bucket {bucket!r}.")
    where, file, etag = row
    return where, file or 0, etag or ""


def head(db: sqlite3.Connection, bucket: str, key: str) -> ObjectInfo:
    """Raises NotFound, NoSuchBucket."""
    row = db.execute(_HEAD, (bucket, sought_bytes(key))).fetchone()
    if row is None:
        require_bucket(db, bucket)
        raise not_found(key)
    return info_of(row)


def not_found(key: str) -> NotFound:
    return NotFound(f"There is no object {key!r}.")


def by_file(db: sqlite3.Connection, bucket: int, file: int, key: bytes) -> ObjectInfo | None:
    """The object with this file id, under *key* if that names it, else under the first of its keys."""
    row = db.execute(_HEAD_IN, (bucket, key, file)).fetchone() or db.execute(_HEAD_BY_FILE, (file,)).fetchone()
    return None if row is None else info_of(row)


def find(db: sqlite3.Connection, bucket: str, name: str) -> Found:
    """Raises NoSuchBucket."""
    if not name:
        require_bucket(db, bucket)
        return Found(None, None, implied=True)
    key = sought_bytes(name)
    below = key + b"/"
    rows = db.execute(_FIND, (bucket, key, bucket, below, end_of(below), bucket)).fetchall()
    found: dict[bytes | None, Row] = {row[0]: row for row in rows}
    if found.pop(None, None) is None:  # what speaks of the bucket: most names that are looked up in vain are about to be made
        require_bucket(db, bucket)
    here, marker = found.pop(key, None), found.pop(below, None)
    return Found(None if here is None else info_of(here), None if marker is None else info_of(marker), implied=bool(found))


# -- listing --------------------------------------------------------------------------


def page(db: sqlite3.Connection, bucket: str, prefix: str, *, delimiter: str, after: str, limit: int) -> Page:
    """See `Engine.list`. On a connection that shows one state: a delimited page takes several statements."""
    where = require_bucket(db, bucket).id
    first, split = sought_bytes(prefix), sought_bytes(delimiter)
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    last = b""
    items = _items(db, where, first, split, _start(first, split, sought_bytes(after)))
    for group, row in itertools.islice(items, limit):
        if group is None:
            objects.append(info_of(row))
        else:
            prefixes.append(group.decode(errors="surrogatepass"))
        last = group or row[0]
    more = next(items, None) is not None
    items.close()
    return Page(tuple(objects), tuple(prefixes), last.decode(errors="surrogatepass") if more else None)


def _start(prefix: bytes, delimiter: bytes, after: bytes) -> bytes:
    """The least key that comes behind *after*: behind all of it, if it is a common prefix of this listing."""
    if not after:
        return prefix
    is_group = after.startswith(prefix) and rolled_up(after, prefix, delimiter) == after
    return max(prefix, end_of(after) if is_group else after + b"\0")


def _items(
    db: sqlite3.Connection, bucket: int, prefix: bytes, delimiter: bytes, start: bytes
) -> Generator[tuple[bytes | None, Row], None, None]:
    """(None, row) for a key, (common prefix, its first key) for each group, in order. Behind a group it seeks."""
    at: bytes | None = start
    end = end_of(prefix)
    while at is not None:
        rows = db.execute(_LIST, (bucket, at, end))
        at = None
        for row in rows:
            group = rolled_up(row[0], prefix, delimiter)
            yield group, row
            if group is not None:
                at = yield from _groups_behind(db, bucket, prefix, delimiter, group)
                break
        rows.close()


def _groups_behind(
    db: sqlite3.Connection, bucket: int, prefix: bytes, delimiter: bytes, group: bytes
) -> Generator[tuple[bytes | None, Row], None, bytes | None]:
    """The groups that follow *group* at once; gives the key that comes then and is in none, None at the end."""
    end = end_of(prefix)
    while (row := db.execute(_NEXT, (bucket, end_of(group), end)).fetchone()) is not None:
        following = rolled_up(row[0], prefix, delimiter)
        if following is None:
            return bytes(row[0])
        group = following
        yield group, row
    return None


# -- contents -------------------------------------------------------------------------


def spans(db: sqlite3.Connection, file: int, limit: int = -1) -> Spans:
    """Where the bytes of a file lie, in order; holes too. At most *limit* spans (-1: all)."""
    return Spans(map(_span, db.execute(_SPANS, (file, 0, MOST, limit)).fetchall()))


def spans_between(db: sqlite3.Connection, file: int, start: int, stop: int) -> list[Span]:
    """Those that begin between *start* and *stop*."""
    return [_span(row) for row in db.execute(_SPANS, (file, start, stop, -1)).fetchall()]


def _span(row: Row) -> Span:
    offset, length, body, name, segment, place = row
    return Span(offset, length, None if body is None else InBody(name, place) if name else InLog(segment, place))


def at_version(db: sqlite3.Connection, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
    """That version, or (None) the current one. Raises NotFound, NoSuchBucket."""
    return head(db, bucket, key) if version_id is None else version(db, bucket, key, version_id)


def version(db: sqlite3.Connection, bucket: str, key: str, version_id: str) -> ObjectInfo:
    """One version of *key*; its `file_id` is where its content is kept. Raises NotFound, NoSuchBucket."""
    where, raw, wanted = require_bucket(db, bucket).id, sought_bytes(key), "" if version_id == NULL_ID else version_id
    row = db.execute(_VERSION, (where, raw, wanted)).fetchone()
    if row is None:
        raise NotFound(f"There is no version {version_id!r} of {key!r}.")
    return info_of(row)

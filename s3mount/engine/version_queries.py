"""What the index answers about versions: pages of them, one of them, the marker that hides a key.

Owns: the reading SQL over name and history together, and rows -> values. Must not know: connections, locks.

A listing walks two cursors side by side, both in the order of keys: the current names, and the history, the newest first. What comes first
of a key is its latest version.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from s3mount.engine.names import end_of, rolled_up, sought_bytes
from s3mount.engine.queries import NULL_ID, require_bucket
from s3mount.engine.values import VersionInfo, VersionPage
from s3mount.model import Key

_COLUMNS = "f.size, f.etag, f.storage_class, f.extra"
_CURRENT = f"""
    SELECT n.key, n.version, n.file, coalesce(n.since_ns, f.mtime_ns), {_COLUMNS} FROM name n CROSS JOIN file f ON f.id = n.file
    WHERE n.bucket = ? AND n.key >= ? AND n.key < ? ORDER BY n.key
"""
_KEPT = f"""
    SELECT h.key, h.version, h.file, h.mtime_ns, {_COLUMNS} FROM history h LEFT JOIN file f ON f.id = h.file
    WHERE h.bucket = ? AND h.key >= ? AND h.key < ? ORDER BY h.key, h.rank DESC
"""
_FIRST_KEPT = f"""
    SELECT h.key, h.version, h.file, h.mtime_ns, {_COLUMNS} FROM history h LEFT JOIN file f ON f.id = h.file
    WHERE h.bucket = ? AND h.key = ? ORDER BY h.rank DESC LIMIT 1
"""

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a listing goes on: behind *version* of *key*, or behind all of *key* (None)."""

    key: str = ""
    version: str | None = None


def internal(version_id: str) -> str:
    """A version id as tables hold it."""
    return "" if version_id == NULL_ID else version_id


def versions(db: sqlite3.Connection, bucket: str, prefix: str) -> list[VersionInfo]:
    """Every version and delete marker of the keys under *prefix*: by key, the latest first. Raises NoSuchBucket."""
    first = sought_bytes(prefix)
    return [_info(row, latest=latest) for latest, row in _walk(db, require_bucket(db, bucket).id, first, end_of(first))]


def page(db: sqlite3.Connection, bucket: str, prefix: str, *, delimiter: str, after: Place, limit: int) -> VersionPage:
    """At most *limit* versions and common prefixes behind *after*. Raises NoSuchBucket."""
    where = require_bucket(db, bucket).id
    found: list[VersionInfo] = []
    prefixes: list[str] = []
    last: Place | None = None
    for item in _items(db, where, sought_bytes(prefix), sought_bytes(delimiter), after):
        if len(found) + len(prefixes) == limit:
            return VersionPage(tuple(found), tuple(prefixes), (last.key, last.version) if last else None)
        if isinstance(item, str):
            prefixes.append(item)
            last = Place(item)
        else:
            found.append(item)
            last = Place(item.key, item.version_id)
    return VersionPage(tuple(found), tuple(prefixes), None)


def marker(db: sqlite3.Connection, bucket: str, key: str, version_id: str | None) -> VersionInfo | None:
    """The delete marker with this id, or (None) the one that hides *key* now. Raises NoSuchBucket."""
    where, raw = require_bucket(db, bucket).id, sought_bytes(key)
    if version_id is None:
        if db.execute("SELECT 1 FROM name WHERE bucket = ? AND key = ?", (where, raw)).fetchone() is not None:
            return None
        row = db.execute(_FIRST_KEPT, (where, raw)).fetchone()
        return None if row is None or row[2] is not None else _info(row, latest=True)
    sought = _KEPT.replace("h.key >= ? AND h.key < ?", "h.key = ? AND h.version = ? AND h.file IS NULL")
    row = db.execute(sought, (where, raw, internal(version_id))).fetchone()
    return None if row is None else _info(row, latest=False)


def _items(db: sqlite3.Connection, bucket: int, prefix: bytes, delimiter: bytes, after: Place) -> Iterator[VersionInfo | str]:
    """Versions, and common prefixes as texts, in order. Behind a common prefix it seeks."""
    raw, end = sought_bytes(after.key), end_of(prefix)
    skipping = after.version is not None
    if not raw:
        at = prefix
    elif skipping:
        at = max(prefix, raw)
    else:
        at = max(prefix, end_of(raw) if raw.startswith(prefix) and rolled_up(raw, prefix, delimiter) == raw else raw + b"\0")
    while at < end:
        for latest, row in _walk(db, bucket, at, end):
            if skipping and row[0] == raw:
                skipping = row[1] != internal(after.version or "")
                continue
            skipping = False
            group = rolled_up(row[0], prefix, delimiter)
            if group is not None:
                yield group.decode(errors="surrogatepass")
                at = end_of(group)
                break
            yield _info(row, latest=latest)
        else:
            return


def _walk(db: sqlite3.Connection, bucket: int, start: bytes, end: bytes) -> Generator[tuple[bool, Row], None, None]:
    """(is it the latest of its key, row) from *start* on. The first of a key is its latest: *start* never lies within a key's versions."""
    former = None
    both = (db.execute(_CURRENT, (bucket, start, end)), db.execute(_KEPT, (bucket, start, end)))
    for row in heapq.merge(*both, key=lambda each: bytes(each[0])):
        yield row[0] != former, row
        former = row[0]


def _info(row: Row, *, latest: bool) -> VersionInfo:
    key, version, file, mtime_ns, size, etag, storage_class, extra = row
    name = Key(key.decode(errors="surrogatepass"))
    return VersionInfo(name, version or NULL_ID, latest, file is None, size or 0, etag or "", mtime_ns, storage_class or "STANDARD", extra)

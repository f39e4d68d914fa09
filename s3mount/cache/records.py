"""What HEAD told of versions, remembered in memory and on disk, across mounts.

Owns: the database's file, its format, its bound, and that a damaged one costs time only.
Must not know: directories, requests.

A record belongs to a key, an ETag and a time: changing an object's metadata alone leaves the ETag as it was, but not the time at which the
object was last modified. Of what this mount commits the store may see another time, by the seconds that the request took. So for some
seconds a version cannot be told from the same content described otherwise: a record is written only when it is older than that and still
the last of its id (what a kill loses then costs a HEAD), or when all ends well.

The file holds no names: its ids are hashes of bucket, key and ETag. It holds what users put into metadata, so it is theirs alone (0600).
Each value carries a checksum. It is a cache: whatever is wrong with it, it is dropped with a line in the log, and HEADs are sent again.
Several processes may use it; SQLite's rollback journal keeps them apart, and nothing waits for the disk.

    records(id, value, day)     id: 16 bytes; value: CRC-32 and JSON; day: when it was used last, for expelling
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from math import inf
from pathlib import Path
from typing import TypeVar

import trio
from cachetools import LRUCache

from s3mount.cache.tasks import Background
from s3mount.model import Key, MiB, ObjectInfo

T = TypeVar("T")

logger = logging.getLogger(__name__)

FORMAT = 1
NAME = "attributes.db"

# Records in memory, of about 300 bytes each.
IN_MEMORY = 40_000
# What the file may take: a million objects with a mount's usual metadata.
FILE_BYTES = 256 * MiB
# How many bytes of the file one record takes, about; a tenth of all go when the file is full.
RECORD_BYTES = 256
# How long records wait for others, to be written together.
WAIT_SECONDS = 1.0
# A record's day of use is written anew only when it is older: reading need not write.
DAYS = 7
# Seconds that may lie between a commit as this mount knows it and as the store lists it.
OWN_SECONDS = 3
# A record of this age is of another time than whatever happens to its object from now on: times are whole seconds.
RIPE_SECONDS = OWN_SECONDS + 2.0
# How long to wait for another process.
BUSY_SECONDS = 2.0


class MemoryRecords:
    """Records for as long as the process lives."""

    def __init__(self, identity: str = "", *, limit: int = IN_MEMORY) -> None:
        self._identity = identity
        self._held: LRUCache[bytes, bytes] = LRUCache(limit)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._held)} in memory>"

    def id_of(self, info: ObjectInfo) -> bytes:
        return hashlib.blake2b(f"{self._identity}\0{info.key}\0{info.etag}".encode(), digest_size=16).digest()

    async def get(self, infos: Sequence[ObjectInfo]) -> Mapping[Key, ObjectInfo]:
        """Those of *infos* that are remembered, with metadata and content type."""
        return self.held(infos)

    def held(self, infos: Iterable[ObjectInfo]) -> dict[Key, ObjectInfo]:
        found = {}
        for info in infos:
            value = self._held.get(self.id_of(info))
            if value is not None and (whole := unpacked(info, value)) is not None:
                found[info.key] = whole
        return found

    def put(self, infos: Sequence[ObjectInfo], *, own: bool = False) -> None:
        """Remember; *own*: commits of this mount."""
        for info in infos:
            self._held[self.id_of(info)] = packed(info, own=own)

    async def aclose(self) -> None:
        pass


class DiskRecords(MemoryRecords):
    """Records in a file of *folder*, besides."""

    def __init__(self, folder: Path, identity: str, *, limit: int = FILE_BYTES) -> None:
        super().__init__(identity)
        self._database = Database(folder / NAME, limit)
        self._thread = trio.CapacityLimiter(1)
        self._waiting: dict[bytes, tuple[float, bytes]] = {}
        self._background = Background()
        self._writing = False

    async def get(self, infos: Sequence[ObjectInfo]) -> Mapping[Key, ObjectInfo]:
        found = self.held(infos)
        missing = {self.id_of(info): info for info in infos if info.key not in found}
        if missing:
            nothing: dict[bytes, bytes] = {}
            values = await self._in_thread(lambda: self._database.get(list(missing)), nothing)
            for id_, value in values.items():
                if (whole := unpacked(missing[id_], value)) is not None:
                    self._held[id_] = value
                    found[whole.key] = whole
            found |= self.held(info for info in missing.values() if info.key not in found)  # told meanwhile
        return found

    def put(self, infos: Sequence[ObjectInfo], *, own: bool = False) -> None:
        super().put(infos, own=own)
        ripe = trio.current_time() + RIPE_SECONDS
        for info in infos:
            id_ = self.id_of(info)
            self._waiting.pop(id_, None)
            self._waiting[id_] = ripe, self._held[id_]
        if self._waiting and not self._writing:
            self._writing = True
            self._background.start(self._write_soon)

    async def _write_soon(self) -> None:
        try:
            while self._waiting:
                ripe, _ = next(iter(self._waiting.values()))
                await trio.sleep_until(ripe + WAIT_SECONDS)
                await self._write(trio.current_time())
        finally:
            self._writing = False

    async def _write(self, now: float = inf) -> None:
        """Write what is ripe *now*; all by default."""
        values = {id_: value for id_, (_, value) in takewhile(lambda waiting: waiting[1][0] <= now, self._waiting.items())}
        for id_ in values:
            del self._waiting[id_]
        if values:
            await self._in_thread(lambda: self._database.put(values), None)

    async def _in_thread(self, work: Callable[[], T], otherwise: T) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._thread)
        except (sqlite3.Error, OSError) as error:
            logger.warning("Remembered attributes are not used for now: %s", error)
            return otherwise

    async def aclose(self) -> None:
        """Write what waits."""
        await self._background.aclose()
        await self._write()
        await self._in_thread(self._database.close, None)


class Database:
    """The file. Blocking; one thread at a time. Opened when it is first used."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._connection: sqlite3.Connection | None = None

    def get(self, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        return self._mended(lambda connection: self._get(connection, ids))

    def put(self, values: Mapping[bytes, bytes]) -> None:
        self._mended(lambda connection: self._put(connection, values))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _mended(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do *work*; a file that is no database any more is replaced by a new one."""
        try:
            return work(self._opened())
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            logger.warning("%s is damaged (%s) and begun anew", self._path, error)
            self._drop()
            return work(self._opened())

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._connection.text_factory = bytes
            self._set_up(self._connection)
        return self._connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = OFF")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            raise sqlite3.DatabaseError(f"written by another version, {version}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS records (id BLOB PRIMARY KEY, value BLOB NOT NULL, day INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA user_version = {FORMAT}")

    def _drop(self) -> None:
        self.close()
        for path in (self._path, self._path.with_name(f"{NAME}-journal")):
            path.unlink(missing_ok=True)

    def _get(self, connection: sqlite3.Connection, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        found, old, today = {}, [], _today()
        for id_ in ids:
            row = connection.execute("SELECT value, day FROM records WHERE id = ?", (id_,)).fetchone()
            if row is not None and is_whole(row[0]):
                found[id_] = row[0]
                if row[1] < today - DAYS:
                    old.append((today, id_))
        if old:
            connection.executemany("UPDATE records SET day = ? WHERE id = ?", old)
        return found

    def _put(self, connection: sqlite3.Connection, values: Mapping[bytes, bytes]) -> None:
        today = _today()
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?)", [(id_, value, today) for id_, value in values.items()]
            )
            self._expel(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _expel(self, connection: sqlite3.Connection) -> None:
        """A tenth of the records, those that were used longest ago, where the file has grown too large: their room is used again."""
        many = max(1, self._limit // RECORD_BYTES // 10)
        while self._taken(connection) > self._limit:
            connection.execute("DELETE FROM records WHERE id IN (SELECT id FROM records ORDER BY day LIMIT ?)", (many,))

    def _taken(self, connection: sqlite3.Connection) -> int:
        """Bytes of the file that are in use."""
        pages, free, size = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size"))
        return int((pages - free) * size)


def packed(info: ObjectInfo, *, own: bool) -> bytes:
    """A record's value: what is remembered of a version, with its checksum."""
    seconds = info.mtime_ns // 10**9
    text = json.dumps([seconds, int(own), info.content_type, info.version_id, dict(info.metadata or {})], separators=(",", ":")).encode()
    return zlib.crc32(text).to_bytes(4, "big") + text


def is_whole(value: bytes) -> bool:
    return isinstance(value, bytes) and zlib.crc32(value[4:]) == int.from_bytes(value[:4], "big")


def unpacked(info: ObjectInfo, value: bytes) -> ObjectInfo | None:
    """*info*, as a listing told it, with what *value* remembers; None where that is of another time."""
    seconds, own, content_type, version_id, metadata = json.loads(value[4:])
    later = seconds - info.mtime_ns // 10**9
    if later and not (own and 0 < later <= OWN_SECONDS):
        return None
    return replace(info, content_type=content_type, version_id=info.version_id or version_id, metadata=metadata)


def _today() -> int:
    return int(time.time() // 86_400)

"""The journal: what was promised and is not in the store yet, on local disk, with its bytes.

Owns: the folder: its lock, the SQLite file, the files with bodies; when any of it is safe.
Must not know: stores, event loops, who sends what is in it. Everything here blocks; one thread at a time.

    folder/ (0700)   journal.sqlite (WAL)   bodies/   staging/ (the mount's own)   owner (locked by the process that sends)

A record is entered in one transaction with the removal of those that it replaces. Bodies up to `INLINE_BYTES` lie in the journal itself:
one sync for a small file. A larger one is a file, complete and synced before a record names it, and removed when no record names it any
more. Records may share bodies.

                      +---- done -------------------------------.
    entered --> QUEUED -- refused for good --> FAILED --discard--> gone
                   ^ `--- replaced before it was sent ----------^   ^
                   '------------- retry ------------'               |
    keep (a mount that commits at close could not) --> KEPT --------'
                   ^------------------ retry ----------'

The owner sends, and alone enters, marks and ends QUEUED records. Anybody else (`visit`) reads, keeps, and tells the owner by `wish` what
shall become of FAILED and KEPT ones; where there is no owner, he becomes it (`open`) and does it himself.

Invariants (`check`):
J1  Every body that a record names is there: its bytes in the journal, or a file that is long enough.
J2  Every body in the journal is named by a record.
J3  The pieces of a record join, from 0 to its size; what it keeps has a base.
J4  A key has at most two QUEUED records: one that may be under way, and what came after.
J5  No two records have the same commit id, unless it is that of deletions (none).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s3mount.errors import FROM_OS, AccessDenied, Busy, Corrupt, NewerFormat, NoSpace, NotFound, StoreError, Unavailable
from s3mount.model import Condition, Key, KiB, Metadata, ObjectInfo, StagedBytes
from s3mount.writeback.records import (
    Op,
    Piece,
    Record,
    State,
    base_from_text,
    base_to_text,
    condition_from_text,
    condition_to_text,
    metadata_from_text,
    metadata_to_text,
    pieces_from_text,
    pieces_to_text,
    require_joined,
)

FORMAT = 1

# Bodies up to this lie in the journal: a row costs one sync, a file of its own two, and 50 microseconds for its creation.
INLINE_BYTES = 128 * KiB
# A body of 30 KB in pages of 4 KiB takes twice the time to be synced.
PAGE_BYTES = 16 * KiB
# How long another process of ours may hold the write lock: it writes rows, syncs, and is gone.
BUSY_S = 20.0
COPY_BYTES = 1024 * KiB

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, op TEXT NOT NULL, state TEXT NOT NULL, condition TEXT NOT NULL,
    commit_id TEXT NOT NULL, size INTEGER NOT NULL, pieces TEXT NOT NULL, base TEXT NOT NULL, metadata TEXT NOT NULL,
    content_type TEXT NOT NULL, storage_class TEXT NOT NULL, created_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL,
    attempts INTEGER NOT NULL, reason TEXT NOT NULL, error TEXT NOT NULL
);
CREATE TABLE bodies (name TEXT PRIMARY KEY, length INTEGER NOT NULL, data BLOB);
CREATE TABLE uses (record INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (record, body)) WITHOUT ROWID;
CREATE INDEX uses_of_body ON uses (body);
CREATE TABLE wishes (id INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT NOT NULL, record INTEGER NOT NULL);
"""
_COLUMNS = (
    "key, op, state, condition, commit_id, size, pieces, base, metadata, content_type, storage_class, created_ns, updated_ns, attempts,"
    " reason, error"
)


# -- changes: what `apply` takes ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enter:
    """A new record. `bodies`: its new ones by name, their bytes, or the length of the file that is in place already."""

    record: Record
    bodies: Mapping[str, bytes | int] = field(default_factory=dict)
    replaces: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Leave:
    """Records that are done, or not wanted any more. Unknown ones are passed over."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Amend:
    """The record `record.id` shall say what *record* says; its bodies are in the journal."""

    record: Record


Change = Enter | Leave | Amend


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody without the lock wants done with a FAILED or KEPT record: `retry` or `discard`."""

    verb: str
    record: int


class Journal:
    """One folder. `owned`: this process may send."""

    def __init__(self, folder: Path, base: sqlite3.Connection, lock: int) -> None:
        self.folder = folder
        self._base = base
        self._lock = lock

    def __repr__(self) -> str:
        return f"<Journal {self.folder}{' owned' if self.owned else ''}>"

    @property
    def owned(self) -> bool:
        return self._lock >= 0

    # -- opening and closing ------------------------------------------------------------

    @classmethod
    def open(cls, folder: Path, *, about: Mapping[str, str] | None = None) -> Journal:
        """Become the owner of *folder*, which is made where it is missing; *about* says what bucket it belongs to, for people.

        Raises Busy while another process is, NewerFormat, Corrupt, NoSpace, AccessDenied, Unavailable.
        """
        with _told(folder):
            for path in (folder, folder / "bodies", folder / "staging"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise Busy(f"Another process writes what waits in {folder} to the bucket.") from None
            try:
                journal = cls(folder, _connected(folder), lock)
                journal._tell(about or {})
                journal._sweep()
            except BaseException:
                os.close(lock)
                raise
        return journal

    @classmethod
    def visit(cls, folder: Path, *, create: bool = False) -> Journal:
        """Read *folder*, `keep` and `wish` there, whoever owns it. Raises NotFound where there is no journal (without *create*)."""
        with _told(folder):
            if create:
                for path in (folder, folder / "bodies", folder / "staging"):
                    path.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not (folder / "journal.sqlite").exists():
                raise NotFound(f"There is no journal in {folder}.")
            return cls(folder, _connected(folder), -1)

    def close(self) -> None:
        """Idempotent. What is in it stays."""
        self._base.close()
        if self.owned:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def staging(self) -> Path:
        """A folder on the same medium, for bytes on their way here; emptied when an owner begins."""
        return self.folder / "staging"

    # -- reading ------------------------------------------------------------------------

    @property
    def about(self) -> dict[str, str]:
        """What bucket it belongs to: `url` and what else was said when it was opened; and `progress`, see there."""
        with _told(self.folder):
            return dict(self._base.execute("SELECT name, text FROM about").fetchall())

    def records(self) -> list[Record]:
        """All, oldest first."""
        with _told(self.folder):
            rows = self._base.execute(f"SELECT id, {_COLUMNS} FROM records ORDER BY id").fetchall()
        return [_record(*row) for row in rows]

    def inline(self, body: str) -> bytes | None:
        """The bytes of a body that lies in the journal; None for one that is a file. Raises NotFound."""
        with _told(self.folder):
            row = self._base.execute("SELECT data FROM bodies WHERE name = ?", (body,)).fetchone()
        if row is None:
            raise NotFound(f"There is no body {body!r} in {self.folder}.")
        data: bytes | None = row[0]
        return data

    def path_of(self, body: str) -> Path:
        """Where a body lies that is a file."""
        return self.folder / "bodies" / body

    def read_into(self, body: str, position: int, buffer: memoryview) -> None:
        """Fill *buffer* from a body. Raises EOFError rather than come short, NotFound, OSError."""
        data = self.inline(body)
        if data is not None:
            piece = data[position : position + len(buffer)]
            if len(piece) != len(buffer):
                raise EOFError(f"body {body} ends before {position + len(buffer)}")
            buffer[:] = piece
            return
        with open(self.path_of(body), "rb", buffering=0) as file:
            read_all(file.fileno(), position, buffer)

    @property
    def progress(self) -> dict[str, object]:
        """What the owner last said of its work (see `WriteBack.progress`); empty where nobody ever did."""
        found: dict[str, object] = json.loads(self.about.get("progress", "{}"))
        return found

    @property
    def busy(self) -> bool:
        """Whether some process owns the folder right now (this one included)."""
        if self.owned:
            return True
        try:
            lock = os.open(self.folder / "owner", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(lock)

    # -- changing -----------------------------------------------------------------------

    def apply(self, changes: Sequence[Change], *, synced: bool = True) -> list[int]:
        """Carry out all of *changes* or none; the ids of those entered.

        On return they survive kill -9, and with *synced* a power cut. Bodies that nobody names any more are removed afterwards.
        Raises NoSpace, Unavailable.
        """
        entered: list[int] = []
        gone: list[str] = []
        with self._changing(synced=synced):
            for change in changes:
                match change:
                    case Enter():
                        entered.append(self._enter(change))
                        gone += self._leave(change.replaces)
                    case Leave(ids):
                        gone += self._leave(ids)
                    case Amend(record):
                        self._amend(record)
                        gone += self._unuse(record.id, record.bodies)
        self._remove(gone)
        return entered

    def note(self, progress: Mapping[str, object]) -> None:
        """Leave word for `progress`; not synced."""
        with self._changing(synced=False):
            self._base.execute("INSERT OR REPLACE INTO about VALUES ('progress', ?)", (json.dumps(dict(progress)),))

    def forget(self, names: Iterable[str]) -> None:
        """Take those of the bodies' files away that no record names: what was taken for them did not come to be. Never fails."""
        with suppress(StoreError), _told(self.folder):
            for name in names:
                if self._base.execute("SELECT 1 FROM bodies WHERE name = ?", (name,)).fetchone() is None:
                    self.path_of(name).unlink(missing_ok=True)

    # -- for those who do not own it ------------------------------------------------------

    def keep(
        self,
        key: Key,
        size: int,
        pieces: Sequence[Piece],
        bodies: Mapping[str, StagedBytes],
        *,
        reason: str,
        error: str,
        condition: Condition = None,
        base: ObjectInfo | None = None,
        metadata: Metadata | None = None,
        content_type: str = "application/octet-stream",
        storage_class: str = "STANDARD",
        commit_id: str = "",
    ) -> int:
        """Keep a content that could not be committed; its record's id. *bodies* are what `Stored` pieces name, copied here and synced.

        Raises NoSpace, Unavailable.
        """
        now = time.time_ns()
        record = Record(
            key=key,
            op=Op.PUT,
            state=State.KEPT,
            condition=condition,
            commit_id=commit_id or secrets.token_hex(16),
            size=size,
            pieces=tuple(pieces),
            base=base,
            metadata=metadata or {},
            content_type=content_type,
            storage_class=storage_class,
            created_ns=now,
            updated_ns=now,
            reason=reason,
            error=error,
        )
        require_joined(record.pieces, size)
        made: dict[str, bytes | int] = {}
        # Under the write lock, so that no owner who begins now takes the new files for left over.
        with self._changing(synced=True):
            try:
                for name, source in bodies.items():
                    made[name] = self.take(name, source)
                if any(isinstance(held, int) for held in made.values()):
                    self.sync_bodies()
                return self._enter(Enter(record, made))
            except BaseException:
                self._remove(made)
                raise

    def wish(self, verb: str, ids: Iterable[int]) -> None:
        """Ask the owner to `retry` or `discard` records."""
        with self._changing(synced=True):
            self._base.executemany("INSERT INTO wishes (verb, record) VALUES (?, ?)", [(verb, number) for number in ids])

    def take_wishes(self) -> list[Wish]:
        """For the owner: what was wished since it last asked."""
        with _told(self.folder):
            rows = self._base.execute("SELECT id, verb, record FROM wishes ORDER BY id").fetchall()
        if rows:
            with self._changing(synced=False):
                self._base.execute("DELETE FROM wishes WHERE id <= ?", (rows[-1][0],))
        return [Wish(verb, record) for _, verb, record in rows]

    def fulfil(self, wishes: Sequence[Wish]) -> list[Record]:
        """For the owner: carry *wishes* out; the records that are QUEUED again."""
        found = {record.id: record for record in self.records() if record.state is not State.QUEUED}
        wanted = [wish for wish in wishes if wish.record in found]
        again = [
            replace(found[wish.record], state=State.QUEUED, reason="", error="", updated_ns=time.time_ns())
            for wish in wanted
            if wish.verb == "retry"
        ]
        discarded = tuple(wish.record for wish in wanted if wish.verb == "discard")
        self.apply([Leave(discarded), *(Amend(record) for record in again)])
        return again

    # -- bodies -------------------------------------------------------------------------

    def take(self, name: str, source: StagedBytes) -> bytes | int:
        """Make the body *name* of *source*: its bytes where they are few, else the length of a synced file (see `sync_bodies`).

        A file on the same medium is linked, not copied. Raises NoSpace, Unavailable.
        """
        with _told(self.folder):
            if source.length <= INLINE_BYTES:
                data = bytearray(source.length)
                source.read_into(0, memoryview(data))
                return bytes(data)
            path = self.path_of(name)
            if source.path is None or not _linked(source.path, path):
                _copied(source, path)
            _sync(path)
            return source.length

    def sync_bodies(self) -> None:
        """On return the names of all files that were made by `take` are safe from a power cut."""
        with _told(self.folder):
            _sync(self.folder / "bodies")

    # -- within -------------------------------------------------------------------------

    @contextmanager
    def _changing(self, *, synced: bool) -> Iterator[None]:
        with _told(self.folder):
            self._base.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    def _enter(self, change: Enter) -> int:
        cursor = self._base.execute(f"INSERT INTO records ({_COLUMNS}) VALUES ({', '.join('?' * 16)})", _row(change.record))
        number = cursor.lastrowid
        assert number is not None
        for name in change.record.bodies - change.bodies.keys():
            if self._base.execute("SELECT 1 FROM bodies WHERE name = ?", (name,)).fetchone() is None:
                raise NotFound(f"The body {name!r} is gone.")
        for name, held in change.bodies.items():
            data, length = (None, held) if isinstance(held, int) else (held, len(held))
            self._base.execute("INSERT INTO bodies VALUES (?, ?, ?)", (name, length, data))
        self._base.executemany("INSERT INTO uses VALUES (?, ?)", [(number, name) for name in change.record.bodies])
        return number

    def _amend(self, record: Record) -> None:
        columns = ", ".join(f"{name.strip()} = ?" for name in _COLUMNS.split(","))
        self._base.execute(f"UPDATE records SET {columns} WHERE id = ?", (*_row(record), record.id))
        self._base.executemany("INSERT OR IGNORE INTO uses VALUES (?, ?)", [(record.id, name) for name in record.bodies])

    def _leave(self, ids: Sequence[int]) -> list[str]:
        """Remove records; the files of bodies that nobody names any more."""
        gone: list[str] = []
        for number in ids:
            self._base.execute("DELETE FROM records WHERE id = ?", (number,))
            gone += self._unuse(number, frozenset())
        return gone

    def _unuse(self, number: int, still: frozenset[str]) -> list[str]:
        names = [name for (name,) in self._base.execute("SELECT body FROM uses WHERE record = ?", (number,)) if name not in still]
        files: list[str] = []
        for name in names:
            self._base.execute("DELETE FROM uses WHERE record = ? AND body = ?", (number, name))
            if self._base.execute("SELECT 1 FROM uses WHERE body = ? LIMIT 1", (name,)).fetchone() is None:
                row = self._base.execute("DELETE FROM bodies WHERE name = ? RETURNING data IS NULL", (name,)).fetchall()
                files += [name for (is_file,) in row if is_file]
        return files

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(OSError):  # the next owner sweeps it
                self.path_of(name).unlink(missing_ok=True)

    def _tell(self, about: Mapping[str, str]) -> None:
        if dict(about).items() - self.about.items():
            with self._changing(synced=True):
                self._base.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", list(about.items()))

    def _sweep(self) -> None:
        """Remove what a former owner left half done: staged bytes, and files of bodies that no record names."""
        for path in self.staging.iterdir():
            path.unlink(missing_ok=True)
        with self._changing(synced=False):
            named = {name for (name,) in self._base.execute("SELECT name FROM bodies WHERE data IS NULL")}
            for path in (self.folder / "bodies").iterdir():
                if path.name not in named:
                    path.unlink(missing_ok=True)

    def check(self) -> None:
        """Assert the invariants."""
        records = self.records()
        bodies = dict(self._base.execute("SELECT name, coalesce(length(data), -length) FROM bodies").fetchall())
        used: set[str] = set()
        for record in records:
            used |= record.bodies
            require_joined(record.pieces, record.size)
            assert record.base is not None or not record.keeps, f"J3 {record}"
            for name in record.bodies:
                assert name in bodies, f"J1 {record.key}"
                length = bodies[name]
                assert length >= 0 or self.path_of(name).stat().st_size >= -length, f"J1 {record.key}"
        assert used == set(bodies), f"J2 {set(bodies) - used}"
        queued = [record.key for record in records if record.state is State.QUEUED]
        assert all(queued.count(key) <= 2 for key in set(queued)), "J4"
        commits = [record.commit_id for record in records if record.op is Op.PUT]
        assert len(commits) == len(set(commits)), "J5"


def _record(number: int, *row: Any) -> Record:
    key, op, state, condition, commit_id, size, pieces, base, metadata, kind, storage, created, updated, attempts, reason, error = row
    return Record(
        id=number,
        key=Key(key),
        op=Op(op),
        state=State(state),
        condition=condition_from_text(condition),
        commit_id=commit_id,
        size=size,
        pieces=pieces_from_text(pieces),
        base=base_from_text(base),
        metadata=metadata_from_text(metadata),
        content_type=kind,
        storage_class=storage,
        created_ns=created,
        updated_ns=updated,
        attempts=attempts,
        reason=reason,
        error=error,
    )


def _row(record: Record) -> tuple[object, ...]:
    return (
        record.key,
        record.op.value,
        record.state.value,
        condition_to_text(record.condition),
        record.commit_id,
        record.size,
        pieces_to_text(record.pieces),
        base_to_text(record.base),
        metadata_to_text(record.metadata),
        record.content_type,
        record.storage_class,
        record.created_ns,
        record.updated_ns,
        record.attempts,
        record.reason,
        record.error,
    )


def _connected(folder: Path) -> sqlite3.Connection:
    path = folder / "journal.sqlite"
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    base = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    try:
        (version,) = base.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise NewerFormat(f"A newer version of s3mount wrote the journal in {folder}.")
        if not version:
            base.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        base.execute("PRAGMA journal_mode = WAL")
        if not version:
            base.execute("BEGIN IMMEDIATE")
            if base.execute("PRAGMA user_version").fetchone() == (0,):
                for statement in _SCHEMA.split(";"):
                    base.execute(statement)
                base.execute(f"PRAGMA user_version = {FORMAT}")
            base.execute("COMMIT")
            _sync(folder)
            _sync(folder.parent)
    except BaseException:
        base.close()
        raise
    return base


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What SQLite and the system say, as errors of ours."""
    try:
        yield
    except OSError as error:
        kind: type[StoreError] = FROM_OS.get(error.errno or 0, Unavailable)
        raise kind(f"The write-back folder {folder} cannot be used: {error.strerror or error}.") from error
    except sqlite3.Error as error:
        raise _meaning(error)(f"The journal in {folder} cannot be used: {error}.") from error


def _meaning(error: sqlite3.Error) -> type[StoreError]:
    # The lowest byte is the primary result code.
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return NoSpace
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return AccessDenied
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Corrupt
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Busy
        case _:
            return Unavailable


def _linked(source: Path, path: Path) -> bool:
    try:
        os.link(source, path)
    except OSError:
        return False
    return True


def _copied(source: StagedBytes, path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        buffer = memoryview(bytearray(COPY_BYTES))
        for position in range(0, source.length, COPY_BYTES):
            piece = buffer[: min(COPY_BYTES, source.length - position)]
            source.read_into(position, piece)
            while piece:
                written = os.pwrite(fd, piece, position)
                piece, position = piece[written:], position + written
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def read_all(fd: int, position: int, buffer: memoryview) -> None:
    """Fill *buffer* from *position* of a file. Raises EOFError rather than come short."""
    while buffer:
        count = os.preadv(fd, [buffer], position)
        if not count:
            raise EOFError(f"a body ends before {position}")
        buffer, position = buffer[count:], position + count


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

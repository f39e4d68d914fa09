"""The index as a database file: connections, transactions, the log position it stands at, checkpoints.

Owns: SQLite's settings and life cycle.
Must not know: what is in the tables, but for the one row `state`; the write lock (its callers hold it where a method says so).

Readers borrow a connection from a pool: as many exist as threads ever read at once. Each statement outside of `snapshot` is a read
transaction of its own and sees what was committed last. There is one writing connection per process. While that has changes that are
acknowledged and not committed (`hidden`), whoever is about to look has them shown first.
SQLite before 3.51.3 may corrupt a database when checkpoints race writers of other processes: automatic checkpoints are off, they run under
the write lock, and connections are closed under it as well (the last one to close checkpoints).
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from s3mount.engine.schema import SCHEMA_VERSION, create
from s3mount.engine.segment import Position
from s3mount.errors import Corrupt, NoSpace, StoreError, Unavailable
from s3mount.model import MiB

log = logging.getLogger(__name__)

# A checkpoint copies the latest of each page that the write-ahead log holds and syncs them. A small commit writes about 28 KiB of pages:
# at 16 MiB the checkpoints took a third of the time of small puts, at 64 MiB a tenth.
CHECKPOINT_BYTES = 64 * MiB

# Page cache of the writer: what a rename of a million keys touches, so that its pages are written once. Used only as far as needed.
WRITER_CACHE_KIB = 256 * 1024
READER_CACHE_KIB = 8 * 1024

# Errors of SQLite that speak of the moment, and not of what is in the file.
_PASSING = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_IOERR",
    "SQLITE_CANTOPEN",
    "SQLITE_READONLY",
    "SQLITE_NOMEM",
    "SQLITE_INTERRUPT",
    "SQLITE_PERM",
)

# Only recovery of the write-ahead log (after a crash, by the first to open it) makes anybody wait.
BUSY_SECONDS = 30.0


class Index:
    """The index file at *path*, made if it is not there. Opened under the write lock.

    Raises sqlite3.DatabaseError where it is no database, or has other tables than ours; NoSpace, Unavailable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = Path(f"{path}-wal")
        self._idle: deque[sqlite3.Connection] = deque()
        self._all: list[sqlite3.Connection] = []
        self._closed = False
        self.hidden = False
        self.show: Callable[[], None] = lambda: None
        _make_private(path)
        try:
            self._writer = _connect(path, WRITER_CACHE_KIB)
        except sqlite3.DatabaseError as error:
            raise _unless_damaged(error) from error
        try:
            _prepare(self._writer)
        except sqlite3.DatabaseError as error:
            self._writer.close()
            raise _unless_damaged(error) from error

    # -- reading ----------------------------------------------------------------------

    def read(self) -> Borrowed:
        """`with index.read() as db`: a connection; each statement sees the latest state on its own."""
        return Borrowed(self)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection on which all statements see one state."""
        with self.read() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("COMMIT")

    def borrow(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._another()

    def give_back(self, db: sqlite3.Connection) -> None:
        self._idle.append(db)

    def _another(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("the index is closed")
        db = _connect(self._path, READER_CACHE_KIB)
        db.execute("PRAGMA query_only = ON")
        self._all.append(db)
        return db

    # -- writing (under the write lock) -----------------------------------------------

    @property
    def writer(self) -> sqlite3.Connection:
        """The writing connection, for statements inside `write`."""
        return self._writer

    def begin(self) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            raise translated(error) from error

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, rolled back by an exception."""
        self.begin()
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            if isinstance(error, sqlite3.DatabaseError):
                raise translated(error) from error
            raise

    @staticmethod
    def position(db: sqlite3.Connection) -> Position:
        """Just behind the last record that was applied."""
        return Position(*db.execute("SELECT segment, offset, seq, chain FROM state").fetchone())

    @staticmethod
    def set_position(db: sqlite3.Connection, at: Position) -> None:
        db.execute("UPDATE state SET segment = ?, offset = ?, seq = ?, chain = ?", (at.segment, at.offset, at.seq, at.chain))

    def is_checkpoint_due(self) -> bool:
        """Whether the write-ahead log holds much."""
        try:
            return os.stat(self._wal).st_size > CHECKPOINT_BYTES
        except FileNotFoundError:
            return False

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the database. It syncs.

        Readers are not disturbed; what they still need stays in the write-ahead log until the next time; all of it, on a full medium.
        """
        try:
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.OperationalError as error:
            log.info("The index was not checkpointed now: %s.", error)

    def close(self) -> None:
        """Idempotent. Nobody may be reading."""
        self._closed = True
        for db in self._all:
            db.close()
        self._all.clear()
        self._idle.clear()
        self._writer.close()


class Borrowed:
    """A reading connection for the time of a `with` block. What SQLite raises in it becomes a StoreError."""

    __slots__ = ("_db", "_index")

    def __init__(self, index: Index) -> None:
        self._index = index

    def __enter__(self) -> sqlite3.Connection:
        if self._index.hidden:
            self._index.show()
        self._db = self._index.borrow()
        return self._db

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._index.give_back(self._db)
        if isinstance(error, sqlite3.DatabaseError):
            raise translated(error) from error


def translated(error: sqlite3.DatabaseError) -> StoreError:
    """What an error of SQLite means to our caller."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_WRITE")):
        return NoSpace("The medium of the data folder is full: free some space.")
    if name.startswith(_PASSING):
        return Unavailable(f"The index cannot be used now: {error}.")
    return Corrupt(f"The index is damaged ({error}); 's3mount store rebuild' makes a new one.")


def _unless_damaged(error: sqlite3.DatabaseError) -> Exception:
    """The StoreError for an error that passes; *error* itself where the file is no index, so that another can be made."""
    meaning = translated(error)
    return error if isinstance(meaning, Corrupt) else meaning


def _make_private(path: Path) -> None:
    """The database is its owner's alone, as everything else in the folder; SQLite gives its other files the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass  # never opened but by SQLite: closing any descriptor of it would give SQLite's locks back


def _connect(path: Path, cache_kib: int) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        for setting in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "wal_autocheckpoint = 0",
            "temp_store = MEMORY",
            f"cache_size = -{cache_kib}",
            "mmap_size = 0",  # an I/O error in a mapped page would kill the process, and little is gained
            f"journal_size_limit = {CHECKPOINT_BYTES}",
        ):
            db.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    """Make the tables of a new index. Raises sqlite3.DatabaseError for an index of another schema."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if db.execute("SELECT 1 FROM sqlite_master").fetchone() is not None:
        raise sqlite3.DatabaseError(f"the index has schema {version}, not {SCHEMA_VERSION}")
    create(db)

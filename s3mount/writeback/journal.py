"""The journal: what was promised and is not in the store yet, on local disk, with its bytes.

Owns: the folder: the SQLite file, the files with bodies; when any of it is safe. (Its lock: see owner.)
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

The owner sends, and alone enters, marks and ends QUEUED records, and what the store refused. Anybody else (`visit`) reads and keeps; where
there is no owner, he becomes it (`open`) and does the rest himself.

Invariants (`check`):
J1  Every body that a record names is there: its bytes in the journal, or a file that is long enough.
J2  Every body in the journal is named by a record.
J3  The pieces of a record join, from 0 to its size; what it keeps has a base.
J4  A key has at most two QUEUED records: one that may be under way, and what came after.
J5  No two records have the same commit id, unless it is that of deletions (none).
J6  `shared` has the bodies that several records name, with how many more than one.

A journal of the former format (1) is read as it is by visitors, and made one of this format by whoever becomes its owner.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from s3mount.errors import Busy, NotFound, StoreError
from s3mount.model import Condition, Key, KiB, Metadata, ObjectInfo, StagedBytes
from s3mount.writeback.base import AMEND, COLUMNS, ENTER, NAME, connected, is_former, record_of, row_of, say_used, shrink, told, upgrade
from s3mount.writeback.bodies import copied, linked, read_all, sync
from s3mount.writeback.owner import is_owned, own
from s3mount.writeback.records import Op, Piece, Record, State, bodies_in, require_joined

# Bodies up to this lie in the journal: a row costs one sync, a file of its own two, and 50 microseconds for its creation.
INLINE_BYTES = 128 * KiB
# Who keeps what would be lost else waits for others that do the same, and copy gigabytes.
KEEP_S = 3600

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


class Journal:
    """One folder. `owned`: this process may send."""

    def __init__(self, folder: Path, base: sqlite3.Connection, lock: int) -> None:
        self.folder = folder
        self._base = base
        self._lock = lock
        self._synced: bool | None = None

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
        with told(folder):
            for path in (folder, folder / "bodies", folder / "staging"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = own(folder)
            if lock is None:
                raise Busy(f"Another process writes what waits in {folder} to the bucket.")
            try:
                journal = cls(folder, connected(folder), lock)
                upgrade(journal._base)
                journal._tell(about or {})
                journal._sweep()
            except BaseException:
                os.close(lock)
                raise
        return journal

    @classmethod
    def visit(cls, folder: Path, *, create: bool = False) -> Journal:
        """Read *folder*, `keep` there, whoever owns it. Raises NotFound where there is no journal (without *create*)."""
        with told(folder):
            if create:
                for path in (folder, folder / "bodies", folder / "staging"):
                    path.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not (folder / NAME).exists():
                raise NotFound(f"There is no journal in {folder}.")
            return cls(folder, connected(folder), -1)

    def close(self) -> None:
        """Idempotent. What is in it stays."""
        if self.owned:
            self.shrink()
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
        """What bucket it belongs to: `url` and what else was said when it was opened."""
        with told(self.folder):
            return dict(self._base.execute("SELECT name, text FROM about").fetchall())

    def records(self) -> list[Record]:
        """All, oldest first."""
        with told(self.folder):
            rows = self._base.execute(f"SELECT id, {COLUMNS} FROM records ORDER BY id").fetchall()
        return [record_of(*row) for row in rows]

    def inline(self, body: str) -> bytes | None:
        """The bytes of a body that lies in the journal; None for one that is a file. Raises NotFound."""
        with told(self.folder):
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
    def busy(self) -> bool:
        """Whether some process owns the folder right now (this one included)."""
        return self.owned or is_owned(self.folder)

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
                        gone += self._amend(record)
        self._remove(gone)
        return entered

    def forget(self, names: Iterable[str]) -> None:
        """Take those of the bodies' files away that no record names: what was taken for them did not come to be. Never fails."""
        with suppress(StoreError), told(self.folder):
            for name in names:
                if self._base.execute("SELECT 1 FROM bodies WHERE name = ?", (name,)).fetchone() is None:
                    self.path_of(name).unlink(missing_ok=True)

    def spare(self, ids: Sequence[int]) -> None:
        """Make room though the journal cannot be written: take the files away that only records *ids* name, which are done. Never fails.

        Who opens the journal before it was told finds those records without bytes, and their commits in the store.
        """
        with suppress(StoreError), told(self.folder):
            rows = (row for number in ids for row in self._base.execute("SELECT pieces FROM records WHERE id = ?", (number,)))
            done = Counter(name for (text,) in rows for name in bodies_in(text))
            files = "SELECT name, coalesce(more, 0) FROM bodies LEFT JOIN shared ON body = name WHERE data IS NULL"
            self._remove([name for name, more in self._base.execute(files).fetchall() if done[name] > more])

    def shrink(self) -> None:
        """Give the disk back what is not needed any more. For an owner who has nothing else to do; never fails."""
        with suppress(StoreError), told(self.folder):
            shrink(self._base)

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
        former: str = "",
    ) -> int:
        """Keep a content that could not be committed; its record's id. *bodies* are what `Stored` pieces name, copied here and synced.

        The rest: see `Record`. Raises NoSpace, Unavailable.
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
            former=former,
            created_ns=now,
            updated_ns=now,
            reason=reason,
            error=error,
        )
        require_joined(record.pieces, size)
        made: dict[str, bytes | int] = {}
        self._base.execute(f"PRAGMA busy_timeout = {KEEP_S * 1000}")
        # Under the write lock, so that no owner who begins now takes the new files for left over.
        with self._changing(synced=True):
            try:
                for name, source in bodies.items():
                    made[name] = self.take(name, source)
                if any(isinstance(held, int) for held in made.values()):
                    self.sync_bodies()
                number = self._enter(Enter(record, made))
                if is_former(self._base):
                    say_used(self._base, number, made)
                return number
            except BaseException:
                self._remove(made)
                raise

    # -- bodies -------------------------------------------------------------------------

    def take(self, name: str, source: StagedBytes) -> bytes | int:
        """Make the body *name* of *source*: its bytes where they are few, else the length of a synced file (see `sync_bodies`).

        A file on the same medium is linked, not copied. Raises NoSpace, Unavailable.
        """
        with told(self.folder):
            if source.length <= INLINE_BYTES:
                data = bytearray(source.length)
                source.read_into(0, memoryview(data))
                return bytes(data)
            path = self.path_of(name)
            if source.path is None or not linked(source.path, path):
                copied(source, path)
            sync(path)
            return source.length

    def sync_bodies(self) -> None:
        """On return the names of all files that were made by `take` are safe from a power cut."""
        with told(self.folder):
            sync(self.folder / "bodies")

    # -- within -------------------------------------------------------------------------

    @contextmanager
    def _changing(self, *, synced: bool) -> Iterator[None]:
        with told(self.folder):
            if synced is not self._synced:
                self._base.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                self._synced = synced
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    def _enter(self, change: Enter) -> int:
        number = self._base.execute(ENTER, row_of(change.record)).lastrowid
        assert number is not None
        for name, held in change.bodies.items():
            data, length = (None, held) if isinstance(held, int) else (held, len(held))
            self._base.execute("INSERT INTO bodies VALUES (?, ?, ?)", (name, length, data))
        self._share(change.record.bodies - change.bodies.keys())
        return number

    def _amend(self, record: Record) -> list[str]:
        """The files of bodies that nobody names any more."""
        row = self._base.execute("SELECT pieces FROM records WHERE id = ?", (record.id,)).fetchone()
        if row is None:
            return []
        former = bodies_in(row[0])
        self._base.execute(AMEND, (*row_of(record), record.id))
        self._share(record.bodies - former)
        return self._unuse(former - record.bodies)

    def _leave(self, ids: Sequence[int]) -> list[str]:
        """Remove records; the files of bodies that nobody names any more."""
        gone: list[str] = []
        for number in ids:
            for (text,) in self._base.execute("DELETE FROM records WHERE id = ? RETURNING pieces", (number,)).fetchall():
                gone += self._unuse(bodies_in(text))
        return gone

    def _share(self, names: Iterable[str]) -> None:
        """One more record names the bodies *names*. Raises NotFound."""
        for name in names:
            if self._base.execute("SELECT 1 FROM bodies WHERE name = ?", (name,)).fetchone() is None:
                raise NotFound(f"The body {name!r} is gone.")
            self._base.execute("INSERT INTO shared VALUES (?, 1) ON CONFLICT DO UPDATE SET more = more + 1", (name,))

    def _unuse(self, names: Iterable[str]) -> list[str]:
        """One record less names the bodies *names*; the files of those that none names any more."""
        files: list[str] = []
        for name in names:
            if self._base.execute("UPDATE shared SET more = more - 1 WHERE body = ?", (name,)).rowcount:
                self._base.execute("DELETE FROM shared WHERE body = ? AND more = 0", (name,))
                continue
            held = self._base.execute("DELETE FROM bodies WHERE name = ? RETURNING data IS NULL", (name,)).fetchall()
            files += [name for (is_file,) in held if is_file]
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
        used: Counter[str] = Counter()
        for record in records:
            used.update(record.bodies)
            require_joined(record.pieces, record.size)
            assert record.base is not None or not record.keeps, f"J3 {record}"
            for name in record.bodies:
                assert name in bodies, f"J1 {record.key}"
                length = bodies[name]
                assert length >= 0 or self.path_of(name).stat().st_size >= -length, f"J1 {record.key}"
        assert used.keys() == bodies.keys(), f"J2 {bodies.keys() - used.keys()}"
        queued = [record.key for record in records if record.state is State.QUEUED]
        assert all(queued.count(key) <= 2 for key in set(queued)), "J4"
        commits = [record.commit_id for record in records if record.op is Op.PUT]
        assert len(commits) == len(set(commits)), "J5"
        shared = dict(self._base.execute("SELECT body, more FROM shared").fetchall())
        assert shared == {name: count - 1 for name, count in used.items() if count > 1}, f"J6 {shared}"

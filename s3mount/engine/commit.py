"""The write path: one helper through which every change goes, and which no caller can half use.

Owns: the order of lock, catch-up, decision, publication, append, apply, unlock, sync.
Must not know: what is decided.

    stage (caller, no lock)                        a crash leaves staged files: swept
    -> lock -> BEGIN -> catch up -> decide         a refusal leaves nothing
    -> rename bodies into place                    a crash leaves bodies that no record names: swept
    -> append the record                           a crash from here on: it happened; the next holder of the lock applies it
    -> apply, position, COMMIT -> unlock
    -> sync, if it is to be durable                only then it is acknowledged

C1  Exactly one record per transaction, or none where nothing changes.
C2  What fails before the append did not happen. What fails behind it raises OutcomeUnknown.
    But for removals in a row (`linger`): they are acknowledged before the COMMIT, which several share; where that fails, the index follows
    the log before anybody looks.
C3  A durable commit syncs all that its record stands on: its own bodies, and older ones of the files it touches that may not be synced yet.
    One that changes nothing syncs the log: what it found may stand on a record that is not synced.
C4  In a hurry nobody syncs: a durable commit is a debt then, and is acknowledged when that is settled, many at a time.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from s3mount.engine.apply import apply
from s3mount.engine.bodies import Bodies
from s3mount.engine.codec import Buffer
from s3mount.engine.contents import Fresh, Laid
from s3mount.engine.index import Index, translated
from s3mount.engine.linger import Linger
from s3mount.engine.lock import WouldWait, WriteLock
from s3mount.engine.log import Log
from s3mount.engine.records import NewBody, Op, Piece, Record, encode, references
from s3mount.engine.replay import catch_up
from s3mount.engine.segment import Position
from s3mount.engine.spare import Spare
from s3mount.engine.sync import Sync
from s3mount.errors import FROM_OS, NoSpace, OutcomeUnknown, StoreError, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

Answer = Callable[[sqlite3.Connection], T]
"""Asked in the transaction, behind the apply: what the caller gets."""


@dataclass(frozen=True, slots=True)
class Debt:
    """What a commit made in a hurry waits for to be durable: its bodies' names, and files that hold older bodies."""

    names: tuple[str, ...]
    older: frozenset[int]


@dataclass(slots=True)
class Transaction:
    """What a decision may look at and what it decides: operations, the bodies they bring, the files they touch."""

    db: sqlite3.Connection
    bodies: Bodies
    log: Log
    time_ns: int
    ops: list[Op] = field(default_factory=list)
    files: set[int] = field(default_factory=set)
    _new: list[Fresh] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _known: dict[bytes, int] = field(default_factory=dict)

    def pieces(self, laid: Iterable[Laid]) -> tuple[Piece, ...]:
        """The pieces of an operation; equal bytes that are stored already are referred to."""
        return tuple((each.offset, each.length, None if each.body is None else self._refer(each.body), each.body_offset) for each in laid)

    def _refer(self, body: Fresh) -> int:
        number = self._known.get(body.digest)
        if number is None:
            number = self._stored(body)
            self._known[body.digest] = number = self._bring(body) if number is None else number
        return number

    def _stored(self, body: Fresh) -> int | None:
        """The body that holds the same bytes; not one whose file is gone (scrub took it away) or whose bytes in the log are damaged."""
        rows = self.db.execute(
            "SELECT id, name, segment, offset FROM body WHERE digest = ? AND size = ? ORDER BY id DESC", (body.digest, body.size)
        ).fetchall()
        return next((number for number, *place in rows if self._is_sound(body, *place)), None)

    def _is_sound(self, body: Fresh, name: str | None, segment: int, offset: int) -> bool:
        try:
            if name is not None:
                return self.bodies.path(name).stat().st_size == body.size
            fd = self.log.open_segment(segment)
        except FileNotFoundError:
            return False
        try:
            return body.data is not None and os.pread(fd, body.size, offset) == body.data
        finally:
            os.close(fd)

    def _bring(self, body: Fresh) -> int:
        self._new.append(body)
        self._names.append("" if body.path is None else self.bodies.new_name(body.digest))
        return -len(self._new)

    def record(self) -> Record:
        new = (NewBody(body.digest, body.size, name) for body, name in zip(self._new, self._names, strict=True))
        return Record(self.time_ns, tuple(new), tuple(self.ops))

    def inline(self) -> list[Buffer]:
        return [body.data for body in self._new if body.data is not None]

    def publish(self) -> None:
        for body, name in zip(self._new, self._names, strict=True):
            if body.path is not None:
                self.bodies.publish(body.path, name)

    def unpublish(self) -> None:
        """The record will not come: staged files are their owners' again."""
        for body, name in zip(self._new, self._names, strict=True):
            if body.path is not None:
                self.bodies.take_back(name, body.path)

    def names(self) -> list[str]:
        return [name for name in self._names if name]


class Commits:
    """The write path of one engine. Thread-safe."""

    def __init__(
        self,
        *,
        lock: WriteLock,
        log: Log,
        index: Index,
        bodies: Bodies,
        sync: Sync,
        spare: Spare,
        linger: Linger,
        clock_ns: Callable[[], int],
    ) -> None:
        self._lock = lock
        self._log = log
        self._index = index
        self._bodies = bodies
        self._sync = sync
        self._spare = spare
        self._clock_ns = clock_ns
        self._linger = linger
        self._applied: Position | None = None
        self._run_end: Position | None = None
        index.show = self._show

    def run(self, decide: Callable[[Transaction], Answer[T]], *, durable: bool, frees: bool = False, lingers: bool = False) -> T:
        """Let *decide* judge and add operations under the lock, make them happen, and give what its answer says.

        What *frees* space may use the room kept for that (`spare`), and is then decided once more. What *lingers* may share a transaction
        of the index with its like before and behind it (`linger`), unless it is durable; its decision and its answer write nothing.
        Raises what *decide* raises (then nothing happened), NoSpace, Unavailable, Corrupt, OutcomeUnknown; WouldWait to somebody in a
        hurry when the lock is not free, a checkpoint is due, or others appended to the log.
        """
        given = self._spare.given
        try:
            return self._run(decide, durable=durable, lingers=lingers and not durable)
        except (NoSpace, OutcomeUnknown):
            if not (frees and self._spare.made_room(given)):
                raise
        return self._run(decide, durable=durable)

    def _run(self, decide: Callable[[Transaction], Answer[T]], *, durable: bool, lingers: bool = False) -> T:
        try:
            with self._lock.resumed if lingers else self._lock:
                transaction = Transaction(self._index.writer, self._bodies, self._log, self._clock_ns())
                if self._lock.lingers or (lingers and self._linger.may_begin() and not self._index.is_checkpoint_due()):
                    return self._join_run(transaction, decide)
                if self._lock.hurried and self._index.is_checkpoint_due():
                    raise WouldWait
                answer, older = self._transact(transaction, decide, durable=durable)
                if not self._lock.hurried and self._index.is_checkpoint_due():
                    self._index.checkpoint()
        except sqlite3.DatabaseError as error:
            raise translated(error) from error
        except OSError as error:
            raise FROM_OS.get(error.errno or 0, Unavailable)(f"The data folder cannot be written: {error.strerror}.") from error
        if durable:
            self._owe(Debt(tuple(transaction.names()), frozenset(older)))
        return answer

    def _owe(self, debt: Debt) -> None:
        if self._lock.owed is None:
            self.settle([debt])
        else:
            self._lock.owed.append(debt)

    def settle(self, debts: Sequence[Debt]) -> None:
        """Make the commits that left *debts* durable, with one sync. Raises OutcomeUnknown."""
        try:
            for file in frozenset[int]().union(*(debt.older for debt in debts)):
                self._sync.file(file)
            self._sync.commit([name for debt in debts for name in debt.names], commits=len(debts))
        except StoreError as error:
            raise OutcomeUnknown(f"The change was made, but a power cut may take it back: {error}") from error

    def _transact(self, transaction: Transaction, decide: Callable[[Transaction], Answer[T]], *, durable: bool) -> tuple[T, set[int]]:
        db = transaction.db
        db.execute("BEGIN IMMEDIATE")
        try:
            self._catch_up(db)
            answer = decide(transaction)
            position = self._append(transaction) if transaction.ops else None
        except BaseException:
            _keep_what_was_caught_up(db)
            raise
        try:
            if position is not None:
                inline_at, record, end = position
                apply(db, record, end.seq, inline_at)
                self._index.set_position(db, end)
                self._applied = end
            older = self._older_unsynced(transaction) if durable else set()
            result = self._finish(db, answer)
        except (sqlite3.DatabaseError, OSError) as error:
            self._applied = None
            _roll_back(db)
            if position is None:
                raise
            raise OutcomeUnknown(f"The change is in the log, but the index could not follow: {error}.") from error
        except BaseException:
            self._applied = None
            _roll_back(db)
            raise
        self._index.hidden = False
        if position is not None:
            self._log.own.note(end.seq)
        return result, older

    def _finish(self, db: sqlite3.Connection, answer: Answer[T]) -> T:
        result = answer(db)
        db.execute("COMMIT")
        return result

    # -- runs of removals (see `linger`) ----------------------------------------------

    def _join_run(self, transaction: Transaction, decide: Callable[[Transaction], Answer[T]]) -> T:
        try:
            if not self._lock.lingers:
                self._begin_run(transaction.db)
            answer = decide(transaction)
            if transaction.ops:
                self._apply_in_run(transaction)
            result = answer(transaction.db)
        except BaseException:
            self._lock.end()
            raise
        if self._linger.is_over():
            self._lock.end()
        return result

    def _begin_run(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        self._lock.linger(self._end_run)
        self._catch_up(db)
        self._linger.begin()

    def _apply_in_run(self, transaction: Transaction) -> None:
        inline_at, record, end = self._append(transaction)
        try:
            apply(transaction.db, record, end.seq, inline_at)
        except BaseException as error:
            self._undo_run(transaction.db)
            if isinstance(error, (sqlite3.DatabaseError, OSError)):
                raise OutcomeUnknown(f"The change is in the log, but the index could not follow: {error}.") from error
            raise
        self._run_end = end
        self._index.hidden = True
        self._log.own.note(end.seq)

    def _end_run(self) -> None:
        """Called under the lock, by whichever thread. Never fails: what cannot be committed is in the log."""
        db, end, self._run_end = self._index.writer, self._run_end, None
        try:
            if end is not None:
                self._index.set_position(db, end)
            db.execute("COMMIT")
        except BaseException as error:
            log.info("The index follows the log later: %s.", error)
            self._undo_run(db)
            if not isinstance(error, sqlite3.Error):
                raise
            return
        if end is not None:
            self._applied = end
            self._index.hidden = False

    def _undo_run(self, db: sqlite3.Connection) -> None:
        """What others were told stays `hidden`, until the index has followed the log."""
        self._applied = self._run_end = None
        with suppress(sqlite3.Error):
            _roll_back(db)

    def _show(self) -> None:
        """Have looks see all that is acknowledged. Raises NoSpace, Unavailable, Corrupt."""
        if self._lock.held:
            return
        self._lock.settle()
        if self._index.hidden:
            self.run(_nothing, durable=False, frees=True)

    # -- steps ------------------------------------------------------------------------

    def _catch_up(self, db: sqlite3.Connection) -> None:
        """Only who appends moves the index on: where nobody did since our last commit, it stands where that left it."""
        followed = self._applied == self._log.end() or self._index.position(db) == self._log.end()
        if followed and self._log.is_at_end():
            return
        if self._lock.hurried:
            raise WouldWait
        self._applied = None
        catch_up(self._log, db)

    def _append(self, transaction: Transaction) -> tuple[tuple[int, int] | None, Record, Position]:
        record = transaction.record()
        payload = encode(record)
        try:
            transaction.publish()
            appended = self._log.append(payload, transaction.inline())
        except (StoreError, OSError):
            transaction.unpublish()
            raise
        return appended.inline[0] if appended.inline else None, record, appended.position

    def _older_unsynced(self, transaction: Transaction) -> set[int]:
        """Files that hold bodies which the record stands on but does not bring, and which may not be synced."""
        db, own = transaction.db, set(transaction.names())
        rows = [row for file in transaction.files for row in db.execute("SELECT file, name FROM unsynced WHERE file = ?", (file,))]
        for body in references(transaction.record()):
            rows += db.execute(
                "SELECT file, name FROM unsynced WHERE name = (SELECT name FROM body WHERE id = ?) LIMIT 1", (body,)
            ).fetchall()
        return {file for file, name in rows if name not in own}


def _nothing(transaction: Transaction) -> Answer[None]:
    """Decides that the index follows the log, and no more."""
    return lambda db: None


def _keep_what_was_caught_up(db: sqlite3.Connection) -> None:
    """Nothing else was written; where it cannot be kept, the next holder of the lock does it again."""
    try:
        if db.in_transaction:
            db.execute("COMMIT")
    except sqlite3.DatabaseError:
        _roll_back(db)


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")

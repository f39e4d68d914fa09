"""Moving keys on a store that cannot rename: copied, then deleted, many at a time, and finished by the next mount when interrupted.

Owns: the order of copies and deletions, what is undone after a failure, what is finished after a crash.
Must not know: what POSIX allows, inodes (who copies tells them through *copied*).

    list the keys --> journal --> copy all --> delete all --> journal done
                                     |            `-- fails: the journal stays, whoever mounts next finishes it
                                     `-- fails: the copies made are taken back (see undoing), journal done; as if nothing happened

M1  A source is deleted only when its copy is acknowledged, and only in the version that was copied.
M2  A copy is undone only in the version that we made; where the reply was lost, in one that is a copy.
M4  A tree is copied only to where nothing is; what somebody else has put there meanwhile stays, and the rename fails.
M3  What is left after a crash is finished by the rule of `journal.decide`: nothing of anybody else's is copied over or deleted.
    What a later record names is its alone, be it finished or not.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from s3mount.errors import AlreadyExists, NotFound, PreconditionFailed, S3MountError, StoreError, Unavailable
from s3mount.fs.copies import DOUBTFUL, copy_of, copy_to, each
from s3mount.fs.journal import Journal, Move, Record, Step, decide
from s3mount.fs.overlay import Overlay
from s3mount.fs.undoing import Undoing
from s3mount.model import Absent, Condition, ETag, Key, ObjectInfo
from s3mount.store.api import Commit, ObjectStore, Relocation

log = logging.getLogger(__name__)

Copied = Callable[[Move, ObjectInfo], Awaitable[None]]
"""Told of each copy when all are there, before the sources go."""

TakeUp = Callable[[Record, Sequence[int], Callable[[int], Awaitable[None]]], Awaitable[bool]]
"""Have the moves with these numbers carried later, but for those that are finished by the call; False: it does nothing."""

Described = Callable[[Move], Commit | None]
"""What a copy is to say of itself, asked when it is about to be made; None: what its source says."""


class Carrier:
    """Moves keys of *store*; *folder* holds the journal (None: none is kept, as for a store that only tests use)."""

    def __init__(
        self, store: ObjectStore, folder: Path | None, described: Described = lambda move: None, undoing: Undoing | None = None
    ) -> None:
        self._store = store
        self._described = described
        self._undoing = undoing or Undoing(store, Overlay())
        self._journal = Journal(folder) if folder is not None else None

    async def carry(self, moves: Sequence[Move], copied: Copied, *, below: str, replaces: bool) -> None:
        """Do *moves*, the last one last to go, all to *below*, which is a key or ends with "/".

        *replaces*: there may be targets already, which cannot be had back.
        Raises StoreError: then nothing was moved, or all is there under both names. AlreadyExists unless it *replaces*.
        """
        record = await begun(self._journal, moves)
        copies: dict[int, ObjectInfo | None] = {}
        try:
            await self._copy_all(moves, copies, record, replaces=replaces)
        except BaseException:
            made = {} if replaces else {number: None if info is None else info.etag for number, info in copies.items()}
            with trio.CancelScope(shield=True):
                await self._undoing.undo(record, moves, made, below)
            raise
        try:
            for number, info in copies.items():
                assert info is not None
                await copied(moves[number], info)
            await each(range(len(moves) - 1), partial(self._delete_source, moves, record))
            await self._delete_source(moves, record, len(moves) - 1)
            await self._end(record)
        finally:
            _leave(record)

    async def recover(self, take_up: TakeUp | None = None) -> None:
        """Finish what a former mount could not, but for what is taken up to be carried later.

        Never fails: what cannot be done now is said in the log, and tried by the next mount.
        """
        if self._journal is None:
            return
        try:
            records = await trio.to_thread.run_sync(lambda journal: list(journal.left_over()), self._journal)
        except (OSError, ValueError) as error:
            log.error("The journal of renames cannot be read: %s", error)
            return
        taken: set[Key] = set()
        named: set[Key] = set()
        for record in records:
            numbers = [number for number, move in enumerate(record.moves) if move.source not in taken and record.copies.get(number) != ""]
            try:
                if record.undone_below is not None:
                    await self._undoing.take_up(record, [number for number in numbers if record.moves[number].target not in named])
                    log.info("A rename of %d keys that failed is undone", len(record.moves))
                    continue
                if take_up is not None and await take_up(record, numbers, partial(self._finish, record)):
                    log.info("A rename of %d keys that was interrupted goes on", len(record.moves))
                    continue
                await each(numbers, partial(self._finish, record))
                await self._end(record)
                log.info("A rename of %d keys that was interrupted is finished", len(record.moves))
                _leave(record)
            except S3MountError as error:
                log.error("A rename of %d keys that was interrupted could not be finished yet: %s", len(record.moves), error)
                if record.undone_below is None:
                    _leave(record)
            finally:
                taken.update(move.source for move in record.moves)
                named.update(key for move in record.moves for key in (move.source, move.target))

    async def _end(self, record: Record | None) -> None:
        if record is not None:
            await trio.to_thread.run_sync(record.done)

    async def _copy_all(
        self, moves: Sequence[Move], copies: dict[int, ObjectInfo | None], record: Record | None, *, replaces: bool
    ) -> None:
        """Into *copies*: those that were made, and None for each that may have been made."""
        condition = None if replaces else self._absent

        async def copy(number: int) -> None:
            move = moves[number]
            copies[number] = None
            try:
                info = await copy_to(self._store, move, self._described(move), condition)
            except StoreError as error:
                if not isinstance(error, DOUBTFUL):
                    del copies[number]
                raise
            copies[number] = info
            if record is not None:
                record.copied(number, info.etag)

        await each(range(len(moves)), copy)

    async def _delete_source(self, moves: Sequence[Move], record: Record | None, number: int) -> None:
        """The last step of a move. That is written down: what is put there later may be just like what was there."""
        move = moves[number]
        try:
            await self._store.delete(move.source, if_match=self._guard(move.etag))
        except (PreconditionFailed, NotFound):
            log.info("%r was replaced or removed by somebody else while it was renamed", move.source)
        if record is not None:
            record.copied(number, ETag(""))

    def _guard(self, etag: ETag) -> ETag | None:
        return etag if self._store.capabilities.conditional_put else None

    @property
    def _absent(self) -> Condition:
        return Absent() if self._store.capabilities.conditional_put else None

    async def _finish(self, record: Record, number: int) -> None:
        move, copied = record.moves[number], record.copies.get(number)
        if self._store.capabilities.relocate:
            return await self._relocate(move) if copied is None else None
        step = decide(move, source=await self._head(move.source), target=await self._head(move.target), copied=copied)
        if step is Step.LEAVE_BOTH and copied is None and await copy_of(self._store, move) is not None:
            step = Step.DELETE_SOURCE
        if step is Step.COPY:
            try:
                info = await copy_to(self._store, move, None, self._absent)
                record.copied(number, info.etag)
            except AlreadyExists:
                step = Step.LEAVE_BOTH
        if step in (Step.COPY, Step.DELETE_SOURCE):
            await self._delete_source(record.moves, record, number)
        elif step is Step.LEAVE_BOTH:
            log.warning("%r was to be renamed to %r, which somebody else changed since: both are left", move.source, move.target)

    async def _relocate(self, move: Move) -> None:
        """One step, which was taken or not; the store knows a version also by what it was called before its commit arrived."""
        source, target = await self._head(move.source), await self._head(move.target)
        if source is None:
            return
        if target is not None:
            log.warning("%r was to be renamed to %r, which somebody else changed since: both are left", move.source, move.target)
            return
        try:
            await self._store.relocate([Relocation(source=replace(source, etag=move.etag), target=move.target, condition=self._absent)])
        except (PreconditionFailed, NotFound):
            log.info("%r was replaced or removed by somebody else while it was renamed", move.source)

    async def _head(self, key: Key) -> ObjectInfo | None:
        try:
            return await self._store.head(key)
        except NotFound:
            return None


async def begun(journal: Journal | None, moves: Sequence[Move]) -> Record | None:
    """*moves*, written down. Raises Unavailable."""
    if journal is None:
        return None
    try:
        return await trio.to_thread.run_sync(journal.begin, moves)
    except OSError as error:
        raise Unavailable(f"The journal of renames cannot be written: {error.strerror}.") from error


def _leave(record: Record | None) -> None:
    if record is not None:
        record.leave()

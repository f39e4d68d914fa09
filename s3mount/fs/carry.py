"""Moving keys on a store that cannot rename: copied, then deleted, many at a time, and finished by the next mount when interrupted.

Owns: the order of copies and deletions, what is undone after a failure, what is finished after a crash.
Must not know: what POSIX allows, inodes (who copies tells them through *copied*).

    list the keys --> journal --> copy all --> delete all --> journal done
                                     |            `-- fails: the journal stays, whoever mounts next finishes it
                                     `-- fails: the copies made are deleted again, journal done; as if nothing happened

M1  A source is deleted only when its copy is acknowledged, and only in the version that was copied.
M2  A copy is undone only in the version that we made; where the reply was lost, in one that is a copy. What cannot be undone for now does
    not stand in the way of the same rename later (`tidy`).
M4  A tree is copied only to where nothing is; what somebody else has put there meanwhile stays, and the rename fails.
M3  What is left after a crash is finished by the rule of `journal.decide`: nothing of anybody else's is copied over or deleted.
    What a later record names is its alone, be it finished or not.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from s3mount.errors import AlreadyExists, NotFound, OutcomeUnknown, PreconditionFailed, S3MountError, StoreError, TimedOut, Unavailable
from s3mount.fs.journal import Journal, Move, Record, Step, decide
from s3mount.model import Absent, ByteRange, Condition, ETag, Key, Matches, MiB, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore, Relocation
from s3mount.store.aspects import whole

T = TypeVar("T")

log = logging.getLogger(__name__)

DOUBTFUL = (OutcomeUnknown, TimedOut)

# Copies and deletions under way at once: at 30 ms each a thousand keys take two seconds.
AT_ONCE = 32

# For undoing after a failure, before the caller gets his answer.
UNDO_SECONDS = 30.0

# What is read to find out whether one object is a copy of the other, where nothing else tells: a copy gets an ETag of its own from some
# services, and one whose reply was lost is known by nothing else if somebody else made its source.
ALIKE_BYTES = 8 * MiB

Copied = Callable[[Move, ObjectInfo], Awaitable[None]]
"""Told of each copy when all are there, before the sources go."""

TakeUp = Callable[[Record, Sequence[int], Callable[[int], Awaitable[None]]], Awaitable[bool]]
"""Have the moves with these numbers carried later, but for those that are finished by the call; False: it does nothing."""

Described = Callable[[Move], Commit | None]
"""What a copy is to say of itself, asked when it is about to be made; None: what its source says."""


class Carrier:
    """Moves keys of *store*; *folder* holds the journal (None: none is kept, as for a store that only tests use)."""

    def __init__(self, store: ObjectStore, folder: Path | None, described: Described = lambda move: None) -> None:
        self._store = store
        self._described = described
        self._journal = Journal(folder) if folder is not None else None
        self._left: dict[Key, Move] = {}

    async def carry(self, moves: Sequence[Move], copied: Copied, *, replaces: bool) -> None:
        """Do *moves*, the last one last to go; *replaces*: there may be targets already, which cannot be had back.

        Raises StoreError: then nothing was moved, or all is there under both names. AlreadyExists unless it *replaces*.
        """
        record = await begun(self._journal, moves)
        copies: dict[int, ObjectInfo] = {}
        doubtful: list[int] = []
        try:
            await self._copy_all(moves, copies, doubtful, record, replaces=replaces)
        except BaseException:
            with trio.move_on_after(UNDO_SECONDS, shield=True):
                if not replaces:
                    await self._undo(moves, copies, doubtful)
                await self._end(record)
            _leave(record)
            raise
        try:
            for number, info in copies.items():
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
        for record in records:
            numbers = [number for number, move in enumerate(record.moves) if move.source not in taken and record.copies.get(number) != ""]
            try:
                if take_up is not None and await take_up(record, numbers, partial(self._finish, record)):
                    log.info("A rename of %d keys that was interrupted goes on", len(record.moves))
                    continue
                await each(numbers, partial(self._finish, record))
                await self._end(record)
                log.info("A rename of %d keys that was interrupted is finished", len(record.moves))
                _leave(record)
            except S3MountError as error:
                log.error("A rename of %d keys that was interrupted could not be finished yet: %s", len(record.moves), error)
                _leave(record)
            finally:
                taken.update(move.source for move in record.moves)

    async def _end(self, record: Record | None) -> None:
        if record is not None:
            await trio.to_thread.run_sync(record.done)

    async def _copy_all(
        self, moves: Sequence[Move], copies: dict[int, ObjectInfo], doubtful: list[int], record: Record | None, *, replaces: bool
    ) -> None:
        async def copy(number: int) -> None:
            move = moves[number]
            condition = None if replaces else self._absent
            try:
                info = await copy_to(self._store, move, self._described(move), condition)
            except DOUBTFUL:
                doubtful.append(number)
                raise
            copies[number] = info
            if record is not None:
                record.copied(number, info.etag)

        await each(range(len(moves)), copy)

    async def _undo(self, moves: Sequence[Move], copies: dict[int, ObjectInfo], doubtful: Sequence[int]) -> None:
        async def remove(number: int) -> None:
            try:
                copy = copies.get(number) or await _copy_of(self._store, moves[number])
                if copy is not None:
                    await self._store.delete(moves[number].target, if_match=self._guard(copy.etag))
            except StoreError as error:
                self._left[moves[number].target] = moves[number]
                log.warning("%r is a copy left over from a rename that failed: %s", moves[number].target, error)

        await each([*copies, *doubtful], remove)

    async def tidy(self, prefix: str) -> None:
        """Remove copies below *prefix* that a failed rename of this mount could not undo. Raises StoreErrors."""
        await each([key for key in self._left if key.startswith(prefix)], self._take_back)

    async def _take_back(self, key: Key) -> None:
        copy = await _copy_of(self._store, self._left[key])
        if copy is not None:
            with suppress(PreconditionFailed, NotFound):
                await self._store.delete(key, if_match=self._guard(copy.etag))
        self._left.pop(key, None)

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
        if step is Step.LEAVE_BOTH and copied is None and await _copy_of(self._store, move) is not None:
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


async def copy_to(store: ObjectStore, move: Move, commit: Commit | None, condition: Condition) -> ObjectInfo:
    """Copy as *move* says, under *condition*; *commit*: what the copy says of itself. Raises as `ObjectStore.copy`.

    A refusal may be the echo of the copy's own success, whose reply was lost; what it says of itself may be older than *commit* then.
    """
    described = commit and replace(commit, condition=condition)
    try:
        return await store.copy(move.source, move.target, if_match=move.etag, commit=described, condition=condition)
    except AlreadyExists:
        if (copy := await _copy_of(store, move)) is None:
            raise
        if commit is None:
            return copy
        return await store.copy(move.source, move.target, if_match=move.etag, commit=replace(commit, condition=Matches(copy.etag)))


async def _copy_of(store: ObjectStore, move: Move) -> ObjectInfo | None:
    """The object under the target if it is a copy of the source: of the same commit, or, where that has no id, with the same bytes.

    Then nothing is lost with the source, whoever made the copy.
    """
    try:
        source, target = [await whole(store, await store.head(key)) for key in (move.source, move.target)]
        if not move.is_of(source) or source.size != target.size:
            return None
        ids = [(info.metadata or {}).get(COMMIT_ID) for info in (source, target)]
        same = ids[0] == ids[1] and (ids[0] is not None or source.etag == target.etag or await _are_alike(store, source, target))
    except (NotFound, PreconditionFailed):
        return None
    return target if same else None


async def _are_alike(store: ObjectStore, one: ObjectInfo, other: ObjectInfo) -> bool:
    """Whether two objects of one size have the same bytes; False where they are too large to be read for that."""
    if one.size > ALIKE_BYTES:
        return False
    bodies = [bytearray(one.size), bytearray(one.size)]
    for info, body in zip((one, other), bodies, strict=True):
        if body:
            await store.get_into(info.key, ByteRange(0, info.size), memoryview(body), if_match=info.etag)
    return bodies[0] == bodies[1]


async def each(items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do *work* for each item, `AT_ONCE` at a time. After a failure none is begun; those under way are finished, and it is raised."""
    pending = iter(items)
    failures: list[S3MountError] = []

    async def worker() -> None:
        for item in pending:
            if failures:
                return
            try:
                await work(item)
            except S3MountError as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_ONCE, len(items))):
            nursery.start_soon(worker)
    if failures:
        raise failures[0]


def _leave(record: Record | None) -> None:
    if record is not None:
        record.leave()

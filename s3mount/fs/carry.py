"""Moving keys on a store that cannot rename: copied, then deleted, many at a time, and finished by the next mount when interrupted.

Owns: the order of copies and deletions, what is undone after a failure, what is finished after a crash.
Must not know: what POSIX allows, inodes (who copies tells them through *copied*).

    list the keys --> journal --> copy all --> delete all --> journal done
                                     |            |-- all are refused: as below, unless something was replaced, which cannot be had back
                                     |            `-- some fail: done as far as anybody sees, the rest is deleted later (`Behind`)
                                     `-- fails: the copies made are taken back (see undoing), journal done; as if nothing happened

Where nobody deletes later, or what there was under the new name cannot be had back, the journal stays: whoever mounts next finishes it.

M1  A source is deleted only when its copy is acknowledged, and only in the version that was copied.
M2  A copy is undone only in the version that we made; where the reply was lost, in one that is a copy.
M4  A tree is copied only to where nothing is; what somebody else has put there meanwhile stays, and the rename fails.
M3  What is left after a crash is finished by the rule of `journal.decide`: nothing of anybody else's is copied over or deleted.
    What a later record names is its alone, be it finished or not; but for copies that are to be taken back, which only have their source
    in common with it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from s3mount.errors import AccessDenied, AlreadyExists, NotFound, PreconditionFailed, S3MountError, StoreError, Unavailable
from s3mount.fs.copies import DOUBTFUL, absent, copy_of, copy_to, each
from s3mount.fs.journal import Journal, Move, Record, Step, decide
from s3mount.fs.overlay import Overlay
from s3mount.fs.undoing import Undoing
from s3mount.model import ETag, Key, ObjectInfo
from s3mount.store.api import Commit, ObjectStore, Relocation

log = logging.getLogger(__name__)

# Interrupted renames of so few keys are finished several at a time; those of more keep enough requests under way by themselves.
FEW_KEYS = 8


class Riders(Protocol):
    """Who goes along with what is moved."""

    async def copied(self, move: Move, info: ObjectInfo) -> None:
        """Told of each copy when all are there, before the sources go."""
        ...

    async def back(self) -> None:
        """Of what was told nothing holds: everything is where it was."""
        ...


class Behind(Protocol):
    """Who works behind what has been answered."""

    undoing: Undoing

    def remove_later(self, record: Record | None, moves: Sequence[Move], copies: Mapping[int, ObjectInfo]) -> bool:
        """Have the sources of *copies*, by numbers of *moves*, deleted later, and have it seen as done now.

        False: it does nothing.
        """
        ...


LeaveOver = Callable[[Record, Sequence[int]], Awaitable[bool]]
"""See the moves with these numbers as done, and have their sources deleted later; False: it does nothing, as more is left to do."""

TakeUp = Callable[[Record, Sequence[int], Callable[[int], Awaitable[None]]], Awaitable[bool]]
"""Have the moves with these numbers carried later, but for those that are finished by the call; False: it does nothing."""

Described = Callable[[Move], Commit | None]
"""What a copy is to say of itself, asked when it is about to be made; None: what its source says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From where to where, each a key or a prefix that ends with "/". `replaces`: there may be something, which cannot be had back.

    `empty`: nothing was there just now, as far as this mount saw.
    """

    source: str
    target: str
    replaces: bool = False
    empty: bool = True


@dataclass(slots=True)
class Crossing:
    """One rename under way. By numbers of moves: `copies`, None where one may have been made; what is `gone`, False where it may be."""

    moves: Sequence[Move]
    way: Way
    record: Record | None
    copies: dict[int, ObjectInfo | None] = field(default_factory=dict)
    gone: dict[int, bool] = field(default_factory=dict)

    @property
    def made(self) -> dict[int, ObjectInfo]:
        return {number: info for number, info in self.copies.items() if info is not None}


class Carrier:
    """Moves keys of *store*; *folder* holds the journal (None: none is kept, as for a store that only tests use)."""

    def __init__(
        self,
        store: ObjectStore,
        folder: Path | None,
        described: Described = lambda move: None,
        *,
        behind: Behind | None = None,
    ) -> None:
        self._store = store
        self._described = described
        self._undoing = behind.undoing if behind is not None else Undoing(store, Overlay())
        self._behind = behind
        self._journal = Journal(folder) if folder is not None else None

    async def carry(self, moves: Sequence[Move], way: Way, riders: Riders) -> None:
        """Do *moves*, the last one last to go.

        Raises StoreError: then nothing was moved, or all is there under both names. AlreadyExists unless *way* replaces.
        """
        crossing = Crossing(moves, way, await begun(self._journal, moves))
        try:
            await self._copy_all(crossing)
        except BaseException:
            await self._undo(crossing)
            raise
        try:
            for number, info in crossing.made.items():
                await riders.copied(moves[number], info)
            await self._delete_all(crossing)
            await self._end(crossing.record)
        except S3MountError as error:
            if not await self._go_on(crossing, riders, error):
                raise
        finally:
            _leave(crossing.record)

    async def _undo(self, crossing: Crossing) -> None:
        """What is left of it is for `Undoing`."""
        copies = crossing.copies if crossing.way.empty else {}
        etags = {number: None if info is None else info.etag for number, info in copies.items()}
        record, crossing.record = crossing.record, None
        with trio.CancelScope(shield=True):
            await self._undoing.undo(record, crossing.moves, etags, crossing.way.target)

    async def _go_on(self, crossing: Crossing, riders: Riders, error: S3MountError) -> bool:
        """Whether it is done although sources are left. Where none has gone, and it can be undone, it is undone."""
        moves, way = crossing.moves, crossing.way
        if not crossing.gone and way.empty:
            await riders.back()
            await self._undo(crossing)
            return False
        left = {number: info for number, info in crossing.made.items() if crossing.gone.get(number) is not True}
        if self._behind is None or not self._behind.remove_later(crossing.record, moves, left):
            return False
        log.warning("%d of %d keys that were renamed cannot be deleted from %r yet: %s", len(left), len(moves), way.source, error)
        crossing.record = None
        return True

    async def recover(self, take_up: TakeUp | None = None, leave_over: LeaveOver | None = None) -> None:
        """Finish what a former mount could not, but for what is taken up to be carried later, and what only cannot be deleted now.

        Never fails: what cannot be done now is said in the log, and tried by the next mount.
        """
        if self._journal is None:
            return
        records = await trio.to_thread.run_sync(lambda journal: list(journal.left_over()), self._journal)
        for together in independent(left_of(records)):
            await each(together, partial(self._recover, take_up=take_up, leave_over=leave_over))

    async def _recover(self, left: Left, *, take_up: TakeUp | None, leave_over: LeaveOver | None) -> None:
        record, numbers = left.record, left.numbers
        try:
            if record.undone_below is not None:
                await self._undoing.take_up(record, left.unnamed, left.parted)
                log.info("A rename of %d keys that failed is undone", len(record.moves))
            elif take_up is not None and await take_up(record, numbers, partial(self._finish, record)):
                log.info("A rename of %d keys that was interrupted goes on", len(record.moves))
            else:
                await each(numbers, partial(self._finish, record))
                await self._end(record)
                log.info("A rename of %d keys that was interrupted is finished", len(record.moves))
                _leave(record)
        except S3MountError as error:
            log.error("A rename of %d keys that was interrupted could not be finished yet: %s", len(record.moves), error)
            denied = leave_over if isinstance(error, AccessDenied) else None
            if record.undone_below is None and not await self._left_over(record, numbers, denied):
                _leave(record)

    async def _left_over(self, record: Record, numbers: Sequence[int], leave_over: LeaveOver | None) -> bool:
        try:
            return leave_over is not None and await leave_over(record, [number for number in numbers if record.copies.get(number) != ""])
        except S3MountError:
            return False

    async def _end(self, record: Record | None) -> None:
        if record is not None:
            await trio.to_thread.run_sync(record.done)

    async def _copy_all(self, crossing: Crossing) -> None:
        condition = None if crossing.way.replaces else absent(self._store)

        async def copy(number: int) -> None:
            move = crossing.moves[number]
            crossing.copies[number] = None
            try:
                info = await copy_to(self._store, move, self._described(move), condition)
            except StoreError as error:
                if not isinstance(error, DOUBTFUL):
                    del crossing.copies[number]
                raise
            crossing.copies[number] = info
            if crossing.record is not None:
                crossing.record.copied(number, info.etag)

        await each(range(len(crossing.moves)), copy)

    async def _delete_all(self, crossing: Crossing) -> None:
        async def delete(number: int) -> None:
            crossing.gone[number] = False
            try:
                await self._delete_source(crossing.moves, crossing.record, number)
            except StoreError as error:
                if not isinstance(error, DOUBTFUL):
                    del crossing.gone[number]
                raise
            crossing.gone[number] = True

        await each(range(len(crossing.moves) - 1), delete)
        await delete(len(crossing.moves) - 1)

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

    async def _finish(self, record: Record, number: int) -> None:
        move, copied = record.moves[number], record.copies.get(number)
        if self._store.capabilities.relocate:
            return await self._relocate(move) if copied is None else None
        step = decide(move, source=await self._head(move.source), target=await self._head(move.target), copied=copied)
        if step is Step.LEAVE_BOTH and copied is None and await copy_of(self._store, move) is not None:
            step = Step.DELETE_SOURCE
        if step is Step.COPY:
            try:
                info = await copy_to(self._store, move, None, absent(self._store))
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
            await self._store.relocate(
                [Relocation(source=replace(source, etag=move.etag), target=move.target, condition=absent(self._store))]
            )
        except (PreconditionFailed, NotFound):
            log.info("%r was replaced or removed by somebody else while it was renamed", move.source)

    async def _head(self, key: Key) -> ObjectInfo | None:
        try:
            return await self._store.head(key)
        except NotFound:
            return None


@dataclass(frozen=True, slots=True)
class Left:
    """What a former mount has left of *record*, by numbers of moves.

    `numbers`: whose sources no later record took elsewhere; `unnamed`: whose targets none names; `parted`: sources that one took elsewhere.
    """

    record: Record
    numbers: Sequence[int]
    unnamed: Sequence[int]
    parted: frozenset[Key]


def left_of(records: Iterable[Record]) -> Iterator[Left]:
    """*records*, the latest first."""
    taken, named, parted = set[Key](), set[Key](), set[Key]()
    for record in records:
        sources = {move.source for move in record.moves}
        left = [number for number in range(len(record.moves)) if record.copies.get(number) != ""]
        yield Left(
            record,
            [number for number in left if record.moves[number].source not in taken],
            [number for number in left if record.moves[number].target not in named],
            frozenset(sources & parted),
        )
        taken |= sources
        named |= sources | {move.target for move in record.moves}
        if record.undone_below is None:
            parted |= sources


def independent(left: Iterable[Left]) -> Iterator[list[Left]]:
    """*left*, in its order, several together where they are small and have no key in common: of a key the latest is finished first."""
    together, keys = list[Left](), set[Key]()
    for one in left:
        own = {key for move in one.record.moves for key in (move.source, move.target)}
        if together and (len(own) > FEW_KEYS or own & keys):
            yield together
            together, keys = [], set()
        together.append(one)
        keys |= own
        if len(own) > FEW_KEYS:
            yield together
            together, keys = [], set()
    if together:
        yield together


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

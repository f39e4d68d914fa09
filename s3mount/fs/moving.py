"""A store in which large directories move at once, while their keys are carried one by one behind it.

Owns: the legs under way: who carries them, who waits for which, what is written down; what each verb means for a key on its way.
Must not know: POSIX, inodes (who copies tells them through `Passengers`).

`begin` writes a rename down and returns; the overlay shows it as done then (see overlay), and the legs are carried in the background.

    looking      a key that waits is asked for, and read, where it lies (see looking)
    changing     a key goes the rest of its way first, by itself: so its version has the ETag of its copy, and conditions are translated;
                 what has arrived is changed also where its old name cannot be deleted
    old names    that cannot be deleted stand in nobody's way: what was renamed is renamed again and removed without them (their legs are
                 detached), and what is put there takes the place of what lies there unseen, as it does of copies that are to be undone
    syncing      `settle` has everything below a prefix arrive, with or without a background
    again        a rename of what is still on its way takes the legs over that wait, from where they lie; what may have been copied arrives
                 first

What cannot be carried for now is tried again (see later); what somebody else has replaced at its source meanwhile is left there, to be seen
again, and so is what cannot arrive because somebody else has put something there.
What a crash leaves is taken up by the next mount (see resuming, carry), the latest rename first: a key that two records name is where the
later one took it from.

K1  A leg is carried by one task at a time (`busy`); it can be abandoned at any request and begun again.
K2  A leg is written down before it is seen, and a record goes when all its legs are over.
K3  Whoever holds the right to change a key (the gate) finds it settled: nothing is on its way from there or to there, but for a former
    name of it that cannot be deleted, or for what cannot be deleted there (`Overlay.unseen`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import trio

from s3mount.errors import AccessDenied, AlreadyExists, PreconditionFailed, S3MountError
from s3mount.fs.areas import Area
from s3mount.fs.batches import Batches
from s3mount.fs.carry import begun
from s3mount.fs.copies import DOUBTFUL, DOUBTFUL_OR_CANCELLED, each, is_there, sent
from s3mount.fs.journal import SUPERSEDED, Journal, Move, Record
from s3mount.fs.kept import Renamed
from s3mount.fs.later import About, Later
from s3mount.fs.looking import GONE, Looking
from s3mount.fs.overlay import Leg, State
from s3mount.fs.passengers import Passengers
from s3mount.fs.resuming import left_behind, left_over, taken_up
from s3mount.fs.undoing import Undoing
from s3mount.fs.unseen import Unseen
from s3mount.model import ByteRange, Condition, Content, ETag, Key, Metadata, ObjectInfo, Part, Upload
from s3mount.store.api import Commit, Failure, ObjectStore, Relocation

log = logging.getLogger(__name__)

# Renames of more keys are answered before they are carried out: a thousand take two to four seconds at 30 ms.
ANSWER_KEYS = 1000

TOLD = 1000  # of what is stuck, one by one


class Moving(Looking):
    """*inner*; *folder* holds the journal (None: none is kept)."""

    def __init__(self, inner: ObjectStore, folder: Path | None) -> None:
        super().__init__(inner)
        self.undoing = Undoing(inner, self.overlay)
        self._unseen = Unseen(self.overlay, self.undoing, self._aliases)
        self._journal = Journal(folder) if folder is not None else None
        self._batches = Batches()
        self._later = Later(self._arrive, _about)
        self._passengers: Passengers | None = None
        self._running = False

    def __repr__(self) -> str:
        return f"<Moving {self.overlay!r} {self.inner!r}>"

    def attend(self, passengers: Passengers) -> None:
        self._passengers = passengers

    @property
    def running(self) -> bool:
        """Whether somebody carries what `begin` is told."""
        return self._running

    def check(self) -> None:
        self.overlay.check()
        self._batches.check()
        self.undoing.check()

    # -- a rename -----------------------------------------------------------------------

    async def begin(self, source: str, target: str, infos: Sequence[ObjectInfo], before: Sequence[Leg] = ()) -> None:
        """On return everything below *source*, which is *infos*, is seen below *target*. Raises StoreErrors: then nothing happened.

        *before*: the legs that went there before that was listed; they may have arrived since.
        """
        ways: dict[str, Leg] = {leg.target: leg for leg in before}
        ways |= {info.key: leg for info in infos if (leg := self.overlay.waiting(info.key)) is not None}
        await self.clear(*(target + info.key[len(source) :] for info in infos))
        area, claimed = Area(source), dict[str, Leg]()
        try:
            await self._claim([info.key for info in infos], claimed)
            places = {info.key for info in infos}
            sent = [leg for info in infos for leg in self.overlay.touching(info.key) if leg.state is State.COPIED or leg.doubt]
            await each([leg for leg in sent if leg.source in places or not self._detached(leg)], self._arrive)
            ways |= claimed
            legs = [self._leg(info, Key(target + info.key[len(source) :]), ways.get(info.key), area) for info in reversed(infos)]
            record = await begun(self._journal, [Move(leg.source, leg.target, leg.etag, leg.info.mtime_ns) for leg in legs])
            self._begun(area, legs, list(claimed.values()), record)
        finally:
            for leg in claimed.values():
                self._free(leg)

    async def _claim(self, keys: Sequence[Key], claimed: dict[str, Leg]) -> None:
        """Into *claimed*: the legs that are seen under *keys* and lie elsewhere, which nobody carries until they are freed."""
        busy = [leg for key in keys if (leg := self.overlay.waiting(key)) is not None and not self._claimed(leg, claimed)]
        for leg in busy:
            while leg.state is State.WAITING and not leg.doubt and not self._claimed(leg, claimed):
                assert leg.busy is not None
                await leg.busy.wait()

    def _claimed(self, leg: Leg, claimed: dict[str, Leg]) -> bool:
        if leg.busy is not None or leg.doubt:
            return False
        leg.busy = trio.Event()
        claimed[leg.target] = leg
        return True

    def _free(self, leg: Leg) -> None:
        if leg.busy is not None:
            leg.busy.set()
            leg.busy = None

    def _leg(self, info: ObjectInfo, target: Key, former: Leg | None, area: Area) -> Leg:
        """*former* is seen under the key of *info*, or was when that was listed."""
        if former is not None and former.state is State.WAITING:
            return Leg(former.source, replace(former.info, key=target), (area, *former.areas))
        copy = None if former is None or former.etag != info.etag else former.copy
        if copy is not None:  # it is younger than what was listed
            return Leg(info.key, replace(info, key=target, etag=copy.etag, mtime_ns=max(copy.mtime_ns, info.mtime_ns)), (area,))
        return Leg(info.key, replace(info, key=target, etag=self._aliases.etag(info.key, info.etag)), (area,))

    def _begun(self, area: Area, legs: Sequence[Leg], claimed: Sequence[Leg], record: Record | None) -> None:
        self._batches.begin(record, {leg: number for number, leg in enumerate(legs)})
        self.overlay.add(area, legs, instead_of=claimed)
        for leg in claimed:
            self._later.forget(leg)
            self._batches.ended(leg)
        self._later.add(legs)

    def remove_later(self, record: Record | None, moves: Sequence[Move], copies: Mapping[int, ObjectInfo]) -> bool:
        """As `carry.Later`."""
        if not self._running or not copies:
            return False
        for leg in filter(None, (self.overlay.lagging(moves[number].target) for number in copies)):
            self._detached(leg)  # what it had brought others have removed
        self._later.add(left_behind(self.overlay, self._batches, record, moves, copies))
        return True

    async def take_up(self, record: Record, numbers: Sequence[int], finish: Callable[[int], Awaitable[None]]) -> bool:
        """As `carry.TakeUp`. Raises StoreErrors: then nothing is taken up."""
        legs = await taken_up(self.inner, self.overlay, self._batches, record, numbers, finish)
        self._later.add(legs)
        return bool(legs)

    async def leave_over(self, record: Record, numbers: Sequence[int]) -> bool:
        """As `carry.LeaveOver`. Raises StoreErrors: then nothing is seen otherwise."""
        legs = await left_over(self.inner, self.overlay, self._batches, record, numbers)
        self._later.put_off(legs)
        return bool(legs)

    # -- carrying -----------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry what there is, until cancelled; `settle` carries the rest."""
        self._running = True
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.undoing.later.run)
                nursery.start_soon(self._later.run)
        finally:
            self._running = False

    async def settle(self, prefix: str = "") -> None:
        """On return nothing is on its way to below *prefix* any more. Raises the first reason why something still is."""
        await each(self.overlay.legs(prefix), self._arrive)

    async def clear(self, *keys: str, over: bool = False) -> None:
        """On return nothing is on its way from or to *keys*, and nothing that a rename has left lies there.

        *over*: but for what is unseen there and cannot be deleted; whoever asks will put something else in its place.
        """
        with suppress(AccessDenied) if over else nullcontext():
            await self.undoing.clear(*keys)
        await self._clear(keys, over=over)

    async def _clear(self, keys: Collection[str], *, over: bool) -> None:
        while legs := self._in_the_way(keys, over=over):  # another rename may have taken over what we waited for: it still lies there
            try:
                await (self._arrive(*legs) if len(legs) == 1 else each(legs, self._arrive))
            except S3MountError:
                if len(self._in_the_way(keys, over=over)) >= len(legs):
                    raise

    def _in_the_way(self, keys: Collection[str], *, over: bool) -> list[Leg]:
        """The legs from and to *keys*, but for those that are detached now, or to be written *over*."""
        legs = dict.fromkeys(leg for key in keys for leg in self.overlay.touching(key))
        left = [leg for leg in legs if not (leg.target in keys and self._detached(leg))]
        return [leg for leg in left if not (over and self.overlay.unseen(leg.source) is leg)]

    def _detached(self, leg: Leg) -> bool:
        """Detach *leg*, if it only cannot delete its source."""
        if self.overlay.lagging(leg.target) is not leg:
            return False
        self._batches.copied(leg, SUPERSEDED)
        self.overlay.detach(leg)
        return True

    async def arrive(self, key: str) -> None:
        """On return *key* may be changed: as `clear`, but for what cannot be deleted for now, be it its former name, or unseen there."""
        with suppress(S3MountError):
            await self.undoing.clear(key)
        if self.overlay.late(key):
            return
        try:
            await self._clear((key,), over=False)
        except S3MountError:
            if not self.overlay.late(key):
                raise

    async def _arrive(self, leg: Leg) -> None:
        """Carry *leg* until it is over, or wait until somebody has. Raises StoreErrors."""
        while leg.state is not State.OVER:
            if leg.busy is not None:
                await leg.busy.wait()
                continue
            leg.busy = trio.Event()
            try:
                await (self._copy(leg) if leg.state is State.WAITING else self._delete(leg))
            except S3MountError as error:
                self._later.failed(leg, error, leg.state.value)
                raise
            finally:
                self._free(leg)

    async def _copy(self, leg: Leg) -> None:
        described = self._passengers.described(leg.target, leg.etag) if self._passengers else None
        try:
            copy = await sent(self.inner, replace(leg.info, key=leg.source), leg.target, described)
        except GONE:
            log.warning("%r was replaced or removed by somebody else while it was renamed: it stays there", leg.source)
            self._stays(leg)
            return
        except AlreadyExists:
            log.warning("%r was made by somebody else while %r was renamed to it: that stays where it is", leg.target, leg.source)
            self._stays(leg)
            return
        except DOUBTFUL:
            leg.doubt = True
            raise
        if not self.capabilities.relocate:
            self._batches.copied(leg, copy.etag)
        self.overlay.copied(leg, copy)
        self._aliases.add(leg.target, leg.etag, copy.etag)
        if self._passengers is not None:
            await self._passengers.arrived(leg.target, leg.etag, copy)
        if self.capabilities.relocate:
            self._over(leg)

    def _stays(self, leg: Leg) -> None:
        """It is seen where it lies again."""
        self._over(leg)
        self.overlay.put(leg.source)

    async def _delete(self, leg: Leg) -> None:
        """What is late is looked at first: not every service heeds a condition."""
        try:
            if leg.late and (await self.inner.head(leg.source)).etag != leg.etag:
                raise PreconditionFailed(f"{leg.source!r} is another version by now.")
            await self.inner.delete(leg.source, if_match=leg.etag if self.capabilities.conditional_put else None)
            self.overlay.removed(leg.source)
        except GONE:
            log.info("%r was replaced by somebody else while it was renamed", leg.source)
            self.overlay.put(leg.source)
        except S3MountError:
            leg.late = True
            self.overlay.alone(leg)
            raise
        self.undoing.removed(leg.source)
        self._over(leg)

    def _over(self, leg: Leg) -> None:
        self._later.over(leg)
        self.overlay.over(leg)
        self._batches.ended(leg)

    def outstanding(self) -> Renamed:
        stuck = [*self._later.stuck(TOLD), *self.undoing.later.stuck(TOLD)]
        return Renamed(under_way=self.overlay.count, stuck=self._later.failures + self.undoing.later.failures, first=tuple(stuck[:TOLD]))

    async def retry(self, keys: Collection[str]) -> dict[str, str]:
        """Do now what is stuck, of *keys*; why some of it still is."""
        return await self._later.retry(keys) | await self.undoing.later.retry(keys)

    def leave(self) -> None:
        """What is still on its way is for the next mount."""
        self._batches.leave()
        self.undoing.leave()

    # -- changing -----------------------------------------------------------------------

    async def _put(self, key: Key, put: Callable[[], Awaitable[ObjectInfo]]) -> ObjectInfo:
        """Do *put*, which makes an object under *key*, once it may; it is seen, also where it is open whether there is one."""
        info = None
        while info is None:
            await self.arrive(key)
            if (unseen := self.overlay.unseen(key)) is not None:
                info = await self._put_over(unseen, put)
            elif (stray := self.undoing.lying(key)) is not None:
                info = await self.undoing.write_over(stray, put)
            else:
                with self._unseen.putting(key):
                    info = await put()
        self._aliases.drop(key)
        if (leg := self.overlay.lagging(key)) is not None:
            self._batches.copied(leg, info.etag)
        return info

    async def _put_over(self, leg: Leg, put: Callable[[], Awaitable[ObjectInfo]]) -> ObjectInfo | None:
        """Do *put*, which puts something else where *leg* could not be deleted: that is over. None where it was over before."""
        if leg.busy is not None:
            await leg.busy.wait()
            return None
        leg.busy = trio.Event()
        try:
            info = await put()
        except DOUBTFUL_OR_CANCELLED:
            self._written_over(leg)
            raise
        except GONE:
            if await is_there(self.inner, leg.source, leg.etag):
                raise
            info = None
        finally:
            self._free(leg)
        self._written_over(leg)
        return info

    def _written_over(self, leg: Leg) -> None:
        """Or it may be: what is just like it by its ETag is not deleted in its place. Others may still be hidden beside it."""
        self._later.forget(leg)
        self._stays(leg)

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        return await self._put(key, lambda: self.inner.put(key, data, self._unseen.commit(key, commit)))

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        def based() -> Content:
            base = content.base
            return content if base is None else replace(content, base=self._aliases.info(replace(base, key=key)))

        return await self._put(key, lambda: self.inner.adopt(key, based(), self._unseen.commit(key, commit)))

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        def put() -> Awaitable[ObjectInfo]:
            return self.inner.update(key, metadata, if_match=if_match and self._aliases.etag(key, if_match), file_id=file_id)

        return await self._put(key, put)

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        def put() -> Awaitable[ObjectInfo]:
            return self.inner.set_aspect(key, name, value, if_match=self._aliases.etag(key, if_match), file_id=file_id)

        return await self._put(key, put)

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        if source != target:
            await self.clear(source)
        return await self._put(
            target,
            lambda: self.inner.copy(
                source,
                target,
                if_match=if_match and self._aliases.etag(source, if_match),
                commit=commit and self._unseen.commit(target, commit),
                condition=self._unseen.condition(target, condition),
            ),
        )

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        if (leg := self.overlay.waiting(key)) is not None:
            await self._cut_short(leg, if_match)
        await self.clear(key)
        await self.inner.delete(key, if_match=if_match and self._aliases.etag(key, if_match))
        self._removed(key)
        self._aliases.drop(key)

    def _removed(self, key: Key) -> None:
        self.overlay.removed(key)
        self.undoing.removed(key)

    async def _cut_short(self, leg: Leg, if_match: ETag | None) -> None:
        """What is to be deleted need not arrive: unless somebody carries it just now, it is deleted where it lies."""
        if leg.busy is None and if_match in (None, leg.etag):
            leg.busy = trio.Event()
            try:
                await self._delete(leg)
            finally:
                self._free(leg)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        await self.clear(*keys)
        failures = await self.inner.delete_many(keys)
        for key in set(keys) - {failure.key for failure in failures}:
            self._removed(key)
        return failures

    async def relocate(self, moves: Sequence[Relocation]) -> Sequence[ObjectInfo]:
        await self.clear(*(key for move in moves for key in (move.source.key, move.target)))
        for move in moves:
            self.overlay.put(move.target)
        infos = await self.inner.relocate([replace(move, source=self._aliases.info(move.source)) for move in moves])
        for move in moves:
            self._removed(move.source.key)
            self._aliases.drop(move.source.key)
            self._aliases.drop(move.target)
        return infos

    async def create_upload(self, key: Key, commit: Commit = Commit()) -> Upload:  # noqa: B008 (frozen)
        await self.arrive(key)
        return await self.inner.create_upload(key, self._unseen.commit_later(key, commit))

    async def copy_part(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        return await self.inner.copy_part(upload, number, source=self._aliases.info(source), span=span)

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        return await self._put(upload.key, lambda: self.inner.complete_upload(upload, parts))


def _about(leg: Leg) -> About:
    undone = "copied there" if leg.state is State.WAITING else "deleted under its old name"
    return About(leg.source, leg.info.size, f"{leg.source!r} is renamed to {leg.target!r}, and cannot be {undone} yet")

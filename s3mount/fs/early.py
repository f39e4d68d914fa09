"""Sending the parts of a file while it is still written.

Owns: uploads begun before their commit, which part is begun next, the pace of writers who are faster.
Must not know: which part may go, and which is true (see upload); where parts begin and end (see grid); what a commit is made of, POSIX.

A content that may go in parts has an `EarlyUpload`. It begins when `START_PARTS` parts are full, in the background (`Uploads.run`); a mount
without background sends nothing early. What goes wrong in the background is nobody's failure: the upload is given up, and the commit
sends everything from the staged bytes, and fails then if it must.

Of an edit, the full parts go so too. What the base has is copied by the commit, for until then it may still be written; a part that has
both is read and sent by the commit.

    IDLE --START_PARTS are full--> CREATING --created--> OPEN --completed--> IDLE
      ^                               |                    |
      +------------ drop: the upload is aborted -----------+   refused for good, emptied, unlinked, renamed, or the commit goes another way

The metadata of an upload are those of its beginning: S3 takes none with the last request. The commit says which ones the object got
(`ObjectInfo.metadata`); whoever cares writes what came later.

A part that could go is chosen from the file that has the fewest under way (see slots). A writer is held up while too many of its parts
wait, but never for long: the disk has room for more.

Invariants (`check`):
Y1  Every part under way has a slot.
Y2  Every upload that was created is completed or aborted, or its abort was tried and logged.
Y3  While a commit is under way (`pause`), no early part is begun.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

import trio

from s3mount.errors import InvalidPart, NoSuchUpload, S3MountError, StoreError
from s3mount.fs.attempt import Aim, Attempt, Phase
from s3mount.fs.extents import Extents, Kind
from s3mount.fs.grid import LEAST_PART, PART_BYTES, PARTS, Grid, Plan, Step, copied_singly, is_full
from s3mount.fs.layers import Layers
from s3mount.fs.slots import Slots
from s3mount.fs.upload import START_PARTS
from s3mount.model import ByteRange, ObjectInfo, Part, Upload
from s3mount.store.api import ObjectStore

log = logging.getLogger(__name__)

# So many full parts may wait before the writer does: two rounds, so that a line that stutters does not stop a program.
WAITING_PARTS = 32
# Longest that one write is held up: below all deadlines. A line so slow is left to the commit; the staging disk is the limit then.
PACE_S = 5.0
# What the abort of an upload may take: who closes or unlinks a file does not wait for it, the end of the mount does.
ABORT_S = 20.0
# Parts that the service copies at once, of all uploads together: each takes it seconds, and a connection that whoever looks may need.
COPIES_AT_ONCE = 16
# Cells that a commit copies one by one, at least, before an upload is given up for one that copies them together: a few rounds. Beyond
# that it is worth as many as there are parts that would go again, for one costs about as much as the other.
FEW_COPIES = 4 * COPIES_AT_ONCE

# The store has another idea of the upload than we: begin again from the staged bytes.
USELESS = (NoSuchUpload, InvalidPart)


class Uploads:
    """All uploads of one mount."""

    def __init__(self, store: ObjectStore, *, slots: Slots | None = None) -> None:
        self.store = store
        self.slots = slots or Slots()
        self.copies = trio.CapacityLimiter(COPIES_AT_ONCE)
        self._active: set[EarlyUpload] = set()
        self._buffers: list[memoryview] = []
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The background, until cancelled: what is under way then is given up, aborts go on for a time."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    @property
    def running(self) -> bool:
        return self._nursery is not None

    def join(self, upload: EarlyUpload) -> None:
        self._active.add(upload)

    def leave(self, upload: EarlyUpload) -> None:
        self._active.discard(upload)
        if not self._active:
            self._buffers.clear()

    def kick(self) -> None:
        """Begin what may be begun: first for those who have the least under way. Where nothing is, nothing is kept in memory for it."""
        while self._nursery is not None:
            able = [upload for upload in self._active if (size := upload.next_size) is not None and self._may_begin(size)]
            if not able:
                break
            upload = min(able, key=self.slots.of)
            self._nursery.start_soon(upload.begin_next())
        if not self.slots.taken:
            self._buffers.clear()

    def _may_begin(self, size: int) -> bool:
        """An upload itself at any time: a commit that finds one has only parts to send, and shares the slots with the others."""
        return not size or (not self.slots.waited_for and self.slots.fits(size))

    async def in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work* there, or here and now where there is no background."""
        if self._nursery is not None:
            self._nursery.start_soon(work)
        else:
            await work()

    @property
    def kept(self) -> int:
        """Bytes of memory that are kept for the next parts."""
        return sum(map(len, self._buffers))

    def buffer(self, size: int) -> memoryview:
        """Memory for one part, with anything in it."""
        if size == PART_BYTES and self._buffers:
            return self._buffers.pop()
        while self._buffers and self.slots.used + self.kept > self.slots.budget:
            self._buffers.pop()
        return memoryview(bytearray(size))

    def reuse(self, buffer: memoryview) -> None:
        """*buffer* was sent, and is kept for the next part as long as any is under way, and larger parts do not need the memory."""
        if len(buffer) == PART_BYTES and self._active and self.slots.used + self.kept <= self.slots.budget:
            self._buffers.append(buffer)


class EarlyUpload:
    """The upload of one content, whose bytes *layers* has.

    *aim*: where a commit would go now; None: nowhere, so send nothing. *base*: what it is an edit of now.
    """

    def __init__(self, uploads: Uploads, layers: Layers, aim: Callable[[], Aim | None], base: Callable[[], ObjectInfo | None]) -> None:
        self._uploads = uploads
        self._store = uploads.store
        self._layers = layers
        self._aim = aim
        self._base = base
        self._attempt: Attempt | None = None
        self._paused = False
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<EarlyUpload{' paused' if self._paused else ''} {self._attempt!r}>"

    @property
    def upload(self) -> Upload | None:
        """The upload that is open at the store."""
        return self._attempt.upload if self._attempt else None

    @property
    def commit_id(self) -> str:
        """Which commit `complete` is."""
        assert self._attempt is not None
        assert self._attempt.aim is not None
        return self._attempt.aim.commit.commit_id

    def check(self) -> None:
        if self._attempt is not None:
            self._attempt.parts.check()
            assert (self._attempt.phase is Phase.OPEN) == (self.upload is not None), "Y2"

    # -- while it is written ------------------------------------------------------------

    def touched(self, start: int, stop: int) -> None:
        """See `Parts.touched`: before and after every write."""
        if self._attempt is not None:
            self._attempt.parts.touched(start, stop)

    def resized(self, former: int, size: int) -> None:
        if self._attempt is not None:
            self._attempt.parts.resized(former, size)
        self._changed.unpark_all()

    async def written(self, start: int, stop: int) -> None:
        """*start* to *stop* can be read from the layers. Holds the writer up while it is too far ahead."""
        table, settled = self._layers.table, self._layers.settled
        if self._attempt is None:
            if table.size < LEAST_PART:
                return
            base = self._base()
            self._attempt = Attempt(Grid(base.size if base else 0))
        attempt = self._attempt
        if attempt.plan is not None and attempt.plan.is_spoilt_by(start, stop):
            attempt.given_up = True
        if attempt.parts.written(start, stop, table, settled=settled) and self._sends:
            self._uploads.join(self)
            self._uploads.kick()
        if self._is_ahead:
            with trio.move_on_after(PACE_S):
                while self._is_ahead:
                    await self._changed.park()

    @property
    def _is_ahead(self) -> bool:
        attempt = self._sends
        return attempt is not None and attempt.phase is not Phase.IDLE and attempt.parts.ready > WAITING_PARTS

    @property
    def _sends(self) -> Attempt | None:
        """What parts may go for now."""
        attempt = self._attempt if self._uploads.running and not self._paused else None
        return None if attempt is None or attempt.given_up else attempt

    # -- in the background ----------------------------------------------------------------

    @property
    def next_size(self) -> int | None:
        """The bytes of what could be begun now; 0 for the upload itself, None for nothing."""
        attempt = self._sends
        if attempt is None or (cell := attempt.parts.next_ready) is None:
            return None
        if attempt.phase is Phase.OPEN:
            return attempt.parts.grid.clipped(cell, self._layers.table.size).length
        return 0 if attempt.phase is Phase.IDLE and attempt.parts.ready >= START_PARTS else None

    def begin_next(self) -> Callable[[], Awaitable[None]]:
        """What is to be run in the background for `next_size`; a part's slot is taken."""
        size, attempt = self.next_size, self._attempt
        assert size is not None
        assert attempt is not None
        if size:
            self._uploads.slots.take_nowait(self, size)
        scope = trio.CancelScope()
        attempt.tasks.add(scope)
        cell = attempt.parts.next_ready
        assert cell is not None
        if attempt.phase is Phase.IDLE:
            attempt.begin(Plan.of(attempt.parts.grid, cell, self._layers.table, self._layers.settled))
            return partial(self._work, attempt, scope, partial(self._create, attempt), size)
        attempt.parts.begin(cell)
        return partial(self._work, attempt, scope, partial(self._send_early, attempt, cell), size)

    async def _work(self, attempt: Attempt, scope: trio.CancelScope, work: Callable[[], Awaitable[None]], size: int) -> None:
        try:
            with scope:
                await work()
        except StoreError as error:
            attempt.given_up = True
            log.debug("Sending %r while it is written has failed, its commit sends the rest: %s", self._layers, error)
        finally:
            attempt.tasks.remove(scope)
            if size:
                self._uploads.slots.give(self, size)
            self._changed.unpark_all()
            self._uploads.kick()

    async def _create(self, attempt: Attempt) -> None:
        aim = self._aim()
        attempt.phase = Phase.IDLE
        if aim is None:
            attempt.given_up = True
            return
        attempt.phase = Phase.CREATING
        began = trio.current_time()
        try:
            # Not to be cancelled: nobody would know of the upload.
            with trio.move_on_after(ABORT_S, shield=True):
                upload = await self._store.create_upload(aim.key, aim.commit)
                attempt.phase, attempt.aim, attempt.upload = Phase.OPEN, aim, upload
                self._uploads.slots.width.answered(trio.current_time() - began)
        finally:
            if attempt.phase is Phase.CREATING:
                attempt.phase, attempt.given_up = Phase.IDLE, True

    async def _send_early(self, attempt: Attempt, cell: int) -> None:
        assert attempt.plan is not None
        step = Step(attempt.plan.number_of(cell), attempt.parts.grid.span_of(cell), copied=False, cell=cell)
        try:
            aim = self._aim()
            if aim is None or not self._fits(aim) or step.number > PARTS:
                attempt.given_up = True
            elif is_full(self._layers.table, step.span, settled=self._layers.settled):
                await self._send(attempt, step, self._layers.table)
        finally:
            attempt.parts.ended(cell)

    async def _send(self, attempt: Attempt, step: Step, table: Extents) -> Part:
        """Read a part, whose sending has begun, and send it."""
        size = step.span.length
        buffer = self._uploads.buffer(size)
        await self._fill(table, step.span, buffer)
        assert attempt.upload is not None
        began = trio.current_time()
        part = await self._store.put_part(attempt.upload, step.number, buffer)
        self._uploads.slots.arrived(size, trio.current_time() - began)
        self._uploads.reuse(buffer)
        if step.cell:
            attempt.parts.done(step.cell, part)
        return part

    async def _fill(self, table: Extents, span: ByteRange, buffer: memoryview) -> None:
        extents = table.slice(span.start, span.stop)
        if any(extent.kind is Kind.KEPT for extent in extents):
            await self._layers.fill_surely(extents, span.start, buffer)
        else:
            await self._layers.copy_out(extents, span.start, buffer)

    # -- for a commit -------------------------------------------------------------------

    def pause(self) -> None:
        """A commit takes the content as it is now: begin nothing until `resume`."""
        self._paused = True
        if self._attempt is not None:
            self._attempt.parts.freeze()
        self._changed.unpark_all()

    def resume(self) -> None:
        self._paused = False
        self._uploads.kick()

    async def quiet(self) -> None:
        """Until nothing is under way; only while paused."""
        assert self._paused
        while self._attempt is not None and self._attempt.tasks:
            await self._changed.park()

    def fits(self, aim: Aim) -> bool:
        """Whether an upload is open that makes what *aim* asks for, but perhaps for the metadata."""
        return self.upload is not None and self._fits(aim)

    def _fits(self, aim: Aim) -> bool:
        return self._attempt is not None and self._attempt.aim is not None and self._attempt.aim.fits(aim)

    async def send_rest(self, table: Extents, base: ObjectInfo | None) -> list[Part] | None:
        """All parts of *table*, which nobody changes any more; copies what *base* has, sends what is not there yet.

        None: the upload had better not become that. What is touched from now on belongs to a later commit.
        Raises as `put_part`, `copy_part` and `Layers.fill_surely`.
        """
        assert self._paused
        attempt = self._attempt
        assert attempt is not None
        assert attempt.plan is not None
        steps = attempt.plan.steps(table, self._layers.settled, copies=base is not None and base.size > LEAST_PART)
        if steps is None:
            return None
        there = attempt.parts.true_parts(table.size)
        if copied_singly(steps) > max(FEW_COPIES, len(there)):
            return None
        parts = {step.number: there[step.cell] for step in steps if step.cell in there}
        left = [step for step in steps if step.number not in parts]
        failures: list[S3MountError] = []

        async def work(nursery: trio.Nursery, jobs: Iterator[Step]) -> None:
            for step in jobs:
                try:
                    parts[step.number] = await (self._copy(attempt, step, base) if step.copied else self._send_late(attempt, step, table))
                except S3MountError as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()
                    return

        async with trio.open_nursery() as nursery:
            for copied, at_once in ((True, COPIES_AT_ONCE), (False, self._uploads.slots.width.most)):
                jobs = [step for step in left if step.copied is copied]
                waiting = iter(jobs)
                for _ in jobs[:at_once]:
                    nursery.start_soon(work, nursery, waiting)
        if failures:
            raise failures[0]
        return [parts[number] for number in sorted(parts)]

    async def _copy(self, attempt: Attempt, step: Step, base: ObjectInfo | None) -> Part:
        assert attempt.upload is not None
        assert base is not None
        async with self._uploads.copies:
            return await self._store.copy_part(attempt.upload, step.number, source=base, span=step.span)

    async def _send_late(self, attempt: Attempt, step: Step, table: Extents) -> Part:
        try:
            async with self._uploads.slots.taking(self, step.span.length):
                if not step.cell:
                    return await self._send(attempt, step, table)
                attempt.parts.begin_frozen(step.cell)
                try:
                    return await self._send(attempt, step, table)
                finally:
                    attempt.parts.ended(step.cell)
        finally:
            self._uploads.kick()

    async def complete(self, parts: Sequence[Part]) -> ObjectInfo:
        """Make *parts* the object. Raises as `complete_upload`; NoSuchUpload, InvalidPart: begin again in another way.

        The upload may have been let go since a former try.
        """
        if self.upload is None:
            raise NoSuchUpload(f"The upload of {self._layers.key!r} was given up.")
        return await self._store.complete_upload(self.upload, parts)

    def committed(self) -> None:
        """The content was committed, and what there was of an upload is over: what comes now is an edit of that."""
        self._attempt = None
        self._uploads.leave(self)

    async def drop(self) -> None:
        """Abort what there is, and begin anew with the next byte written. When this returns, the upload cannot become the object any more,
        unless its store did not answer.
        """
        if not self.let_go_nowait() and (attempt := self._replaced()) is not None:
            await self._end(attempt)

    def let_go_nowait(self) -> bool:
        """As `let_go`, where nothing is under way; else False, and nothing is done."""
        if self._attempt is not None and (self._attempt.tasks or self._attempt.upload is not None):
            return False
        self._replaced()
        return True

    async def let_go(self) -> None:
        """As `drop`, but the abort is left to the background where there is one."""
        if not self.let_go_nowait() and (attempt := self._replaced()) is not None:
            await self._uploads.in_background(partial(self._end, attempt))

    def _replaced(self) -> Attempt | None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._uploads.leave(self)
            attempt.stop()
            self._changed.unpark_all()
        return attempt

    async def _end(self, attempt: Attempt) -> None:
        with trio.CancelScope(shield=True):
            while attempt.tasks:
                await self._changed.park()
            if attempt.upload is not None:
                await self._abort(attempt.upload)

    async def _abort(self, upload: Upload) -> None:
        with trio.move_on_after(ABORT_S) as scope:
            try:
                await self._store.abort_upload(upload)
            except StoreError as error:
                log.warning("The upload of %r could not be aborted, its parts stay behind: %s", upload.key, error)
        if scope.cancelled_caught:
            log.warning("The upload of %r was not aborted within %d s, its parts stay behind", upload.key, ABORT_S)

"""One inode's bytes, shared by all its handles, and the commit that makes them an object.

Owns: what is committed, sent or in doubt, and under which condition a commit goes out.
Must not know: names, attributes, handles, the kernel; where the bytes are (see layers).

A commit freezes the layers, sends the frozen copy, and on success the new version is the base. Commits of one inode are serial; nothing
else waits for them.

    commit -- freeze: copy the table, next generation -- written: writes of the frozen one that threads still carry
             |                                              |
             |   write, read, truncate go on                +-- small: put together, `put` whole      --.
             |                                              +-- large: `adopt` kept, staged, holes    --+-- deliver (see delivery)
             v                                                                                          |
       FAILED: nothing to undo, the table still names the frozen logs;  <-- refused, lost, cancelled ---+
       the next commit sends them with what came since                                                  |
       CLEAN: base = new version, the frozen generation is settled      <-- done -----------------------'

    the states: see commit_state

Small contents (`WHOLE_BYTES`) go whole: one PUT, no crumbs in the store; what was put together is kept for reading, so no pin is needed.
Emptying (truncate to 0) makes the next commit a full overwrite: unconditional, unless the target says otherwise. Any other commit of a
file that has a base is an edit: if the object is not the base any more, it is refused (Stale) rather than undo somebody's work.
After a lost reply the commit id stays as a `Doubt`: the next commit looks for it before it sends anything.

Invariants (`check`), besides those of layers and commit_state:
F1  When nothing is changed, the size is that of the committed version.
F2  Something is frozen exactly while the state says that a commit is under way.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

import trio

from s3mount.errors import S3MountError, Stale, StoreError, TimedOut, TooLarge, Unsupported
from s3mount.fs.attempt import Aim
from s3mount.fs.buffers import BufferPool
from s3mount.fs.commit_state import CREATED, FOUND, CommitState, Done, Edited, Emptied, Event, Failed, Frozen, step
from s3mount.fs.delivery import LOST, Doubt, Sending, deliver, look
from s3mount.fs.early import USELESS, EarlyUpload, Uploads
from s3mount.fs.kept import Keep, Uncommitted, nothing_since
from s3mount.fs.layers import GONE, Layers
from s3mount.fs.lost import Lost
from s3mount.fs.staging import StagingArea
from s3mount.fs.turn import Turn
from s3mount.model import OBJECT_BYTES, Condition, ETag, Key, KiB, Matches, ObjectInfo, Part
from s3mount.store.api import Commit, ObjectStore

log = logging.getLogger(__name__)

# Contents up to this are sent whole: reading and sending that much costs less than the bookkeeping of an edit, and leaves no fragments.
WHOLE_BYTES = 128 * KiB


@dataclass(frozen=True, slots=True)
class Target:
    """Where a commit goes, and everything about it but the bytes.

    The content replaces `commit.commit_id` by its own, and for an edit `commit.condition` by `Matches(base.etag)`;
    the condition given here (Absent for O_EXCL, None as a rule) is for new and fully overwritten files.
    """

    key: Key
    commit: Commit


class FileContent:
    """Base version, staged bytes and size of one inode.

    Use: construct, `open`, any number of `read`, `write`, `truncate`, `commit` by any tasks, `aclose` when none of them is under way.
    """

    def __init__(
        self,
        store: ObjectStore,
        staging: StagingArea,
        buffers: BufferPool,
        *,
        base: ObjectInfo | None,
        uploads: Uploads | None = None,
        target: Callable[[], Target | None] = lambda: None,
    ) -> None:
        """*base* None: a new file, which is `changed` and `untouched` from the start.

        With *uploads*, parts go while it is written; *target*: where a commit would go now, None where there will be none.
        """
        self._store = store
        self._layers = Layers(store, staging, buffers, base=base)
        self.renewals = self._layers.renewals
        self._committed = base
        self._state: CommitState = FOUND if base else CREATED
        self._sending: Sending | None = None
        self._doubt: Doubt | None = None
        self._lost = Lost()
        self._local = False
        self._committing = Turn()
        self._target = target
        self._early = EarlyUpload(uploads, self._layers, self._early_aim, lambda: self.base) if uploads else None

    def __repr__(self) -> str:
        return f"<FileContent {self._layers.key} {self._state.phase.value} {self._layers!r}>"

    # -- what it is -------------------------------------------------------------------

    @property
    def size(self) -> int:
        """What stat must show now."""
        return self._layers.table.size

    @property
    def base(self) -> ObjectInfo | None:
        """The version this content is an edit of; None: new, or emptied (a full overwrite: the commit is unconditional)."""
        return None if self._state.overwrites else self._layers.base

    @property
    def committed(self) -> ObjectInfo | None:
        """The version that this mount last found or made under the key, whether or not it is still the base."""
        return self._committed

    @property
    def changed(self) -> bool:
        """Something is not committed yet (a new or emptied file counts, and what is being sent right now)."""
        return self._state.changed

    @property
    def untouched(self) -> bool:
        """Created or emptied, and nothing written yet: commit only when the last handle goes."""
        return self._state.untouched

    @property
    def incomplete(self) -> bool:
        """Bytes that were written could not be kept: no commit until they are written again (see lost)."""
        return bool(self._lost)

    @property
    def error(self) -> S3MountError | None:
        """Why the last commit failed; None once one succeeded."""
        return self._state.error

    def check(self) -> None:
        self._layers.check()
        self._state.check()
        self._lost.check()
        assert self.changed or (self._committed is not None and self._committed.size == self.size), "F1"
        assert (self._sending is None) == (self._state.sending is None), "F2"
        if self._early is not None:
            self._early.check()

    # -- opening and closing ------------------------------------------------------------

    async def open(self, key: Key | None = None) -> None:
        """Pin the base, now called *key*, unless it is pinned or not needed. Raises Stale when it was replaced or is gone."""
        self._layers.key = key or self._layers.key
        if self._layers.table.live(0) or not (self._state.edits or self._local):
            await self._layers.pin()

    def moved(self, key: Key) -> None:
        """The object is called *key* now."""
        self._layers.moved(key)
        if self._committed is not None:
            self._committed = replace(self._committed, key=key)

    async def rebase(self, info: ObjectInfo, *, former: ETag | None = None) -> None:
        """This mount replaced the metadata of version *former* (None: the ETag stayed): the same bytes are called *info* now.

        Waits for a commit under way. Does nothing if we do not stand on that version any more.
        """
        async with self._committing:
            base = self._layers.base
            if base is None or not self._layers.stands_on(former or info.etag):
                return
            self._committed = self._layers.base = info
            self._layers.key = info.key
            if self._early is not None:
                await self._early.let_go()
            if base.etag != info.etag and not self._store.capabilities.versions:
                await self._layers.drop_pin()

    async def carried(self, info: ObjectInfo, *, former: ETag) -> None:
        """Version *former* was copied, and goes: the same bytes are *info*. Waits for no commit."""
        if self._committed is not None and self._committed.etag == former:
            self._committed = info
        await self._layers.carried(info, former=former)

    async def localise(self, limit: int) -> None:
        """The object is about to go: pin it if the store keeps what is pinned, else fetch what is needed of it, at most *limit* bytes.

        Raises Stale when it is gone already, NoSpace, StoreError.
        """
        async with self._committing:
            await (self.open() if (keeps := self._store.capabilities.versions) else self._layers.fetch_kept(limit))
            self._local = not keeps

    async def hand_over(self, target: Target, keep: Keep, *, error: S3MountError | None, fetch: int) -> None:
        """Have *keep* keep what no commit took (for *error*), as the next commit would have sent it. Raises StoreError where it cannot.

        Of what still lies with the base, up to *fetch* bytes are fetched first; whatever does not come stays a piece of the base.
        """
        async with self._committing:
            if not self._state.changed:
                return
            try:
                await self._layers.fetch_kept(fetch)
            except S3MountError as missing:
                log.info("The rest of %r stays where it is: %s", target.key, missing)
            frozen = self._layers.freeze()
            try:
                await self._layers.written(frozen)
                content = self._layers.content(frozen)
                condition = self._condition(target, overwrites=self._state.overwrites and content.base is None)
                sent_as = self._doubt.commit_id if self._doubt is not None and self._doubt.edits == self._state.edits else ""
                commit = replace(target.commit, condition=condition or nothing_since(self._committed, self._store), commit_id=sent_as)
                await keep(Uncommitted(key=target.key, content=content, commit=commit, error=error, incomplete=self.incomplete))
            finally:
                self._layers.thaw()

    async def aclose(self) -> None:
        """Release the pin and the staged bytes: what is not committed is lost. Waits for a commit; idempotent, not cancellable."""
        if self._committing.free and (self._early is None or self._early.let_go_nowait()) and self._layers.close_nowait():
            return
        with trio.CancelScope(shield=True):
            async with self._committing:
                if self._early is not None:
                    await self._early.let_go()
                await self._layers.aclose()

    # -- bytes ------------------------------------------------------------------------

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """The bytes from *offset*, fewer at the end of the file. Valid until the caller's next checkpoint. Raises Stale, StoreError.

        What is in memory comes without a checkpoint. Never waits for a commit, except where the store drops the version that it replaces.
        """
        return await self._layers.read(offset, size)

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        """Raises NoSpace, TooLarge: then the file has its former bytes, except that some in *data*'s range may be new.

        What was not kept for want of space is in no commit either: see `incomplete`.
        """
        if not len(data):
            return
        require_size(offset + len(data))
        self._step(Edited())
        if self._early is None:
            await self._write(offset, data)
            await self._layers.drop_overwritten()
            return
        stop = offset + len(data)
        self._early.touched(min(offset, self.size), stop)
        try:
            await self._write(offset, data)
        finally:
            self._early.touched(offset, stop)  # what lay between the former end and *offset* may have been filled and sent by now
        await self._layers.drop_overwritten()
        await self._early.written(offset, stop)

    async def _write(self, offset: int, data: bytes | memoryview) -> None:
        try:
            await self._layers.write(offset, memoryview(data))
        except S3MountError as error:
            self._lost.add(offset, offset + len(data), error)
            raise
        except trio.Cancelled:
            self._lost.add(offset, offset + len(data), TimedOut("A write was given up."))
            raise
        if self._lost:
            self._lost.rewritten(offset, offset + len(data))

    async def truncate(self, size: int) -> None:
        """Cut, or grow by zeros. To 0: the next commit is a full overwrite. Raises TooLarge."""
        require_size(size)
        self._lost.cut(size)
        if size != self.size or not size:
            self._step(Edited() if size else Emptied())
            if self._early is not None:
                self._early.resized(self.size, size)
            await self._layers.resize(size)
            if self._early is not None and not size:
                await self._early.let_go()

    # -- committing -------------------------------------------------------------------

    async def commit(self, target: Callable[[], Target]) -> ObjectInfo:
        """Make the content the object. *target* is called when the request is about to be sent (and before, to look after a lost reply).

        Waits for a commit under way, and then does nothing if nothing changed since. Raises Stale when the base was replaced,
        AlreadyExists for an Absent condition, NoSpace, Unavailable ...: the bytes stay, `error` keeps it, the next commit sends all.
        Cancelled, it may have happened; the next commit finds out.
        """
        async with self._committing:
            try:
                await self._resolve_doubt(target)
                if not self._state.changed and self._committed is not None:
                    return self._committed
                self._lost.require_none()
                return await self._send(self._freeze(), target)
            except BaseException as error:
                self._fail(error)
                raise
            finally:
                await self._layers.drop_unreferenced()

    async def _resolve_doubt(self, target: Callable[[], Target]) -> None:
        if (doubt := self._doubt) is None:
            return
        info = await look(self._store, target().key, doubt.commit_id)
        if info is None:
            self._doubt = None
        else:
            if self._early is not None:
                await self._early.let_go()
            self._succeed(doubt.generation, doubt.edits, info)
            await self._layers.settle()

    def _freeze(self) -> Sending:
        self._step(Frozen())
        self._sending = Sending(self._layers.freeze(), self._state.edits, self._state.overwrites)
        if self._early is not None:
            self._early.pause()
        return self._sending

    async def _send(self, sending: Sending, target: Callable[[], Target]) -> ObjectInfo:
        await self._layers.written(sending.layers)
        if self._early is not None and (info := await self._send_rest(self._early, sending, target)) is not None:
            return info
        if sending.layers.table.size <= WHOLE_BYTES:
            return await self._send_whole(sending, target)
        return await self._send_pieces(sending, target)

    async def _send_rest(self, early: EarlyUpload, sending: Sending, target: Callable[[], Target]) -> ObjectInfo | None:
        """Complete the upload that was begun early; None where there is none that fits, or none any more."""
        await early.quiet()
        table, edits = sending.layers.table, not sending.overwrites
        try:
            if table.size > WHOLE_BYTES and (edits or not table.live(0)) and early.fits(self._aim(target(), edits=edits)):
                parts = await self._rest_of(early, sending)
                if parts and early.fits(self._aim(target(), edits=edits)):
                    complete = partial(early.complete, parts)
                    info = await self._deliver(sending, target, lambda key, commit: complete(), keeps=edits, commit_id=early.commit_id)
                    await self._layers.settle()
                    return info
        except USELESS as error:
            log.info("The upload of %r is over before its time, all of it is sent anew: %s", self._layers.key, error)
        await early.drop()
        return None

    async def _rest_of(self, early: EarlyUpload, sending: Sending) -> list[Part] | None:
        """None where it had better be sent anew (some services copy no parts, some take none twice), by who judges if the base is there."""
        try:
            return await early.send_rest(sending.layers.table, None if sending.overwrites else self._layers.base)
        except (*GONE, Stale, Unsupported) as error:
            log.info("Not all parts of %r could go as meant, it is sent anew: %s", early.upload and early.upload.key, error)
            return None

    def _aim(self, target: Target, *, edits: bool, commit_id: str = "") -> Aim:
        """Where a commit goes; *edits*: the base, else it is an overwrite."""
        base = self._layers.base if edits else None
        condition = self._condition(target, overwrites=not edits)
        return Aim(target.key, replace(target.commit, condition=condition, commit_id=commit_id), base.etag if base else None)

    def _early_aim(self) -> Aim | None:
        edits = not self._state.overwrites
        can = self._doubt is None and (not edits or self._store.capabilities.part_copy)
        target = self._target() if can else None
        return self._aim(target, edits=edits, commit_id=secrets.token_hex(16)) if target else None

    async def _send_whole(self, sending: Sending, target: Callable[[], Target]) -> ObjectInfo:
        whole = self._layers.in_one(sending.layers)
        if whole is None:
            whole = bytearray(sending.layers.table.size)
            await self._layers.fill_surely(list(sending.layers.table), 0, memoryview(whole))
        info = await self._deliver(sending, target, lambda key, commit: self._store.put(key, whole, commit))
        await self._layers.gather(whole)
        return info

    async def _send_pieces(self, sending: Sending, target: Callable[[], Target]) -> ObjectInfo:
        content = self._layers.content(sending.layers)
        keeps = content.base is not None
        info = await self._deliver(sending, target, lambda key, commit: self._store.adopt(key, content, commit), keeps=keeps)
        await self._layers.settle()
        return info

    async def _deliver(
        self,
        sending: Sending,
        target: Callable[[], Target],
        send: Callable[[Key, Commit], Awaitable[ObjectInfo]],
        *,
        keeps: bool = False,
        commit_id: str = "",
    ) -> ObjectInfo:
        aim = target()
        condition = self._condition(aim, overwrites=sending.overwrites and not keeps)
        commit = replace(aim.commit, condition=condition, commit_id=commit_id or secrets.token_hex(16))
        self._doubt = Doubt(commit.commit_id, sending.layers.generation, sending.edits)
        try:
            info = await deliver(self._store, aim.key, commit.commit_id, lambda: send(aim.key, commit))
        except StoreError as error:
            if not isinstance(error, LOST):
                self._doubt = None
            if isinstance(error, GONE):
                raise self._layers.stale(aim.key) from error
            raise
        self._succeed(sending.layers.generation, sending.edits, info)
        return info

    def _condition(self, aim: Target, *, overwrites: bool) -> Condition:
        if self._layers.base is None or overwrites:
            return aim.commit.condition
        return Matches(self._layers.base.etag) if self._store.capabilities.conditional_put else None

    def _succeed(self, generation: int, edits: int, info: ObjectInfo) -> None:
        self._committed = info
        self._layers.rest_on(info, generation)
        self._doubt = None
        self._step(Done(edits))
        if self._early is not None:
            self._early.committed()
        self._end_sending()

    def _fail(self, error: BaseException) -> None:
        """Nothing to undo: the table still names the frozen logs."""
        reason = error if isinstance(error, S3MountError) else None
        if self._sending is not None or reason is not None:
            self._step(Failed(reason))
        self._end_sending()

    def _end_sending(self) -> None:
        if self._sending is not None:
            self._sending = None
            self._layers.thaw()
            if self._early is not None:
                self._early.resume()

    def _step(self, event: Event) -> None:
        self._state = step(self._state, event)


def require_size(size: int) -> None:
    """Raise TooLarge for a size that no object can have."""
    if size > OBJECT_BYTES:
        raise TooLarge(f"A file of {size} bytes is over the limit of {OBJECT_BYTES}.")

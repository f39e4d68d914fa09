"""Sending what is pending: when, how much at once, and what an answer means.

Owns: the background task, back-off, the batches of removals, finding out whether something that may have been sent arrived.
Must not know: how changes are entered, what is shown of them.

    due --> in doubt? look for its commit id --found--> arrived
             |                  `-- not there, and a newer change waits --> superseded
             v
            send --acknowledged--> arrived
             |--refused: look once more for the commit id, then--> FAILED, for good
             `--anything else--> WAITING again, in doubt where the reply was lost; later each time, or as soon as somebody waits (`hurry`)

A change waits `SETTLE_S` before it is sent: a file that is renamed, described or written again right after its close is sent once. Removals
wait `GATHER_S` for others, and go up to a thousand in a request.
While a program writes many files, sending them waits for a pause of it: both would share one processor.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import trio

from s3mount.errors import (
    AlreadyExists,
    Corrupt,
    InvalidName,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    S3MountError,
    StoreError,
    TimedOut,
    TooLarge,
    Unavailable,
    Unsupported,
)
from s3mount.model import Absent, Condition, Content, ETag, Key, Matches, MiB, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore
from s3mount.store.aspects import commit_id_of
from s3mount.store.rules import DELETE_KEYS, changed
from s3mount.writeback.chains import Entry, Phase
from s3mount.writeback.holding import close_all
from s3mount.writeback.journal import INLINE_BYTES
from s3mount.writeback.pending import PAUSE_S, Pending
from s3mount.writeback.records import Op, Record, commit_of, is_local
from s3mount.writeback.rescue import rescued
from s3mount.writeback.sources import assembled, staged

log = logging.getLogger(__name__)

# Requests under way: at 30 ms each, a thousand small files take 0.7 s, at the 80 ms of a service that is busy with them 1.7 s.
# More than half of the connections that a mount has are left for others.
PARALLEL = 48
# Programs that rename or describe what they wrote do so within this.
SETTLE_S = 0.3
GATHER_S = 1.0
# Behind the patience that the store inside has by itself.
BACK_OFF_S, BACK_OFF_MOST_S = 1.0, 60.0
# A burst of changes comes first: for so long, unless so much waits.
BURST_S = 5.0
BACKLOG = 1000
BACKLOG_BYTES = 64 * MiB
# What a file is written over by counts for this long: as with two programs on one disk, the later one wins. What has waited for longer (the
# store was away, the machine was off) is sent only if nobody else has written meanwhile.
OLD_NS = 600 * 10**9
# The same trouble is in the log no more often.
SILENCE_S = 60.0

# The store will never take it as it is.
FOR_GOOD = (PreconditionFailed, AlreadyExists, NotFound, InvalidName, TooLarge, Unsupported, Corrupt)
LOST = (OutcomeUnknown, TimedOut)


class Sender:
    """Sends what *pending* has to *inner*, from `start` to `aclose`."""

    def __init__(self, inner: ObjectStore, pending: Pending, *, rng: random.Random | None = None) -> None:
        self._inner = inner
        self._pending = pending
        self._random = rng or random.Random()
        self._heap: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()
        self._urgent: deque[Entry] = deque()
        self._removals: dict[int, Entry] = {}
        self._wake = trio.Event()
        self._waits_until = float("inf")
        self._running = 0
        self._scope = trio.CancelScope()
        self._ended: trio.Event | None = None
        self.sent = 0
        self.sent_bytes = 0
        self.last_error = ""
        self._said: object = None
        self._quiet_until = 0.0
        pending.offered = self.offer

    def start(self) -> None:
        """Begin. The task is a system task, so that no nursery need be at hand."""
        self._ended = trio.Event()
        trio.lowlevel.spawn_system_task(self._run)

    async def aclose(self) -> None:
        """Stop sending: what is under way may have arrived or not, which the next mount finds out. Idempotent."""
        self._scope.cancel()
        if self._ended is not None:
            await self._ended.wait()

    def offer(self, entry: Entry) -> None:
        """*entry* may be sent when it is due and first of its key, or as soon as it is first if somebody waits for it."""
        if entry.hurried:
            self._urgent.append(entry)
        else:
            self._push(entry)
        if entry.record.op is Op.DELETE and entry.record.condition is None and self._is_ready(entry) and not self._is_old(entry):
            self._removals[entry.record.id] = entry
            if len(self._removals) >= DELETE_KEYS:
                entry.due = trio.current_time()
                self._push(entry)
        if self._urgent or self._next_at() < self._waits_until:
            self._wake.set()

    def hurry(self, entries: Sequence[Entry]) -> None:
        """Somebody waits for *entries*."""
        for entry in self._pending.chains.with_those_before(entries):
            if entry.phase is not Phase.SENDING and not entry.hurried:
                entry.hurried = True
                self._urgent.append(entry)
        self._wake.set()

    def _push(self, entry: Entry) -> None:
        heapq.heappush(self._heap, (entry.due, next(self._numbers), entry))

    def _is_ready(self, entry: Entry) -> bool:
        return entry.phase is Phase.WAITING and self._pending.chains.is_next(entry)

    # -- the task -------------------------------------------------------------------------

    async def _run(self) -> None:
        assert self._ended is not None
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    while True:
                        self._start_due(nursery)
                        await self._wait()
        finally:
            self._ended.set()

    async def _wait(self) -> None:
        """Until something may be startable."""
        self._wake = trio.Event()
        self._waits_until = self._next_at()
        with trio.move_on_at(self._waits_until):
            await self._wake.wait()

    def _next_at(self) -> float:
        """When the next change may be sent for which nobody waits."""
        return max(self._heap[0][0], self._quiet_at()) if self._heap and self._running < PARALLEL else float("inf")

    def _start_due(self, nursery: trio.Nursery) -> None:
        while self._urgent and self._running < PARALLEL:
            self._start(self._urgent.popleft(), nursery)
        now = trio.current_time()
        if now < self._quiet_at():
            return
        while self._heap and self._heap[0][0] <= now and self._running < PARALLEL:
            entry = heapq.heappop(self._heap)[2]
            if entry.due > now:
                self._push(entry)
            else:
                self._start(entry, nursery)

    def _start(self, entry: Entry, nursery: trio.Nursery) -> None:
        if not self._is_ready(entry):
            return  # what holds it up offers it again
        batch = self._batch(entry)
        for each in batch:
            each.phase = Phase.SENDING
        self._running += 1
        nursery.start_soon(self._work, self._send_removals if len(batch) > 1 else self._send_one, batch)

    def _quiet_at(self) -> float:
        """A moment after the last change was entered: until then the processor is for those who write, up to a limit."""
        if len(self._pending.chains) >= BACKLOG or self._pending.bytes >= BACKLOG_BYTES:
            return 0.0
        return min(self._pending.last_entered + PAUSE_S, self._pending.burst_began + BURST_S)

    def _batch(self, entry: Entry) -> list[Entry]:
        if entry.record.id not in self._removals or self._is_old(entry):
            self._removals.pop(entry.record.id, None)
            return [entry]
        batch = [each for each in self._removals.values() if self._is_ready(each) and not self._is_old(each)][:DELETE_KEYS]
        if entry not in batch:
            batch[-1:] = [entry]
        for each in batch:
            del self._removals[each.record.id]
        if len(self._removals) < DELETE_KEYS:
            self._removals = {number: each for number, each in self._removals.items() if self._is_ready(each)}
        return batch

    async def _work(self, send: Callable[[Sequence[Entry]], Awaitable[None]], batch: Sequence[Entry]) -> None:
        try:
            await send(batch)
        except S3MountError as error:
            log.error("The journal of %r cannot be kept: %s", batch[0].record.key, error)
            await self._again(batch[0], Unavailable(str(error)))
        except Exception as error:
            log.exception("Sending %r failed", batch[0].record.key)
            for entry in batch:
                if entry.phase is Phase.SENDING and entry in self._pending.chains.of(entry.record.key):
                    await self._again(entry, Unavailable(f"A defect: {error!r}."))
        finally:
            self._running -= 1
            self._wake.set()

    # -- one change -----------------------------------------------------------------------

    async def _send_one(self, batch: Sequence[Entry]) -> None:
        (entry,) = batch
        try:
            if entry.record.op is Op.DELETE:
                await self._remove(entry)
                return
            stored = await self._look(entry) if entry.doubt else None
            if stored is None and entry.doubt and await self._pending.superseded(entry):
                return
            await self._arrived(entry, stored or await self._put(entry))
        except FOR_GOOD as error:
            await self._refused(entry, error)
        except StoreError as error:
            entry.doubt = entry.doubt or isinstance(error, LOST)
            await self._again(entry, error)

    async def _arrived(self, entry: Entry, stored: ObjectInfo | None) -> None:
        self._is_there(entry, stored)
        await self._pending.leave([entry.record.id])

    def _is_there(self, entry: Entry, stored: ObjectInfo | None) -> None:
        self.sent += 1
        self.sent_bytes += entry.record.size
        if stored is not None:
            self._pending.listener.stored(stored)
        self._pending.arrived(entry, stored)

    async def _again(self, entry: Entry, error: StoreError) -> None:
        self.last_error = str(error)
        tries = min(entry.record.attempts, 10)
        delay = min(BACK_OFF_MOST_S, BACK_OFF_S * 2**tries) * self._random.uniform(0.5, 1)
        if self._said != (said := (type(error), str(error))) or trio.current_time() >= self._quiet_until:
            self._said, self._quiet_until = said, trio.current_time() + SILENCE_S
            log.warning("%r and what else waits is not in the bucket yet, which is tried again: %s", entry.record.key, error)
        await self._pending.tried(entry, error, due=trio.current_time() + delay)

    async def _refused(self, entry: Entry, error: StoreError) -> None:
        """A refusal may be the echo of our own success, or be overtaken by what came after."""
        record = entry.record
        if record.op is Op.PUT:
            stored = await self._look(entry) or await self._same_marker(record, error)
            if stored is not None:
                return await self._arrived(entry, stored)
        kept = await self._rescued(entry)
        try:
            stands_alone = await self._pending.refuse(entry, error, kept)
        finally:
            if kept is not None:
                with trio.CancelScope(shield=True):
                    await self._pending.together.call(self._pending.journal.forget, list(kept[1]))
        if stands_alone:
            self.last_error = str(error)
            log.error("%r could not be stored, what was written is kept (s3mount pending): %s", record.key, error)
        return None

    async def _rescued(self, entry: Entry) -> tuple[Record, dict[str, bytes | int]] | None:
        """The record with bytes of its own, where those that it was to be a copy of will not be there for long."""
        if not self._pending.is_last_copy(entry):
            return None
        base = await self._base(entry.record)
        assert base is not None
        try:
            return await rescued(self._inner, self._pending.journal, entry.record, base)
        except FOR_GOOD as error:
            log.error("What %r was to be a copy of is gone: %s", entry.record.key, error)
            return entry.record, {}

    async def _look(self, entry: Entry) -> ObjectInfo | None:
        """The object if *entry*'s commit made it."""
        try:
            info = await self._inner.head(entry.record.key)
        except NotFound:
            return None
        return info if commit_id_of(info) == entry.record.commit_id else None

    async def _same_marker(self, record: Record, error: StoreError) -> ObjectInfo | None:
        """A directory's marker that somebody else made as well: all that was wanted."""
        if not isinstance(error, AlreadyExists) or record.size or not record.key.endswith("/"):
            return None
        try:
            info = await self._inner.head(record.key)
        except NotFound:
            return None
        self._pending.listener.forget(record.key)
        return info

    # -- bytes ----------------------------------------------------------------------------

    async def _put(self, entry: Entry) -> ObjectInfo:
        record = entry.record
        commit = Commit(
            condition=await self._condition(record.key, self._guarded(entry)),
            metadata=record.metadata,
            content_type=record.content_type,
            storage_class=record.storage_class,
            commit_id=record.commit_id,
            former=await self._former(record),
        )
        if record.is_base_again:
            return await (self._copy(record, commit) if record.reads else self._describe(record, commit.condition))
        bodies = await self._pending.holding.of(entry)
        try:
            if record.size <= INLINE_BYTES and not record.keeps:
                return await self._inner.put(record.key, await assembled(record, bodies), commit)
            base = await self._base(record)
            pieces = tuple(staged(piece, bodies) for piece in record.pieces)
            return await self._inner.adopt(record.key, Content(record.size, pieces, base), commit)
        finally:
            close_all(bodies)

    async def _describe(self, record: Record, condition: Condition) -> ObjectInfo:
        """The base's bytes with other metadata."""
        base = await self._base(record)
        assert base is not None
        etag = condition.etag if isinstance(condition, Matches) else base.etag
        return await self._inner.update(record.key, {**record.metadata, COMMIT_ID: record.commit_id}, if_match=etag)

    async def _copy(self, record: Record, commit: Commit) -> ObjectInfo:
        """The base's bytes under another key."""
        base = await self._base(record)
        assert base is not None
        return await self._inner.copy(Key(record.reads), record.key, if_match=base.etag, commit=replace(commit, former=None))

    def _guarded(self, entry: Entry) -> Condition:
        """On which condition a change is sent: what has waited for long is not to undo what others have done since."""
        record = entry.record
        marker = record.key.endswith("/") and not record.size
        if record.condition is not None or marker or not self._is_old(entry):
            return record.condition
        return Matches(ETag(record.former)) if record.former else Absent()

    def _is_old(self, entry: Entry) -> bool:
        return entry.inherited or self._pending.now_ns() - entry.record.created_ns > OLD_NS

    async def _condition(self, key: Key, condition: Condition) -> Condition:
        if not self._inner.capabilities.conditional_put:
            return None
        if isinstance(condition, Matches) and is_local(condition.etag):
            real = self._pending.overlay.real(key, condition.etag)
            return Matches(real or (await self._real(key, condition.etag)).etag)
        return condition

    async def _former(self, record: Record) -> ObjectInfo | None:
        """The version in the store whose place this one takes, where that can be told; what it has beyond metadata stays."""
        etag = ETag(record.former)
        if etag and is_local(etag):
            try:
                etag = self._pending.overlay.real(record.key, etag) or (await self._real(record.key, etag)).etag
            except PreconditionFailed:
                return None
        return ObjectInfo(record.key, 0, etag, 0) if etag else None

    async def _base(self, record: Record) -> ObjectInfo | None:
        """The version in the store that *record* keeps something of."""
        base = record.base
        return await self._real(base.key, base.etag) if base is not None and is_local(base.etag) else base

    async def _real(self, key: Key, etag: ETag) -> ObjectInfo:
        """Our version *etag* of *key*, as the store calls it. Raises PreconditionFailed where it is another one by now."""
        try:
            info = await self._inner.head(key)
        except NotFound:
            raise changed(key) from None
        if commit_id_of(info) != commit_of(etag):
            raise changed(key)
        return info

    # -- removals ---------------------------------------------------------------------------

    async def _remove(self, entry: Entry) -> None:
        try:
            await self._require_untouched(entry)
            condition = await self._condition(entry.record.key, self._guarded(entry))
            await self._inner.delete(entry.record.key, if_match=condition.etag if isinstance(condition, Matches) else None)
        except (PreconditionFailed, NotFound):
            log.info("%r was replaced by somebody else before its removal: it stays", entry.record.key)
            self._pending.listener.forget(entry.record.key)
        await self._arrived(entry, None)

    async def _require_untouched(self, entry: Entry) -> None:
        """An old removal of nobody knows which version is only for what was there before it. Raises PreconditionFailed, NotFound."""
        record = entry.record
        if record.condition is None and not record.former and self._is_old(entry):
            info = await self._inner.head(record.key)
            if info.mtime_ns > record.created_ns:
                raise changed(record.key)

    async def _send_removals(self, batch: Sequence[Entry]) -> None:
        try:
            failures = {failure.key: failure.error for failure in await self._inner.delete_many([entry.record.key for entry in batch])}
        except StoreError as error:
            failures = {entry.record.key: error for entry in batch}
        there = [entry for entry in batch if entry.record.key not in failures]
        for entry in there:
            self._is_there(entry, None)
        if there:
            await self._pending.leave([entry.record.id for entry in there])
        for entry in batch:
            if entry.record.key in failures:
                await self._again(entry, failures[entry.record.key])

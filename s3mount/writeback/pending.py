"""What is pending, in the journal, in memory and laid over the store: the three change together.

Owns: the steps by which a change is entered, replaced, arrives or is refused; who waits for what.
Must not know: how anything is sent, the protocol's verbs, where bodies are.

Each step is one transaction of the journal. What is in memory changes after it, at once; meanwhile the change that is to be replaced is
HELD, so that nobody begins to send it. Steps of one key take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace

import trio

from s3mount.errors import StoreError, Unavailable
from s3mount.model import Absent, Condition, ETag, Key, Matches, ObjectInfo
from s3mount.store.rules import changed
from s3mount.writeback.chains import Chains, Entry, Phase, carried, judge
from s3mount.writeback.holding import Holding
from s3mount.writeback.journal import Amend, Change, Enter, Journal, Leave
from s3mount.writeback.leaving import Leaving
from s3mount.writeback.overlay import Overlay
from s3mount.writeback.records import Op, Record, State, compose
from s3mount.writeback.together import Together
from s3mount.writeback.turns import Turns

# Changes without such a pause between them are one burst.
PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Step:
    """One change of several: *record*, to be sent when it is *due*, in place of *replaced*. No record: *replaced* leaves nothing to do."""

    record: Record | None
    replaced: Entry | None = None
    due: float = 0.0
    bodies: Mapping[str, bytes | int] = field(default_factory=dict)


@dataclass(slots=True)
class Listener:
    """Who remembers what is shown, and is told where that changes without having asked.

    `stored`: a version as the store calls it, once it is there. `forget`: a key of which the store says something else than what was shown.
    `known`: asked what is remembered of a version (of the newest one for None), for nothing.
    """

    stored: Callable[[ObjectInfo], None] = lambda info: None
    forget: Callable[[str], None] = lambda key: None
    known: Callable[[str, ETag | None], ObjectInfo | None] = lambda key, etag: None


class Pending:
    """All that is pending in *journal*. *offered* is told of each change that may be sent as soon as it is due."""

    def __init__(self, journal: Journal, *, clock_ns: Callable[[], int]) -> None:
        self.journal = journal
        self.together = Together(journal)
        self.holding = Holding(journal, self.together)
        self.chains = Chains()
        self.overlay = Overlay()
        self.refused: dict[str, StoreError] = {}
        self._never_were: set[ETag] = set()
        self.failed_records = 0
        self.last_id = 0
        self.last_entered = self.burst_began = float("-inf")
        self.failures = 0
        self.bytes = 0
        self.moved = trio.lowlevel.ParkingLot()
        self.leaving = Leaving(journal, self.together, self.moved.unpark_all, lambda: len(self.chains) > 0)
        self.offered: Callable[[Entry], None] = lambda entry: None
        self.listener = Listener()
        self._clock_ns = clock_ns
        self._turns = Turns()

    def __repr__(self) -> str:
        return f"<Pending {self.chains!r} {self.overlay!r}>"

    def check(self) -> None:
        self.chains.check()
        self.overlay.check()
        keys = {entry.record.key for entry in self.chains}
        for key in keys:
            newest = self.chains.newest(key)
            assert newest is not None
            assert self.overlay.is_pending(key), key
            shown = self.overlay.shown(key)
            assert (shown.etag if shown else None) == (newest.record.etag if newest.record.op is Op.PUT else None), key
        assert keys == set(self.overlay.pending_below("")), "overlay"
        self.holding.check(self.chains)

    def restore(self, records: Iterable[Record]) -> None:
        """Take up what a former mount left: any of it may have been sent."""
        for record in records:
            self.last_id = max(self.last_id, record.id)
            if record.state is State.QUEUED:
                self._took(Entry(record, trio.current_time(), record.id, doubt=True, inherited=True))
            else:
                self.failed_records += 1
                self.holding.kept(record)

    def turn(self, key: str) -> AbstractAsyncContextManager[None]:
        """Nobody else changes what is pending of *key*, but that it may arrive or be refused."""
        return self._turns.of(key)

    # -- entering (within the key's turn) -------------------------------------------------

    async def put(self, record: Record, bodies: Mapping[str, bytes | int], *, due: float, synced: bool = True) -> ObjectInfo:
        """Enter a new version. Raises as `ObjectStore.put` for what is pending, NoSpace, Unavailable."""
        newest = self.chains.newest(record.key)
        judge(record.key, newest, record.condition)
        if self._never_were and self._never_were & _stood_on(record):
            raise changed(record.key)
        if record.keeps and newest is not None and (record.base is None or record.base.etag != newest.record.etag):
            raise changed(record.key)
        replaced = replaced_by_put(newest, self.chains)
        record = record.entered(former=record.former or self._seen(record.key), now_ns=self._clock_ns())
        if replaced is not None:
            record = over(record, replaced.record)
        await self.enter([Step(record, replaced, due, bodies)], synced=synced)
        return record.info

    async def remove(self, key: Key, condition: Condition, *, due: float) -> None:
        """Enter a removal. Raises PreconditionFailed for what is pending."""
        newest = self.chains.newest(key)
        if newest is not None and newest.record.op is Op.DELETE:
            return
        judge(key, newest, condition)
        await self.enter([self.removal(key, condition, due=due)], synced=False)

    def removal(self, key: Key, condition: Condition, *, due: float) -> Step:
        """What is to be done so that *key*, which is there and under which *condition* holds, goes."""
        newest = self.chains.newest(key)
        if newest is not None and self.chains.vanishes(newest):
            return Step(None, newest)
        replaced = newest if newest is not None and newest.replaceable else None
        if replaced is not None:
            condition = replaced.record.condition if isinstance(replaced.record.condition, Matches) else None
        former = replaced.record.former if replaced is not None else self._seen(key)
        return Step(self.dated(Record(key=key, op=Op.DELETE, condition=condition, former=former)), replaced, due)

    def _seen(self, key: Key) -> str:
        """The version that is shown, as far as that is known: the store's word for it, or ours; "" where there is none."""
        newest = self.chains.newest(key)
        if newest is not None:
            return newest.record.etag if newest.record.op is Op.PUT else ""
        known = self.listener.known(key, None) or self.overlay.alias_of(key)
        return "" if known is None else self.overlay.real(key, known.etag) or known.etag

    def now_ns(self) -> int:
        return self._clock_ns()

    def dated(self, record: Record) -> Record:
        """*record*, entered now."""
        now = self._clock_ns()
        return replace(record, created_ns=now, updated_ns=now)

    async def amend(self, entry: Entry, record: Record) -> ObjectInfo:
        """Have *entry*, which may be replaced, say *record* from here on: the same content, otherwise described."""
        entry.phase = Phase.HELD
        try:
            await self.together.commit([Amend(record)], synced=False)
            self.chains.rewrite(entry, record)
        finally:
            self._let_go(entry)
        self.overlay.lay(record.key, record.info)
        return record.info

    def _let_go(self, entry: Entry) -> None:
        entry.phase = Phase.WAITING
        self.offered(entry)

    async def enter(self, steps: Sequence[Step], *, synced: bool) -> None:
        """Carry out all of *steps* or none; what they replace is replaceable. Raises NoSpace, Unavailable; NotFound: bytes are gone."""
        held = [step.replaced for step in steps if step.replaced is not None]
        for entry in held:
            entry.phase = Phase.HELD
        left = [Leave(tuple(entry.record.id for entry in held))] if held else []
        changes = [Enter(step.record, step.bodies) for step in steps if step.record is not None]
        try:
            with self.leaving.along() as done:
                numbers = iter(await self.together.commit([*changes, *left, *done], synced=synced))
        except BaseException:
            for entry in held:
                self._let_go(entry)
            raise
        for step in steps:
            if step.record is not None:
                self._entered(step, next(numbers))
            elif step.replaced is not None:
                self._vanished(step.replaced)

    def _entered(self, step: Step, number: int) -> None:
        assert step.record is not None
        self.refused.pop(step.record.key, None)
        self._noted(trio.current_time())
        data = {} if step.replaced is None else step.replaced.data
        entry = self._took(Entry(step.record.numbered(number), step.due, number), step.replaced)
        self.holding.remember(entry, {**data, **step.bodies})

    def _noted(self, now: float) -> None:
        if now - self.last_entered > PAUSE_S:
            self.burst_began = now
        self.last_entered = now

    def _took(self, entry: Entry, replaced: Entry | None = None) -> Entry:
        record = entry.record
        if replaced is not None:
            self._drop(replaced)
        self.chains.admit(entry, replaces=replaced)
        self.last_id = max(self.last_id, record.id)
        self.bytes += record.size
        self.holding.came(record)
        self.overlay.lay(record.key, record.info if record.op is Op.PUT else None)
        self.offered(entry)
        if replaced is not None:
            self._offer_behind(replaced.record)
        return entry

    def _vanished(self, entry: Entry) -> None:
        key = entry.record.key
        self._gone(entry)
        newest = self.chains.newest(key)
        if newest is None:
            self.overlay.lift(key)
        else:
            self.overlay.lay(key, newest.record.info if newest.record.op is Op.PUT else None)
        self.moved.unpark_all()

    def _gone(self, entry: Entry) -> None:
        """*entry* is pending no more: others may go."""
        self._drop(entry)
        self.chains.remove(entry)
        self._offer_behind(entry.record)

    def _offer_behind(self, record: Record) -> None:
        for other in self.chains.behind(record):
            self.offered(other)

    def _drop(self, entry: Entry) -> None:
        self.bytes -= entry.record.size
        self.holding.went(entry)

    # -- sending --------------------------------------------------------------------------

    def arrived(self, entry: Entry, stored: ObjectInfo | None) -> None:
        """*entry*'s change is in the store, as *stored*; the journal is to be told (`leave`)."""
        record = entry.record
        successor = self.chains.successor(entry)
        self._gone(entry)
        shown = replace(record.info, version_id=stored.version_id) if record.op is Op.PUT and stored is not None else None
        etag = stored.etag if stored is not None else None
        if successor is None:
            self.overlay.arrive(record.key, shown, etag)
        else:
            self.overlay.alias(record.key, shown, etag)
            self.offered(successor)
        self.moved.unpark_all()

    async def superseded(self, entry: Entry) -> bool:
        """*entry* did not reach the store, and will not: its successor, if it has one, stands for it from here on."""
        if self.chains.successor(entry) is None:
            return False
        async with self.turn(entry.record.key):
            successor = self.chains.successor(entry)
            if successor is not None:
                await self._supersede(entry, successor)
            return successor is not None

    async def _supersede(self, entry: Entry, successor: Entry) -> None:
        successor.phase = Phase.HELD
        try:
            after = successor.record
            new = isinstance(entry.record.condition, Absent)
            vanished = new and after.op is Op.DELETE and after.condition == Matches(entry.record.etag)
            if not vanished:
                record = replace(over(after, entry.record), condition=_inherited(after, entry.record))
                await self.together.commit([Amend(record), Leave((entry.record.id,))])
                self.holding.became(after, record)
                self.chains.rewrite(successor, record)
        finally:
            successor.phase = Phase.WAITING
        successor.since = min(successor.since, entry.since)
        self._gone(entry)
        if vanished:
            self.arrived(successor, None)
            await self.leave([entry.record.id, successor.record.id])
            self.listener.forget(entry.record.key)
        else:
            self.offered(successor)
            self.moved.unpark_all()

    def is_last_copy(self, entry: Entry) -> bool:
        """Whether what *entry* is a copy of is about to be replaced."""
        record = entry.record
        return record.keeps and any(other.record.op is Op.PUT or other.phase is Phase.HELD for other in self.chains.of(record.reads))

    async def refuse(self, entry: Entry, error: StoreError, rescued: tuple[Record, dict[str, bytes | int]] | None = None) -> bool:
        """The store refuses *entry* for good: its bytes stay in the journal until somebody decides, and it is shown no more.

        *rescued*: what its record is to say instead, and new bodies for that. False: a newer change stands for it, see `superseded`.
        Raises Unavailable where it turns out only now that *rescued* is needed.
        """
        async with self.turn(entry.record.key):
            successor = self.chains.successor(entry)
            if successor is None and rescued is None and self.is_last_copy(entry):
                raise Unavailable(f"What {entry.record.key!r} was to be a copy of is being replaced.")
            await (self._refuse(entry, error, rescued) if successor is None else self._supersede(entry, successor))
            return successor is None

    async def _refuse(self, entry: Entry, error: StoreError, rescued: tuple[Record, dict[str, bytes | int]] | None) -> None:
        former, bodies = rescued or (entry.record, {})
        record = replace(
            former,
            state=State.FAILED,
            attempts=entry.record.attempts + 1,
            reason=str(error),
            error=type(error).__name__,
            updated_ns=self._clock_ns(),
        )
        stays = self._removal_behind(entry.record)
        says: Change = Enter(record, bodies, (record.id,)) if bodies else Amend(record)
        try:
            await self.together.commit([says, *(Leave((removal.record.id,)) for removal in stays)])
        except BaseException:
            for removal in stays:
                self._let_go(removal)
            raise
        self._gone(entry)
        for removal in stays:
            self._vanished(removal)
            self.listener.forget(removal.record.key)
        self.overlay.lift(record.key)
        self.refused[record.key] = error
        self._never_were.add(record.etag)
        self.failed_records += 1
        self.holding.kept(record)
        self.failures += 1
        self.listener.forget(record.key)
        self.moved.unpark_all()

    def _removal_behind(self, record: Record) -> list[Entry]:
        """The removal of what *record* was to be a copy of, HELD: it is not to be carried out if there is no copy."""
        waiting = [entry for entry in self.chains.of(record.reads)[:1] if entry.record.op is Op.DELETE and entry.phase is Phase.WAITING]
        for entry in waiting:
            entry.phase = Phase.HELD
        return waiting

    async def tried(self, entry: Entry, error: StoreError, *, due: float) -> None:
        """*entry* was not sent, and is to be tried again when it is *due*."""
        self.failures += 1
        news = str(error) != entry.record.reason
        entry.error, entry.failed, entry.due = error, self.failures, due
        entry.phase, entry.hurried = Phase.WAITING, False
        entry.record = replace(entry.record, attempts=entry.record.attempts + 1, reason=str(error), error=type(error).__name__)
        self.offered(entry)
        self.moved.unpark_all()
        if news:
            try:
                await self.together.commit([Amend(entry.record)], synced=False)
            except StoreError:
                pass  # only who looks at the journal misses it

    async def leave(self, ids: Sequence[int]) -> None:
        """Have the journal forget records that are done, if not at once."""
        await self.leaving.leave(ids)
        if not len(self.chains) and not self.leaving.under_way:
            await self.together.call(self.journal.shrink)

    # -- what somebody decided on refused ones ----------------------------------------------

    async def decide(self, verb: str, ids: Iterable[int]) -> int:
        """`retry` or `discard` refused records; how many there were, but for those on which somebody else decided just then."""
        count = 0
        for record in await self._undecided(set(ids)):
            async with self.turn(record.key):
                if not await self._undecided({record.id}):
                    continue
                if verb == "retry":
                    await self._retry(record)
                else:
                    await self.together.commit([Leave((record.id,))])
            self.refused.pop(record.key, None)
            self.failed_records -= 1
            self.holding.decided(record)
            self.moved.unpark_all()
            count += 1
        return count

    async def _undecided(self, ids: Collection[int]) -> list[Record]:
        records = await self.together.call(self.journal.records)
        return [record for record in records if record.id in ids and record.state is not State.QUEUED]

    async def _retry(self, record: Record) -> None:
        """As it was; behind what is pending of the key it would undo that, so it replaces nothing and is refused."""
        if self.chains.newest(record.key) is not None:
            raise changed(record.key)
        again = replace(record, state=State.QUEUED, reason="", error="", updated_ns=self._clock_ns())
        with self.leaving.along() as done:
            await self.together.commit([*done, Amend(again)])
        self._never_were.discard(again.etag)
        self._took(Entry(again, trio.current_time(), again.id, doubt=True))
        self.listener.forget(record.key)


def _stood_on(record: Record) -> set[ETag]:
    """The versions without which *record* means nothing."""
    base = {record.base.etag} if record.keeps and record.base is not None else set()
    return base | {record.condition.etag} if isinstance(record.condition, Matches) else base


def replaced_by_put(newest: Entry | None, chains: Chains) -> Entry | None:
    """What a new content takes the place of."""
    if newest is None or not newest.replaceable:
        return None
    followed = newest.record.reads and newest.record.is_base_again and len(chains.of(newest.record.key)) == 1
    return None if followed else newest


def over(record: Record, replaced: Record) -> Record:
    """*record*, which takes the place of *replaced* before that was sent."""
    if record.keeps and record.base is not None and record.base.etag == replaced.etag:
        pieces = compose(record.pieces, replaced.pieces)
        record = replace(record, pieces=pieces, base=replaced.base)
        record = record if record.keeps else replace(record, base=None)
    return replace(record, condition=carried(replaced, record.condition), former=replaced.former)


def _inherited(after: Record, before: Record) -> Condition:
    """The condition of *after*, once it is sure that *before* did not happen."""
    return before.condition if after.condition == Matches(before.etag) else after.condition

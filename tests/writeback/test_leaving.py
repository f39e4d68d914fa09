"""When what is done leaves the journal. The clock stands still until it is moved."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from s3mount.errors import NoSpace
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty
from s3mount.writeback.journal import Journal
from s3mount.writeback.leaving import LINGER_S, MANY
from s3mount.writeback.sender import GATHER_S, SETTLE_S
from s3mount.writeback.store import WriteBack
from tests.store.registry import keys_of

STUCK = Key("stuck")


class StuckPlan:
    """Nothing can be done to `STUCK`, so that something is always pending."""

    def __init__(self) -> None:
        self.going = trio.Event()

    def __call__(self, op: Op) -> Fault:
        return Fault(until=self.going) if op.mutates and op.key == STUCK else NOTHING


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


@pytest.fixture
def bucket() -> MemoryStore:
    return MemoryStore(LIKE_S3)


@pytest.fixture
async def plan() -> StuckPlan:
    return StuckPlan()


@pytest.fixture
async def store(bucket: MemoryStore, plan: StuckPlan, tmp_path: Path) -> AsyncIterator[WriteBack]:
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j")
    await store.put(STUCK, b"x")
    yield store
    store.check()
    await store.aclose()


def in_journal(store: WriteBack) -> list[str]:
    with Journal.visit(store._journal.folder) as journal:
        return [record.key for record in journal.records()]


async def test_changes_that_arrive_together_leave_together(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    for number in range(10):
        await store.put(Key(f"file{number}"), b"data")
    clock.jump(SETTLE_S)
    await wait_all_tasks_blocked()
    assert len(await keys_of(bucket)) == 10
    before = store._pending.together.transactions
    assert len(in_journal(store)) == 11
    clock.jump(LINGER_S)
    while len(in_journal(store)) > 1:
        await wait_all_tasks_blocked()
    assert store._pending.together.transactions == before + 1


async def test_where_many_have_arrived_they_do_not_wait(clock: MockClock, store: WriteBack) -> None:
    for number in range(MANY):
        await store.put(Key(f"file{number}"), b"data")
    clock.jump(SETTLE_S)
    while len(in_journal(store)) > 1:
        await wait_all_tasks_blocked()


async def test_after_a_sync_of_everything_nothing_is_in_the_journal(clock: MockClock, store: WriteBack, plan: StuckPlan) -> None:
    """Regression: `s3mount flush` was done, and `s3mount pending` showed a file that was in the bucket."""
    await store.put(Key("file"), b"data")
    await store.sync(Key("file"))
    assert in_journal(store) == ["stuck", "file"]
    plan.going.set()
    await store.sync()
    assert in_journal(store) == []


async def test_what_has_arrived_can_be_made_to_leave_at_once(clock: MockClock, store: WriteBack) -> None:
    await store.put(Key("file"), b"data")
    await store.sync(Key("file"))
    await store._pending.leaving.all_left()
    assert in_journal(store) == ["stuck"]


async def test_who_waits_until_all_has_left_waits_for_what_others_have_begun(clock: MockClock, store: WriteBack) -> None:
    await store.put(Key("file"), b"data")
    await store.sync(Key("file"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store._pending.leaving.settle)
        await trio.lowlevel.checkpoint()
        await store._pending.leaving.all_left()
        assert in_journal(store) == ["stuck"]


async def test_a_key_that_is_written_and_synced_again_and_again_has_no_more_than_two_records(clock: MockClock, store: WriteBack) -> None:
    for number in range(4):
        await store.put(Key("file"), b"%d" % number)
        assert in_journal(store).count("file") == 1
        await store.sync(Key("file"))


async def test_what_has_arrived_is_not_in_the_journal_after_the_end(clock: MockClock, store: WriteBack) -> None:
    await store.put(Key("file"), b"data")
    await store.sync(Key("file"))
    await store.aclose()
    assert in_journal(store) == ["stuck"]


async def test_the_removals_of_a_request_leave_together(clock: MockClock, store: WriteBack) -> None:
    for number in range(20):
        await store.delete(Key(f"file{number}"))
    before = store._pending.together.transactions
    clock.jump(GATHER_S)
    await wait_all_tasks_blocked()
    clock.jump(LINGER_S)
    while len(in_journal(store)) > 1:
        await wait_all_tasks_blocked()
    assert store._pending.together.transactions == before + 1


async def test_bytes_stay_that_the_next_change_is_made_of(clock: MockClock, store: WriteBack) -> None:
    await store.put(Key("file"), b"data")
    entry = store._pending.chains.newest("file")
    assert entry is not None
    await store.sync(Key("file"))
    assert "file" in in_journal(store)
    again = replace(entry.record, id=0, key=Key("again"), commit_id="0" * 32)
    await store._pending.put(again, {}, due=trio.current_time())
    assert in_journal(store) == ["stuck", "again"]
    store._journal.check()


async def test_what_could_not_leave_with_a_change_leaves_after_it(
    clock: MockClock, store: WriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(Key("file"), b"data")
    await store.sync(Key("file"))
    with monkeypatch.context() as patch:
        patch.setattr(store._journal, "apply", _full)
        with pytest.raises(NoSpace):
            await store._pending.enter([store._pending.removal(Key("other"), None, due=0)], synced=False)
    assert in_journal(store) == ["stuck", "file"]
    clock.jump(LINGER_S)
    while len(in_journal(store)) > 1:
        await wait_all_tasks_blocked()


async def test_what_was_to_leave_when_a_change_had_it_along_that_failed_leaves_all_the_same(
    clock: MockClock, store: WriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: nobody told the journal any more until the next change arrived; on a full disk a `close` waited for that."""
    await store.put(Key("file"), b"data")
    await store.sync(Key("file"))
    going, apply = threading.Event(), store._journal.apply

    def full(*_: object, synced: bool = True) -> list[int]:
        monkeypatch.setattr(store._journal, "apply", apply)
        going.wait()
        raise NoSpace("The disk is full.")

    async def remove() -> None:
        with pytest.raises(NoSpace):
            await store._pending.enter([store._pending.removal(Key("other"), None, due=0)], synced=False)

    monkeypatch.setattr(store._journal, "apply", full)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove)
        await wait_all_tasks_blocked()
        clock.jump(LINGER_S)
        await wait_all_tasks_blocked()
        going.set()
    while len(in_journal(store)) > 1:
        await wait_all_tasks_blocked()


def _full(*_: object, synced: bool = True) -> list[int]:
    raise NoSpace("The disk is full.")

"""Names that change while content waits: what is asked of the store, and in which order it hears of it. Virtual clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import AlreadyExists, NoSpace, NotFound, PreconditionFailed, Unavailable
from s3mount.model import Absent, ETag, Key, Matches, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit, Relocation
from s3mount.store.memory import MemoryStore
from s3mount.store.wrap.faulty import Fault, Faulty, lost_reply
from s3mount.writeback.chains import Phase
from s3mount.writeback.journal import INLINE_BYTES, Enter
from s3mount.writeback.records import State
from s3mount.writeback.store import WriteBack
from tests.conftest import ExpectLogs
from tests.store.registry import InMemory, edited, keys_of, pattern, read, whole
from tests.writeback.test_store import Counting, bucket, clock, plan, slow_journal, store

__all__ = ["bucket", "clock", "plan", "store"]

A, B, C, D = map(Key, ("a", "b", "c", "d"))


async def move(store: WriteBack, source: Key, target: Key, **more: object) -> ObjectInfo:
    (info,) = await store.relocate([Relocation(source=await store.head(source), target=target, **more)])  # type: ignore[arg-type]
    return info


async def test_what_is_in_the_store_is_called_otherwise_without_a_request(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting
) -> None:
    there = await bucket.put(A, b"data", Commit(metadata={"m": "1"}, content_type="text/plain"))
    plan.seen.clear()
    (info,) = await store.relocate([Relocation(source=there, target=B)])
    assert plan.seen == []
    assert (await keys_of(store), await read(store, B)) == (["b"], b"data")
    await store.sync()
    moved = await bucket.head(B)
    assert (await keys_of(bucket), await read(bucket, B), moved.content_type) == (["b"], b"data", "text/plain")
    assert moved.metadata == {"m": "1", COMMIT_ID: (info.metadata or {})[COMMIT_ID]}
    assert (await store.head(B)).etag == info.etag
    assert plan.mutations() == ["copy", "delete"]


async def test_many_are_called_otherwise_at_once(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    infos = [await bucket.put(Key(f"d/{number}"), b"%d" % number) for number in range(20)]
    pending = await store.put(Key("d/x"), b"x", Commit(condition=Absent()))
    transactions = store._pending.together.transactions
    await store.relocate([Relocation(source=info, target=Key(f"e{info.key[1:]}"), condition=Absent()) for info in (*infos, pending)])
    assert store._pending.together.transactions == transactions + 1
    assert await keys_of(store) == sorted([*(f"e/{number}" for number in range(20)), "e/x"])
    await store.sync()
    assert await keys_of(bucket) == await keys_of(store)


async def test_none_is_called_otherwise_where_one_is_gone(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    there, other = await bucket.put(A, b"data"), await store.put(B, b"data")
    await store.delete(B)
    with pytest.raises(NotFound):
        await store.relocate([Relocation(source=there, target=C), Relocation(source=other, target=D)])
    await store.put(B, b"another")
    with pytest.raises(PreconditionFailed):
        await store.relocate([Relocation(source=there, target=C), Relocation(source=other, target=D)])
    assert await keys_of(store) == ["a", "b"]


async def test_what_takes_the_place_of_a_name_waits_for_the_copy(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, expect_logs: ExpectLogs
) -> None:
    expect_logs("tried again: Away")
    await bucket.put(A, b"old")
    plan.script.add("copy", Fault(before=Unavailable("Away.")))
    await move(store, A, B)
    await store.put(A, b"new")
    assert (await read(store, A), await read(store, B)) == (b"new", b"old")
    with pytest.raises(Unavailable):
        await store.sync(A)
    await store.sync(A)
    assert (await read(bucket, A), await read(bucket, B)) == (b"new", b"old")
    assert plan.mutations() == ["copy", "copy", "put"]


async def test_names_are_swapped(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    """Each copy must be made before the other's source goes: one of them first, by way of the store."""
    await bucket.put(A, b"a")
    await bucket.put(B, b"b")
    await move(store, A, C)
    await move(store, B, A)
    await move(store, C, B)
    assert (await read(store, A), await read(store, B), await keys_of(store)) == (b"b", b"a", ["a", "b"])
    await store.sync()
    assert (await read(bucket, A), await read(bucket, B), await keys_of(bucket)) == (b"b", b"a", ["a", "b"])


async def test_a_whole_tree_is_swapped(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    for key in ("p/1", "p/2"):
        await bucket.put(Key(key), key.encode())
    await move(store, Key("p/1"), Key("q/2"))
    await move(store, Key("p/2"), Key("q/1"))
    await store.relocate([Relocation(source=await store.head(Key(f"q/{n}")), target=Key(f"p/{n}")) for n in (1, 2)])
    await store.sync()
    assert (await read(bucket, Key("p/1")), await read(bucket, Key("p/2")), await keys_of(bucket)) == (b"p/2", b"p/1", ["p/1", "p/2"])


async def test_a_name_goes_there_and_back(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    await bucket.put(A, b"data", Commit(metadata={"m": "1"}))
    await move(store, A, B, condition=Absent())
    await move(store, B, A)
    await store.sync()
    assert (await read(bucket, A), await keys_of(bucket)) == (b"data", ["a"])
    assert ((await bucket.head(A)).metadata or {})["m"] == "1"


async def test_an_edit_of_a_moved_file_is_an_edit_of_the_copy(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting
) -> None:
    data = pattern(300_000)
    await bucket.put(A, data)
    moved = await move(store, A, B)
    info = await store.adopt(B, edited(moved, 9, InMemory(b"new")), Commit(condition=Matches(moved.etag)))
    expected = data[:9] + b"new" + data[12:]
    assert await read(store, B) == expected
    info = await store.update(B, {"m": "2"}, if_match=info.etag)
    await store.sync()
    assert (await read(bucket, B), await keys_of(bucket), plan.mutations()) == (expected, ["b"], ["copy", "delete", "adopt"])


async def test_attributes_ride_with_the_copy(clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting) -> None:
    info = await bucket.put(A, b"data")
    described = await store.update(A, {"m": "2"}, if_match=info.etag)
    (moved,) = await store.relocate([Relocation(source=described, target=B)])
    await store.update(B, {"m": "3"}, if_match=moved.etag)
    await store.sync()
    assert (((await bucket.head(B)).metadata or {})["m"], plan.mutations()) == ("3", ["copy", "delete"])


async def test_a_file_that_is_being_sent_is_called_otherwise(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting
) -> None:
    going = trio.Event()
    plan.script.add("put", Fault(until=going))
    await store.put(A, b"data")
    await trio.sleep(2)
    await move(store, A, B)
    assert (await keys_of(store), await read(store, B)) == (["b"], b"data")
    going.set()
    await store.sync()
    assert (await keys_of(bucket), await read(bucket, B)) == (["b"], b"data")


async def test_an_edit_that_is_being_sent_arrives_before_it_is_called_otherwise(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting
) -> None:
    data = pattern(300_000)
    base = await bucket.put(A, data)
    plan.script.add("adopt", Fault(delay=5))
    await store.adopt(A, edited(base, 9, InMemory(b"new")), Commit(condition=Matches(base.etag)))
    await trio.sleep(2)
    await move(store, A, B)
    await store.sync()
    assert (await keys_of(bucket), await read(bucket, B)) == (["b"], data[:9] + b"new" + data[12:])


async def test_a_copy_whose_reply_was_lost_is_made_once(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, expect_logs: ExpectLogs
) -> None:
    expect_logs("tried again: The connection broke")
    await bucket.put(A, b"data")
    plan.script.add("copy", lost_reply())
    await move(store, A, B, condition=Absent())
    await trio.sleep(30)
    assert (await keys_of(bucket), plan.mutations()) == (["b"], ["copy", "delete"])


async def test_where_the_copy_is_refused_the_name_stays(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, expect_logs: ExpectLogs
) -> None:
    """Somebody else has put something there: neither of the two contents is lost."""
    expect_logs("'b' could not be stored")
    await bucket.put(A, b"mine")
    forgotten: list[str] = []
    store.listener.forget = forgotten.append
    await move(store, A, B, condition=Absent())
    await bucket.put(B, b"theirs")
    with pytest.raises(AlreadyExists):
        await store.sync(B)
    await store.sync(A)
    assert (await read(bucket, A), await read(bucket, B), await read(store, A)) == (b"mine", b"theirs", b"mine")
    assert set(forgotten) == {"a", "b"}
    (record,) = await store._pending.together.call(store._journal.records)
    assert (record.key, record.state) == (B, State.FAILED)


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_refused_copy_keeps_its_bytes_though_its_source_is_replaced(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, expect_logs: ExpectLogs, size: int
) -> None:
    """Regression: what was renamed was nowhere any more, as somebody else had its new name and we had used the old one again."""
    expect_logs("'b' could not be stored")
    data, synced, sync_bodies = pattern(size), list[int](), store._journal.sync_bodies
    store._journal.sync_bodies = lambda: synced.append(len(list((store._journal.folder / "bodies").iterdir()))) or sync_bodies()  # type: ignore
    await bucket.put(A, data)
    await move(store, A, B, condition=Absent())
    await store.put(A, b"new")
    await bucket.put(B, b"theirs")
    await trio.sleep(30)
    assert synced == ([1] if size > INLINE_BYTES else [])
    assert (await read(bucket, A), await read(bucket, B)) == (b"new", b"theirs")
    (record,) = await store._pending.together.call(store._journal.records)
    assert (record.key, record.state, record.base, len(record.pieces)) == (B, State.FAILED, None, 1)
    kept = bytearray(size)
    store._journal.read_into(next(iter(record.bodies)), 0, memoryview(kept))
    assert kept == data
    await store._pending.together.call(store._journal.check)
    await bucket.delete(B)
    assert await store.decide("retry", [record.id]) == 1
    await store.sync(B)
    assert await read(bucket, B) == data


async def test_a_copy_is_refused_just_while_its_source_is_being_replaced(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, expect_logs: ExpectLogs
) -> None:
    """Regression: what took the old name was on its way into the journal, unseen, and went over the only bytes that there were."""
    expect_logs("'b' could not be stored", "is being replaced")
    await bucket.put(A, b"mine")
    await move(store, A, B, condition=Absent())
    await bucket.put(B, b"theirs")
    async with trio.open_nursery() as nursery, slow_journal(store):
        nursery.start_soon(store.put, A, b"new")
        await trio.sleep(5)
    await trio.sleep(30)
    assert (await read(bucket, A), await read(bucket, B)) == (b"new", b"theirs")
    (record,) = await store._pending.together.call(store._journal.records)
    assert (record.key, record.state, record.base) == (B, State.FAILED, None)
    assert await store._pending.together.call(store._journal.inline, next(iter(record.bodies))) == b"mine"


async def test_what_is_put_behind_a_removal_that_is_called_off_is_shown(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    """Regression: a refused copy calls the removal of its source off; what had been put there in the same transaction was hidden."""
    await bucket.put(A, b"mine")
    await store.delete(A)
    removal = store._pending.chains.newest(A)
    assert removal is not None
    removal.phase = Phase.HELD
    await store.put(A, b"new")
    store._pending._vanished(removal)
    store.check()
    assert await read(store, A) == b"new"
    await store.sync()
    assert await read(bucket, A) == b"new"


async def test_what_a_crash_leaves_of_a_rename_is_sent_in_order(tmp_path: Path, clock: MockClock, bucket: MemoryStore) -> None:
    plan = Counting()
    await bucket.put(A, b"old")
    plan.shut = Unavailable("Away.")
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j")
    await move(store, A, B)
    await store.put(A, b"new")
    await store.aclose()
    store = await WriteBack.open(bucket, tmp_path / "j")
    assert (await read(store, A), await read(store, B)) == (b"new", b"old")
    store.check()
    await store.sync()
    assert (await read(bucket, A), await read(bucket, B), await keys_of(bucket)) == (b"new", b"old", ["a", "b"])
    await store.aclose()


async def test_a_version_that_is_called_otherwise_by_now_is_found_by_its_commit(
    tmp_path: Path, clock: MockClock, bucket: MemoryStore
) -> None:
    """Regression: after a restart nobody knew what a version of ours had been called before."""
    store = await WriteBack.open(bucket, tmp_path / "j")
    info = await store.put(A, b"data")
    await store.sync()
    await store.aclose()
    store = await WriteBack.open(bucket, tmp_path / "j")
    await store.relocate([Relocation(source=info, target=B)])
    await store.sync()
    assert await keys_of(bucket) == ["b"]
    with pytest.raises(PreconditionFailed):
        await store.relocate([Relocation(source=ObjectInfo(B, 4, ETag("wb-another"), 0), target=C)])
    await store.aclose()


async def test_an_edit_behind_what_has_arrived_is_read_after_a_restart(tmp_path: Path, clock: MockClock, bucket: MemoryStore) -> None:
    """Regression: what it was an edit of was not found, as only the former mount knew what that is called in the store."""
    data, plan = pattern(300_000), Counting()
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j")
    plan.script.add("adopt", Fault(delay=5))
    base = await store.adopt(A, whole(InMemory(data)), Commit())
    await trio.sleep(2)
    await store.adopt(A, edited(base, 9, InMemory(b"new")), Commit(condition=Matches(base.etag)))
    plan.script.add("adopt", Fault(until=trio.Event()))
    await trio.sleep(10)
    await store.aclose()
    plan.script.add("adopt", Fault(delay=5))
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j")
    assert await read(store, A) == data[:9] + b"new" + data[12:]
    await store.sync()
    assert await read(bucket, A) == data[:9] + b"new" + data[12:]
    await store.aclose()


@pytest.mark.parametrize("cut", ["sync", "commit"])
async def test_bytes_that_were_fetched_for_a_refused_copy_leave_no_file_when_it_cannot_be_written_down(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, expect_logs: ExpectLogs, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """Regression: each try left one in the journal's folder, until the next mount."""
    expect_logs("'b' could not be stored", "is not in the bucket yet", "cannot be kept: The medium is full")
    data, left = pattern(3 * INLINE_BYTES), 3
    journal, pending = store._journal, store._pending
    sync_bodies, commit = journal.sync_bodies, pending.together.commit

    def failing() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise NoSpace("The medium is full.")

    def syncing() -> None:
        failing()
        sync_bodies()

    async def committing(changes: Any, **more: Any) -> Any:
        if any(isinstance(change, Enter) and change.record.state is State.FAILED for change in changes):
            failing()
        return await commit(changes, **more)

    await bucket.put(A, data)
    await move(store, A, B, condition=Absent())
    await store.put(A, b"new")
    await bucket.put(B, b"theirs")
    monkeypatch.setattr(*((journal, "sync_bodies", syncing) if cut == "sync" else (pending.together, "commit", committing)))
    while left > 0:
        await trio.sleep(1)
        assert len(list((journal.folder / "bodies").iterdir())) <= 1
    await trio.sleep(600)
    (record,) = await pending.together.call(journal.records)
    assert (record.key, record.state) == (B, State.FAILED)
    assert [path.name for path in (journal.folder / "bodies").iterdir()] == list(record.bodies)

"""How much may wait on the local disk: who brings more waits in his close. Virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import NoSpace, TooLarge, Unavailable
from s3mount.model import Key, KiB, StagedBytes
from s3mount.store.api import Commit
from s3mount.store.memory import MemoryStore
from s3mount.store.wrap.faulty import Fault, Faulty
from s3mount.writeback.sender import BACKLOG
from s3mount.writeback.store import WriteBack
from tests.conftest import ExpectLogs
from tests.store.registry import InMemory, keys_of, pattern, whole
from tests.writeback.test_store import Counting, bucket, clock, plan

__all__ = ["bucket", "clock", "plan"]

A, B, C, D = map(Key, ("a", "b", "c", "d"))
LIMIT = 300 * KiB
# Passes once nobody has anything to do, the journal's thread included.
MOMENT_S = 0.001


async def close(store: WriteBack, key: Key, size: int, closed: list[str]) -> None:
    await store.adopt(key, whole(InMemory(pattern(size))), Commit())
    closed.append(key)


async def test_who_brings_more_than_there_is_room_for_waits_for_the_store(
    clock: MockClock, tmp_path: Path, bucket: MemoryStore, plan: Counting
) -> None:
    going, closed = trio.Event(), list[str]()
    plan.script.add("adopt", Fault(until=going))
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j", limit=LIMIT)
    await close(store, A, 200 * KiB, closed)
    async with trio.open_nursery() as nursery:
        for key, size in ((B, 250 * KiB), (C, 100 * KiB)):
            nursery.start_soon(close, store, key, size, closed)
            await trio.sleep(MOMENT_S)
        assert closed == ["a"]
        assert store.status()["spooled_bytes"] == 200 * KiB
        going.set()
    assert closed == ["a", "b", "c"]
    await store.sync()
    assert (await keys_of(bucket), store.status()["spooled_bytes"]) == (["a", "b", "c"], 0)
    store.check()
    await store.aclose()


async def test_what_is_larger_than_all_the_room_waits_alone(clock: MockClock, tmp_path: Path, bucket: MemoryStore) -> None:
    closed = list[str]()
    store = await WriteBack.open(bucket, tmp_path / "j", limit=LIMIT)
    await close(store, A, 200 * KiB, closed)
    await close(store, B, 2 * LIMIT, closed)
    assert await keys_of(bucket) == ["a"]
    await store.put(C, b"")
    await store.delete(A)
    assert await keys_of(store) == ["b", "c"]
    await store.sync()
    await store.aclose()


async def refused(store: WriteBack) -> None:
    with pytest.raises(Unavailable):
        await close(store, C, 200 * KiB, [])


@pytest.mark.slow
async def test_while_the_store_is_away_one_waits_for_it_and_not_beyond_the_mount(
    clock: MockClock, tmp_path: Path, bucket: MemoryStore, plan: Counting, expect_logs: ExpectLogs
) -> None:
    expect_logs("tried again: Away")
    closed, plan.shut = list[str](), Unavailable("Away.")
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j", limit=LIMIT)
    await close(store, A, 200 * KiB, closed)
    with trio.move_on_after(3600):
        await close(store, B, 200 * KiB, closed)
    assert closed == ["a"]
    plan.shut = None
    await close(store, B, 200 * KiB, closed)
    plan.shut = Unavailable("Away.")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, store)
        await trio.sleep(MOMENT_S)
        await store.aclose()
    assert list((tmp_path / "j" / "bodies").iterdir()) != []


@pytest.mark.slow
async def test_where_much_waits_nobody_looks_through_all_of_it_for_each_file(
    clock: MockClock, tmp_path: Path, bucket: MemoryStore, plan: Counting
) -> None:
    """Regression: each close that waited for room looked at all that waited, tens of milliseconds for a hundred thousand small files."""
    store, going = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j", limit=BACKLOG), trio.Event()
    plan.script.add("put", *[Fault(until=going)] * BACKLOG)
    async with trio.open_nursery() as nursery:
        for number in range(BACKLOG):
            nursery.start_soon(store.put, Key(f"d/{number}"), b"1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.put, A, b"1")
        await trio.sleep(MOMENT_S)
        assert not any(entry.hurried for entry in store._pending.chains)
        going.set()
    await store.sync()
    assert len(await keys_of(bucket)) == BACKLOG + 1
    await store.aclose()


class FullDisk:
    """The journal's folder lies on a disk that takes *left* bytes of bodies, those that it has included."""

    def __init__(self, store: WriteBack, left: int) -> None:
        journal = store._journal
        take = journal.take

        def taken(name: str, source: StagedBytes) -> bytes | int:
            used = sum(path.stat().st_size for path in (journal.folder / "bodies").iterdir())
            if used + source.length > left:
                raise NoSpace("The disk is full.")
            return take(name, source)

        journal.take = taken  # type: ignore[method-assign]


async def test_on_a_full_disk_one_waits_for_what_is_on_its_way(
    clock: MockClock, tmp_path: Path, bucket: MemoryStore, plan: Counting
) -> None:
    closed = list[str]()
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j")
    FullDisk(store, LIMIT)
    plan.script.add("adopt", *[Fault(delay=5)] * 3)
    for key in (A, B, C):
        await close(store, key, 200 * KiB, closed)
    await store.sync()
    assert await keys_of(bucket) == ["a", "b", "c"]
    with pytest.raises(NoSpace):
        await close(store, D, 2 * LIMIT, closed)
    await store.aclose()


async def test_a_full_disk_is_told_where_nothing_leaves_it(
    clock: MockClock, tmp_path: Path, bucket: MemoryStore, plan: Counting, expect_logs: ExpectLogs
) -> None:
    expect_logs("tried again: Away")
    closed, plan.shut = list[str](), Unavailable("Away.")
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j")
    FullDisk(store, LIMIT)
    await close(store, A, 200 * KiB, closed)
    with pytest.raises(NoSpace):
        await close(store, B, 200 * KiB, closed)
    plan.shut = None
    await store.sync()
    assert await keys_of(bucket) == ["a"]
    store.check()
    await store.aclose()


async def test_what_the_store_refused_takes_room_until_somebody_decides(
    clock: MockClock, tmp_path: Path, bucket: MemoryStore, plan: Counting, expect_logs: ExpectLogs
) -> None:
    expect_logs("could not be stored", "1 files wait")
    going, closed = trio.Event(), list[str]()
    plan.script.add("adopt", Fault(before=TooLarge("No.")))
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j", limit=LIMIT)
    await close(store, A, 200 * KiB, closed)
    with pytest.raises(TooLarge):
        await store.sync()
    assert store.status()["spooled_bytes"] == 200 * KiB
    await store.aclose()
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j", limit=LIMIT)
    plan.script.add("put", Fault(until=going))
    await store.put(B, pattern(80 * KiB))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close, store, C, 70 * KiB, closed)
        await trio.sleep(MOMENT_S)
        assert closed == ["a"]
        assert await store.decide("discard", [1]) == 1
        await trio.sleep(MOMENT_S)
        assert closed == ["a", "c"]
        going.set()
    await store.sync()
    assert (await keys_of(bucket), store.status()["spooled_bytes"]) == (["b", "c"], 0)
    store.check()
    await store.aclose()


@pytest.mark.parametrize("verbs", [("discard", "discard"), ("retry", "discard"), ("discard", "retry")])
async def test_what_two_decide_on_at_once_is_decided_once(
    clock: MockClock, tmp_path: Path, bucket: MemoryStore, plan: Counting, expect_logs: ExpectLogs, verbs: tuple[str, str]
) -> None:
    """Regression: its bytes were taken off the spool twice, or it was sent though it had been thrown away."""
    expect_logs("could not be stored")
    plan.script.add("adopt", Fault(before=TooLarge("No.")))
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j", limit=LIMIT)
    await close(store, A, 200 * KiB, list[str]())
    with pytest.raises(TooLarge):
        await store.sync()
    decided: list[int] = []

    async def decide(verb: str) -> None:
        decided.append(await store.decide(verb, [1]))

    async with trio.open_nursery() as nursery:
        for verb in verbs:
            nursery.start_soon(decide, verb)
    await store.sync()
    assert sorted(decided) == [0, 1]
    assert (store.status()["refused"], store.status()["spooled_bytes"]) == (0, 0)
    store.check()
    await store.aclose()

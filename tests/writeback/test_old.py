"""What has waited for days, in a journal or without a network: it does not undo what others have done since. Virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import AlreadyExists, PreconditionFailed, StoreError, Unavailable
from s3mount.model import Absent, Key, ObjectInfo
from s3mount.store.api import Commit, Relocation
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import Faulty
from s3mount.writeback.records import State
from s3mount.writeback.store import WriteBack
from tests.conftest import ExpectLogs
from tests.store.registry import keys_of, read
from tests.writeback.test_store import Counting, clock

__all__ = ["clock"]

WEEK_NS = 7 * 86400 * 10**9
A, B, C, D, E = map(Key, ("a", "b", "c", "d", "e"))


class Calendar:
    """What the machine takes for the time."""

    def __init__(self) -> None:
        self.now_ns = 10**18

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def bucket(calendar: Calendar) -> MemoryStore:
    return MemoryStore(LIKE_S3, clock_ns=calendar)


async def work(store: WriteBack, bucket: MemoryStore) -> dict[Key, ObjectInfo]:
    """Overwrite A, make B, remove C, rename D to E; as a mount does it that has seen what is there."""
    there = {key: await bucket.put(key, b"old") for key in (A, C, D)}
    store.listener.known = lambda key, etag: there.get(Key(key))
    await store.put(A, b"mine", Commit(former=there[A]))
    await store.put(B, b"mine", Commit())
    await store.delete(C)
    await store.relocate([Relocation(source=there[D], target=E, condition=Absent())])
    return there


async def others(bucket: MemoryStore) -> None:
    for key in (A, B, C, D):
        await bucket.put(key, b"theirs")


async def failures(store: WriteBack) -> dict[str, str]:
    records = await store._pending.together.call(store._journal.records)
    return {record.key: record.error for record in records if record.state is State.FAILED}


async def until_sent(store: WriteBack) -> None:
    while store.status()["pending"]:
        try:
            await store.sync()
        except StoreError:
            await trio.sleep(1)


async def left_in(folder: Path, bucket: MemoryStore, calendar: Calendar) -> None:
    plan = Counting()
    plan.shut = Unavailable("Away.")
    store = await WriteBack.open(Faulty(bucket, plan), folder, clock_ns=calendar)
    await work(store, bucket)
    await store.aclose()


async def test_what_a_mount_left_a_week_ago_overwrites_nothing_that_is_new(
    tmp_path: Path, clock: MockClock, calendar: Calendar, bucket: MemoryStore, expect_logs: ExpectLogs
) -> None:
    expect_logs("could not be stored, what was written is kept", "waits? that the bucket has refused")
    await left_in(tmp_path / "j", bucket, calendar)
    calendar.now_ns += WEEK_NS
    await others(bucket)
    store = await WriteBack.open(bucket, tmp_path / "j", clock_ns=calendar)
    await until_sent(store)
    assert await keys_of(bucket) == ["a", "b", "c", "d"]
    assert {key: await read(bucket, key) for key in (A, B, C, D)} == dict.fromkeys((A, B, C, D), b"theirs")
    assert await failures(store) == {"a": "PreconditionFailed", "b": "AlreadyExists", "e": "PreconditionFailed"}
    assert await read(store, A) == b"theirs"
    with pytest.raises((PreconditionFailed, AlreadyExists), match="3 files could not be stored"):
        await store.sync()
    store.check()
    await store.aclose()


async def test_what_a_mount_left_a_week_ago_arrives_where_nobody_was(
    tmp_path: Path, clock: MockClock, calendar: Calendar, bucket: MemoryStore
) -> None:
    await left_in(tmp_path / "j", bucket, calendar)
    calendar.now_ns += WEEK_NS
    store = await WriteBack.open(bucket, tmp_path / "j", clock_ns=calendar)
    await until_sent(store)
    assert {key: await read(bucket, Key(key)) for key in await keys_of(bucket)} == {"a": b"mine", "b": b"mine", "e": b"old"}
    assert await failures(store) == {}
    await store.aclose()


@pytest.mark.parametrize("known", [True, False], ids=["of a known version", "of whatever was there"])
async def test_an_old_removal_leaves_what_is_newer(
    tmp_path: Path, clock: MockClock, calendar: Calendar, bucket: MemoryStore, known: bool
) -> None:
    plan = Counting()
    plan.shut = Unavailable("Away.")
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j", clock_ns=calendar)
    there = {key: await bucket.put(key, b"old") for key in (A, B)}
    if known:
        store.listener.known = lambda key, etag: there[Key(key)]
    for key in there:
        await store.delete(key)
    await store.aclose()
    await bucket.put(A, b"theirs")
    store = await WriteBack.open(bucket, tmp_path / "j", clock_ns=calendar)
    await until_sent(store)
    assert await keys_of(bucket) == ["a"]
    assert await failures(store) == {}
    await store.aclose()


async def test_a_removal_of_before_a_long_sleep_does_not_ride_with_those_of_after_it(
    tmp_path: Path, clock: MockClock, calendar: Calendar, bucket: MemoryStore
) -> None:
    """Regression: a machine that slept for days sent it among new ones, over whatever somebody else had written meanwhile."""
    store = await WriteBack.open(bucket, tmp_path / "j", clock_ns=calendar)
    for key in (A, B, C, D):
        await bucket.put(key, b"old")
    await store.delete(A)
    calendar.now_ns += WEEK_NS
    await bucket.put(A, b"theirs")
    for key in (B, C, D):
        await store.delete(key)
    await until_sent(store)
    assert await keys_of(bucket) == ["a"]
    await store.aclose()


async def test_a_mount_whose_network_was_away_for_a_week_overwrites_nothing_that_is_new(
    tmp_path: Path, clock: MockClock, calendar: Calendar, bucket: MemoryStore, expect_logs: ExpectLogs
) -> None:
    expect_logs("could not be stored, what was written is kept", "Away")
    plan = Counting()
    plan.shut = Unavailable("Away.")
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j", clock_ns=calendar)
    await work(store, bucket)
    await trio.sleep(3)
    calendar.now_ns += WEEK_NS
    await others(bucket)
    plan.shut = None
    await until_sent(store)
    assert await keys_of(bucket) == ["a", "b", "c", "d"]
    assert {await read(bucket, key) for key in (A, B, C, D)} == {b"theirs"}
    assert (await failures(store)).keys() == {"a", "b", "e"}
    await store.aclose()


async def test_an_overwrite_of_just_now_wins(clock: MockClock, tmp_path: Path, calendar: Calendar, bucket: MemoryStore) -> None:
    store = await WriteBack.open(bucket, tmp_path / "j", clock_ns=calendar)
    there = await bucket.put(A, b"old")
    await store.put(A, b"mine", Commit(former=there))
    await store.put(B, b"mine")
    await others(bucket)
    await store.sync()
    assert (await read(bucket, A), await read(bucket, B)) == (b"mine", b"mine")
    await store.aclose()

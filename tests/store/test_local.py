"""LocalStore: what waits for what, what cancellation cannot undo, two engines on one folder. The rest is in the conformance suite."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from s3mount.engine.disk import Disk
from s3mount.engine.engine import Engine
from s3mount.engine.values import Versioning
from s3mount.errors import AlreadyExists, NoSuchBucket, NotFound
from s3mount.model import Absent, ByteRange, Changed, Key, Matches
from s3mount.store.api import Commit
from s3mount.store.local import COMMITS, LocalStore
from s3mount.store.past import Past
from tests.store.registry import InFile, InMemory, edited, keys_of, pattern, read, read_pin, whole

K = Key("key")


class GatedDisk(Disk):
    """Counts syncs; new files wait at the gate while it is shut."""

    def __init__(self) -> None:
        self.syncs = 0
        self.waiting = 0
        self._open = True
        self._changed = threading.Condition()

    def create(self, path: Path) -> int:
        with self._changed:
            self.waiting += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._open, 60)
            self.waiting -= 1
        return super().create(path)

    def shut(self, *, opened: bool = False) -> None:
        with self._changed:
            self._open = opened
            self._changed.notify_all()

    async def wait_until_waiting(self, count: int) -> None:
        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: self.waiting >= count, 60)

        assert await trio.to_thread.run_sync(wait)

    def step(self, name: str) -> None:
        self.syncs += name == "fsync"


@pytest.fixture
def disk() -> Iterator[GatedDisk]:
    disk = GatedDisk()
    yield disk
    disk.shut(opened=True)


@pytest.fixture
def engine(tmp_path: Path, disk: GatedDisk) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data", disk=disk) as engine:
        engine.create_bucket("bucket")
        yield engine


@pytest.fixture
def store(engine: Engine) -> LocalStore:
    return LocalStore(engine, "bucket")


def test_a_bucket_that_is_not_there_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(NoSuchBucket):
        LocalStore(engine, "other-bucket")


@pytest.mark.slow
async def test_slow_commits_hold_up_neither_looks_nor_reads_nor_changes(store: LocalStore, disk: GatedDisk) -> None:
    await store.put(K, pattern(1000))
    await store.put(Key("large"), pattern(100_000))
    disk.shut()
    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(store.put, Key(f"slow/{number:03}"), pattern(150_000, number))
        await disk.wait_until_waiting(COMMITS)
        with trio.fail_after(30):
            assert (await store.head(K)).size == 1000
            assert (await store.find("key")).object is not None
            assert await keys_of(store) == ["key", "large"]
            assert await read(store, Key("large")) == pattern(100_000)
            pin = await store.pin(K)
            buffer = bytearray(1000)
            await pin.get_into(0, memoryview(buffer))
            assert buffer == pattern(1000)
            await pin.aclose()
            await store.rename(K, Key("renamed"))
            await store.update(Key("renamed"), {"mode": "33188"})
            await store.reserve(Key("reserved"))
            await store.delete(Key("renamed"))
            await store.sync()
        assert disk.waiting == COMMITS
        disk.shut(opened=True)
    assert len(await keys_of(store, "slow/")) == 300
    assert await read(store, Key("slow/299")) == pattern(150_000, 299)


async def test_slow_commits_do_not_hold_up_a_small_edit_of_a_large_file(store: LocalStore, disk: GatedDisk) -> None:
    base = await store.put(K, pattern(200_000))
    disk.shut()
    async with trio.open_nursery() as nursery:
        for number in range(COMMITS):
            nursery.start_soon(store.put, Key(f"slow/{number:03}"), pattern(150_000, number))
        await disk.wait_until_waiting(COMMITS)
        with trio.fail_after(30):
            await store.adopt(K, edited(base, 5000, InMemory(b"edit")), Commit(condition=Matches(base.etag)))
            assert await read(store, K) == pattern(200_000)[:5000] + b"edit" + pattern(200_000)[5004:]
        disk.shut(opened=True)


async def test_neighbours_that_memory_does_not_hold_are_merged_all_the_same(store: LocalStore, engine: Engine) -> None:
    model = bytearray(pattern(200_000))
    info = await store.put(K, bytes(model))
    for number in range(20):
        data = pattern(100, number)
        await store.sync()
        for segment in engine.layout.log.glob("*.log"):
            with segment.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        info = await store.adopt(K, edited(info, 1000 + 100 * number, InMemory(data)), Commit(condition=Matches(info.etag)))
        model[1000 + 100 * number : 1100 + 100 * number] = data
    assert await read(store, K) == bytes(model)
    assert engine.check() == []


@pytest.mark.parametrize("state", ["off", "enabled"])
async def test_small_edits_keep_the_former_versions_where_the_bucket_does(store: LocalStore, engine: Engine, state: Versioning) -> None:
    engine.set_versioning("bucket", state)
    info = await store.put(K, pattern(200_000))
    for number in range(3):
        info = await store.adopt(K, edited(info, number * 5000, InMemory(b"edit")), Commit(condition=Matches(info.etag)))
    assert len(engine.versions("bucket")) == (1 if state == "off" else 4)
    assert engine.check() == []


async def test_a_commit_that_began_is_not_abandoned_by_a_cancellation(store: LocalStore, disk: GatedDisk) -> None:
    disk.shut()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.put, K, pattern(150_000))
        await disk.wait_until_waiting(1)
        nursery.cancel_scope.cancel()
        disk.shut(opened=True)
    assert await read(store, K) == pattern(150_000)


async def test_a_commit_that_was_cancelled_before_its_turn_did_not_happen(store: LocalStore, disk: GatedDisk) -> None:
    disk.shut()
    async with trio.open_nursery() as running:
        for number in range(COMMITS):
            running.start_soon(store.put, Key(f"{number:02}"), pattern(150_000, number))
        await disk.wait_until_waiting(COMMITS)
        async with trio.open_nursery() as late:
            late.start_soon(store.put, K, pattern(150_000))
            await wait_all_tasks_blocked()
            late.cancel_scope.cancel()
        disk.shut(opened=True)
    with pytest.raises(NotFound):
        await store.head(K)
    assert len(await keys_of(store)) == COMMITS


async def test_a_pin_that_was_cancelled_leaves_no_descriptor_behind(store: LocalStore) -> None:
    await store.put(K, pattern(100_000))
    await read(store, K)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.pin(K)
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.get_into(K, ByteRange(0, 10), memoryview(bytearray(10)))
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_only_a_durable_store_syncs_before_it_answers(engine: Engine, disk: GatedDisk) -> None:
    lazy, durable = LocalStore(engine, "bucket"), LocalStore(engine, "bucket", durable=True)
    assert (lazy.capabilities.durable, durable.capabilities.durable) == (False, True)
    before = disk.syncs
    await lazy.put(K, pattern(50_000))
    await lazy.rename(K, Key("renamed"))
    assert disk.syncs == before
    await lazy.sync()
    assert disk.syncs > before
    before = disk.syncs
    await durable.put(K, pattern(50_000, 1))
    assert disk.syncs > before
    before = disk.syncs
    await durable.rename(K, Key("renamed"))
    assert disk.syncs > before


async def test_what_was_acknowledged_is_there_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "data") as engine:
        engine.create_bucket("bucket")
        store = LocalStore(engine, "bucket")
        info = await store.put(K, pattern(100_000), Commit(metadata={"a": "b"}))
        await store.link(K, Key("d/linked"))
        await store.aclose()
    with Engine.open(tmp_path / "data") as engine:
        store = LocalStore(engine, "bucket")
        again = await store.head(Key("d/linked"))
        assert (again.file_id, again.etag, again.links, again.metadata) == (info.file_id, info.etag, 2, {"a": "b"})
        assert await read(store, K) == pattern(100_000)


async def test_a_staged_file_is_adopted_without_a_copy(store: LocalStore, engine: Engine) -> None:
    assert store.staging == engine.staging
    assert store.staging is not None
    staged = InFile(store.staging, pattern(200_000))
    number = os.fstat(staged.fd).st_ino
    await store.adopt(K, whole(staged), Commit())
    os.close(staged.fd)
    bodies = [path for path in engine.folder.rglob("*") if path.is_file() and path.stat().st_ino == number]
    assert len(bodies) == 1
    assert store.staging not in bodies[0].parents


async def test_two_engines_on_one_folder_see_each_other(store: LocalStore, engine: Engine) -> None:
    with Engine.open(engine.folder) as second:
        other = LocalStore(second, "bucket")
        await store.put(K, pattern(30_000))
        assert await read(other, K) == pattern(30_000)
        pin = await store.pin(K)
        await other.put(K, b"theirs")
        await other.sync()
        assert await read(store, K) == b"theirs"
        assert await read_pin(pin) == pattern(30_000)
        await pin.aclose()
        await other.rename(K, Key("renamed"))
        assert await keys_of(store) == ["renamed"]


async def test_a_reservation_binds_other_processes_until_its_owner_is_gone(store: LocalStore, engine: Engine) -> None:
    with Engine.open(engine.folder) as second:
        other = LocalStore(second, "bucket")
        await other.reserve(K)
        with pytest.raises(AlreadyExists):
            await store.reserve(K)
        with pytest.raises(AlreadyExists):
            await store.put(K, b"ours", Commit(condition=Absent()))
        await other.put(K, b"theirs", Commit(condition=Absent()))
        await other.reserve(Key("left"))
    await store.reserve(Key("left"))


async def test_a_reservation_does_not_bind_those_who_overwrite_on_purpose(store: LocalStore, engine: Engine) -> None:
    with Engine.open(engine.folder) as second:
        await LocalStore(second, "bucket").reserve(K)
        await store.put(K, b"ours")
        with pytest.raises(AlreadyExists):
            await LocalStore(second, "bucket").put(K, b"theirs", Commit(condition=Absent()))


async def test_the_engine_outlives_its_stores(store: LocalStore, engine: Engine) -> None:
    await store.put(K, b"data")
    await store.aclose()
    assert await read(LocalStore(engine, "bucket"), K) == b"data"


async def test_buckets_do_not_see_each_other(store: LocalStore, engine: Engine) -> None:
    engine.create_bucket("second")
    second = LocalStore(engine, "second")
    info = await store.put(K, b"first", Commit(file_id=5))
    assert await keys_of(second) == []
    await second.put(K, b"second")
    with pytest.raises(NotFound):
        await second.update(K, {"a": "b"}, file_id=info.file_id)
    assert await read(store, K) == b"first"
    assert repr(second).startswith("<LocalStore 'second' in ")


async def test_what_another_process_changes_is_told_once(engine: Engine) -> None:
    store = LocalStore(engine, "bucket")
    assert not await store.changed()
    with Engine.open(engine.folder) as other:
        other.put("bucket", Key("theirs"), b"text", durable=False)
    await store.put(Key("ours"), b"text")
    assert await store.changed() == Changed(keys=frozenset({"theirs"}))
    assert not await store.changed()
    assert store.capabilities.changes
    assert not Past(store, 0).capabilities.changes

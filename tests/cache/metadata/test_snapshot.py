"""Listings kept from one mount to the next."""

from __future__ import annotations

import math
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from s3mount.cache.leaf import Mark, Stretch
from s3mount.cache.options import CacheOptions
from s3mount.cache.remember import Remembering
from s3mount.cache.snapshot import Snapshot
from s3mount.cache.texts import END, START
from s3mount.errors import NotFound
from s3mount.model import ETag, Key, ObjectInfo
from s3mount.store.memory import LIKE_S3, MemoryStore
from tests.cache.metadata.kit import Slow, fill, list_all, walk

INFO = ObjectInfo(Key("d/é\0x"), 3, ETag("e"), 7, "text/plain", "GLACIER", {"mode": "1"}, version_id="v")
STRETCH = Stretch("d/", START, END, 5.0, [(b"sub/", Mark.PREFIX), ("é\0x".encode(), INFO)], 2)


def file_in(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_left_is_taken_once_and_no_longer_than_it_is_fresh(tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path / "cache", "bucket")
    snapshot.leave([STRETCH])
    assert file_in(tmp_path / "cache").stat().st_mode & 0o777 == 0o600
    assert list(Snapshot(tmp_path / "cache", "another").take(100)) == []
    (taken,) = snapshot.take(100)
    assert (taken.stem, taken.lo, taken.hi, taken.rows, taken.many) == (STRETCH.stem, START, END, STRETCH.rows, 2)
    assert 5 <= taken.age_s < 60
    assert list(snapshot.take(100)) == []


def test_of_what_is_too_old_only_the_place_is_told(tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path, "bucket")
    snapshot.leave([STRETCH])
    (taken,) = snapshot.take(4)
    assert (taken.rows, taken.many) == (None, 2)


def test_mounts_that_ran_side_by_side_leave_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        Snapshot(tmp_path, "bucket").leave([STRETCH])
    assert list(Snapshot(tmp_path, "bucket").take(100)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_file_is_written_and_read_a_piece_at_a_time(tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path, "bucket")
    many = [Stretch("d/", b"%06d" % n, b"%06d" % (n + 1), 1.0, [(b"%06d" % n, Mark.PREFIX)] * 1000, 1000) for n in range(300)]
    tracemalloc.start()
    snapshot.leave(iter(many))
    assert sum(stretch.many for stretch in snapshot.take(100)) == 300_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize("at", [3, 20, -3])
def test_a_damaged_file_is_not_used(tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture) -> None:
    snapshot = Snapshot(tmp_path, "bucket")
    snapshot.leave([STRETCH])
    data = bytearray(file_in(tmp_path).read_bytes())
    data[at] ^= 1
    file_in(tmp_path).write_bytes(data)
    assert list(snapshot.take(math.inf)) == []
    assert "damaged" in caplog.text
    caplog.clear()
    assert list(tmp_path.iterdir()) == []


@asynccontextmanager
async def mounted(memory: MemoryStore, folder: Path, *, ttl_s: float) -> AsyncIterator[tuple[Remembering, Slow]]:
    slow = Slow(memory, latency=0)
    store = Remembering(slow, CacheOptions(attributes="list", metadata_ttl_s=ttl_s), snapshot=Snapshot(folder, "bucket"))
    try:
        yield store, slow
    finally:
        await store.aclose()


async def test_a_remount_within_the_time_to_live_asks_nothing(tmp_path: Path) -> None:
    memory = MemoryStore(LIKE_S3)
    fill(memory.bucket, [f"d{d}/f{n}" for d in range(5) for n in range(300)] + [f"flat/f{n:04}" for n in range(3000)])
    async with mounted(memory, tmp_path, ttl_s=60) as (store, _):
        keys = [info.key async for info in walk(store)]
        await store.put(Key("d1/new"), b"x")
        await store.delete(Key("d2/f7"))
    async with mounted(memory, tmp_path, ttl_s=60) as (store, slow):
        again = [info.key async for info in walk(store)]
        assert set(again) == {*keys, "d1/new"} - {"d2/f7"}
        assert slow.requests == 0
    async with mounted(memory, tmp_path, ttl_s=0) as (store, slow):
        await list_all(store, "d1/")
        assert slow.requests == 1


async def test_a_remount_after_the_time_to_live_goes_on_where_pages_began(tmp_path: Path) -> None:
    memory = MemoryStore(LIKE_S3)
    rng = random.Random(1)
    fill(memory.bucket, {f"d/{rng.getrandbits(64) % 10 ** rng.randint(5, 19)}" for _ in range(9000)})
    most = []
    for _ in range(2):
        async with mounted(memory, tmp_path, ttl_s=1e-9) as (store, slow):
            assert len((await list_all(store, "d/"))[0]) == len(memory.bucket.keys)
            assert slow.counts["list"] == 9
            most.append(slow.most)
    assert most[0] == 1
    assert most[1] >= 3


async def test_after_a_crash_nothing_is_told_that_may_be_wrong(tmp_path: Path) -> None:
    memory = MemoryStore(LIKE_S3)
    fill(memory.bucket, ["d/a", "d/b"])
    async with mounted(memory, tmp_path, ttl_s=math.inf) as (store, _):
        await list_all(store, "d/")
    crashed = Remembering(memory, CacheOptions(attributes="list", metadata_ttl_s=math.inf), snapshot=Snapshot(tmp_path, "bucket"))
    await list_all(crashed, "d/")
    await crashed.delete(Key("d/a"))
    async with mounted(memory, tmp_path, ttl_s=math.inf) as (store, _):
        with pytest.raises(NotFound):
            await store.head(Key("d/a"))
    await trio.lowlevel.checkpoint()

"""`--attributes`: who pays for metadata, and when."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from s3mount.cache.asking import AHEAD, HEADS
from s3mount.cache.options import CacheOptions
from s3mount.cache.records import NAME, OWN_SECONDS, RIPE_SECONDS, WAIT_SECONDS, DiskRecords, MemoryRecords
from s3mount.cache.remember import Remembering
from s3mount.cache.tables import Tables
from s3mount.errors import AccessDenied, NotFound
from s3mount.model import NO_METADATA, ETag, Key, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op, Wrapper
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty
from tests.cache.metadata.kit import LATENCY, fill, list_all, remembering
from tests.virtual_time import standing_still

T = TypeVar("T")


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def patient_clock() -> Iterator[MockClock]:
    """Waits for threads too."""
    with standing_still() as clock:
        yield clock


async def test_list_never_sends_a_head_and_shows_no_metadata(autojump_clock: MockClock) -> None:
    async with remembering([f"d/f{n}" for n in range(2500)], attributes="list") as (store, slow):
        objects, _ = await list_all(store, "d/")
        assert all(info.metadata == NO_METADATA for info in objects)
        assert (await store.find("d/f7")).object == next(info for info in objects if info.key == "d/f7")
        assert (await store.find("e/f7")).object is None
        made = await store.put(Key("d/new"), b"x", Commit(metadata={"mode": "1"}))
        assert made.metadata == NO_METADATA
        assert (await store.head(Key("d/new"))).metadata == NO_METADATA
        assert "head" not in slow.counts


@pytest.mark.slow
async def test_full_sends_one_head_for_each_version_many_at_a_time(autojump_clock: MockClock) -> None:
    async with remembering([f"f{n:05}" for n in range(1200)], attributes="full") as (store, slow):
        objects, _ = await list_all(store)
        assert [info.metadata for info in objects] == [{"n": str(n)} for n in range(1, 1201)]
        assert slow.counts["head"] == 1200
        assert slow.most >= 64
        slow.taken()
        await trio.sleep(10)
        assert (await list_all(store))[0] == objects
        assert set(slow.taken()) == {"list"}


async def test_a_replaced_object_is_asked_about_again_and_no_other(autojump_clock: MockClock) -> None:
    async with remembering(["a", "b", "c"], attributes="full") as (store, slow):
        await list_all(store)
        inner = slow.inner
        assert isinstance(inner, MemoryStore)
        await inner.another().put(Key("b"), b"other", Commit(metadata={"mode": "7"}))
        await trio.sleep(2)
        slow.taken()
        objects, _ = await list_all(store)
        assert objects[1].metadata == {"mode": "7"}
        assert slow.taken() == {"list": 1, "head": 1}


async def test_what_this_mount_commits_needs_no_head(autojump_clock: MockClock) -> None:
    async with remembering(attributes="full") as (store, slow):
        made = await store.put(Key("d/f"), b"data", Commit(metadata={"mode": "33188"}))
        await trio.sleep(2)
        slow.taken()
        objects, _ = await list_all(store, "d/")
        assert objects[0].metadata == made.metadata
        assert slow.taken() == {"list": 1}


async def test_changed_attributes_under_the_same_etag_are_seen(autojump_clock: MockClock) -> None:
    """S3's ETag is that of the content: chmod by another mount leaves it."""
    async with remembering(["f"], attributes="full") as (store, slow):
        await list_all(store)
        inner = slow.inner
        assert isinstance(inner, MemoryStore)
        file = inner.bucket.keys["f"]
        file.metadata, file.mtime_ns = {"mode": "changed"}, file.mtime_ns + 10**9
        await trio.sleep(2)
        assert (await list_all(store))[0][0].metadata == {"mode": "changed"}


async def test_an_object_that_may_be_listed_and_not_read_is_shown_without_attributes(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    memory = MemoryStore(LIKE_S3)
    fill(memory.bucket, ["open", "secret"])

    def plan(op: Op) -> Fault:
        return Fault(before=AccessDenied("No.")) if op.verb == "head" and op.key == "secret" else NOTHING

    store = Remembering(Faulty(memory, plan), CacheOptions(attributes="full"))
    objects, _ = await list_all(store)
    assert [info.metadata for info in objects] == [{"n": "1"}, NO_METADATA]
    assert "may not be read" in caplog.text
    caplog.clear()
    await store.aclose()


# -- records --------------------------------------------------------------------------------------

INFO = ObjectInfo(Key("d/f"), 3, ETag("e"), 5 * 10**9, "text/plain", metadata={"mode": "33188", "ü": "é"})
LISTED = replace(INFO, content_type="application/octet-stream", metadata=None)


async def test_records_are_there_after_a_restart(tmp_path: Path) -> None:
    first = DiskRecords(tmp_path / "cache", "bucket")
    first.put([INFO])
    await first.aclose()
    again = DiskRecords(tmp_path / "cache", "bucket")
    assert await again.get([LISTED]) == {"d/f": INFO}
    await again.aclose()
    other = DiskRecords(tmp_path / "cache", "another bucket")
    assert await other.get([LISTED]) == {}
    await other.aclose()
    assert (tmp_path / "cache" / NAME).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


async def test_a_kill_leaves_no_record_of_how_a_version_was_described_before(tmp_path: Path, patient_clock: MockClock) -> None:
    """Regression: chmod right after a write, and kill -9: the next mount took the version for the one before, as both have one ETag and
    one second, and wrote its old mode and attributes into the next version."""
    killed = DiskRecords(tmp_path, "bucket")
    killed.put([INFO], own=True)
    await trio.sleep(OWN_SECONDS)
    killed.put([replace(INFO, metadata={"mode": "33152"})], own=True)
    await trio.sleep(WAIT_SECONDS)
    again = DiskRecords(tmp_path, "bucket")
    assert await again.get([LISTED]) == {}
    await again.aclose()
    await trio.sleep(2 * RIPE_SECONDS)
    again = DiskRecords(tmp_path, "bucket")
    assert [info.metadata for info in (await again.get([LISTED])).values()] == [{"mode": "33152"}]
    await again.aclose()
    await killed.aclose()


@pytest.mark.parametrize("damage", [b"no database at all", b"SQLite format 3\0" + bytes(5000)])
async def test_a_damaged_file_costs_its_records_and_a_line_in_the_log(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_bytes(damage)
    records = DiskRecords(tmp_path, "bucket")
    assert await records.get([LISTED]) == {}
    assert "damaged" in caplog.text
    caplog.clear()
    records.put([INFO])
    await records.aclose()
    again = DiskRecords(tmp_path, "bucket")
    assert await again.get([LISTED]) == {"d/f": INFO}
    await again.aclose()


async def test_a_changed_value_is_no_value(tmp_path: Path) -> None:
    records = DiskRecords(tmp_path, "bucket")
    records.put([INFO])
    await records.aclose()
    with sqlite3.connect(tmp_path / NAME) as connection:
        connection.execute("UPDATE records SET value = CAST(value || x'78' AS BLOB)")
    connection.close()
    again = DiskRecords(tmp_path, "bucket")
    assert await again.get([LISTED]) == {}
    await again.aclose()


async def test_a_folder_that_cannot_be_used_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    records = DiskRecords(tmp_path / "file" / "cache", "bucket")
    records.put([INFO])
    assert await records.get([LISTED]) == {"d/f": INFO}
    await records.aclose()
    assert "not used for now" in caplog.text
    caplog.clear()


async def test_the_file_keeps_to_its_bound(tmp_path: Path) -> None:
    limit = 200_000
    records = DiskRecords(tmp_path, "bucket", limit=limit)
    for start in range(0, 4000, 500):
        records.put([replace(INFO, key=Key(f"d/{n}")) for n in range(start, start + 500)])
        await records._write()
    await records.aclose()
    assert (tmp_path / NAME).stat().st_size <= 1.5 * limit


def test_a_record_of_another_time_does_not_count() -> None:
    records = MemoryRecords()
    records.put([INFO])
    assert records.held([replace(LISTED, mtime_ns=LISTED.mtime_ns + 10**9)]) == {}
    assert records.held([replace(LISTED, mtime_ns=LISTED.mtime_ns + 1)]) != {}


def test_the_store_may_date_a_commit_of_this_mount_a_little_earlier() -> None:
    records = MemoryRecords()
    records.put([INFO], own=True)
    assert records.held([replace(LISTED, mtime_ns=LISTED.mtime_ns - 2 * 10**9)]) != {}
    assert records.held([replace(LISTED, mtime_ns=LISTED.mtime_ns - 9 * 10**9)]) == {}


@pytest.mark.slow
async def test_a_reader_waits_for_his_own_page_only_and_leaves_little_behind(autojump_clock: MockClock) -> None:
    """HEADs of pages far ahead went before those of the page that was read, and on when nobody read any more."""
    async with remembering([f"f{n:05}" for n in range(8000)], attributes="full") as (store, slow):
        after, read = "", 2
        for _ in range(read):
            began = trio.current_time()
            page = await store.list("", delimiter="/", after=after)
            after = page.next or ""
            assert trio.current_time() - began < (1000 / HEADS + 5) * LATENCY
        await trio.sleep(60)
        assert slow.counts["head"] <= read * 1000 + AHEAD + HEADS


@pytest.mark.slow
async def test_names_asked_about_one_by_one_do_not_wait_for_a_head_each(autojump_clock: MockClock) -> None:
    async with remembering([f"d/f{n:03}" for n in range(1000)], attributes="full", metadata_ttl_s=60.0) as (store, slow):
        began = trio.current_time()
        for n in range(1000):
            found = await store.find(f"d/f{n * 7 % 1000:03}")
            assert found.object is not None
            assert found.object.metadata
        assert slow.counts["head"] <= 1001
        assert trio.current_time() - began < 3


@pytest.mark.slow
async def test_what_follows_is_not_gone_through_for_each_name(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs beside each other ask about one name each: every one went through all that follow, seventy for each name of a thousand."""
    gone_through = 0
    after = Tables.after

    def counted(tables: Tables, key: str, count: int) -> Sequence[ObjectInfo]:
        nonlocal gone_through
        found = after(tables, key, count)
        gone_through += len(found)
        return found

    monkeypatch.setattr(Tables, "after", counted)
    names = iter([Key(f"d/f{n:04}") for n in range(1000)])
    async with remembering([f"d/f{n:04}" for n in range(1000)], attributes="full", metadata_ttl_s=60.0) as (store, slow):

        async def program() -> None:
            for name in names:
                await store.head(name)

        await store.list("d/")
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(program)
    assert slow.counts["head"] <= 1001
    assert gone_through <= 3 * 1000


class Held(Wrapper):
    """HEADs are answered by the store at once, and come back when they are let go."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.asked, self.let_go = trio.Event(), trio.Event()
        self.heads = 0

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        answer = await call()
        if op.verb in ("head", "find"):
            self.heads += 1
            self.asked.set()
            await self.let_go.wait()
        return answer


@pytest.mark.parametrize("ask", ["list", "find", "head"])
@pytest.mark.parametrize("change", ["update", "put", "delete"])
async def test_an_answer_that_a_change_of_this_mount_overtook_brings_nothing_back(ask: str, change: str, autojump_clock: MockClock) -> None:
    """chmod leaves the ETag as it is: old attributes are told from new ones only by when they were asked for."""
    held = Held(memory := MemoryStore(LIKE_S3))
    fill(memory.bucket, ["d/f"])
    store = Remembering(held, CacheOptions(attributes="full"))
    new = {"mode": "33152"}

    async def asked() -> None:
        if ask == "list":
            objects, _ = await list_all(store, "d/")
            assert [shown_without_id(info) for info in objects] == ([] if change == "delete" else [new])
        else:
            with suppress(NotFound):
                await (store.find("d/f") if ask == "find" else store.head(Key("d/f")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked)
        await held.asked.wait()
        if change == "update":
            await store.update(Key("d/f"), new)
        elif change == "put":
            await store.put(Key("d/f"), b"xxxxx", Commit(metadata=new))
        else:
            await store.delete(Key("d/f"))
        held.let_go.set()
    wanted = [] if change == "delete" else [new]
    assert [shown_without_id(info) for info in (await list_all(store, "d/"))[0]] == wanted
    await trio.sleep(2)
    heads = held.heads
    assert [shown_without_id(info) for info in (await list_all(store, "d/"))[0]] == wanted
    assert held.heads == heads  # what was recorded is the new one
    await store.aclose()


def shown_without_id(info: ObjectInfo) -> dict[str, str]:
    return {name: value for name, value in (info.metadata or {}).items() if name != COMMIT_ID}


async def test_names_whose_objects_were_replaced_do_not_wait_for_a_head_each_either(autojump_clock: MockClock) -> None:
    """Regression: in every other pass over a directory that others rewrite, half of its names were asked about one after the other."""
    keys = [Key(f"d/f{n:03}") for n in range(100)]
    async with remembering(keys, attributes="full", metadata_ttl_s=60.0) as (store, slow):
        for written in range(6):
            await store.list("d/")
            began = trio.current_time()
            for key in keys:
                assert (await store.head(key)).size == (written or 5)
            assert trio.current_time() - began < 10 * LATENCY
            for key in keys:
                await slow.inner.put(key, b"x" * (written + 1))
            await trio.sleep(61)

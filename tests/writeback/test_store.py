"""Write-back over a store in memory that is slow, refuses, loses replies, or changes behind its back. Virtual clock."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import AccessDenied, AlreadyExists, Busy, NoSpace, NotFound, OutcomeUnknown, PreconditionFailed, StoreError, Unavailable
from s3mount.model import Absent, ByteRange, ETag, Key, Matches, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit, Relocation
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty, Script, lost_reply, lost_request
from s3mount.writeback.records import State
from s3mount.writeback.store import WriteBack
from tests.store.registry import InMemory, edited, keys_of, pattern, read, read_pin, whole
from tests.virtual_time import standing_still

K, L, BIG = Key("key"), Key("d/other"), Key("big")


class Counting:
    """A plan that lets a script go first, and counts."""

    def __init__(self) -> None:
        self.script = Script()
        self.seen: list[Op] = []
        self.shut: StoreError | None = None

    def __call__(self, op: Op) -> Fault:
        self.seen.append(op)
        if self.shut is not None and op.mutates:
            return Fault(before=self.shut)
        return self.script(op) if op.mutates else NOTHING

    def mutations(self) -> list[str]:
        return [op.verb for op in self.seen if op.mutates]


@pytest.fixture
def clock() -> Iterator[MockClock]:
    """Time passes as soon as nobody has anything to do, threads included. Each test has to ask for it itself."""
    with standing_still() as clock:
        yield clock


@pytest.fixture
def bucket() -> MemoryStore:
    return MemoryStore(LIKE_S3)


@pytest.fixture
def plan() -> Counting:
    return Counting()


@pytest.fixture
async def store(bucket: MemoryStore, plan: Counting, tmp_path: Path) -> AsyncIterator[WriteBack]:
    store = await WriteBack.open(Faulty(bucket, plan), tmp_path / "j")
    yield store
    store.check()
    await store.aclose()


async def commit_id(store: MemoryStore, key: Key) -> str:
    return ((await store.head(key)).metadata or {})[COMMIT_ID]


# -- arriving -----------------------------------------------------------------------------


async def test_a_put_returns_before_the_store_has_it_and_sync_after(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    info = await store.put(K, b"data", Commit(metadata={"m": "1"}, content_type="text/plain"))
    assert await keys_of(bucket) == []
    assert await store.head(K) == info
    await store.sync(K)
    there = await bucket.head(K)
    assert (await read(bucket, K), there.content_type, (there.metadata or {})["m"]) == (b"data", "text/plain", "1")
    assert (await store.head(K)).etag == info.etag != there.etag
    assert [found.etag for found in (await store.list()).objects] == [info.etag]


async def test_it_arrives_by_itself(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    await store.put(K, b"data")
    await store.delete(L)
    await trio.sleep(5)
    assert await keys_of(bucket) == ["key"]
    assert store.status()["pending"] == 0


async def test_only_the_newest_content_is_sent(clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting) -> None:
    for number in range(5):
        await store.put(K, b"%d" % number)
    await store.sync()
    assert (await read(bucket, K), plan.mutations()) == (b"4", ["put"])


@pytest.mark.slow
async def test_what_is_written_again_and_again_is_sent_now_and_then(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting
) -> None:
    """Regression: it was put off for as long as somebody wrote it every quarter of a second."""
    for number in range(100):
        await store.put(K, b"%d" % number)
        await trio.sleep(0.25)
    assert 3 <= plan.mutations().count("put") <= 8
    assert int(await read(bucket, K)) >= 70


async def test_what_was_made_and_removed_before_it_was_sent_costs_nothing(clock: MockClock, store: WriteBack, plan: Counting) -> None:
    await store.put(K, b"data", Commit(condition=Absent()))
    await store.delete(K)
    with pytest.raises(NotFound):
        await store.head(K)
    await store.sync()
    assert plan.mutations() == []


async def test_a_rename_of_what_is_pending_is_one_put(clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting) -> None:
    await store.put(K, b"data", Commit(condition=Absent(), metadata={"m": "1"}))
    info = await store.copy(K, L, if_match=(await store.head(K)).etag)
    await store.delete(K, if_match=(await store.head(K)).etag)
    assert (await store.head(L)).etag == info.etag
    await store.sync()
    assert (await keys_of(bucket), plan.mutations()) == (["d/other"], ["put"])
    assert (await bucket.head(L)).metadata == {"m": "1", COMMIT_ID: await commit_id(bucket, L)}


async def test_bodies_in_memory_are_counted_however_often_they_are_renamed(clock: MockClock, store: WriteBack) -> None:
    """Regression: what a copy shared with its source was given back twice, until any number of bodies fitted into the limit."""
    for _ in range(3):
        await store.put(K, bytes(1000))
        await store.copy(K, L)
        await store.put(K, bytes(500))
        store.check()
        await store.sync()
        store.check()
    assert store._pending.holding._memory == 0


async def test_a_removal_of_what_is_gone_already_is_done(clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting) -> None:
    """Regression: it counted as a file that could not be stored, where it followed on a version that was just being sent."""
    for theirs in (None, b"theirs"):
        going = trio.Event()
        plan.script.add("put", Fault(until=going))
        info = await store.put(K, b"data")
        await trio.sleep(2)
        await store.delete(K, if_match=info.etag)
        going.set()
        await trio.sleep(0.1)
        await (bucket.delete(K) if theirs is None else bucket.put(K, theirs))
        await store.sync()
        assert await keys_of(store) == ([] if theirs is None else ["key"])
    assert store.status()["refused"] == 0


@pytest.mark.slow
async def test_removals_go_together(clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting) -> None:
    for number in range(1500):
        await bucket.put(Key(f"d/{number}"), b"")
    for number in range(1500):
        await store.delete(Key(f"d/{number}"))
    assert await keys_of(store) == []
    await store.sync()
    assert await keys_of(bucket) == []
    assert len(plan.mutations()) <= 4


async def test_a_removal_that_fails_within_many_is_tried_again(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    for key in (K, L):
        await bucket.put(key, b"")
        await store.delete(key)
    plan.script.add("delete_many", Fault(before=Unavailable("Away.")))
    await trio.sleep(30)
    assert await keys_of(bucket) == []


async def test_a_file_is_described_while_it_is_being_sent(clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting) -> None:
    for key, data in ((K, b"small"), (BIG, pattern(300_000))):
        going = trio.Event()
        plan.script.add("put" if key is K else "adopt", Fault(until=going))
        info = await store.put(key, data)
        await trio.sleep(2)
        assert (await store.update(key, {"m": "2"}, if_match=info.etag)).metadata is not None
        assert await read(store, key) == data
        going.set()
        await store.sync()
        assert ((await bucket.head(key)).metadata or {})["m"] == "2"
        assert await read(bucket, key) == data
        assert await read(store, key) == data
    assert plan.mutations() == ["put", "put", "adopt", "update"]


@pytest.mark.parametrize("verb", ["update", "copy"])
async def test_a_small_file_is_described_while_another_change_of_it_is_being_sent(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, verb: str
) -> None:
    """Regression: a chmod soon after another one, or after a rename, was refused, and tried again without a pause, until that was there."""
    going, info = trio.Event(), await bucket.put(K, b"small")
    plan.script.add(verb, Fault(until=going))
    if verb == "update":
        info = await store.update(K, {"m": "1"}, if_match=info.etag)
    else:
        (info,) = await store.relocate([Relocation(source=info, target=L)])
    await trio.sleep(2)
    await store.update(info.key, {"m": "2"}, if_match=info.etag)
    assert await read(store, info.key) == b"small"
    going.set()
    await store.sync()
    assert (((await bucket.head(info.key)).metadata or {})["m"], await read(bucket, info.key)) == ("2", b"small")
    assert await keys_of(bucket) == [info.key]


async def test_what_is_in_the_store_is_described_in_turn(clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting) -> None:
    """One copy onto itself for any number of changes, none of which asks the store."""
    info = await store.put(K, b"data")
    await store.sync()
    plan.seen.clear()
    for mode in "234":
        info = await store.update(K, {"m": mode}, if_match=info.etag)
    assert plan.seen == []
    assert (await store.head(K), await read(store, K)) == (info, b"data")
    await store.sync()
    assert (await bucket.head(K)).metadata == {"m": "4", COMMIT_ID: await commit_id(bucket, K)}
    assert ((await store.head(K)).etag, plan.mutations()) == (info.etag, ["update"])
    with pytest.raises(PreconditionFailed):
        await store.update(K, {"m": "5"}, if_match=ETag("another"))


async def test_what_others_say_of_a_version_of_ours_is_shown(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    """Regression: a chmod from another machine was never seen, as S3 gives the copy the same ETag."""
    info = await store.put(K, b"data", Commit(metadata={"mode": "1"}))
    await store.sync()
    await bucket.update(K, {"mode": "2", COMMIT_ID: await commit_id(bucket, K)})
    seen = await store.head(K)
    assert (seen.etag, (seen.metadata or {})["mode"]) == (info.etag, "2")


# -- edits --------------------------------------------------------------------------------


async def test_an_edit_of_what_is_pending_is_part_of_one_upload(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting
) -> None:
    data = pattern(300_000)
    base = await store.put(BIG, data)
    await store.adopt(BIG, edited(base, 100, InMemory(b"new")), Commit(condition=Matches(base.etag)))
    expected = data[:100] + b"new" + data[103:]
    assert await read(store, BIG) == expected
    await store.sync()
    assert (await read(bucket, BIG), plan.mutations()) == (expected, ["adopt"])


async def test_an_edit_of_what_is_being_sent_waits_for_it(clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting) -> None:
    data, going = pattern(300_000), trio.Event()
    plan.script.add("adopt", Fault(until=going))
    base = await store.put(BIG, data)
    await trio.sleep(2)
    info = await store.adopt(BIG, edited(base, 100, InMemory(b"new")), Commit(condition=Matches(base.etag)))
    pin = await store.pin(BIG, known=info)
    expected = data[:100] + b"new" + data[103:]
    assert await read_pin(pin) == expected
    going.set()
    await store.sync()
    assert await read(bucket, BIG) == expected
    assert await read_pin(pin) == expected
    await pin.aclose()


async def test_an_edit_of_what_is_in_the_store_moves_what_it_changes(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    data = pattern(300_000)
    base = await store.put(BIG, data)
    await store.sync()
    info = await store.adopt(BIG, edited(base, 100, InMemory(b"new")), Commit(condition=Matches(base.etag)))
    pin = await store.pin(BIG, known=info)
    expected = data[:100] + b"new" + data[103:]
    assert await read_pin(pin) == expected
    assert store.status()["pending_bytes"] == 300_000
    await store.sync()
    assert (await read(bucket, BIG), await read_pin(pin)) == (expected, expected)
    await pin.aclose()


async def test_what_is_pinned_stays_readable_whatever_becomes_of_it(clock: MockClock, store: WriteBack) -> None:
    pins = []
    for data in (b"small", pattern(300_000)):
        await store.put(K, data)
        pins.append((await store.pin(K), data))
    await store.sync()
    await store.put(K, b"other")
    await store.sync()
    await store.delete(K)
    await store.sync()
    for pin, data in pins:
        assert await read_pin(pin, 3, len(data) - 3) == data[3:]
        await pin.aclose()


async def test_bytes_come_from_the_version_that_was_asked_for(clock: MockClock, store: WriteBack) -> None:
    old = await store.put(K, b"old")
    await store.sync()
    new = await store.put(K, b"new!")
    buffer = bytearray(3)
    assert (await store.get_into(K, ByteRange(0, 3), memoryview(buffer), if_match=new.etag)).etag == new.etag
    assert buffer == b"new"
    with pytest.raises(PreconditionFailed):
        await store.get_into(K, ByteRange(0, 3), memoryview(buffer), if_match=old.etag)
    with pytest.raises(ValueError):
        await store.get_into(K, ByteRange(0, 9), memoryview(bytearray(9)))


async def test_a_page_is_short_only_at_the_end(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    for key in ("d/", "d/a", "d/b", "d/c", "d/c/x", "d/z"):
        await bucket.put(Key(key), b"")
    for key in ("d/a", "d/b", "d/c/x"):
        await store.delete(Key(key))
    assert [info.key for info in (await store.list("d/", limit=2)).objects] == ["d/", "d/c"]
    page = await store.list("d/", delimiter="/", after="d/", limit=2)
    assert ([info.key for info in page.objects], page.prefixes) == (["d/c", "d/z"], ())


@pytest.mark.slow
async def test_what_is_left_of_a_thousand_is_one_listing(clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting) -> None:
    for number in range(900):
        await bucket.put(Key(f"d/{number}"), b"")
        await store.delete(Key(f"d/{number}"))
    await bucket.put(Key("d/"), b"")
    plan.seen.clear()
    assert [info.key for info in (await store.list("d/", limit=2)).objects] == ["d/"]
    assert [op.verb for op in plan.seen if op.verb == "list"] == ["list"]


async def test_the_store_is_told_whose_place_a_version_takes(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, tmp_path: Path
) -> None:
    told: list[ObjectInfo | None] = []

    class Listening(MemoryStore):
        async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
            told.append(commit.former)
            return await super().put(key, data, commit)

    inner = Listening(LIKE_S3)
    foreign = await MemoryStore.put(inner, K, b"foreign")
    late = await WriteBack.open(inner, tmp_path / "k")
    info = await late.put(K, b"1", Commit(condition=Matches(foreign.etag), former=foreign))
    info = await late.put(K, b"2", Commit(condition=Matches(info.etag), former=info))
    await late.sync()
    await late.put(K, b"3", Commit(former=info))
    await late.sync()
    first, second = told
    assert first is not None
    assert second is not None
    assert first.etag == foreign.etag
    assert second.etag not in (info.etag, foreign.etag)
    await late.aclose()


# -- conditions ---------------------------------------------------------------------------


async def test_conditions_are_judged_by_what_is_pending_at_once(clock: MockClock, store: WriteBack) -> None:
    info = await store.put(K, b"1")
    with pytest.raises(AlreadyExists):
        await store.put(K, b"2", Commit(condition=Absent()))
    with pytest.raises(PreconditionFailed):
        await store.put(K, b"2", Commit(condition=Matches(ETag("other"))))
    with pytest.raises(PreconditionFailed):
        await store.delete(K, if_match=ETag("other"))
    await store.put(K, b"2", Commit(condition=Matches(info.etag)))
    assert await read(store, K) == b"2"


async def test_what_the_store_refuses_is_kept_and_told_and_shown_no_more(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    forgotten: list[str] = []
    store.listener.forget = forgotten.append
    await bucket.put(K, b"foreign")
    await store.put(K, b"ours", Commit(condition=Absent()))
    await store.put(L, b"fine")
    with pytest.raises(AlreadyExists):
        await store.sync(K)
    await store.sync(L)
    with pytest.raises(AlreadyExists):
        await store.sync()
    assert (await read(store, K), await read(bucket, K)) == (b"foreign", b"foreign")
    assert forgotten == ["key"]
    await trio.sleep(1)
    (record,) = store._journal.records()
    assert (record.state, record.error, record.reason) == (State.FAILED, "AlreadyExists", "'key' exists already.")
    assert store._journal.inline(next(iter(record.bodies))) == b"ours"
    assert "could not be stored" in caplog.text
    await bucket.delete(K)
    assert await store.decide("retry", [record.id]) == 1
    assert await read(store, K) == b"ours"
    await store.sync()
    assert await read(bucket, K) == b"ours"
    assert store.status()["refused"] == 0


async def test_what_was_refused_can_be_discarded(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    await bucket.put(K, b"foreign")
    await store.put(K, b"ours", Commit(condition=Absent()))
    with pytest.raises(AlreadyExists):
        await store.sync()
    await trio.sleep(1)
    (record,) = store._journal.records()
    await store.decide("discard", [record.id])
    await store.sync()
    await trio.sleep(1)
    assert store._journal.records() == []
    store._journal.check()


async def test_an_edit_behind_a_refused_one_is_refused_as_a_whole(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    data, going = pattern(300_000), trio.Event()
    await bucket.put(BIG, b"foreign")
    plan.script.add("adopt", Fault(until=going))
    base = await store.put(BIG, data, Commit(condition=Absent()))
    await trio.sleep(2)
    await store.adopt(BIG, edited(base, 0, InMemory(b"new")), Commit(condition=Matches(base.etag)))
    going.set()
    with pytest.raises(AlreadyExists):
        await store.sync()
    store._journal.check()
    await trio.sleep(1)
    (record,) = store._journal.records()
    assert (record.state, record.size, record.keeps) == (State.FAILED, 300_000, False)
    await bucket.delete(BIG)
    await store.decide("retry", [record.id])
    await store.sync()
    assert await read(bucket, BIG) == b"new" + data[3:]


async def test_an_edit_of_what_was_refused_is_refused_at_once(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: it was acknowledged, and then kept without the bytes that it had in common with what was refused."""
    await bucket.put(BIG, b"foreign")
    one = await store.put(BIG, pattern(300_000), Commit(condition=Absent()))
    with pytest.raises(AlreadyExists):
        await store.sync()
    with pytest.raises(PreconditionFailed):
        await store.adopt(BIG, edited(one, 0, InMemory(b"new")), Commit(condition=Matches(one.etag)))
    (record,) = store._journal.records()
    await bucket.delete(BIG)
    await store.decide("retry", [record.id])
    await store.adopt(BIG, edited(one, 0, InMemory(b"new")), Commit(condition=Matches(one.etag)))
    await store.sync()
    assert await read(bucket, BIG) == b"new" + pattern(300_000)[3:]


async def test_a_directory_that_somebody_else_made_as_well_is_no_failure(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    await bucket.put(Key("d/"), b"")
    await store.put(Key("d/"), b"", Commit(condition=Absent()))
    await store.sync()
    assert store.status()["refused"] == 0


async def test_a_version_of_ours_is_found_by_its_commit_when_nobody_remembers_it(
    clock: MockClock, store: WriteBack, bucket: MemoryStore
) -> None:
    info = await store.put(BIG, pattern(300_000))
    await store.sync()
    store._pending.overlay._aliases.clear()
    assert (await store.head(BIG)).etag == (await bucket.head(BIG)).etag
    assert await read_pin(await store.pin(BIG, known=info)) == pattern(300_000)
    await store.adopt(BIG, edited(info, 0, InMemory(b"new")), Commit(condition=Matches(info.etag)))
    await store.sync()
    assert await read(bucket, BIG) == b"new" + pattern(300_000)[3:]


# -- trouble ------------------------------------------------------------------------------


async def test_a_store_that_is_away_is_tried_until_it_is_back(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    plan.shut = Unavailable("Away.")
    await store.put(K, b"data")
    with pytest.raises(Unavailable, match="Away"):
        await store.sync(K)
    await trio.sleep(600)
    assert store.status()["pending"] == 1
    assert caplog.text.count("tried again") < 15
    plan.shut = None
    await store.sync()
    assert await read(bucket, K) == b"data"


async def test_whoever_may_not_write_is_told_and_what_he_wrote_waits(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    plan.shut = AccessDenied("Not yours.")
    await store.put(K, b"data")
    with pytest.raises(AccessDenied):
        await store.sync()
    plan.shut = None
    await trio.sleep(120)
    assert await read(bucket, K) == b"data"


@pytest.mark.parametrize("faults", [[lost_reply()], [lost_request()], [lost_request(), lost_reply()]])
@pytest.mark.parametrize("condition", [None, Absent()])
async def test_a_lost_reply_is_looked_into(
    clock: MockClock,
    store: WriteBack,
    bucket: MemoryStore,
    plan: Counting,
    faults: list[Fault],
    condition: Absent | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plan.script.add("put", *faults)
    info = await store.put(K, b"data", Commit(condition=condition))
    await trio.sleep(120)
    assert await read(bucket, K) == b"data"
    assert (await store.head(K)).etag == info.etag
    assert plan.script.used_up
    assert plan.mutations().count("put") == len(faults) + (faults[-1].before is not None)


async def test_a_change_behind_one_in_doubt_takes_its_place_once_it_is_sure_that_it_did_not_happen(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    plan.script.add("put", lost_request())
    info = await store.put(K, b"one", Commit(condition=Absent()))
    await trio.sleep(0.5)
    await store.put(K, b"two", Commit(condition=Matches(info.etag)))
    await store.sync()
    assert (await read(bucket, K), plan.mutations()) == (b"two", ["put", "put"])


@asynccontextmanager
async def slow_journal(store: WriteBack) -> AsyncIterator[None]:
    """Nothing that is entered within the block is in the journal before its end."""
    async with store._pending.together._worker._turn:
        yield


async def test_a_change_that_is_just_being_entered_replaces_one_that_stands_for_another(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: an edit of an edit lost what the first one had written, if that turned out to be unsent at the same moment."""
    data = pattern(300_000)
    plan.script.add("adopt", lost_request())
    one = await store.put(BIG, data, Commit(condition=Absent()))
    await trio.sleep(0.5)
    two = await store.adopt(BIG, edited(one, 0, InMemory(b"two")), Commit(condition=Matches(one.etag)))
    async with trio.open_nursery() as nursery, slow_journal(store):
        nursery.start_soon(store.adopt, BIG, edited(two, 10, InMemory(b"three")), Commit(condition=Matches(two.etag)))
        await trio.sleep(30)
    await store.sync()
    assert await read(bucket, BIG) == b"two" + data[3:10] + b"three" + data[15:]
    await trio.sleep(1)
    store._journal.check()


async def test_an_edit_that_is_just_being_entered_is_refused_together_with_what_it_is_an_edit_of(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: it was left alone, an edit of a version that never was."""
    data, going = pattern(300_000), trio.Event()
    await bucket.put(BIG, b"foreign")
    plan.script.add("adopt", Fault(until=going))
    one = await store.put(BIG, data, Commit(condition=Absent()))
    await trio.sleep(2)
    async with trio.open_nursery() as nursery, slow_journal(store):
        nursery.start_soon(store.adopt, BIG, edited(one, 0, InMemory(b"new")), Commit(condition=Matches(one.etag)))
        await trio.sleep(1)
        going.set()
        await trio.sleep(30)
    store.check()
    with pytest.raises(AlreadyExists):
        await store.sync()
    await trio.sleep(1)
    (record,) = store._journal.records()
    assert (record.state, record.size, record.keeps) == (State.FAILED, 300_000, False)
    store._journal.check()


async def test_a_full_disk_is_told_to_the_writer_and_harms_nothing(clock: MockClock, store: WriteBack, bucket: MemoryStore) -> None:
    await store.put(K, b"before")
    store._journal._base.execute("PRAGMA max_page_count = 12")

    async def fill() -> None:
        for number in range(100):
            await store.put(Key(f"d/{number}"), bytes(100_000))

    with pytest.raises(NoSpace):
        await fill()
    store._journal._base.execute("PRAGMA max_page_count = 1000000")
    await store.sync()
    assert await read(bucket, K) == b"before"
    there = await keys_of(bucket)
    assert f"d/{len(there) - 1}" not in there
    assert await keys_of(store) == there


async def test_where_there_is_no_thread_to_write_with_everybody_is_told(
    clock: MockClock, store: WriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: whoever shared the transaction waited for ever."""

    async def call(*_: object) -> None:
        await trio.sleep(1)
        raise RuntimeError("can't start new thread")

    async def put(key: Key) -> None:
        with pytest.raises(Unavailable, match="thread"):
            await store.put(key, b"x")

    with monkeypatch.context() as patch, trio.fail_after(60):
        patch.setattr(store._pending.together._worker, "shielded", call)
        async with trio.open_nursery() as nursery:
            for key in (K, L, BIG):
                nursery.start_soon(put, key)
    await store.put(K, b"x")


async def test_what_has_arrived_makes_room_even_if_the_journal_cannot_say_so(clock: MockClock, store: WriteBack, tmp_path: Path) -> None:
    await store.put(K, pattern(300_000))
    store._journal._base.execute("PRAGMA query_only = 1")
    await store.sync()
    await trio.sleep(1)
    assert list((tmp_path / "j/bodies").iterdir()) == []
    store._journal._base.execute("PRAGMA query_only = 0")
    assert len(store._journal.records()) == 1
    await store.put(L, b"more")
    await store.sync()
    await trio.sleep(1)
    assert store._journal.records() == []


async def test_a_folder_has_one_owner(clock: MockClock, store: WriteBack, bucket: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(Busy):
        await WriteBack.open(bucket, tmp_path / "j")


async def test_who_waits_is_told_when_the_store_is_closed(clock: MockClock, store: WriteBack, plan: Counting) -> None:
    going = trio.Event()
    plan.script.add("put", Fault(until=going))
    await store.put(K, b"data")

    async def wait() -> None:
        with pytest.raises(Unavailable, match="next mount"):
            await store.sync()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1)
        await store.aclose()


# -- all together -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_random_changes_are_seen_at_once_and_arrive(
    clock: MockClock, store: WriteBack, bucket: MemoryStore, plan: Counting, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(seed)
    model: dict[str, bytes] = {}
    keys = [Key(key) for key in ("a", "b", "d/", "d/a", "d/b")]
    for step in range(150):
        key, other = rng.choice(keys), rng.choice(keys)
        match rng.choice(["put", "put", "big", "edit", "delete", "copy", "update", "sleep", "sync", "fault"]):
            case "put":
                await store.put(key, data := b"%d" % step)
                model[key] = data
            case "big":
                data = pattern(200_000, step)
                await store.adopt(key, whole(InMemory(data)), Commit())
                model[key] = data
            case "edit" if len(model.get(key, b"")) > 9:
                base = await store.head(key)
                await store.adopt(key, edited(base, 3, InMemory(b"%05d" % step)), Commit(condition=Matches(base.etag)))
                model[key] = model[key][:3] + b"%05d" % step + model[key][8:]
            case "delete":
                await store.delete(key)
                model.pop(key, None)
            case "copy" if key in model and key != other:
                with suppress(OutcomeUnknown):
                    await store.copy(key, other, if_match=(await store.head(key)).etag)
                    model[other] = model[key]
            case "update" if key in model:
                with suppress(OutcomeUnknown):
                    await store.update(key, {"step": str(step)}, if_match=(await store.head(key)).etag)
            case "sleep":
                await trio.sleep(rng.uniform(0, 1))
            case "sync":
                with suppress(OutcomeUnknown):
                    await store.sync(rng.choice([None, key]))
            case "fault":
                plan.script.add(rng.choice(["put", "adopt", "delete", "delete_many"]), rng.choice([lost_reply(), lost_request()]))
        store.check()
        assert await keys_of(store) == sorted(model), step
        if key in model:
            assert await read(store, key) == model[key], step
    await trio.sleep(1000)
    assert store.status()["pending"] == 0
    assert {key: await read(bucket, Key(key)) for key in await keys_of(bucket)} == model
    store._journal.check()

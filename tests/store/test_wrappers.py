"""Limited, Faulty, Traced and what all wrappers share. Virtual clock."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from s3mount.errors import NotFound, OutcomeUnknown, StoreError, Throttled, Unavailable, Unsupported
from s3mount.model import ByteRange, Key
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import KINDS, Kind, Op, Wrapper
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty, Script, lost_reply, lost_request, seeded
from s3mount.store.wrap.limited import Limited, Limits
from s3mount.store.wrap.retrying import Retrying
from s3mount.store.wrap.traced import Traced
from tests.store.registry import InMemory, read, read_pin, whole

K = Key("key")


# -- all of them --------------------------------------------------------------------------


def test_every_request_of_the_protocol_has_a_kind() -> None:
    verbs = {name for name, member in inspect.getmembers(ObjectStore) if inspect.iscoroutinefunction(member)}
    assert verbs - {"aclose"} | {"pin.get_into"} == set(KINDS)


async def test_every_request_passes_the_seam() -> None:
    seen: list[str] = []

    def plan(op: Op) -> Fault:
        seen.append(op.verb)
        return NOTHING

    store = Faulty(MemoryStore(), plan)
    await store.put(K, b"data")
    await store.adopt(Key("x"), whole(InMemory(b"x")), Commit())
    await store.head(K)
    await store.find("key")
    await store.list()
    await store.get_into(K, ByteRange(0, 1), memoryview(bytearray(1)))
    pin = await store.pin(K)
    await read_pin(pin)
    await store.update(K, {})
    await store.set_aspect(K, "content-type", "text/plain", if_match=(await store.inner.head(K)).etag)
    assert await store.aspect(K, "content-type") == "text/plain"
    assert [version.key for version in (await store.list_versions("k")).entries] == [K]
    await store.pin_version(await store.head_version(K, "null"))
    assert await store.version_aspect(K, "null", "size") == "4"
    await store.copy(K, Key("copy"))
    await store.rename(Key("copy"), Key("d/copy"))
    await store.rename_prefix("d/", "e/")
    await store.exchange("e/", "key")
    await store.link(Key("e"), Key("link"))
    await store.reserve(Key("new"))
    await store.release(Key("new"))
    await store.delete(Key("link"))
    await store.delete_many([Key("e")])
    upload = await store.create_upload(K)
    part = await store.put_part(upload, 1, b"x")
    await store.copy_part(upload, 2, source=await store.inner.head(Key("x")), span=ByteRange(0, 1))
    await store.list_uploads()
    with pytest.raises(Unsupported):
        await store.changed()
    with pytest.raises(Unsupported):
        await store.relocate([])
    await store.complete_upload(upload, [part])
    await store.abort_upload(upload)
    await store.sync()
    await store.space()
    assert set(seen) == set(KINDS)
    assert len(seen) == len(KINDS)


async def test_a_wrapper_shows_what_it_wraps(tmp_path: Path) -> None:
    inner = MemoryStore(LIKE_S3, staging=tmp_path)
    store = Traced(Retrying(Limited(inner)))
    assert store.capabilities is LIKE_S3
    assert store.staging == tmp_path
    assert repr(store) == "<Traced <Retrying <Limited <MemoryStore 0 keys>>>>"


async def test_closing_a_wrapper_closes_the_store() -> None:
    inner = MemoryStore()
    store = Wrapper(Wrapper(inner))
    await store.reserve(K)
    await store.aclose()
    assert inner.bucket.reserved == {}


# -- Limited ------------------------------------------------------------------------------


async def test_slow_commits_do_not_hold_up_looking(autojump_clock: MockClock) -> None:
    script = Script()
    script.add("put", *[Fault(delay=10.0)] * 300)
    memory = MemoryStore()
    store = Limited(Faulty(memory, script), Limits(commit=8))
    await memory.put(K, b"data")
    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(store.put, Key(f"slow/{number}"), b"x")
        await wait_all_tasks_blocked()
        started = trio.current_time()
        await store.head(K)
        await store.list()
        await read(store, K)
        await store.rename(K, Key("renamed"))
        assert trio.current_time() == started
        assert store.waiting(Kind.COMMIT) == 292
    assert len(memory.bucket.keys) == 301


async def test_no_more_than_the_limit_run_at_once(autojump_clock: MockClock) -> None:
    running = most = 0

    class Counting(Wrapper):
        async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()):  # type: ignore[no-untyped-def]  # noqa: B008
            nonlocal running, most
            running += 1
            most = max(most, running)
            await trio.sleep(1)
            running -= 1
            return await self.inner.put(key, data, commit)

    store = Limited(Counting(MemoryStore()), Limits(commit=5))
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(store.put, Key(f"{number}"), b"x")
    assert most == 5
    assert trio.current_time() - started == pytest.approx(4.0)


async def test_a_request_that_failed_or_was_cancelled_gives_its_place_back(autojump_clock: MockClock) -> None:
    script = Script()
    script.add("head", Fault(before=Unavailable("u")), Fault(delay=1000.0))
    store = Limited(Faulty(MemoryStore(), script), Limits(look=1))
    with pytest.raises(Unavailable):
        await store.head(K)
    with trio.move_on_after(1):
        await store.head(K)
    with pytest.raises(NotFound):
        await store.head(K)


# -- Faulty -------------------------------------------------------------------------------


async def test_a_script_befalls_its_verb_in_order_and_then_ends(autojump_clock: MockClock) -> None:
    script = Script()
    script.add("head", Fault(before=Throttled("1")), NOTHING, Fault(before=Unavailable("3")))
    store = Faulty(MemoryStore(), script)
    await store.put(K, b"data")
    with pytest.raises(Throttled):
        await store.head(K)
    await store.head(K)
    assert not script.used_up
    with pytest.raises(Unavailable):
        await store.head(K)
    assert script.used_up
    await store.head(K)


async def test_a_lost_request_did_not_happen_and_a_lost_reply_did(autojump_clock: MockClock) -> None:
    script = Script()
    store = Faulty(MemoryStore(), script)
    script.add("put", lost_request(), lost_reply())
    with pytest.raises(OutcomeUnknown):
        await store.put(K, b"1")
    with pytest.raises(NotFound):
        await store.head(K)
    with pytest.raises(OutcomeUnknown):
        await store.put(K, b"2")
    assert await read(store, K) == b"2"


async def test_a_fault_may_come_late_or_wait_for_an_event(autojump_clock: MockClock) -> None:
    script = Script()
    gate = trio.Event()
    store = Faulty(MemoryStore(), script)
    script.add("put", Fault(delay=2.0, reply_delay=3.0), Fault(until=gate))
    started = trio.current_time()
    await store.put(K, b"1")
    assert trio.current_time() - started == pytest.approx(5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.put, K, b"2")
        await wait_all_tasks_blocked()
        assert await read(store, K) == b"1"
        gate.set()
    assert await read(store, K) == b"2"


async def test_faults_reach_the_reads_of_a_pin(autojump_clock: MockClock) -> None:
    script = Script()
    store = Faulty(MemoryStore(), script)
    await store.put(K, b"data")
    pin = await store.pin(K)
    script.add("pin.get_into", Fault(before=Unavailable("u")))
    with pytest.raises(Unavailable):
        await read_pin(pin)
    assert await read_pin(pin) == b"data"


async def _outcomes(seed: int) -> list[str]:
    store = Faulty(MemoryStore(), seeded(seed, rate=0.5, slowest=1.0))
    outcomes = []
    for _ in range(60):
        try:
            await store.put(K, b"data")
        except StoreError as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("done")
    return outcomes


async def test_a_seed_gives_the_same_faults_again(autojump_clock: MockClock) -> None:
    first = await _outcomes(1)
    assert first == await _outcomes(1)
    assert first != await _outcomes(2)
    assert set(first) == {"done", "Unavailable", "Throttled", "OutcomeUnknown"}
    assert 15 <= first.count("done") <= 45


# -- Traced -------------------------------------------------------------------------------


async def test_requests_are_counted_by_verb() -> None:
    store = Traced(MemoryStore())
    await store.put(K, b"data")
    await store.head(K)
    with pytest.raises(NotFound):
        await store.head(Key("absent"))
    pin = await store.pin(K)
    assert pin.get_into_nowait(0, memoryview(bytearray(4)))
    assert store.requests == {"put": 1, "head": 2, "pin": 1, "pin.get_into_nowait": 1}


async def test_each_request_is_one_debug_line_without_contents(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    script = Script()
    script.add("put", Fault(delay=0.25))
    script.add("head", Fault(before=Unavailable("the secret reason")))
    store = Traced(Faulty(MemoryStore(), script))
    with caplog.at_level(logging.DEBUG, logger="s3mount.store.wrap.traced"):
        await store.put(K, b"secret bytes", Commit(metadata={"token": "secret"}))
        with pytest.raises(Unavailable):
            await store.head(K)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["put 'key' done in 250.0 ms", "head 'key' Unavailable in 0.0 ms"]

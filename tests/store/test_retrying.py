"""Retrying: how long it waits, when it gives up, what it never repeats. Virtual clock."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import (
    AccessDenied,
    AlreadyExists,
    Corrupt,
    NoSpace,
    NotFound,
    OutcomeUnknown,
    StoreError,
    Throttled,
    TimedOut,
    Unavailable,
)
from s3mount.model import Absent, Key
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore
from s3mount.store.memory import MemoryStore
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty, Script, lost_reply, lost_request
from s3mount.store.wrap.retrying import Attempts, Policy, Retrying
from s3mount.store.wrap.traced import Traced
from tests.store.registry import own_metadata, read

K = Key("key")
POLICY = Policy(base=1.0, cap=8.0, budget=100.0)


class House:
    """Retrying around Traced around Faulty around MemoryStore, each within reach."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.memory = MemoryStore()
        self.script = Script()
        self.traced = Traced(Faulty(self.memory, self.script))
        self.store = Retrying(self.traced, policy, rng=random.Random(5))

    def add(self, verb: str, *errors: StoreError) -> None:
        self.script.add(verb, *(Fault(before=error) for error in errors))


@pytest.mark.parametrize("error", [Throttled("t"), Unavailable("u"), TimedOut("o"), OutcomeUnknown("?")])
async def test_transient_failures_are_waited_out(error: StoreError, autojump_clock: MockClock) -> None:
    house = House()
    await house.memory.put(K, b"data")
    house.add("head", error, error, error)
    started = trio.current_time()
    assert (await house.store.head(K)).size == 4
    assert house.traced.requests["head"] == 4
    assert 0 < trio.current_time() - started <= 1 + 2 + 4


@pytest.mark.parametrize("error", [AccessDenied("a"), NoSpace("n"), Corrupt("c"), NotFound("f")])
async def test_what_waiting_does_not_mend_is_raised_at_once(error: StoreError, autojump_clock: MockClock) -> None:
    house = House()
    house.add("head", error)
    with pytest.raises(type(error)):
        await house.store.head(K)
    assert trio.current_time() == autojump_clock.current_time()
    assert house.traced.requests["head"] == 1


async def test_a_defect_is_not_retried(autojump_clock: MockClock) -> None:
    house = House()
    await house.memory.put(K, b"data")
    with pytest.raises(ValueError):
        await house.store.list(limit=0)
    assert house.traced.requests["list"] == 1


async def test_delays_grow_to_the_cap_with_full_jitter(autojump_clock: MockClock) -> None:
    longest = [0.0] * 8
    shortest = [100.0] * 8
    for seed in range(200):
        attempts = Attempts(Policy(base=1.0, cap=8.0, budget=1000.0), random.Random(seed))
        for number in range(8):
            delay = attempts.next_delay()
            assert delay is not None
            longest[number], shortest[number] = max(longest[number], delay), min(shortest[number], delay)
    for number, bound in enumerate((1, 2, 4, 8, 8, 8, 8, 8)):
        assert 0.9 * bound < longest[number] <= bound
        assert shortest[number] < 0.1 * bound


async def test_a_budget_that_is_spent_ends_it_with_the_last_failure(autojump_clock: MockClock) -> None:
    house = House()
    house.add("head", *[Unavailable("down")] * 1000)
    started = trio.current_time()
    with pytest.raises(Unavailable, match="down"):
        await house.store.head(K)
    assert POLICY.budget - POLICY.cap <= trio.current_time() - started <= POLICY.budget


async def test_the_budget_runs_from_the_first_failure(autojump_clock: MockClock) -> None:
    house = House()
    house.script.add("put", Fault(delay=1000.0, before=Throttled("slow down")), NOTHING)
    await house.store.put(K, b"data")
    assert house.traced.requests["put"] == 2


async def test_a_running_request_is_never_cut_off(autojump_clock: MockClock) -> None:
    house = House()
    house.add("put", Throttled("slow down"))
    house.script.add("put", Fault(delay=10_000.0))
    await house.store.put(K, b"data")
    assert await read(house.memory, K) == b"data"


async def test_waiting_can_be_cancelled(autojump_clock: MockClock) -> None:
    house = House(Policy(base=1000.0, cap=1000.0, budget=10_000.0))
    house.add("put", *[Unavailable("down")] * 10)
    with trio.move_on_after(1.0) as scope:
        await house.store.put(K, b"data")
    assert scope.cancelled_caught
    assert house.memory.bucket.keys == {}


async def test_a_mutation_in_doubt_is_looked_for_before_it_is_repeated(autojump_clock: MockClock) -> None:
    house = House()
    house.script.add("put", lost_reply())
    info = await house.store.put(K, b"data", Commit(condition=Absent(), commit_id="mine"))
    assert info == await house.memory.head(K)
    assert house.traced.requests == {"put": 1, "head": 1}


async def test_a_request_that_was_lost_is_sent_again(autojump_clock: MockClock) -> None:
    house = House()
    house.script.add("put", lost_request())
    await house.store.put(K, b"data", Commit(condition=Absent(), commit_id="mine"))
    assert house.traced.requests == {"put": 2, "head": 1}


async def test_looking_may_fail_and_is_tried_again(autojump_clock: MockClock) -> None:
    house = House()
    house.script.add("put", lost_reply())
    house.add("head", Unavailable("down"), Throttled("t"), TimedOut("o"))
    await house.store.put(K, b"data", Commit(condition=Absent()))
    assert house.traced.requests == {"put": 1, "head": 4}


async def test_a_delayed_first_request_that_lands_late_is_recognised(autojump_clock: MockClock) -> None:
    """The reply is lost, nothing is found, and then the first request arrives after all, before the second."""
    house = House()
    put, landed = house.memory.put, []

    async def late(key: Key, data: bytes, commit: Commit) -> object:
        landed.append(await put(key, data, commit))
        return await put(key, data, commit)

    house.script.add("put", lost_request())
    house.memory.put = late  # type: ignore[method-assign, assignment]
    info = await house.store.put(K, b"data", Commit(condition=Absent()))
    assert [info] == landed


async def test_a_commit_without_an_id_is_given_one(autojump_clock: MockClock) -> None:
    house = House()
    await house.store.put(K, b"1")
    first = (await house.memory.head(K)).metadata or {}
    await house.store.put(K, b"2", Commit(metadata={"a": "b"}))
    second = await house.memory.head(K)
    assert first[COMMIT_ID] != (second.metadata or {})[COMMIT_ID]
    assert own_metadata(second) == {"a": "b"}


async def test_giving_up_in_doubt_does_not_promise_that_nothing_happened(autojump_clock: MockClock) -> None:
    house = House()
    house.script.add("put", lost_reply())
    house.add("head", *[Unavailable("down")] * 1000)
    with pytest.raises(OutcomeUnknown) as caught:
        await house.store.put(K, b"data")
    assert isinstance(caught.value.__cause__, Unavailable)


@pytest.mark.parametrize("error", [AccessDenied("a"), NoSpace("n"), Corrupt("c")])
async def test_what_refuses_to_say_more_while_in_doubt_does_not_promise_it_either(error: StoreError, autojump_clock: MockClock) -> None:
    house = House()
    house.script.add("put", lost_reply())
    house.add("head", error)
    with pytest.raises(OutcomeUnknown) as caught:
        await house.store.put(K, b"data")
    assert caught.value.__cause__ is error
    assert await read(house.memory, K) == b"data"


async def test_a_copy_that_is_refused_when_it_is_repeated_may_have_happened(autojump_clock: MockClock) -> None:
    house = House()
    await house.memory.put(K, b"data")
    house.script.add("copy", lost_reply(), Fault(before=AccessDenied("revoked")))
    with pytest.raises(OutcomeUnknown):
        await house.store.copy(K, Key("b"))
    assert await read(house.memory, Key("b")) == b"data"


async def test_giving_up_without_doubt_promises_it(autojump_clock: MockClock) -> None:
    house = House()
    house.add("put", *[Throttled("t")] * 1000)
    with pytest.raises(Throttled):
        await house.store.put(K, b"data")
    assert house.memory.bucket.keys == {}


ONCE: dict[str, Callable[[ObjectStore], Awaitable[object]]] = {
    "rename": lambda s: s.rename(K, Key("b")),
    "rename_prefix": lambda s: s.rename_prefix("d/", "e/"),
    "exchange": lambda s: s.exchange(K, "d/"),
    "link": lambda s: s.link(K, Key("b")),
    "reserve": lambda s: s.reserve(Key("b")),
}


@pytest.mark.parametrize("verb", ONCE)
async def test_what_leaves_no_proof_is_not_repeated_in_doubt(verb: str, autojump_clock: MockClock) -> None:
    for fault in (lost_reply(), lost_request(), Fault(after=TimedOut("late"))):
        house = House()
        await house.memory.put(K, b"data")
        await house.memory.put(Key("d/x"), b"data")
        house.script.add(verb, fault)
        with pytest.raises((OutcomeUnknown, TimedOut)):
            await ONCE[verb](house.store)
        assert house.traced.requests[verb] == 1


@pytest.mark.parametrize("verb", ONCE)
async def test_what_leaves_no_proof_is_repeated_when_it_did_not_happen(verb: str, autojump_clock: MockClock) -> None:
    house = House()
    await house.memory.put(K, b"data")
    await house.memory.put(Key("d/x"), b"data")
    house.add(verb, Throttled("t"), Unavailable("u"))
    await ONCE[verb](house.store)
    assert house.traced.requests[verb] == 3


async def test_a_completion_is_recognised_by_the_id_of_its_beginning(autojump_clock: MockClock) -> None:
    house = House()
    upload = await house.store.create_upload(K)
    part = await house.store.put_part(upload, 1, b"data")
    house.script.add("complete_upload", lost_reply())
    assert (await house.store.complete_upload(upload, [part])).size == 4
    assert house.traced.requests["complete_upload"] == 1


async def test_reads_of_a_pin_are_retried_too(autojump_clock: MockClock) -> None:
    house = House()
    await house.memory.put(K, b"data")
    pin = await house.store.pin(K)
    house.add("pin.get_into", Unavailable("u"), TimedOut("o"))
    buffer = bytearray(4)
    await pin.get_into(0, memoryview(buffer))
    assert buffer == b"data"
    await pin.aclose()


async def test_a_creation_that_somebody_else_made_is_not_taken_for_ours(autojump_clock: MockClock) -> None:
    house = House()
    house.script.add("put", lost_request())
    await house.memory.put(K, b"theirs", Commit(commit_id="theirs"))
    with pytest.raises(AlreadyExists):
        await house.store.put(K, b"ours", Commit(condition=Absent()))
    assert await read(house.memory, K) == b"theirs"

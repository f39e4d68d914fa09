"""What is corrected when, and what others are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import NotFound, OutcomeUnknown, PreconditionFailed
from s3mount.model import Key
from s3mount.store.api import ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op, Wrapper
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty
from tests.cache.metadata.kit import around, list_all, remembering

T = TypeVar("T")


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def test_what_this_mount_changes_is_known_without_a_request(autojump_clock: MockClock) -> None:
    async with remembering(["d/a", "d/b"], metadata_ttl_s=60.0) as (store, slow):
        await list_all(store, "d/")
        made = await store.put(Key("d/c"), b"new")
        await store.delete(Key("d/a"))
        slow.taken()
        assert [info.key for info in (await list_all(store, "d/"))[0]] == ["d/b", "d/c"]
        assert (await store.head(Key("d/c"))).etag == made.etag
        assert (await store.find("d/a")).object is None
        assert not slow.taken()


async def test_others_changes_are_seen_after_the_time_to_live(autojump_clock: MockClock) -> None:
    async with remembering(["d/a"], metadata_ttl_s=5.0) as (store, slow):
        await list_all(store, "d/")
        assert isinstance(slow.inner, MemoryStore)
        other = slow.inner.another()
        await other.put(Key("d/b"), b"x")
        await other.delete(Key("d/a"))
        await trio.sleep(4)
        assert [info.key for info in (await list_all(store, "d/"))[0]] == ["d/a"]
        await trio.sleep(2)
        assert [info.key for info in (await list_all(store, "d/"))[0]] == ["d/b"]
        assert (await store.find("d/a")).object is None


async def test_a_mutation_whose_outcome_is_unknown_is_asked_about(autojump_clock: MockClock) -> None:
    memory = MemoryStore(LIKE_S3)

    def plan(op: Op) -> Fault:
        return Fault(after=OutcomeUnknown("lost")) if op.verb == "put" else NOTHING

    async with around(Faulty(memory, plan), metadata_ttl_s=60.0) as store:
        assert await list_all(store, "d/") == ([], [])
        with pytest.raises(OutcomeUnknown):
            await store.put(Key("d/a"), b"x")
        assert (await store.find("d/a")).object is not None
        assert [info.key for info in (await list_all(store, "d/"))[0]] == ["d/a"]


async def test_a_read_that_meets_another_version_makes_the_next_look_ask(autojump_clock: MockClock) -> None:
    async with remembering(["d/a"], metadata_ttl_s=60.0) as (store, slow):
        info = await store.head(Key("d/a"))
        assert isinstance(slow.inner, MemoryStore)
        made = await slow.inner.another().put(Key("d/a"), b"other")
        pin = await store.pin(Key("d/a"), known=info)
        assert (await store.head(Key("d/a"))).etag == info.etag
        with pytest.raises(PreconditionFailed):
            await pin.get_into(0, memoryview(bytearray(1)))
        assert (await store.head(Key("d/a"))).etag == made.etag


async def test_siblings_are_told_in_order_and_without_a_request(autojump_clock: MockClock) -> None:
    async with remembering(["d/", *(f"d/f{n}" for n in range(9)), "d/sub/x"]) as (store, slow):
        assert store.after("d/", 3) == []
        await list_all(store, "d/")
        slow.taken()
        assert [info.key for info in store.after("d/", 3)] == ["d/f0", "d/f1", "d/f2"]
        assert [info.key for info in store.after("d/f6", 9)] == ["d/f7", "d/f8"]
        assert not slow.taken()


@pytest.mark.parametrize(("attributes", "request_"), [("full", "head"), ("list", "list")])
async def test_a_time_to_live_of_zero_asks_each_time(attributes: str, request_: str, autojump_clock: MockClock) -> None:
    async with remembering(["d/a"], metadata_ttl_s=0.0, attributes=attributes) as (store, slow):
        for _ in range(3):
            await store.head(Key("d/a"))
        assert slow.taken() == {request_: 3}
        for _ in range(3):
            assert (await store.find("d/a")).object is not None
        assert slow.taken() == Counter(list=3) + Counter({request_: 3})
        for key in ("d/", "d", "d/a-", "d/b", "\udc80"):
            with pytest.raises(NotFound):
                await store.head(Key(key))


@pytest.mark.parametrize("attributes", ["full", "list"])
async def test_a_time_to_live_of_zero_finds_all_kinds_of_names(attributes: str, autojump_clock: MockClock) -> None:
    longest = "n" * 1024
    async with remembering(
        ["both", "both/x", "both-", "marked/", "kept/", "kept/x", "impl/x", longest], metadata_ttl_s=0.0, attributes=attributes
    ) as (store, _):
        found = {name: await store.find(name) for name in ("both", "marked", "kept", "impl", longest, "bot", "", "\udc80")}
    shown = {name: (its.object is not None, its.marker is not None, its.implied) for name, its in found.items()}
    assert shown == {
        "both": (True, False, True),
        "marked": (False, True, False),
        "kept": (False, True, True),
        "impl": (False, False, True),
        longest: (True, False, False),
        "bot": (False, False, False),
        "": (False, False, True),
        "\udc80": (False, False, False),
    }


async def test_files_removed_and_made_during_a_listing_neither_hide_nor_repeat_the_others(autojump_clock: MockClock) -> None:
    async with remembering([f"d/f{n:05}" for n in range(5000)]) as (store, _):
        told: list[str] = []
        after = ""
        while True:
            page = await store.list("d/", delimiter="/", after=after)
            told += [info.key for info in page.objects]
            if page.next is None:
                break
            after = page.next
            for n in range(3, 5000, 500):
                await store.delete(Key(f"d/f{n:05}"))
                await store.put(Key(f"d/f{n:05}-new"), b"")
        assert len(told) == len(set(told))
        assert {f"d/f{n:05}" for n in range(5000) if n % 500 != 3} <= set(told)


class LateLists(Wrapper):
    """Listings are answered by the store at once, and come back when those of their prefix are let go."""

    def __init__(self, inner: ObjectStore, *prefixes: str) -> None:
        super().__init__(inner)
        self.let_go = {prefix: trio.Event() for prefix in prefixes}

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        answer = await call()
        if op.verb == "list":
            await self.let_go[op.key].wait()
        return answer


async def test_a_directory_is_there_whose_listing_was_sent_before_this_mount_put_something_into_it(autojump_clock: MockClock) -> None:
    late = LateLists(MemoryStore(LIKE_S3), "", "d/", "d/f/")
    async with around(late, attributes="full") as store, trio.open_nursery() as nursery:
        late.let_go["d/f/"].set()
        assert (await store.find("d/f")).object is None
        await store.put(Key("d/f"), b"x")

        async def look() -> None:
            assert (await store.find("d")).is_directory
            late.let_go[""].set()

        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        late.let_go["d/"].set()

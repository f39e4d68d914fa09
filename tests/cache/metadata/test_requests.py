"""What looking costs: requests are exact on any machine."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import NotFound
from s3mount.model import Key
from s3mount.store.memory import MemoryStore
from tests.cache.metadata.kit import LATENCY, list_all, remembering, walk, walk_pages


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def test_a_name_in_a_listed_directory_is_free(autojump_clock: MockClock) -> None:
    async with remembering([f"d/f{n:03}" for n in range(100)]) as (store, slow):
        await list_all(store, "d/")
        assert slow.taken() == {"list": 1}
        for n in range(100):
            assert (await store.find(f"d/f{n:03}")).object is not None
            assert (await store.head(Key(f"d/f{n:03}"))).size == 5
        assert not slow.taken()


async def test_a_missing_name_in_a_listed_directory_is_free(autojump_clock: MockClock) -> None:
    async with remembering([f"d/f{n:03}" for n in range(100)]) as (store, slow):
        await list_all(store, "d/")
        slow.taken()
        for n in range(1000):
            found = await store.find(f"d/missing{n}")
            assert found.object is None
            assert not found.is_directory
            with pytest.raises(NotFound):
                await store.head(Key(f"d/missing{n}"))
        assert not slow.taken()


async def test_a_new_directory_is_known_to_be_empty(autojump_clock: MockClock) -> None:
    async with remembering(["d/f"]) as (store, slow):
        assert not (await store.find("d/new")).is_directory
        slow.taken()
        await store.put(Key("d/new/"), b"")
        await store.put(Key("d/new/deep/"), b"")
        for name in ("d/new/a", "d/new/deep", "d/new/deep/b"):
            found = await store.find(name)
            assert (found.object, found.is_directory) == (None, name == "d/new/deep")
        objects, prefixes = await list_all(store, "d/new/")
        assert ([info.key for info in objects], prefixes) == (["d/new/"], ["d/new/deep/"])
        assert slow.taken() == {"put": 2}


async def test_a_directory_that_others_have_filled_is_not_taken_for_new(autojump_clock: MockClock) -> None:
    async with remembering(["d/f"], metadata_ttl_s=1.0) as (store, slow):
        assert not (await store.find("d/new")).is_directory
        await slow.put(Key("d/new/theirs"), b"5")
        await trio.sleep(0.9)
        await store.put(Key("d/new/"), b"")
        await trio.sleep(0.2)
        assert (await store.find("d/new/theirs")).object is not None


@pytest.mark.parametrize("attributes", ["list", "full"])
async def test_a_thousand_names_of_an_unlisted_directory_cost_five_requests(autojump_clock: MockClock, attributes: str) -> None:
    async with remembering([f"d/f{n:03}" for n in range(1000)], attributes=attributes, metadata_ttl_s=60.0) as (store, slow):
        for n in range(1000):
            assert (await store.find(f"d/f{n * 7 % 1000:03}")).object is not None
        taken = slow.taken()
        assert taken["list"] <= 3
        assert taken["head"] <= (1001 if attributes == "full" else 0)  # attributes cost one HEAD each; one was sent beside the first page


async def test_a_walk_twice_within_the_time_to_live_asks_once(autojump_clock: MockClock) -> None:
    async with remembering([f"d{d}/f{n}" for d in range(20) for n in range(10)], metadata_ttl_s=60.0) as (store, slow):
        first = [info.key async for info in walk(store)]
        assert len(first) == 200
        slow.taken()
        assert [info.key async for info in walk(store)] == first
        assert not slow.taken()


@pytest.mark.slow
async def test_names_of_a_large_directory_that_are_looked_up_in_any_order_cost_its_pages(autojump_clock: MockClock) -> None:
    """fts(3) sorts by inode numbers; the kernel asks again for what was listed a second ago."""
    async with remembering([f"d/f{n:05}" for n in range(20_000)]) as (store, slow):
        await list_all(store, "d/")
        slow.taken()
        for n in range(20_000):
            assert (await store.find(f"d/f{n * 7919 % 20_000:05}")).object is not None
            await trio.sleep(0.0002)
        assert slow.taken()["list"] <= 2 * 20 + 5
        assert isinstance(slow.inner, MemoryStore)
        await slow.inner.another().put(Key("d/f00007"), b"replaced")
        await trio.sleep(1.5)
        assert (await store.head(Key("d/f00007"))).size == 8  # who opens it asks within the time-to-live
        await trio.sleep(3)
        assert (await store.find("d/f00007")).object is not None


@pytest.mark.slow
async def test_what_fts_reads_before_it_asks_is_kept(autojump_clock: MockClock) -> None:
    """A hundred thousand names, of however many."""
    async with remembering([f"d/a photograph of the summer {n:06}.jpg" for n in range(200_000)], latency=0.3) as (store, slow):
        names: list[str] = []
        async for page in walk_pages(store, "d/"):
            names += [info.key for info in page.objects]
            if len(names) >= 100_000 or page.next is None:
                for n in range(0, len(names), 7):
                    assert (await store.find(names[n * 7919 % len(names)])).object is not None
                    await trio.sleep(0.0003)
                names = []
                assert store.tables.cost < 32 * 2**20
        assert slow.taken()["list"] <= 2 * 200 + 10


async def test_the_first_page_of_a_large_directory_costs_one_request(autojump_clock: MockClock) -> None:
    async with remembering([f"f{n:05}" for n in range(20_000)]) as (store, slow):
        assert len((await store.list(delimiter="/")).objects) == 1000
        await trio.testing.wait_all_tasks_blocked()
        assert slow.taken() == {"list": 1}


async def test_a_large_directory_twice_within_the_time_to_live_asks_once(autojump_clock: MockClock) -> None:
    async with remembering([f"f{n:05}" for n in range(12_000)], metadata_ttl_s=60.0) as (store, slow):
        first, _ = await list_all(store)
        assert slow.taken()["list"] <= 17
        assert (await list_all(store))[0] == first
        assert not slow.taken()


@pytest.mark.slow
async def test_a_hundred_thousand_flat_keys_cost_their_pages_and_five_with_four_in_flight(autojump_clock: MockClock) -> None:
    keys = [f"file-{n:06d}.dat" for n in range(100_000)]
    async with remembering(keys) as (store, slow):
        began = trio.current_time()
        objects, _ = await list_all(store)
        assert [info.key for info in objects] == keys
        assert slow.counts["list"] <= 105
        assert set(slow.counts) == {"list"}
        assert slow.most >= 4
        assert trio.current_time() - began <= 30 * 0.03


@pytest.mark.slow
async def test_a_reader_of_names_that_are_counted_up_waits_for_the_first_pages_only(autojump_clock: MockClock) -> None:
    """Who takes half of a round trip for a page is never kept waiting by one lane before him."""
    async with remembering([f"file-{n:05d}" for n in range(30_000)]) as (store, slow):
        began, pages = trio.current_time(), 0
        async for _ in walk_pages(store):
            await trio.sleep(LATENCY / 2)
            pages += 1
        assert pages == 30
        assert trio.current_time() - began - pages * LATENCY / 2 <= 6 * LATENCY
        assert slow.taken()["list"] <= 31


@pytest.mark.parametrize("pages", [2, 5, 10])
async def test_a_directory_of_ten_pages_costs_ten_requests(pages: int, autojump_clock: MockClock) -> None:
    async with remembering([f"file-{n:05d}" for n in range(1000 * pages)]) as (store, slow):
        await list_all(store)
        assert slow.taken() == {"list": pages}


@pytest.mark.slow
@pytest.mark.parametrize("attributes", ["list", "full"])
async def test_a_walk_over_small_directories_finds_out_that_a_flat_listing_is_cheaper(autojump_clock: MockClock, attributes: str) -> None:
    keys = [f"top/d{d:03}/f{n:02}" for d in range(500) for n in range(20)]
    async with remembering(keys, attributes=attributes, metadata_ttl_s=60.0) as (store, slow):
        assert [info.key async for info in walk(store)] == keys
        assert slow.counts["list"] <= 15


@pytest.mark.slow
@pytest.mark.parametrize("top", ["top/", ""])
async def test_a_walk_over_a_deep_tree_is_listed_from_where_it_began(autojump_clock: MockClock, top: str) -> None:
    keys = [f"{top}{a:02}/{b:02}/f{n:02}" for a in range(25) for b in range(20) for n in range(20)]
    async with remembering(keys, metadata_ttl_s=60.0) as (store, slow):
        assert [info.key async for info in walk(store)] == keys
        assert slow.counts["list"] <= 15


@pytest.mark.slow
async def test_a_directory_that_was_looked_for_is_listed_already(autojump_clock: MockClock) -> None:
    async with remembering([f"d/f{n:04}" for n in range(2500)], attributes="full", metadata_ttl_s=60.0) as (store, slow):
        assert (await store.find("d")).is_directory
        assert slow.taken() == {"head": 1, "list": 2}
        await list_all(store, "d/")
        assert slow.taken() == {"head": 2500, "list": 2}


@pytest.mark.slow
async def test_while_attributes_are_asked_for_the_way_to_them_is_not_asked_about(autojump_clock: MockClock) -> None:
    """The kernel looks the directory up again each second, while the HEADs of ten pages take five."""
    async with remembering([f"top/d/f{n:05}" for n in range(10_000)], attributes="full") as (store, slow):

        async def look_again() -> None:
            while True:
                for name in ("top", "top/d"):
                    assert (await store.find(name)).is_directory
                await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_again)
            await trio.sleep(0.2)
            slow.taken()
            began = trio.current_time()
            assert len((await list_all(store, "top/d/"))[0]) == 10_000
            assert trio.current_time() - began > 4
            assert slow.taken() == {"head": 10_000, "list": 9}
            nursery.cancel_scope.cancel()


async def test_what_lies_beyond_a_directory_that_somebody_walks_is_not_listed(autojump_clock: MockClock) -> None:
    keys = [f"top/{a}/{b:02}/f{n:02}" for a in range(3) for b in range(20) for n in range(20)] + [f"zzz/{n:05}/f" for n in range(5000)]
    async with remembering(keys, metadata_ttl_s=60.0) as (store, slow):
        assert (await store.find("top")).is_directory
        assert len([info async for info in walk(store, "top/")]) == 1200
        assert slow.counts["list"] <= 7


@pytest.mark.slow
async def test_a_walk_over_large_directories_lists_each_once_and_the_next_ones_ahead(autojump_clock: MockClock) -> None:
    keys = [f"top/d{d:03}/f{n:03}" for d in range(50) for n in range(900)]
    async with remembering(keys, metadata_ttl_s=60.0) as (store, slow):
        assert [info.key async for info in walk(store)] == keys
        assert slow.counts["list"] <= 55
        assert slow.most >= 4


async def test_a_slow_walk_does_not_list_directories_before_their_time(autojump_clock: MockClock) -> None:
    """What is listed ahead and too old when the walker comes is listed twice."""
    keys = [f"top/d{d:03}/f{n:03}" for d in range(60) for n in range(400)]
    async with remembering(keys) as (store, slow):
        _, prefixes = await list_all(store, "top/")
        for prefix in prefixes:
            await list_all(store, prefix)
            await trio.sleep(0.4)
        assert slow.counts["list"] <= 60 * 1.3


@pytest.mark.slow
async def test_a_long_walk_leaves_no_more_behind_than_a_short_one(autojump_clock: MockClock) -> None:
    keys = [f"flat/file-{n:06d}" for n in range(150_000)] + [f"deep/{n // 1000}/{n // 10 % 100}/{n}" for n in range(100_000)]
    async with remembering(keys) as (store, slow):
        await list_all(store, "flat/")
        await trio.sleep(2)
        assert [info.key async for info in walk(store, "deep/")]
        assert store.tables.cost < 10 * 2**20
        assert slow.counts["list"] < 300
        store.tables.check()


@pytest.mark.slow
async def test_what_nobody_comes_back_to_is_let_go_but_for_where_its_pages_began(autojump_clock: MockClock) -> None:
    names = random.Random(5)
    keys = sorted({f"flat/{names.getrandbits(64):016x}" for _ in range(20_000)} | {f"small/{n}/f" for n in range(300)})
    async with remembering(keys) as (store, slow):
        assert [info.key async for info in walk(store)] == keys
        assert not store.let_go()
        await trio.sleep(40)
        assert not store.let_go()
        assert (before := store.tables.cost) > 2**20
        (table,) = (table for table in store.tables.all() if table.stem == "flat/")
        former = [*table._los]  # held, or what is made anew may lie where one of them lay
        assert store.let_go() > before - 10_000
        assert {id(place) for place in former}.isdisjoint(map(id, table.former()))
        slow.taken()
        slow.most = 0
        began = trio.current_time()
        assert [info.key for info in (await list_all(store, "flat/"))[0]] == keys[:20_000]
        assert slow.most >= 4
        assert trio.current_time() - began <= 8 * LATENCY
        assert slow.taken()["list"] <= 20 + 5
        store.tables.check()


async def test_when_directories_were_entered_is_let_go_when_it_is_long_ago(autojump_clock: MockClock) -> None:
    async with remembering([f"top/d{d}/f" for d in range(10)], metadata_ttl_s=60.0) as (store, _):
        assert len([info async for info in walk(store)]) == 10
        walks = store._ahead._walks._walks
        store.let_go()
        assert any(walk.pace for walk in walks.values())
        await trio.sleep(61)
        store.let_go()
        assert not any(walk.pace for walk in walks.values())


async def test_what_is_fresh_or_touched_is_not_let_go(autojump_clock: MockClock) -> None:
    async with remembering([f"d/f{n:04}" for n in range(2000)], metadata_ttl_s=100.0) as (store, slow):
        await list_all(store, "d/")
        await trio.sleep(90)
        for _ in range(9):
            store.let_go()
        slow.taken()
        await list_all(store, "d/")
        assert not slow.taken()
        await trio.sleep(20)
        for _ in range(9):
            assert store.after("d/f0000", 1)
            assert not store.let_go()
        await list_all(store, "d/")
        assert slow.taken() == {"list": 2}


async def test_the_path_of_a_tree_that_is_copied_in_is_not_listed_over_and_over(autojump_clock: MockClock) -> None:
    async with remembering(["a/other"], attributes="full", metadata_ttl_s=1.0) as (store, slow):
        await list_all(store, "")
        for name in ("a/b", "a/b/c"):
            await store.find(name)
            await store.put(Key(name + "/"), b"")
        slow.taken()
        for number in range(200):
            for name in ("a", "a/b", "a/b/c"):
                assert (await store.find(name)).is_directory
            await store.put(Key(f"a/b/c/{number:03}"), b"x")
            await trio.sleep(0.1)
        taken = slow.taken()
        assert taken["put"] == 200
        assert taken["list"] + taken["head"] <= 3


async def test_what_was_put_proves_its_directory_only_for_the_time_to_live_and_while_it_is_there(autojump_clock: MockClock) -> None:
    async with remembering(["a/other"], attributes="full", metadata_ttl_s=1.0) as (store, slow):
        assert isinstance(slow.inner, MemoryStore)
        other = slow.inner.another()
        await list_all(store, "")
        await store.find("a/b")
        await store.put(Key("a/b/file"), b"x")
        await trio.sleep(0.9)
        await other.delete(Key("a/b/file"))
        await trio.sleep(0.9)
        assert not (await store.find("a/b")).is_directory
        await store.put(Key("a/b/file"), b"x")
        await store.delete(Key("a/b/file"))
        assert not (await store.find("a/b")).is_directory

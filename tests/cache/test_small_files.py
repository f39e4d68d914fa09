"""Small files read one after the other: what the next ones cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import MockClock

from s3mount.cache.blocks import Blocks
from s3mount.cache.build import remembered
from s3mount.cache.file_walk import DEPTHS, IDLE_SECONDS
from s3mount.cache.options import CacheOptions
from s3mount.cache.texts import stem_of
from s3mount.model import Key, KiB, MiB, ObjectInfo, number_of
from tests.cache.kit import LATENCY, Remote, pattern, read_all, remote_of

ORDERS: dict[str, Callable[[ObjectInfo], tuple[str | int, ...]]] = {
    "listing": lambda info: (info.key,),
    "inode": lambda info: (number_of(info.key[: info.key.rfind("/") + 1]), number_of(info.key)),
}


class Listed:
    """Listings of a tree whose files all lie in directories of the top."""

    def __init__(self, infos: Sequence[ObjectInfo]) -> None:
        self._files: dict[str, list[ObjectInfo]] = {}
        for info in sorted(infos, key=lambda info: info.key):
            self._files.setdefault(stem_of(info.key), []).append(info)

    def after(self, key: str, count: int) -> Sequence[ObjectInfo]:
        return [info for info in self._files.get(stem_of(key), ()) if info.key > key][:count]

    def directories(self, stem: str) -> Sequence[str] | None:
        return () if stem else sorted(self._files)

    def list_ahead(self, stem: str) -> None:
        """All is listed."""


async def tree(directories: int, files: int, size: int) -> tuple[Remote, list[ObjectInfo]]:
    names = [f"d{directory:03}/f{file:04}" for directory in range(directories) for file in range(files)]
    remote = await remote_of({name: pattern(size, seed) for seed, name in enumerate(names)})
    return remote, [await remote.inner.head(Key(name)) for name in names]


def caching(remote: Remote, infos: Sequence[ObjectInfo], *, memory: int = 128 * MiB) -> Blocks:
    return Blocks(remote, CacheOptions(memory_limit=memory), siblings=Listed(infos))


async def read_file(blocks: Blocks, info: ObjectInfo) -> bytes:
    pin = await blocks.pin(info.key, known=info)
    data = await read_all(pin, size=128 * KiB)
    await pin.aclose()
    return data


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
async def test_a_thousand_small_files_take_tens_of_round_trips_and_one_request_each(autojump_clock: MockClock, order: str) -> None:
    remote, infos = await tree(1, 1000, 30_000)
    blocks = caching(remote, infos)
    then = trio.current_time()
    for info in sorted(infos, key=ORDERS[order]):
        assert await read_file(blocks, info) == pattern(30_000, int(info.key[-4:]))

    assert trio.current_time() - then <= 60 * LATENCY
    assert len(remote.gets) == 1000
    blocks.check()
    await blocks.aclose()


@pytest.mark.parametrize("order", ORDERS)
async def test_two_hundred_small_files_take_a_score_of_round_trips(autojump_clock: MockClock, order: str) -> None:
    remote, infos = await tree(1, 200, 3_000)
    blocks = caching(remote, infos)
    then = trio.current_time()
    for info in sorted(infos, key=ORDERS[order]):
        await read_file(blocks, info)

    assert trio.current_time() - then <= 20 * LATENCY
    assert len(remote.gets) == 200
    await blocks.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("directories", "trips"), [(10, 45), (100, 50), (1000, 60)])
async def test_a_walk_over_many_directories_goes_on_from_one_to_the_next(
    autojump_clock: MockClock, order: str, directories: int, trips: int
) -> None:
    remote, infos = await tree(directories, 1000 // directories, 3_000)
    blocks = caching(remote, infos)
    then = trio.current_time()
    for info in sorted(infos, key=ORDERS[order]):
        await read_file(blocks, info)

    assert trio.current_time() - then <= trips * LATENCY
    assert len(remote.gets) == 1000
    blocks.check()
    await blocks.aclose()


@pytest.mark.slow
async def test_directories_in_no_order_cost_one_request_for_each_file_and_little_more(autojump_clock: MockClock) -> None:
    remote, infos = await tree(100, 20, 3_000)
    blocks = caching(remote, infos)
    directories = list(range(100))
    random.Random(1).shuffle(directories)
    for directory in directories[:50]:
        for info in infos[20 * directory : 20 * directory + 20]:
            await read_file(blocks, info)

    assert len(remote.gets) <= 1050
    await blocks.aclose()


async def test_who_reads_one_directory_gets_nothing_of_the_next(autojump_clock: MockClock) -> None:
    remote, infos = await tree(3, 50, 3_000)
    blocks = caching(remote, infos)
    for info in infos[:50]:
        await read_file(blocks, info)

    assert len(remote.gets) == 50
    await blocks.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
async def test_a_copy_of_a_tree_waits_for_the_listings_of_its_first_directories_alone(autojump_clock: MockClock, order: str) -> None:
    remote, _ = await tree(50, 10, 3_000)
    store = remembered(remote, CacheOptions(memory_limit=128 * MiB, attributes="list"))
    then = trio.current_time()
    page = await store.list("", delimiter="/")
    for stem in sorted(page.prefixes, key=(lambda stem: number_of(stem)) if order == "inode" else None):
        below = await store.list(stem, delimiter="/")
        for info in sorted(below.objects, key=ORDERS[order]):
            pin = await store.pin(info.key, known=info)
            await read_all(pin, size=128 * KiB)
            await pin.aclose()

    assert trio.current_time() - then <= 50 * LATENCY
    assert len(remote.gets) == 500
    assert remote.counts["list"] <= 51
    await store.aclose()


@pytest.mark.slow
async def test_of_larger_files_the_first_request_is_ahead(autojump_clock: MockClock) -> None:
    remote, infos = await tree(1, 20, 3 * MiB)
    blocks = caching(remote, infos)
    for info in infos[:5]:
        await read_file(blocks, info)
    await trio.sleep(1)
    sent = len(remote.gets)
    pin = await blocks.pin(infos[5].key, known=infos[5])
    assert pin.get_into_nowait(0, memoryview(bytearray(128 * KiB)))

    assert all(get.start >= 1 * MiB for get in remote.gets[sent:] if get.key == infos[5].key)
    await pin.aclose()
    await blocks.aclose()


async def test_files_in_no_order_cost_one_request_each_and_little_more(autojump_clock: MockClock) -> None:
    remote, infos = await tree(1, 1000, 3000)
    blocks = caching(remote, infos)
    random.Random(1).shuffle(infos)
    for info in infos[:300]:
        await read_file(blocks, info)

    assert len(remote.gets) <= 300 + 100
    await blocks.aclose()


async def test_what_was_fetched_for_a_walk_that_stopped_is_let_go(autojump_clock: MockClock) -> None:
    remote, infos = await tree(1, 500, 30_000)
    blocks = caching(remote, infos)
    for info in infos[:20]:
        await read_file(blocks, info)
    await trio.sleep(IDLE_SECONDS + 1)
    assert len(remote.gets) <= 20 + DEPTHS[-1]
    await read_file(blocks, infos[400])

    assert not any(block.wanters for version in blocks.versions for block in version)
    blocks.check()
    await blocks.aclose()


async def test_a_file_replaced_since_it_was_listed_is_read_as_it_is(autojump_clock: MockClock) -> None:
    remote, infos = await tree(1, 50, 3000)
    blocks = caching(remote, infos)
    for number in range(30, 40):
        await remote.inner.put(infos[number].key, pattern(4000, 7))
    for info in infos:
        current = await remote.inner.head(info.key)
        assert len(await read_file(blocks, current)) == current.size
    blocks.check()
    await blocks.aclose()


@pytest.mark.slow
async def test_a_walk_in_little_memory_reads_every_file(autojump_clock: MockClock) -> None:
    remote, infos = await tree(1, 300, 100_000)
    blocks = caching(remote, infos, memory=4 * MiB)
    for info in infos:
        assert await read_file(blocks, info) == pattern(100_000, int(info.key[-4:]))

    assert len(remote.gets) <= 1.3 * 300 * (100_000 / blocks.arena.region_bytes + 1)
    blocks.check()
    await blocks.aclose()

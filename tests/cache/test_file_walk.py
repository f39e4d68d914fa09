"""Which files are next on a walk: listings in, files out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from s3mount.cache.file_walk import BYTES, COMPLETE, DEPTHS, DIRECTORIES, HEADS, Ahead, Walks
from s3mount.model import ETag, Key, KiB, MiB, ObjectInfo, number_of


class Listed:
    """Siblings from a list; counts what was asked."""

    def __init__(self, infos: Sequence[ObjectInfo]) -> None:
        self.infos = sorted(infos, key=lambda info: info.key)
        self.asked = 0

    def after(self, key: str, count: int) -> Sequence[ObjectInfo]:
        self.asked += 1
        name = key[: key.rfind("/") + 1]
        found = [info for info in self.infos if info.key > key and info.key.startswith(name) and "/" not in info.key[len(name) :]]
        return found[:count]

    def directories(self, stem: str) -> Sequence[str] | None:
        below = sorted(
            {
                info.key[: info.key.find("/", len(stem)) + 1]
                for info in self.infos
                if info.key.startswith(stem) and "/" in info.key[len(stem) :]
            }
        )
        return below or None

    def list_ahead(self, stem: str) -> None:
        """All is listed."""


def files(name: str, count: int, size: int = 30 * KiB) -> list[ObjectInfo]:
    return [ObjectInfo(Key(f"{name}/{number:06}"), size, ETag(f"e{number}"), 0) for number in range(count)]


def in_order(infos: Sequence[ObjectInfo], order: str) -> list[ObjectInfo]:
    return sorted(infos, key=(lambda info: info.key) if order == "listing" else (lambda info: number_of(info.key)))


class Rig:
    def __init__(self, infos: Sequence[ObjectInfo]) -> None:
        self.listed = Listed(infos)
        self.walks = Walks(self.listed, most=1 * MiB)
        self.ahead: list[str] = []
        self.over = 0
        self.now = 0.0

    def read(self, info: ObjectInfo, *, after: float = 0.01) -> Ahead:
        self.now += after
        ahead = self.walks.read(info, self.now)
        self.ahead += [file.key for _, file in ahead.files]
        self.over += len(ahead.over)
        return ahead


@pytest.mark.parametrize("order", ["listing", "inode"])
def test_a_walk_is_recognised_by_its_second_file_and_looks_further_ahead_with_each(order: str) -> None:
    walk = in_order(files("d", 300), order)
    rig = Rig(walk)

    depths = [len(rig.read(info).files) for info in walk[:5]]

    assert depths == [0, DEPTHS[1], DEPTHS[2] - DEPTHS[1] + 1, DEPTHS[3] - DEPTHS[2] + 1, 1]
    assert rig.ahead == [info.key for info in walk[2:69]]


@pytest.mark.parametrize("order", ["listing", "inode"])
def test_every_file_of_a_walk_is_named_once(order: str) -> None:
    walk = in_order(files("d", 500), order)
    rig = Rig(walk)
    for info in walk:
        rig.read(info)

    assert rig.ahead == [info.key for info in walk[2:]]
    assert rig.listed.asked == 1


def test_a_first_file_alone_asks_nobody() -> None:
    walk = files("d", 10)
    rig = Rig(walk)

    assert rig.read(walk[0]).files == ()
    assert rig.read(walk[0]).files == ()
    assert rig.listed.asked == 0


def test_small_gaps_and_workers_out_of_step_are_one_walk() -> None:
    walk = files("d", 200)
    rig = Rig(walk)
    for at in [0, 3, 1, 5, 4, 9, 12, 10, 17, 20]:
        rig.read(walk[at])

    assert len(rig.ahead) == len(set(rig.ahead))
    assert rig.ahead[-1] >= walk[80].key


def test_two_walks_of_one_directory_are_told_apart() -> None:
    walk = files("d", 1000)
    rig = Rig(walk)
    for at in range(100):
        rig.read(walk[at])
        rig.read(walk[500 + at])

    assert {info.key for info in walk[10:160]} | {info.key for info in walk[510:660]} <= set(rig.ahead)


def test_reading_in_no_order_looks_at_next_to_nothing_ahead() -> None:
    walk = files("d", 5000)
    random.Random(2).shuffle(walk)
    rig = Rig(walk)
    for info in walk[:500]:
        rig.read(info)

    assert len(rig.ahead) < 150


def test_a_walk_that_goes_on_in_another_directory_is_believed_from_its_first_file() -> None:
    one, other = files("a", 50), files("b", 50)
    rig = Rig(one + other)
    for info in one:
        rig.read(info)
    rig.ahead.clear()
    rig.read(other[0])

    assert rig.ahead == [info.key for info in other[1 : 1 + len(rig.ahead)]]
    assert len(rig.ahead) >= DEPTHS[2]


def test_no_more_bytes_are_ahead_than_allowed() -> None:
    walk = files("d", 100, size=3 * MiB)
    rig = Rig(walk)
    for info in walk[:10]:
        rig.read(info)

    assert len(rig.ahead) <= 10 + BYTES // MiB


def test_heads_are_few_and_their_end_is_told() -> None:
    walk = files("d", 4000)
    rig = Rig(walk)
    for at in range(0, 4000, 100):
        rig.read(walk[at])

    assert rig.over >= 2 * (40 - HEADS)


def test_a_listing_that_grew_is_asked_for_again() -> None:
    walk = files("d", 100)
    rig = Rig(walk[:50])
    for info in walk[:40]:
        rig.read(info)
    rig.listed.infos = walk
    for info in walk[40:80]:
        rig.read(info, after=1.0)

    assert rig.ahead[-1] == walk[-1].key
    assert rig.listed.asked > 1


def test_a_very_large_directory_is_walked_by_stretches_of_its_listing() -> None:
    walk = files("d", COMPLETE + 5000)
    rig = Rig(walk)
    for info in walk[3000:6000]:
        rig.read(info, after=0.0001)

    ahead = list(dict.fromkeys(rig.ahead))
    assert ahead == [info.key for info in walk[3002 : 3002 + len(ahead)]]
    assert len(ahead) >= 3000
    assert rig.listed.asked < 12


def test_a_directory_that_the_listings_do_not_know_is_left_alone() -> None:
    rig = Rig([])
    for info in files("d", 50):
        assert rig.read(info).files == ()


def test_memory_does_not_grow_with_the_directories_in_which_one_file_is_read() -> None:
    """Regression: what has no neighbours that are known was never forgotten."""
    rig = Rig([])
    for number in range(2 * DIRECTORIES):
        rig.read(ObjectInfo(Key(f"{number}/x"), 1, ETag("e"), 0))
    assert len(rig.walks._directories) <= DIRECTORIES

"""The memory of blocks: a model test, and what goes when room is needed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from s3mount.cache.arena import SPENT_PART, Arena, Slot, region_size
from s3mount.model import GiB, KiB, MiB

LIMIT = 4 * MiB
REGION = region_size(LIMIT)
SPENT = LIMIT // REGION // SPENT_PART


class Tenant:
    """Calls *told* when it is evicted."""

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self._told = told

    def evicted(self) -> None:
        self._told()


def take(arena: Arena, size: int, gone: list[str] | None = None, name: str = "", *, spare_wanted: bool = True) -> Slot:
    slot = arena.take(size, Tenant(lambda: gone.append(name) if gone is not None else None), spare_wanted=spare_wanted)
    assert slot is not None
    arena.check()
    return slot


def fill(arena: Arena, gone: list[str]) -> list[Slot]:
    """One slot in each region, all of it, released."""
    slots = [take(arena, REGION, gone, str(number)) for number in range(arena.limit // REGION)]
    for slot in slots:
        slot.release()
    return slots


@pytest.mark.parametrize(
    ("limit", "region"),
    [(64 * GiB, 8 * MiB), (512 * MiB, 8 * MiB), (256 * MiB, 8 * MiB), (64 * MiB, 2 * MiB), (48 * MiB, 2 * MiB), (4 * MiB, 128 * KiB)],
)
def test_regions_are_as_large_as_a_request_unless_memory_is_short(limit: int, region: int) -> None:
    assert region_size(limit) == region


def test_a_small_slot_takes_its_size_and_shares_a_region() -> None:
    arena = Arena(LIMIT)
    slots = [take(arena, 30_000) for _ in range(4)]

    assert [slot.size for slot in slots] == [30_000] * 4
    assert len({slot.region for slot in slots}) == 1


def test_what_was_used_longest_ago_goes_first() -> None:
    arena, gone = Arena(LIMIT), list[str]()
    slots = fill(arena, gone)
    slots[0].touch()
    take(arena, REGION)

    assert gone == ["1"]


def test_what_is_held_never_goes() -> None:
    arena, gone = Arena(LIMIT), list[str]()
    for slot in fill(arena, gone):
        slot.hold()

    assert arena.take(1, Tenant(), spare_wanted=False) is None
    assert gone == []


def test_what_is_wanted_goes_only_for_somebody_who_waits_and_last() -> None:
    arena, gone = Arena(LIMIT), list[str]()
    slots = fill(arena, gone)
    for slot in slots[:-1]:
        slot.wanted = True
    take(arena, REGION)

    assert gone == [str(len(slots) - 1)]
    assert arena.take(1, Tenant(), spare_wanted=True) is None
    take(arena, REGION, spare_wanted=False)
    assert gone == [str(len(slots) - 1), "0"]


def test_what_is_spent_goes_before_fresh_memory_and_before_what_was_used_longer_ago() -> None:
    arena, gone = Arena(LIMIT), list[str]()
    slots = [take(arena, REGION, gone, str(number)) for number in range(SPENT + 4)]
    for slot in slots:
        slot.release()
    for slot in slots[2:]:
        slot.spend()
        arena.check()
    used = arena.used
    slots[2].touch()
    slots[3].hold()
    take(arena, REGION)

    assert gone == ["4"]
    assert arena.used == used
    take(arena, REGION)
    assert gone == ["4"]
    assert arena.used == used + REGION


def test_a_region_of_which_a_part_is_spent_stays() -> None:
    arena, gone = Arena(LIMIT), list[str]()
    slots = [take(arena, REGION // 2, gone, str(number)) for number in range(4 * SPENT)]
    for slot in slots:
        slot.release()
    for slot in slots[::2]:
        slot.spend()
    take(arena, REGION)
    assert gone == []

    for slot in slots[1:-1:2]:
        slot.spend()
    take(arena, REGION)
    assert gone == ["0", "1"] or gone == ["1", "0"]


def test_a_region_is_free_again_when_its_last_slot_is() -> None:
    arena, gone = Arena(LIMIT), list[str]()
    slots = fill(arena, gone)
    slots[5].free()
    take(arena, REGION)

    assert gone == []


def test_the_rest_of_a_region_is_used_for_what_fits() -> None:
    arena = Arena(LIMIT)
    large = take(arena, REGION - 8 * KiB)
    small = take(arena, 8 * KiB)
    other = take(arena, 4 * KiB)

    assert small.region is large.region
    assert other.region is not large.region


def test_random_use_keeps_every_slot_apart_and_within_the_limit() -> None:
    rng = random.Random(1)
    arena = Arena(LIMIT)
    live: dict[Slot, int] = {}

    def taken(size: int) -> Slot | None:
        itself: list[Slot] = []

        def evicted() -> None:
            assert not itself[0].held
            del live[itself[0]]

        slot = arena.take(size, Tenant(evicted), spare_wanted=rng.random() < 0.5)
        if slot is not None:
            itself.append(slot)
        return slot

    for step in range(3000):
        if rng.random() < 0.6 or not live:
            slot = taken(rng.choice([1, 4000, 30_000, REGION // 2, REGION]))
            if slot is not None:
                slot.view(0, slot.size)[:] = bytes([step % 251]) * slot.size
                live[slot] = step % 251
        else:
            slot = rng.choice(list(live))
            what = rng.random()
            if what < 0.5 and slot.held:
                slot.release()
            elif what < 0.6:
                slot.free()
                del live[slot]
            elif what < 0.8:
                slot.wanted = rng.random() < 0.5
            elif what < 0.9:
                slot.spend()
            else:
                slot.touch()
        if step % 10 == 0:
            arena.check()
    assert arena.used <= arena.limit <= LIMIT
    for slot, byte in live.items():
        assert bytes(slot.view(0, slot.size)) == bytes([byte]) * slot.size

"""Large renames that a former mount could not finish: seen as done from the first moment of the next one, and carried behind it.

Owns: what is left to do for each key, from listings of both ends instead of two HEADs a key; or what a rename of this one has left. Of
smaller ones, what could only not be deleted.
Must not know: how keys are carried, inodes, how records are found.

    a record --its keys are listed where they were, and where they go--> by `journal.decide`
        to be copied, or only to be deleted where it was    --> a leg
        done                                                --> written down as that
        cannot be told from listings                        --> the objects themselves are asked, before anything is served

What lies where the keys came from and is none of them was put there since: it is seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from s3mount.errors import NotFound
from s3mount.fs.areas import Area
from s3mount.fs.batches import Batches
from s3mount.fs.copies import each
from s3mount.fs.journal import SUPERSEDED, Move, Record, Step, decide
from s3mount.fs.overlay import Leg, Overlay
from s3mount.model import Key, ObjectInfo
from s3mount.store.api import PAGE_KEYS, ObjectStore

# Records with fewer keys are finished before anything is served: two HEADs each, 32 at a time, take less than a second at 30 ms.
LARGE_KEYS = 256


@dataclass(slots=True)
class Remaining:
    """What is left of a record: legs by the numbers of their moves, numbers of which the objects must be asked, and what else is there.

    `detached`: of the legs, those that are.
    """

    area: Area
    others: set[Key]
    legs: dict[Leg, int] = field(default_factory=dict)
    copies: dict[Leg, ObjectInfo] = field(default_factory=dict)
    doubtful: list[int] = field(default_factory=list)
    detached: set[Leg] = field(default_factory=set)


async def taken_up(
    store: ObjectStore, overlay: Overlay, batches: Batches, record: Record, numbers: Sequence[int], finish: Callable[[int], Awaitable[None]]
) -> Sequence[Leg]:
    """The legs of a large record, seen in *overlay* from now on, the doubtful finished; none where nothing is done. Raises StoreErrors."""
    found = None if len(numbers) < LARGE_KEYS or store.capabilities.relocate else await remaining(store, record, numbers)
    if found is None or any(overlay.touching(key) for leg in found.legs for key in (leg.source, leg.target)):
        return ()
    await each(found.doubtful, finish)
    legs = list(found.legs)
    if legs:
        batches.begin(record, found.legs)
        for leg, copy in found.copies.items():
            overlay.copied(leg, copy)
        if attached := [leg for leg in legs if leg not in found.detached]:
            overlay.add(found.area, attached)
        for leg in found.detached:
            leg.late = True
            overlay.add_detached(leg)
        found.area.reborn.update(found.others)  # of other renames they may be hidden still
    return legs


def left_behind(
    overlay: Overlay, batches: Batches, record: Record | None, moves: Sequence[Move], copies: Mapping[int, ObjectInfo]
) -> Sequence[Leg]:
    """The legs of a rename whose *copies*, by number, are there and whose sources could not be deleted; seen from now on."""
    legs = {_alone(moves[number], copy): number for number, copy in copies.items()}
    batches.begin(record, legs)
    for leg, number in legs.items():
        overlay.add(leg.areas[0], [leg])
        overlay.copied(leg, copies[number])
        leg.late = True
    return list(legs)


def _alone(move: Move, copy: ObjectInfo) -> Leg:
    """The leg of *move*, from whose source only that went: what else is there, or will be, is seen."""
    return Leg(move.source, replace(copy, etag=move.etag), (Area(move.source, alone=True),))


async def left_over(store: ObjectStore, overlay: Overlay, batches: Batches, record: Record, numbers: Sequence[int]) -> Sequence[Leg]:
    """The legs of the moves *numbers*, each of a key of its own, of which only the sources are left; none otherwise. Raises StoreErrors."""
    found: dict[Key, ObjectInfo] = {}

    async def look(key: Key) -> None:
        with suppress(NotFound):
            found[key] = await store.head(key)

    moves = {number: record.moves[number] for number in numbers}
    await each([key for move in moves.values() for key in (move.source, move.target)], look)
    steps = {
        number: decide(move, source=found.get(move.source), target=found.get(move.target), copied=record.copies.get(number))
        for number, move in moves.items()
    }
    kept = {number: moves[number] for number, step in steps.items() if step is Step.DELETE_SOURCE}
    parted = {number for number in kept if record.copies.get(number) == SUPERSEDED}
    places = [move.source for move in kept.values()] + [move.target for number, move in kept.items() if number not in parted]
    touched = any(overlay.touching(key) for key in places)
    if not {*steps.values()} <= {Step.DELETE_SOURCE, Step.NOTHING} or touched or store.capabilities.relocate:
        return ()
    legs: dict[Leg, int] = {}
    for number, move in kept.items():
        copy = replace(found.get(move.target) or found[move.source], key=move.target)
        leg = _alone(move, copy)
        overlay.copied(leg, copy)
        leg.late = True
        if number in parted:
            overlay.add_detached(leg)
        else:
            overlay.add(leg.areas[0], [leg])
        legs[leg] = number
    batches.begin(record, legs)
    return list(legs)


async def remaining(store: ObjectStore, record: Record, numbers: Sequence[int]) -> Remaining | None:
    """What the moves *numbers* of *record* have left; None where it does not tell of one tree. Raises StoreErrors."""
    moves = [record.moves[number] for number in numbers]
    source = tree([move.source for move in moves], [move.target for move in moves])
    if source is None:
        return None
    before = await listed(store, source, sorted(move.source for move in moves))
    after = await listed(store, common([move.target for move in moves]), sorted(move.target for move in moves))
    found = Remaining(Area(source), {*before} - {move.source for move in moves})
    for number, move in zip(numbers, moves, strict=True):
        there, copy = before.get(move.source), after.get(move.target)
        step = decide(move, source=there, target=copy, copied=record.copies.get(number))
        if step is Step.LEAVE_BOTH:
            found.doubtful.append(number)
        elif step in (Step.COPY, Step.DELETE_SOURCE):
            assert there is not None
            leg = Leg(move.source, replace(there, key=move.target), (found.area,))
            found.legs[leg] = number
            if record.copies.get(number) == SUPERSEDED:
                found.copies[leg] = leg.info
                found.detached.add(leg)
            elif step is Step.DELETE_SOURCE:
                assert copy is not None
                found.copies[leg] = copy
    return found


def common(keys: Sequence[str]) -> str:
    """The longest prefix of all *keys* that ends with "/", or ""."""
    first, last = min(keys), max(keys)
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return first[: first.rfind("/", 0, alike) + 1]


def tree(sources: Sequence[str], targets: Sequence[str]) -> str | None:
    """The prefix in which all *sources* lie as *targets* do in theirs; None where that is not so, or is the whole bucket."""
    prefix, place = common(sources), common(targets)
    alike = all(source[len(prefix) :] == target[len(place) :] for source, target in zip(sources, targets, strict=True))
    return prefix if prefix and place and alike else None


async def listed(store: ObjectStore, prefix: str, keys: Sequence[str]) -> dict[Key, ObjectInfo]:
    """All objects below *prefix*, in as many listings at once as *keys*, sorted, which lie there, make pages."""
    found: dict[Key, ObjectInfo] = {}
    places = ["", *keys[PAGE_KEYS - 1 : -1 : PAGE_KEYS]]

    async def between(number: int) -> None:
        after, stop = places[number], places[number + 1] if number + 1 < len(places) else None
        more: str | None = after
        while more is not None and (stop is None or more < stop):
            page = await store.list(prefix, after=more)
            found.update(_until(stop, page.objects))
            more = page.next

    await each(range(len(places)), between)
    return found


def _until(stop: str | None, infos: Iterable[ObjectInfo]) -> dict[Key, ObjectInfo]:
    return {info.key: info for info in infos if stop is None or info.key <= stop}

"""The memory of all blocks: one mapping, cut into regions, filled from the front.

Owns: which bytes of the mapping are whose, and what goes when room is needed.
Must not know: objects, versions, requests, who waits for what.

A region is filled like a log: each slot lies behind the last one. Slots are not reused one by one; a region is free again when its last
slot is, or when it is evicted with all that it holds. So there is nothing to be fragmented, a small object takes its size and no more, and
making room costs one region at most. The mapping is touched region by region as it is needed, and then used over and over: first touch of
fresh memory costs more than filling it.

    FREE --take--> OPEN (room behind the last slot) --full--> CLOSED --evicted, or last slot freed--> FREE

Eviction takes the region used longest ago that nobody holds: first one that nobody wants (all has been read), then, if it must be, any.

What was read in sequence of something larger than the whole arena is spent: before it is read again, the rest of it would have driven
it out. Regions with nothing else go first, even before fresh ones: a long read then lives in what its window takes, leaves what others have
cached alone, and spares the first touch of fresh memory (for a gigabyte an eighth of the mount's CPU time).

Invariants (`check`):
A1  The slots of a region lie in it without overlap, below its `filled` mark; all regions together are no more than the limit.
A2  A region with a held slot is never evicted: `held` and `wanted` count its slots in that state.
A3  A free region has no slots, and nothing else is free.
A4  `spent` counts the slots of a region in that state; a region is on the list of the spent only if all its slots are.
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from typing import Protocol

from s3mount.model import KiB, MiB

# One request fills at most one region: 8 MiB is where the cost of a request is small beside its bytes (30 ms and 90 MB/s: a quarter).
REGION_BYTES = 8 * MiB
# Fewer regions than this and readers would evict each other's.
REGIONS_AT_LEAST = 24
REGION_BYTES_AT_LEAST = 64 * KiB
# A slot begins at a page, and counts for two at least: what describes a block takes up to 1 KiB besides, which the rest of the memory limit
# (an eighth) then covers however small the blocks are.
ALIGNMENT = 4 * KiB
SLOT_BYTES_AT_LEAST = 8 * KiB
# Of the regions, spent ones that stay for those who step back a little, or come late.
SPENT_PART = 16
# Regions with room left to choose from: large slots leave a rest behind that small ones can use.
OPEN_REGIONS = 8


class Region:
    __slots__ = ("filled", "held", "number", "slots", "spent", "wanted")

    def __init__(self, number: int) -> None:
        self.number = number
        self.filled = 0
        self.held = 0
        self.wanted = 0
        self.spent = 0
        self.slots: set[Slot] = set()


class Tenant(Protocol):
    def evicted(self) -> None:
        """Its slot is taken for something else."""
        ...


class Slot:
    """*size* bytes of the arena. Held when taken; `release` it when it may go."""

    __slots__ = ("_arena", "_holds", "_spent", "_wanted", "region", "size", "start", "tenant")

    def __init__(self, arena: Arena, region: Region, start: int, size: int, tenant: Tenant) -> None:
        self._arena = arena
        self._holds = 1
        self._wanted = False
        self._spent = False
        self.region = region
        self.start = start
        self.size = size
        self.tenant = tenant

    def view(self, start: int, stop: int) -> memoryview:
        """Its bytes *start* to *stop*."""
        return self._arena.view(self.start + start, self.start + stop)

    def hold(self) -> None:
        """It must not be evicted, until `release` was called as often."""
        self._holds += 1
        if self._holds == 1:
            self.region.held += 1

    def release(self) -> None:
        self._holds -= 1
        if not self._holds:
            self.region.held -= 1

    @property
    def wanted(self) -> bool:
        """Somebody is going to read it: evict it only for those who wait."""
        return self._wanted

    @wanted.setter
    def wanted(self, wanted: bool) -> None:
        self.region.wanted += wanted - self._wanted
        self._wanted = wanted

    def touch(self) -> None:
        self._spend(spent=False)
        self._arena.touch(self.region)

    def spend(self) -> None:
        """Nobody will read it again, as far as can be told; until `touch`."""
        self._spend(spent=True)
        self._arena.spend(self.region)

    def _spend(self, *, spent: bool) -> None:
        self.region.spent += spent - self._spent
        self._spent = spent

    @property
    def spent(self) -> bool:
        return self._spent

    def free(self) -> None:
        """Its bytes may be used for something else, whoever holds it. Call it once, and not after `evicted`."""
        if self._holds:
            self.region.held -= 1
        self.wanted = False
        self._spend(spent=False)
        self._arena.freed(self)

    @property
    def held(self) -> bool:
        return self._holds > 0


class Arena:
    """*limit* bytes at most."""

    def __init__(self, limit: int) -> None:
        self.region_bytes = region_size(limit)
        self.limit = max(1, limit // self.region_bytes) * self.region_bytes
        self._map = mmap.mmap(-1, self.limit, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        _prefer_huge_pages(self._map)
        self._bytes = memoryview(self._map)
        self._regions = [Region(number) for number in range(self.limit // self.region_bytes)]
        self._free = self._regions[::-1]
        self._used: OrderedDict[int, Region] = OrderedDict()
        self._open: list[Region] = []
        self._spent: OrderedDict[int, Region] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Arena {len(self._used)} of {len(self._regions)} regions used>"

    @property
    def used(self) -> int:
        """Bytes of the regions in use."""
        return len(self._used) * self.region_bytes

    def take(self, size: int, tenant: Tenant, *, spare_wanted: bool) -> Slot | None:
        """A slot of *size* bytes, at most a region; None if it would take something held, or (*spare_wanted*) something wanted."""
        room = max(-(-size // ALIGNMENT) * ALIGNMENT, SLOT_BYTES_AT_LEAST)
        region = self._region_with(room) or self._emptied(spare_wanted=spare_wanted)
        if region is None:
            return None
        start = region.number * self.region_bytes + region.filled
        region.filled += room
        region.held += 1
        self._reopen(region)
        self.touch(region)
        slot = Slot(self, region, start, size, tenant)
        region.slots.add(slot)
        return slot

    def view(self, start: int, stop: int) -> memoryview:
        return self._bytes[start:stop]

    def touch(self, region: Region) -> None:
        self._used[region.number] = region
        self._used.move_to_end(region.number)

    def spend(self, region: Region) -> None:
        if region.spent == len(region.slots):
            self._spent[region.number] = region

    def freed(self, slot: Slot) -> None:
        region = slot.region
        region.slots.remove(slot)
        if not region.slots:
            self._give_back(region)

    def check(self) -> None:
        free = {region.number for region in self._free}
        for region in self._regions:
            at = region.number * self.region_bytes
            top = at + region.filled
            for slot in sorted(region.slots, key=lambda slot: slot.start):
                assert slot.start >= at, f"A1 region {region.number}"
                at = slot.start + slot.size
            assert at <= top or not region.slots, f"A1 region {region.number}"
            assert region.filled <= self.region_bytes, f"A1 region {region.number}"
            assert region.held == sum(slot.held for slot in region.slots), f"A2 region {region.number}"
            assert region.wanted == sum(slot.wanted for slot in region.slots), f"A2 region {region.number}"
            assert region.spent == sum(slot.spent for slot in region.slots), f"A4 region {region.number}"
            assert (region.number in free) == (not region.slots), f"A3 region {region.number}"
            assert (region.number in free) != (region.number in self._used), f"A3 region {region.number}"

    def _region_with(self, room: int) -> Region | None:
        fitting = [region for region in self._open if self.region_bytes - region.filled >= room]
        return max(fitting, key=lambda region: region.filled, default=None)

    def _emptied(self, *, spare_wanted: bool) -> Region | None:
        victim = self._spent_one()
        if victim is None and not self._free:
            victim = self._victim(spare_wanted=spare_wanted)
            if victim is None:
                return None
        if victim is not None:
            for slot in list(victim.slots):
                slot.wanted = False
                slot.tenant.evicted()
            victim.slots.clear()
            self._give_back(victim)
        region = self._free.pop()
        region.filled = 0
        return region

    def _spent_one(self) -> Region | None:
        """The region that was spent first, if there are enough others."""
        spent = self._spent
        while spent and (first := next(iter(spent.values()))).spent != len(first.slots):
            del spent[first.number]
        if len(spent) <= len(self._regions) // SPENT_PART:
            return None
        return next(
            (region for region in spent.values() if not region.held and not region.wanted and region.spent == len(region.slots)), None
        )

    def _victim(self, *, spare_wanted: bool) -> Region | None:
        idle = (region for region in self._used.values() if not region.held)
        first = next(idle, None)
        if first is None or not first.wanted:
            return first
        unwanted = next((region for region in idle if not region.wanted), None)
        return unwanted or (None if spare_wanted else first)

    def _give_back(self, region: Region) -> None:
        del self._used[region.number]
        self._spent.pop(region.number, None)
        region.spent = 0
        self._open = [other for other in self._open if other is not region]
        self._free.append(region)

    def _reopen(self, region: Region) -> None:
        """Keep the list of open regions right after *region* became fuller."""
        rest = [other for other in self._open if other is not region]
        if region.filled < self.region_bytes:
            rest.append(region)
        if len(rest) > OPEN_REGIONS:
            rest.remove(max(rest, key=lambda other: other.filled))
        self._open = rest


def region_size(limit: int) -> int:
    """A power of two, so that requests cut at its multiples fill it."""
    size = REGION_BYTES
    while size > REGION_BYTES_AT_LEAST and limit // size < REGIONS_AT_LEAST:
        size //= 2
    return size


def _prefer_huge_pages(memory: mmap.mmap) -> None:
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them
        pass

"""Where each of many numbers is, without an object of Python for any of them.

Owns: a table of 64-bit numbers, which are hashes and not 0, with a place of 32 bits each.
Must not know: whose numbers, what a place is (see cold). Nothing here awaits; mappings are of memory.

Open addressing, the next slot after. When a number leaves, those behind it move up, so that no room and no time goes to who is gone.
A table that is full is written anew in one piece, 0.5 us a slot. So there are `PARTS` of them, each for the numbers that begin
alike: none grows while the others do, and with a hundred thousand numbers nobody waits longer than 5 ms for one.

P1  From a slot back to the one where its number would have it, none is free.
"""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

from s3mount.model import NUMBER_BITS

# Slots of a part: as few as fill a page of memory; no more than the first share is taken, no less than the second once there are more.
FEWEST = 512
FULL, EMPTY = 0.6, 0.125

PART_BITS = 4
PARTS = 1 << PART_BITS
SHIFT = NUMBER_BITS - PART_BITS


def pages(size: int) -> mmap:
    """Memory that goes back to the system with the last reference to it, and is not there before it is written to."""
    return mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)


class Part:
    """Places by numbers; no number has two places."""

    __slots__ = ("_mask", "_most", "_numbers", "_places", "count")

    def __init__(self) -> None:
        self.count = 0
        self._make(FEWEST)

    def _make(self, size: int) -> None:
        self._numbers, self._places = memoryview(pages(8 * size)).cast("Q"), memoryview(pages(4 * size)).cast("I")
        self._mask, self._most = size - 1, int(size * FULL)

    @property
    def size(self) -> int:
        return self._numbers.nbytes + self._places.nbytes

    def find(self, number: int) -> int:
        """Its place; 0 if it has none."""
        numbers, mask = self._numbers, self._mask
        at = number & mask
        while there := numbers[at]:
            if there == number:
                return self._places[at]
            at = at + 1 & mask
        return 0

    def put(self, number: int, place: int) -> None:
        """Also where it has another place."""
        numbers, mask = self._numbers, self._mask
        at = number & mask
        while there := numbers[at]:
            if there == number:
                self._places[at] = place
                return
            at = at + 1 & mask
        numbers[at], self._places[at] = number, place
        self.count = count = self.count + 1
        if count > self._most:
            self._resize(2 * len(numbers))

    def pop(self, number: int) -> int:
        """The place it had; 0 if it had none."""
        numbers, mask = self._numbers, self._mask
        at = number & mask
        while there := numbers[at]:
            if there == number:
                break
            at = at + 1 & mask
        else:
            return 0
        place = self._places[at]
        numbers[self._move_up(at) if numbers[at + 1 & mask] else at] = 0
        self.count = count = self.count - 1
        if count < mask * EMPTY and mask >= FEWEST:
            self._resize(len(numbers) // 2)
        return place

    def _move_up(self, hole: int) -> int:
        """Into the slot *hole*, and into those that come free by that, who is behind them and would rather be there. The last of them."""
        numbers, places, mask = self._numbers, self._places, self._mask
        at = hole + 1 & mask
        while there := numbers[at]:
            if (at - there & mask) >= (at - hole & mask):
                numbers[hole], places[hole] = there, places[at]
                hole = at
            at = at + 1 & mask
        return hole

    def _resize(self, size: int) -> None:
        former = zip(self._numbers, self._places, strict=True)
        self._make(size)
        numbers, places, mask = self._numbers, self._places, self._mask
        for number, place in former:
            if not number:
                continue
            at = number & mask
            while numbers[at]:
                at = at + 1 & mask
            numbers[at], places[at] = number, place

    def check(self) -> dict[int, int]:
        """The numbers with their places."""
        taken = {at: number for at, number in enumerate(self._numbers) if number}
        assert len(taken) == len(set(taken.values())) == self.count, "P1"
        for at, number in taken.items():
            assert all(number + step & self._mask in taken for step in range(at - number & self._mask)), "P1"
        return {number: self._places[at] for at, number in taken.items()}


class Places:
    """Places by numbers; no number has two places."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = [Part() for _ in range(PARTS)]

    def __len__(self) -> int:
        return sum(part.count for part in self._parts)

    @property
    def size(self) -> int:
        """Bytes of memory, as far as it has been touched."""
        return sum(part.size for part in self._parts)

    def part(self, number: int) -> Part:
        """The one in which *number* has its place, if it has one."""
        return self._parts[number >> SHIFT & PARTS - 1]

    def check(self) -> dict[int, int]:
        """The numbers with their places."""
        found: dict[int, int] = {}
        for at, part in enumerate(self._parts):
            there = part.check()
            assert all(number >> SHIFT & PARTS - 1 == at for number in there), "P1"
            found |= there
        return found

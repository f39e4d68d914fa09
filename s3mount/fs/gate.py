"""Who may touch which name just now, and what this mount changed lately.

Owns: `Gate`, which keeps commits away from names that are moving, and `Changes`, which tells answers of the store that came too late.
Must not know: what the names stand for.

Requests that write under a key (`using`) may run side by side. One that takes a key away from its file (unlink, rename, rmdir: `moving`)
waits for those under way on it, and holds up new ones meanwhile: else a commit sent before the rename would bring the old name back.
A moving prefix (ends with "/") covers every key that begins with it.

From when the commits are through until the move is over, its names are *away*: what the store says of them may be true before or after the
move, and nobody can tell. A look at such a name waits and asks again, else our own move would pass for somebody else's removal.
Other lookups, and all reads and writes, never come here.

G1  No key is in use while a move that covers it is under way.
G2  Two moves under way do not cover each other.
G3  No key is in use while it is away; so who uses a key may look at it.
G4  Whoever waited must look at the names again: the inode may be called something else by now.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import trio

# Changes remembered one by one; older ones put every older answer in doubt, which costs a second look.
CHANGES_REMEMBERED = 4096


def covers(name: str, key: str) -> bool:
    """Whether the key or prefix *name* is *key*, or *key* lies below it."""
    return key == name or (name.endswith("/") and key.startswith(name))


class Gate:
    """Keys in use and names that move."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}
        self._moving: list[str] = []
        self._away: list[str] = []
        self._waiting = trio.lowlevel.ParkingLot()

    async def wait_free(self, key: Callable[[], str]) -> str:
        """Wait until nothing moves the key that *key* gives, asking it again after each wait; no checkpoint where nothing does."""
        while True:
            now = key()
            if not self._moving or not any(covers(name, now) for name in self._moving):
                return now
            await self._waiting.park()

    async def wait_all_free(self, *keys: Callable[[], str]) -> None:
        """Wait until nothing moves any of the keys that *keys* give: while one waits for the last, the first may have begun to move."""
        while any(covers(name, key()) for key in keys for name in self._moving):
            await self._waiting.park()

    def using(self, *keys: str) -> Use:
        """Write under *keys*, which are free: `wait_free` or `wait_all_free` returned just now."""
        return Use(self, keys)

    def _use(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            self._used[key] = self._used.get(key, 0) + 1

    def _used_no_more(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            self._used[key] -= 1
            if not self._used[key]:
                del self._used[key]
        if self._waiting:
            self._waiting.unpark_all()

    def moving(self, names: Callable[[], tuple[str, ...]]) -> Move:
        """Take *names* (keys, and prefixes that end with "/") away from what they stand for; they are asked again after each wait."""
        return Move(self, names)

    async def _claim(self, names: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        while self._overlaps(claimed := names()):
            await self._waiting.park()
        self._moving.extend(claimed)
        try:
            while any(covers(name, key) for key in self._used for name in claimed):
                await self._waiting.park()
        except BaseException:
            self._disclaim(claimed)
            raise
        self._away.extend(claimed)
        return claimed

    def _give_back(self, claimed: tuple[str, ...]) -> None:
        for name in claimed:
            self._away.remove(name)
        self._disclaim(claimed)

    def _disclaim(self, claimed: tuple[str, ...]) -> None:
        for name in claimed:
            self._moving.remove(name)
        if self._waiting:
            self._waiting.unpark_all()

    def is_away(self, key: str) -> bool:
        return bool(self._away) and any(covers(name, key) for name in self._away)

    async def wait_back(self, key: str) -> None:
        """Wait until *key* is not away; no checkpoint where it is not."""
        while self.is_away(key):
            await self._waiting.park()

    def _overlaps(self, names: tuple[str, ...]) -> bool:
        return any(covers(name, other) or covers(other, name) for other in self._moving for name in names)

    def check(self) -> None:
        assert all(count > 0 for count in self._used.values()), "G1"
        assert not any(self.is_away(key) for key in self._used), "G3"

    @property
    def idle(self) -> bool:
        return not self._used and not self._moving


class Use:
    """Keys in use for the time of a `with` block. (A generator's context costs twice as much: each commit has one.)"""

    __slots__ = ("_gate", "_keys")

    def __init__(self, gate: Gate, keys: tuple[str, ...]) -> None:
        self._gate = gate
        self._keys = keys

    def __enter__(self) -> None:
        self._gate._use(self._keys)

    def __exit__(self, *_: object) -> None:
        self._gate._used_no_more(self._keys)


class Move:
    """Names that are away for the time of an `async with` block. (A generator's context costs 10 us more: each removal has one.)"""

    __slots__ = ("_claimed", "_gate", "_names")

    def __init__(self, gate: Gate, names: Callable[[], tuple[str, ...]]) -> None:
        self._gate = gate
        self._names = names

    async def __aenter__(self) -> None:
        self._claimed = await self._gate._claim(self._names)

    async def __aexit__(self, *_: object) -> None:
        self._gate._give_back(self._claimed)


class Changes:
    """Which keys this mount changed since a request was sent."""

    def __init__(self) -> None:
        self.now = 0
        self._last: OrderedDict[str, int] = OrderedDict()
        self._all_doubted = 0

    def note(self, key: str) -> None:
        """*key* has changed (its object, its inode, or whether it is there)."""
        self.now += 1
        self._last[key] = self.now
        self._last.move_to_end(key)
        if len(self._last) > CHANGES_REMEMBERED:
            self._all_doubted = max(self._all_doubted, self._last.popitem(last=False)[1])

    def note_all(self) -> None:
        """More keys have changed than one would name."""
        self.now += 1
        self._all_doubted = self.now
        self._last.clear()

    def since(self, key: str, then: int) -> bool:
        """Whether *key* may have changed after `now` was *then*."""
        return self.now != then and (self._all_doubted > then or self._last.get(key, 0) > then)

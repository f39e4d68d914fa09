"""The blocks of one version of one object.

Owns: which bytes of a version are here, on their way, or nowhere; who waits for them and who will want them.
Must not know: requests, memory beyond its own slots, why something is fetched.

A block is what one request brings. Its place is entered before its bytes are asked for, so whoever wants them finds it: each byte is
fetched once however many read it. It fills from the front: bytes below `filled` may be read.

    QUEUED --a turn, and memory--> FETCHING --whole--> READY --evicted--> GONE
       |                              |
       +--nobody wants it any more----+--failed (`error`), or cancelled--> GONE

Invariants (`check`):
V1  The blocks of a version are sorted, disjoint, not empty, inside it, and none of them is GONE.
V2  A slot is there from FETCHING on; all of a READY block is filled, nothing of a QUEUED one.
V3  A block that somebody waits for, or that is not READY, cannot be evicted (its slot is held).
V4  `wanted` of the slot says whether `wanters` is not empty.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from enum import Enum
from types import TracebackType

import trio

from s3mount.cache.arena import Slot
from s3mount.errors import StoreError
from s3mount.model import ByteRange, ETag, Key, ObjectInfo
from s3mount.store.api import Pin

# Fetch again what is here already rather than send one request more, up to this part of a request.
ISLANDS_PART = 4

Identity = tuple[Key, ETag, int]


def identity_of(info: ObjectInfo) -> Identity:
    return info.key, info.etag, info.size


class Phase(Enum):
    QUEUED = "queued"
    FETCHING = "fetching"
    READY = "ready"
    GONE = "gone"


class Block:
    """Bytes *start* to *stop* of *version*."""

    __slots__ = ("_lot", "error", "filled", "phase", "scope", "slot", "start", "stop", "urgent", "version", "waiters", "wanters")

    def __init__(self, version: Version, start: int, stop: int) -> None:
        self.version = version
        self.start = start
        self.stop = stop
        self.phase = Phase.QUEUED
        self.slot: Slot | None = None
        self.filled = start
        self.error: StoreError | None = None
        self.scope: trio.CancelScope | None = None
        self.urgent = False
        self.waiters = 0
        self.wanters: set[object] | tuple[()] = ()
        self._lot: trio.lowlevel.ParkingLot | None = None

    def __repr__(self) -> str:
        return f"<Block {self.start}-{self.stop} {self.phase.value} filled to {self.filled} waiters={self.waiters}>"

    @property
    def length(self) -> int:
        return self.stop - self.start

    @property
    def needed(self) -> bool:
        return self.waiters > 0 or bool(self.wanters)

    @property
    def is_idle(self) -> bool:
        """It is there, and nobody is about to read or write it."""
        return self.phase is Phase.READY and self.slot is not None and not self.slot.held

    def view(self, start: int, stop: int) -> memoryview:
        """The bytes *start* to *stop* of the version, which must be filled; they stay as they are until the next checkpoint."""
        assert self.slot is not None
        return self.slot.view(start - self.start, stop - self.start)

    def touch(self) -> None:
        """It was read: others go before it."""
        if self.slot is not None:
            self.slot.touch()

    def spend(self) -> None:
        """It was read, and will hardly be read again before it would have to go: it goes before others."""
        if self.phase is Phase.READY and self.slot is not None and not self.wanters:
            self.slot.spend()

    # -- who wants it -------------------------------------------------------------------

    def want(self, wanter: object) -> None:
        if isinstance(self.wanters, set):
            self.wanters.add(wanter)
        else:
            self.wanters = {wanter}
        if self.slot is not None:
            self.slot.wanted = True

    def unwant(self, wanter: object) -> None:
        if isinstance(self.wanters, set):
            self.wanters.discard(wanter)
            self.wanters = self.wanters or ()
        if self.slot is not None and not self.wanters:
            self.slot.wanted = False

    async def wait_beyond(self, position: int) -> None:
        """Until bytes behind *position* are filled or it is GONE. `release` it after reading: it is not evicted before."""
        self.waiters += 1
        if self.slot is not None:
            self.slot.hold()
        try:
            while self.filled <= position and self.phase is not Phase.GONE:
                if self._lot is None:
                    self._lot = trio.lowlevel.ParkingLot()
                await self._lot.park()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        self.waiters -= 1
        if self.slot is not None:
            self.slot.release()

    # -- its life -----------------------------------------------------------------------

    def begin(self, slot: Slot) -> None:
        """*slot* is held once, for the request."""
        self.phase, self.slot = Phase.FETCHING, slot
        slot.wanted = bool(self.wanters)
        for _ in range(self.waiters):
            slot.hold()

    def arrived(self, count: int) -> None:
        """The first *count* bytes are there."""
        if self.start + count > self.filled:
            self.filled = min(self.start + count, self.stop)
            self._wake()

    def done(self) -> None:
        assert self.slot is not None
        self.phase, self.filled, self.scope = Phase.READY, self.stop, None
        self.slot.release()
        self._wake()

    def fail(self, error: StoreError | None) -> None:
        """It is not coming; None: nobody wanted it any more."""
        slot, self.slot = self.slot, None
        self.error = error
        self._go()
        if slot is not None:
            slot.free()

    def drop(self) -> None:
        """It is not needed any more; it must be idle."""
        self.fail(None)

    def evicted(self) -> None:
        """Its slot is somebody else's now."""
        self.slot = None
        self._go()

    def _go(self) -> None:
        self.phase, self.scope = Phase.GONE, None
        self.filled = self.start
        self.wanters = ()
        self.version.remove(self)
        self._wake()

    def _wake(self) -> None:
        if self._lot is not None:
            self._lot.unpark_all()


class Version:
    """What is known of the bytes of one version. `sources`: the pins it can be read through; `lost`: the store said that it is gone.

    `digest`: what it is called on disk, once somebody asked.
    """

    __slots__ = ("_blocks", "_home", "_starts", "digest", "info", "lost", "sources")

    def __init__(self, info: ObjectInfo, home: Versions) -> None:
        self.info = info
        self.digest = b""
        self.lost = False
        self.sources: list[Source] = []
        self._home = home
        self._starts: list[int] = []
        self._blocks: list[Block] = []

    def __repr__(self) -> str:
        return f"<Version {self.info.key} {self.info.etag} {len(self._blocks)} blocks, {len(self.sources)} pins>"

    def __iter__(self) -> Iterator[Block]:
        return iter(list(self._blocks))

    def __len__(self) -> int:
        return len(self._blocks)

    def check(self) -> None:
        assert self._starts == [block.start for block in self._blocks], "V1"
        at = 0
        for block in self._blocks:
            assert at <= block.start < block.stop <= self.info.size, f"V1 {block}"
            at = block.stop
            assert block.phase is not Phase.GONE, f"V1 {block}"
            assert (block.slot is None) == (block.phase is Phase.QUEUED), f"V2 {block}"
            assert block.start <= block.filled <= block.stop, f"V2 {block}"
            assert block.phase is not Phase.QUEUED or block.filled == block.start, f"V2 {block}"
            assert block.phase is not Phase.READY or block.filled == block.stop, f"V2 {block}"
            if block.slot is not None:
                assert block.slot.held or (block.phase is Phase.READY and not block.waiters), f"V3 {block}"
                assert block.slot.wanted == bool(block.wanters), f"V4 {block}"

    def covering(self, position: int) -> Block | None:
        at = bisect_right(self._starts, position) - 1
        if at >= 0 and position < self._blocks[at].stop:
            return self._blocks[at]
        return None

    def overlapping(self, start: int, stop: int) -> list[Block]:
        first = max(0, bisect_right(self._starts, start) - 1)
        last = bisect_left(self._starts, stop, first)
        return [block for block in self._blocks[first:last] if block.stop > start]

    def gaps(self, start: int, stop: int) -> list[ByteRange]:
        """What of *start* to *stop* is neither here nor on its way."""
        gaps = []
        for block in self.overlapping(start, stop):
            if block.start > start:
                gaps.append(ByteRange(start, block.start))
            start = block.stop
        if start < stop:
            gaps.append(ByteRange(start, stop))
        return gaps

    def absorb(self, start: int, stop: int) -> None:
        """Drop what lies scattered between *start* and *stop* and is little: one request for all of it costs less than one for each gap."""
        islands = [block for block in self.overlapping(start, stop) if block.is_idle and start <= block.start and block.stop <= stop]
        if sum(block.length for block in islands) * ISLANDS_PART <= stop - start:
            for block in islands:
                block.drop()

    def add(self, start: int, stop: int) -> Block:
        """Enter a block in a gap."""
        block = Block(self, start, stop)
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._blocks.insert(at, block)
        return block

    def remove(self, block: Block) -> None:
        at = bisect_right(self._starts, block.start) - 1
        assert self._blocks[at] is block
        del self._starts[at], self._blocks[at]
        self._home.drop_if_idle(self)


class Source:
    """A pin of the store below, closed when it is retired and the last request through it is over."""

    def __init__(self, pin: Pin) -> None:
        self._pin = pin
        self._users = 0
        self._retired = False

    async def __aenter__(self) -> Pin:
        self._users += 1
        return self._pin

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._users -= 1
        await self._go_if_done()

    async def retire(self) -> None:
        """No request begins any more. Idempotent, not cancellable."""
        if not self._retired:
            self._retired = True
            await self._go_if_done()

    async def _go_if_done(self) -> None:
        if self._retired and not self._users:
            with trio.CancelScope(shield=True):
                await self._pin.aclose()


class Versions:
    """All versions of which there are blocks or pins."""

    def __init__(self) -> None:
        self._versions: dict[Identity, Version] = {}

    def __iter__(self) -> Iterator[Version]:
        return iter(list(self._versions.values()))

    def __len__(self) -> int:
        return len(self._versions)

    def get(self, info: ObjectInfo) -> Version | None:
        return self._versions.get(identity_of(info))

    def of(self, info: ObjectInfo) -> Version:
        """The version that *info* speaks of; `drop_if_idle` it when it comes to nothing."""
        identity = identity_of(info)
        if identity not in self._versions:
            self._versions[identity] = Version(info, self)
        return self._versions[identity]

    def drop_if_idle(self, version: Version) -> None:
        if not len(version) and not version.sources:
            self._versions.pop(identity_of(version.info), None)

    def check(self) -> None:
        for identity, version in self._versions.items():
            assert identity_of(version.info) == identity
            assert len(version) or version.sources
            version.check()

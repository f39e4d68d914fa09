"""Requests for blocks: whose turn it is, and carrying them out.

Owns: how many run at once, who goes first, when memory is taken for one, and what their failure means to the block.
Must not know: why a block is wanted, by whom.

What somebody waits for (urgent) goes before what is fetched ahead, in the order of asking each. A block takes memory when its turn has
come, not before: a long queue costs nothing.

Nobody ever waits for memory while holding some: a running request holds its own slot and waits for the store alone, a reader holds a block
only while it copies, between two checkpoints. So when memory is short, something is running that will give some back, and each end of a
request or of a read is followed by `pump`. What is fetched ahead may not displace what others wanted; what is urgent may.

Invariants (`check`):
Q1  No more than REQUESTS run, and no more than AHEAD when the last one to begin was not urgent.
Q2  After `pump`, an urgent block is queued only if all turns are taken or every region is held.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from s3mount.cache.arena import Arena
from s3mount.cache.budget import Line
from s3mount.cache.disk import Disk
from s3mount.cache.tasks import Background
from s3mount.cache.versions import Block, Phase, Version
from s3mount.errors import NotFound, PreconditionFailed, StoreError, Unavailable
from s3mount.store.api import ObjectStore, Pin

logger = logging.getLogger(__name__)

# With 30 ms to the first byte and 90 MB/s for each connection, 8 MiB take 120 ms, of which 90 carry bytes: 32 such requests carry what 24
# connections can, so that a gigabyte, with its beginning in small requests, still takes what 16 could. The turns beyond are for those who
# wait. A store admits as many (cli.remote).
REQUESTS = 48
AHEAD = 32


class Fetcher:
    """Fills blocks from *disk* where it has them, else from *store*."""

    def __init__(self, store: ObjectStore, arena: Arena, background: Background, line: Line, disk: Disk | None = None) -> None:
        self._store = store
        self._arena = arena
        self._background = background
        self._line = line
        self._disk = disk
        self._urgent: deque[Block] = deque()
        self._ahead: deque[Block] = deque()
        self._running = 0

    def __repr__(self) -> str:
        return f"<Fetcher {self._running} running, {len(self._urgent)} urgent, {len(self._ahead)} ahead>"

    def check(self) -> None:
        assert 0 <= self._running <= REQUESTS, "Q1"

    @property
    def queued(self) -> bool:
        return bool(self._urgent or self._ahead)

    def passes(self, size: int) -> bool:
        """Whether what is read in sequence of *size* bytes is gone before it is read again. A disk wants to see it first."""
        return size > self._arena.limit and self._disk is None

    def add(self, block: Block) -> None:
        """Fetch *block*, just entered; `pump` follows."""
        (self._urgent if block.urgent else self._ahead).append(block)

    def hasten(self, block: Block) -> None:
        """Somebody waits for *block* now."""
        if block.phase is Phase.QUEUED and not block.urgent:
            block.urgent = True
            self._urgent.append(block)
            self.pump()

    def abandon_unneeded(self, block: Block) -> None:
        """Give *block* up if nobody wants it and it is not there yet."""
        if block.needed:
            return
        if block.phase is Phase.QUEUED:
            block.fail(None)
        elif block.scope is not None:
            block.scope.cancel()

    def pump(self) -> None:
        """Begin what can begin."""
        while self._running < REQUESTS:
            if self._next(self._urgent) is not None:
                queue = self._urgent
            elif self._running < AHEAD and self._next(self._ahead) is not None:
                queue = self._ahead
            else:
                return
            block = queue[0]
            slot = self._arena.take(block.length, block, spare_wanted=queue is self._ahead)
            if slot is None:
                return
            queue.popleft()
            block.begin(slot)
            block.scope = trio.CancelScope()
            self._running += 1
            self._background.start(self._fetch, block, block.scope)

    def _next(self, queue: deque[Block]) -> Block | None:
        while queue and (queue[0].phase is not Phase.QUEUED or (queue is self._ahead and queue[0].urgent)):
            queue.popleft()
        return queue[0] if queue else None

    async def _fetch(self, block: Block, scope: trio.CancelScope) -> None:
        error: StoreError | None = None
        whole = from_disk = False
        try:
            with scope:
                from_disk = await self._fill(block)
                whole = True
        except StoreError as refusal:
            error = refusal
            block.version.lost = block.version.lost or isinstance(refusal, PreconditionFailed | NotFound)
        except Exception:
            logger.exception("Reading %r failed", block.version.info.key)
            error = Unavailable(f"{block.version.info.key!r} could not be read; the log says why.")
        finally:
            self._running -= 1
            self._end(block, error, whole=whole, from_disk=from_disk)
            self.pump()

    def _end(self, block: Block, error: StoreError | None, *, whole: bool, from_disk: bool) -> None:
        if whole:
            block.done()
            if self._disk is not None and not from_disk:
                self._disk.offer(block)
        elif error is None and self._background.closed:
            block.fail(Unavailable("The mount is ending."))
        else:
            block.fail(error)

    async def _fill(self, block: Block) -> bool:
        """True if it came from the disk."""
        view = block.view(block.start, block.stop)
        if self._disk is not None and await self._disk.read(block.version, block.start, view):
            return True
        with self._line.carries(block.length) as brought:

            def arrived(count: int) -> None:
                brought(count)
                block.arrived(count)

            async with self._pin(block.version) as pin:
                await pin.get_into(block.start, view, arrived=arrived)
            brought(block.length)
        return False

    @asynccontextmanager
    async def _pin(self, version: Version) -> AsyncIterator[Pin]:
        """A pin that *version* has, or one for this request alone."""
        if version.sources:
            async with version.sources[-1] as pin:
                yield pin
            return
        pin = await self._store.pin(version.info.key, known=version.info)
        try:
            yield pin
        finally:
            with trio.CancelScope(shield=True):
                await pin.aclose()

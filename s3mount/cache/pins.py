"""A pin that reads from blocks.

Owns: how a read is put together from blocks, and which blocks each of its streams wants.
Must not know: where blocks come from, how memory is shared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import trio

from s3mount.cache.budget import Budget
from s3mount.cache.fetches import Fetcher
from s3mount.cache.neighbours import Neighbours
from s3mount.cache.streams import PAGE, REQUEST_AT_LEAST, Plan, Shape, Stream, Streams
from s3mount.cache.versions import Block, Phase, Source, Versions
from s3mount.errors import StoreError
from s3mount.model import ByteRange
from s3mount.store.api import Arrived, Pin

E = TypeVar("E", bound=StoreError)


@dataclass(frozen=True, slots=True)
class Parts:
    """What all pins of one cache share."""

    versions: Versions
    fetcher: Fetcher
    budget: Budget
    shape: Shape
    neighbours: Neighbours


class Follower:
    """One stream of one pin: the blocks that were fetched ahead for it and that it has not read yet."""

    __slots__ = ("_fetcher", "_passing", "_wanted", "stream")

    def __init__(self, fetcher: Fetcher, stream: Stream, *, passing: bool) -> None:
        """*passing*: what it has read is not worth keeping."""
        self.stream = stream
        self._fetcher = fetcher
        self._passing = passing
        self._wanted: deque[Block] = deque()

    def want(self, block: Block) -> None:
        if self not in block.wanters:
            block.want(self)
            self._wanted.append(block)

    def read_to(self, position: int) -> None:
        """What ends before *position* is read, or was skipped."""
        wanted = self._wanted
        while wanted and (wanted[0].stop <= position or wanted[0].phase is Phase.GONE):
            block = wanted.popleft()
            block.unwant(self)
            if self._passing and self.stream.sure:
                block.spend()

    def drop_beyond(self, position: int) -> None:
        kept = deque(block for block in self._wanted if block.start < position)
        dropped, self._wanted = [block for block in self._wanted if block.start >= position], kept
        self._let_go(dropped)

    def end(self) -> None:
        dropped, self._wanted = list(self._wanted), deque()
        self._let_go(dropped)

    def relax(self) -> None:
        for block in self._wanted:
            block.unwant(self)
        self._wanted.clear()

    def _let_go(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            block.unwant(self)
            self._fetcher.abandon_unneeded(block)


class BlockPin:
    """*pin*, read through the cache."""

    def __init__(self, parts: Parts, pin: Pin) -> None:
        self.info = pin.info
        self._parts = parts
        self._fetcher = parts.fetcher
        self._version = parts.versions.of(pin.info)
        self._source = Source(pin)
        self._version.sources.append(self._source)
        self._version.lost = False
        self._streams = Streams(self.info.size, parts.shape)
        self._followers: dict[Stream, Follower] = {}
        self._untouched = True
        self._open = True

    def __repr__(self) -> str:
        return f"<BlockPin {self._version!r}{'' if self._open else ' closed'}>"

    # -- reading ----------------------------------------------------------------------

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        """The bytes themselves, if they are there in one piece; valid until the caller's next checkpoint. *size* is not 0."""
        stop = offset + size
        self._require(offset, stop)
        block = self._version.covering(offset)
        if block is None or block.filled < stop:
            return None
        view = block.view(offset, stop)
        self._read_here(offset, stop, block)
        return view

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        if not buffer.nbytes:
            return True
        if (view := self.view_nowait(offset, buffer.nbytes)) is not None:
            buffer[:] = view
            return True
        stop = offset + buffer.nbytes
        blocks = self._version.overlapping(offset, stop)
        if not _filled(blocks, offset, stop):
            return False
        for block in blocks:
            start, end = max(offset, block.start), min(stop, block.stop)
            buffer[start - offset : end - offset] = block.view(start, end)
        self._read_here(offset, stop, *blocks)
        return True

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        if not buffer.nbytes:
            return
        stop = offset + buffer.nbytes
        self._require(offset, stop)
        plan = self._streams.read(offset, stop, self._room, waits=True)
        self._fetch(plan, offset, stop)
        at = offset
        try:
            while at < stop:
                at = await self._copy_some(at, stop, buffer[at - offset :])
                if arrived is not None:
                    arrived(at - offset)
        except BaseException as error:
            if isinstance(error, trio.Cancelled):
                self._forget(plan.stream)
            for block in self._version.overlapping(at, stop):
                self._fetcher.abandon_unneeded(block)
            raise

    async def _copy_some(self, at: int, stop: int, buffer: memoryview) -> int:
        """Copy from *at* on what the block there has as soon as it has any; return up to where."""
        block = self._version.covering(at) or self._demand(at, stop)
        if block.filled <= at:
            self._fetcher.hasten(block)
        await block.wait_beyond(at)
        try:
            if block.phase is not Phase.GONE:
                end = min(block.filled, stop)
                buffer[: end - at] = block.view(at, end)
                block.touch()
                return end
            if block.error is not None:
                raise _again(block.error)
            return at
        finally:
            block.release()
            if self._fetcher.queued:
                self._fetcher.pump()

    # -- fetching ---------------------------------------------------------------------

    def _read_here(self, offset: int, stop: int, *blocks: Block) -> None:
        """A read was served from *blocks*: fetch what follows from it."""
        for block in blocks:
            block.touch()
        plan = self._streams.read(offset, stop, self._room, waits=False)
        self._fetch(plan, offset, stop)

    def _fetch(self, plan: Plan, offset: int, stop: int) -> None:
        """Begin what *plan* says for a read from *offset* to *stop*."""
        follower = self._follower(plan.stream)
        follower.read_to(plan.stream.at)
        if plan.forgotten is not None:
            self._end(plan.forgotten)
        if plan.drop is not None:
            follower.drop_beyond(plan.drop)
        begun = self._enter(plan.need, follower, offset, stop)
        if not self._version.lost:
            for span in plan.ahead:
                begun += self._enter(span, follower, offset, stop)
        if begun:
            self._fetcher.pump()
        if self._untouched:
            self._untouched = False
            self._parts.neighbours.read(self.info)

    def _enter(self, span: ByteRange, follower: Follower, offset: int, stop: int) -> int:
        """Ask for what is missing of *span*; return how many requests that takes."""
        begun = 0
        if span.length >= REQUEST_AT_LEAST:
            self._version.absorb(span.start, span.stop)
        for gap in self._version.gaps(span.start, span.stop):
            for start in range(gap.start, gap.stop, self._parts.shape.request):
                if min(start + self._parts.shape.request, gap.stop) <= offset:
                    continue
                block = self._version.add(start, min(start + self._parts.shape.request, gap.stop))
                block.urgent = block.start < stop and offset < block.stop
                self._fetcher.add(block)
                begun += 1
        for block in self._version.overlapping(span.start, span.stop):
            if block.stop > follower.stream.at:
                follower.want(block)
        return begun

    def _demand(self, at: int, stop: int) -> Block:
        """Ask for what is missing at *at*: it was evicted, or given up by another reader, since it was asked for."""
        pages = self._version.gaps(at - at % PAGE, min(-(-stop // PAGE) * PAGE, self.info.size))
        gap = next(gap for gap in pages if at < gap.stop)
        block = self._version.add(gap.start, min(gap.stop, gap.start + self._parts.shape.request))
        block.urgent = True
        self._fetcher.add(block)
        self._fetcher.pump()
        return block

    def _room(self, stream: Stream) -> int:
        return self._parts.budget.room(self._follower(stream))

    def _follower(self, stream: Stream) -> Follower:
        follower = self._followers.get(stream)
        if follower is None:
            follower = self._followers[stream] = Follower(self._fetcher, stream, passing=self._fetcher.passes(self.info.size))
        return follower

    # -- ending -----------------------------------------------------------------------

    async def aclose(self) -> None:
        if not self._open:
            return
        self._open = False
        for stream in list(self._followers):
            self._end(stream)
        self._version.sources.remove(self._source)
        self._parts.versions.drop_if_idle(self._version)
        await self._source.retire()

    def _forget(self, stream: Stream) -> None:
        self._streams.forget(stream)
        self._end(stream)

    def _end(self, stream: Stream) -> None:
        follower = self._followers.pop(stream, None)
        if follower is not None:
            self._parts.budget.leave(follower)
            follower.end()

    def _require(self, offset: int, stop: int) -> None:
        if not self._open:
            raise ValueError(f"the pin of {self.info.key!r} was released")
        if not 0 <= offset < stop <= self.info.size:
            raise ValueError(f"{offset}-{stop} does not lie inside {self.info.key!r} of {self.info.size} bytes")


def _filled(blocks: Iterable[Block], offset: int, stop: int) -> bool:
    """Whether *blocks* hold all bytes from *offset* to *stop*."""
    at = offset
    for block in blocks:
        if block.start > at or block.filled < min(block.stop, stop):
            return False
        at = block.stop
    return at >= stop


def _again(error: E) -> E:
    """*error* for one more who waits: an exception that several tasks raise would mix up their tracebacks."""
    return type(error)(*error.args)

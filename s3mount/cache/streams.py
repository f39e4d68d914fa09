"""What to fetch, judged by how one version is read: sequential streams, random access, footers.

Owns: which reads belong together, how far ahead of each stream to fetch, and in requests of which size.
Must not know: what is cached, who fetches, time. Pure.

One inode is read through one pin by anybody: several streams, told apart by offset alone. A kernel sends a sequential reader's requests
several at a time and slightly out of order, so a read belongs to a stream when it lies near its position:

    back          at           ahead
     |<----------->|<----------->|         both grow with the trust that the stream has earned

`run` is that trust, in bytes, EASY at most: what was read in sequence, less a quarter of what was skipped. All else follows from it:

    window = 8 x run    whoever reads on is given eight times that ahead; a random read that touches another gets next to nothing
             32 x run   for a sure stream from the start of the file (most are read to the end), or beyond EASY: at 30 ms and 90 MB/s for
                        each connection this opens all connections two round trips after the first byte
    window <= room      what the budget gives one stream now: under pressure windows shrink
    beyond EASY         a window grows only when the reader waits: one that never waits needs no more, and a small window stays in the
                        processor's cache
    requests            an eighth of the window each (a quarter where there is no more room), cut at the multiples of their size: from 1 MiB
                        (worth a round trip) up to a region

A first read fetches: at the start of the file FIRST; in the last TAIL_ZONE the last TAIL bytes (footers: parquet, zip); a version no larger
than FIRST whole; else exactly what is asked, rounded to pages.

Invariants (`check`):
R1  0 <= at <= size, at <= reach or nothing was ever asked ahead; run >= 0.
R2  No more than STREAMS are remembered, used last first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from s3mount.model import ByteRange, KiB, MiB

PAGE = 4 * KiB
# The first request of a file: its first byte is not late because of its last (11 ms at 90 MB/s), and most small files are whole in it.
FIRST = 1 * MiB
# A footer and what it points to behind it: 6 ms at 90 MB/s, a fifth of the round trip that it saves.
TAIL = 512 * KiB
# Where readers of footers begin: zip's end record (22 bytes and a comment), parquet's last 8 bytes, tar's and gzip's trailers.
TAIL_ZONE = 64 * KiB
# 32 connections at 8 MiB each.
WINDOW = 256 * MiB
# Below this a window grows whether the reader waited or not: it costs little and saves the first waits.
EASY = 8 * MiB
# A run from which on a stream is believed to go on.
SURE = 256 * KiB
EIGHTFOLD, BOLD = 8, 32
REQUEST_AT_LEAST = 1 * MiB
# Requests of a window: many side by side while it opens; fewer and larger where many readers share the connections.
PARTS, CROWDED_PARTS = 8, 4
# Streams remembered for one version: more readers than cores and disks of a machine rarely share a file.
STREAMS = 16
# Steps back within a sure stream (another thread's late request), and skips. What lies farther ahead is another reader.
BACK = 1 * MiB
SKIP = 16 * MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes that may differ by configuration: one request, and all that is fetched ahead of one stream."""

    request: int = 8 * MiB
    window: int = WINDOW

    @property
    def first(self) -> int:
        return min(FIRST, self.request)


class Stream:
    """One sequential reader, as far as can be told. `at`: where it will read next; `reach`: up to where was asked ahead."""

    __slots__ = ("at", "from_start", "reach", "run", "waited", "window")

    def __init__(self, offset: int, stop: int) -> None:
        self.at = stop
        self.run = stop - offset
        self.from_start = offset == 0
        self.reach = stop
        self.window = 0
        self.waited = True

    def __repr__(self) -> str:
        return f"<Stream at {self.at} run {self.run} window {self.window} reach {self.reach}>"

    @property
    def sure(self) -> bool:
        return self.run >= SURE


@dataclass(slots=True)
class Plan:
    """What one read asks for: `need` now (it covers the read), `ahead` behind it, in this order; nothing beyond `drop` is wanted any more.

    `forgotten`: streams that are not remembered any more.
    """

    stream: Stream
    need: ByteRange
    ahead: tuple[ByteRange, ...] = ()
    drop: int | None = None
    forgotten: Stream | None = None


class Streams:
    """The readers of one version of *size* bytes."""

    def __init__(self, size: int, shape: Shape) -> None:
        self._size = size
        self._shape = shape
        self._streams: list[Stream] = []

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams)

    def check(self) -> None:
        assert len(self._streams) <= STREAMS, "R2"
        for stream in self._streams:
            assert 0 <= stream.at <= self._size, f"R1 {stream}"
            assert stream.run >= 0, f"R1 {stream}"
            assert 0 <= stream.reach <= self._size, f"R1 {stream}"

    def forget(self, stream: Stream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)

    def read(self, offset: int, stop: int, room: Callable[[Stream], int], *, waits: bool) -> Plan:
        """Somebody reads *offset* to *stop*, and *waits* for it; *room* says how much may be fetched ahead of a stream now."""
        stream = self._following(offset, stop)
        if stream is None:
            return self._first(offset, stop)
        if self._streams[-1] is not stream:
            self._streams.remove(stream)
            self._streams.append(stream)
        if stop <= stream.at:
            return Plan(stream, self._pages(offset, stop))
        gap = max(0, offset - stream.at)
        stream.run = min(max(0, stream.run - gap // 4) + stop - max(offset, stream.at), EASY)
        stream.at = stop
        stream.waited = stream.waited or waits
        return self._next(stream, offset, stop, room(stream))

    # -- which stream -------------------------------------------------------------------

    def _following(self, offset: int, stop: int) -> Stream | None:
        size = stop - offset
        nearest, distance = None, 0
        for stream in reversed(self._streams):
            far = offset - stream.at
            if not far:
                return stream
            if stream.sure:
                back, ahead = max(BACK, 2 * size), max(BACK, 2 * size, min(stream.window, SKIP))
            else:
                back = ahead = 2 * size
            if -back <= far <= ahead and (nearest is None or abs(far) < distance):
                nearest, distance = stream, abs(far)
        return nearest

    # -- how much -----------------------------------------------------------------------

    def _first(self, offset: int, stop: int) -> Plan:
        stream = Stream(offset, stop)
        self._streams.append(stream)
        forgotten = self._streams.pop(0) if len(self._streams) > STREAMS else None
        need = self._first_need(offset, stop)
        stream.reach = need.stop
        return Plan(stream, need, forgotten=forgotten)

    def _first_need(self, offset: int, stop: int) -> ByteRange:
        if self._size <= self._shape.first:
            return ByteRange(0, self._size)
        if offset == 0:
            return ByteRange(0, max(stop, self._shape.first))
        if offset >= self._size - TAIL_ZONE:
            return ByteRange(max(0, self._size - min(TAIL, self._shape.request)), self._size)
        return self._pages(offset, stop)

    def _pages(self, offset: int, stop: int) -> ByteRange:
        return ByteRange(offset - offset % PAGE, min(-(-stop // PAGE) * PAGE, self._size))

    def _next(self, stream: Stream, offset: int, stop: int, room: int) -> Plan:
        former = stream.window
        stream.window = self._window(stream, room)
        piece = self._piece(stream.window, room)
        need = self._pages(offset, stop)
        if stop > stream.reach:
            need = ByteRange(need.start, self._cut(need.stop, piece) if stream.window > piece else need.stop)
            stream.reach = need.stop
        drop = None
        if stream.window < former // 2 and stream.reach > stream.at + 2 * stream.window:
            drop = stream.reach = max(need.stop, stream.at + 2 * stream.window)
            drop = stream.reach = min(drop, self._size)
        return Plan(stream, need, tuple(self._ahead(stream, piece)), drop)

    def _window(self, stream: Stream, room: int) -> int:
        bold = stream.sure and (stream.from_start or stream.run >= EASY)
        target = min(stream.run * (BOLD if bold else EIGHTFOLD), self._shape.window)
        if stream.window < target and target > EASY and not stream.waited:
            target = max(stream.window, EASY)
        if target > stream.window:
            stream.waited = False
        return min(target, room)

    def _piece(self, window: int, room: int) -> int:
        """The size of one request: a power of two."""
        share = max(window // (PARTS if window < room else CROWDED_PARTS), min(REQUEST_AT_LEAST, window // 2), PAGE)
        return min(1 << (share.bit_length() - 1), self._shape.request)

    def _cut(self, at: int, piece: int) -> int:
        """The end of a request that contains the byte before *at*."""
        return min(-(-at // piece) * piece, self._size)

    def _ahead(self, stream: Stream, piece: int) -> Iterator[ByteRange]:
        goal = min(stream.at + stream.window, self._size)
        while stream.reach < goal and stream.window >= 2 * piece:
            stop = self._cut(stream.reach + 1, piece)
            yield ByteRange(stream.reach, stop)
            stream.reach = stop

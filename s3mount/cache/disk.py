"""Blocks kept on disk across restarts.

Owns: the folder (one process at a time), what is written when, and what goes.
Must not know: the format (see segments), where blocks come from.

    block came whole --offer--> queue (evicted before its turn: not kept) --writer, in a thread, the slot held--> segment, shelf
    block is wanted  --read---> shelf says that all of it is there --in a thread, verified--> slot

One writer at a time; readers as many as there are threads for. Nothing here ever fails a read: what is damaged is forgotten and fetched
from the store again; a disk that is full or broken ends writing for a while, with one line in the log.
A folder that another process uses is left alone: this one goes on without it.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import trio

from s3mount.cache import segments
from s3mount.cache.arena import Slot
from s3mount.cache.segments import Damaged, Piece, Segment, SegmentWriter
from s3mount.cache.shelf import Shelf
from s3mount.cache.tasks import Background
from s3mount.cache.versions import Block, Version
from s3mount.model import MiB

logger = logging.getLogger(__name__)

# Of a version of the format its own folder: another version's files are neither read nor removed.
FOLDER = "blocks-1"
# What is lost of the cache when room is needed: a sixty-fourth, between these.
SEGMENT_BYTES = 64 * MiB
SEGMENT_BYTES_AT_LEAST = 1 * MiB
# An entry of the shelf takes some 200 bytes of memory: 20 MB, of what the default memory limit leaves beside the blocks.
PIECES = 100_000
# After a write failed, none is tried for so long.
REST_SECONDS = 60.0
# What is queued at the end is written within this time, or not at all.
CLOSE_SECONDS = 5.0
READERS = 4


class Disk:
    """Blocks of the store called *identity*, in *folder*."""

    def __init__(self, folder: Path, limit: int, *, identity: str, background: Background) -> None:
        self._folder = folder / FOLDER
        self._identity = identity
        self._background = background
        self._shelf = Shelf(limit, PIECES)
        self._segment_bytes = max(SEGMENT_BYTES_AT_LEAST, min(SEGMENT_BYTES, limit // 64))
        self._queue: deque[Block] = deque()
        self._writing = False
        self._written = trio.Event()
        self._writer: SegmentWriter | None = None
        self._next = 1
        self._resting_until = -1.0
        self._lock: int | None = None
        self._opening = trio.Lock()
        self._begun = self._opened = False
        self.released: Callable[[], None] = lambda: None
        """Called when memory was given back."""
        self._touched: set[int] = set()
        self._readers = trio.CapacityLimiter(READERS)
        self._writers = trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return f"<Disk {self._folder} {self._shelf.size} bytes{'' if self.usable else ', not in use'}>"

    def check(self) -> None:
        self._shelf.check()

    def begin(self) -> None:
        """Open it soon, in the background."""
        if not self._begun:
            self._begun = True
            self._background.start(self.open)

    @property
    def usable(self) -> bool:
        return self._lock is not None

    # -- opening and closing --------------------------------------------------------------

    async def open(self) -> None:
        """Take the folder and find what is there. Idempotent; a folder that cannot be used is said once in the log."""
        async with self._opening:
            if self._opened:
                return
            try:
                found = await trio.to_thread.run_sync(self._take)
            except OSError as error:
                busy = isinstance(error, BlockingIOError)
                logger.warning(
                    "The cache folder %s is not used: %s.",
                    self._folder.parent,
                    "another process uses it" if busy else error.strerror or error,
                )
                found = []
            for segment in found:
                self._shelf.add_segment(segment)
                self._next = segment.number + 1
            for segment in sorted(found, key=lambda segment: segment.used_ns):
                self._shelf.touch(segment.number)
            self._opened = True
            await self._make_room()

    def _take(self) -> list[Segment]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = segments.scan(self._folder)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        return found

    async def wait_written(self) -> None:
        """Until nothing is queued."""
        while self._writing:
            await self._written.wait()

    async def aclose(self) -> None:
        """Write what is queued, if that is soon done, and give the folder back. Idempotent."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self.wait_written()
        self._queue.clear()
        with trio.CancelScope(shield=True):
            await self.wait_written()
            await trio.to_thread.run_sync(self._close)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _close(self) -> None:
        self._end_segment()
        for segment in self._shelf.segments:
            if segment.number in self._touched:
                segments.mark_used(self._folder, segment.number)

    # -- reading ----------------------------------------------------------------------

    async def read(self, version: Version, start: int, buffer: memoryview) -> bool:
        """Fill *buffer* if all of it is there and whole."""
        if not self._opened:
            await self.open()
        pieces = self._shelf.covering(self._digest(version), start, start + buffer.nbytes)
        if pieces is None:
            return False
        try:
            await trio.to_thread.run_sync(segments.read, self._folder, pieces, start, buffer, limiter=self._readers)
        except Damaged as damage:
            self._shelf.forget(damage.pieces)
            return False
        for number in {piece.segment for piece in pieces}:
            self._shelf.touch(number)
            self._touched.add(number)
        return True

    def _digest(self, version: Version) -> bytes:
        if not version.digest:
            info = version.info
            version.digest = segments.digest_of(self._identity, info.key, info.etag, str(info.size))
        return version.digest

    # -- writing ----------------------------------------------------------------------

    def offer(self, block: Block) -> None:
        """*block* came whole from the store: keep it, if its turn comes before it is evicted."""
        if not self.usable or trio.current_time() < self._resting_until:
            return
        self._queue.append(block)
        if not self._writing:
            self._writing = True
            self._background.start(self._write_queue)

    async def _write_queue(self) -> None:
        try:
            while self._queue:
                block = self._queue.popleft()
                if block.slot is not None:
                    await self._write(block, block.slot)
        except OSError as error:
            logger.warning("The cache folder %s cannot be written: %s.", self._folder.parent, error.strerror or error)
            self._resting_until = trio.current_time() + REST_SECONDS
            self._queue.clear()
        finally:
            self._writing = False
            self._written.set()
            self._written = trio.Event()

    async def _write(self, block: Block, slot: Slot) -> None:
        digest = self._digest(block.version)
        view = block.view(block.start, block.stop)
        slot.hold()
        try:
            with trio.CancelScope(shield=True):
                self._enter(await trio.to_thread.run_sync(self._append, digest, block.start, view, limiter=self._writers))
                await self._make_room()
        finally:
            slot.release()
            self.released()

    def _append(self, digest: bytes, start: int, data: memoryview) -> list[Piece]:
        if self._writer is None:
            self._writer = SegmentWriter(self._folder, self._next)
            self._next += 1
        try:
            pieces = self._writer.append(digest, start, data)
        except OSError:
            self._end_segment()
            raise
        if self._writer.size >= self._segment_bytes:
            self._end_segment()
        return pieces

    def _end_segment(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _enter(self, pieces: list[Piece]) -> None:
        number = pieces[0].segment
        if all(segment.number != number for segment in self._shelf.segments):
            self._shelf.add_segment(Segment(number, 0))
        self._shelf.add(pieces)

    async def _make_room(self) -> None:
        gone = self._shelf.make_room(writing=self._writer.number if self._writer else None)
        if gone:
            await trio.to_thread.run_sync(self._remove, gone)

    def _remove(self, numbers: list[int]) -> None:
        for number in numbers:
            segments.remove(self._folder, number)

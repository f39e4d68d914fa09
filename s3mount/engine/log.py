"""The log: every transaction there ever was, in order, in segments. The one truth of the folder.

Owns: positions, appending, walking, syncing, cutting.
Must not know: what payloads mean, the index, bodies.

L1  Records are numbered from 1 without gaps; a segment is named by its first record; when record n+1 is not in n's segment, it begins
    the segment n+1. What lies behind record n in its segment is then of no account.
L2  Append, scan and cut happen under the write lock, and append only after a scan has reached the end: other processes append too.
L3  A record is written at the position where the last whole one ends, never "at the end of the file".
L4  `sync` covers what other processes appended as well: it syncs every segment from the last known mark on, and the folder if one is new.
L5  After a failed fsync nothing is known of what is on the medium (the kernel drops the pages and reports once): the log refuses
    every further append and sync until it is opened again.
L6  A void record (see `recovery`) keeps its place and number and is passed over.
L7  Marks never fall: a process that follows others takes over their mark, also where the index spares it their records.

A walk meets: a whole record that joins (number and chain) -> entry; the end of the last segment -> done; anything else -> `Gap`.
A gap with nothing whole behind it is a tail that a crash may leave; one with something behind it, or below a mark, is damage.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from s3mount.engine import codec
from s3mount.engine.codec import Buffer
from s3mount.engine.disk import Disk
from s3mount.engine.layout import SEQ_DIGITS, Layout, publish
from s3mount.engine.own import Own
from s3mount.engine.segment import BEGINNING, Position, SegmentReader
from s3mount.errors import FROM_OS, Corrupt, StoreError, Unavailable
from s3mount.model import MiB, cheap_value

log = logging.getLogger(__name__)

# Small enough to be read whole when damage is searched through, large enough that a folder has few of them.
SEGMENT_BYTES = 64 * MiB

# No segment has this number: stands for the place behind the last.
END = 0


@cheap_value
class Appended:
    """Where a record went: its end, and (segment, offset) of each inline body."""

    position: Position
    inline: tuple[tuple[int, int], ...]


@cheap_value
class Entry:
    """A record as it stands in the log. `inline_at` is (segment, offset) of its first inline body; the others follow without gap."""

    position: Position
    mark: int
    payload: bytes
    inline_at: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is no record stands behind *end*; the next whole record begins at *resume* (None: there is none)."""

    end: Position
    resume: Position | None

    @property
    def lost(self) -> str:
        """Which records that costs, for a sentence."""
        first = self.end.seq + 1
        if self.resume is None:
            return f"record {first} and whatever followed it"
        return f"record {first}" if self.resume.seq == first else f"records {first} to {self.resume.seq}"


class Damaged(Corrupt):
    """The log cannot be followed beyond `gap.end`."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(
            f"The log is damaged in segment {gap.end.segment} at byte {gap.end.offset}: {gap.lost} cannot be read; "
            "'s3mount store rebuild --salvage' keeps everything else."
        )
        self.gap = gap


class Log:
    """The log of one folder, as one process sees it. Threads may sync at once; everything else needs the write lock (L2), but `walk`."""

    def __init__(self, layout: Layout, disk: Disk, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._layout = layout
        self._folder = str(layout.log)  # as `Layout.segment`, ten times as fast: each read of a small object opens one
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._end = BEGINNING
        self._mark = 0
        self._voids: dict[int, int] = {}
        self._writers: dict[int, int] = {}
        self._changed = threading.Condition()
        self._sync_running = False
        self._synced = 0
        self._synced_segment = 0
        self._failure: str | None = None
        self.own = Own()
        self.load()

    def load(self) -> None:
        """Read which records are void. Raises Corrupt."""
        try:
            self._voids = {int(seq): int(chain) for seq, chain in json.loads(self._layout.voids.read_text())}
        except FileNotFoundError:
            self._voids = {}
        except (ValueError, TypeError) as error:
            raise Corrupt(
                f"The file {self._layout.voids}, which names records that a power cut made unusable, is damaged; "
                "'s3mount store rebuild --salvage' does without it."
            ) from error

    def close(self) -> None:
        """Idempotent. Syncs nothing."""
        with self._changed:
            for fd in self._writers.values():
                os.close(fd)
            self._writers.clear()

    # -- following --------------------------------------------------------------------

    def end(self) -> Position:
        """Behind the last record that this process has scanned or appended."""
        return self._end

    def is_at_end(self) -> bool:
        """Whether nothing stands behind `end`. Two quick system calls: this is asked before every commit."""
        end = self._end
        with self._changed:
            fd = self._writers.get(end.segment)
            try:
                found = os.stat(self._segment(end.segment)) if fd is None else os.fstat(fd)
            except FileNotFoundError:
                return end.seq == 0
        if found.st_size != end.offset or not found.st_nlink:
            return False
        return end.seq + 1 == end.segment or not os.access(self._segment(end.seq + 1), os.F_OK)

    def _segment(self, first_seq: int) -> str:
        """As `Layout.segment`, ten times as fast."""
        return f"{self._folder}/{first_seq:0{SEQ_DIGITS}d}.log"

    def scan(self, after: Position | None) -> Iterator[Entry]:
        """The records behind *after* (None: from the first). Under the write lock; when it is through, `append` goes on from there.

        Raises Damaged where they do not go on.
        """
        if after is not None and after != self._end:
            self._take_mark(after)
        walk = self.walk(after)
        while True:
            try:
                item = next(walk)
            except StopIteration as done:
                self._end = done.value
                return
            if isinstance(item, Gap):
                raise Damaged(item)
            self._mark = max(self._mark, item.mark)
            yield item

    def walk(self, after: Position | None) -> Generator[Entry | Gap, None, Position]:
        """As `scan`, but going on behind gaps, and without the lock (the last record may then be seen half, as a gap). Returns the end."""
        at = after or BEGINNING
        while True:
            at = yield from self._walk_segment(at)
            if at.seq + 1 != at.segment and self._layout.segment(at.seq + 1).exists():
                at = Position(segment=at.seq + 1, offset=0, seq=at.seq, chain=at.chain)
                continue
            gap = self._gap(at)
            if gap is None:
                return at
            if gap.resume == at:
                continue  # it was appended while we looked
            yield gap
            if gap.resume is None:
                return at
            at = gap.resume

    def _walk_segment(self, at: Position) -> Generator[Entry, None, Position]:
        with self._window(at.segment) as window:
            while (frame := window.frame(at.offset)) is not None and (frame.seq, frame.chain) == (at.seq + 1, at.chain):
                inline_at = (at.segment, at.offset + frame.blobs_at)
                at = Position(segment=at.segment, offset=at.offset + frame.length, seq=frame.seq, chain=frame.checksum)
                if self._voids.get(at.seq) != at.chain:
                    yield Entry(position=at, mark=frame.mark, payload=frame.payload, inline_at=inline_at)
        return at

    def _gap(self, at: Position) -> Gap | None:
        """What stands behind *at*, where no record joins; None where the log simply ends."""
        later = [segment for segment in self._layout.segments() if segment > at.segment]
        with self._window(at.segment) as window:
            if not later and window.size() <= at.offset:
                return None
            resume = window.survivor(at)
        for segment in later:
            if resume is not None:
                break
            with self._window(segment) as window:
                resume = window.survivor(Position(segment=segment, offset=0, seq=at.seq, chain=0))
        return Gap(end=at, resume=resume)

    def bytes_before(self) -> dict[int, int]:
        """How many bytes of the log stand before each segment; before END: all."""
        total = 0
        before = {}
        for segment in self._layout.segments():
            before[segment] = total
            total += self._layout.segment(segment).stat().st_size
        return {**before, END: total}

    def holds(self, position: Position) -> bool:
        """Whether the record that *position* names ends there, whole: an index that says so belongs to this log."""
        if position == BEGINNING:
            return True
        with self._window(position.segment) as window:
            if position.offset == 0:
                return window.exists
            return window.ends_with(position)

    def newest_mark(self) -> int:
        """The highest mark that any whole record carries: what it covers was durable, whatever else is damaged."""
        for segment in reversed(self._layout.segments()):
            marks = [item.mark for item in self._walk_alone(segment) if isinstance(item, Entry)]
            if marks:
                return max(marks)
        return 0

    def _walk_alone(self, segment: int) -> Iterator[Entry | Gap]:
        """The records that stand in *segment*, whatever happened to the ones before."""
        for item in self.walk(self._before(segment)):
            at = item.end if isinstance(item, Gap) else item.position
            if at.segment != segment:
                return
            yield item

    def start_of(self, seq: int) -> Position:
        """A position before the record *seq*, at the beginning of its segment; its chain is taken from what stands there."""
        older = [segment for segment in self._layout.segments() if segment <= seq]
        return self._before(older[-1]) if older else BEGINNING

    def _before(self, segment: int) -> Position:
        with self._window(segment) as window:
            frame = window.frame(0)
        return Position(segment=segment, offset=0, seq=segment - 1, chain=frame.chain if frame else 0)

    def take_up(self, position: Position) -> bool:
        """As `holds`; and if so, take over what its record knows to be synced (`mark`)."""
        if not self.holds(position):
            return False
        self._take_mark(position)
        return True

    def _take_mark(self, position: Position) -> None:
        with self._window(position.segment) as window:
            self._mark = max(self._mark, window.last_mark(position))

    @contextmanager
    def _window(self, segment: int) -> Iterator[SegmentReader]:
        try:
            fd = self.open_segment(segment)
        except FileNotFoundError:
            yield SegmentReader(-1, segment)
            return
        try:
            yield SegmentReader(fd, segment)
        finally:
            os.close(fd)

    def open_segment(self, segment: int) -> int:
        """A new descriptor for reading inline bodies; the caller closes it. Raises FileNotFoundError: compaction dropped it."""
        return os.open(self._segment(segment), os.O_RDONLY | os.O_CLOEXEC)

    # -- appending --------------------------------------------------------------------

    def append(self, payload: Buffer, inline: Sequence[Buffer] = ()) -> Appended:
        """Write one record at the end, unsynced. Raises NoSpace, AccessDenied, Unavailable; then nothing was appended."""
        self.raise_if_failed()
        end = self._end
        record = codec.encode(end.seq + 1, mark=self._mark, chain=end.chain, payload=payload, blobs=inline)
        if end.offset and end.offset + record.length > self._segment_bytes:
            end = Position(segment=end.seq + 1, offset=0, seq=end.seq, chain=end.chain)
        try:
            fd = self._writer(end.segment)
            self._write(fd, record, end.offset)
        except OSError as error:
            raise _translated(error, "The log cannot be written") from error
        self._end = Position(segment=end.segment, offset=end.offset + record.length, seq=end.seq + 1, chain=record.checksum)
        return Appended(position=self._end, inline=tuple(_places(end.segment, end.offset + record.blobs_at, inline)))

    def _write(self, fd: int, record: codec.Encoded, offset: int) -> None:
        try:
            self._disk.write_all(fd, record.buffers, offset)
        except OSError:
            self._disk.truncate(fd, offset)
            raise

    def _writer(self, segment: int) -> int:
        fd = self._writers.get(segment)
        if fd is None:
            path = self._layout.segment(segment)
            try:
                fd = self._disk.create(path)
            except FileExistsError:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            with self._changed:
                self._writers[segment] = fd
        return fd

    # -- durability -------------------------------------------------------------------

    @property
    def mark(self) -> int:
        """The highest record known to be synced with all its bodies and all before it."""
        return self._mark

    def advance_mark(self, seq: int) -> None:
        """The caller has synced every body that records up to *seq* name, and the log: later records carry that."""
        self._mark = max(self._mark, seq)
        with self._changed:
            self._synced = max(self._synced, seq)

    def sync(self, end: Position = BEGINNING) -> int:
        """On return everything appended before the call survives a power cut; the number of the last record that does.

        *end*: where others appended to, as far as the index knows; this process may not have followed yet.
        Callers at the same time share one fsync. Raises Unavailable, NoSpace: what was not yet synced may be lost (L5).
        """
        want = max(self._end.seq, end.seq)
        with self._changed:
            while self._sync_running and self._synced < want:
                self._changed.wait()
            self.raise_if_failed()
            if self._synced >= want:
                return self._synced
            self._sync_running = True
            target = self._end if self._end.seq >= end.seq else end
        return self._lead(target)

    def _lead(self, target: Position) -> int:
        try:
            self._fsync_up_to(target.segment)
            with self._changed:
                self._synced = max(self._synced, target.seq)
                return self._synced
        except OSError as error:
            raise self.fail(error) from error
        finally:
            with self._changed:
                self._sync_running = False
                self._changed.notify_all()

    def _fsync_up_to(self, last: int) -> None:
        if self._synced_segment != last:
            for segment in self._layout.segments():
                if self._synced_segment <= segment < last:
                    self._fsync_segment(segment)
            self._disk.fsync_dir(self._layout.log)
        self._fsync_segment(last)
        self._synced_segment = last
        self._close_writers_before(last)

    def _fsync_segment(self, segment: int) -> None:
        fd = self._writers.get(segment)
        if fd is not None:
            self._disk.fsync(fd)
            return
        try:
            fd = self.open_segment(segment)
        except FileNotFoundError:
            return
        try:
            self._disk.fsync(fd)
        finally:
            os.close(fd)

    def _close_writers_before(self, segment: int) -> None:
        with self._changed:
            old = [number for number in self._writers if number < segment]
            for number in old:
                os.close(self._writers.pop(number))

    def fail(self, error: OSError) -> StoreError:
        """From now on the log refuses to append and to sync (L5); the error for whoever asked."""
        self._failure = (
            f"The data folder {self._layout.folder} could not be synced ({error.strerror}): recent changes may be lost; open it again."
        )
        log.error("%s", self._failure)
        return _translated(error, self._failure.rstrip("."))

    def raise_if_failed(self) -> None:
        """Raises Unavailable after a failed sync."""
        if self._failure is not None:
            raise Unavailable(self._failure)

    # -- repair (recovery only) -------------------------------------------------------

    def cut(self, end: Position) -> None:
        """End the log at *end*. What stood behind it goes to quarantine. Under the write lock; idempotent; durable on return."""
        later = [segment for segment in self._layout.segments() if segment > end.segment]
        for segment in reversed(later):
            self._disk.rename(self._layout.segment(segment), self._aside(segment, 0))
        self._cut_segment(end)
        self._disk.fsync_dir(self._layout.quarantine)
        self._disk.fsync_dir(self._layout.log)
        self._end = end

    def _cut_segment(self, end: Position) -> None:
        with self._window(end.segment) as window:
            tail = window.behind(end.offset)
        if not tail:
            return
        log.warning("The log was cut behind record %d: %d bytes that are no whole record went to quarantine.", end.seq, len(tail))
        publish(self._layout.quarantine / self._aside(end.segment, end.offset).name, tail, self._disk)
        fd = self._writer(end.segment)
        self._disk.truncate(fd, end.offset)
        self._disk.fsync(fd)

    def _aside(self, segment: int, offset: int) -> Path:
        return self._layout.quarantine / f"log-{segment}-{offset}-{secrets.token_hex(4)}"

    def void(self, entries: Sequence[Position]) -> None:
        """From now on the records that end at *entries* count as never written (L6). Durable on return."""
        self._voids.update({entry.seq: entry.chain for entry in entries})
        publish(self._layout.voids, json.dumps(sorted(self._voids.items())).encode(), self._disk)


def _places(segment: int, offset: int, inline: Sequence[Buffer]) -> Iterator[tuple[int, int]]:
    for blob in inline:
        yield segment, offset
        offset += len(blob)


def _translated(error: OSError, what: str) -> StoreError:
    kind: Callable[[str], StoreError] = FROM_OS.get(error.errno or 0, Unavailable)
    return kind(f"{what}: {error.strerror}.")

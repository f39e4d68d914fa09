"""Reading one version of one object: bytes from bodies, from the log, and from nowhere (holes).

Owns: the spans of a manifest, and the descriptors that keep them readable.
Must not know: the index, locks, who may read.

R1  A reader shows one version from its opening to its closing, whatever is committed, deleted or swept meanwhile: it holds descriptors.
    Where a manifest names more than `HELD_BODIES` bodies the index holds leases on them for it, and descriptors come and go.
R2  No descriptor is closed while a read uses it: closing waits for nobody, the last user closes.
R3  A read fills its whole buffer or raises. Bytes that ought to be there and are not are Corrupt.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from s3mount.engine.bodies import Bodies
from s3mount.engine.log import Log
from s3mount.engine.spans import File, InBody, InLog, Span, Spans, file_of
from s3mount.errors import Corrupt
from s3mount.model import ObjectInfo

# Descriptors are a scarce resource of the process (often 1024); most objects need one.
HELD_BODIES = 32


class Reader:
    """One version, open. Thread-safe. Raises FileNotFoundError at creation when a body is gone: look the object up again.

    *spans* are in order and cover the object; *on_close* is called once, when the last read has ended after `close`.
    """

    def __init__(self, info: ObjectInfo, spans: Spans, bodies: Bodies, log: Log, *, on_close: Callable[[], None] | None = None) -> None:
        self.info = info
        self._spans = spans
        self._files = _Files(bodies, log, on_close)
        try:
            self._files.hold(spans.files)
        except BaseException:
            self._files.close()
            raise

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill *buffer* from *offset*; the caller stays inside the object. Raises Corrupt, OSError, ValueError (closed, or outside)."""
        for span, at, view in self._cover(offset, buffer):
            if span.place is None:
                view[:] = bytes(len(view))
            else:
                self._read(span.place, at, view)

    def read_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        """As `read_into`, if the page cache holds it all; False (nothing promised of *buffer*) if not."""
        for span, at, view in self._cover(offset, buffer):
            if span.place is None:
                view[:] = bytes(len(view))
            elif not self._read_cached(span.place, at, view):
                return False
        return True

    def whole_file(self) -> tuple[int, int] | None:
        """A descriptor that the caller must close, and where in it the object begins, if all its bytes lie in one file; else None."""
        if len(self._spans) != 1:
            return None
        place = next(iter(self._spans.since(0))).place
        if place is None:
            return None
        with self._files.use(file_of(place)) as fd:
            return os.dup(fd), place.offset

    def close(self) -> None:
        """Idempotent; reads under way end well."""
        self._files.close()

    def _cover(self, offset: int, buffer: memoryview) -> Iterator[tuple[Span, int, memoryview]]:
        """The spans behind *buffer*, each with the offset within it and its share of the buffer."""
        done = 0
        for span in self._spans.since(offset):
            at = offset + done - span.offset
            share = min(span.length - at, len(buffer) - done)
            yield span, at, buffer[done : done + share]
            done += share
            if done == len(buffer):
                return
        if len(buffer) > done:
            raise ValueError(f"bytes {offset} to {offset + len(buffer)} lie outside of {self.info.size}")

    def _read(self, place: InBody | InLog, at: int, view: memoryview) -> None:
        with self._files.use(file_of(place)) as fd:
            done = 0
            while done < len(view):
                count = os.preadv(fd, [view[done:]], place.offset + at + done)
                if count == 0:
                    raise Corrupt(f"The object '{self.info.key}' is damaged: {place} ends before its bytes do; run 's3mount store scrub'.")
                done += count

    def _read_cached(self, place: InBody | InLog, at: int, view: memoryview) -> bool:
        with self._files.use(file_of(place)) as fd:
            try:
                return os.preadv(fd, [view], place.offset + at, os.RWF_NOWAIT) == len(view)
            except OSError:
                return False


class _Files:
    """Descriptors by file: segments and the first bodies always open, the others as they are needed, the longest unused closed first."""

    def __init__(self, bodies: Bodies, log: Log, on_close: Callable[[], None] | None) -> None:
        self._bodies = bodies
        self._log = log
        self._on_close = on_close
        self._lock = threading.Lock()
        self._open: OrderedDict[File, int] = OrderedDict()
        self._users: dict[File, int] = {}
        self._closed = False

    def hold(self, files: Iterable[File]) -> None:
        files = list(files)
        bodies = [file for file in files if isinstance(file, str)]
        for file in files:
            if isinstance(file, int) or len(bodies) <= HELD_BODIES:
                self._open[file] = self._open_file(file)

    def _open_file(self, file: File) -> int:
        return self._bodies.open(file) if isinstance(file, str) else self._log.open_segment(file)

    @contextmanager
    def use(self, file: File) -> Iterator[int]:
        with self._lock:
            if self._closed:
                raise ValueError("the reader is closed")
            fd = self._open.get(file)
            if fd is None:
                fd = self._open[file] = self._open_file(file)
            self._open.move_to_end(file)
            self._users[file] = self._users.get(file, 0) + 1
            self._trim()
        try:
            yield fd
        finally:
            with self._lock:
                self._users[file] -= 1
                if not self._users[file]:
                    del self._users[file]
                finished = self._closed and self._finish()
            self._tell(finished)

    def _trim(self) -> None:
        bodies = [file for file in self._open if isinstance(file, str)]
        idle = [file for file in bodies if file not in self._users]
        for file in idle[: max(0, len(bodies) - HELD_BODIES)]:
            os.close(self._open.pop(file))

    def close(self) -> None:
        with self._lock:
            first = not self._closed
            self._closed = True
            finished = first and self._finish()
        self._tell(finished)

    def _finish(self) -> bool:
        """Close everything unless somebody reads; whether that was it."""
        if self._users:
            return False
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
        return True

    def _tell(self, finished: bool) -> None:
        if finished and self._on_close is not None:
            self._on_close()

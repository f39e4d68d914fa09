"""The operations of the medium that crash safety rests on, in one object that tests can replace.

Owns: complete writes, sync, and changes of names.
Must not know: what is written, or why. Reading goes through plain `os` calls: it changes nothing.

Each method calls `step` with its own name before it acts. A test overrides `step` to stop there (a crash), or the methods to keep
track of what has been synced (a power cut). Errors of the operating system pass through as they are: the caller knows what they mean.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from s3mount.engine.codec import Buffer

# sync_file_range(2), which Python's os does not have: begin to write what is dirty, wait for nothing.
SYNC_FILE_RANGE_WRITE = 2

# pwritev takes at most this many buffers at once (IOV_MAX on Linux).
BUFFERS_AT_ONCE = 1024


def _sync_file_range() -> Callable[[int, int, int, int], object] | None:
    """None where the C library has none, or nothing may be called that way (memory that must not be executed, older libffi)."""
    try:
        library = importlib.import_module("ctypes")
        function = library.CDLL(None).sync_file_range
        function.argtypes = (library.c_int, library.c_int64, library.c_int64, library.c_uint)
    except (ImportError, AttributeError, OSError, MemoryError):
        return None
    found: Callable[[int, int, int, int], object] = function
    return found


_begin_sync = _sync_file_range()


class Disk:
    """The real medium."""

    def step(self, name: str) -> None:
        """Called before each operation; does nothing here."""

    def create(self, path: Path) -> int:
        """A descriptor, for reading and writing, of a new file. Raises FileExistsError."""
        self.step("create")
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write_all(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """Write every byte of *buffers*, one behind the other, from *offset* on; in one call of the system if it takes them all."""
        self.step("write")
        if len(buffers) == 1 and os.pwrite(fd, buffers[0], offset) == memoryview(buffers[0]).nbytes:
            return
        views = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        while views:
            written = os.pwritev(fd, views[:BUFFERS_AT_ONCE], offset)
            offset += written
            views = _behind(views, written)

    def begin_sync(self, fd: int, offset: int, length: int) -> None:
        """Have the disk begin to take these bytes, so that a later `fsync` finds little left. A hint: no promise, no error, no step."""
        if _begin_sync is not None:
            _begin_sync(fd, offset, length, SYNC_FILE_RANGE_WRITE)

    def fsync(self, fd: int) -> None:
        """What was written to *fd* survives a power cut; its name may not (`fsync_dir`)."""
        self.step("fsync")
        os.fsync(fd)

    def fsync_dir(self, path: Path) -> None:
        """The names in the folder *path* survive a power cut as they are now."""
        self.step("fsync_dir")
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Replaces *target*."""
        self.step("rename")
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Raises FileExistsError."""
        self.step("link")
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        """Raises FileNotFoundError."""
        self.step("unlink")
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        """Idempotent."""
        self.step("mkdir")
        path.mkdir(mode=0o700, exist_ok=True)

    def rmdir(self, path: Path) -> None:
        self.step("rmdir")
        os.rmdir(path)

    def truncate(self, fd: int, size: int) -> None:
        self.step("truncate")
        os.ftruncate(fd, size)


def _behind(views: list[memoryview], written: int) -> list[memoryview]:
    """What is left of *views* when their first *written* bytes are gone."""
    for number, view in enumerate(views):
        if written < len(view):
            return [view[written:], *views[number + 1 :]]
        written -= len(view)
    return []

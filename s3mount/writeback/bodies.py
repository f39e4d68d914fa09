"""The files of bodies: how their bytes get there, when they are safe, how they are read.

Owns: linking, copying, syncing, reading.
Must not know: what is in them, who names them. Everything here blocks.
"""

from __future__ import annotations

import os
from pathlib import Path

from s3mount.model import MiB, StagedBytes

COPY_BYTES = 1 * MiB


def linked(source: Path, path: Path) -> bool:
    try:
        os.link(source, path)
    except OSError:
        return False
    return True


def copied(source: StagedBytes, path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        buffer = memoryview(bytearray(COPY_BYTES))
        for position in range(0, source.length, COPY_BYTES):
            piece = buffer[: min(COPY_BYTES, source.length - position)]
            source.read_into(position, piece)
            while piece:
                written = os.pwrite(fd, piece, position)
                piece, position = piece[written:], position + written
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def read_all(fd: int, position: int, buffer: memoryview) -> None:
    """Fill *buffer* from *position* of a file. Raises EOFError rather than come short."""
    while buffer:
        count = os.preadv(fd, [buffer], position)
        if not count:
            raise EOFError(f"a body ends before {position}")
        buffer, position = buffer[count:], position + count


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""What the tests of the engine share: a bucket's name, a clock, staged bytes, ways to read a content.

Owns: nothing that a test asserts.
"""

from __future__ import annotations

import os
from pathlib import Path

from s3mount.engine.engine import Engine
from s3mount.model import Content, Hole, Kept, Key, ObjectInfo, Piece, Staged

BUCKET = "bucket"


def key(name: str) -> Key:
    return Key(name)


class Clock:
    """One second per look."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        self.now_ns += 1_000_000_000
        return self.now_ns


class InMemory:
    """Staged bytes without a file."""

    def __init__(self, data: bytes) -> None:
        self.path: Path | None = None
        self.length = len(data)
        self._data = data

    def read_into(self, position: int, buffer: memoryview) -> None:
        buffer[:] = self._data[position : position + len(buffer)]


class InFile:
    """Staged bytes in a file of *folder*; the descriptor outlives the name."""

    def __init__(self, folder: Path, data: bytes) -> None:
        self.path: Path = folder / os.urandom(8).hex()
        self.path.write_bytes(data)
        self.length = len(data)
        self._file = self.path.open("rb")

    def read_into(self, position: int, buffer: memoryview) -> None:
        if os.preadv(self._file.fileno(), [buffer], position) < len(buffer):
            raise EOFError

    def close(self) -> None:
        self._file.close()


def whole(source: InMemory | InFile) -> Content:
    return Content(source.length, (Staged(0, source.length, source, 0),) if source.length else ())


def edited(base: ObjectInfo, offset: int, data: bytes) -> Content:
    """*data* laid over *base*; what lies between its end and *offset* is a hole."""
    end = offset + len(data)
    pieces: list[Piece] = []
    if kept := min(offset, base.size):
        pieces.append(Kept(0, kept))
    if kept < offset:
        pieces.append(Hole(kept, offset - kept))
    pieces.append(Staged(offset, len(data), InMemory(data), 0))
    if end < base.size:
        pieces.append(Kept(end, base.size - end))
    return Content(max(end, base.size), tuple(pieces), base)


def read(engine: Engine, name: str, *, bucket: str = BUCKET) -> bytes:
    reader = engine.open_object(bucket, key(name))
    try:
        buffer = bytearray(reader.info.size)
        reader.read_into(0, memoryview(buffer))
        return bytes(buffer)
    finally:
        reader.close()


def keys(engine: Engine, prefix: str = "") -> list[str]:
    return [info.key for info in engine.list(BUCKET, prefix, limit=10_000).objects]


def body_files(engine: Engine) -> list[Path]:
    return sorted(path for path in (engine.folder / "bodies").rglob("*") if path.is_file())

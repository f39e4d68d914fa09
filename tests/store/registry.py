"""The conformance suite's frame: how a check is declared, what it may ask for, and the helpers that checks share.

Owns: `conforms`, `Check`, `apply` (the one place where a missing capability skips a check), ways to write and read contents.
Must not know: any store; a check gets one, empty, and leaves it as it likes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3mount.model import ByteRange, Content, Kept, Key, ObjectInfo, Piece, Staged, StagedBytes
from s3mount.store.api import COMMIT_ID, Capabilities, ObjectStore, Pin

Run = Callable[[ObjectStore], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One sentence about behaviour; `needs` are names of `Capabilities`."""

    name: str
    needs: tuple[str, ...]
    run: Run


CHECKS: list[Check] = []


def conforms(*needs: str) -> Callable[[Run], Run]:
    """Add the decorated function to the suite."""

    def add(run: Run) -> Run:
        CHECKS.append(Check(getattr(run, "__name__", repr(run)), needs, run))
        return run

    return add


def lacking(check: Check, capabilities: Capabilities) -> list[str]:
    return [name for name in check.needs if not getattr(capabilities, name)]


async def apply(check: Check, store: ObjectStore) -> None:
    missing = lacking(check, store.capabilities)
    if missing:
        pytest.skip(f"this store has no {', '.join(missing)}")
    await check.run(store)


# -- contents -----------------------------------------------------------------------------


def pattern(size: int, seed: int = 0) -> bytes:
    """*size* bytes that are like no others: every shift and every seed shows."""
    block = bytes((seed * 37 + at * at // 7 + at) % 251 for at in range(1009))
    return (block * (size // len(block) + 1))[:size]


async def read(store: ObjectStore, key: Key) -> bytes:
    """The object's whole current content."""
    info = await store.head(key)
    buffer = bytearray(info.size)
    if info.size:
        await store.get_into(key, ByteRange(0, info.size), memoryview(buffer), if_match=info.etag)
    return bytes(buffer)


async def read_pin(pin: Pin, offset: int = 0, size: int | None = None) -> bytes:
    """Bytes of a pinned version, by whichever way answers."""
    buffer = bytearray(pin.info.size - offset if size is None else size)
    if buffer and not pin.get_into_nowait(offset, memoryview(buffer)):
        await pin.get_into(offset, memoryview(buffer))
    return bytes(buffer)


async def keys_of(store: ObjectStore, prefix: str = "") -> list[str]:
    """Every key under *prefix*, page by page."""
    keys: list[str] = []
    after = ""
    while True:
        page = await store.list(prefix, after=after)
        keys += [info.key for info in page.objects]
        if page.next is None:
            return keys
        after = page.next


def own_metadata(info: ObjectInfo) -> Mapping[str, str]:
    """The metadata without the commit id, which a wrapper may have added."""
    assert info.metadata is not None
    return {name: value for name, value in info.metadata.items() if name != COMMIT_ID}


class InMemory:
    """Staged bytes in memory."""

    path: Path | None = None

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def read_into(self, position: int, buffer: memoryview) -> None:
        if position + len(buffer) > self.length:
            raise EOFError(position)
        buffer[:] = self._data[position : position + len(buffer)]


class InFile:
    """Staged bytes in a file, whose name may go while the descriptor stays."""

    def __init__(self, folder: Path, data: bytes) -> None:
        self.fd, name = tempfile.mkstemp(dir=folder)
        self.path: Path | None = Path(name)
        self.length = os.write(self.fd, data)
        assert self.length == len(data)

    def read_into(self, position: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(self.fd, [buffer[done:]], position + done)
            if count == 0:
                raise EOFError(position)
            done += count


@contextmanager
def staging_folder(store: ObjectStore) -> Iterator[Path]:
    if store.staging is not None:
        yield store.staging
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def in_file(store: ObjectStore, data: bytes) -> Iterator[InFile]:
    """*data* staged where the store wants it."""
    with staging_folder(store) as folder:
        staged = InFile(folder, data)
        try:
            yield staged
        finally:
            os.close(staged.fd)


def whole(source: StagedBytes) -> Content:
    """A content that is all of *source*."""
    return Content(source.length, (Staged(0, source.length, source, 0),) if source.length else ())


def edited(base: ObjectInfo, offset: int, source: StagedBytes) -> Content:
    """*base* with *source* written over it at *offset*, which lies inside or at its end."""
    end = offset + source.length
    pieces: list[Piece] = [Kept(0, offset)] if offset else []
    pieces.append(Staged(offset, source.length, source, 0))
    if end < base.size:
        pieces.append(Kept(end, base.size - end))
    return Content(max(end, base.size), tuple(pieces), base)

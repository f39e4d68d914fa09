"""Moving the bytes of one object between files, pipes and stores.

Owns: staging what is uploaded, making a downloaded file visible only when it is whole, progress by bytes.
Must not know: URLs, options, which implementation a store is. Memory does not grow with the object.

A regular file is copied into the store's staging folder by the kernel (holes stay holes) and adopted; where the store has none, it is read
from its own place. A pipe is staged first: its length is not known before its end.
"""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import trio

from s3mount.cli.output import Progress
from s3mount.cli.report import naming
from s3mount.model import Content, Hole, Key, MiB, ObjectInfo, Piece, Staged
from s3mount.store.api import Commit, ObjectStore, Pin

# Up to here one read and one put is cheaper than a staged file.
PUT_BYTES = 1 * MiB
# One step between two looks at Ctrl-C and the progress bar; far above what a thread hop costs (0.1 ms).
STEP_BYTES = 16 * MiB
# The buffer for reading from a store: the size of a request that pays on any of them.
READ_BYTES = 8 * MiB


@dataclass(frozen=True, slots=True)
class FileBytes:
    """Bytes for a commit in an open file. `path` only where the store may take the file over."""

    fd: int
    length: int
    path: Path | None = None

    def read_into(self, position: int, buffer: memoryview) -> None:
        while buffer.nbytes:
            got = os.preadv(self.fd, [buffer], position)
            if not got:
                raise EOFError(f"{got} bytes at {position} of {self.length}")
            buffer, position = buffer[got:], position + got


def new_commit(content_type: str, commit: Commit = Commit()) -> Commit:  # noqa: B008 (frozen)
    """*commit* with this type, and an id by which a lost reply can be cleared up."""
    return replace(commit, content_type=content_type, commit_id=secrets.token_hex(16))


async def upload_file(store: ObjectStore, key: Key, path: Path, commit: Commit, progress: Progress) -> ObjectInfo:
    """Make the file's bytes the object. Raises OSError of the file, and what `adopt` raises."""
    fd = await trio.to_thread.run_sync(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    try:
        size = os.fstat(fd).st_size
        if size <= PUT_BYTES:
            return await _put_small(store, key, fd, size, commit, progress)
        if not store.capabilities.adopt:
            info = await store.adopt(key, Content(size, tuple(pieces_of(fd, size))), commit)
            progress(size)
            return info
        return await _adopt_copy(store, key, fd, size, commit, progress)
    finally:
        os.close(fd)


async def _put_small(store: ObjectStore, key: Key, fd: int, size: int, commit: Commit, progress: Progress) -> ObjectInfo:
    data = await trio.to_thread.run_sync(os.pread, fd, size, 0)
    info = await store.put(key, data, commit)
    progress(len(data))
    return info


async def _adopt_copy(store: ObjectStore, key: Key, fd: int, size: int, commit: Commit, progress: Progress) -> ObjectInfo:
    with staged_file(store) as (path, target):
        pieces = list(pieces_of(fd, size))
        for piece in pieces:
            if isinstance(piece, Staged):
                await copy_bytes(fd, target, piece.offset, piece.length, progress)
            else:
                progress(piece.length)
        os.ftruncate(target, size)
        source = FileBytes(target, size, path)
        return await store.adopt(key, Content(size, tuple(_from(source, piece) for piece in pieces)), commit)


def _from(source: FileBytes, piece: Piece) -> Piece:
    return replace(piece, source=source) if isinstance(piece, Staged) else piece


def pieces_of(fd: int, size: int) -> Iterator[Piece]:
    """The file's content as it lies on disk: what is written is Staged from the file itself, the rest are holes."""
    source = FileBytes(fd, size)
    at = 0
    while at < size:
        start = min(_seek(fd, at, os.SEEK_DATA, size), size)
        if start > at:
            yield Hole(at, start - at)
        at = min(_seek(fd, start, os.SEEK_HOLE, size), size) if start < size else size
        if at > start:
            yield Staged(start, at - start, source, start)


def _seek(fd: int, at: int, whence: int, size: int) -> int:
    try:
        return os.lseek(fd, at, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        return at if whence == os.SEEK_DATA else size


async def copy_bytes(source: int, target: int, offset: int, length: int, progress: Progress) -> None:
    """Copy a range between two files at the same offset. Raises EOFError where the source has become shorter."""
    while length:
        done = await trio.to_thread.run_sync(_copy_step, source, target, offset, min(length, STEP_BYTES))
        if not done:
            raise EOFError("the file became shorter while it was copied")
        progress(done)
        offset, length = offset + done, length - done


def _copy_step(source: int, target: int, offset: int, length: int) -> int:
    try:
        return os.copy_file_range(source, target, length, offset, offset)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            raise
        return write_all(target, memoryview(os.pread(source, length, offset)), offset)


def write_all(fd: int, data: memoryview, offset: int) -> int:
    """Write all of *data* at *offset*; how many bytes that were."""
    done = 0
    while done < data.nbytes:
        done += os.pwrite(fd, data[done:], offset + done)
    return done


async def upload_stream(store: ObjectStore, key: Key, stream: BinaryIO, commit: Commit, progress: Progress) -> ObjectInfo:
    """Make everything that *stream* gives until its end the object. Nothing is visible before that."""
    unbuffered = raw(stream)
    with staged_file(store) as (path, fd):
        size = 0
        while data := await trio.to_thread.run_sync(_read_much, unbuffered, abandon_on_cancel=True):
            size += await trio.to_thread.run_sync(write_all, fd, memoryview(data), size)
            progress(len(data))
        source = FileBytes(fd, size, path)
        return await store.adopt(key, Content(size, (Staged(0, size, source, 0),) if size else ()), commit)


def raw(stream: BinaryIO) -> BinaryIO:
    """*stream* without its buffer: a thread that Ctrl-C leaves behind must hold no lock that the interpreter's end wants."""
    stream.flush()
    return getattr(stream, "raw", stream)


def _read_much(stream: BinaryIO) -> bytes:
    """PUT_BYTES, or what there is until the end: a pipe gives little at a time, a thread hop costs as much as reading it."""
    parts: list[bytes] = []
    missing = PUT_BYTES
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


@contextmanager
def staged_file(store: ObjectStore) -> Iterator[tuple[Path, int]]:
    """A new file where the store can take it over, open for reading and writing; what is left of its name goes afterwards."""
    folder = store.staging or Path(tempfile.gettempdir())
    fd, name = tempfile.mkstemp(prefix="cp-", dir=folder)
    try:
        with naming(folder):
            yield Path(name), fd
    finally:
        os.close(fd)
        Path(name).unlink(missing_ok=True)


async def read_object(pin: Pin, take: Callable[[memoryview, int], object], progress: Progress, *, may_hang: bool = False) -> None:
    """Hand the pinned version's bytes to *take* (called with bytes and their offset, in a thread), in order.

    *may_hang*: *take* may wait for somebody who never reads; then Ctrl-C does not wait for it.
    """
    buffer = memoryview(bytearray(min(pin.info.size, READ_BYTES)))
    for at in range(0, pin.info.size, READ_BYTES):
        part = buffer[: min(READ_BYTES, pin.info.size - at)]
        await pin.get_into(at, part)
        await trio.to_thread.run_sync(take, part, at, abandon_on_cancel=may_hang)
        progress(part.nbytes)


async def download(pin: Pin, path: Path, progress: Progress) -> None:
    """Write the pinned version as the file *path*, which others see whole or not at all; a device or a fifo gets the bytes as they come.

    A file that was there keeps its mode; a symbolic link stays one. Raises OSError.
    """
    path = await trio.to_thread.run_sync(path.resolve)
    if await trio.to_thread.run_sync(lambda: path.exists() and not path.is_file()):
        with await trio.to_thread.run_sync(path.open, "wb", 0) as stream:
            return await write_out(pin, stream, progress)
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with naming(path):
            await read_object(pin, lambda data, at: write_sparse(fd, data, at), progress)
            await trio.to_thread.run_sync(_finish, fd, partial, path, pin.info.size)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _finish(fd: int, partial: Path, path: Path, size: int) -> None:
    os.ftruncate(fd, size)
    if path.exists():
        os.fchmod(fd, path.stat().st_mode & 0o777)
    partial.replace(path)


def sync_file(path: Path) -> None:
    """On return the file or folder *path*, and its name, survive a power cut."""
    for place in (path, path.parent):
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with naming(place):
                os.fsync(fd)
        finally:
            os.close(fd)


def write_sparse(fd: int, data: memoryview, offset: int) -> None:
    """Write *data*, but leave its long runs of zeros as holes."""
    for at in range(0, data.nbytes, MiB):
        block = data[at : at + MiB]
        if block[0] or block[-1] or block != _ZEROS[: block.nbytes]:
            write_all(fd, block, offset + at)


_ZEROS = memoryview(bytes(MiB))


async def write_out(pin: Pin, stream: BinaryIO, progress: Progress) -> None:
    """Write the pinned version to *stream*."""
    unbuffered = raw(stream)
    await read_object(pin, lambda data, at: _write_fully(unbuffered, data), progress, may_hang=True)


def _write_fully(stream: BinaryIO, data: memoryview) -> None:
    while data.nbytes:
        data = data[stream.write(data) :]


async def copy_between(pin: Pin, store: ObjectStore, key: Key, progress: Progress) -> ObjectInfo:
    """Make the pinned version an object of another store, with its metadata and type."""
    info = pin.info
    commit = new_commit(info.content_type, Commit(metadata=info.metadata or {}, storage_class=info.storage_class))
    with staged_file(store) as (path, fd):
        await read_object(pin, lambda data, at: write_sparse(fd, data, at), progress)
        os.ftruncate(fd, info.size)
        source = FileBytes(fd, info.size, path)
        return await store.adopt(key, Content(info.size, tuple(_from(source, piece) for piece in pieces_of(fd, info.size))), commit)

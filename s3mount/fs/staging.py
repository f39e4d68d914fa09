"""Where bytes wait until they are committed.

Owns: the folder for staged files, and the logs in it: one `StagingFile` per generation of a content.
Must not know: inodes, keys, which part of a file the bytes belong to.

A log begins in memory and moves to a file when it outgrows `MEMORY_BYTES` or the area's budget, so that small files cost no file creation.

    IN MEMORY --grows--> IN A FILE --freeze--> FROZEN --retire--> RETIRED (once nobody holds it: descriptor closed, name removed)
        `------------- freeze ----------------^

In a folder that a store gave us the file has a name, so that the store can take it over; elsewhere it is anonymous, so that nothing stays
behind when the process is killed. A store that took the file moved it away: from then on `path` is None, and we only read our descriptor.
A named file is hashed while it is written (see running_hash), for the store that takes it over; not one that was written over in places.

Invariants:
G1  What lies below `length` and was acknowledged by `write` does not change after `freeze`, nor go before `retire`.
G2  A write that failed leaves `length`, and all that was written before outside its own places.
G3  The name is removed exactly once, by `retire`, and only while it still names our file.
G4  The area's `memory` is the sum of what its logs hold in memory.
G5  A write that finds the folder full is tried once more after whoever gave us the folder has made room: it fails if that was in vain.
"""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from s3mount.errors import FROM_OS, NoSpace, StoreError, Unavailable
from s3mount.fs.running_hash import RunningHash
from s3mount.model import KiB, MiB

# A log up to this size stays in memory: most files of a source tree, and no file creation (about 50 microseconds) for them.
MEMORY_BYTES = 128 * KiB
# All logs of an area together: 1000 small files open at once; beyond, new ones go to files at once.
MEMORY_BUDGET = 128 * MiB
# Smaller writes never go through a thread: the hop alone costs 100 microseconds.
THREAD_BYTES = 256 * KiB
# Larger ones do once the last took this long, for the disk makes writers wait. While it does not, 1 MiB takes 0.3 ms, and hashing it as
# long: written in place, with neither the hop nor two threads that fight for the interpreter, a large file takes two thirds of the work.
PATIENCE_S = 0.02
# Threads that write or read staged bytes at once; more only queue at the disk.
THREADS = 8
# What removing a file may cost inline; larger ones (freed extent by extent) are removed in a thread.
UNLINK_BYTES = 16 * MiB
# The kernel tells of a closed file a moment after close(2) has returned; a removed one keeps its room until then.
RELEASE_S = 0.1


class StagingArea:
    """All staged bytes of one mount: named files in *folder* (which exists), or anonymous ones in a temporary folder (None)."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        memory_budget: int = MEMORY_BUDGET,
        patience_s: float = PATIENCE_S,
        make_room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """*make_room* frees what it can in the folder; its StoreErrors mean that it could not."""
        self.folder = folder
        self.limiter = trio.CapacityLimiter(THREADS)
        self.memory = 0
        self.last_write_s = 0.0
        self._budget = memory_budget
        self._patience_s = patience_s
        self._make_room = make_room

    def __repr__(self) -> str:
        return f"<StagingArea {self.folder or 'temporary'}, {self.memory} bytes in memory>"

    def create(self) -> StagingFile:
        """An empty log."""
        return StagingFile(self)

    def hold(self, data: bytearray) -> StagingFile:
        """A frozen log in memory that is *data* (not copied; the caller does not change it any more)."""
        return StagingFile(self, data)

    def may_hold(self, size: int, *, more: int) -> bool:
        """Whether a log of *size* bytes, *more* of them new, may be in memory."""
        return size <= MEMORY_BYTES and self.memory + more <= self._budget

    def makes_wait(self) -> bool:
        """Whether the last large write took so long that the next one should not be waited for in place."""
        return self.last_write_s >= self._patience_s

    def make_file(self) -> tuple[int, Path | None]:
        """A new file's descriptor, and its name if it has one. Raises OSError."""
        if self.folder is None:
            with tempfile.TemporaryFile(buffering=0, dir=_temporary_folder()) as file:
                return os.dup(file.fileno()), None
        path = self.folder / f"{secrets.token_hex(12)}.staged"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path

    async def read_out(self, places: Sequence[tuple[StagingFile, int, memoryview]]) -> None:
        """Fill each buffer from its place, all in one thread. Raises Unavailable."""

        def read_all() -> None:
            for file, position, buffer in places:
                file.read_into(position, buffer)

        try:
            await trio.to_thread.run_sync(read_all, limiter=self.limiter)
        except OSError as error:
            raise self.refusal(error) from error

    async def made_room(self, error: OSError) -> bool:
        """Whether there is a point in trying again what failed with *error*: the folder was full, and something may have been freed."""
        if self._make_room is None or FROM_OS.get(error.errno or 0) is not NoSpace:
            return False
        try:
            await trio.sleep(RELEASE_S)
            await self._make_room()
        except StoreError:
            return False
        return True

    def refusal(self, error: OSError) -> StoreError:
        """What *error* means to the one who writes."""
        where = self.folder or _temporary_folder()
        if error.errno == errno.EFBIG:
            return NoSpace(f"A file in the staging folder {where} may not grow further (a limit of this process or file system).")
        if FROM_OS.get(error.errno or 0) is NoSpace:
            return NoSpace(f"The staging folder {where} is full; free some space and try again.")
        return Unavailable(f"The staging folder {where} cannot be used: {error.strerror}.")


class StagingFile:
    """The log of one generation. As `model.StagedBytes`, it is what a commit sends."""

    def __init__(self, area: StagingArea, data: bytearray | None = None) -> None:
        self._area = area
        self._memory: bytearray | None = bytearray() if data is None else data
        self._fd = -1
        self._path: Path | None = None
        self._hash: RunningHash | None = None
        self._length = len(self._memory)
        area.memory += self._length
        self._given_back: dict[int, int] = {}
        self._frozen = data is not None
        self._retired = False
        self._holders = 0
        self._writing = 0
        self._idle = trio.Event()

    def __repr__(self) -> str:
        state = "retired" if self._retired else "frozen" if self._frozen else "open"
        return f"<StagingFile {state}, {self._length} bytes {'in memory' if self._memory is not None else self._path or 'anonymous'}>"

    # -- model.StagedBytes ------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """Its name, as long as that is still ours."""
        return self._path if self._path is not None and self._fd >= 0 and _names(self._path, self._fd) else None

    @property
    def length(self) -> int:
        return self._length

    @property
    def digest(self) -> bytes | None:
        """The BLAKE3 hash of all of it, where that is known without reading it again; None before `wait_written`."""
        return self._hash.digest(self._length) if self._frozen and not self._writing and self._hash is not None else None

    def read_into(self, position: int, buffer: memoryview) -> None:
        """Fill *buffer* from *position*. Blocking; raises EOFError rather than come short."""
        if self._memory is not None:
            self._copy_into(position, buffer)
            return
        while buffer:
            count = os.preadv(self._fd, [buffer], position)
            if not count:
                raise EOFError(f"staged bytes end before {position}")
            buffer, position = buffer[count:], position + count

    # -- for the content --------------------------------------------------------------

    @property
    def writing(self) -> bool:
        """A write is under way."""
        return self._writing > 0

    @property
    def frozen(self) -> bool:
        return self._frozen

    @property
    def retired(self) -> bool:
        return self._retired

    def view(self) -> memoryview:
        """All of a log in memory; only when frozen."""
        assert self._frozen
        assert self._memory is not None
        return memoryview(self._memory)

    def whole(self, size: int) -> bytearray | None:
        """All of a frozen log of *size* bytes, where they are in memory; nobody changes them, nor may the caller."""
        done = self._frozen and not self._writing and self._memory is not None and len(self._memory) == size
        return self._memory if done else None

    def read_into_nowait(self, position: int, buffer: memoryview) -> bool:
        """As `read_into` if memory or the page cache has the bytes; False (nothing promised of *buffer*) if one would have to wait."""
        if self._memory is not None:
            self._copy_into(position, buffer)
            return True
        try:
            return os.preadv(self._fd, [buffer], position, os.RWF_NOWAIT) == len(buffer)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return False
            raise

    async def read(self, position: int, buffer: memoryview) -> None:
        """As `read_into`, in a thread. Raises Unavailable."""
        try:
            await trio.to_thread.run_sync(self.read_into, position, buffer, limiter=self._area.limiter)
        except OSError as error:
            raise self._area.refusal(error) from error

    async def write(self, parts: Sequence[tuple[int, memoryview]]) -> None:
        """Write each part at its position: over old bytes, or from `length` on without a gap. Raises NoSpace, Unavailable (G2).

        `length` covers the parts at once, before anything is waited for. A cancellation is heeded before the first byte only, or while
        room is made.
        """
        assert not self._frozen
        assert not self._retired
        former = self._length
        end = max(former, *(position + len(data) for position, data in parts))
        self._length = end
        self._writing += 1
        try:
            try:
                await self._write_once(parts, former, end)
            except OSError as error:
                if not await self._area.made_room(error):
                    raise
                await self._write_once(parts, former, end)
        except OSError as error:
            self._give_back(former, end)
            raise self._area.refusal(error) from error
        except BaseException:
            self._give_back(former, end)
            raise
        finally:
            self._writing -= 1
            if not self._writing:
                self._idle.set()

    async def _write_once(self, parts: Sequence[tuple[int, memoryview]], former: int, end: int) -> None:
        self._spill_unless_small(end)
        if any(position < former for position, _ in parts):
            self._hash = None
        if self._memory is not None or not self._area.makes_wait() or sum(len(data) for _, data in parts) < THREAD_BYTES:
            self._write_now(parts)
        else:
            await trio.to_thread.run_sync(self._write_now, parts, limiter=self._area.limiter)

    def freeze(self) -> None:
        """No write may begin any more; idempotent."""
        self._frozen = True

    async def wait_written(self) -> None:
        """Until the writes that had begun are over; then the file ends at `length`."""
        assert self._frozen
        while self._writing:
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()
        if self._fd >= 0 and os.fstat(self._fd).st_size > self._length:
            os.ftruncate(self._fd, self._length)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep it from going while one reads; whoever retires it meanwhile leaves that to us."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._retired and not self._holders:
                self._let_go()

    @property
    def goes_at_once(self) -> bool:
        """Whether `retire` waits for nothing."""
        return not self._writing and (self._fd < 0 or self._length <= UNLINK_BYTES)

    def retire_nowait(self) -> None:
        """As `retire`, of one that `goes_at_once`."""
        assert self.goes_at_once
        if not self._retired:
            self._retired = self._frozen = True
            if not self._holders:
                self._let_go()

    async def retire(self) -> None:
        """The bytes are not needed any more. Idempotent; nobody may be writing. Not cancellable."""
        if self._retired:
            return
        assert not self._writing
        self._retired = self._frozen = True
        if self._holders:
            return
        if self._fd >= 0 and self._length > UNLINK_BYTES:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._let_go, limiter=self._area.limiter)
        else:
            self._let_go()

    # -- within -----------------------------------------------------------------------

    def _copy_into(self, position: int, buffer: memoryview) -> None:
        assert self._memory is not None
        data = self._memory[position : position + len(buffer)]
        if len(data) != len(buffer):
            raise EOFError(f"staged bytes end before {position + len(buffer)}")
        buffer[:] = data

    def _write_now(self, parts: Sequence[tuple[int, memoryview]]) -> None:
        # The last part first: it is the one that grows the log, and if the disk is full the places of the others are not touched yet.
        began = time.perf_counter()
        for position, data in sorted(parts, key=lambda part: -part[0]):
            self._put(position, data)
        if sum(len(data) for _, data in parts) >= THREAD_BYTES:
            self._area.last_write_s = time.perf_counter() - began
        if (running := self._hash) is not None:
            for position, data in parts:
                running.add(position, data)

    def _put(self, position: int, data: memoryview) -> None:
        if self._memory is not None:
            grown = max(0, position + len(data) - len(self._memory))
            if position > len(self._memory):
                self._memory.extend(bytes(position - len(self._memory)))
            self._memory[position : position + len(data)] = data
            self._area.memory += grown
            return
        _pwrite_all(self._fd, data, position)

    def _give_back(self, former: int, end: int) -> None:
        """A write that took the log's end from *former* to *end* failed; so may others behind it have, or not yet."""
        if end > former:
            self._given_back[end] = former
        while self._length in self._given_back:
            self._length = self._given_back.pop(self._length)

    def _spill_unless_small(self, end: int) -> None:
        if self._memory is None or self._area.may_hold(end, more=end - len(self._memory)):
            return
        fd, path = self._area.make_file()
        try:
            # A copy: an error's traceback keeps what was written alive, and memory that is looked at cannot grow.
            _pwrite_all(fd, memoryview(bytes(self._memory)), 0)
        except OSError:
            _remove(path, fd)
            raise
        self._area.memory -= len(self._memory)
        if path is not None:
            self._hash = RunningHash()
            self._hash.add(0, memoryview(bytes(self._memory)))
        self._memory, self._fd, self._path = None, fd, path

    def _let_go(self) -> None:
        if self._memory is not None:
            self._area.memory -= len(self._memory)
            self._memory = bytearray()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _remove(self._path, fd)
            self._path = None


def _pwrite_all(fd: int, data: memoryview, position: int) -> None:
    while data:
        count = os.pwrite(fd, data, position)
        data, position = data[count:], position + count


def _temporary_folder() -> str:
    # /tmp is memory on many systems; /var/tmp is the place for what may be large.
    return "/var/tmp" if os.access("/var/tmp", os.W_OK | os.X_OK) else tempfile.gettempdir()


def _names(path: Path, fd: int) -> bool:
    """Whether *path* is a name of the open file *fd*."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _remove(path: Path | None, fd: int) -> None:
    try:
        if path is not None and _names(path, fd):
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)

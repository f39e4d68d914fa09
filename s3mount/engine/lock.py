"""The locks of a data folder: who may write, and which processes live.

Owns: the write lock (one holder on the machine), owner folders (one per live process), turns at upkeep.
Must not know: what is done under them.

Both are flock(2): the kernel gives them back when a process ends, however it ends. A flock belongs to an open file description, so two
engines in one process exclude each other too; threads of one engine share the description and are told apart by a `threading.Lock`.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from s3mount.engine.disk import Disk

OWNER_LOCK = "owner.lock"

# How long `settle` waits before it looks again whether somebody else has settled it: what lingers is ended in less.
LOOK_AGAIN_SECONDS = 0.001


class WouldWait(Exception):
    """Somebody in a hurry would have to wait: nothing happened; do it again where one may wait (see `WriteLock.in_a_hurry`)."""


class WriteLock:
    """Held around each transaction; not re-entrant. Raises OSError where the folder's medium cannot lock.

    A transaction may *linger* (see the module of that name): then no other process gets the lock, and the next thread that takes it ends
    what lingers first.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._thread_lock = threading.Lock()
        self._holder: int | None = None
        self._hurry = threading.local()
        self._end: Callable[[], None] | None = None
        self.resumed = Resumed(self)
        """`with lock.resumed` is as `with lock`, but what lingers goes on."""

    @property
    def held(self) -> bool:
        """Whether the calling thread holds it."""
        return self._holder == threading.get_ident()

    @property
    def hurried(self) -> bool:
        """Whether the calling thread must not wait."""
        return getattr(self._hurry, "on", False)

    @property
    def owed(self) -> list[Any] | None:
        """Where the calling thread, in a hurry, leaves what its durable commits still need."""
        return getattr(self._hurry, "owed", None)

    @contextmanager
    def in_a_hurry(self, owed: list[Any] | None = None) -> Iterator[None]:
        """In the calling thread, what would wait for others (or for the medium, see `commit`) raises WouldWait instead.

        A durable commit is made, and what it has to wait for is put into *owed*: `Engine.settle` does that.
        """
        before = self.hurried, self.owed
        self._hurry.on, self._hurry.owed = True, owed
        try:
            yield
        finally:
            self._hurry.on, self._hurry.owed = before

    def __enter__(self) -> WriteLock:
        self.take()
        try:
            self.end()
        except BaseException:
            self.leave()
            raise
        return self

    def take(self) -> None:
        """Hold it, until `leave`; what lingers goes on."""
        if self.held:
            raise AssertionError("the write lock is not re-entrant")
        hurried = self.hurried
        if not self._thread_lock.acquire(blocking=not hurried):
            raise WouldWait
        try:
            if self._end is None:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB if hurried else fcntl.LOCK_EX)
        except BlockingIOError:
            self._thread_lock.release()
            raise WouldWait from None
        except BaseException:
            self._thread_lock.release()
            raise
        self._holder = threading.get_ident()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave()

    def leave(self) -> None:
        self._holder = None
        try:
            if self._end is None:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()

    # -- lingering --------------------------------------------------------------------

    @property
    def lingers(self) -> bool:
        """Whether something lingers."""
        return self._end is not None

    def linger(self, end: Callable[[], None]) -> None:
        """The holder's transaction goes on behind the `with` block, until *end* was called; that fails for nothing that can be foreseen."""
        self._end = end

    def end(self) -> None:
        """The holder ends what lingers. Idempotent."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def settle(self) -> None:
        """On return nothing lingers. Not for the holder; waits for no other process, and for no other transaction of this one."""
        while self._end is not None:
            if self._thread_lock.acquire(timeout=LOOK_AGAIN_SECONDS):
                self._holder = threading.get_ident()
                try:
                    self.end()
                finally:
                    self.leave()

    def close(self) -> None:
        """Idempotent; nobody may hold it."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Resumed:
    """See `WriteLock.resumed`."""

    __slots__ = ("_lock",)

    def __init__(self, lock: WriteLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.take()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.leave()


@contextmanager
def turn(path: Path, *, wait: bool) -> Iterator[bool]:
    """Work that one process at a time does: True while it is ours; False, at once, if somebody else is at it and we do not *wait*."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)


class Owner:
    """One process's folder in staging/. It lives as long as its lock is held: until `close`, or the end of the process.

    Made and swept under the write lock, so that nobody takes a folder for abandoned in the moment between its creation and its lock.
    """

    def __init__(self, staging: Path, disk: Disk) -> None:
        self.id = secrets.token_hex(8)
        self.folder = staging / self.id
        disk.mkdir(self.folder)
        self._fd = os.open(self.folder / OWNER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def close(self) -> None:
        """Give the lock back, and remove the folder unless there is something in it: that stays for the sweeper. Idempotent."""
        if self._fd < 0:
            return
        try:
            if os.listdir(self.folder) == [OWNER_LOCK]:
                os.unlink(self.folder / OWNER_LOCK)
                os.rmdir(self.folder)
        except FileNotFoundError:
            pass  # a sweeper was quicker
        os.close(self._fd)
        self._fd = -1


def is_alive(owner_folder: Path) -> bool:
    """Whether the process that owns *owner_folder* lives (this one included)."""
    try:
        fd = os.open(owner_folder / OWNER_LOCK, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: who asks at the same time is not taken for the owner
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False

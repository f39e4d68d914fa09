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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from s3mount.engine.disk import Disk

OWNER_LOCK = "owner.lock"


class WouldWait(Exception):
    """Somebody in a hurry would have to wait: nothing happened; do it again where one may wait (see `WriteLock.in_a_hurry`)."""


class WriteLock:
    """Held around each transaction; not re-entrant. Raises OSError where the folder's medium cannot lock."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._thread_lock = threading.Lock()
        self._holder: int | None = None
        self._hurry = threading.local()

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
        if self.held:
            raise AssertionError("the write lock is not re-entrant")
        hurried = self.hurried
        if not self._thread_lock.acquire(blocking=not hurried):
            raise WouldWait
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB if hurried else fcntl.LOCK_EX)
        except BlockingIOError:
            self._thread_lock.release()
            raise WouldWait from None
        except BaseException:
            self._thread_lock.release()
            raise
        self._holder = threading.get_ident()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._holder = None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()

    def close(self) -> None:
        """Idempotent; nobody may hold it."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


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

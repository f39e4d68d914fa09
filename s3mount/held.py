"""Small files, each held by the process that works on it; what a process leaves behind when it ends, others find.

Owns: making such a file whole under its name, its lock, adding to it, removing it.
Must not know: what it says, who wants it. Everything here blocks.

    make --> held --remove--> gone
              `--leave, or the process ends--> nobody's --hold--> held

H1  A file under its own name holds all that it was made with.
H2  Only who holds a file adds to it or removes it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from pathlib import Path

log = logging.getLogger(__name__)

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


class Held:
    """One file, until `remove` or `leave`. Make it with `make` or `hold`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def add(self, text: bytes) -> None:
        """At its end; safe from kill -9. Raises OSError: a part of it may be there."""
        _write_all(self._fd, text)

    def sync(self) -> None:
        """On return the file and its name are safe from a power cut. Raises OSError."""
        os.fsync(self._fd)
        _sync_folder(self.path.parent)

    def remove(self) -> None:
        """Nothing is left to do. Idempotent; where it cannot be removed, that is said in the log."""
        if self._fd >= 0:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                log.error("%s, which is of no use any more, cannot be removed: %s", self.path, error.strerror)
        self.leave()

    def leave(self) -> None:
        """Let another process hold it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def make(folder: Path, name: str, text: bytes, *, synced: bool) -> Held:
    """The new file *name* in *folder*, which is made for its owner alone; *synced*: safe from a power cut on return. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = folder / f".{secrets.token_hex(8)}"
    held = Held(folder / name, os.open(aside, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        fcntl.flock(held._fd, fcntl.LOCK_EX)
        held.add(text)
        if synced:
            os.fsync(held._fd)
        os.rename(aside, held.path)
        if synced:
            _sync_folder(folder)
    except BaseException:
        aside.unlink(missing_ok=True)
        held.leave()
        raise
    return held


def hold(path: Path) -> Held | None:
    """The file *path*; None where somebody holds it, or it is gone. Raises OSError."""
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return Held(path, fd)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _write_all(fd: int, text: bytes) -> None:
    view = memoryview(text)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

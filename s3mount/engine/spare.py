"""Room kept for deleting: on a full medium even a delete must be logged first.

Owns: the file `spare` in the data folder. Must not know: what the room is used for.

The file is allocated while there is plenty of room, and removed when something that frees space, or the opening of the folder, finds none.
Its absence is no error, and its loss is none.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3mount.model import KiB, MiB

# In the data folder.
SPARE_NAME = "spare"

# A small delete takes about 30 KiB of the index's write-ahead log until the next checkpoint: this is enough for some hundred of them.
SPARE_BYTES = 8 * MiB
# On a small medium a sixteenth must do; opening the folder takes about 100 KiB.
LEAST_BYTES = 512 * KiB
SHARE = 16


class Spare:
    """Thread-safe; several processes may share it. `given`: how often this one has given it back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.given = 0
        self._giving = threading.Lock()
        self._spending = threading.Lock()

    def keep(self) -> None:
        """Allocate it if it is not there and more than as much again stays free. Idempotent, never fails."""
        if os.path.exists(self._path):
            return
        try:
            medium = os.statvfs(self._path.parent)
            size = max(LEAST_BYTES, min(SPARE_BYTES, medium.f_blocks * medium.f_frsize // SHARE))
            if medium.f_bavail * medium.f_frsize > 2 * size:
                self._allocate(size)
        except OSError:
            self.give()

    def _allocate(self, size: int) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)

    def give(self) -> bool:
        """Give the room back to the medium; whether there was any."""
        with self._giving:
            try:
                os.unlink(self._path)
            except OSError:
                return False
            self.given += 1
        return True

    def made_room(self, since: int) -> bool:
        """Whether a second try has room that a first one may not have had, which began when `given` was *since*."""
        return self.give() or self.given != since

    @contextmanager
    def spent(self) -> Iterator[None]:
        """For a second try at what makes room: with this one's, or with what another thread's made meanwhile."""
        with self._spending:
            self.give()
            yield

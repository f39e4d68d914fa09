"""Whose the folder is: the process that has locked its file `owner` sends what is in it.

Owns: the lock.
Must not know: what is in the folder. Everything here blocks, `own` for a tenth of a second at most.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

NAME = "owner"

# Whoever only looks whether there is an owner holds the lock for microseconds.
TRIES, TRY_S = 5, 0.02


def own(folder: Path) -> int | None:
    """The lock, which is ours until it is closed, or the process ends; None where another process has it. Raises OSError."""
    lock = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            time.sleep(TRY_S)
    os.close(lock)
    return None


def is_owned(folder: Path) -> bool:
    """Whether some process has the lock right now. Raises OSError."""
    try:
        lock = os.open(folder / NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(lock)

"""A run of the tests leaves nothing behind, and takes nothing of the user's: folders of its own, and an end to mounts and what they wrote.

Owns: which variables lead to a user's folders and settings; which files in the runtime folders belong to a test's mounts; the end of mounts
that hang. A thread that waits in the kernel for a mount hears no signal, and so no time-out of pytest's: the mount has to go before that.
Must not know: any test.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

import pytest

from s3mount.fuse.runtime import folders

# So much of a test's time may pass before its mounts are killed: what waits for them has the rest to fail and to clean up.
SHARE_OF_TIME = 0.8

SETTINGS = ("AWS_", "S3MOUNT_", "RCLONE_")
# Short: a socket's path may have 107 bytes.
FOLDERS = {"XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state", "XDG_RUNTIME_DIR": "run"}


def settle_in(home: Path, patch: pytest.MonkeyPatch) -> None:
    """Nothing that this process or its children do by default ends in the user's folders, or depends on settings for S3.

    pip alone keeps its cache: what it has compiled once need not be compiled again.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    patch.setenv("PIP_CACHE_DIR", os.environ.get("PIP_CACHE_DIR", f"{cache}/pip"))
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        patch.delenv(name)
    for name, folder in own_folders(home).items():
        patch.setenv(name, folder)


def own_folders(home: Path) -> dict[str, str]:
    """Makes a user's folders below *home*, which exists; returns the variables that lead to them."""
    for folder in FOLDERS.values():
        (home / folder).mkdir(mode=0o700)
    return {name: str(home / folder) for name, folder in FOLDERS.items()}


class Ends(Protocol):
    def clean_up(self) -> None:
        """Leave nothing behind, whatever happened. Idempotent."""


hanging: WeakSet[Ends] = WeakSet()
"""Whatever may have to be ended from outside."""


@contextmanager
def ended_in_time(item: pytest.Item) -> Iterator[None]:
    """Kill what hangs before *item* has used up its time."""
    marker = item.get_closest_marker("timeout")
    limit = marker.args[0] if marker else item.config.getoption("timeout") or item.config.getini("timeout") or threading.TIMEOUT_MAX
    timer = threading.Timer(float(limit) * SHARE_OF_TIME, end_all)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def end_all() -> None:
    for one in list(hanging):
        one.clean_up()


def forget_mounts(top: Path) -> None:
    """Remove what mounts below *top* left in the runtime folders: records of those that were killed, their sockets, logs of the others."""
    for folder in folders(os.getuid()):
        for path in folder.glob("*"):
            if path.is_file() and os.fsencode(f"{top}/") in content(path):
                for left in folder.glob(f"{path.stem}*"):
                    left.unlink(missing_ok=True)


def content(path: Path) -> bytes:
    """Nothing, if *path* is gone: others mount and unmount at the same time."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""

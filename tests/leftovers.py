"""A run of the tests leaves nothing behind, and takes nothing of the user's: folders of its own, and an end to what mounts wrote elsewhere.

Owns: which variables lead to a user's folders and settings; which files in the runtime folders belong to mounts of a test.
Must not know: any test.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s3mount.fuse.runtime import folders

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
    for name, folder in FOLDERS.items():
        (home / folder).mkdir(mode=0o700)
        patch.setenv(name, str(home / folder))


def forget_mounts(top: Path) -> None:
    """Remove what mounts below *top* left in the runtime folders: records of those that were killed, their sockets, logs of the others."""
    for folder in folders(os.getuid()):
        for path in folder.glob("*"):
            if path.is_file() and os.fsencode(f"{top}/") in path.read_bytes():
                for left in folder.glob(f"{path.stem}*"):
                    left.unlink(missing_ok=True)

"""libmount's table of what the kernel does not know of mounts (/run/mount/utab): there we say who unmounts ours.

Owns: our line in that table, `uhelper=s3mount`.
Must not know: what a mount is.

umount(8) of util-linux 2.38 asks statfs(2) for the type of what it takes off. That says "fuse" for every FUSE file system, so that it
finds no helper, unmounts by itself, and returns before our process has committed what was open. A mount that has a line in the table is
looked up in /proc/self/mountinfo instead, and `umount.s3mount` is called, which waits. Only root can write the table, and only root's
mounts are taken off by umount(8). The library itself edits the table, as it locks it in a way of its own that changes from version to
version. Nothing here raises: without the line, `s3mount umount` waits all the same.
"""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

LIBRARY = "libmount.so.1"
OPTIONS = b"uhelper=s3mount"


def note(source: str, target: Path) -> None:
    """Write the line of a mount that is there. Idempotent."""
    forget(target)
    library = _library()
    if library is None:
        return
    fs = ctypes.c_void_p(library.mnt_new_fs())
    try:
        library.mnt_fs_set_source(fs, os.fsencode(source))
        library.mnt_fs_set_target(fs, os.fsencode(target))
        library.mnt_fs_set_root(fs, b"/")
        library.mnt_fs_set_options(fs, OPTIONS)
        _update(library, None, fs)
    finally:
        library.mnt_unref_fs(fs)


def forget(target: Path) -> None:
    """Take the line out. Idempotent."""
    library = _library()
    if library is not None:
        _update(library, os.fsencode(target), None)


def _update(library: ctypes.CDLL, target: bytes | None, fs: ctypes.c_void_p | None) -> None:
    update = ctypes.c_void_p(library.mnt_new_update())
    try:
        # 0: an update was prepared; 1: the table need not change; below: what went wrong.
        status = library.mnt_update_set_fs(update, ctypes.c_ulong(0), target, fs)
        if status == 0:
            status = library.mnt_update_table(update, None)
        if status < 0:
            log.debug("The table of mounts could not be changed: %s", os.strerror(-status))
    finally:
        library.mnt_free_update(update)


def _library() -> ctypes.CDLL | None:
    if os.geteuid() != 0:
        return None
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    library.mnt_new_fs.restype = library.mnt_new_update.restype = ctypes.c_void_p
    return library

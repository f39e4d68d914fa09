"""The mount point: what stands there, whether it is fit for a mount, and how a mount comes off again.

Owns: reading /proc/self/mountinfo, the checks before a mount, umount and detach, each refusal as one sentence.
Must not know: pyfuse3, our own process. Everything here blocks; nothing here waits for the daemon.

As root umount2(2) is called directly; an ordinary user goes through the set-uid fusermount3, which lets them take off what is theirs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from s3mount.errors import Busy, NotPermitted, S3MountError, Unavailable, UsageError

FSTYPE = "fuse.s3mount"
# What lies where a mount is to appear as soon as somebody goes there (x-systemd.automount, automount(8)).
AUTOMOUNT = "autofs"
MOUNTINFO = Path("/proc/self/mountinfo")

# umount2(2)
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of mountinfo. `device` is "major:minor"; `owner` the user whose mount it is."""

    path: Path
    source: str
    fstype: str
    device: str
    owner: int

    @property
    def is_ours(self) -> bool:
        return self.fstype == FSTYPE


def resolve(path: Path) -> Path:
    """*path* absolute and without symbolic links; it need not answer."""
    return Path(os.path.realpath(path))


def mounted_at(path: Path, *, mountinfo: Path = MOUNTINFO) -> Mounted | None:
    """What is mounted exactly at *path* (resolved), topmost first; None if nothing is."""
    found = None
    for line in mountinfo.read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        columns = fields.split(b" ")
        if _unescaped(columns[4]) == os.fsencode(path):
            found = _parse(path, columns, rest.split(b" "))
    return found


def mount_points(*, mountinfo: Path = MOUNTINFO) -> list[bytes]:
    """Where anything is mounted."""
    return [_unescaped(line.split(b" ")[4]) for line in mountinfo.read_bytes().splitlines()]


def mount_above(path: Path) -> Mounted | None:
    """The mount of ours that *path* (resolved) lies in, or None."""
    nearest = next((mounted for place in (path, *path.parents) if (mounted := mounted_at(place)) is not None), None)
    return nearest if nearest is not None and nearest.is_ours else None


def clear_dead(path: Path) -> list[Mounted]:
    """Take mounts of ours off *path* whose process is gone (kill -9, a crash); which they were. Whoever works in one keeps his errors.

    The kernel says ENOTCONN once nobody serves a mount any more: nothing that was written to it can be lost by this.
    Raises NotPermitted or Unavailable where one of them may not be taken off.
    """
    place, cleared = resolve(path), list[Mounted]()
    while (mounted := mounted_at(place)) is not None and mounted.is_ours and _is_dead(place):
        detach(place)
        cleared.append(mounted)
    return cleared


def require_fit(path: Path, *, nonempty: bool) -> Path:
    """*path* resolved, if a mount may go there. Raises UsageError or Busy, with the sentence to print.

    An automount waits for us: looking into it would wait for the mount that it asked for. It is covered by the mount, and empty.
    Nor is a living mount looked into: its service may be away.
    """
    place = resolve(path)
    mounted = mounted_at(place)
    if mounted is not None and mounted.fstype == AUTOMOUNT:
        return place
    if mounted is not None and not _is_dead(place):
        raise Busy(f"{path} is mounted already ({mounted.source}); take it off first: s3mount umount {path}")
    try:
        is_directory = place.is_dir()
        empty = is_directory and next(os.scandir(place), None) is None
    except OSError as error:
        raise _unusable(path, error) from None
    if not is_directory:
        raise UsageError(f"{path} is not a directory" if place.exists() else f"{path} does not exist; make it first: mkdir {path}")
    if not empty and not nonempty:
        raise UsageError(f"{path} is not empty; what is in it would be hidden. Use another directory, or --nonempty")
    return place


def unmount(path: Path) -> None:
    """Take off what is mounted at *path*. Dirty pages are written before it returns; the daemon may go on after it. Raises Busy."""
    _take_off(path, lazily=False)


def detach(path: Path) -> None:
    """Take *path* out of the tree at once; the mount itself ends with its last user."""
    _take_off(path, lazily=True)


def sync_all(path: Path) -> None:
    """Have the kernel hand over every dirty page of the file system at *path*, then commit and sync all of it. Raises OSError."""
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        push_pages(root)
        os.fsync(root)
    finally:
        os.close(root)


def push_pages(fd: int) -> None:
    """syncfs(2) of the file system that *fd* is on. It brings WRITEs and SETATTRs, and tells nothing of their outcome.

    If it fails, some WRITE may have failed long ago, which was told then: of what is still lost the mount itself knows (see fs.lost).
    """
    _libc.syncfs(fd)


def _take_off(path: Path, *, lazily: bool) -> None:
    if os.geteuid() == 0:
        flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazily else 0)
        if _libc.umount2(os.fsencode(path), flags) != 0:
            raise _not_taken_off(path, ctypes.get_errno())
        return
    command = ["fusermount3", "-u", *(["-z"] if lazily else []), "--", str(path)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        raise Unavailable("fusermount3 is not installed: it comes with the package fuse3") from None
    if done.returncode != 0:
        raise _not_taken_off(path, errno.EBUSY if "busy" in done.stderr else 0, done.stderr.strip())


def _not_taken_off(path: Path, number: int, said: str = "") -> S3MountError:
    if number == errno.EBUSY:
        return Busy(f"{path} is in use: a process has a file open there, or works in it (fuser -vm {path} tells which)")
    if number == errno.EPERM:
        return NotPermitted(f"{path} is not yours to unmount")
    return Unavailable(f"{path} could not be unmounted: {said or os.strerror(number)}")


def _is_dead(path: Path) -> bool:
    """Asked with statfs(2), as the kernel would answer a stat(2) out of its cache."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def _unusable(path: Path, error: OSError) -> S3MountError:
    if error.errno == errno.ENOTCONN:
        return Busy(f"{path} is left over from a mount whose process is gone; take it off first: umount {path}")
    return UsageError(f"{path} cannot be used: {error.strerror}")


def _parse(path: Path, columns: list[bytes], rest: list[bytes]) -> Mounted:
    owner = re.search(rb"(?:^|,)user_id=(\d+)", rest[2])
    return Mounted(
        path=path,
        source=os.fsdecode(_unescaped(rest[1])),
        fstype=os.fsdecode(rest[0]),
        device=os.fsdecode(columns[2]),
        owner=int(owner[1]) if owner else 0,
    )


def _unescaped(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)

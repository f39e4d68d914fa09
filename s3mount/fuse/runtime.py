"""The runtime record: one small file per mount point, locked by the mount's process for as long as it lives.

Owns: where such files lie, their content, and the lock by which others wait for the end and learn how it went.
Must not know: pyfuse3, trio, what a mount is.

umount(8) returns before the process has committed what was open. Whoever wants to know opens the record, takes the mount off, and waits
for the lock; then the record says how it ended.

    claim --> {"error": null, "finished": false}, locked  --finish(None)-->   removed, unlocked
                                                          --finish(reason)--> {"error": reason, "finished": true}, unlocked
                                                          --killed-->         as claimed, unlocked: the outcome is unknown

I1  Only the process that holds the exclusive lock writes the record or removes it.
I2  A waiter that opened the record before the end reads the outcome from its own descriptor, whether the file still has its name or not.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import select
import time
from dataclasses import dataclass
from pathlib import Path

from s3mount.errors import AccessDenied, Busy, S3MountError, Unavailable

# A former mount of the same place may still be committing; a script that unmounts and mounts again must not fail for it.
PREDECESSOR_S = 60.0
POLL_S = 0.05

RECORD_BYTES = 64 * 1024

# What is left of a process after `finish` is the end of its interpreter.
EXIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a mount's process ended. `finished` False: it was killed, or runs still. `error`: what could not be committed.

    `kept`: how many files are pending now, of those that this mount could not store.
    """

    pid: int
    finished: bool
    error: str | None
    kept: int = 0


class Record:
    """The record of a mount that this process carries. `finish` is its end; idempotent."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def describe(self, *, source: str, mountpoint: Path) -> None:
        """Say what is mounted; called once, by the process that will serve it."""
        self._write({"pid": os.getpid(), "source": source, "mountpoint": str(mountpoint), "finished": False, "error": None})

    def finish(self, error: str | None, *, kept: int = 0) -> None:
        """Leave *error* behind, or nothing when all went well, and let waiters go on."""
        if self._fd < 0:
            return
        self._write({"pid": os.getpid(), "finished": True, "error": error, "kept": kept})
        if error is None:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1

    def _write(self, values: dict[str, object]) -> None:
        text = json.dumps(values).encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text, 0)


class Watch:
    """An opened record of somebody else's mount. Close it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def is_alive(self) -> bool:
        """Whether the mount's process still runs."""
        if _lock_nowait(self._fd, fcntl.LOCK_SH):
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            return False
        return True

    def wait(self) -> Outcome:
        """Wait until the mount's process has let go of everything, however long that takes, and then for its exit."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        outcome = self.outcome()
        if outcome.finished and outcome.pid != os.getpid():
            _wait_for_exit(outcome.pid)
        return outcome

    def outcome(self) -> Outcome:
        """What the record says now. One that makes no sense says nothing: it may be somebody else's."""
        try:
            values = json.loads(os.pread(self._fd, RECORD_BYTES, 0))
            error = values["error"] and str(values["error"])
            return Outcome(int(values["pid"]), finished=values["finished"] is True, error=error, kept=int(values.get("kept", 0)))
        except (OSError, ValueError, LookupError, TypeError):
            return Outcome(pid=0, finished=False, error=None)

    def close(self) -> None:
        os.close(self._fd)


def claim(mountpoint: Path) -> Record:
    """The record of a new mount of *mountpoint* (resolved). Waits up to a minute for a former one to end. Raises Busy, AccessDenied."""
    path = _own_folder() / name_of(mountpoint)
    deadline = time.monotonic() + PREDECESSOR_S
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _lock_nowait(fd, fcntl.LOCK_EX) and _is_still(path, fd):
            return Record(path, fd)
        os.close(fd)
        if time.monotonic() > deadline:
            raise Busy(f"the process of a former mount of {mountpoint} is still committing")
        time.sleep(POLL_S)


def watch(mountpoint: Path, *, owner: int) -> Watch | None:
    """The record of the mount at *mountpoint* (resolved) that *owner* made, or None. A live one goes before one that is left over."""
    found: Watch | None = None
    for folder in folders(owner):
        try:
            candidate = Watch(os.open(folder / name_of(mountpoint), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
        except OSError:
            continue
        if found is not None and not candidate.is_alive():
            candidate.close()
            continue
        if found is not None:
            found.close()
        found = candidate
    return found


def folders(uid: int) -> list[Path]:
    """Where the records of user *uid* may lie, the best place first."""
    if uid == 0:
        return [Path("/run/s3mount"), Path("/tmp/s3mount-0")]
    places = [Path(f"/run/user/{uid}/s3mount")]
    if uid == os.getuid() and (runtime := os.environ.get("XDG_RUNTIME_DIR")):
        places.insert(0, Path(runtime) / "s3mount")
    try:
        places.append(Path(pwd.getpwuid(uid).pw_dir) / ".local/state/s3mount")
    except KeyError:
        pass
    return [*dict.fromkeys(places), Path(f"/tmp/s3mount-{uid}")]


def log_fallback(mountpoint: Path) -> Path:
    """Where the mount's process may log if there is no better place."""
    return _own_folder() / f"{name_of(mountpoint)}.log"


def _own_folder() -> Path:
    reason: Exception | None = None
    for folder in folders(os.getuid()):
        try:
            if not folder.parent.is_dir() and folder.parent.is_relative_to("/run"):
                continue
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(folder)
        except (OSError, S3MountError) as error:
            reason = reason or error
        else:
            return folder
    raise AccessDenied(f"there is no folder for the record of the mount: {reason}")


def _require_private(folder: Path) -> None:
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or not os.access(folder, os.W_OK):
        raise Unavailable(f"{folder} is not private to this user")


def name_of(mountpoint: Path) -> str:
    """What the files of the mount at *mountpoint* (resolved) are called."""
    return hashlib.blake2b(os.fsencode(mountpoint), digest_size=16).hexdigest()


def _lock_nowait(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_exit(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        select.select([process], [], [], EXIT_S)
    finally:
        os.close(process)


def _is_still(path: Path, fd: int) -> bool:
    """A predecessor may have removed the file between our open and our lock."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False

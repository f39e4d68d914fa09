"""Multipart uploads that this machine has begun, written down, so that none outlives the process that began it.

Owns: the files: what they say, when they are safe, whose they are.
Must not know: requests, the network. Everything here blocks, for microseconds but for `named` (a sync).

S3 keeps the parts of an upload for ever, and says of it neither who began it nor what for. So each upload has a file, which its process
has locked:

    begin --> [ key, time ] --named--> [ key, time, id ] --done--> removed
                    `----- the process ends, or nobody told the id -----' : the lock is free, or the name never comes (leftover.py)

B1  What has an id in a file that nobody locks was begun here, and nobody works on it any more.
B2  Only who holds a file's lock writes to it or removes it.
B3  Where the folder cannot be written, uploads go on without: it is said once, in the log.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from s3mount.model import Key

SUFFIX = ".upload"
FORMAT = 1

logger = logging.getLogger(__name__)


class Begun:
    """One upload's file. `upload_id` is None until the service has said it; `sent_ns` is this machine's time of the request."""

    def __init__(self, path: Path | None, fd: int, key: Key, sent_ns: int, upload_id: str | None = None) -> None:
        self._path = path
        self._fd = fd
        self.key = key
        self.sent_ns = sent_ns
        self.upload_id = upload_id

    def __repr__(self) -> str:
        return f"<Begun {self.key!r} {self.upload_id or 'without a name'}>"

    def named(self, upload_id: str) -> None:
        """The service calls it *upload_id*; on return that is safe from a power cut."""
        self.upload_id = upload_id
        if self._path is not None:
            try:
                os.write(self._fd, _line(upload_id))
                os.fsync(self._fd)
                _sync_folder(self._path.parent)
            except OSError as error:
                logger.warning("The upload of %r is not written down: %s", self.key, error)

    def done(self) -> None:
        """It is completed or aborted, or never was. Idempotent."""
        if self._path is not None and self._fd >= 0:
            self._path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Let another process end it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Ledger:
    """The uploads of one bucket in *folder*, which is made for its owner alone; with None nothing is written down."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def kept(self) -> bool:
        """Whether anything is written down."""
        return self._folder is not None

    def begin(self, key: Key) -> Begun:
        """An upload of *key* is about to be asked for."""
        sent_ns = time.time_ns()
        try:
            path, fd = self._created(key, sent_ns) if self._folder is not None else (None, -1)
        except OSError as error:
            logger.warning("Uploads are not written down, what a crash leaves of them stays in the bucket: %s", error)
            self._folder = path = None
            fd = -1
        return Begun(path, fd, key, sent_ns)

    def _created(self, key: Key, sent_ns: int) -> tuple[Path, int]:
        assert self._folder is not None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self._folder / f".{secrets.token_hex(8)}"
        fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(fd, _line([FORMAT, key, sent_ns]))
            path = self._folder / f"{aside.name[1:]}{SUFFIX}"
            os.rename(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            os.close(fd)
            raise
        return path, fd

    def known(self) -> set[str]:
        """The ids of all uploads in the folder, of whichever process."""
        return {begun.upload_id for path in self._files() if (begun := _read(path, -1)) and begun.upload_id}

    def left_over(self) -> Iterator[Begun]:
        """What nobody works on any more, each locked for us."""
        for path in self._files():
            try:
                fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                continue
            begun = _read(path, fd)
            if begun is None:
                logger.warning("%s does not tell of an upload: it stays", path)
                os.close(fd)
            else:
                yield begun

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}")) if self._folder is not None else []


def _read(path: Path, fd: int) -> Begun | None:
    """What a file says; None where it is none of this version, or gone. A last line that was cut off was never said."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        said, key, sent_ns = json.loads(lines[0])
        upload_id = json.loads(lines[1]) if len(lines) > 1 else None
    except (OSError, ValueError, IndexError, TypeError):
        return None
    return Begun(path, fd, Key(key), int(sent_ns), upload_id) if said == FORMAT else None


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

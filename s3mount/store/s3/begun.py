"""Multipart uploads that this machine has begun, written down, so that none outlives the process that began it.

Owns: what the files say, and when they are safe.
Must not know: requests, the network, how files are held (`held`). Everything here blocks, for microseconds but for `named` (a sync).

S3 keeps the parts of an upload for ever, and says of it neither who began it nor what for. So each upload has a file, which its process
has locked:

    begin --> [ key, time ] --named--> [ key, time, id ] --done--> removed
                    `----- the process ends, or nobody told the id -----' : the lock is free, or the name never comes (leftover.py)

B1  What has an id in a file that nobody locks was begun here, and nobody works on it any more.
B2  Where the folder cannot be written, uploads go on without: it is said once, in the log.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from s3mount import held
from s3mount.held import Held
from s3mount.model import Key

SUFFIX = ".upload"
FORMAT = 1

logger = logging.getLogger(__name__)


class Begun:
    """One upload's file. `upload_id` is None until the service has said it; `sent_ns` is this machine's time of the request."""

    def __init__(self, held: Held | None, key: Key, sent_ns: int, upload_id: str | None = None) -> None:
        self._held = held
        self.key = key
        self.sent_ns = sent_ns
        self.upload_id = upload_id

    def __repr__(self) -> str:
        return f"<Begun {self.key!r} {self.upload_id or 'without a name'}>"

    def named(self, upload_id: str) -> None:
        """The service calls it *upload_id*; on return that is safe from a power cut."""
        self.upload_id = upload_id
        if self._held is not None:
            try:
                self._held.add(_line(upload_id))
                self._held.sync()
            except OSError as error:
                logger.warning("The upload of %r is not written down: %s", self.key, error)

    def done(self) -> None:
        """It is completed or aborted, or never was. Idempotent."""
        if self._held is not None:
            self._held.remove()

    def leave(self) -> None:
        """Let another process end it. Idempotent."""
        if self._held is not None:
            self._held.leave()


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
        return Begun(self._made(_line([FORMAT, key, sent_ns])), key, sent_ns)

    def _made(self, text: bytes) -> Held | None:
        if self._folder is None:
            return None
        try:
            return held.make(self._folder, f"{secrets.token_hex(8)}{SUFFIX}", text, synced=False)
        except OSError as error:
            logger.warning("Uploads are not written down, what a crash leaves of them stays in the bucket: %s", error)
            self._folder = None
            return None

    def known(self) -> set[str]:
        """The ids of all uploads in the folder, of whichever process."""
        return {begun.upload_id for path in self._files() if (begun := _read(path, None)) and begun.upload_id}

    def nameless(self, key: Key) -> int:
        """How many uploads of *key* have been asked for, by whichever process, and got no id yet."""
        return sum((begun := _read(path, None)) is not None and _is_nameless(begun, key) for path in self._files())

    def left_over(self, nameless: Key | None = None) -> Iterator[Begun]:
        """What nobody works on any more, each locked for us; only those of key *nameless* that have no id, if it is given."""
        for path in self._files():
            if nameless is not None and not ((said := _read(path, None)) and _is_nameless(said, nameless)):
                continue
            try:
                ours = held.hold(path)
            except OSError:
                continue
            if ours is None:
                continue
            begun = _read(path, ours)
            if begun is None:
                logger.warning("%s does not tell of an upload: it stays", path)
                ours.leave()
            else:
                yield begun

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}")) if self._folder is not None else []


def _read(path: Path, ours: Held | None) -> Begun | None:
    """What a file says; None where it is none of this version, or gone. A last line that was cut off was never said."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        said, key, sent_ns = json.loads(lines[0])
        upload_id = json.loads(lines[1]) if len(lines) > 1 else None
    except (OSError, ValueError, IndexError, TypeError):
        return None
    return Begun(ours, Key(key), int(sent_ns), upload_id) if said == FORMAT else None


def _is_nameless(begun: Begun, key: Key) -> bool:
    return begun.key == key and begun.upload_id is None


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"

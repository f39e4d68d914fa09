"""What listings told, kept on disk between one mount and the next.

Owns: the file and its format.
Must not know: which answers are fresh, tables.

The file is written when a mount ends in good order, and taken away by the next mount before it is read. So after a crash there is none, and
nothing that a mount changed can be told wrongly by an older file; two mounts never take the same one. A file that is damaged, or of another
version, is dropped with a line in the log: it costs listings, nothing else.

    first line   MAGIC
    then         16 bytes: hash of the rest
    then         zlib: one line of JSON for each stretch: stem, lo, hi, when it was asked for (seconds since 1970), rows
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from s3mount.cache.leaf import Mark, Row, Stretch
from s3mount.model import ETag, Key, ObjectInfo

logger = logging.getLogger(__name__)

MAGIC = b"s3mount listings 1\n"
HASH_BYTES = 16


class Snapshot:
    """The file of one bucket in *folder*. All methods block."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._path = folder / f"listings-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"

    def take(self, ttl_s: float) -> list[Stretch]:
        """What the last mount left that is younger than *ttl_s*; the file is gone then. Nothing raises."""
        taken = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.rename(taken)
            data = taken.read_bytes()
            taken.unlink()
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning("The remembered listings cannot be read: %s", error)
            return []
        try:
            return [stretch for stretch in _read(data) if 0 <= stretch.age_s < ttl_s]
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            logger.warning("The remembered listings are damaged (%s) and are not used", error)
            return []

    def leave(self, stretches: Iterable[Stretch]) -> None:
        """For the next mount. Nothing raises."""
        lines = [_line(stretch) for stretch in stretches]
        if not lines:
            return
        packed = zlib.compress(b"\n".join(lines), 1)
        staged = self._path.with_suffix(f".{os.getpid()}")
        try:
            staged.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(MAGIC + _hash(packed) + packed)
            staged.replace(self._path)
        except OSError as error:
            logger.warning("The listings cannot be kept for the next mount: %s", error)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def _line(stretch: Stretch) -> bytes:
    asked = time.time() - stretch.age_s
    rows = [_row(text.decode(), value) for text, value in stretch.rows]
    return json.dumps([stretch.stem, stretch.lo.hex(), stretch.hi.hex(), asked, rows], separators=(",", ":")).encode()


def _row(text: str, value: ObjectInfo | Mark) -> list[Any]:
    if not isinstance(value, ObjectInfo):
        return [text]
    metadata = None if value.metadata is None else dict(value.metadata)
    return [text, value.size, value.etag, value.mtime_ns, value.content_type, value.storage_class, metadata, value.version_id]


def _read(data: bytes) -> Iterator[Stretch]:
    head, packed = data[: len(MAGIC) + HASH_BYTES], data[len(MAGIC) + HASH_BYTES :]
    if head != MAGIC + _hash(packed):
        raise ValueError("the checksum is wrong, or another version wrote it")
    now = time.time()
    for line in zlib.decompress(packed).splitlines():
        stem, lo, hi, asked, rows = json.loads(line)
        yield Stretch(stem, bytes.fromhex(lo), bytes.fromhex(hi), now - asked, [_value(stem, row) for row in rows])


def _value(stem: str, row: list[Any]) -> Row:
    text = row[0]
    if len(row) == 1:
        return text.encode(), Mark.PREFIX
    _, size, etag, mtime_ns, content_type, storage_class, metadata, version_id = row
    info = ObjectInfo(Key(stem + text), size, ETag(etag), mtime_ns, content_type, storage_class, metadata, version_id=version_id)
    return text.encode(), info

"""What listings told, kept on disk between one mount and the next.

Owns: the file and its format.
Must not know: which answers are fresh, tables.

The file is written when a mount ends in good order, and taken away by the next mount before it is read. So after a crash there is none, and
nothing that a mount changed can be told wrongly by an older file; two mounts never take the same one. Of two that ran side by side neither
knows what the other changed: the second to end takes the first one's file away and leaves none. A file that is damaged, or of another
version, is dropped with a line in the log: it costs listings, nothing else.

What is too old to be believed still tells where pages of large directories began: the next listing can go on in many places at once.
Neither writing nor reading holds more than a stretch at a time.

    first line   MAGIC
    then         16 bytes: hash of the rest
    then         zlib: two lines of JSON for each stretch: stem, lo, hi, when it was asked for (seconds since 1970), how many rows; the rows
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from s3mount.cache.leaf import Mark, Row, Stretch
from s3mount.model import ETag, Key, ObjectInfo

logger = logging.getLogger(__name__)

MAGIC = b"s3mount listings 2\n"
HASH_BYTES = 16
# Read or written at a time.
CHUNK_BYTES = 1 << 20


class Snapshot:
    """The file of one bucket in *folder*. All methods block."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._path = folder / f"listings-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"

    def take(self, ttl_s: float) -> Iterator[Stretch]:
        """What the last mount left, whose file is gone then; of stretches that are not younger than *ttl_s*, the rows are left out.

        Nothing raises.
        """
        taken = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.rename(taken)
            file = taken.open("rb")
            taken.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning("The remembered listings cannot be read: %s", error)
            return
        with file:
            try:
                yield from _read(file, ttl_s)
            except (ValueError, KeyError, TypeError, OSError, zlib.error) as error:
                logger.warning("The remembered listings are damaged (%s) and are not used", error)

    def leave(self, stretches: Iterable[Stretch]) -> None:
        """For the next mount. Nothing raises."""
        staged = self._path.with_suffix(f".{os.getpid()}")
        try:
            staged.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._path.exists():
                return self._path.unlink(missing_ok=True)
            with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                if _write(file, stretches):
                    staged.replace(self._path)
                else:
                    staged.unlink()
        except OSError as error:
            logger.warning("The listings cannot be kept for the next mount: %s", error)


# -- writing ------------------------------------------------------------------------------------


def _write(file: BinaryIO, stretches: Iterable[Stretch]) -> int:
    """How many stretches were written."""
    file.write(MAGIC + bytes(HASH_BYTES))
    packer, digest, count = zlib.compressobj(1), hashlib.blake2b(digest_size=HASH_BYTES), 0

    def put(data: bytes) -> None:
        digest.update(data)
        file.write(data)

    for count, stretch in enumerate(stretches, 1):  # noqa: B007 (is told)
        put(packer.compress(b"".join(_lines(stretch))))
    put(packer.flush())
    file.seek(len(MAGIC))
    file.write(digest.digest())
    return count


def _lines(stretch: Stretch) -> Iterator[bytes]:
    asked = time.time() - min(stretch.age_s, time.time())
    rows: list[Any] = [] if stretch.rows is None else [_row(text.decode(), value) for text, value in stretch.rows]
    for line in ([stretch.stem, stretch.lo.hex(), stretch.hi.hex(), asked, stretch.many], rows):
        yield json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _row(text: str, value: ObjectInfo | Mark) -> list[Any]:
    if not isinstance(value, ObjectInfo):
        return [text]
    metadata = None if value.metadata is None else dict(value.metadata)
    return [text, value.size, value.etag, value.mtime_ns, value.content_type, value.storage_class, metadata, value.version_id]


# -- reading ------------------------------------------------------------------------------------


def _read(file: BinaryIO, ttl_s: float) -> Iterator[Stretch]:
    head, digest = file.read(len(MAGIC) + HASH_BYTES), hashlib.blake2b(digest_size=HASH_BYTES)
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    if head != MAGIC + digest.digest():
        raise ValueError("the checksum is wrong, or another version wrote it")
    file.seek(len(head))
    now = time.time()
    lines = io.BufferedReader(_Unpacked(file), CHUNK_BYTES)
    while first := lines.readline():
        stem, lo, hi, asked, many = json.loads(first)
        line = lines.readline()
        rows: list[Row] | None = None
        if 0 <= now - asked < ttl_s:  # none is of the future, unless the clock was wrong
            rows = [_value(stem, row) for row in json.loads(line)]
        yield Stretch(stem, bytes.fromhex(lo), bytes.fromhex(hi), now - asked, rows, many)


class _Unpacked(io.RawIOBase):
    """What is packed in *file* from where it stands."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unpacker = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = b""
        while not data and not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._file.read(CHUNK_BYTES)
            data = self._unpacker.decompress(packed, view.nbytes) if packed else self._unpacker.flush()
            if not packed:
                break
        view[: len(data)] = data
        return len(data)


def _value(stem: str, row: list[Any]) -> Row:
    text = row[0]
    if len(row) == 1:
        return text.encode(), Mark.PREFIX
    _, size, etag, mtime_ns, content_type, storage_class, metadata, version_id = row
    info = ObjectInfo(Key(stem + text), size, ETag(etag), mtime_ns, content_type, storage_class, metadata, version_id=version_id)
    return text.encode(), info

"""From a caller's bytes to bodies that are ready to be published: hashed, and either in memory (small) or in a staged file.

Owns: what becomes one body, and what is copied. Runs before the write lock is taken.
Must not know: the index, records.

A staged file is taken over as it is when most of it is used; else the used ranges are copied into a file of our own. Sources up to
INLINE_BYTES go into the log record, joined. A file that is taken over goes by the hash that its owner took while writing it, if he did.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3mount.engine.bodies import Bodies
from s3mount.engine.codec import Buffer
from s3mount.engine.disk import Disk
from s3mount.engine.values import INLINE_BYTES
from s3mount.model import Content, Hole, Kept, MiB, Staged, StagedBytes, cheap_value

# What is copied at once from a source into a staged file.
COPY_BYTES = 1 * MiB


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A whole file in the engine's staging folder whose BLAKE3 hash is known already: it is not read again to be taken over."""

    path: Path
    length: int
    digest: bytes

    def read_into(self, position: int, buffer: memoryview) -> None:
        with self.path.open("rb", buffering=0) as file:
            if os.preadv(file.fileno(), [buffer], position) < len(buffer):
                raise EOFError(f"{self.path} is shorter than {position + len(buffer)} bytes")


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """Bytes about to become a body: `data` holds them, or the staged file `path` does. `ours`: nobody else knows that file."""

    digest: bytes
    size: int
    data: Buffer | None
    path: Path | None = None
    ours: bool = True


@cheap_value
class Laid:
    """*length* bytes of a content from *offset* on: those of `body` from `body_offset` on, or a hole (None)."""

    offset: int
    length: int
    body: Fresh | None
    body_offset: int


def from_bytes(bodies: Bodies, data: Buffer, *, inline: int = INLINE_BYTES) -> list[Laid]:
    """A whole content held in memory, for the log record up to *inline* bytes; nothing for an empty one."""
    data = data if isinstance(data, bytes) else memoryview(data).cast("B")
    size = len(data)
    if not size:
        return []
    digest = bodies.hash_bytes(data)
    fresh = Fresh(digest, size, data) if size <= inline else Fresh(digest, size, None, bodies.stage_bytes(data))
    return [Laid(0, size, fresh, 0)]


def from_content(bodies: Bodies, disk: Disk, content: Content) -> list[Laid]:
    """Everything of *content* but what is kept of its base. Raises OSError; then no file of ours is left."""
    laid = [Laid(piece.offset, piece.length, None, 0) for piece in content.pieces if isinstance(piece, Hole)]
    done: list[Laid] = []
    try:
        for pieces in _by_source(content).values():
            done += _of_source(bodies, disk, pieces)
    except BaseException:
        discard(bodies_of(done))
        raise
    return sorted([*laid, *done], key=lambda each: each.offset)


def kept(content: Content) -> list[Kept]:
    return [piece for piece in content.pieces if isinstance(piece, Kept)]


def bodies_of(laid: Iterable[Laid]) -> list[Fresh]:
    """Each fresh body once."""
    return list({id(each.body): each.body for each in laid if each.body is not None}.values())


def discard(bodies: Iterable[Fresh]) -> None:
    """Remove the staged files that are ours; what was published has left them already."""
    for body in bodies:
        if body.path is not None and body.ours:
            body.path.unlink(missing_ok=True)


def _by_source(content: Content) -> dict[int, list[Staged]]:
    groups: dict[int, list[Staged]] = {}
    for piece in content.pieces:
        if isinstance(piece, Staged):
            groups.setdefault(id(piece.source), []).append(piece)
    return groups


def _of_source(bodies: Bodies, disk: Disk, pieces: Sequence[Staged]) -> list[Laid]:
    source, used = pieces[0].source, sum(piece.length for piece in pieces)
    if used <= INLINE_BYTES:
        data = bytearray(used)
        _read(pieces, lambda at, chunk: data.__setitem__(slice(at, at + len(chunk)), chunk))
        return _joined(pieces, Fresh(bodies.hash_bytes(data), used, data))
    if _is_ours_to_take(source, used, bodies):
        assert source.path is not None
        digest = getattr(source, "digest", None) or bodies.hash_file(source.path)
        whole = Fresh(digest, source.length, None, source.path, ours=False)
        return [Laid(piece.offset, piece.length, whole, piece.position) for piece in pieces]
    return _joined(pieces, _copied(bodies, disk, pieces, used))


def _is_ours_to_take(source: StagedBytes, used: int, bodies: Bodies) -> bool:
    """Whether the source is a file on our medium of which at least three quarters are used: the rest is not worth a copy."""
    if source.path is None or used * 4 < source.length * 3:
        return False
    try:
        found = os.stat(source.path)
    except FileNotFoundError:
        return False
    return found.st_size == source.length and found.st_dev == bodies.device


def _copied(bodies: Bodies, disk: Disk, pieces: Sequence[Staged], used: int) -> Fresh:
    path = bodies.stage_path()
    fd = disk.create(path)
    try:
        _read(pieces, lambda at, chunk: disk.write_all(fd, [chunk], at))
        return Fresh(bodies.hash_file(path), used, None, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _read(pieces: Sequence[Staged], take: Callable[[int, memoryview], None]) -> None:
    """Give all bytes of *pieces*, joined, to *take*, piece by piece."""
    buffer = memoryview(bytearray(min(COPY_BYTES, max(piece.length for piece in pieces))))
    at = 0
    for piece in pieces:
        for done in range(0, piece.length, len(buffer)):
            chunk = buffer[: min(len(buffer), piece.length - done)]
            piece.source.read_into(piece.position + done, chunk)
            take(at, chunk)
            at += len(chunk)


def _joined(pieces: Sequence[Staged], body: Fresh) -> list[Laid]:
    """The pieces stand one behind the other in *body*."""
    laid: list[Laid] = []
    at = 0
    for piece in pieces:
        laid.append(Laid(piece.offset, piece.length, body, at))
        at += piece.length
    return laid

"""The state of one bucket in memory: bytes, files, and the keys that name them.

Owns: `Blob` (a content as slices, holes cost nothing), `File` (what hard links share), `Bucket` (keys in order, reservations, uploads).
Must not know: tasks, the protocol's coroutines, conditions. Nothing here awaits: every method is atomic.

Invariants (`Bucket.check`):
B1  `order` holds exactly the bound keys, sorted; code points sort as their UTF-8 bytes do.
B2  A file knows the keys that name it, and has at least one; ids are unique.
B3  A blob's slices join from 0 to its size.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from s3mount.model import Content, ETag, Kept, Metadata, Part, Piece, Staged, Upload


class Blob:
    """An immutable content: slices of shared bytes, None for a hole."""

    __slots__ = ("_slices", "_starts", "size")

    def __init__(self, slices: Sequence[tuple[int, memoryview | None]]) -> None:
        """*slices* are (length, bytes or None), in order; each length is positive."""
        self._slices = tuple(slices)
        self._starts = list(itertools.accumulate((length for length, _ in slices), initial=0))
        self.size = self._starts.pop()

    @staticmethod
    def of(data: bytes | bytearray | memoryview) -> Blob:
        held = memoryview(bytes(data))
        return Blob([(held.nbytes, held)] if held.nbytes else [])

    @staticmethod
    def join(blobs: Sequence[Blob]) -> Blob:
        return Blob([part for blob in blobs for part in blob._slices])

    @staticmethod
    def build(content: Content, base: Blob | None) -> Blob:
        """The bytes that *content* describes; reads what is staged, so it may block. *base* serves what is kept."""
        return Blob([part for piece in content.pieces for part in Blob.slices_of(piece, base)])

    @staticmethod
    def slices_of(piece: Piece, base: Blob | None) -> Iterator[tuple[int, memoryview | None]]:
        """The slices that *piece* stands for."""
        if isinstance(piece, Kept):
            assert base is not None
            yield from base.between(piece.offset, piece.offset + piece.length)
        elif isinstance(piece, Staged):
            data = memoryview(bytearray(piece.length))
            piece.source.read_into(piece.position, data)
            yield piece.length, data
        else:
            yield piece.length, None

    def between(self, start: int, stop: int) -> Iterator[tuple[int, memoryview | None]]:
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            length, data = self._slices[at]
            skip = start - self._starts[at]
            take = min(length - skip, stop - start)
            yield take, None if data is None else data[skip : skip + take]
            start, at = start + take, at + 1

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill *buffer*; ValueError when that reaches behind the end."""
        if offset < 0 or offset + buffer.nbytes > self.size:
            raise ValueError(f"bytes {offset}+{buffer.nbytes} do not lie in a content of {self.size} bytes")
        at = 0
        for length, data in self.between(offset, offset + buffer.nbytes):
            buffer[at : at + length] = bytes(length) if data is None else data
            at += length

    def check(self) -> None:
        assert all(length > 0 for length, _ in self._slices), "B3"
        assert all(data is None or data.nbytes == length for length, data in self._slices), "B3"
        assert sum(length for length, _ in self._slices) == self.size, "B3"


@dataclass(slots=True, eq=False)
class File:
    """What a key names: content and attributes, shared by hard links."""

    id: int
    blob: Blob
    etag: ETag
    mtime_ns: int
    content_type: str
    storage_class: str
    metadata: Metadata
    keys: set[str] = field(default_factory=set)

    def become(self, other: File) -> None:
        """Take everything over but the id and the keys."""
        self.blob, self.etag, self.mtime_ns = other.blob, other.etag, other.mtime_ns
        self.content_type, self.storage_class, self.metadata = other.content_type, other.storage_class, other.metadata


@dataclass(frozen=True, slots=True, eq=False)
class Receiving:
    """An upload and the parts received so far."""

    upload: Upload
    how: object
    parts: dict[int, tuple[Part, Blob]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listed:
    """A page before it is put into values."""

    files: list[tuple[str, File]]
    prefixes: list[str]
    next: str | None


class Bucket:
    """Keys and files; several stores may share one, as several clients share a bucket."""

    def __init__(self) -> None:
        self.keys: dict[str, File] = {}
        self.order: list[str] = []
        self.files: dict[int, File] = {}
        self.reserved: dict[str, object] = {}
        self.uploads: dict[str, Receiving] = {}

    def bind(self, key: str, file: File) -> None:
        """Make *key* name *file*; the file it named goes when no key is left of it."""
        if self.keys.get(key) is file:
            return
        self.unbind(key)
        self.keys[key] = file
        insort(self.order, key)
        file.keys.add(key)
        self.files[file.id] = file

    def unbind(self, key: str) -> None:
        file = self.keys.pop(key, None)
        if file is None:
            return
        del self.order[bisect_left(self.order, key)]
        file.keys.remove(key)
        if not file.keys:
            del self.files[file.id]

    def move(self, names: Mapping[str, str]) -> None:
        """Rename keys at once; a target that is no source is replaced."""
        moved = {target: self.keys[source] for source, target in names.items()}
        for key in {*names, *moved}:
            self.unbind(key)
        for target, file in moved.items():
            self.bind(target, file)

    def under(self, prefix: str) -> list[str]:
        return self.order[bisect_left(self.order, prefix) : self._behind(prefix)]

    def holds_below(self, prefix: str) -> bool:
        """Whether a key other than *prefix* itself begins with it."""
        at = bisect_right(self.order, prefix)
        return at < len(self.order) and self.order[at].startswith(prefix)

    def page(self, prefix: str, delimiter: str, after: str, limit: int) -> Listed:
        files: list[tuple[str, File]] = []
        prefixes: list[str] = []
        end = self._behind(prefix)
        at = max(bisect_left(self.order, prefix), self._start(prefix, delimiter, after))
        last = None
        while at < end and len(files) + len(prefixes) < limit:
            key = self.order[at]
            group = rolled_up(key, prefix, delimiter)
            if group is None:
                files.append((key, self.keys[key]))
                at += 1
            else:
                prefixes.append(group)
                at = self._behind(group)
            last = group or key
        return Listed(files, prefixes, last if at < end else None)

    def _start(self, prefix: str, delimiter: str, after: str) -> int:
        if after and rolled_up(after, prefix, delimiter) == after:
            return self._behind(after)
        return bisect_right(self.order, after) if after else 0

    def _behind(self, prefix: str) -> int:
        return bisect_right(self.order, prefix, key=lambda key: key[: len(prefix)])

    def check(self) -> None:
        assert self.order == sorted(self.keys), "B1"
        assert self.order == sorted(self.keys, key=str.encode), "B1"
        for number, file in self.files.items():
            assert number == file.id, "B2"
            assert file.keys, "B2"
            assert all(self.keys[key] is file for key in file.keys), "B2"
            file.blob.check()
        assert sum(len(file.keys) for file in self.files.values()) == len(self.keys), "B2"


def rolled_up(key: str, prefix: str, delimiter: str) -> str | None:
    """The common prefix that a delimited listing of *prefix* shows in place of *key*, or None."""
    if not delimiter or not key.startswith(prefix):
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]

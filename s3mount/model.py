"""Values that cross rooms: keys, objects, pages, content to be committed, attributes.

Owns: their shapes and what makes them valid.
Must not know: where they come from. No I/O, no clock, nothing that changes after it was made
(a `StagedBytes` is a way to bytes that somebody else owns, and promises that these stay as they are).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import NewType, Protocol, TypeVar, dataclass_transform

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
TiB = 1024 * GiB

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def cheap_value(cls: type[T]) -> type[T]:
    """A frozen dataclass for the type checker, an ordinary one at run time: it is made in a quarter of the time.

    For values that come by the hundred thousand: a listing makes half a dozen for each key, and each field of one that is frozen at run
    time costs 0.2 us. Hashed and compared by its fields, as if it were frozen.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def cheap_named_value(cls: type[T]) -> type[T]:
    """As `cheap_value`, of fields that are given by name: each file that is closed makes some with a dozen and more."""
    return dataclass(slots=True, unsafe_hash=True, kw_only=True)(cls)


Key = NewType("Key", str)
"""The full name of an object: 1 to `KEY_BYTES` bytes of UTF-8. Listed in the order of those bytes."""

ETag = NewType("ETag", str)
"""Opaque tag of one content of one object, without quotes. Compared, never parsed."""

# The engine's own limit; S3's is 1024 (its face refuses what is longer).
KEY_BYTES = 4096
# S3's limit for one object.
OBJECT_BYTES = 5 * TiB

# Metadata of one object, where the store is ours: a page of a listing carries that of a thousand objects.
METADATA_BYTES = 64 * KiB

Metadata = Mapping[str, str]
"""User metadata: lower-case names without the `x-amz-meta-` prefix."""

NO_METADATA: Metadata = MappingProxyType({})


@cheap_value
class ByteRange:
    """The bytes *start* to *stop* (exclusive) of a content; never empty, never negative."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"not a byte range: {self.start}-{self.stop}")

    @property
    def length(self) -> int:
        return self.stop - self.start


@cheap_value
class ObjectInfo:
    """What a store knows of one object, without its bytes.

    `metadata` is None where a listing does not carry it (S3); never None from `head`.
    `file_id` names the file behind the key: it survives renames, and hard links share it (0 where the store has no such thing).
    `links` counts the keys of that file. `extra` is what a server keeps with the version (headers, tags, checksums), opaque to all others.
    """

    key: Key
    size: int
    etag: ETag
    mtime_ns: int
    content_type: str = "application/octet-stream"
    storage_class: str = "STANDARD"
    metadata: Metadata | None = field(default_factory=lambda: NO_METADATA)
    file_id: int = 0
    links: int = 1
    version_id: str | None = None
    extra: bytes | None = None


@cheap_value
class Found:
    """What stands under a name: the object `key`, the marker object `key/`, and whether any other key begins with `key/`."""

    object: ObjectInfo | None
    marker: ObjectInfo | None
    implied: bool

    @property
    def is_directory(self) -> bool:
        return self.marker is not None or self.implied


@dataclass(frozen=True, slots=True)
class Changed:
    """What others changed: objects under `keys`, anything under `prefixes`; `lost`: nobody can tell what."""

    keys: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    lost: bool = False

    def __bool__(self) -> bool:
        return self.lost or bool(self.keys) or bool(self.prefixes)


@cheap_value
class Page:
    """One listing response: objects and common prefixes, each in byte order; `next` continues it (None: this was the last)."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key, or a delete marker (size 0, no ETag); `version_id` is "null" for what was made without versioning."""

    key: Key
    version_id: str
    latest: bool
    marker: bool
    size: int
    etag: ETag
    mtime_ns: int
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class VersionPlace:
    """Where a listing of versions goes on: behind *version_id* of *key*, behind all of *key* where that is ""."""

    key: str
    version_id: str


@dataclass(frozen=True, slots=True)
class Versions:
    """One page of versions, by key in byte order, the newest of a key first; `next` continues it (None: this was the last)."""

    entries: tuple[Version, ...]
    next: VersionPlace | None


class StagedBytes(Protocol):
    """Bytes written aside for a commit. They do not change until the commit has returned.

    A source may have one attribute more, `digest: bytes | None`: the BLAKE3 hash of its `length` bytes, where it knows that already.
    """

    @property
    def path(self) -> Path | None:
        """The file that holds them (position p is the file's offset p), or None where they are in memory."""
        ...

    @property
    def length(self) -> int: ...

    def read_into(self, position: int, buffer: memoryview) -> None:
        """Fill *buffer* from *position*. Blocking; raises EOFError rather than come short."""
        ...


@cheap_value
class Kept:
    """The bytes that the base version has at the same place."""

    offset: int
    length: int


@cheap_value
class Staged:
    """New bytes: `source` holds them from `position` on."""

    offset: int
    length: int
    source: StagedBytes
    position: int


@cheap_value
class Hole:
    """Zeros that nobody wrote."""

    offset: int
    length: int


Piece = Kept | Staged | Hole


@dataclass(frozen=True, slots=True)
class Content:
    """A whole content to be committed: pieces in order, without gap or overlap, from 0 to `size`.

    `base` is the version that `Kept` pieces come from; it must be given when there is one.
    """

    size: int
    pieces: tuple[Piece, ...]
    base: ObjectInfo | None = None

    def __post_init__(self) -> None:
        at = 0
        for piece in self.pieces:
            if piece.offset != at or piece.length <= 0:
                raise ValueError(f"pieces do not join at {at}: {piece}")
            if isinstance(piece, Kept) and (self.base is None or at + piece.length > self.base.size):
                raise ValueError(f"nothing to keep at {at}")
            at += piece.length
        if at != self.size:
            raise ValueError(f"pieces end at {at}, not at {self.size}")


@dataclass(frozen=True, slots=True)
class Absent:
    """The commit happens only if the key has no object."""


@dataclass(frozen=True, slots=True)
class Matches:
    """The commit happens only if the key's object has this ETag."""

    etag: ETag


Condition = Absent | Matches | None


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload under way."""

    key: Key
    upload_id: str
    started_ns: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was received; numbers run from 1 to 10 000."""

    number: int
    size: int
    etag: ETag


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the medium behind a store, for statfs."""

    total: int
    free: int


@cheap_value
class Attr:
    """What stat(2) shows of an inode. `mode` includes the type. Times are nanoseconds since 1970."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    lasting: bool = False
    """Whether others' changes of it are told: it may be believed until then."""


@cheap_value
class Caller:
    """Who asks, as the kernel says: the identity for new files and for ownership rules."""

    uid: int
    gid: int
    pid: int = 0
    umask: int = 0


SOMEBODY = Caller(65534, 65534)
"""Whoever it is, without any privilege."""


# The numbers that the kernel, the engine and every 64-bit program take: 62 bits, and neither 0 nor the root's.
NUMBER_BITS = 62


def number_of(key: str) -> int:
    """The number of a key that has no file id: the same in every mount, until somebody else has it."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    return max(2, int.from_bytes(digest, "big") >> (64 - NUMBER_BITS))

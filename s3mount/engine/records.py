"""Operations as frozen values, and their form in the log (msgpack).

Owns: what can happen to the store, and the encoding of a record.
Must not know: tables, files. Pure.

A record is one transaction: the bodies it brings, then operations. Keys are bytes (UTF-8), metadata is packed already. Every operation
names what it builds on, so that it can do nothing where that is gone (see the package: tolerance). Ids that the engine makes itself are
not in the record; they follow from its sequence number (`made_id`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, cast

import msgpack

from s3mount.errors import TooLarge
from s3mount.model import METADATA_BYTES, NO_METADATA, Metadata, cheap_value

# Bits of a made id that number things within one record: 16 million, more than fit into a frame.
_MADE_BITS = 24


def made_id(seq: int, number: int) -> int:
    """The id of the *number*-th thing that record *seq* makes."""
    return seq << _MADE_BITS | number


# (offset, length, body, offset in the body): body None is a hole, -(i + 1) the record's own i-th new body, else an older body's id.
Piece = tuple[int, int, int | None, int]


@cheap_value
class NewBody:
    """A body that the record brings. `name` is its file's name in bodies/; "" where the bytes are in the record itself."""

    digest: bytes
    size: int
    name: str


@dataclass(frozen=True, slots=True)
class MakeBucket:
    bucket: int
    name: str
    created_ns: int


@dataclass(frozen=True, slots=True)
class DropBucket:
    """Uploads under way in it are aborted."""

    bucket: int


@dataclass(frozen=True, slots=True)
class SetVersioning:
    bucket: int
    state: str


@cheap_value
class Write:
    """Give a file new content and attributes: put, adopt, edit and copy alike.

    `key` None: the file is found by its id and keeps its names; else the key is made to name it. The content begins as that of
    `base_file` (0: empty) if that has `base_etag` still, is cut or grown to `size`, and the pieces are laid over it.
    """

    bucket: int
    key: bytes | None
    file: int
    base_file: int
    base_etag: str
    size: int
    etag: str
    mtime_ns: int
    content_type: str
    storage_class: str
    metadata: bytes | None
    pieces: tuple[Piece, ...]
    extra: bytes | None = None


@cheap_value
class SetMetadata:
    file: int
    metadata: bytes | None


@dataclass(frozen=True, slots=True)
class SetExtra:
    file: int
    extra: bytes | None


@dataclass(frozen=True, slots=True)
class SetSetting:
    """What a server keeps with a bucket under a name; None takes it away."""

    bucket: int
    name: str
    value: bytes | None


@cheap_value
class Remove:
    """Remove what the keys name. `mark`: leave a delete marker also where a key names nothing, in a bucket that has such things."""

    bucket: int
    keys: tuple[bytes, ...]
    time_ns: int
    mark: bool = False


@dataclass(frozen=True, slots=True)
class RemoveVersion:
    """Remove one version of a key for good, be it the current one, an older one or a delete marker."""

    bucket: int
    key: bytes
    version: str


@cheap_value
class Rename:
    """`etag`: of the content that is renamed; "" in records that do not say. The target never gets an older content of the source."""

    bucket: int
    source: bytes
    target: bytes
    time_ns: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class RenamePrefix:
    bucket: int
    source: bytes
    target: bytes
    time_ns: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """Swap two names, each a key or a prefix that ends with a slash."""

    bucket: int
    a: bytes
    b: bytes
    time_ns: int


@dataclass(frozen=True, slots=True)
class Link:
    bucket: int
    file: int
    key: bytes


@dataclass(frozen=True, slots=True)
class BeginUpload:
    """`condition` is "" (none), "absent" or "etag:" and the tag; judged at completion."""

    bucket: int
    key: bytes
    upload: str
    started_ns: int
    condition: str
    file: int
    content_type: str
    storage_class: str
    metadata: bytes | None
    extra: bytes | None = None


@dataclass(frozen=True, slots=True)
class PutPart:
    """A part's content; a part of the same number is replaced."""

    upload: str
    number: int
    size: int
    etag: str
    mtime_ns: int
    pieces: tuple[Piece, ...]
    extra: bytes | None = None


@dataclass(frozen=True, slots=True)
class Complete:
    """Join the parts, in this order, as the content of `file`; the upload is over. `key` None as in Write, `extra` None: the upload's."""

    upload: str
    key: bytes | None
    file: int
    parts: tuple[int, ...]
    etag: str
    mtime_ns: int
    extra: bytes | None = None


@dataclass(frozen=True, slots=True)
class EndUpload:
    upload: str


@dataclass(frozen=True, slots=True)
class Move:
    """The bytes of older inline bodies lie in this record from now on: (body id, index of the record's new body)."""

    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """State rows of a snapshot, as they are."""

    table: str
    rows: tuple[tuple[Any, ...], ...]


Op = (
    MakeBucket
    | DropBucket
    | SetVersioning
    | Write
    | SetMetadata
    | SetExtra
    | SetSetting
    | Remove
    | RemoveVersion
    | Rename
    | RenamePrefix
    | Exchange
    | Link
    | BeginUpload
    | PutPart
    | Complete
    | EndUpload
    | Move
    | Rows
)

# The number of each kind in the log. Never change or reuse one.
_CODES: dict[type[Any], int] = {
    MakeBucket: 1,
    DropBucket: 2,
    SetVersioning: 3,
    Write: 4,
    SetMetadata: 5,
    Remove: 6,
    RemoveVersion: 7,
    Rename: 8,
    RenamePrefix: 9,
    Exchange: 10,
    Link: 11,
    BeginUpload: 12,
    PutPart: 13,
    Complete: 14,
    EndUpload: 15,
    Move: 16,
    Rows: 17,
    SetExtra: 18,
    SetSetting: 19,
}
_KINDS: dict[int, type[Any]] = {code: kind for kind, code in _CODES.items()}


def _getter(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    names = [field.name for field in fields(kind)]
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda op: (get(op),)


_FIELDS = {kind: _getter(kind) for kind in _CODES}


@cheap_value
class Record:
    """One transaction."""

    time_ns: int
    bodies: tuple[NewBody, ...]
    ops: tuple[Op, ...]


def encode(record: Record) -> bytes:
    bodies = [(body.digest, body.size, body.name) for body in record.bodies]
    ops = [(_CODES[type(op)], *_FIELDS[type(op)](op)) for op in record.ops]
    return cast(bytes, msgpack.packb((record.time_ns, bodies, ops)))


def decode(payload: bytes | memoryview) -> Record:
    """Raises ValueError or TypeError when *payload* is no record (its checksum was right, so a newer program wrote it)."""
    time_ns, bodies, ops = msgpack.unpackb(payload, use_list=False, strict_map_key=False)
    if unknown := {op[0] for op in ops} - _KINDS.keys():
        raise ValueError(f"operations of the kinds {sorted(unknown)} are not known")
    return Record(time_ns, tuple(NewBody(*body) for body in bodies), tuple(_KINDS[op[0]](*op[1:]) for op in ops))


def references(record: Record) -> set[int]:
    """Older bodies that the record refers to by id: where one is missing, the record did not happen."""
    pieces = (piece for op in record.ops if isinstance(op, Write | PutPart) for piece in op.pieces)
    return {body for _, _, body, _ in pieces if body is not None and body >= 0}


def pack_metadata(metadata: Metadata) -> bytes | None:
    """Raises TooLarge where names and values take more than METADATA_BYTES."""
    if not metadata:
        return None
    packed = cast(bytes, msgpack.packb(dict(metadata)))
    if len(packed) > METADATA_BYTES and (size := sum(len(text.encode()) for pair in metadata.items() for text in pair)) > METADATA_BYTES:
        raise TooLarge(f"The metadata of one object takes at most {METADATA_BYTES} bytes, not {size}.")
    return packed


def unpack_metadata(packed: bytes | None) -> Mapping[str, str]:
    return NO_METADATA if packed is None else cast("dict[str, str]", msgpack.unpackb(packed))

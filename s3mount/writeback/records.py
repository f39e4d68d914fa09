"""What the journal says of one change: its shape, and how it is written as text.

Owns: records, the pieces that a content is put together from, composing one content over another.
Must not know: files, SQLite, stores. Pure.

A content is a list of pieces without gap or overlap, as in `model.Content`, but what was staged there lies in a *body* here: a file of the
journal's folder, or bytes within the journal, under a name of its own. `Kept` pieces are those of the base: a version in the store, or
(by its local ETag) the change before this one. A base under another key makes the record a *reader* of that key: it is a copy of what lies
there, whole or with edits, and what replaces that must wait until it is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum

from s3mount.model import NO_METADATA, Absent, Condition, ETag, Hole, Kept, Key, Matches, Metadata, ObjectInfo, cheap_named_value
from s3mount.store.api import COMMIT_ID

# A string in JSON. (All of a value costs the encoder 8 us, and a close has two.)
_quoted = json.encoder.encode_basestring

# How the ETag of a version begins that no store has acknowledged yet; its commit id follows.
LOCAL = "wb-"


class Op(Enum):
    PUT = "put"
    DELETE = "delete"


class State(Enum):
    """QUEUED: to be sent. FAILED: refused for good, kept until somebody decides. KEPT: never was ours to send (a mount that commits at
    close could not), kept likewise.
    """

    QUEUED = "queued"
    FAILED = "failed"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes of the body *body*, from its *position* on."""

    offset: int
    length: int
    body: str
    position: int


Piece = Stored | Kept | Hole


@cheap_named_value
class Record:
    """One change of one key. `id` rises with time (0: not in the journal yet); times in nanoseconds since 1970.

    `condition` is what the store shall judge. `base` is what `Kept` pieces come from. `former` is the ETag of the version whose tags and
    headers stay ("": none). `reason` is the last failure, as a sentence, and `error` the name of its class in `s3mount.errors`.
    """

    id: int = 0
    key: Key
    op: Op
    state: State = State.QUEUED
    condition: Condition = None
    commit_id: str = ""
    size: int = 0
    pieces: tuple[Piece, ...] = ()
    base: ObjectInfo | None = None
    metadata: Metadata = field(default_factory=lambda: NO_METADATA)
    content_type: str = "application/octet-stream"
    storage_class: str = "STANDARD"
    former: str = ""
    created_ns: int = 0
    updated_ns: int = 0
    attempts: int = 0
    reason: str = ""
    error: str = ""

    def entered(self, *, former: str, now_ns: int) -> Record:
        """The same, entered now in the place of version *former*."""
        return _but(self, former=former, created_ns=now_ns, updated_ns=now_ns)

    def numbered(self, number: int) -> Record:
        """The same, as the journal's record *number*."""
        return _but(self, id=number)

    @property
    def etag(self) -> ETag:
        """By which this version is known until the store has given it another."""
        return ETag(LOCAL + self.commit_id)

    @property
    def bodies(self) -> frozenset[str]:
        return bodies_of(self.pieces)

    @property
    def stored_bytes(self) -> int:
        """How much of it lies in bodies."""
        return sum(piece.length for piece in self.pieces if isinstance(piece, Stored))

    @property
    def keeps(self) -> bool:
        """Whether something of the base is needed."""
        return any(isinstance(piece, Kept) for piece in self.pieces)

    @property
    def reads(self) -> str:
        """The other key of whose version this one is made; "" for none."""
        return self.base.key if self.base is not None and self.base.key != self.key else ""

    @property
    def is_base_again(self) -> bool:
        """Whether it has the bytes of its base and no others: a copy, or the same object described anew."""
        return self.base is not None and self.base.size == self.size and self.pieces == whole_of(self.size)

    @property
    def info(self) -> ObjectInfo:
        """What is shown of the version that this record makes."""
        return ObjectInfo(
            self.key,
            self.size,
            self.etag,
            self.created_ns,
            self.content_type,
            self.storage_class,
            {**self.metadata, COMMIT_ID: self.commit_id},
        )


def _but(record: Record, **changes: object) -> Record:
    """As `dataclasses.replace`, in a third of its time: each file that is closed comes here twice."""
    made = object.__new__(Record)
    for name in _FIELDS:
        setattr(made, name, changes[name] if name in changes else getattr(record, name))
    return made


_FIELDS = tuple(each.name for each in fields(Record))


def bodies_of(pieces: Iterable[Piece]) -> frozenset[str]:
    """The names of the bodies in which bytes of *pieces* are."""
    return frozenset([piece.body for piece in pieces if isinstance(piece, Stored)])


def whole_of(size: int) -> tuple[Piece, ...]:
    """All of a base of *size* bytes."""
    return (Kept(0, size),) if size else ()


def is_local(etag: ETag) -> bool:
    """Whether *etag* names a version by its commit, not by what a store calls it."""
    return etag.startswith(LOCAL)


def commit_of(etag: ETag) -> str:
    return etag.removeprefix(LOCAL)


# -- contents -----------------------------------------------------------------------------


def cut(pieces: Iterable[Piece], start: int, stop: int) -> list[Piece]:
    """What of *pieces* lies between *start* and *stop*."""
    found: list[Piece] = []
    for piece in pieces:
        begin, end = max(start, piece.offset), min(stop, piece.offset + piece.length)
        if begin >= end:
            continue
        match piece:
            case Stored():
                found.append(Stored(begin, end - begin, piece.body, piece.position + begin - piece.offset))
            case Kept():
                found.append(Kept(begin, end - begin))
            case Hole():
                found.append(Hole(begin, end - begin))
    return found


def compose(pieces: Iterable[Piece], base: Iterable[Piece]) -> tuple[Piece, ...]:
    """*pieces*, where what is kept of the base is said in the base's own pieces."""
    below = tuple(base)
    composed: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Kept):
            composed.extend(cut(below, piece.offset, piece.offset + piece.length))
        else:
            composed.append(piece)
    return tuple(composed)


def require_joined(pieces: Iterable[Piece], size: int) -> None:
    """Raise ValueError unless *pieces* are a content of *size* bytes."""
    at = 0
    for piece in pieces:
        if piece.offset != at or piece.length <= 0:
            raise ValueError(f"pieces do not join at {at}: {piece}")
        at += piece.length
    if at != size:
        raise ValueError(f"pieces end at {at}, not at {size}")


# -- as text --------------------------------------------------------------------------------


def pieces_to_text(pieces: Iterable[Piece]) -> str:
    """JSON, a list for each piece: `[offset, length]` kept, `[offset, length, null]` a hole, `[offset, length, body, position]`."""
    return f"[{','.join([_piece_to_text(piece) for piece in pieces])}]"


def _piece_to_text(piece: Piece) -> str:
    match piece:
        case Stored():
            return f"[{piece.offset},{piece.length},{_quoted(piece.body)},{piece.position}]"
        case Kept():
            return f"[{piece.offset},{piece.length}]"
        case Hole():
            return f"[{piece.offset},{piece.length},null]"


def pieces_from_text(text: str) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for row in json.loads(text):
        match row:
            case [offset, length]:
                pieces.append(Kept(offset, length))
            case [offset, length, None]:
                pieces.append(Hole(offset, length))
            case [offset, length, body, position]:
                pieces.append(Stored(offset, length, body, position))
            case _:
                raise ValueError(f"not a piece: {row}")
    return tuple(pieces)


def bodies_in(text: str) -> frozenset[str]:
    """As `bodies_of`, of pieces as text."""
    return frozenset([row[2] for row in json.loads(text) if len(row) == 4])


def condition_to_text(condition: Condition) -> str:
    match condition:
        case Absent():
            return "absent"
        case Matches(etag):
            return f"matches {etag}"
        case None:
            return ""


def condition_from_text(text: str) -> Condition:
    if text == "absent":
        return Absent()
    return Matches(ETag(text.removeprefix("matches "))) if text else None


def base_to_text(base: ObjectInfo | None) -> str:
    return "" if base is None else json.dumps([base.key, base.size, base.etag, base.mtime_ns, base.version_id])


def base_from_text(text: str) -> ObjectInfo | None:
    if not text:
        return None
    key, size, etag, mtime_ns, version_id = json.loads(text)
    return ObjectInfo(Key(key), size, ETag(etag), mtime_ns, version_id=version_id)


def metadata_to_text(metadata: Mapping[str, str]) -> str:
    return f"{{{', '.join([f'{_quoted(name)}: {_quoted(value)}' for name, value in metadata.items()])}}}" if metadata else ""


def metadata_from_text(text: str) -> Metadata:
    return json.loads(text) if text else NO_METADATA

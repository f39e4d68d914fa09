"""What the server keeps with a version beyond what the engine knows: content headers, tags, checksums, the parts it was made of.

Owns: `Kept` and its packed form, which the engine stores as opaque bytes (`extra`); the plan and the parts of uploads use it too.
Must not know: the engine's work, requests.

The packed form is a msgpack map with one-letter keys; what is empty is left out, unknown keys are ignored. Those that describe the object
rather than its bytes are named by the engine, which keeps them when a mount writes the file (`engine.extra`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from s3mount.engine.extra import HEADERS, TAGS
from s3mount.server.checksums import Algorithm, Kind
from s3mount.server.tags import Tags

NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Sum:
    """One checksum as clients see it: base64, or `base64-N` where it is composite. In an upload's plan `text` is ""."""

    algorithm: Algorithm
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class KeptPart:
    """A part of an object that was uploaded in parts; `text` is its checksum in the object's algorithm, "" for none."""

    number: int
    size: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """`upload` names the upload that made the object: its completion may be sent again."""

    headers: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    tags: Tags = ()
    sums: tuple[Sum, ...] = ()
    parts: tuple[KeptPart, ...] = ()
    upload: str = ""

    @property
    def sum(self) -> Sum | None:
        """The checksum that answers name."""
        return self.sums[0] if self.sums else None

    def text_of(self, algorithm: Algorithm) -> str:
        """The checksum in *algorithm*; "" where there is none."""
        return next((one.text for one in self.sums if one.algorithm is algorithm), "")


def pack(kept: Kept) -> bytes | None:
    """None where there is nothing to keep."""
    found: dict[str, Any] = {
        HEADERS: dict(kept.headers),
        TAGS: kept.tags,
        "c": [(one.algorithm.value, one.kind.value, one.text) for one in kept.sums],
        "p": [(part.number, part.size, part.text) for part in kept.parts],
        "u": kept.upload,
    }
    said = {name: value for name, value in found.items() if value}
    packed: bytes | None = msgpack.packb(said) if said else None
    return packed


def unpack(packed: bytes | None) -> Kept:
    if packed is None:
        return Kept()
    found = msgpack.unpackb(packed, use_list=False)
    return Kept(
        found.get(HEADERS, {}),
        found.get(TAGS, ()),
        tuple(Sum(Algorithm(name), Kind(kind), text) for name, kind, text in found.get("c", ())),
        tuple(KeptPart(*part) for part in found.get("p", ())),
        found.get("u", ""),
    )


def kind_of_sum(packed: bytes | None) -> tuple[str, str] | None:
    """Names of algorithm and kind of the checksum that answers name; None where there is none. For listings: a tenth of `unpack`."""
    sums = msgpack.unpackb(packed, use_list=False).get("c") if packed is not None else None
    return sums[0][:2] if sums else None

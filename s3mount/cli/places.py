"""What the operands of cp, mv and their kind name: a file, standard input or output, a place in a store.

Owns: telling them apart, and the name a copy gets at its target (as cp(1) has it).
Must not know: how bytes move.

As in cp(1): a target that is a directory (a bucket, a key that ends in "/", a prefix with keys below it, a folder) takes the copy in under
the source's last name; any other target is the copy's own name. More than one source needs a directory.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from s3mount.cli.open_store import require_bucket_named, require_local
from s3mount.config import StoreUrl, parse_url
from s3mount.errors import InvalidName, UsageError
from s3mount.store.api import ObjectStore

# RFC 3986's schemes; a file whose name looks like this is written ./name.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Pipe:
    """Standard input as a source, standard output as a target."""

    def __str__(self) -> str:
        return "-"


Place = StoreUrl | Path | Pipe


def parse_place(text: str) -> Place:
    """Raises UsageError for a URL of an unknown kind, or one that names no bucket."""
    if text == "-":
        return Pipe()
    if _URL.match(text):
        return parse_bucket_url(text)
    return Path(text)


def parse_bucket_url(text: str) -> StoreUrl:
    """A URL that names a bucket at least. Raises UsageError."""
    url = parse_url(text)
    require_local(url)
    require_bucket_named(url)
    return url


def parse_object_url(text: str) -> StoreUrl:
    """A URL that names a key. Raises UsageError."""
    url = parse_bucket_url(text)
    if not url.key:
        raise UsageError(f"{text} names a bucket, not an object: write {url.scheme}://{url.bucket}/KEY.")
    return url


def with_key(url: StoreUrl, key: str) -> StoreUrl:
    """The place of *key* in *url*'s bucket."""
    return StoreUrl(url.scheme, url.bucket, key)


def as_prefix(key: str) -> str:
    """The prefix of what lies under *key*."""
    return key if not key or key.endswith("/") else key + "/"


def plain_name(url: StoreUrl) -> str:
    """The name to ask a store about: the key without its last slash."""
    return url.key.removesuffix("/")


def last_name(place: Place) -> str:
    """The name a copy of *place* gets in a directory; empty for a bucket, `/`, `.` and `..`: their contents go in directly."""
    if isinstance(place, Pipe):
        raise UsageError("Standard input has no name: give the target one, as in local://BUCKET/KEY.")
    if isinstance(place, Path):
        return "" if place.name in ("", "..") else place.name
    return place.key.rstrip("/").rpartition("/")[2]


async def is_directory(place: Place, store: ObjectStore | None) -> bool:
    """Whether a copy goes into *place* rather than becoming it. *store* is the place's, where it has one."""
    if isinstance(place, Pipe):
        return False
    if isinstance(place, Path):
        return place.is_dir() or str(place).endswith(os.sep)
    assert store is not None
    return not place.key or place.key.endswith("/") or (await store.find(plain_name(place))).is_directory


def inside(place: Place, name: str) -> Place:
    """The place *name* in the directory *place*; itself where *name* is empty."""
    if isinstance(place, Path):
        return place / name if name else place
    assert isinstance(place, StoreUrl)
    return with_key(place, as_prefix(place.key) + name)


def below(folder: Path, relative: str) -> Path:
    """The file for a key *relative* to a prefix, under *folder*, never outside it. Raises InvalidName where no file can have that name."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts):
        raise InvalidName(f"The key {relative!r} cannot be a file's name; reach it through a mount, which escapes such names.")
    return folder.joinpath(*parts)

"""What the operands of cp, mv and their kind name: a file, standard input or output, a place in a store.

Owns: telling them apart, the name a copy gets at its target (as cp(1) has it), the file name of a key (as a mount shows it).
Must not know: how bytes move.

As in cp(1): a target that is a directory (a bucket, a key that ends in "/", a prefix with keys below it, a folder) takes the copy in under
the source's last name; any other target is the copy's own name. More than one source needs a directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s3mount.cli.open_store import require_bucket_named
from s3mount.config import StoreUrl, parse_url
from s3mount.errors import FsError, InvalidName, UsageError
from s3mount.fs import names
from s3mount.model import Found, ObjectInfo
from s3mount.store.api import ObjectStore

# RFC 3986's schemes; a file whose name looks like this is written ./name.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Pipe:
    """Standard input as a source, standard output as a target."""

    def __str__(self) -> str:
        return "-"


@dataclass(frozen=True, slots=True)
class File:
    """A file or a folder. `folder`: its spelling says that it is one (`a/`); `contents`: and that what is in it is meant (`a/.`)."""

    path: Path
    folder: bool = False
    contents: bool = False

    def __str__(self) -> str:
        return str(self.path)


Place = StoreUrl | File | Pipe


def parse_place(text: str) -> Place:
    """Raises UsageError for a URL of an unknown kind, or one that names no bucket."""
    if text == "-":
        return Pipe()
    if _URL.match(text):
        return parse_bucket_url(text)
    contents = os.path.basename(text) in (os.curdir, os.pardir)
    return File(Path(text), folder=contents or text.endswith(os.sep), contents=contents)


def parse_bucket_url(text: str) -> StoreUrl:
    """A URL that names a bucket at least. Raises UsageError."""
    url = parse_url(text)
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


def object_at(url: StoreUrl, found: Found) -> ObjectInfo | None:
    """The object that *url* names, of what was *found* under its plain name: a key with a last slash names what lies below it."""
    return None if url.key.endswith("/") else found.object


def last_name(place: Place) -> str:
    """The name a copy of *place* gets in a directory, as part of a key; empty for a bucket, `/`, `.` and `..`: their contents go in.

    Raises UsageError for standard input, InvalidName for a file whose name cannot be part of a key.
    """
    if isinstance(place, Pipe):
        raise UsageError("Standard input has no name: give the target one, as in local://BUCKET/KEY.")
    if isinstance(place, File):
        return "" if place.contents else key_of(Path(place.path.name))
    return plain_name(place).rpartition("/")[2]


async def is_directory(place: Place, store: ObjectStore | None) -> bool:
    """Whether a copy goes into *place* rather than becoming it. *store* is the place's, where it has one."""
    if isinstance(place, Pipe):
        return False
    if isinstance(place, File):
        return place.folder or place.path.is_dir()
    assert store is not None
    return not place.key or place.key.endswith("/") or (await store.find(plain_name(place))).is_directory


def inside(place: Place, name: str) -> Place:
    """The place *name* (part of a key) in the directory *place*; itself where *name* is empty."""
    if isinstance(place, File):
        return File(place.path / path_of(name)) if name else place
    assert isinstance(place, StoreUrl)
    return with_key(place, as_prefix(place.key) + name)


# -- keys and files -----------------------------------------------------------------------


def path_of(key: str, *, shadowed: bool = False) -> Path:
    """The relative path under which *key* shows in a mount, and is copied to a folder; never one that leads out of it.

    *shadowed*: keys lie below `key/` too, so that this object needs another name.
    """
    *folders, last = key.split("/")
    above = [name for component in folders for name in _names_of(component, shadowed=False)]
    return Path(*above, *_names_of(last, shadowed=shadowed))


def _names_of(component: str, *, shadowed: bool) -> Iterator[str]:
    stem = ""
    while (shown := names.name_in(stem, component, shadowed=shadowed)) is not None:
        yield os.fsdecode(shown.name)
        if not shown.continued:
            return
        stem = names.meaning(stem, shown.name).key


def key_of(path: Path) -> str:
    """The reverse of `path_of`: the key as which a file at the relative *path* is stored. Raises InvalidName."""
    stem = key = ""
    for part in path.parts:
        try:
            meaning = names.meaning(stem, os.fsencode(part))
        except FsError as error:
            raise InvalidName(f"{path} cannot be a key: {error}") from None
        key = meaning.key
        stem = key if meaning.kind is names.Kind.CONTINUED else key + "/"
    return key

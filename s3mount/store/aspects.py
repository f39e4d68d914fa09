"""What an object says of itself beyond its bytes and its metadata: the aspects of `ObjectStore.aspect`, by name.

Owns: their names, which can be set, how tags are written as text, what a store says and does that keeps no more than `ObjectInfo`; and
which commit made it, as its metadata say.
Must not know: how a store finds out, extended attributes.

    url, etag, size, version-id, storage-class, content-type, tags, presigned-url

Tags are written as a query string (`a=1&b=2`), as S3's header x-amz-tagging has them.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol
from urllib.parse import parse_qsl, quote, urlencode

from s3mount.errors import NotFound, PreconditionFailed, Unsupported, UsageError
from s3mount.model import (
    NO_METADATA,
    ByteRange,
    Changed,
    Condition,
    ETag,
    Key,
    Matches,
    Metadata,
    ObjectInfo,
    Page,
    Part,
    Upload,
    Version,
    VersionPlace,
    Versions,
)
from s3mount.store.api import COMMIT_ID, PAGE_KEYS, Arrived, Commit, ObjectStore, Pin, Relocation

URL, ETAG, SIZE, VERSION_ID = "url", "etag", "size", "version-id"
STORAGE_CLASS, CONTENT_TYPE, TAGS, PRESIGNED_URL = "storage-class", "content-type", "tags", "presigned-url"

# All that an object says, in one request: for whoever has it from a listing and is about to replace its metadata. Nobody's attribute.
WHOLE = "whole"

ASPECTS = frozenset({URL, ETAG, SIZE, VERSION_ID, STORAGE_CLASS, CONTENT_TYPE, TAGS, PRESIGNED_URL})
SETTABLE = frozenset({STORAGE_CLASS, CONTENT_TYPE, TAGS})

# What was made while no versions were kept.
NULL_VERSION = "null"

# S3's limits (user guide, "Categorizing your objects using tags").
TAGS_MOST, TAG_NAME_CHARS, TAG_VALUE_CHARS = 10, 128, 256
# What can stand in the header Content-Type, and what names of classes look like; S3 judges the rest.
_FORMS = {CONTENT_TYPE: re.compile(r"[!-~](?:[ -~]{0,1022}[!-~])?"), STORAGE_CLASS: re.compile(r"[A-Z][A-Z0-9_]{0,63}")}

_TOLD: dict[str, Callable[[ObjectInfo], str | None]] = {
    ETAG: lambda info: info.etag,
    SIZE: lambda info: str(info.size),
    VERSION_ID: lambda info: info.version_id,
    STORAGE_CLASS: lambda info: info.storage_class,
    CONTENT_TYPE: lambda info: info.content_type,
    WHOLE: lambda info: json.dumps([info.etag, info.content_type, info.storage_class, dict(info.metadata or {})]),
}

TagPairs = tuple[tuple[str, str], ...]


def url_of(scheme: str, bucket: str, key: str) -> str:
    """The URL by which the commands take *key*."""
    return f"{scheme}://{bucket}/{key}"


def told_by(info: ObjectInfo, name: str) -> str | None:
    """The aspect *name* as far as *info* knows it; None where it has none, or does not say."""
    return _TOLD[name](info) if name in _TOLD else None


async def whole(store: ObjectStore, info: ObjectInfo) -> ObjectInfo:
    """*info* with its metadata, also where *store* leaves that out (`Capabilities.whole_metadata`); as it is when it is gone."""
    return info if store.capabilities.whole_metadata else await _asked_whole(store, info)


async def surely_whole(store: ObjectStore, info: ObjectInfo) -> ObjectInfo:
    """As `whole`, for who judges by it: what seems to say nothing may be what *store* was refused to read just now, so it is asked again.

    Raises StoreErrors.
    """
    return info if store.capabilities.whole_metadata and info.metadata else await _asked_whole(store, info)


async def _asked_whole(store: ObjectStore, info: ObjectInfo) -> ObjectInfo:
    try:
        etag, content_type, storage_class, metadata = json.loads(await store.aspect(info.key, WHOLE) or "")
    except (NotFound, ValueError):
        return info
    known = replace(info, content_type=content_type, storage_class=storage_class, metadata=metadata)
    return known if etag == info.etag else info


def commit_id_of(info: ObjectInfo) -> str | None:
    """The id of the commit that brought the bytes of *info*, None where that is not known."""
    return (info.metadata or NO_METADATA).get(COMMIT_ID)


def is_same_commit(info: ObjectInfo, other: ObjectInfo) -> bool:
    """Whether both are known to have the same bytes, by who brought them."""
    commit_id = commit_id_of(info)
    return bool(commit_id) and (commit_id, info.size) == (commit_id_of(other), other.size)


def without_commit_id(metadata: Metadata | None) -> Metadata:
    """What *metadata* say beside it."""
    return {name: text for name, text in (metadata or NO_METADATA).items() if name != COMMIT_ID}


def require_value(name: str, value: str) -> None:
    """Raise UsageError where *value* cannot be *name*'s."""
    if name == TAGS:
        tags_in(value)
    elif not _FORMS[name].fullmatch(value):
        raise UsageError(f"{value!r} cannot be an object's {name}.")


def commit_again(info: ObjectInfo, name: str, value: str) -> Commit:
    """The commit that makes *info* once more, with *name* (a type or a class) set to *value*."""
    commit = Commit(metadata=info.metadata or NO_METADATA, content_type=info.content_type, storage_class=info.storage_class)
    return replace(commit, content_type=value) if name == CONTENT_TYPE else replace(commit, storage_class=value)


# -- tags ---------------------------------------------------------------------------------


def tags_in(text: str) -> TagPairs:
    """The tags of `a=1&b=2`. Raises UsageError for what S3 would refuse."""
    try:
        pairs = tuple(parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")) if text else ()
    except ValueError:
        raise UsageError(f"Tags are written as NAME=VALUE&NAME=VALUE, not {text[:64]!r}.") from None
    if len(pairs) > TAGS_MOST or len({name for name, _ in pairs}) != len(pairs):
        raise UsageError(f"An object takes at most {TAGS_MOST} tags, each name once.")
    for name, value in pairs:
        if not 1 <= len(name) <= TAG_NAME_CHARS or len(value) > TAG_VALUE_CHARS:
            raise UsageError(f"A tag's name has 1 to {TAG_NAME_CHARS} characters, its value at most {TAG_VALUE_CHARS}.")
    return pairs


def tags_out(pairs: TagPairs) -> str | None:
    """The reverse of `tags_in`; None for no tags."""
    return urlencode(pairs, quote_via=quote) or None


# -- stores that know no more than ObjectInfo ------------------------------------------------


class Plain(Protocol):
    """A store whose objects say what `ObjectInfo` does; a type is changed by a copy onto itself."""

    @abstractmethod
    async def head(self, key: Key) -> ObjectInfo: ...

    @abstractmethod
    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page: ...

    @abstractmethod
    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo: ...

    @abstractmethod
    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin: ...

    @abstractmethod
    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo: ...

    @abstractmethod
    async def put_part(self, upload: Upload, number: int, data: bytes | bytearray | memoryview) -> Part: ...

    async def copy_part(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        """As `ObjectStore.copy_part`."""
        buffer = memoryview(bytearray(span.length))
        try:
            await self.get_into(source.key, span, buffer, if_match=source.etag)
        except NotFound:
            raise PreconditionFailed(f"{source.key!r} is another version by now.") from None
        return await self.put_part(upload, number, buffer)

    async def changed(self) -> Changed:
        """As `ObjectStore.changed`."""
        raise Unsupported("This store does not tell what others do.")

    async def relocate(self, moves: Sequence[Relocation]) -> Sequence[ObjectInfo]:
        """As `ObjectStore.relocate`."""
        raise Unsupported("This store renames, or it copies.")

    async def aspect(self, key: Key, name: str) -> str | None:
        """As `ObjectStore.aspect`."""
        return told_by(await self.head(key), name)

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        """As `ObjectStore.set_aspect`."""
        if name not in (CONTENT_TYPE, STORAGE_CLASS):
            raise Unsupported(f"This store keeps no {name} of objects.")
        require_value(name, value)
        commit = commit_again(await self.head(key), name, value)
        return await self.copy(key, key, if_match=if_match, commit=replace(commit, condition=Matches(if_match), file_id=file_id))

    async def list_versions(self, prefix: str = "", *, after: VersionPlace | None = None) -> Versions:
        """As `ObjectStore.list_versions`."""
        page = await self.list(prefix, after=after.key if after else "")
        return Versions(tuple(map(only_version, page.objects)), VersionPlace(page.next, NULL_VERSION) if page.next else None)

    async def head_version(self, key: Key, version_id: str) -> ObjectInfo:
        """As `ObjectStore.head_version`."""
        return await self.head(key)

    async def version_aspect(self, key: Key, version_id: str, name: str) -> str | None:
        """As `ObjectStore.version_aspect`."""
        return told_by(await self.head_version(key, version_id), name)

    async def pin_version(self, info: ObjectInfo) -> Pin:
        """As `ObjectStore.pin_version`."""
        return await self.pin(info.key, known=info)


def only_version(info: ObjectInfo) -> Version:
    """The version that an object is where no others are kept."""
    return Version(
        info.key,
        info.version_id or NULL_VERSION,
        latest=True,
        marker=False,
        size=info.size,
        etag=info.etag,
        mtime_ns=info.mtime_ns,
        storage_class=info.storage_class,
    )

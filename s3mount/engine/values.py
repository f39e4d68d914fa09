"""What callers give to the engine and get from it, besides the shared values of s3mount.model.

Owns: their shapes. Must not know: how anything is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from s3mount.errors import StoreError
from s3mount.model import NO_METADATA, Condition, Key, Metadata, ObjectInfo, Part, Upload, cheap_value

Versioning = Literal["off", "enabled", "suspended"]

# The metadata name under which a commit's id stays with the object; the store protocol uses the same.
COMMIT_ID = "s3mount-commit"

# Bytes up to which a body lies in the log record itself: creating, syncing and opening a file costs more than these bytes do.
INLINE_BYTES = 16 * 1024

# S3's bounds.
PARTS = 10_000
DELETE_KEYS = 1000

# ETags that the engine makes end so: a tag with a dash is never taken for an MD5.
ETAG_SUFFIX = "-m"


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """Everything about a new version but its bytes; the store protocol's Commit has the same fields, without `extra`.

    `file_id`: the file to write, 0 to let the engine choose. Under a Matches condition the file is found by its id, whatever it is called
    by now; without one the key is made to name this file. `extra`: kept with the version and given back, opaque to the engine but for what
    `engine.extra` says. `carries`: a file that exists already keeps of its extra what outlives its bytes, a copy has its source's.
    """

    condition: Condition = None
    metadata: Metadata = field(default_factory=lambda: NO_METADATA)
    content_type: str = "application/octet-stream"
    storage_class: str = "STANDARD"
    commit_id: str = ""
    file_id: int = 0
    extra: bytes | None = None
    carries: bool = False


PLAIN = How()


@cheap_value
class BucketInfo:
    name: str
    created_ns: int
    versioning: Versioning
    id: int


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a key, or a delete marker (`size` 0, `etag` empty). `version_id` is "null" for one made without versioning."""

    key: Key
    version_id: str
    latest: bool
    marker: bool
    size: int
    etag: str
    mtime_ns: int
    storage_class: str = "STANDARD"
    extra: bytes | None = None


@dataclass(frozen=True, slots=True)
class VersionPage:
    """One page of versions and common prefixes; `next` is the (key, version id) behind which the next begins (None: the last page)."""

    versions: tuple[VersionInfo, ...]
    prefixes: tuple[str, ...]
    next: tuple[str, str | None] | None


@dataclass(frozen=True, slots=True)
class Doomed:
    """What is to be removed. `check` is asked under the lock with what is there (None: nothing, or a delete marker) and may raise."""

    key: Key
    version_id: str | None = None
    check: Callable[[ObjectInfo | None], None] | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did. `marker`: it left a delete marker (`marker_version`), or, with a version id, it removed one."""

    key: Key
    version_id: str | None
    marker: bool
    marker_version: str | None = None


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """A multipart upload under way, with what its completion will give the object."""

    upload: Upload
    content_type: str
    storage_class: str
    metadata: Metadata
    extra: bytes | None


@dataclass(frozen=True, slots=True)
class UploadPage:
    """One page of uploads and common prefixes; `next` is the (key, upload id) behind which the next begins (None: the last page)."""

    uploads: tuple[UploadInfo, ...]
    prefixes: tuple[str, ...]
    next: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class PartInfo:
    """A part that was received. `extra` as in How."""

    part: Part
    mtime_ns: int
    extra: bytes | None


@dataclass(frozen=True, slots=True)
class Failed:
    """One key of many that could not be done."""

    key: Key
    error: StoreError

"""What callers give to the engine and get from it, besides the shared values of s3mount.model.

Owns: their shapes. Must not know: how anything is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from s3mount.errors import StoreError
from s3mount.model import NO_METADATA, Condition, Key, Metadata

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
    """Everything about a new version but its bytes; the store protocol's Commit has the same fields.

    `file_id`: the file to write, 0 to let the engine choose. Under a Matches condition the file is found by its id, whatever it is called
    by now; without one the key is made to name this file.
    """

    condition: Condition = None
    metadata: Metadata = field(default_factory=lambda: NO_METADATA)
    content_type: str = "application/octet-stream"
    storage_class: str = "STANDARD"
    commit_id: str = ""
    file_id: int = 0


PLAIN = How()


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Failed:
    """One key of many that could not be done."""

    key: Key
    error: StoreError

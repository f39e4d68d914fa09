"""What every store refuses alike, and the sentence it refuses with.

Owns: the rules of keys and prefixes that need no store to be judged, and the common errors.
Must not know: any store.
"""

from __future__ import annotations

from s3mount.errors import AlreadyExists, InvalidName, NotFound, PreconditionFailed, TooLarge
from s3mount.model import KEY_BYTES, Metadata

# S3's bounds: parts per upload, and keys per delete_many.
PARTS = 10_000
DELETE_KEYS = 1000


def require_key(key: str, limit: int = KEY_BYTES) -> None:
    """Raise InvalidName unless *key* is 1 to *limit* bytes of UTF-8."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"The key {key!r} is not valid UTF-8.") from None
    if not 1 <= length <= limit:
        raise InvalidName(f"A key has 1 to {limit} bytes of UTF-8, not {length}.")


def require_metadata(metadata: Metadata, limit: int) -> None:
    """Raise TooLarge unless names and values take at most *limit* bytes together."""
    size = len("".join([*metadata, *metadata.values()]).encode())
    if size > limit:
        raise TooLarge(f"The metadata of one object takes at most {limit} bytes, not {size}.")


def require_apart(a: str, b: str) -> None:
    if not (a.endswith("/") and b.endswith("/")):
        raise ValueError(f"a prefix ends with '/': {a!r}, {b!r}")
    if a.startswith(b) or b.startswith(a):
        raise ValueError(f"{a!r} and {b!r} lie inside each other")


def not_found(key: str) -> NotFound:
    return NotFound(f"There is no object {key!r}.")


def exists(key: str) -> AlreadyExists:
    return AlreadyExists(f"{key!r} exists already.")


def changed(key: str) -> PreconditionFailed:
    return PreconditionFailed(f"{key!r} is another version by now.")

"""Rules of bucket names and keys, and the byte order of keys.

Owns: what is a valid name, with a sentence for each rule; how prefixes bound ranges of keys. Pure.
Must not know: tables, files.
"""

from __future__ import annotations

import re

from s3mount.errors import InvalidName
from s3mount.model import KEY_BYTES

# S3's rules for general purpose buckets (user guide, "Bucket naming rules").
_SHAPE = re.compile(r"[a-z0-9][a-z0-9.-]*[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def require_bucket_name(name: str) -> None:
    """Raise InvalidName with the rule that *name* breaks."""
    rule = _broken_rule(name)
    if rule:
        raise InvalidName(f"{name!r} is no bucket name: {rule}.")


def _broken_rule(name: str) -> str:
    if not 3 <= len(name) <= 63:
        return "it must have 3 to 63 characters"
    if not _SHAPE.fullmatch(name):
        return "only lower-case letters, digits, dots and hyphens are allowed, and it begins and ends with a letter or digit"
    if ".." in name:
        return "two dots must not follow each other"
    if _ADDRESS.fullmatch(name):
        return "it must not look like an IP address"
    if name.startswith(_PREFIXES):
        return f"it must not begin with {' or '.join(_PREFIXES)}"
    if name.endswith(_SUFFIXES):
        return f"it must not end with {' or '.join(_SUFFIXES)}"
    return ""


def key_bytes(key: str) -> bytes:
    """The key as it is stored. Raises InvalidName unless it is 1 to KEY_BYTES bytes of UTF-8."""
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raise InvalidName(f"The key {key!r} is not valid UTF-8.") from None
    if not 1 <= len(raw) <= KEY_BYTES:
        raise InvalidName(f"A key has 1 to {KEY_BYTES} bytes of UTF-8, not {len(raw)}.")
    return raw


def sought_bytes(text: str) -> bytes:
    """A key or prefix to look for: what could never have been stored is found nowhere, which is no error."""
    return text.encode(errors="surrogatepass")


def require_apart(a: str, b: str) -> None:
    """Raise ValueError unless both are prefixes that end with "/" and neither lies inside the other."""
    if not (a.endswith("/") and b.endswith("/")):
        raise ValueError(f"a prefix ends with '/': {a!r}, {b!r}")
    if a.startswith(b) or b.startswith(a):
        raise ValueError(f"{a!r} and {b!r} lie inside each other")


def end_of(prefix: bytes) -> bytes:
    """The first byte string behind all that begin with *prefix*. No byte of UTF-8 is 0xFF, so the last byte can be raised."""
    return prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else b"\xff"


def rolled_up(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """The common prefix that a delimited listing of *prefix* shows in place of *key*; None if it shows the key."""
    if not delimiter:
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]

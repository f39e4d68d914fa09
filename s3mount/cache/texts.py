"""Places within one directory's listing, as bytes.

Owns: how keys and `after` become places, and back.
Must not know: tables, stores, time. Pure.

A row's text is what its key (or common prefix) has behind the directory's stem, in UTF-8: listings are in the order of these bytes.
A stretch of a listing is [lo, hi): `lo` itself may be in it. "Behind X" is therefore X + NUL, the first text after X.
"""

from __future__ import annotations

# Before every text, and behind every text: no UTF-8 has the byte FF.
START = b""
END = b"\xff"

# The highest code point; what begins with it comes last among its neighbours.
LAST = "\U0010ffff"
SURROGATES = range(0xD800, 0xE000)


def behind(text: bytes) -> bytes:
    """The first place after *text*."""
    return text + b"\0"


def stem_of(key: str) -> str:
    """The directory of *key*: all up to its last "/". A key that ends with "/" is the marker of its own directory."""
    return key[: key.rfind("/") + 1]


def parent_of(stem: str) -> str:
    """The directory that *stem* (which ends with "/") lies in."""
    return stem[: stem.rfind("/", 0, len(stem) - 1) + 1]


def is_text(key: str) -> bool:
    """Whether *key* can be a key at all: no store has what UTF-8 has not."""
    try:
        return bool(key.encode())
    except UnicodeEncodeError:
        return False


def text_of(stem: str, key: str) -> bytes:
    return key[len(stem) :].encode()


def place_behind(stem: str, after: str) -> bytes | None:
    """Where a listing of *stem* that comes behind *after* begins; None where *after* lies inside a common prefix."""
    if not after or after < stem:
        return START
    if not after.startswith(stem):
        return END
    inner = after[len(stem) :]
    return None if "/" in inner[:-1] else behind(inner.encode())


def just_before(key: str) -> str:
    """A text before *key* with as good as nothing between them, by which to ask for *key* and what follows it."""
    last = ord(key[-1])
    if not last:
        return key[:-1]
    below = last - 1
    return key[:-1] + chr(0xD7FF if below in SURROGATES else below) + LAST

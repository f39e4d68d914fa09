"""What users type, as values: store URLs, sizes, durations.

Owns: the grammar of these three, and the sentence that says what is wrong (always a `UsageError`).
Must not know: click, stores, files, the environment. Pure.

    URL        local://BUCKET[/KEY]  s3://BUCKET[/KEY]     KEY is everything behind the first "/", unchanged; it may be a prefix or empty
    size       1536   64K   64KiB   1.5G   20MB            K, M, G, T and KiB... are powers of 1024, KB... of 1000, as in GNU coreutils
    duration   2   500ms   1.5s   5m   1h30m   7d          a bare number is seconds
    age        as a duration, or: forever
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from s3mount.errors import InvalidName, UsageError
from s3mount.model import KEY_BYTES

Scheme = Literal["local", "s3"]

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_SIZE = re.compile(rf"({_NUMBER})(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h|d))+")
_STEP = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600), "d": Fraction(86400)}


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where something is: which kind of store, which bucket ("": all of them), and a key or prefix in it ("": the whole bucket)."""

    scheme: Scheme
    bucket: str
    key: str = ""

    @property
    def store(self) -> tuple[Scheme, str]:
        """What two places have in common that lie in one bucket."""
        return self.scheme, self.bucket

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}" if self.key else f"{self.scheme}://{self.bucket}"


def parse_url(text: str) -> StoreUrl:
    """The parts of a store's URL. Raises UsageError; InvalidName for a key that no store can hold."""
    kind, separator, rest = text.partition("://")
    if not separator or kind.lower() not in get_args(Scheme):
        raise UsageError(f"{_shown(text)} is no URL of a store: begin with local:// or s3://.")
    bucket, _, key = rest.partition("/")
    if not bucket and key:
        raise UsageError(f"{_shown(text)} names no bucket: write {kind}://BUCKET/{_shown(key)[1:-1]}.")
    return StoreUrl("s3" if kind.lower() == "s3" else "local", _utf8(bucket, "bucket name"), _fitting(_utf8(key, "key")))


def parse_size(text: str) -> int:
    """Bytes. Raises UsageError; a fraction must come out as a whole number of bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{_shown(text)} is no size: write a number of bytes, or one with K, M, G or T, as in 64M.")
    number, letter, decoration = match.groups()
    base = 1000 if (decoration or "").lower() == "b" else 1024
    size = Fraction(number) * base ** (" kmgt".index(letter.lower()) if letter else 0)
    if size.denominator != 1:
        raise UsageError(f"{_shown(text)} is no whole number of bytes.")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds. Raises UsageError."""
    stripped = text.strip()
    if re.fullmatch(_NUMBER, stripped):
        return float(stripped)
    if not _DURATION.fullmatch(stripped):
        raise UsageError(f"{_shown(text)} is no duration: write seconds, or a number with ms, s, m, h or d, as in 5m.")
    return float(sum(Fraction(number) * _SECONDS[unit] for number, unit in _STEP.findall(stripped)))


def parse_age(text: str) -> float:
    """Seconds that something may be old; infinite for `forever`. Raises UsageError."""
    return math.inf if text.strip().lower() == "forever" else parse_duration(text)


def _fitting(key: str) -> str:
    if len(key.encode()) > KEY_BYTES:
        raise InvalidName(f"The key {_shown(key[:40])}... has {len(key.encode())} bytes; {KEY_BYTES} is the limit.")
    return key


def _utf8(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidName(f"The {what} {_shown(text)} is not valid UTF-8.") from None
    return text


def _shown(text: str) -> str:
    return "'" + text.encode(errors="backslashreplace").decode() + "'"

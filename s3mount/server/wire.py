"""A request as it arrived, and what it names: bucket, key, sub-resource.

Owns: `S3Request`; splitting the target, percent-decoding, path style and virtual-host style, limits of keys.
Must not know: how requests are read from a socket, who may do what.

Signatures cover what arrived, byte by byte, so nothing here is normalised: `path` and `query` are raw, `headers` are in the order and
number in which they came (only names are lower case, and blanks around values are gone, as in every HTTP parser).

Rules chosen
1. In a query `+` is a blank, as AWS reads it; in a path it is a plus.
2. What is not UTF-8 after percent-decoding (overlong forms among it) and a `%` without two hex digits in a path are InvalidURI.
3. A host that is `NAME.BASE`, for a BASE that the server was told, names the bucket NAME; anything else is path style.
4. An absolute target's host names the bucket (RFC 9112, 3.2.2); the Host header is what was signed.
5. Keys are taken as they are: `..`, `//` and control characters mean nothing to the engine, which never makes file names of keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, unquote_to_bytes

from s3mount.server.s3errors import S3Error

# S3's limit, in bytes of UTF-8 (user guide, "Object key names"). The engine allows 4096.
KEY_BYTES = 1024
# More parameters than any client sends (presigned with response-* has about 16); a bound on work, not a rule of S3.
PARAMS = 256

# Query names that make a request mean something else than the plain method. Those that nobody handles are answered NotImplemented.
_NAMES = """
    abac accelerate acl analytics annotation attributes cors delete encryption encryptionUpdate intelligent-tiering inventory legal-hold
    lifecycle location logging metadataAnnotationTable metadataConfiguration metadataInventoryTable metadataJournalTable metadataTable
    metrics notification object-lock ownershipControls policy policyStatus publicAccessBlock rebuildIndex rename renameObject replication
    requestPayment restore retention select session tagging torrent updateEncryption uploadId uploads versioning versions website
"""
SUBRESOURCES = frozenset(_NAMES.split())

_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)

NO_PARAMS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class S3Request:
    """What a client asks. `bucket` is "" for the service, `key` is "" for a bucket."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    host: str
    bucket: str
    key: str
    virtual: bool = False
    params: Mapping[str, str] = field(default_factory=lambda: NO_PARAMS)
    _first: Mapping[str, str] = field(default_factory=dict, repr=False)

    def header(self, name: str) -> str | None:
        """The first value of the header *name* (lower case); None where it did not come."""
        return self._first.get(name)

    def values(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]

    def param(self, name: str) -> str | None:
        """The first value of the query parameter, decoded; "" for a bare name."""
        return self.params.get(name)

    @property
    def subresources(self) -> frozenset[str]:
        """Which of SUBRESOURCES the query names."""
        return SUBRESOURCES.intersection(self.params)


def parse_request(method: str, target: str, headers: Iterable[tuple[bytes, bytes]], *, bases: Sequence[str] = ()) -> S3Request:
    """Raises S3Error InvalidURI, KeyTooLongError, InvalidBucketName.

    *target* is the request line's, *bases* are the host names (no port, lower case) under which buckets are sub-domains.
    """
    listed = tuple((name.decode("latin-1").lower(), header_text(value).strip(" \t")) for name, value in headers)
    first: dict[str, str] = {}
    for name, value in listed:
        first.setdefault(name, value)
    authority, path, query = split_target(target)
    host = authority or first.get("host", "")
    named = bucket_of_host(host, bases)
    bucket, key = (named, decode_path(path[1:])) if named else split_path(path)
    require_key_length(key)
    return S3Request(method, path, query, listed, host, bucket, key, bool(named), parse_query(query), first)


def header_text(raw: bytes) -> str:
    """A header's bytes as text; `.encode("utf-8", "surrogateescape")` gives them back."""
    return raw.decode("utf-8", "surrogateescape")


def parse_http_date(text: str | None) -> int | None:
    """Seconds since 1970 (negative before) of an RFC 9110 date; None where *text* is none."""
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


def split_target(target: str) -> tuple[str, str, str]:
    """Authority ("" but for the absolute form), raw path and raw query of a request line's target. Raises InvalidURI."""
    found = _ABSOLUTE.match(target)
    authority = found[1].rpartition("@")[2] if found else ""
    rest = target[found.end() :] if found else target
    path, _, query = rest.partition("#")[0].partition("?")
    if found or path in ("", "*"):
        path = "/" if path in ("", "*") else path
    if not path.startswith("/"):
        raise S3Error("InvalidURI", URI=target[:256])
    return authority, path, query


def bucket_of_host(host: str, bases: Sequence[str]) -> str:
    """The bucket that *host* names in front of one of *bases*; "" in path style."""
    name = _without_port(host).lower()
    for base in bases:
        if name.endswith("." + base):
            return name[: -len(base) - 1]
    return ""


def _without_port(host: str) -> str:
    return host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]


def split_path(path: str) -> tuple[str, str]:
    """Bucket and key of a raw path in path style. Raises InvalidURI, InvalidBucketName."""
    bucket, _, key = path[1:].partition("/")
    if not bucket and key:
        raise S3Error("InvalidBucketName", BucketName="")
    return decode_path(bucket), decode_path(key)


def decode_path(raw: str) -> str:
    """Percent-decoded. Raises InvalidURI unless the result is UTF-8."""
    if _BROKEN_PERCENT.search(raw):
        raise S3Error("InvalidURI", URI=raw[:256])
    try:
        return unquote_to_bytes(raw.encode("utf-8", "surrogateescape")).decode() if "%" in raw or not raw.isascii() else raw
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", URI=raw[:256]) from None


def require_key_length(key: str) -> None:
    """Raises KeyTooLongError."""
    if len(key) > KEY_BYTES // 4 and len(key.encode()) > KEY_BYTES:
        raise S3Error("KeyTooLongError", Size=len(key.encode()), MaxSizeAllowed=KEY_BYTES)


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Names and values, decoded, in the order in which they came; a bare name has the value "". Raises InvalidURI."""
    if not query:
        return []
    parts = [part for part in query.split("&") if part]
    if len(parts) > PARAMS:
        raise S3Error("InvalidURI", f"A query has at most {PARAMS} parameters.")
    return [(decode_query(name), decode_query(value)) for name, _, value in (part.partition("=") for part in parts)]


def parse_query(query: str) -> Mapping[str, str]:
    """The first value of each name. Raises InvalidURI."""
    found: dict[str, str] = {}
    for name, value in query_pairs(query):
        found.setdefault(name, value)
    return found


def decode_query(raw: str) -> str:
    """Raises InvalidURI unless the result is UTF-8."""
    try:
        return unquote(raw.replace("+", " "), errors="strict") if "%" in raw or "+" in raw else raw
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", URI=raw[:256]) from None


def parse_copy_source(value: str) -> tuple[str, str, str | None]:
    """Bucket, key and version id that an x-amz-copy-source names. Raises InvalidArgument.

    Percent-decoded once; a leading slash is optional; `?versionId=` counts only when it was sent undecoded, since a key may hold it.
    """
    path, mark, query = value.partition("?versionId=")
    try:
        bucket, _, key = decode_path(path.removeprefix("/")).partition("/")
    except S3Error:
        bucket = key = ""
    if not bucket or not key or (mark and not query):
        raise S3Error(
            "InvalidArgument",
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            ArgumentName="x-amz-copy-source",
            ArgumentValue=value[:256],
        )
    require_key_length(key)
    return bucket, key, decode_query(query) if mark else None

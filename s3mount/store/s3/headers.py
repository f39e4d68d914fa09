"""What stands in the headers of a request and an answer, as our values.

Owns: ETags in quotes, times, user metadata that survives HTTP, the ObjectInfo that an answer's headers describe.
Must not know: which lane carries them, how a request is made. Pure.

H1  An ETag loses its quotes coming in and gets them going out; a weak one keeps its form. It is never looked into.
H2  Times have whole seconds, whoever says them: HEAD has no more, so a listing's milliseconds would be a second truth.
H3  Metadata values that are plain ASCII go as they are, so that other programs read them; all others as an RFC 2047 word, which is what S3
    itself answers with for such values. `meta_in(meta_out(value)) == value` for every text that UTF-8 can carry.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import parsedate_to_datetime

from s3mount.errors import TooLarge, Unavailable, Unsupported
from s3mount.model import ETag, Key, Metadata, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit

META = "x-amz-meta-"
# S3's bound for the names and values of one object together, as sent.
METADATA_BYTES = 2048
NS = 1_000_000_000

# Headers that belong to the content and must be said again when an object is copied onto itself with new metadata, by botocore's names.
CONTENT_HEADERS = {
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "expires": "Expires",
    "x-amz-website-redirect-location": "WebsiteRedirectLocation",
}

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")


# -- ETags and times ------------------------------------------------------------------------


def etag_in(text: str) -> ETag:
    """As a model's ETag: `"abc"` -> `abc`."""
    return ETag(text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text)


def etag_out(etag: ETag) -> str:
    """As If-Match wants it."""
    return etag if etag.startswith('W/"') else f'"{etag}"'


@functools.lru_cache(maxsize=64)  # answers that come together say the same time
def http_time(text: str) -> int:
    """Nanoseconds of `Sat, 21 Nov 2026 02:40:00 GMT`. Raises Unavailable for what is no date."""
    try:
        return int(parsedate_to_datetime(text).timestamp()) * NS
    except ValueError:
        raise Unavailable(f"The store answers with a time that is none: {text[:40]!r}.") from None


def iso_time(text: str) -> int:
    """Nanoseconds of `2026-11-21T02:40:00.000Z`, whole seconds. Raises Unavailable for what is no date."""
    try:
        if len(text) >= 20 and text[-1] == "Z":
            parts = (int(text[0:4]), int(text[5:7]), int(text[8:10]), int(text[11:13]), int(text[14:16]), int(text[17:19]))
            return calendar.timegm(parts) * NS
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * NS
    except ValueError:
        raise Unavailable(f"The store answers with a time that is none: {text[:40]!r}.") from None


# -- metadata -----------------------------------------------------------------------------


def meta_out(value: str) -> str:
    """A metadata value as a header carries it."""
    if not value or (_PLAIN.fullmatch(value) and not value.startswith("=?")):
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def meta_in(text: str) -> str:
    """The reverse of `meta_out`, and what S3 answers for values that others sent; text that is no RFC 2047 word stays as it is."""
    if not (text.startswith("=?") and text.endswith("?=")):
        return text
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, binascii.Error, LookupError, UnicodeError, ValueError):
        return text


def sent_metadata(metadata: Metadata) -> dict[str, str]:
    """Metadata as the headers behind `x-amz-meta-`. Raises TooLarge beyond S3's 2 KB, Unsupported for a name that is none in HTTP."""
    sent = {name: meta_out(value) for name, value in metadata.items()}
    for name in sent:
        if not _TOKEN.fullmatch(name):
            raise Unsupported(f"The metadata name {name!r} cannot be sent in a header.")
    size = sum(len(name) + len(value) for name, value in sent.items())
    if size > METADATA_BYTES:
        raise TooLarge(f"The object's metadata would have {size} bytes; S3 takes {METADATA_BYTES}.")
    return sent


def with_commit_id(commit: Commit) -> Metadata:
    """The commit's metadata, its id among it."""
    return {**commit.metadata, COMMIT_ID: commit.commit_id} if commit.commit_id else commit.metadata


# -- answers ------------------------------------------------------------------------------


def info_of(key: Key, headers: Mapping[str, str]) -> ObjectInfo:
    """The version that a GET or HEAD of *key* answers with. *headers* have lower-case names. Raises Unavailable for half of one."""
    try:
        etag, size = etag_in(headers["etag"]), _size(headers)
    except (KeyError, ValueError):
        raise Unavailable(f"The store's answer for {key!r} lacks an ETag or a length.") from None
    return ObjectInfo(
        key=key,
        size=size,
        etag=etag,
        mtime_ns=http_time(headers["last-modified"]) if "last-modified" in headers else 0,
        content_type=headers.get("content-type") or "application/octet-stream",
        storage_class=headers.get("x-amz-storage-class") or "STANDARD",
        metadata={name[len(META) :]: meta_in(value) for name, value in headers.items() if name.startswith(META)},
        version_id=version_of(headers),
    )


def version_of(headers: Mapping[str, str]) -> str | None:
    """The version id, where the bucket keeps versions."""
    version = headers.get("x-amz-version-id", "null")
    return None if version in ("null", "") else version


def _size(headers: Mapping[str, str]) -> int:
    if "content-range" in headers:
        return content_range(headers["content-range"])[2]
    return int(headers["content-length"])


def content_range(text: str) -> tuple[int, int, int]:
    """Start, stop (exclusive) and the object's size from `bytes 0-99/1234`. Raises ValueError."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", text.strip())
    if match is None:
        raise ValueError(f"no content range: {text!r}")
    start, last, size = map(int, match.groups())
    return start, last + 1, size

"""What a refusal of an S3 service means to us: status and code in, a StoreError with one sentence out.

Owns: the table code -> error; which answers leave a mutation in doubt; the sentences.
Must not know: sockets, clients, which lane got the answer. Pure: no I/O, no clock.

A1  An answer that says that nothing happened (4xx, throttling) is never OutcomeUnknown; any other 5xx to a mutation always is.
A2  What time may mend is Throttled, Unavailable or TimedOut (Retrying waits these out); all else is permanent.
A3  A code that the table does not know is judged by its status. A HEAD's answer has no code: its status is all there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree

from s3mount.errors import (
    AccessDenied,
    AlreadyExists,
    Archived,
    BucketExists,
    BucketNotEmpty,
    Busy,
    InvalidName,
    InvalidPart,
    Misdirected,
    NoSpace,
    NoSuchBucket,
    NoSuchUpload,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    StoreError,
    Throttled,
    TooLarge,
    Unavailable,
    Unsupported,
)

# An error document has a few hundred bytes; what is far longer comes from somebody else.
DOCUMENT_BYTES = 64 * 1024


class NoSuchRange(StoreError):
    """The bytes asked for lie outside the object: to the protocol's callers a ValueError."""


class NotAllowed(AccessDenied):
    """The credentials are good, but not for this: others of the bucket's requests may be allowed."""


class Conflict(Unavailable):
    """Somebody else was writing the same key at that moment: nothing happened, the same request may succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The request that was refused. `absent`: it was to succeed only where the key is free."""

    bucket: str
    key: str = ""
    mutates: bool = False
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """What came back. `fields` are the error document's further elements (Region, ServerTime ...), `headers` have lower-case names."""

    status: int
    code: str = ""
    message: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def region(self) -> str:
        """Where the bucket is, as far as the service says."""
        return self.fields.get("Region") or self.headers.get("x-amz-bucket-region", "")

    @property
    def said(self) -> str:
        """Status, code and message on one line, for the end of a sentence."""
        words = " ".join(f"{self.status} {self.code}".split())
        text = " ".join(self.message.split()).rstrip(".")
        return f"{words}: {text}" if text and text != self.code else words


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """A Refusal from an answer's parts; a body that is no error document is passed over. *headers* have lower-case names."""
    elements = _elements(body)
    code, message = elements.pop("Code", ""), elements.pop("Message", "")
    return Refusal(status, code, message, elements, headers)


def _elements(body: bytes) -> dict[str, str]:
    if not body or len(body) > DOCUMENT_BYTES or b"<!DOCTYPE" in body:
        return {}
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return {}
    if root.tag.rpartition("}")[2] != "Error":
        return {}
    return {child.tag.rpartition("}")[2]: child.text or "" for child in root}


def error_of(refusal: Refusal, asked: Asked, *, now_s: float | None = None) -> StoreError:
    """The error for *refusal*. *now_s* (seconds since 1970): this machine's clock, to say by how much it is off."""
    if refusal.code in ("RequestTimeTooSkewed", "RequestExpired"):
        return AccessDenied(_skewed(refusal, now_s))
    if _is_elsewhere(refusal):
        return _misdirected(refusal, asked)
    make = BY_CODE.get(refusal.code) or BY_STATUS.get(refusal.status) or _by_class
    return make(refusal, asked)


# -- sentences ----------------------------------------------------------------------------


def _skewed(refusal: Refusal, now_s: float | None) -> str:
    server = _server_time(refusal)
    off = "" if server is None or now_s is None else f" by {_span(now_s - server)}"
    return f"This machine's clock differs from the store's{off}: set it right (the store refuses what is more than 15 minutes off)."


def _server_time(refusal: Refusal) -> float | None:
    try:
        if stamp := refusal.fields.get("ServerTime"):
            return datetime.fromisoformat(stamp).astimezone(UTC).timestamp()
        return parsedate_to_datetime(refusal.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _span(seconds: float) -> str:
    minutes = round(abs(seconds) / 60)
    amount = (
        f"{minutes} minutes" if minutes < 120 else f"{round(minutes / 60)} hours" if minutes < 2880 else f"{round(minutes / 1440)} days"
    )
    return f"{amount} ({'ahead' if seconds > 0 else 'behind'})"


def _is_elsewhere(refusal: Refusal) -> bool:
    if refusal.code in ("PermanentRedirect", "IllegalLocationConstraintException") or refusal.status == 301:
        return True
    return refusal.code in ("AuthorizationHeaderMalformed", "TemporaryRedirect", "Redirect") and bool(refusal.fields.get("Region"))


def _misdirected(refusal: Refusal, asked: Asked) -> Misdirected:
    region = refusal.region or next(iter(re.findall(r"expecting '([a-z0-9-]+)'", refusal.message)), "")
    return elsewhere(asked.bucket, region)


def elsewhere(bucket: str, region: str) -> Misdirected:
    """The bucket is in *region*, or anywhere but here ("")."""
    advice = f"is in region {region}: use --region {region}" if region else "is in another region or at another endpoint: set --region"
    return Misdirected(f"The bucket {bucket!r} {advice}.", region=region)


def _not_found(refusal: Refusal, asked: Asked) -> StoreError:
    if not asked.key:
        return _no_bucket(refusal, asked)
    return NotFound(f"There is no object {asked.key!r}.")


def _no_bucket(refusal: Refusal, asked: Asked) -> StoreError:
    return NoSuchBucket(f"There is no bucket {asked.bucket!r} at this endpoint.")


def _condition(refusal: Refusal, asked: Asked) -> StoreError:
    if asked.absent:
        return AlreadyExists(f"{asked.key!r} exists already.")
    return PreconditionFailed(f"{asked.key!r} is another version by now.")


def _denied(refusal: Refusal, asked: Asked) -> StoreError:
    what = f"{asked.key!r} in bucket {asked.bucket!r}" if asked.key else f"the bucket {asked.bucket!r}" if asked.bucket else "the request"
    return NotAllowed(f"The store refuses {what} to these credentials ({refusal.said}).")


def _archived(refusal: Refusal, asked: Asked) -> StoreError:
    return Archived(f"{asked.key!r} is archived: restore it first (`s3mount restore s3://{asked.bucket}/{asked.key}`).")


def _doubtful(refusal: Refusal, asked: Asked) -> StoreError:
    if asked.mutates:
        return OutcomeUnknown(f"The store failed while it worked on {asked.key or asked.bucket!r} ({refusal.said}).")
    return Unavailable(f"The store fails ({refusal.said}).")


def _by_class(refusal: Refusal, asked: Asked) -> StoreError:
    if refusal.status >= 500:
        return _doubtful(refusal, asked)
    return StoreError(f"The store refuses the request ({refusal.said}).")


Make = Callable[[Refusal, Asked], StoreError]


def _saying(kind: type[StoreError], sentence: str) -> Make:
    """`{bucket}` and `{key}` are shown quoted; `{said}` is what the service said."""
    return lambda refusal, asked: kind(sentence.format(bucket=repr(asked.bucket), key=repr(asked.key), said=refusal.said))


_BUSY = _saying(Throttled, "The store asks to slow down ({said}).")
_AGAIN = _saying(Unavailable, "The store did not take the request ({said}).")
_CONFLICT = _saying(Conflict, "Somebody else is writing {key} at this moment ({said}).")
_KEY_ID = _saying(AccessDenied, "The store does not know this access key: check the credentials, the profile and the endpoint ({said}).")
_SECRET = _saying(AccessDenied, "The secret key does not fit the access key: check the credentials ({said}).")
_EXPIRED = _saying(AccessDenied, "The credentials have expired: get new ones ({said}).")
_UPLOAD = _saying(NoSuchUpload, "The upload of {key} is over or never was.")
_PART = _saying(InvalidPart, "A part of {key} was not received as it was named ({said}).")
_LARGE = _saying(TooLarge, "{key} is larger than the store allows ({said}).")
_FULL = _saying(NoSpace, "The store is full ({said}).")
_CANNOT = _saying(Unsupported, "The store cannot do that ({said}).")
_DATA = _saying(Unavailable, "The bytes did not arrive as they were sent ({said}).")
_METADATA = _saying(TooLarge, "The metadata of {key} is more than the store takes: 2 KB ({said}).")

BY_CODE: dict[str, Make] = {
    "NoSuchKey": _not_found,
    "NoSuchVersion": _not_found,
    "NoSuchBucket": _no_bucket,
    "NoSuchUpload": _UPLOAD,
    "BucketAlreadyExists": _saying(BucketExists, "The name {bucket} is taken by somebody else: choose another."),
    "BucketAlreadyOwnedByYou": _saying(BucketExists, "The bucket {bucket} exists already."),
    "BucketNotEmpty": _saying(BucketNotEmpty, "The bucket {bucket} is not empty."),
    "InvalidBucketName": _saying(InvalidName, "{bucket} cannot be the name of a bucket: 3 to 63 of a-z, 0-9, - and dots."),
    "KeyTooLongError": _saying(InvalidName, "The key {key} is too long: 1024 bytes of UTF-8 is the limit."),
    "PreconditionFailed": _condition,
    "ConditionalRequestConflict": _CONFLICT,
    "OperationAborted": _CONFLICT,
    "InvalidPart": _PART,
    "InvalidPartOrder": _PART,
    "EntityTooSmall": _PART,
    "EntityTooLarge": _LARGE,
    "MetadataTooLarge": _METADATA,
    "RequestHeaderSectionTooLarge": _METADATA,
    "AccessDenied": _denied,
    "AllAccessDisabled": _denied,
    "InvalidAccessKeyId": _KEY_ID,
    "SignatureDoesNotMatch": _SECRET,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": _saying(AccessDenied, "The session token is not valid: check the credentials ({said})."),
    "InvalidObjectState": _archived,
    "RestoreAlreadyInProgress": _saying(Busy, "{key} is being restored already."),
    "BadDigest": _DATA,
    "XAmzContentSHA256Mismatch": _DATA,
    "XAmzContentChecksumMismatch": _DATA,
    "IncompleteBody": _DATA,
    "RequestTimeout": _AGAIN,
    "SlowDown": _BUSY,
    "SlowDownRead": _BUSY,
    "SlowDownWrite": _BUSY,
    "ServiceUnavailable": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "TooManyRequests": _BUSY,
    "BandwidthLimitExceeded": _BUSY,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
    "InvalidRange": _saying(NoSuchRange, "The bytes asked for lie outside {key}."),
    "NotImplemented": _CANNOT,
    "MethodNotAllowed": _CANNOT,
}

BY_STATUS: dict[int, Make] = {
    401: _denied,
    403: _denied,
    404: _not_found,
    405: _CANNOT,
    408: _AGAIN,
    409: _AGAIN,
    411: _CANNOT,
    412: _condition,
    413: _LARGE,
    416: _saying(NoSuchRange, "The bytes asked for lie outside {key}."),
    425: _AGAIN,
    429: _BUSY,
    501: _CANNOT,
    503: _BUSY,
    507: _FULL,
}

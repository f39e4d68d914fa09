"""Signature Version 2: header and query, as old clients and boto3's presigned URLs for custom endpoints use it.

Owns: `ClaimV2`, the string to sign, verification.
Must not know: which keys exist, the clock (callers pass *now*, seconds since 1970).

The signature covers method, Content-MD5, Content-Type, date, the x-amz-* headers and the resource with the sub-resources of
CANONICAL; nothing else of the query, and not the host. In query authentication Expires, in seconds since 1970, stands where the date
would be, and headers that were moved into the query count as if they had come as headers.
"""

from __future__ import annotations

import base64
import enum
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from s3mount.server.s3errors import S3Error
from s3mount.server.sigv4 import iso_time, request_time, require_recent
from s3mount.server.wire import S3Request, query_pairs

# Query names that are part of the resource (developer guide, "Signing and authenticating REST requests", and what SDKs add).
_NAMES = """
    accelerate acl analytics cors defaultObjectAcl delete inventory lifecycle location logging metrics notification object-lock partNumber
    policy replication requestPayment restore select select-type storageClass tagging torrent uploadId uploads versionId versioning versions
    website response-cache-control response-content-disposition response-content-encoding response-content-language response-content-type
    response-expires
"""
CANONICAL = frozenset(_NAMES.split())


@dataclass(frozen=True, slots=True)
class ClaimV2:
    """Who says to have signed a request. `date` is what stands in the string to sign; `expires` only in a query."""

    access_key: str
    signature: str
    date: str
    expires: int | None = None


def parse_claim(request: S3Request) -> ClaimV2 | None:
    """None where neither header nor query is of version 2. Raises InvalidArgument, AccessDenied."""
    header = request.header("authorization")
    if header is not None and header.startswith("AWS "):
        return _header_claim(request, header[4:].strip())
    if request.param("Signature") is not None and request.param("AWSAccessKeyId") is not None:
        return _query_claim(request)
    return None


def _header_claim(request: S3Request, text: str) -> ClaimV2:
    access_key, colon, signature = text.rpartition(":")
    if not colon or not access_key or not signature:
        raise S3Error(
            "InvalidArgument",
            "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature",
            ArgumentName="Authorization",
            ArgumentValue=f"AWS {text}"[:128],
        )
    return ClaimV2(access_key, signature, "" if request.header("x-amz-date") is not None else request.header("date") or "")


def _query_claim(request: S3Request) -> ClaimV2:
    expires = request.param("Expires")
    if expires is None:
        raise S3Error("AccessDenied", "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters")
    if not expires.isascii() or not expires.isdigit() or len(expires) > 18:
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {expires[:64]}")
    return ClaimV2(request.params["AWSAccessKeyId"], request.params["Signature"], expires, int(expires))


def verify(request: S3Request, claim: ClaimV2, secret: str, *, now: float) -> None:
    """Raises AccessDenied (expired, no date), RequestTimeTooSkewed, SignatureDoesNotMatch."""
    _require_time(request, claim, now)
    given = claim.signature.encode("utf-8", "surrogateescape")
    for form in _FORMS:
        text = string_to_sign(request, claim, form)
        if hmac.compare_digest(signature_of(secret, text).encode(), given):
            return
    raise S3Error(
        "SignatureDoesNotMatch",
        AWSAccessKeyId=claim.access_key,
        StringToSign=text.encode("utf-8", "surrogateescape").decode(errors="replace"),
        SignatureProvided=claim.signature[:128],
    )


def _require_time(request: S3Request, claim: ClaimV2, now: float) -> None:
    if claim.expires is not None:
        if claim.expires <= now:
            at = {"Expires": iso_time(claim.expires), "ServerTime": iso_time(now)}
            raise S3Error("AccessDenied", "Request has expired", **at)
        return
    said = request.header("x-amz-date") or request.header("date") or ""
    when = request_time(said)
    if when is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    require_recent(when, now, said)


class _Form(enum.Flag):
    """How a client may have written the resource that it signed."""

    AS_SENT = 0
    BARE = enum.auto()
    """`?uploads=` signed as `?uploads`."""
    SLASH = enum.auto()
    """`/bucket` signed as `/bucket/`, as boto3 does."""


_FORMS = (_Form.AS_SENT, _Form.SLASH, _Form.BARE, _Form.BARE | _Form.SLASH)


def string_to_sign(request: S3Request, claim: ClaimV2, form: _Form = _Form.AS_SENT) -> str:
    moved = {name.lower(): value for name, value in request.params.items()} if claim.expires is not None else {}
    first = [request.method, *(_value(request, name, moved) for name in ("content-md5", "content-type")), claim.date]
    return "\n".join([*first, *_amz_headers(request, moved), _resource(request, form)])


def _value(request: S3Request, name: str, moved: Mapping[str, str]) -> str:
    came = request.header(name)
    return came if came is not None else moved.get(name, "")


def _amz_headers(request: S3Request, moved: Mapping[str, str]) -> list[str]:
    found: dict[str, list[str]] = {name: [value] for name, value in moved.items() if name.startswith("x-amz-")}
    for name in {name for name, _ in request.headers if name.startswith("x-amz-")}:
        found[name] = [value.strip() for value in request.values(name)]
    return [f"{name}:{','.join(values)}" for name, values in sorted(found.items())]


def _resource(request: S3Request, form: _Form) -> str:
    path = f"/{request.bucket}{request.path}" if request.virtual else request.path
    if form & _Form.SLASH and request.bucket and not request.key:
        path = f"{path.rstrip('/')}/"
    named = sorted((name, value) for name, value in query_pairs(request.query) if name in CANONICAL)
    equals = () if form & _Form.BARE else frozenset(part.partition("=")[0] for part in request.query.split("&") if "=" in part)
    text = "&".join(f"{name}={value}" if value or name in equals else name for name, value in named)
    return f"{path}?{text}" if text else path


def signature_of(secret: str, text: str) -> str:
    """Base64 of the HMAC-SHA1 of *text*."""
    return base64.b64encode(hmac.digest(secret.encode(), text.encode("utf-8", "surrogateescape"), "sha1")).decode()

"""ListObjects, both versions.

Owns: their parameters and documents. Must not know: how pages are found.

A marker, a start-after or a token that is a common prefix skips all of it, as the engine does. Tokens are opaque: base64 of the key behind
which the listing goes on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from functools import lru_cache

from s3mount.model import ObjectInfo, Page
from s3mount.server.buckets import iso, owner
from s3mount.server.calls import Call, Reply, xml
from s3mount.server.demands import require_possible
from s3mount.server.kept import kind_of_sum
from s3mount.server.s3errors import S3Error
from s3mount.server.xml import document, encode_url, tag, truth, wrap

MOST_KEYS = 1000

Name = Callable[[str], str]


async def list_objects(call: Call) -> Reply:
    kind = call.s3.param("list-type")
    require_possible(call.s3)
    if kind is None:
        return await _first(call)
    if kind != "2":
        raise S3Error("InvalidArgument", "Invalid List Type specified in Request", ArgumentName="list-type", ArgumentValue=kind[:64])
    return await _second(call)


def naming(call: Call) -> Name:
    """How keys are written: url-encoded where that is asked for. Raises InvalidArgument."""
    asked = call.s3.param("encoding-type")
    if asked not in (None, "", "url"):
        sentence = "Invalid Encoding Method specified in Request"
        raise S3Error("InvalidArgument", sentence, ArgumentName="encoding-type", ArgumentValue=(asked or "")[:64])
    return encode_url if asked else str


def encoding_echo(call: Call) -> str:
    return tag("EncodingType", "url") if call.s3.param("encoding-type") else ""


async def _page(call: Call, after: str, limit: int) -> Page:
    prefix, delimiter = call.s3.param("prefix") or "", call.s3.param("delimiter") or ""
    if limit == 0:
        call.engine.require_bucket(call.bucket)
        return Page((), (), None)
    return await call.run(call.engine.list, call.bucket, prefix, delimiter=delimiter, after=after, limit=limit)


async def _first(call: Call) -> Reply:
    name, limit, marker = naming(call), call.number("max-keys", MOST_KEYS), call.s3.param("marker") or ""
    page = await _page(call, marker, min(limit, MOST_KEYS))
    delimiter = call.s3.param("delimiter") or ""
    rows = [
        tag("Name", call.bucket),
        tag("Prefix", name(call.s3.param("prefix") or "")),
        tag("Marker", name(marker)),
        *([tag("NextMarker", name(page.next))] if page.next is not None and delimiter else []),
        tag("MaxKeys", min(limit, MOST_KEYS)),
        *([tag("Delimiter", name(delimiter))] if delimiter else []),
        encoding_echo(call),
        tag("IsTruncated", truth(page.next is not None)),
        *(_row(info, name, owned=True) for info in page.objects),
        *common_prefixes(page.prefixes, name),
    ]
    return xml(document("ListBucketResult", rows), ("x-amz-bucket-region", call.service.region))


async def _second(call: Call) -> Reply:
    name, limit = naming(call), call.number("max-keys", MOST_KEYS)
    token, start = call.s3.param("continuation-token"), call.s3.param("start-after")
    after = _from_token(token) if token is not None else start or ""
    page = await _page(call, after, min(limit, MOST_KEYS))
    delimiter = call.s3.param("delimiter") or ""
    owned = call.s3.param("fetch-owner") == "true"
    rows = [
        tag("Name", call.bucket),
        tag("Prefix", name(call.s3.param("prefix") or "")),
        *([tag("StartAfter", name(start))] if start else []),
        *([tag("ContinuationToken", token)] if token is not None else []),
        *([tag("NextContinuationToken", _token(page.next))] if page.next is not None else []),
        tag("KeyCount", len(page.objects) + len(page.prefixes)),
        tag("MaxKeys", min(limit, MOST_KEYS)),
        *([tag("Delimiter", name(delimiter))] if delimiter else []),
        encoding_echo(call),
        tag("IsTruncated", truth(page.next is not None)),
        *(_row(info, name, owned=owned) for info in page.objects),
        *common_prefixes(page.prefixes, name),
    ]
    return xml(document("ListBucketResult", rows), ("x-amz-bucket-region", call.service.region))


def common_prefixes(prefixes: tuple[str, ...], name: Name) -> list[str]:
    return [wrap("CommonPrefixes", tag("Prefix", name(prefix))) for prefix in prefixes]


def _row(info: ObjectInfo, name: Name, *, owned: bool) -> str:
    return (
        f"<Contents>{tag('Key', name(info.key))}<LastModified>{iso(info.mtime_ns)}</LastModified>"
        f"<ETag>&quot;{info.etag}&quot;</ETag>{sum_elements(info.extra)}<Size>{info.size}</Size>{owner() if owned else ''}"
        f"<StorageClass>{info.storage_class}</StorageClass></Contents>"
    )


def sum_elements(extra: bytes | None) -> str:
    """ChecksumAlgorithm and ChecksumType of a listed object."""
    kind = kind_of_sum(extra)
    return _sum_elements(*kind) if kind is not None else ""


@lru_cache
def _sum_elements(algorithm: str, kind: str) -> str:
    return f"<ChecksumAlgorithm>{algorithm}</ChecksumAlgorithm><ChecksumType>{kind}</ChecksumType>"


def _token(key: str) -> str:
    return base64.urlsafe_b64encode(b"1" + key.encode(errors="surrogatepass")).decode()


def _from_token(token: str) -> str:
    """Raises InvalidArgument."""
    try:
        raw = base64.urlsafe_b64decode(token.encode())
        if raw[:1] == b"1":
            return raw[1:].decode(errors="surrogatepass")
    except (binascii.Error, ValueError):
        pass
    sentence = "The continuation token provided is incorrect"
    raise S3Error("InvalidArgument", sentence, ArgumentName="continuation-token", ArgumentValue=token[:64])

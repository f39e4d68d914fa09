"""One object: put, get, head, attributes.

Owns: these operations, and the headers that describe an object in every answer.
Must not know: uploads, copies, removals.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from s3mount.engine.reader import Reader
from s3mount.engine.values import How, VersionInfo
from s3mount.errors import AlreadyExists, NotFound, PreconditionFailed
from s3mount.model import Absent, ByteRange, Condition, Content, ObjectInfo
from s3mount.server import metadata
from s3mount.server.calls import LOGGED, Call, Headers, Reply, no_number, xml
from s3mount.server.checksums import DEFAULT, Kind, encode, wants_checksums
from s3mount.server.conditions import check_read, http_date, preconditions, range_applies, write_condition
from s3mount.server.demands import require_possible
from s3mount.server.ingest import Received, give_up, receive
from s3mount.server.kept import Kept, KeptPart, Sum, pack, unpack
from s3mount.server.ranges import content_range, parse_range
from s3mount.server.s3errors import S3Error
from s3mount.server.tags import parse_header
from s3mount.server.xml import document, tag, truth, wrap

T = TypeVar("T")

NULL = "null"
# How often a conditional write looks again when another writer came in between.
ATTEMPTS = 5
ATTRIBUTES = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")
MOST_PARTS = 1000


# -- put ------------------------------------------------------------------------------------


async def put(call: Call) -> Reply:
    require_possible(call.s3)
    how, kept = described(call)
    call.place()
    _judge_early(call)
    received = await receive(call, () if _claims(call) else (DEFAULT,))
    return await store(call, received, how, kept)


def _claims(call: Call) -> bool:
    """Whether the client sends a checksum: else ours is computed."""
    return any(name.startswith("x-amz-checksum-") or name == "x-amz-trailer" for name, _ in call.s3.headers)


def _judge_early(call: Call) -> None:
    """Refuse a conditional write that cannot succeed before its body is sent; the engine judges again."""
    write_condition(preconditions(call.s3.header), lambda: current_etag(call))


def described(call: Call) -> tuple[How, Kept]:
    """What the headers of a write say of the object. Raises S3Error."""
    how = How(
        metadata=metadata.user_metadata(call.s3),
        content_type=metadata.content_type(call.s3),
        storage_class=metadata.storage_class(call.s3),
    )
    return how, Kept(metadata.content_headers(call.s3), parse_header(call.s3.header("x-amz-tagging")))


async def store(call: Call, received: Received, how: How, kept: Kept) -> Reply:
    """Commit a body under the call's conditions, and say so."""
    try:
        total = sum_of(received)
        extra = pack(Kept(kept.headers, kept.tags, (total,)))
        info = await conditional(call, lambda condition: _commit(call, received, replace(how, condition=condition, extra=extra)))
    finally:
        await give_up(call, received)
    named = [("ETag", f'"{info.etag}"'), (total.algorithm.header, total.text), ("x-amz-checksum-type", total.kind.value)]
    return Reply(200, [*named, *version_headers(call, info)])


def sum_of(received: Received) -> Sum:
    algorithm = received.claimed or DEFAULT
    return Sum(algorithm, Kind.FULL_OBJECT, encode(received.sums[algorithm]))


async def _commit(call: Call, received: Received, how: How) -> ObjectInfo:
    content = received.content
    if isinstance(content, Content):
        return await call.run(call.engine.adopt, call.bucket, call.key, content, how, etag=received.etag)
    way = call.change if len(content) <= LOGGED else call.run
    return await way(call.engine.put, call.bucket, call.key, content, how, etag=received.etag, inline=LOGGED)


async def conditional(call: Call, commit: Callable[[Condition], Awaitable[T]]) -> T:
    """Commit under what If-Match and If-None-Match say. Raises PreconditionFailed, NoSuchKey, ConditionalRequestConflict."""
    asked = preconditions(call.s3.header)
    for _ in range(ATTEMPTS):
        condition = write_condition(asked, lambda: current_etag(call))
        try:
            return await commit(condition)
        except (AlreadyExists, PreconditionFailed):
            if asked.if_none_match == frozenset("*") and isinstance(condition, Absent):
                raise
    raise S3Error("ConditionalRequestConflict")


def current_etag(call: Call) -> str | None:
    try:
        return call.engine.head(call.bucket, call.key).etag
    except NotFound:
        return None


# -- what every answer says of an object ----------------------------------------------------


def version_headers(call: Call, info: ObjectInfo, name: str = "x-amz-version-id") -> Headers:
    """Nothing in a bucket that never kept versions."""
    if info.version_id is not None:
        return [(name, info.version_id)]
    return [] if call.place().versioning == "off" else [(name, NULL)]


def mtime(info: ObjectInfo) -> int:
    """Seconds, as S3 keeps and compares them."""
    return info.mtime_ns // 1_000_000_000


def object_headers(call: Call, info: ObjectInfo, kept: Kept) -> Headers:
    found: Headers = [
        ("ETag", f'"{info.etag}"'),
        ("Last-Modified", http_date(mtime(info))),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", metadata.sent_text(info.content_type)),
        *((name.title(), metadata.sent_text(value)) for name, value in kept.headers.items()),
        *((f"{metadata.PREFIX}{name}", metadata.sent_text(value)) for name, value in (info.metadata or {}).items()),
        *version_headers(call, info),
    ]
    if info.storage_class != "STANDARD":
        found.append(("x-amz-storage-class", info.storage_class))
    if kept.tags:
        found.append(("x-amz-tagging-count", str(len(kept.tags))))
    return found


# -- get and head ---------------------------------------------------------------------------


async def get(call: Call) -> Reply:
    require_possible(call.s3)
    reader = await _open(call)
    try:
        reply = _described_reply(call, reader.info)
    except BaseException:
        reader.close()
        raise
    if reply.status == 304:
        reader.close()
        return reply
    reply.reader = reader
    return reply


async def head(call: Call) -> Reply:
    require_possible(call.s3)
    info = await find(call)
    reply = _described_reply(call, info)
    if reply.status != 304:
        length = info.size if reply.span is None else reply.span.length
        reply.headers.append(("Content-Length", str(length if reply.status != 206 or reply.span else 0)))
        reply.span = None
    return reply


async def _open(call: Call) -> Reader:
    """Raises as `find`."""
    try:
        if call.version_id is not None:
            return await call.run(call.engine.open_version, call.bucket, call.key, call.version_id)
        quick = call.engine.open_object_nowait(call.bucket, call.key)
        return await call.run(call.engine.open_object, call.bucket, call.key) if quick is None else quick
    except NotFound:
        raise missing(call) from None


async def find(call: Call) -> ObjectInfo:
    """What the call names. Raises NoSuchKey, NoSuchVersion, MethodNotAllowed (a delete marker), NoSuchBucket."""
    try:
        if call.version_id is not None:
            return await call.run(call.engine.head_version, call.bucket, call.key, call.version_id)
        return call.engine.head(call.bucket, call.key)
    except NotFound:
        raise missing(call) from None


def missing(call: Call) -> S3Error:
    """What S3 says where nothing can be read: a delete marker tells of itself in headers."""
    version = call.version_id
    marker = call.engine.find_marker(call.bucket, call.key, version)
    if version is None:
        return _with_headers(S3Error("NoSuchKey", Key=call.key), marker)
    if marker is None:
        return S3Error("NoSuchVersion", Key=call.key, VersionId=version)
    error = S3Error("MethodNotAllowed", Method=call.s3.method, ResourceType="DeleteMarker")
    return _with_headers(error, marker, ("Allow", "DELETE"), ("Last-Modified", http_date(marker.mtime_ns // 1_000_000_000)))


def _with_headers(error: S3Error, marker: VersionInfo | None, *more: tuple[str, str]) -> S3Error:
    if marker is not None:
        error.headers = [("x-amz-delete-marker", "true"), ("x-amz-version-id", marker.version_id), *more]
    return error


def _described_reply(call: Call, info: ObjectInfo) -> Reply:
    """Status, headers and span of a read. Raises PreconditionFailed, InvalidRange, InvalidPartNumber."""
    request, kept = call.s3, unpack(info.extra)
    headers = object_headers(call, info, kept)
    if not check_read(preconditions(request.header), info.etag, mtime(info)):
        return Reply(304, [header for header in headers if header[0] in _OF_304])
    over = metadata.overrides(request, signed=call.caller.signed or call.service.keys is None)
    headers = [header for header in headers if header[0] not in over] + list(over.items())
    part = request.param("partNumber")
    if part is not None:
        return _part_reply(call, info, kept, headers)
    span = None
    if range_applies(request.header("if-range"), info.etag, mtime(info)):
        span = parse_range(request.header("range"), info.size)
    if span is not None:
        return Reply(206, [*headers, ("Content-Range", content_range(span, info.size))], span=span)
    return Reply(200, [*headers, *_sum_headers(call, kept)])


_OF_304 = frozenset({"ETag", "Last-Modified", "Cache-Control", "Expires", "x-amz-version-id"})


def _sum_headers(call: Call, kept: Kept) -> Headers:
    """Never for a part of an object: clients would hold the bytes they got against it."""
    total = kept.sum
    if total is None or not wants_checksums(call.s3):
        return []
    return [(total.algorithm.header, total.text), ("x-amz-checksum-type", total.kind.value)]


def _part_reply(call: Call, info: ObjectInfo, kept: Kept, headers: Headers) -> Reply:
    if call.s3.header("range") is not None:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    number = call.number("partNumber", 1, least=1, most=10_000)
    sizes = [part.size for part in kept.parts] or [info.size]
    if number > len(sizes):
        raise S3Error("InvalidPartNumber", ActualPartCount=len(sizes), PartNumberRequested=number)
    if kept.parts:
        headers = [*headers, ("x-amz-mp-parts-count", str(len(sizes)))]
    start = sum(sizes[: number - 1])
    if not sizes[number - 1]:
        return Reply(206 if info.size else 200, headers)
    span = ByteRange(start, start + sizes[number - 1])
    total, text = kept.sum, kept.parts[number - 1].text if kept.parts else ""
    if total is not None and text and wants_checksums(call.s3):
        headers = [*headers, (total.algorithm.header, text), ("x-amz-checksum-type", total.kind.value)]
    elif not kept.parts:
        headers = [*headers, *_sum_headers(call, kept)]
    return Reply(206, [*headers, ("Content-Range", content_range(span, info.size))], span=span)


# -- attributes -----------------------------------------------------------------------------


async def attributes(call: Call) -> Reply:
    require_possible(call.s3)
    wanted = _wanted(call)
    info = await find(call)
    check_read(preconditions(call.s3.header), info.etag, mtime(info))
    kept = unpack(info.extra)
    rows: dict[str, Callable[[], str]] = {
        "ETag": lambda: tag("ETag", info.etag),
        "Checksum": lambda: _checksum_row(kept),
        "ObjectParts": lambda: _parts_row(call, kept),
        "StorageClass": lambda: tag("StorageClass", info.storage_class),
        "ObjectSize": lambda: tag("ObjectSize", info.size),
    }
    body = document("GetObjectAttributesResponse", [row() for name, row in rows.items() if name in wanted])
    return xml(body, ("Last-Modified", http_date(mtime(info))), *version_headers(call, info))


def _wanted(call: Call) -> frozenset[str]:
    text = ",".join(call.s3.values("x-amz-object-attributes"))
    wanted = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not wanted or not wanted <= set(ATTRIBUTES):
        sentence = "Invalid attribute name specified." if wanted else "The x-amz-object-attributes header is missing."
        raise S3Error("InvalidArgument", sentence, ArgumentName="x-amz-object-attributes", ArgumentValue=text[:128])
    return wanted


def _checksum_row(kept: Kept) -> str:
    total = kept.sum
    return "" if total is None else wrap("Checksum", tag(total.algorithm.element, total.text), tag("ChecksumType", total.kind.value))


def _parts_row(call: Call, kept: Kept) -> str:
    if not kept.parts:
        return ""
    limit = min(_header_number(call, "x-amz-max-parts", MOST_PARTS), MOST_PARTS)
    marker = _header_number(call, "x-amz-part-number-marker", 0)
    left = [part for part in kept.parts if part.number > marker]
    shown = left[:limit]
    return wrap(
        "ObjectParts",
        tag("PartsCount", len(kept.parts)),
        tag("PartNumberMarker", marker),
        tag("NextPartNumberMarker", shown[-1].number if shown else 0),
        tag("MaxParts", limit),
        tag("IsTruncated", truth(len(left) > limit)),
        *(_part_row(part, kept) for part in shown if part.text),
    )


def _part_row(part: KeptPart, kept: Kept) -> str:
    assert kept.sum is not None
    return wrap("Part", tag("PartNumber", part.number), tag("Size", part.size), tag(kept.sum.algorithm.element, part.text))


def _header_number(call: Call, name: str, default: int) -> int:
    text = call.s3.header(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise no_number(name, text)
    return int(text)

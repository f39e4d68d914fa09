"""Copies: whole objects, and parts of uploads taken from objects. No bytes are copied; where a digest is needed they are read.

Owns: CopyObject, UploadPartCopy: sources, directives, conditions of both ends.
Must not know: how content is shared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from s3mount.engine.reader import Reader
from s3mount.engine.values import How
from s3mount.errors import NotFound
from s3mount.model import ByteRange, Condition, ETag, GiB, Key, MiB, ObjectInfo
from s3mount.server import checksums, metadata, multipart
from s3mount.server.access import Action
from s3mount.server.buckets import iso
from s3mount.server.calls import LOGGED, Call, Headers, Reply, xml
from s3mount.server.checksums import DEFAULT, Algorithm, Kind, encode, is_md5, parse_algorithm
from s3mount.server.conditions import check_copy_source, preconditions
from s3mount.server.demands import require_possible
from s3mount.server.kept import Kept, Sum, pack, unpack
from s3mount.server.objects import NULL, conditional, described, mtime, version_headers
from s3mount.server.ranges import parse_copy_range
from s3mount.server.s3errors import S3Error, invalid_argument
from s3mount.server.wire import parse_copy_source
from s3mount.server.xml import document, tag

# What is read and hashed at once.
READ = 1 * MiB
# S3's limit for one copy; larger objects are copied part by part.
COPY_BYTES = 5 * GiB


@dataclass(frozen=True, slots=True)
class Source:
    bucket: str
    key: Key
    version_id: str | None
    info: ObjectInfo


async def _source(call: Call) -> Source:
    """What x-amz-copy-source names, if its conditions hold. Raises S3Error."""
    bucket, key, version_id = parse_copy_source(call.s3.header("x-amz-copy-source") or "")
    call.caller.require(Action.READ, bucket)
    try:
        if version_id is None:
            info = call.engine.head(bucket, Key(key))
        else:
            info = await call.run(call.engine.head_version, bucket, Key(key), version_id)
    except NotFound:
        raise _no_source(call, bucket, Key(key), version_id) from None
    check_copy_source(preconditions(call.s3.header, "x-amz-copy-source-"), info.etag, mtime(info))
    return Source(bucket, Key(key), version_id, info)


def _no_source(call: Call, bucket: str, key: Key, version_id: str | None) -> S3Error:
    if version_id is None:
        return S3Error("NoSuchKey", Key=key)
    if call.engine.find_marker(bucket, key, version_id) is None:
        return S3Error("NoSuchVersion", Key=key, VersionId=version_id)
    return S3Error("InvalidRequest", "The source of a copy request may not specifically refer to a delete marker by version id.")


def _source_version(call: Call, source: Source) -> Headers:
    found = source.info.version_id
    if found is None and call.engine.require_bucket(source.bucket).versioning != "off":
        found = NULL
    return [("x-amz-copy-source-version-id", found)] if found else []


# -- whole objects --------------------------------------------------------------------------


async def copy(call: Call) -> Reply:
    require_possible(call.s3)
    call.engine.require_bucket(call.bucket)

    async def commit(condition: Condition) -> tuple[Source, ObjectInfo, Kept]:
        source = await _source(call)
        _require_change(call, source)
        how, kept, etag = await _result(call, source)
        how = replace(how, condition=condition, extra=pack(kept))
        way = call.change if source.info.size <= LOGGED else call.run  # large ones may have many extents
        info = await way(
            call.engine.copy,
            source.bucket,
            source.key,
            call.key,
            target_bucket=call.bucket,
            version_id=source.version_id,
            if_match=source.info.etag,
            how=how,
            etag=etag,
        )
        return source, info, kept

    source, info, kept = await conditional(call, commit)
    rows = [tag("LastModified", iso(info.mtime_ns)), tag("ETag", f'"{info.etag}"')]
    if kept.sum is not None:
        rows += [tag(kept.sum.algorithm.element, kept.sum.text), tag("ChecksumType", kept.sum.kind.value)]
    return xml(document("CopyObjectResult", rows), *_source_version(call, source), *version_headers(call, info))


def _directive(call: Call, name: str) -> bool:
    """Whether it says REPLACE. Raises InvalidArgument."""
    said = call.s3.header(name) or "COPY"
    if said not in ("COPY", "REPLACE"):
        raise invalid_argument(f"Unknown {name.removeprefix('x-amz-')}.", name, said[:64])
    return said == "REPLACE"


def _require_change(call: Call, source: Source) -> None:
    same = (source.bucket, source.key, source.version_id) == (call.bucket, call.key, None)
    changing = ("x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-checksum-algorithm")
    if same and not _directive(call, "x-amz-metadata-directive") and not any(call.s3.header(name) for name in changing):
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, "
            "storage class, website redirect location or encryption attributes.",
        )


async def _result(call: Call, source: Source) -> tuple[How, Kept, str]:
    """What the copy will be: one content in one piece, as at AWS, whatever the source was made of, and its ETag is its MD5."""
    info, old = source.info, unpack(source.info.extra)
    given, said = described(call)
    if _directive(call, "x-amz-metadata-directive"):
        how, headers = given, said.headers
    else:
        how = How(metadata=info.metadata or {}, content_type=info.content_type, storage_class=metadata.storage_class(call.s3))
        headers = old.headers
    tags = said.tags if _directive(call, "x-amz-tagging-directive") else old.tags
    etag, total = await _whole(call, source, old.sum)
    return how, Kept(headers, tags, (total,)), etag


async def _whole(call: Call, source: Source, known: Sum | None) -> tuple[str, Sum]:
    """ETag and checksum of the copy: the source's, where they speak of the bytes alone, else they are read. Raises InvalidRequest."""
    if source.info.size > COPY_BYTES:
        raise S3Error(
            "InvalidRequest", f"The specified copy source is larger than the maximum allowable size for a copy source: {COPY_BYTES}"
        )
    asked = call.s3.header("x-amz-checksum-algorithm")
    algorithm = parse_algorithm(asked) if asked else known.algorithm if known else DEFAULT
    etag = source.info.etag
    if known is not None and known.algorithm is algorithm and known.kind is Kind.FULL_OBJECT and is_md5(etag):
        return etag, known
    md5, sums = await _digests(call, source, None, [algorithm])
    return md5.hex(), Sum(algorithm, Kind.FULL_OBJECT, encode(sums[algorithm]))


# -- parts ----------------------------------------------------------------------------------


async def copy_part(call: Call) -> Reply:
    require_possible(call.s3)
    number, upload, plan = multipart.upload_of_part(call)
    source = await _source(call)
    span = parse_copy_range(call.s3.header("x-amz-copy-source-range"), source.info.size)
    algorithm = multipart.algorithm_of(plan)
    md5, sums = await _digests(call, source, span, [algorithm])
    total = Sum(algorithm, Kind.FULL_OBJECT, encode(sums[algorithm]))
    part = await call.run(
        call.engine.copy_part,
        call.bucket,
        upload,
        number,
        source.key,
        source_bucket=source.bucket,
        version_id=source.version_id,
        span=span,
        if_match=source.info.etag,
        etag=md5.hex(),
        extra=pack(Kept(sums=(total,))),
    )
    now = call.engine.clock_ns()
    rows = [tag("LastModified", iso(now)), tag("ETag", f'"{part.etag}"'), *([tag(algorithm.element, total.text)] if plan.sum else [])]
    return xml(document("CopyPartResult", rows), *_source_version(call, source))


async def _digests(
    call: Call, source: Source, span: ByteRange | None, algorithms: Iterable[Algorithm]
) -> tuple[bytes, dict[Algorithm, bytes]]:
    """MD5 and checksums of what is copied. Raises PreconditionFailed where the source was replaced meanwhile."""
    if source.version_id is None:
        reader = await call.run(call.engine.open_object, source.bucket, source.key, if_match=ETag(source.info.etag))
    else:
        reader = await call.run(call.engine.open_version, source.bucket, source.key, source.version_id)
    try:
        return await call.run(_read_digests, reader, span or (0, source.info.size), list(algorithms))
    finally:
        reader.close()


def _read_digests(reader: Reader, span: ByteRange | tuple[int, int], algorithms: list[Algorithm]) -> tuple[bytes, dict[Algorithm, bytes]]:
    start, stop = (span.start, span.stop) if isinstance(span, ByteRange) else span
    md5, sums = checksums.md5(), {algorithm: checksums.hasher(algorithm) for algorithm in algorithms}
    buffer = memoryview(bytearray(min(READ, max(stop - start, 1))))
    for at in range(start, stop, len(buffer)):
        view = buffer[: min(len(buffer), stop - at)]
        reader.read_into(at, view)
        for each in (md5, *sums.values()):
            each.update(view)
    return md5.digest(), {algorithm: one.digest() for algorithm, one in sums.items()}

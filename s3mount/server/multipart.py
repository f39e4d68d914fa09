"""Multipart uploads: create, parts, lists, complete, abort.

Owns: these operations; what a completion must be right about before the engine joins the parts.
Must not know: how parts are joined.

The upload's plan (headers, tags, algorithm and kind of checksum) and the digests of its parts are kept with them as `Kept`. An upload
without an algorithm gets CRC64NVME over the whole, as at AWS.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from s3mount.engine.values import PartInfo, UploadInfo
from s3mount.errors import NoSuchUpload, NotFound
from s3mount.model import Condition, MiB, ObjectInfo, Part, Upload
from s3mount.server import checksums
from s3mount.server.buckets import iso, owner
from s3mount.server.calls import OWNER, Call, Headers, Reply, xml
from s3mount.server.checksums import DEFAULT, Algorithm, Kind, claimed_whole, encode, kind_for, parse_algorithm, upload_etag
from s3mount.server.demands import require_possible
from s3mount.server.ingest import give_up, receive, receive_document
from s3mount.server.kept import Kept, KeptPart, Sum, pack, unpack
from s3mount.server.listing import common_prefixes, encoding_echo, naming
from s3mount.server.objects import conditional, described, version_headers
from s3mount.server.s3errors import S3Error
from s3mount.server.xml import NamedPart, document, parse_complete, tag, truth, wrap

# S3's bounds: parts but the last, parts per upload, entries per page.
LEAST_PART = 5 * MiB
PARTS = 10_000
MOST = 1000


# -- begin and parts ------------------------------------------------------------------------


async def create(call: Call) -> Reply:
    require_possible(call.s3)
    how, kept = described(call)
    named, kind = call.s3.header("x-amz-checksum-algorithm"), call.s3.header("x-amz-checksum-type")
    headers: Headers = []
    if named:
        algorithm = parse_algorithm(named)
        plan = Sum(algorithm, kind_for(algorithm, kind), "")
        kept = replace(kept, sums=(plan,))
        headers = [("x-amz-checksum-algorithm", algorithm.value), ("x-amz-checksum-type", plan.kind.value)]
    elif kind:
        raise S3Error("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
    upload = await call.change(call.engine.create_upload, call.bucket, call.key, replace(how, extra=pack(kept)))
    rows = [tag("Bucket", call.bucket), tag("Key", call.key), tag("UploadId", upload.upload_id)]
    return xml(document("InitiateMultipartUploadResult", rows), *headers)


def upload_of_part(call: Call) -> tuple[int, Upload, Kept]:
    """Number, upload and plan of a part that is about to come. Raises InvalidArgument, NoSuchUpload."""
    if call.s3.param("partNumber") is None:
        raise S3Error("InvalidRequest", "The request must name a part number.")
    number = call.number("partNumber", 0, least=1, most=PARTS)
    info = _upload(call)
    return number, info.upload, unpack(info.extra)


def _upload(call: Call) -> UploadInfo:
    return call.engine.upload_info(call.bucket, call.key, call.s3.param("uploadId") or "")


def algorithm_of(plan: Kept) -> Algorithm:
    return plan.sum.algorithm if plan.sum else DEFAULT


async def upload_part(call: Call) -> Reply:
    require_possible(call.s3)
    number, upload, plan = upload_of_part(call)
    received = await receive(call, [algorithm_of(plan)])
    try:
        _require_algorithm(plan, received.claimed)
        sums = tuple(Sum(algorithm, Kind.FULL_OBJECT, encode(digest)) for algorithm, digest in received.sums.items())
        part = await call.run(
            call.engine.put_part, call.bucket, upload, number, received.content, etag=received.etag, extra=pack(Kept(sums=sums))
        )
    finally:
        await give_up(call, received)
    told = received.claimed or algorithm_of(plan)
    return Reply(200, [("ETag", f'"{part.etag}"'), (told.header, encode(received.sums[told]))])


def _require_algorithm(plan: Kept, claimed: Algorithm | None) -> None:
    if plan.sum is not None and claimed not in (None, plan.sum.algorithm):
        expected, actual = plan.sum.algorithm.value.lower(), claimed.value.lower()
        raise S3Error(
            "InvalidRequest", f"Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {actual}"
        )


async def abort(call: Call) -> Reply:
    require_possible(call.s3)
    info = _upload(call)
    await call.run(call.engine.abort_upload, call.bucket, info.upload)
    return Reply(204)


# -- completion -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """What a completion makes of the parts that it names."""

    parts: tuple[Part, ...]
    etag: str
    kept: Kept


async def complete(call: Call) -> Reply:
    require_possible(call.s3)
    call.engine.require_bucket(call.bucket)
    named = parse_complete(await receive_document(call, "CompleteMultipartUpload"))
    try:
        info, kept = await _complete(call, named)
    except NoSuchUpload:
        found = _completed_before(call)
        if found is None:
            raise
        info, kept = found
    rows = [
        tag("Location", f"{call.web.scheme}://{call.s3.host}/{call.bucket}/{call.key}"),
        tag("Bucket", call.bucket),
        tag("Key", call.key),
        tag("ETag", f'"{info.etag}"'),
    ]
    if kept.sum is not None:
        rows += [tag(kept.sum.algorithm.element, kept.sum.text), tag("ChecksumType", kept.sum.kind.value)]
    return xml(document("CompleteMultipartUploadResult", rows), *version_headers(call, info))


async def _complete(call: Call, named: Sequence[NamedPart]) -> tuple[ObjectInfo, Kept]:
    upload = _upload(call)
    there = {info.part.number: info for info in await call.run(call.engine.part_infos, call.bucket, upload.upload)}
    joined = join(unpack(upload.extra), upload.upload.upload_id, named, there)
    _require_claims(call, joined)

    async def commit(condition: Condition) -> ObjectInfo:
        return await call.run(
            call.engine.complete_upload,
            call.bucket,
            upload.upload,
            joined.parts,
            condition=condition,
            etag=joined.etag,
            extra=pack(joined.kept),
        )

    return await conditional(call, commit), joined.kept


def _completed_before(call: Call) -> tuple[ObjectInfo, Kept] | None:
    """The object, where this very upload made it: tools repeat a completion whose answer was lost."""
    try:
        info = call.engine.head(call.bucket, call.key)
    except NotFound:
        return None
    kept = unpack(info.extra)
    return (info, kept) if kept.upload and kept.upload == call.s3.param("uploadId") else None


def join(plan: Kept, upload_id: str, named: Sequence[NamedPart], there: Mapping[int, PartInfo]) -> Joined:
    """Raises InvalidPartOrder, InvalidPart, EntityTooSmall, InvalidRequest, BadDigest."""
    if any(one.number >= other.number for one, other in itertools.pairwise(named)):
        raise S3Error("InvalidPartOrder")
    infos = [_part(one, there, upload_id) for one in named]
    for info in infos[:-1]:
        if info.part.size < LEAST_PART:
            raise S3Error("EntityTooSmall", ProposedSize=info.part.size, MinSizeAllowed=LEAST_PART, PartNumber=info.part.number)
    for one, info in zip(named, infos, strict=True):
        _require_sums(plan, one, unpack(info.extra))
    etag = upload_etag([bytes.fromhex(info.part.etag) for info in infos])
    algorithm = algorithm_of(plan)
    texts = [unpack(info.extra).text_of(algorithm) for info in infos]
    parts = tuple(KeptPart(info.part.number, info.part.size, text) for info, text in zip(infos, texts, strict=True))
    kept = Kept(plan.headers, plan.tags, (_total(plan, parts),), parts, upload_id)
    return Joined(tuple(info.part for info in infos), etag, kept)


def _part(named: NamedPart, there: Mapping[int, PartInfo], upload_id: str) -> PartInfo:
    info = there.get(named.number)
    if info is None or info.part.etag != named.etag:
        raise S3Error("InvalidPart", UploadId=upload_id, PartNumber=named.number, ETag=named.etag[:64])
    return info


def _require_sums(plan: Kept, named: NamedPart, kept: Kept) -> None:
    if not named.checksums and plan.sum is not None and plan.sum.kind is Kind.COMPOSITE:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using a {plan.sum.algorithm.value.lower()} checksum. The complete request must include the checksum "
            f"for each part. It was missing for part {named.number} in the request.",
        )
    for algorithm, text in named.checksums:
        if plan.sum is not None and algorithm is not plan.sum.algorithm:
            raise S3Error(
                "BadDigest", f"The {algorithm.value.lower()} you specified for part {named.number} did not match what we received."
            )
        found = kept.text_of(algorithm)
        if found and found != text:
            raise S3Error("InvalidPart", PartNumber=named.number)


def _total(plan: Kept, parts: Sequence[KeptPart]) -> Sum:
    algorithm = algorithm_of(plan)
    digests = [checksums.decode(algorithm, part.text) for part in parts]
    if plan.sum is not None and plan.sum.kind is Kind.COMPOSITE:
        return Sum(algorithm, Kind.COMPOSITE, checksums.composite(algorithm, digests))
    whole = checksums.combine(algorithm, ((digest, part.size) for digest, part in zip(digests, parts, strict=True)))
    return Sum(algorithm, Kind.FULL_OBJECT, encode(whole))


def _require_claims(call: Call, joined: Joined) -> None:
    """What the completion says of the whole. Raises InvalidRequest, BadDigest."""
    size = call.s3.header("x-amz-mp-object-size")
    actual = sum(part.size for part in joined.parts)
    if size is not None and size.strip() != str(actual):
        raise S3Error(
            "InvalidRequest", f"The provided 'x-amz-mp-object-size' header value {size[:32]} does not match what was computed: {actual}"
        )
    total, kind, said = joined.kept.sum, call.s3.header("x-amz-checksum-type"), claimed_whole(call.s3)
    assert total is not None
    if kind and kind.upper() != total.kind.value:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using the {total.kind.value} checksum mode. The complete request must use the same checksum mode.",
        )
    if said is None:
        return
    algorithm, text = said
    if algorithm is not total.algorithm or text.split("-")[0] != total.text.split("-")[0]:
        raise checksums.bad_digest(algorithm)


# -- lists ----------------------------------------------------------------------------------


async def list_parts(call: Call) -> Reply:
    require_possible(call.s3)
    limit, marker = min(call.number("max-parts", MOST), MOST), call.number("part-number-marker", 0)
    info = _upload(call)
    plan = unpack(info.extra)
    left = await call.run(call.engine.part_infos, call.bucket, info.upload, after=marker, limit=limit + 1)
    shown = left[:limit]
    rows = [
        tag("Bucket", call.bucket),
        tag("Key", naming(call)(call.key)),
        tag("UploadId", info.upload.upload_id),
        wrap("Initiator", tag("ID", OWNER)),
        owner(),
        tag("StorageClass", info.storage_class),
        tag("PartNumberMarker", marker),
        tag("NextPartNumberMarker", shown[-1].part.number if shown else 0),
        tag("MaxParts", limit),
        tag("IsTruncated", truth(len(left) > len(shown))),
        *_plan_rows(plan),
        *(_part_row(part, plan) for part in shown),
    ]
    return xml(document("ListPartsResult", rows))


def _plan_rows(plan: Kept) -> list[str]:
    return [tag("ChecksumAlgorithm", plan.sum.algorithm.value), tag("ChecksumType", plan.sum.kind.value)] if plan.sum else []


def _part_row(info: PartInfo, plan: Kept) -> str:
    kept = unpack(info.extra)
    algorithm = algorithm_of(plan)
    text = kept.text_of(algorithm)
    rows = [
        tag("PartNumber", info.part.number),
        tag("LastModified", iso(info.mtime_ns)),
        tag("ETag", f'"{info.part.etag}"'),
        tag("Size", info.part.size),
        *([tag(algorithm.element, text)] if text else []),
    ]
    return wrap("Part", *rows)


async def list_uploads(call: Call) -> Reply:
    require_possible(call.s3)
    name, limit = naming(call), min(call.number("max-uploads", MOST, least=1), MOST)
    prefix, delimiter = call.s3.param("prefix") or "", call.s3.param("delimiter") or ""
    key, upload = call.s3.param("key-marker") or "", call.s3.param("upload-id-marker") or ""
    page = await call.run(call.engine.upload_page, call.bucket, prefix, delimiter=delimiter, after=(key, upload), limit=limit)
    told = [
        tag("Bucket", call.bucket),
        tag("KeyMarker", name(key)),
        tag("UploadIdMarker", upload),
        *([tag("NextKeyMarker", name(page.next[0])), tag("NextUploadIdMarker", page.next[1])] if page.next else []),
        tag("Prefix", name(prefix)),
        *([tag("Delimiter", name(delimiter))] if delimiter else []),
        encoding_echo(call),
        tag("MaxUploads", limit),
        tag("IsTruncated", truth(page.next is not None)),
        *(_upload_row(info, name(info.upload.key)) for info in page.uploads),
        *common_prefixes(page.prefixes, name),
    ]
    return xml(document("ListMultipartUploadsResult", told))


def _upload_row(info: UploadInfo, key: str) -> str:
    rows = [
        tag("Key", key),
        tag("UploadId", info.upload.upload_id),
        wrap("Initiator", tag("ID", OWNER)),
        owner(),
        tag("StorageClass", info.storage_class),
        tag("Initiated", iso(info.upload.started_ns)),
        *_plan_rows(unpack(info.extra)),
    ]
    return wrap("Upload", *rows)

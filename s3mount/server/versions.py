"""Versioning of a bucket, and the listing of its versions.

Owns: Get/PutBucketVersioning, ListObjectVersions. Must not know: how versions are kept.
"""

from __future__ import annotations

from s3mount.engine.values import VersionInfo, VersionPage
from s3mount.engine.version_queries import Place
from s3mount.server.buckets import iso, owner
from s3mount.server.calls import Call, Reply, xml
from s3mount.server.demands import require_possible
from s3mount.server.ingest import receive_document
from s3mount.server.listing import MOST_KEYS, Name, common_prefixes, encoding_echo, naming, sum_elements
from s3mount.server.s3errors import S3Error
from s3mount.server.xml import document, parse_versioning, tag, truth, versioning_document, wrap


async def get_versioning(call: Call) -> Reply:
    state = call.engine.require_bucket(call.bucket).versioning
    return xml(versioning_document("" if state == "off" else state.title()))


async def put_versioning(call: Call) -> Reply:
    require_possible(call.s3)
    call.engine.require_bucket(call.bucket)
    enabled = parse_versioning(await receive_document(call, "VersioningConfiguration"))
    await call.run(call.engine.set_versioning, call.bucket, "enabled" if enabled else "suspended")
    return Reply(200)


async def list_versions(call: Call) -> Reply:
    require_possible(call.s3)
    name, limit = naming(call), min(call.number("max-keys", MOST_KEYS), MOST_KEYS)
    key, version = call.s3.param("key-marker") or "", call.s3.param("version-id-marker")
    if version is not None and not key:
        sentence = "A version-id marker cannot be specified without a key marker."
        raise S3Error("InvalidArgument", sentence, ArgumentName="version-id-marker", ArgumentValue=version[:64])
    prefix, delimiter = call.s3.param("prefix") or "", call.s3.param("delimiter") or ""
    page = VersionPage((), (), None)
    if limit:
        after = Place(key, version or None)
        page = await call.run(call.engine.version_page, call.bucket, prefix, delimiter=delimiter, after=after, limit=limit)
    else:
        call.engine.require_bucket(call.bucket)
    rows = [
        tag("Name", call.bucket),
        tag("Prefix", name(prefix)),
        tag("KeyMarker", name(key)),
        tag("VersionIdMarker", version or ""),
        *_next(page, name),
        tag("MaxKeys", limit),
        *([tag("Delimiter", name(delimiter))] if delimiter else []),
        encoding_echo(call),
        tag("IsTruncated", truth(page.next is not None)),
        *(_row(info, name) for info in page.versions),
        *common_prefixes(page.prefixes, name),
    ]
    return xml(document("ListVersionsResult", rows))


def _next(page: VersionPage, name: Name) -> list[str]:
    if page.next is None:
        return []
    key, version = page.next
    return [tag("NextKeyMarker", name(key)), *([tag("NextVersionIdMarker", version)] if version else [])]


def _row(info: VersionInfo, name: Name) -> str:
    common = [
        tag("Key", name(info.key)),
        tag("VersionId", info.version_id),
        tag("IsLatest", truth(info.latest)),
        tag("LastModified", iso(info.mtime_ns)),
    ]
    if info.marker:
        return wrap("DeleteMarker", *common, owner())
    content = [tag("ETag", f'"{info.etag}"'), sum_elements(info.extra), tag("Size", info.size), tag("StorageClass", info.storage_class)]
    return wrap("Version", *common, *content, owner())

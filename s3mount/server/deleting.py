"""Removing objects and versions: one, or up to a thousand.

Owns: DeleteObject, DeleteObjects. Must not know: how versions come about.
"""

from __future__ import annotations

from collections.abc import Callable

from s3mount.engine.values import Doomed as Removal
from s3mount.engine.values import Removed
from s3mount.errors import S3MountError, StoreError
from s3mount.model import Key, ObjectInfo
from s3mount.server.calls import Call, Headers, Reply, xml
from s3mount.server.conditions import DeleteCondition, delete_condition
from s3mount.server.demands import require_possible
from s3mount.server.ingest import receive_document
from s3mount.server.s3errors import S3Error, from_store
from s3mount.server.xml import Doomed, document, parse_delete, tag, wrap


async def delete(call: Call) -> Reply:
    require_possible(call.s3)
    removal = Removal(call.key, call.version_id, _check(delete_condition(call.s3.header)))
    (outcome,) = await call.change(call.engine.remove, call.bucket, [removal])
    if not isinstance(outcome, Removed):
        raise outcome
    return Reply(204, _told(outcome))


def _told(outcome: Removed) -> Headers:
    version = outcome.version_id or outcome.marker_version
    headers: Headers = [("x-amz-version-id", version)] if version else []
    return [("x-amz-delete-marker", "true"), *headers] if outcome.marker else headers


def _check(condition: DeleteCondition) -> Callable[[ObjectInfo | None], None] | None:
    if not condition:
        return None

    def check(info: ObjectInfo | None) -> None:
        condition.check(info.etag if info else None, info.mtime_ns // 1_000_000_000 if info else 0, info.size if info else 0)

    return check


async def delete_objects(call: Call) -> Reply:
    require_possible(call.s3)
    if not any(name == "content-md5" or name.startswith(("x-amz-checksum-", "x-amz-trailer")) for name, _ in call.s3.headers):
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5")
    call.engine.require_bucket(call.bucket)
    doomed, quiet = parse_delete(await receive_document(call, "Delete"))
    outcomes = await call.run(call.engine.remove, call.bucket, [_removal(one) for one in doomed])
    rows = []
    for one, outcome in zip(doomed, outcomes, strict=True):
        if not isinstance(outcome, Removed):
            rows.append(_failed(one, outcome))
        elif not quiet:
            rows.append(_deleted(outcome))
    return xml(document("DeleteResult", rows))


def _removal(one: Doomed) -> Removal:
    given = {"if-match": one.etag, "x-amz-if-match-last-modified-time": one.last_modified, "x-amz-if-match-size": one.size}
    try:
        check = _check(delete_condition(given.get))
    except S3Error as error:
        return Removal(Key(one.key), one.version_id, _refusing(error))
    return Removal(Key(one.key), one.version_id, check)


def _refusing(error: S3Error) -> Callable[[ObjectInfo | None], None]:
    def check(info: ObjectInfo | None) -> None:
        raise error

    return check


def _deleted(outcome: Removed) -> str:
    rows = [tag("Key", outcome.key)]
    if outcome.version_id:
        rows.append(tag("VersionId", outcome.version_id))
    if outcome.marker:
        version = outcome.marker_version or outcome.version_id or ""
        rows += [tag("DeleteMarker", "true"), tag("DeleteMarkerVersionId", version)]
    return wrap("Deleted", *rows)


def _failed(one: Doomed, error: S3MountError) -> str:
    said = from_store(error) if isinstance(error, StoreError) else error
    assert isinstance(said, S3Error)
    version = [tag("VersionId", one.version_id)] if one.version_id else []
    return wrap("Error", tag("Key", one.key), *version, tag("Code", said.code), tag("Message", said.message))

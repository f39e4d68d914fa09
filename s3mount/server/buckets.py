"""The service and its buckets: list, create, head, delete, location.

Owns: these operations. Must not know: objects.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

from s3mount.engine.names import require_bucket_name
from s3mount.errors import BucketExists, InvalidName
from s3mount.server.calls import OWNER, REGION, Call, Reply, xml
from s3mount.server.demands import require_possible
from s3mount.server.ingest import receive_document
from s3mount.server.s3errors import S3Error
from s3mount.server.xml import document, parse_location, tag, wrap

MOST_BUCKETS = 10_000
EPOCH = date(1970, 1, 1)


def iso(time_ns: int) -> str:
    """As documents write a time: milliseconds, always .000Z where S3 keeps seconds."""
    days, seconds = divmod(time_ns // 1_000_000_000, 86_400)
    return f"{_day(days)}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.000Z"


@lru_cache(maxsize=1024)
def _day(days: int) -> str:
    """A listing has thousands of times, on few days."""
    return (EPOCH + timedelta(days)).isoformat()


def owner(name: str = "Owner") -> str:
    return wrap(name, tag("ID", OWNER))


async def list_buckets(call: Call) -> Reply:
    limit = call.number("max-buckets", MOST_BUCKETS, least=1, most=MOST_BUCKETS)
    prefix, after = call.s3.param("prefix") or "", call.s3.param("continuation-token") or ""
    region = call.s3.param("bucket-region")
    found = [
        bucket
        for bucket in await call.run(call.engine.buckets)
        if call.caller.rights.show(bucket.name) and bucket.name.startswith(prefix) and bucket.name > after
    ]
    found = found if region in (None, "", call.service.region) else []
    found = found if region in (None, "", call.service.region) else []
    shown = found[:limit]
    rows = [
        wrap(
            "Bucket",
            tag("Name", bucket.name),
            tag("CreationDate", iso(bucket.created_ns)),
            tag("BucketRegion", call.service.region),
            tag("BucketArn", f"arn:aws:s3:::{bucket.name}"),
        )
        for bucket in shown
    ]
    more = [tag("ContinuationToken", shown[-1].name)] if len(found) > limit else []
    echo = [tag("Prefix", prefix)] if prefix else []
    return xml(document("ListAllMyBucketsResult", [owner(), wrap("Buckets", *rows), *more, *echo]))


async def create(call: Call) -> Reply:
    try:
        require_bucket_name(call.bucket)
    except InvalidName as error:
        raise S3Error("InvalidBucketName", str(error), BucketName=call.bucket) from None
    require_possible(call.s3)
    parse_location(await receive_document(call, "CreateBucketConfiguration"))
    try:
        await call.run(call.engine.create_bucket, call.bucket)
    except BucketExists:
        # In us-east-1 the owner may create a bucket again: tools rely on it.
        pass
    return Reply(200, [("Location", f"/{call.bucket}"), ("x-amz-bucket-arn", f"arn:aws:s3:::{call.bucket}")])


async def head(call: Call) -> Reply:
    require_possible(call.s3)
    call.engine.require_bucket(call.bucket)
    named = [
        ("x-amz-bucket-region", call.service.region),
        ("x-amz-access-point-alias", "false"),
        ("x-amz-bucket-arn", f"arn:aws:s3:::{call.bucket}"),
    ]
    return Reply(200, [*named, ("Content-Type", "application/xml")])


async def delete(call: Call) -> Reply:
    require_possible(call.s3)
    await call.run(call.engine.delete_bucket, call.bucket)
    return Reply(204)


async def location(call: Call) -> Reply:
    call.engine.require_bucket(call.bucket)
    region = call.service.region
    return xml(document("LocationConstraint", [] if region == REGION else [region]))


async def rebuild_index(call: Call) -> Reply:
    """Ours, not S3's: replay the log beside the live index. Concerns the whole folder, so the key must, too."""
    if call.service.rebuild is None:
        raise S3Error("NotImplemented", Header="rebuildIndex")
    if call.caller.rights.bucket:
        raise S3Error("AccessDenied")
    call.engine.require_bucket(call.bucket)
    if not await call.run(call.service.rebuild):
        raise S3Error("OperationAborted", "The index is being rebuilt already.")
    return Reply(202)

"""Buckets as such: making, removing, naming them, the first look at one that is to be mounted; and what an object's archive is asked.

Owns: the requests that are no part of the store protocol, and what a first look may find out.
Must not know: what the bucket is wanted for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3mount.errors import Busy, InvalidName, Misdirected, NoSuchBucket, Unavailable
from s3mount.model import Key
from s3mount.store.s3.answers import Asked, elsewhere
from s3mount.store.s3.client import Client
from s3mount.store.s3.headers import iso_time


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """A bucket's name, and when it was made (nanoseconds since 1970)."""

    name: str
    created_ns: int


async def list_buckets(client: Client) -> Sequence[BucketInfo]:
    """All buckets of these credentials, by name."""
    answer = await client("list_buckets", Asked(bucket=""))
    found = [BucketInfo(entry["Name"], iso_time(entry["CreationDate"])) for entry in answer.get("Buckets", ())]
    return sorted(found, key=lambda bucket: bucket.name)


async def create_bucket(client: Client, bucket: str) -> None:
    """Make *bucket* in the client's region. Raises BucketExists, InvalidName."""
    _require(bucket)
    # us-east-1 is the one region that AWS wants unsaid.
    where = {} if client.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": client.region}}
    await client("create_bucket", Asked(bucket=bucket, mutates=True), Bucket=bucket, **where)


async def delete_bucket(client: Client, bucket: str) -> None:
    """Remove *bucket*. Raises NoSuchBucket, BucketNotEmpty."""
    _require(bucket)
    await client("delete_bucket", Asked(bucket=bucket, mutates=True), Bucket=bucket)


async def probe(client: Client, bucket: str, prefix: str = "") -> None:
    """Ask for one key under *prefix*: the answer tells whether bucket, region, endpoint, credentials and clock are right.

    Raises Misdirected with the region where the service names it, NoSuchBucket, AccessDenied, Unavailable and others, each with a sentence.
    """
    _require(bucket)
    try:
        answer = await client("list_objects_v2", Asked(bucket=bucket), Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except Misdirected as error:
        if error.region:
            raise
        raise elsewhere(bucket, await _region_of(client, bucket)) from error
    if "Name" not in answer and "KeyCount" not in answer:
        raise Unavailable(f"{client.endpoint} does not answer as an S3 service does: check --endpoint-url.")


async def restore(client: Client, bucket: str, key: Key, *, days: int, tier: str) -> bool:
    """Have an archived object made readable for *days*; False where that is under way already. Raises NotFound, StoreError."""
    wanted = {"Days": days, "GlacierJobParameters": {"Tier": tier}}
    try:
        await client("restore_object", Asked(bucket=bucket, key=key, mutates=True), Bucket=bucket, Key=key, RestoreRequest=wanted)
    except Busy:
        return False
    return True


async def _region_of(client: Client, bucket: str) -> str:
    try:
        await client("head_bucket", Asked(bucket=bucket), Bucket=bucket)
    except Misdirected as error:
        return error.region
    except NoSuchBucket:
        pass
    return ""


def _require(bucket: str) -> None:
    if not bucket or "/" in bucket:
        raise InvalidName(f"{bucket!r} cannot be the name of a bucket: 3 to 63 of a-z, 0-9, - and dots.")

"""Versions of objects, as S3 lists them.

Owns: the request ListObjectVersions, and its answer as `Versions`.
Must not know: what the versions are wanted for.

S3 lists versions and delete markers in two separate rows, each by key and, within a key, the newest first; here they are one. Where both
have an entry of the same key, the later time comes first, and of two at the same time the one that is the latest.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_plus

from s3mount.model import ETag, Key, ObjectInfo, Version, VersionPlace, Versions
from s3mount.store.aspects import NULL_VERSION
from s3mount.store.s3.answers import Asked
from s3mount.store.s3.client import Answer, Client
from s3mount.store.s3.headers import etag_in, info_of, iso_time
from s3mount.store.s3.replies import given, headers_of

Decode = Callable[[str], str]


async def versions(client: Client, bucket: str, prefix: str, *, after: VersionPlace | None) -> Versions:
    """As `ObjectStore.list_versions`. Keys come URL-encoded, as XML cannot carry all of them."""
    where = given(KeyMarker=after.key, VersionIdMarker=after.version_id) if after else {}
    answer = await client("list_object_versions", Asked(bucket=bucket), Bucket=bucket, EncodingType="url", **given(Prefix=prefix), **where)
    return versions_of(answer)


async def head_version(client: Client, bucket: str, key: Key, version_id: str) -> ObjectInfo:
    """As `ObjectStore.head_version`."""
    answer = await client("head_object", Asked(bucket=bucket, key=key), Bucket=bucket, Key=key, VersionId=version_id)
    return replace(info_of(key, headers_of(answer)), version_id=version_id)


def versions_of(answer: Answer) -> Versions:
    """One page of an answer. Pure."""
    decode = unquote_plus if answer.get("EncodingType") == "url" else str
    rows = (
        [_version(entry, decode) for entry in answer.get("Versions", ())],
        [_marker(entry, decode) for entry in answer.get("DeleteMarkers", ())],
    )
    entries = tuple(heapq.merge(*rows, key=lambda version: (version.key.encode(), not version.latest, -version.mtime_ns)))
    if not answer.get("IsTruncated"):
        return Versions(entries, None)
    return Versions(entries, VersionPlace(decode(answer["NextKeyMarker"]), answer["NextVersionIdMarker"]))


def _version(entry: dict[str, Any], decode: Decode) -> Version:
    return _entry(
        entry,
        decode,
        marker=False,
        size=int(entry["Size"]),
        etag=etag_in(entry["ETag"]),
        storage_class=entry.get("StorageClass") or "STANDARD",
    )


def _marker(entry: dict[str, Any], decode: Decode) -> Version:
    return _entry(entry, decode, marker=True, size=0, etag=ETag(""), storage_class="STANDARD")


def _entry(entry: dict[str, Any], decode: Decode, *, marker: bool, size: int, etag: ETag, storage_class: str) -> Version:
    return Version(
        Key(decode(entry["Key"])),
        entry.get("VersionId") or NULL_VERSION,
        latest=bool(entry["IsLatest"]),
        marker=marker,
        size=size,
        etag=etag,
        mtime_ns=iso_time(entry["LastModified"]),
        storage_class=storage_class,
    )

"""What stands in aiobotocore's answers, as our values; and what is asked, in its words.

Owns: reading an answer's fields and headers, the checks of what a service sends.
Must not know: how a request is made. Pure, but for the clock where a service says no time.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_plus

from s3mount.errors import OutcomeUnknown, Unavailable
from s3mount.model import ByteRange, ETag, Key, Metadata, ObjectInfo, Upload
from s3mount.store.api import COMMIT_ID, Commit
from s3mount.store.rules import PARTS, changed
from s3mount.store.s3.client import Answer, Headers
from s3mount.store.s3.headers import NS, content_range, etag_in, etag_out, http_time, info_of, iso_time, version_of, with_commit_id
from s3mount.store.s3.lean.paging import Listed


def headers_of(answer: Answer) -> Headers:
    """The answer's headers, names in lower case."""
    headers: Headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return headers


def given(**parameters: Any) -> dict[str, Any]:
    """Those that say something; an ETag gets its quotes."""
    return {name: etag_out(value) if name == "IfMatch" else value for name, value in parameters.items() if value}


def listed(answer: Answer) -> Listed:
    """A page of a listing."""
    objects = tuple(_entry(entry) for entry in answer.get("Contents", ()))
    prefixes = tuple(entry["Prefix"] for entry in answer.get("CommonPrefixes", ()))
    return Listed(objects, prefixes, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None)


def _entry(entry: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        key=Key(entry["Key"]),
        size=int(entry["Size"]),
        etag=etag_in(entry["ETag"]),
        mtime_ns=iso_time(entry["LastModified"]),
        storage_class=entry.get("StorageClass") or "STANDARD",
        metadata=None,
    )


def uploads_of(answer: Answer) -> tuple[list[Upload], dict[str, str]]:
    """The uploads under way of one page, and where the next one begins ({}: this was the last).

    Keys are asked for in percents; a service that does not say that it did so did not.
    """
    decode = unquote_plus if answer.get("EncodingType") == "url" else str
    uploads = [Upload(Key(decode(entry["Key"])), entry["UploadId"], iso_time(entry["Initiated"])) for entry in answer.get("Uploads", ())]
    if not answer.get("IsTruncated"):
        return uploads, {}
    return uploads, {"KeyMarker": decode(answer["NextKeyMarker"]), "UploadIdMarker": answer["NextUploadIdMarker"]}


def etag_of(answer: Answer) -> ETag:
    """The ETag of what a write made. Raises OutcomeUnknown where the answer has none: it is no answer of an S3 service."""
    if not answer.get("ETag"):
        raise OutcomeUnknown("The store's answer to a write lacks an ETag.")
    return etag_in(answer["ETag"])


def committed(key: Key, size: int, answer: Answer, commit: Commit) -> ObjectInfo:
    """What a write made."""
    return ObjectInfo(
        key=key,
        size=size,
        etag=etag_of(answer),
        mtime_ns=said_at(answer),
        content_type=commit.content_type,
        storage_class=commit.storage_class,
        metadata=with_commit_id(commit),
        version_id=version_of(headers_of(answer)),
    )


def copied(source: ObjectInfo, target: Key, answer: Answer, commit: Commit | None) -> ObjectInfo:
    """What a copy made of *source*; *commit* where it replaced metadata and type."""
    result = answer["CopyObjectResult"]
    said = result.get("LastModified")
    info = replace(
        source,
        key=target,
        etag=etag_in(result["ETag"]),
        mtime_ns=iso_time(said) if said else said_at(answer),
        version_id=version_of(headers_of(answer)),
    )
    if commit is None:
        return info
    return replace(info, metadata=with_commit_id(commit), content_type=commit.content_type, storage_class=commit.storage_class)


def said_at(answer: Answer) -> int:
    """When the service answered: a commit's time to a second or two, which no answer to a write says."""
    date = headers_of(answer).get("date")
    return http_time(date) if date else time.time_ns() // NS * NS


def require_span(key: Key, span: ByteRange, if_match: ETag | None, headers: Headers) -> None:
    """Raise PreconditionFailed where a service that ignores If-Match sends another version, ValueError where *span* reaches behind the end.

    Unavailable where something else was sent than was asked for.
    """
    info = info_of(key, headers)
    if if_match is not None and info.etag != if_match:
        raise changed(key)
    size = info.size
    if span.stop > size:
        raise ValueError(f"bytes {span.start}-{span.stop} do not lie in an object of {size} bytes")
    start, stop, _ = content_range(headers["content-range"]) if "content-range" in headers else (0, size, size)
    if (start, stop) != (span.start, span.stop):
        raise Unavailable(f"The store sends bytes {start}-{stop} of {key!r} where {span.start}-{span.stop} were asked for.")


def require_part(number: int) -> None:
    """Raise ValueError for what is no part's number."""
    if not 1 <= number <= PARTS:
        raise ValueError(f"part numbers run from 1 to {PARTS}, not {number}")


def commit_of(source: ObjectInfo) -> Commit:
    """The commit that makes a second *source*."""
    return Commit(metadata=source.metadata or {}, content_type=source.content_type, storage_class=source.storage_class)


def commit_id_of(metadata: Metadata | None) -> dict[str, str]:
    """The commit id alone."""
    return {name: value for name, value in (metadata or {}).items() if name == COMMIT_ID}


def fits_xml(key: str) -> bool:
    """Whether XML 1.0 can carry *key* and every parser gives it back unchanged."""
    return all(char >= " " and char not in "\x7f\ufffe\uffff" for char in key)

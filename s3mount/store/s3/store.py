"""S3Store: one bucket of an S3 service, as an object store on trio.

Owns: which request each verb of the protocol is, and what its answer means.
Must not know: how requests are repeated or limited from outside (Retrying, Limited), who asks.

S1  Every write carries its conditions to the service (If-Match, If-None-Match), which judges them against all its clients; with
    `last_writer_wins` none is sent and none is promised.
S2  A read names its version by If-Match, so that no answer can be a mixture. Where the bucket keeps versions and the answer is that there is
    another one by now, the same bytes are asked for by version id.
S3  Bytes are handed out only when as many came as were asked for; a whole object's checksum is compared where the service sent one.
S4  `pin` with `known` sends nothing: an ETag is all that a pin is here.
S5  `adopt` repeats single parts by the same policy as Retrying repeats requests, and what it raises then is not repeated once more.
S6  Conditions of an upload are kept here, in this process: an upload that another process began is completed without any.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import trio

from s3mount.errors import InvalidName, NotFound, PreconditionFailed, StoreError, TooLarge, Unavailable, Unsupported
from s3mount.model import (
    OBJECT_BYTES,
    Absent,
    ByteRange,
    Content,
    ETag,
    Found,
    GiB,
    Key,
    Matches,
    Metadata,
    ObjectInfo,
    Page,
    Part,
    Space,
    TiB,
    Upload,
)
from s3mount.store.api import COMMIT_ID, PAGE_KEYS, Capabilities, Commit, Failure
from s3mount.store.rules import DELETE_KEYS, PARTS, changed, require_key
from s3mount.store.s3.answers import Asked, NoSuchRange, Refusal, error_of
from s3mount.store.s3.body import Body
from s3mount.store.s3.checksums import Algorithm, Checksums, of_body, of_upload, verify
from s3mount.store.s3.client import Answer, Client, Headers
from s3mount.store.s3.headers import (
    CONTENT_HEADERS,
    content_range,
    etag_in,
    etag_out,
    http_time,
    info_of,
    iso_time,
    sent_metadata,
    version_of,
    with_commit_id,
)
from s3mount.store.s3.together import together
from s3mount.store.s3.uploading import Uploading
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.retrying import Policy, Retrying

# S3's limit for a key, in bytes of UTF-8.
KEY_BYTES = 1024
# S3 copies at most this much in one request.
COPY_BYTES = 5 * GiB
# What statfs shows: a bucket has no size, and some programs refuse to write where little seems to be free.
CAPACITY = 8192 * TiB
# Behind every key that begins with what stands before it: the highest code point.
LAST = "\U0010ffff"
# Single deletes at once, for keys that an XML document cannot name.
DELETES_AT_ONCE = 16
NS = 1_000_000_000


class S3Store:
    """*bucket* by way of *client*, which belongs to the store from here on. *policy*: how patiently parts of an upload are repeated."""

    staging: Path | None = None

    def __init__(self, client: Client, bucket: str, *, policy: Policy = Policy()) -> None:  # noqa: B008 (frozen)
        self._client = client
        self._bucket = bucket
        self._conditional = not client.options.last_writer_wins
        self.capabilities = Capabilities(conditional_put=self._conditional, part_copy=True)
        self._checksums = Checksums()
        self._begun: dict[str, tuple[Commit, Algorithm | None]] = {}
        self._patient = Retrying(self, policy)
        self._uploading = Uploading(self._patient, self._copy_part_patiently)

    def __repr__(self) -> str:
        return f"<S3Store {self._bucket!r} at {self._client.endpoint}>"

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        return info_of(key, _headers(await self._head(key)))

    async def _head(self, key: Key, *, if_match: ETag | None = None) -> Answer:
        self._require(key)
        return await self._client("head_object", self._asked(key), Bucket=self._bucket, Key=key, **_given(IfMatch=if_match))

    async def find(self, name: str) -> Found:
        if not name:
            return Found(None, None, implied=True)
        try:
            self._require(name)
        except InvalidName:
            return Found(None, None, implied=False)
        found = await together([partial(self._head_or_none, Key(name)), partial(self._below, name)], at_once=2)
        object_, below = found
        assert object_ is None or isinstance(object_, ObjectInfo)
        assert isinstance(below, Page)
        marker = next((info for info in below.objects if info.key == f"{name}/"), None)
        return Found(object_, marker, implied=any(info.key != f"{name}/" for info in below.objects))

    async def _head_or_none(self, key: Key) -> ObjectInfo | Page | None:
        try:
            return await self.head(key)
        except NotFound:
            return None

    async def _below(self, name: str) -> ObjectInfo | Page | None:
        if len(name.encode()) >= KEY_BYTES:
            return Page((), (), None)
        return await self.list(f"{name}/", limit=2)

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        if limit < 1:
            raise ValueError(f"a page of {limit} keys")
        rolled = bool(delimiter) and after.startswith(prefix) and delimiter in after[len(prefix) :]
        group = prefix + after[len(prefix) :].partition(delimiter)[0] + delimiter if rolled else ""
        answer = await self._client(
            "list_objects_v2",
            self._asked(),
            Bucket=self._bucket,
            MaxKeys=min(limit, PAGE_KEYS),
            **_given(Prefix=prefix, Delimiter=delimiter, StartAfter=group + LAST if rolled and after == group else after),
        )
        objects = tuple(_listed(entry) for entry in answer.get("Contents", ()))
        prefixes = tuple(entry["Prefix"] for entry in answer.get("CommonPrefixes", ()) if entry["Prefix"] != after)
        last = max((str(each) for each in (*(info.key for info in objects[-1:]), *prefixes[-1:])), key=str.encode, default="")
        return Page(objects, prefixes, last if answer.get("IsTruncated") and last else None)

    # -- reading ----------------------------------------------------------------------

    async def get_into(self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None) -> ObjectInfo:
        return await self.read_version(key, span, buffer, if_match=if_match)

    async def read_version(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, version_id: str | None = None
    ) -> ObjectInfo:
        """As `get_into`; with *version_id*, of that version, whichever is current."""
        if buffer.nbytes != span.length:
            raise ValueError(f"{span.length} bytes do not fill a buffer of {buffer.nbytes}")
        self._require(key)
        conditions = _given(IfMatch=if_match, VersionId=version_id, ChecksumMode="ENABLED" if span.start == 0 else None)
        wanted = f"bytes={span.start}-{span.stop - 1}"
        try:
            headers = await self._client.get(
                self._asked(key), buffer, partial(_require_span, key, span), Bucket=self._bucket, Key=key, Range=wanted, **conditions
            )
        except NoSuchRange as error:
            raise ValueError(str(error)) from None
        info = info_of(key, headers)
        if span.length == info.size:
            verify(headers, buffer, of=key)
        return info

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> S3Pin:
        if known is not None:
            return S3Pin(self, replace(known, key=key))
        return S3Pin(self, info_of(key, _headers(await self._head(key, if_match=if_match))))

    # -- committing -------------------------------------------------------------------

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        self._require(key)
        body = Body(data)
        if len(body) > COPY_BYTES:
            raise TooLarge(f"{key!r} has {len(body)} bytes; one request takes {COPY_BYTES}.")
        described, conditions = self._described(commit), self._conditions(commit)

        async def send(algorithm: Algorithm | None) -> Answer:
            checksum = of_body(algorithm, body.view)
            return await self._mutate("put_object", key, commit, Body=Body(data), **described, **conditions, **checksum)

        answer = await self._checksums.choose(send)
        return _committed(key, len(body), answer, commit)

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        self._require(key)
        if content.size > OBJECT_BYTES:
            raise TooLarge(f"{key!r} would have {content.size} bytes; S3 takes {OBJECT_BYTES}.")
        return await self._uploading.adopt(key, content, commit)

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        while True:
            answer = await self._head(key)
            info, headers = info_of(key, _headers(answer)), _headers(answer)
            if if_match is not None and info.etag != if_match:
                raise changed(key)
            kept = metadata if COMMIT_ID in metadata or not info.metadata else {**metadata, **_commit_id(info.metadata)}
            commit = Commit(metadata=kept, content_type=info.content_type, storage_class=info.storage_class)
            more = {parameter: headers[name] for name, parameter in CONTENT_HEADERS.items() if name in headers}
            try:
                return await self._copy(info, key, commit, **more)
            except PreconditionFailed:
                if if_match is not None:
                    raise

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        self._require(key)
        condition = _given(IfMatch=if_match) if self._conditional else {}
        try:
            await self._client("delete_object", self._asked(key, mutates=True), Bucket=self._bucket, Key=key, **condition)
        except NotFound:
            pass

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        if len(keys) > DELETE_KEYS:
            raise ValueError(f"{len(keys)} keys at once; {DELETE_KEYS} is the limit")
        odd = [key for key in keys if not _fits_xml(key)]
        failures = [
            failure for failure in await together([partial(self._delete_one, key) for key in odd], at_once=DELETES_AT_ONCE) if failure
        ]
        plain = [key for key in keys if _fits_xml(key)]
        return [*failures, *(await self._delete_plain(plain) if plain else ())]

    async def _delete_one(self, key: Key) -> Failure | None:
        try:
            await self.delete(key)
        except StoreError as error:
            return Failure(key, error)
        return None

    async def _delete_plain(self, keys: Sequence[Key]) -> Sequence[Failure]:
        listed = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = await self._client("delete_objects", self._asked(mutates=True), Bucket=self._bucket, Delete=listed)
        return [self._undeleted(entry) for entry in answer.get("Errors", ()) if entry.get("Code") != "NoSuchKey"]

    def _undeleted(self, entry: dict[str, str]) -> Failure:
        refusal = Refusal(200, entry.get("Code", ""), entry.get("Message", ""))
        return Failure(Key(entry["Key"]), error_of(refusal, self._asked(entry["Key"])))

    async def copy(self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None) -> ObjectInfo:
        self._require(target)
        answer = await self._head(source)
        info = info_of(source, _headers(answer))
        if if_match is not None and info.etag != if_match:
            raise changed(source)
        return await self._copy(info, target, commit)

    async def _copy(self, source: ObjectInfo, target: Key, commit: Commit | None, **more: Any) -> ObjectInfo:
        if source.size > COPY_BYTES:
            return await self._uploading.copy(source, target, commit or _commit_of(source))
        described = {"MetadataDirective": "REPLACE", **self._described(commit), **self._conditions(commit), **more} if commit else {}
        answer = await self._mutate("copy_object", target, commit, **self._source(source), **described)
        result = answer["CopyObjectResult"]
        info = replace(source, key=target, etag=etag_in(result["ETag"]), mtime_ns=iso_time(result["LastModified"]))
        info = replace(info, version_id=version_of(_headers(answer)))
        if commit is None:
            return info
        return replace(info, metadata=with_commit_id(commit), content_type=commit.content_type, storage_class=commit.storage_class)

    def _source(self, source: ObjectInfo) -> dict[str, Any]:
        return {"CopySource": {"Bucket": self._bucket, "Key": source.key}, "CopySourceIfMatch": etag_out(source.etag)}

    async def _mutate(self, operation: str, key: Key, commit: Commit | None, **parameters: Any) -> Answer:
        """A write of *key* under the commit's condition. An absent key is not the version that `Matches` expects."""
        condition = commit.condition if commit else None
        try:
            return await self._client(
                operation, self._asked(key, mutates=True, absent=isinstance(condition, Absent)), Bucket=self._bucket, Key=key, **parameters
            )
        except NotFound:
            if isinstance(condition, Matches):
                raise changed(key) from None
            raise
        except Unsupported as error:
            if condition is not None and self._conditional:
                raise Unsupported(f"{str(error).rstrip('.')}: where it is conditions that it lacks, use --last-writer-wins.") from error
            raise

    # -- names ------------------------------------------------------------------------

    async def rename(self, source: Key, target: Key, *, replace: bool = True) -> None:
        raise _unsupported("rename")

    async def rename_prefix(self, source: str, target: str, *, replace: bool = True) -> int:
        raise _unsupported("rename prefixes")

    async def exchange(self, a: str, b: str) -> None:
        raise _unsupported("exchange names")

    async def link(self, source: Key, target: Key) -> ObjectInfo:
        raise _unsupported("link")

    async def reserve(self, key: Key) -> None:
        raise _unsupported("reserve names")

    async def release(self, key: Key) -> None:
        raise _unsupported("reserve names")

    # -- multipart --------------------------------------------------------------------

    async def create_upload(self, key: Key, commit: Commit = Commit()) -> Upload:  # noqa: B008 (frozen)
        self._require(key)
        described = self._described(commit)

        async def send(algorithm: Algorithm | None) -> Upload:
            answer = await self._mutate("create_multipart_upload", key, None, **described, **of_upload(algorithm))
            upload = Upload(key, answer["UploadId"], _said_at(answer))
            self._begun[upload.upload_id] = commit, algorithm
            return upload

        return await self._checksums.choose(send)

    async def put_part(self, upload: Upload, number: int, data: bytes | bytearray | memoryview) -> Part:
        _require_part(number)
        body = Body(data)
        _, algorithm = self._begun.get(upload.upload_id, (None, None))
        answer = await self._part("upload_part", upload, number, Body=body, **of_body(algorithm, body.view))
        return Part(number, len(body), etag_in(answer["ETag"]))

    async def copy_part(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        """A part from the bytes *span* of *source*, which do not pass through here. Raises PreconditionFailed, NoSuchUpload."""
        _require_part(number)
        wanted = f"bytes={span.start}-{span.stop - 1}"
        try:
            answer = await self._part("upload_part_copy", upload, number, **self._source(source), CopySourceRange=wanted)
        except NotFound:
            raise changed(source.key) from None
        return Part(number, span.length, etag_in(answer["CopyPartResult"]["ETag"]))

    async def _copy_part_patiently(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        return await self._patient.around(Op("put_part", upload.key), lambda: self.copy_part(upload, number, source=source, span=span))

    async def _part(self, operation: str, upload: Upload, number: int, **parameters: Any) -> Answer:
        asked = self._asked(upload.key, mutates=True)
        return await self._client(
            operation, asked, Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id, PartNumber=number, **parameters
        )

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        commit, algorithm = self._begun.get(upload.upload_id, (Commit(), None))
        listed = {"Parts": [{"PartNumber": part.number, "ETag": etag_out(part.etag)} for part in parts]}
        kind = {"ChecksumType": "FULL_OBJECT"} if algorithm else {}
        answer = await self._mutate(
            "complete_multipart_upload",
            upload.key,
            commit,
            UploadId=upload.upload_id,
            MultipartUpload=listed,
            **self._conditions(commit),
            **kind,
        )
        self._begun.pop(upload.upload_id, None)
        return _committed(upload.key, sum(part.size for part in parts), answer, commit)

    async def abort_upload(self, upload: Upload) -> None:
        asked = self._asked(upload.key, mutates=True)
        try:
            await self._client("abort_multipart_upload", asked, Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id)
        except NotFound:
            pass
        self._begun.pop(upload.upload_id, None)

    async def list_uploads(self) -> Sequence[Upload]:
        uploads: list[Upload] = []
        marker: dict[str, Any] = {}
        while True:
            answer = await self._client("list_multipart_uploads", self._asked(), Bucket=self._bucket, EncodingType="url", **marker)
            uploads += [
                Upload(Key(unquote_plus(entry["Key"])), entry["UploadId"], iso_time(entry["Initiated"]))
                for entry in answer.get("Uploads", ())
            ]
            if not answer.get("IsTruncated"):
                return uploads
            marker = {"KeyMarker": unquote_plus(answer["NextKeyMarker"]), "UploadIdMarker": answer["NextUploadIdMarker"]}

    # -- the medium -------------------------------------------------------------------

    async def sync(self, key: Key | None = None) -> None:
        """Nothing to do: S3 answers when the object is durable."""
        await trio.lowlevel.checkpoint()

    async def space(self) -> Space:
        await trio.lowlevel.checkpoint()
        return Space(CAPACITY, CAPACITY)

    async def aclose(self) -> None:
        await self._client.aclose()

    # -- requests ---------------------------------------------------------------------

    def _require(self, key: str) -> None:
        require_key(key, KEY_BYTES)

    def _asked(self, key: str = "", *, mutates: bool = False, absent: bool = False) -> Asked:
        return Asked(bucket=self._bucket, key=key, mutates=mutates, absent=absent)

    def _described(self, commit: Commit) -> dict[str, Any]:
        storage_class = commit.storage_class if commit.storage_class != "STANDARD" else None
        metadata = sent_metadata(with_commit_id(commit))
        return {"Metadata": metadata, "ContentType": commit.content_type, **_given(StorageClass=storage_class)}

    def _conditions(self, commit: Commit) -> dict[str, Any]:
        match commit.condition:
            case Absent() if self._conditional:
                return {"IfNoneMatch": "*"}
            case Matches(etag) if self._conditional:
                return {"IfMatch": etag_out(etag)}
        return {}


class S3Pin:
    """A version, by its ETag. It stays readable as long as it is the current one, or the bucket keeps it."""

    def __init__(self, store: S3Store, info: ObjectInfo) -> None:
        self._store = store
        self._info = info

    @property
    def info(self) -> ObjectInfo:
        return self._info

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        return not buffer.nbytes

    async def get_into(self, offset: int, buffer: memoryview) -> None:
        if not buffer.nbytes:
            return
        span = ByteRange(offset, offset + buffer.nbytes)
        try:
            await self._store.get_into(self._info.key, span, buffer, if_match=self._info.etag)
        except (PreconditionFailed, NotFound):
            if self._info.version_id is None:
                raise
            await self._store.read_version(self._info.key, span, buffer, if_match=self._info.etag, version_id=self._info.version_id)

    async def aclose(self) -> None:
        """Nothing is held."""


# -- answers ------------------------------------------------------------------------------


def _headers(answer: Answer) -> dict[str, str]:
    headers: dict[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
    return headers


def _given(**parameters: Any) -> dict[str, Any]:
    """Those that say something; an ETag gets its quotes."""
    return {name: etag_out(value) if name == "IfMatch" else value for name, value in parameters.items() if value}


def _listed(entry: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        key=Key(entry["Key"]),
        size=int(entry["Size"]),
        etag=etag_in(entry["ETag"]),
        mtime_ns=iso_time(entry["LastModified"]),
        storage_class=entry.get("StorageClass") or "STANDARD",
        metadata=None,
    )


def _committed(key: Key, size: int, answer: Answer, commit: Commit) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=size,
        etag=etag_in(answer["ETag"]),
        mtime_ns=_said_at(answer),
        content_type=commit.content_type,
        storage_class=commit.storage_class,
        metadata=with_commit_id(commit),
        version_id=version_of(_headers(answer)),
    )


def _said_at(answer: Answer) -> int:
    """When the service answered: a commit's time to a second or two, which no answer to a write says."""
    date = _headers(answer).get("date")
    return http_time(date) if date else time.time_ns() // NS * NS


def _require_span(key: Key, span: ByteRange, headers: Headers) -> None:
    """Raise ValueError where *span* reaches behind the object's end, Unavailable where something else was sent than was asked for."""
    size = info_of(key, headers).size
    if span.stop > size:
        raise ValueError(f"bytes {span.start}-{span.stop} do not lie in an object of {size} bytes")
    start, stop, _ = content_range(headers["content-range"]) if "content-range" in headers else (0, size, size)
    if (start, stop) != (span.start, span.stop):
        raise Unavailable(f"The store sends bytes {start}-{stop} of {key!r} where {span.start}-{span.stop} were asked for.")


def _require_part(number: int) -> None:
    if not 1 <= number <= PARTS:
        raise ValueError(f"part numbers run from 1 to {PARTS}, not {number}")


def _commit_of(source: ObjectInfo) -> Commit:
    return Commit(metadata=source.metadata or {}, content_type=source.content_type, storage_class=source.storage_class)


def _commit_id(metadata: Metadata) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if name == COMMIT_ID}


def _fits_xml(key: str) -> bool:
    """Whether XML 1.0 can carry *key* and every parser gives it back unchanged."""
    return all(char >= " " and char not in "\x7f\ufffe\uffff" for char in key)


def _unsupported(what: str) -> Unsupported:
    return Unsupported(f"An S3 service cannot {what}.")

"""S3Store: one bucket of an S3 service, as an object store on trio.

Owns: which request each verb of the protocol is, and what its answer means.
Must not know: how requests are repeated or limited from outside (Retrying, Limited), who asks.

S1  Every write carries its conditions to the service (If-Match, If-None-Match), which judges them against all its clients; with
    `last_writer_wins` none is sent and none is promised.
S2  What takes several requests (`adopt`, `find`, large copies) repeats each of them by itself, by the same policy as Retrying, and what it
    raises then is not repeated once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from s3mount.errors import NotFound, PreconditionFailed, StoreError, TooLarge, Unsupported
from s3mount.model import (
    OBJECT_BYTES,
    ByteRange,
    Changed,
    Condition,
    Content,
    ETag,
    Found,
    GiB,
    Key,
    Metadata,
    ObjectInfo,
    Page,
    Part,
    Space,
    TiB,
    Upload,
    VersionPlace,
    Versions,
)
from s3mount.store import aspects
from s3mount.store.api import COMMIT_ID, PAGE_KEYS, Arrived, Capabilities, Commit, Failure, Relocation
from s3mount.store.aspects import commit_again, require_value, told_by
from s3mount.store.rules import DELETE_KEYS, changed, require_key
from s3mount.store.s3 import describing, history
from s3mount.store.s3.answers import Refusal, error_of
from s3mount.store.s3.begun import Ledger
from s3mount.store.s3.body import Body
from s3mount.store.s3.checksums import Algorithm, Checksums, of_body
from s3mount.store.s3.client import Answer, Client, open_client
from s3mount.store.s3.completing import Completing
from s3mount.store.s3.copying import Copying
from s3mount.store.s3.headers import CONTENT_HEADERS, info_of
from s3mount.store.s3.inheriting import Inheriting
from s3mount.store.s3.lacks import Lack, Lacks
from s3mount.store.s3.lean.lane import Lane
from s3mount.store.s3.made import Made
from s3mount.store.s3.multipart import Multipart
from s3mount.store.s3.options import S3Options
from s3mount.store.s3.reading import KEY_BYTES, Reading, S3Pin, VersionPin, find
from s3mount.store.s3.replies import commit_id_of, commit_of, committed, copied, fits_xml, given
from s3mount.store.s3.requests import Requests, unusual
from s3mount.store.s3.settled import Settled
from s3mount.store.s3.together import together
from s3mount.store.s3.uploading import Uploading
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.retrying import Policy, Retrying

# S3 copies at most this much in one request.
COPY_BYTES = 5 * GiB
# What statfs shows: a bucket has no size, and some programs refuse to write where little seems to be free.
CAPACITY = 8192 * TiB
# Single deletes at once, for keys that an XML document cannot name.
DELETES_AT_ONCE = 16


def capabilities(options: S3Options) -> Capabilities:
    """What a bucket without versions can."""
    return Capabilities(conditional_put=not options.last_writer_wins, part_copy=True, early_parts=True)


async def open_s3(options: S3Options, bucket: str, *, policy: Policy = Policy(), begun: Path | None = None) -> S3Store:  # noqa: B008 (frozen)
    """The store of *bucket*, its lane included. Sends nothing to the service. Raises UsageError, AccessDenied."""
    client = await open_client(options)
    lane = Lane(client.client, bucket, client.credentials, options, extras=client.going_with("get_object"), ca_bundle=client.ca_bundle)
    return S3Store(client, bucket, lane=lane, policy=policy, begun=begun)


class S3Store:
    """*bucket* by way of `client`, which belongs to the store from here on.

    *policy*: how patiently parts of an upload are repeated. *begun*: the folder where uploads under way are written down (None: nowhere).
    """

    staging: Path | None = None

    def __init__(
        self,
        client: Client,
        bucket: str,
        *,
        lane: Lane | None = None,
        policy: Policy = Policy(),  # noqa: B008 (frozen)
        begun: Path | None = None,
    ) -> None:
        self.client = client
        self._requests = Requests(client, bucket, lane)
        self._reading = Reading(client, bucket, lane)
        self.bucket = bucket
        self.capabilities = capabilities(client.options)
        self._checksums = Checksums()
        self._made = Made()
        self._inheriting = Inheriting(self._reading.head, partial(describing.tags, client, bucket), self._made)
        self._keeping: set[str] = set()
        self._lacks = Lacks()
        settled = Settled(self._reading.head, self._lacks, endpoint=client.endpoint)
        completing = Completing(self._requests, self._reading.head, self._lacks, endpoint=client.endpoint)
        self._multipart = Multipart(self._requests, self._checksums, Ledger(begun), settled=settled, completing=completing)
        self._copying = Copying(self._requests, self._reading, self._lacks, endpoint=client.endpoint)
        self._patient = Retrying(self, policy)
        self._uploading = Uploading(self._patient, self._copy_part_patiently)

    def __repr__(self) -> str:
        return f"<S3Store {self.bucket!r} at {self.client.endpoint}>"

    def statistics(self) -> dict[str, object]:
        return {"lacks": self._lacks.told()}

    def let_go(self) -> int:
        """Called now and then: forget how listings that nobody goes on with go on, and close connections that have long been idle.

        That is little, but lies between much that others forget. Returns 0 bytes.
        """
        self._reading.let_go()
        return 0

    async def prepare(self) -> None:
        """Do beforehand what the first request would otherwise wait for: its address, its signature, its connection. Never fails."""
        await self._reading.prepare()

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        return info_of(key, await self._reading.head(key))

    async def find(self, name: str) -> Found:
        return await find(self._patient, name)

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        return await self._reading.list(prefix, delimiter=delimiter, after=after, limit=limit)

    async def aspect(self, key: Key, name: str) -> str | None:
        if name in describing.ASKED_FOR:
            return await describing.told(self.client, self.bucket, key, name)
        return told_by(await self.head(key), name)

    async def version_aspect(self, key: Key, version_id: str, name: str) -> str | None:
        if name in describing.ASKED_FOR:
            return await describing.told(self.client, self.bucket, key, name, version_id=version_id)
        return told_by(await self.head_version(key, version_id), name)

    async def list_versions(self, prefix: str = "", *, after: VersionPlace | None = None) -> Versions:
        return await history.versions(self.client, self.bucket, prefix, after=after)

    async def head_version(self, key: Key, version_id: str) -> ObjectInfo:
        return await history.head_version(self.client, self.bucket, key, version_id)

    # -- reading ----------------------------------------------------------------------

    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo:
        return await self._reading.read(key, span, buffer, if_match=if_match, arrived=arrived)

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> S3Pin:
        return await self._reading.pin(key, if_match=if_match, known=known)

    async def pin_version(self, info: ObjectInfo) -> S3Pin:
        return VersionPin(self._reading, info)

    # -- committing -------------------------------------------------------------------

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        require_key(key, KEY_BYTES)
        body = Body(data)
        if len(body) > COPY_BYTES:
            raise TooLarge(f"{key!r} has {len(body)} bytes; one request takes {COPY_BYTES}.")
        kept = await self._inheriting.of(key, commit)
        described, conditions = self._requests.described(commit) | kept, self._requests.conditions(commit)

        async def send(algorithm: Algorithm | None) -> Answer:
            checksum = of_body(algorithm, body.view)
            return await self._requests.mutate("put_object", key, commit, Body=Body(data), **described, **conditions, **checksum)

        answer = await self._checksums.choose(send)
        return self._noted(committed(key, len(body), answer, commit), keeps=bool(kept))

    def _noted(self, info: ObjectInfo, *, keeps: bool) -> ObjectInfo:
        """*info* was made here; *keeps*: with tags or headers of a former version."""
        if not keeps:
            return self._made.note(info)
        self._made.forget(info.key)
        return info

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        require_key(key, KEY_BYTES)
        if content.size > OBJECT_BYTES:
            raise TooLarge(f"{key!r} would have {content.size} bytes; S3 takes {OBJECT_BYTES}.")
        return await self._uploading.adopt(key, content, commit)

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        while True:
            info, more = await self._seen(key, if_match)
            kept = metadata if COMMIT_ID in metadata else {**metadata, **commit_id_of(info.metadata)}
            commit = Commit(metadata=kept, content_type=info.content_type, storage_class=info.storage_class)
            try:
                return await self._copy(info, key, commit, more)
            except PreconditionFailed:
                if if_match is not None:
                    raise

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        require_value(name, value)
        info, more = await self._seen(key, if_match)
        try:
            if name != aspects.TAGS:
                return await self._copy(info, key, commit_again(info, name, value), more)
            self._made.forget(key)
            await describing.set_tags(self.client, self.bucket, key, value)
        except StoreError as error:
            if type(error) is StoreError:
                raise describing.refused(name, value, error) from error
            raise
        return info

    async def _seen(self, key: Key, etag: ETag | None) -> tuple[ObjectInfo, dict[str, str]]:
        """The version *etag* (None: the current one) and its content headers, by botocore's names. Raises PreconditionFailed."""
        if (made := self._made.known(key, etag)) is not None:
            return made, {}
        headers = await self._reading.head(key)
        info = info_of(key, headers)
        if etag is not None and info.etag != etag:
            raise changed(key)
        return info, {parameter: headers[name] for name, parameter in CONTENT_HEADERS.items() if name in headers}

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        require_key(key, KEY_BYTES)
        self._made.forget(key)
        condition = given(IfMatch=if_match) if self._requests.conditional else {}
        try:
            await self._requests.change("delete_object", self._requests.asked(key, mutates=True), Bucket=self.bucket, Key=key, **condition)
        except NotFound:
            pass

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        if len(keys) > DELETE_KEYS:
            raise ValueError(f"{len(keys)} keys at once; {DELETE_KEYS} is the limit")
        for key in keys:
            self._made.forget(key)
        many = [] if Lack.MANY_DELETES in self._lacks else [key for key in keys if fits_xml(key)]
        failures = list(await self._delete_together(many)) if many else []
        single = set(keys) if Lack.MANY_DELETES in self._lacks else set(keys) - set(many)
        return failures + [failure for failure in await self._delete_singly(sorted(single)) if failure]

    async def _delete_together(self, keys: Sequence[Key]) -> Sequence[Failure]:
        listed = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        try:
            answer = await self.client("delete_objects", self._requests.asked(mutates=True), Bucket=self.bucket, Delete=listed)
        except StoreError as error:
            if not (type(error) is StoreError or isinstance(error, Unsupported)):
                raise
            # Some services have no such request, or want an MD5 with it that others refuse.
            self._lacks.learn(Lack.MANY_DELETES, error)
            return []
        return [self._undeleted(entry) for entry in answer.get("Errors", ()) if entry.get("Code") != "NoSuchKey"]

    async def _delete_singly(self, keys: Sequence[Key]) -> Sequence[Failure | None]:
        return await together([partial(self._delete_one, key) for key in keys], at_once=DELETES_AT_ONCE)

    async def _delete_one(self, key: Key) -> Failure | None:
        try:
            await self.delete(key)
        except StoreError as error:
            return Failure(key, error)
        return None

    def _undeleted(self, entry: dict[str, str]) -> Failure:
        refusal = Refusal(200, entry.get("Code", ""), entry.get("Message", ""))
        return Failure(Key(entry["Key"]), error_of(refusal, self._requests.asked(entry["Key"])))

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        require_key(target, KEY_BYTES)
        info, more = await self._seen(source, if_match)
        return await self._copy(info, target, commit, more, condition=condition)

    async def _copy(
        self, source: ObjectInfo, target: Key, commit: Commit | None, more: dict[str, str], *, condition: Condition = None
    ) -> ObjectInfo:
        """Have *source* copied; with *commit*, its metadata and type and the content headers *more* replace the source's."""
        aim = commit or replace(commit_of(source), condition=condition)
        if source.size > COPY_BYTES:
            return await self._uploading.copy(source, target, aim)
        self._made.forget(target)
        conditions = await self._copying.conditions(source, target, aim.condition)
        asked = {"MetadataDirective": "REPLACE", **more} if commit else {}
        described = self._requests.described(commit) if commit else given(StorageClass=unusual(source.storage_class))
        answer = await self._requests.mutate(
            "copy_object", target, aim, **self._requests.source(source), **conditions, **asked, **described
        )
        if "ETag" not in answer.get("CopyObjectResult", {}):
            return await self._seen_as_copied(source, target)
        info = copied(source, target, answer, commit)
        return info if more else self._made.note(info)

    async def _seen_as_copied(self, source: ObjectInfo, target: Key) -> ObjectInfo:
        """What is at *target* where the service does not say what it has made. Raises Unsupported where that is no copy."""
        info = await self.head(target)
        if info.size != source.size:
            raise Unsupported(f"The store was to copy {source.key!r} to {target!r}, and made something of {info.size} bytes there.")
        return info

    # -- names ------------------------------------------------------------------------

    async def rename(self, source: Key, target: Key, *, replace: bool = True) -> None:
        raise _unsupported("rename")

    async def rename_prefix(self, source: str, target: str, *, replace: bool = True) -> int:
        raise _unsupported("rename prefixes")

    async def relocate(self, moves: Sequence[Relocation]) -> Sequence[ObjectInfo]:
        raise _unsupported("move several keys at once")

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
        kept = await self._inheriting.of(key, commit)
        upload = await self._multipart.create(key, commit, kept)
        if kept:
            self._keeping.add(upload.upload_id)
        return upload

    async def put_part(self, upload: Upload, number: int, data: bytes | bytearray | memoryview) -> Part:
        return await self._multipart.put_part(upload, number, data)

    async def copy_part(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        try:
            return await self._multipart.copy_part(upload, number, source=source, span=span)
        except Unsupported as error:
            self._lacks.learn(Lack.PART_COPY, error)
            self.capabilities = replace(self.capabilities, part_copy=False)
            raise
        except StoreError as error:
            if type(error) is StoreError:  # a refusal of this copy, for a reason that only the service knows
                raise Unsupported(str(error)) from error
            raise

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        info = await self._multipart.complete(upload, parts)
        return self._noted(info, keeps=self._keeps_no_more(upload))

    async def abort_upload(self, upload: Upload) -> None:
        await self._multipart.abort(upload)
        self._keeps_no_more(upload)

    def _keeps_no_more(self, upload: Upload) -> bool:
        """Whether *upload*, which is over, was to keep something of a former version."""
        kept = upload.upload_id in self._keeping
        self._keeping.discard(upload.upload_id)
        return kept

    async def list_uploads(self) -> Sequence[Upload]:
        return await self._multipart.under_way()

    async def _copy_part_patiently(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        copy = partial(self.copy_part, upload, number, source=source, span=span)
        return await self._patient.around(Op("put_part", upload.key), copy)

    async def sweep(self) -> int:
        """Abort the uploads that dead processes of this machine left in the bucket; how many. Raises nothing of the store's."""
        return await self._multipart.sweep()

    # -- others -----------------------------------------------------------------------

    async def changed(self) -> Changed:
        raise Unsupported("S3 does not tell what others do.")

    # -- the medium -------------------------------------------------------------------

    async def sync(self, key: Key | None = None) -> None:
        """Nothing to do: S3 answers when the object is durable."""
        await trio.lowlevel.checkpoint()

    async def space(self) -> Space:
        await trio.lowlevel.checkpoint()
        return Space(CAPACITY, CAPACITY)

    async def aclose(self) -> None:
        await self._multipart.end()
        self._multipart.close()
        await self._reading.aclose()
        await self.client.aclose()


def _unsupported(what: str) -> Unsupported:
    return Unsupported(f"An S3 service cannot {what}.")

"""Multipart uploads, request by request.

Owns: the uploads that this process has begun (what each is to become, its checksums, where it is written down), from first to last.
Must not know: how a content is cut into parts, when an upload is worth it.

    create --> [ under way ] --complete--> object          M1  each one under way is written down (begun.py)
                    `--------- abort ----> nothing         M2  a creation whose answer was lost is looked for at once (leftover.py)

Conditions are kept here, in this process: an upload that another one began is completed without any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from s3mount.errors import InvalidPart, NoSuchUpload, NotFound, OutcomeUnknown, S3MountError, TimedOut, Unsupported
from s3mount.model import ByteRange, Key, ObjectInfo, Part, Upload
from s3mount.store.api import Commit
from s3mount.store.rules import changed, require_key
from s3mount.store.s3.answers import Conflict
from s3mount.store.s3.begun import Begun, Ledger
from s3mount.store.s3.body import Body
from s3mount.store.s3.checksums import Algorithm, Checksums, of_body, of_upload
from s3mount.store.s3.client import Answer
from s3mount.store.s3.completing import Completing
from s3mount.store.s3.headers import etag_out
from s3mount.store.s3.leftover import Leftover
from s3mount.store.s3.reading import KEY_BYTES
from s3mount.store.s3.replies import committed, etag_of, headers_of, require_part, said_at, uploads_of
from s3mount.store.s3.requests import Requests
from s3mount.store.s3.settled import Settled, is_ours


@dataclass(frozen=True, slots=True)
class _Under:
    """An upload under way."""

    commit: Commit = Commit()  # noqa: RUF009 (frozen)
    algorithm: Algorithm | None = None
    begun: Begun | None = None
    ours: bool = False


class Multipart:
    """Uploads of one bucket; *ledger* has them written down."""

    def __init__(self, requests: Requests, checksums: Checksums, ledger: Ledger, *, settled: Settled, completing: Completing) -> None:
        self._requests = requests
        self._settled = settled
        self._completing = completing
        self._checksums = checksums
        self._ledger = ledger
        self._leftover = Leftover(requests.client, requests.bucket, ledger)
        self._begun: dict[str, _Under] = {}

    def __repr__(self) -> str:
        return f"<Multipart {len(self._begun)} under way>"

    async def create(self, key: Key, commit: Commit, kept: Mapping[str, Any]) -> Upload:
        """As `ObjectStore.create_upload`; *kept* goes with it, by botocore's names."""
        require_key(key, KEY_BYTES)
        described, begun = {**self._requests.described(commit), **kept}, self._ledger.begin(key)

        async def send(algorithm: Algorithm | None) -> tuple[Answer, Algorithm | None]:
            answer = await self._requests.mutate("create_multipart_upload", key, None, **described, **of_upload(algorithm))
            return answer, algorithm

        try:
            answer, algorithm = await self._checksums.choose(send)
        except (OutcomeUnknown, TimedOut):
            await self._leftover.lost(begun)
            raise
        except S3MountError:
            begun.done()
            raise
        except BaseException:
            begun.leave()
            raise
        upload = Upload(key, answer["UploadId"], said_at(answer))
        self._begun[upload.upload_id] = _Under(commit, algorithm, begun, is_ours(answer))
        with trio.CancelScope(shield=True):  # who is told of it aborts it
            await trio.to_thread.run_sync(begun.named, upload.upload_id)
        return upload

    async def put_part(self, upload: Upload, number: int, data: bytes | bytearray | memoryview) -> Part:
        """As `ObjectStore.put_part`."""
        require_part(number)
        body = Body(data)
        algorithm = self._under(upload).algorithm
        answer = await self._part("upload_part", upload, number, Body=body, **of_body(algorithm, body.view))
        return Part(number, len(body), etag_of(answer))

    async def copy_part(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        """A part from the bytes *span* of *source*, which do not pass through here. Raises PreconditionFailed, NoSuchUpload, Unsupported.

        A service that has no such request takes it for one with a part without bytes, and says that it has that.
        """
        require_part(number)
        wanted = f"bytes={span.start}-{span.stop - 1}"
        try:
            answer = await self._part("upload_part_copy", upload, number, **self._requests.source(source), CopySourceRange=wanted)
        except NotFound:
            raise changed(source.key) from None
        result = answer.get("CopyPartResult") or {}
        if not result and "etag" in headers_of(answer):
            raise Unsupported("The store took a copy of a part for a part without bytes.")
        return Part(number, span.length, etag_of(result))

    async def _part(self, operation: str, upload: Upload, number: int, **parameters: Any) -> Answer:
        asked = self._requests.asked(upload.key, mutates=True)
        which = {"Bucket": self._requests.bucket, "Key": upload.key, "UploadId": upload.upload_id, "PartNumber": number}
        return await self._requests.change(operation, asked, **which, **parameters)

    async def complete(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        """As `ObjectStore.complete_upload`."""
        if not parts:
            raise InvalidPart(f"An upload of {upload.key!r} has at least one part.")
        under = self._under(upload)
        listed = {"Parts": [{"PartNumber": part.number, "ETag": etag_out(part.etag)} for part in parts]}
        kind = {"ChecksumType": "FULL_OBJECT"} if under.algorithm else {}
        which = {"UploadId": upload.upload_id, "MultipartUpload": listed}
        ask = partial(self._requests.mutate, "complete_multipart_upload", upload.key, under.commit, **which)
        try:
            answer = await ask(**await self._completing.conditions(upload.key, under.commit.condition, ours=under.ours), **kind)
        except Conflict as error:
            # S3 has it that an upload which met another writer at its completion cannot be completed any more.
            raise NoSuchUpload(f"The upload of {upload.key!r} met another writer, and is over.") from error
        self._over(upload)
        return await self._settled.of(committed(upload.key, sum(part.size for part in parts), answer, under.commit), answer)

    async def abort(self, upload: Upload) -> None:
        """As `ObjectStore.abort_upload`."""
        asked = self._requests.asked(upload.key, mutates=True)
        which = {"Bucket": self._requests.bucket, "Key": upload.key, "UploadId": upload.upload_id}
        try:
            await self._requests.client("abort_multipart_upload", asked, **which)
        except NoSuchUpload:
            pass
        self._over(upload)

    async def under_way(self) -> Sequence[Upload]:
        """As `ObjectStore.list_uploads`."""
        uploads: list[Upload] = []
        marker: dict[str, Any] = {}
        while True:
            which = {"Bucket": self._requests.bucket, "EncodingType": "url", **marker}
            page, marker = uploads_of(await self._requests.client("list_multipart_uploads", self._requests.asked(), **which))
            uploads += page
            if not marker:
                return uploads

    async def sweep(self) -> int:
        """As `Leftover.sweep`."""
        return await self._leftover.sweep()

    async def end(self) -> None:
        """As `Leftover.end`."""
        await self._leftover.end()

    def close(self) -> None:
        """Leave what is under way to the next mount. Idempotent."""
        for under in self._begun.values():
            if under.begun is not None:
                under.begun.leave()

    def _under(self, upload: Upload) -> _Under:
        """What is known of an upload: nothing, if another process began it."""
        return self._begun.get(upload.upload_id) or _Under()

    def _over(self, upload: Upload) -> None:
        if begun := self._begun.pop(upload.upload_id, _Under()).begun:
            begun.done()

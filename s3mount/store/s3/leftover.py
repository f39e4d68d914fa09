"""Uploads that nobody will complete: of processes that died, and of requests whose answer was lost.

Owns: which uploads are ours to abort, and aborting them.
Must not know: what they were for.

L1  An upload whose id was written down by a process that is no more is ours: it is aborted.
L2  One that was asked for, and whose id nobody told, is looked for among the uploads of its key: ours is the only one that was begun when
    we asked, that no process of this machine knows, and that has no part (ours cannot get any). Where two look like that, neither is
    touched.
L3  What cannot be settled now (no answer) stays written down, for the next mount.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial

import trio

from s3mount.errors import NoSuchUpload, S3MountError
from s3mount.model import Key, Upload
from s3mount.store.s3.answers import Asked
from s3mount.store.s3.begun import Begun, Ledger
from s3mount.store.s3.client import Client
from s3mount.store.s3.headers import NS
from s3mount.store.s3.replies import said_at, uploads_of
from s3mount.store.s3.together import together

# The service begins an upload when the request arrives. Its clock, read off its answers, is told in whole seconds.
BEFORE_NS, AFTER_NS = 2 * NS, 5 * NS
# Aborts at once.
AT_ONCE = 8
# What settling a lost answer may take: who waits for the error waits for this too.
LOST_S = 5.0
# What the sweep may hold up a mount; the next one goes on.
SWEEP_S = 20.0

logger = logging.getLogger(__name__)


class Leftover:
    """The uploads of *bucket*, written down in *ledger*."""

    def __init__(self, client: Client, bucket: str, ledger: Ledger) -> None:
        self._client = client
        self._bucket = bucket
        self._ledger = ledger

    async def sweep(self) -> int:
        """Abort what dead processes have left; how many. Sends nothing where nothing was left. Raises nothing of the store's."""
        left = list(self._ledger.left_over())
        counts: list[int] = []
        with trio.move_on_after(SWEEP_S) as scope:
            counts = await together([partial(self._settle, begun) for begun in left], at_once=AT_ONCE)
        if scope.cancelled_caught:
            for begun in left:
                begun.leave()
        if count := sum(counts):
            logger.info("Aborted %d uploads to %s that were never completed", count, self._bucket)
        return count

    async def lost(self, begun: Begun) -> None:
        """No answer told whether *begun* was begun: find out, and abort it. Not to be cancelled, at most LOST_S.

        Without a ledger nothing tells it from another upload of this process, so nothing is done.
        """
        if not self._ledger.kept:
            return
        with trio.move_on_after(LOST_S, shield=True):
            await self._settle(begun)

    async def _settle(self, begun: Begun) -> int:
        try:
            upload_id = begun.upload_id or await self._found(begun)
            if upload_id:
                await self._abort(begun.key, upload_id)
        except S3MountError as error:
            logger.warning("An upload of %r may have been left in the bucket, the next mount looks again: %s", begun.key, error)
            begun.leave()
            return 0
        except BaseException:
            begun.leave()
            raise
        begun.done()
        return 1 if upload_id else 0

    async def _abort(self, key: Key, upload_id: str) -> None:
        asked = Asked(bucket=self._bucket, key=key, mutates=True)
        try:
            await self._client("abort_multipart_upload", asked, Bucket=self._bucket, Key=key, UploadId=upload_id)
        except NoSuchUpload:
            pass

    async def _found(self, begun: Begun) -> str | None:
        """The id of what was begun without our hearing of it; None where it cannot be told from others, or never was."""
        uploads, ahead_ns = await self._of_key(begun.key)
        known = self._ledger.known()
        alike = [
            upload
            for upload in uploads
            if upload.upload_id not in known and -BEFORE_NS <= upload.started_ns - (begun.sent_ns + ahead_ns) <= AFTER_NS
        ]
        bare = [upload.upload_id for upload in alike if not await self._has_parts(upload)]
        return bare[0] if len(bare) == 1 else None

    async def _of_key(self, key: Key) -> tuple[Sequence[Upload], int]:
        """The uploads of *key*, and by how much the service's clock is ahead of ours. A page of 1000 holds those of any one key."""
        asked = Asked(bucket=self._bucket)
        answer = await self._client("list_multipart_uploads", asked, Bucket=self._bucket, Prefix=key, EncodingType="url")
        found, _ = uploads_of(answer)
        return [upload for upload in found if upload.key == key], said_at(answer) - time.time_ns()

    async def _has_parts(self, upload: Upload) -> bool:
        asked = Asked(bucket=self._bucket, key=upload.key)
        try:
            answer = await self._client("list_parts", asked, Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id, MaxParts=1)
        except NoSuchUpload:
            return True
        return bool(answer.get("Parts"))

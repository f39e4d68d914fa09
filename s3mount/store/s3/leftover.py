"""Uploads that nobody will complete: of processes that died, and of requests whose answer was lost.

Owns: which uploads are ours to abort, and aborting them.
Must not know: what they were for.

L1  An upload whose id was written down by a process that is no more is ours: it is aborted.
L2  One that was asked for, and whose id nobody told, is looked for among the uploads of its key: those that were begun when we asked, that
    no process of this machine knows, and that have no part (ours cannot get any). Where more look like that than we have asked for in vain,
    none is touched.
L3  What cannot be settled now (no answer, or another process of this machine is just asking for one of the same key) stays written down:
    for the end of this mount, or for the next one.
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
        self._doubtful = False

    async def sweep(self) -> int:
        """Abort what dead processes have left; how many. Sends nothing where nothing was left. Raises nothing of the store's."""
        left: dict[tuple[Key, str | None], list[Begun]] = {}
        for begun in self._ledger.left_over():
            left.setdefault((begun.key, begun.upload_id), []).append(begun)
        counts: list[int] = []
        with trio.move_on_after(SWEEP_S) as scope:
            counts = await together([partial(self._settle, alike) for alike in left.values()], at_once=AT_ONCE)
        if scope.cancelled_caught:
            for alike in left.values():
                _leave(alike)
        if count := sum(counts):
            logger.info("Aborted %d uploads to %s that were never completed", count, self._bucket)
        return count

    async def lost(self, begun: Begun) -> None:
        """No answer told whether *begun* was begun: find out, and abort it. Not to be cancelled, at most LOST_S.

        Without a ledger nothing tells it from another upload of this process, so nothing is done.
        """
        if not self._ledger.kept:
            return
        self._doubtful = True
        with trio.move_on_after(LOST_S, shield=True):
            await self._settle([begun, *self._ledger.left_over(begun.key)])

    async def end(self) -> None:
        """Look once more for what could not be settled when it was lost, for at most LOST_S. As `sweep`, but not to be cancelled."""
        if self._doubtful:
            self._doubtful = False
            with trio.move_on_after(LOST_S, shield=True):
                await self.sweep()

    async def _settle(self, alike: Sequence[Begun]) -> int:
        """Abort what became of *alike*: all of one key, and of one id or none."""
        key, upload_id = alike[0].key, alike[0].upload_id
        try:
            ids = [upload_id] if upload_id else await self._found(key, alike)
            for one in ids or ():
                await self._abort(key, one)
        except S3MountError as error:
            logger.warning("An upload of %r may have been left in the bucket, the next mount looks again: %s", key, error)
            _leave(alike)
            return 0
        except BaseException:
            _leave(alike)
            raise
        if ids is None:
            _leave(alike)
            return 0
        for begun in alike:
            begun.done()
        return len(ids)

    async def _abort(self, key: Key, upload_id: str) -> None:
        asked = Asked(bucket=self._bucket, key=key, mutates=True)
        try:
            await self._client("abort_multipart_upload", asked, Bucket=self._bucket, Key=key, UploadId=upload_id)
        except NoSuchUpload:
            pass

    async def _found(self, key: Key, asked: Sequence[Begun]) -> Sequence[str] | None:
        """The ids of what became of *asked*: none where they cannot be told from others; None: look again later."""
        uploads, ahead_ns = await self._of_key(key)
        known, others = self._ledger.known(), self._ledger.nameless(key) - len(asked)
        times = [begun.sent_ns + ahead_ns for begun in asked]
        alike = [
            upload
            for upload in uploads
            if upload.upload_id not in known and any(-BEFORE_NS <= upload.started_ns - time_ns <= AFTER_NS for time_ns in times)
        ]
        bare = [upload.upload_id for upload in alike if not await self._has_parts(upload)]
        if bare and others > 0:
            return None
        return bare if len(bare) <= len(asked) else []

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


def _leave(alike: Sequence[Begun]) -> None:
    for begun in alike:
        begun.leave()

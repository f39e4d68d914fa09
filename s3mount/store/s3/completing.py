"""Conditions of completions: what a service is told when an upload becomes an object, and what takes its place where that is read over.

Owns: whether the service judges them, found out at the first one; the look at the object instead.
Must not know: how uploads are begun and sent, metadata.

Amazon's judges If-None-Match and If-Match of a completion; some services know these for puts only, and read over them. One that is not
known completes an upload of a name that nobody has, and must refuse to:

    If-Match of no version -- refused --> judged
           |-- taken --> once more, on what is there now (some judge only what exists) -- refused --> judged
           |                                                              `-- taken --> not judged, what was made is deleted
           `-- it has no such thing --> not judged

Where they are not judged, the object is looked at just before: somebody else may still come between the two. What cannot be found out is
taken as judged: the completion itself will tell.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from s3mount.errors import NotFound, PreconditionFailed, StoreError, Unsupported
from s3mount.model import Condition, Key, Matches
from s3mount.store.api import Commit
from s3mount.store.s3.body import Body
from s3mount.store.s3.client import Answer, Headers
from s3mount.store.s3.conditions import DELETE_S, NO_VERSION, is_known, probe_beside, require_met
from s3mount.store.s3.headers import etag_out
from s3mount.store.s3.lacks import Lack, Lacks
from s3mount.store.s3.replies import etag_of
from s3mount.store.s3.requests import Requests

logger = logging.getLogger(__name__)


class Completing:
    """Of one bucket; *head* asks about a key, *endpoint* is the service's URL."""

    def __init__(self, requests: Requests, head: Callable[[Key], Awaitable[Headers]], lacks: Lacks, *, endpoint: str) -> None:
        self._requests = requests
        self._head = head
        self._lacks = lacks
        self._judges = True if is_known(endpoint) else None
        self._asking = trio.Lock()

    def __repr__(self) -> str:
        return f"<Completing, conditions {'not known to be ' if self._judges is None else '' if self._judges else 'not '}judged>"

    async def conditions(self, key: Key, condition: Condition, *, ours: bool) -> dict[str, Any]:
        """The parameters by which *key* is completed only where it may be. Raises AlreadyExists, PreconditionFailed.

        *ours*: the service is our own server.
        """
        if condition is None or not self._requests.conditional:
            return {}
        if not ours and not await self._judged(key):
            await require_met(self._head, key, condition)
            return {}
        return self._requests.conditions(Commit(condition=condition))

    async def _judged(self, key: Key) -> bool:
        async with self._asking:
            if self._judges is None:
                self._judges = await self._found_out(probe_beside(key))
                if self._judges is False:
                    self._lacks.learn(Lack.COMPLETION_CONDITIONS)
        return self._judges is not False

    async def _found_out(self, probe: Key) -> bool | None:
        """Whether a completion that must be refused is; None where that cannot be found out now."""
        try:
            if await self._refused(probe):
                return True
            try:
                return await self._refused(probe)
            finally:
                await self._tidy("delete_object", probe)
        except Unsupported:
            return False
        except StoreError as error:
            logger.debug("Whether conditions of completions are judged could not be found out: %s", error)
            return None

    async def _refused(self, probe: Key) -> bool:
        upload = (await self._ask("create_multipart_upload", probe))["UploadId"]
        try:
            part = await self._ask("upload_part", probe, UploadId=upload, PartNumber=1, Body=Body(b"probe"))
            listed = {"Parts": [{"PartNumber": 1, "ETag": etag_out(etag_of(part))}]}
            condition = self._requests.conditions(Commit(condition=Matches(NO_VERSION)))
            await self._ask("complete_multipart_upload", probe, UploadId=upload, MultipartUpload=listed, **condition)
        except (PreconditionFailed, NotFound):
            await self._tidy("abort_multipart_upload", probe, UploadId=upload)
            return True
        except BaseException:  # cancelled, or what became of it is not known
            await self._tidy("abort_multipart_upload", probe, UploadId=upload)
            await self._tidy("delete_object", probe)
            raise
        return False

    async def _ask(self, operation: str, key: Key, **parameters: Any) -> Answer:
        return await self._requests.change(
            operation, self._requests.asked(key, mutates=True), Bucket=self._requests.bucket, Key=key, **parameters
        )

    async def _tidy(self, operation: str, probe: Key, **parameters: Any) -> None:
        with trio.move_on_after(DELETE_S, shield=True):
            try:
                await self._ask(operation, probe, **parameters)
            except StoreError as error:
                logger.debug("%s of %r: %s", operation, probe, error)

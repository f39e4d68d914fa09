"""Conditions of copies: what a service is told of the target, and what takes its place where that is read over.

Owns: whether the service judges them, found out at the first copy that has one; the look at the target instead.
Must not know: what is copied and why, metadata.

Amazon's judges If-None-Match and If-Match of a copy; many services know these for puts only, and read over them. One that is not known is
asked for a copy that must fail, to a name that nobody has:

    If-Match of no version -- refused --> judged            else (taken, or it has no such thing) --> not judged
                                                            what was made is deleted

Where they are not judged, the target is looked at just before it is copied to: somebody else may still come between the two.
What cannot be found out is taken as judged: the copy itself will tell.
"""

from __future__ import annotations

import logging
from typing import Any

import trio

from s3mount.errors import PreconditionFailed, StoreError, Unsupported
from s3mount.model import Condition, Key, Matches, MiB, ObjectInfo
from s3mount.store.api import Commit
from s3mount.store.s3.conditions import DELETE_S, NO_VERSION, is_known, probe_beside, require_met
from s3mount.store.s3.lacks import Lack, Lacks
from s3mount.store.s3.reading import Reading
from s3mount.store.s3.requests import Requests

# What is copied to find out, at most: a service that takes it takes its time.
PROBE_BYTES = 16 * MiB

logger = logging.getLogger(__name__)


class Copying:
    """Of one bucket; *endpoint*: the service's URL."""

    def __init__(self, requests: Requests, reading: Reading, lacks: Lacks, *, endpoint: str) -> None:
        self._requests = requests
        self._reading = reading
        self._lacks = lacks
        self._judges = True if is_known(endpoint) else None
        self._asking = trio.Lock()

    def __repr__(self) -> str:
        return f"<Copying, conditions {'not known to be ' if self._judges is None else '' if self._judges else 'not '}judged>"

    async def conditions(self, source: ObjectInfo, target: Key, condition: Condition) -> dict[str, Any]:
        """The parameters that let *source* be copied only where it may. Raises AlreadyExists, PreconditionFailed."""
        if condition is None or not self._requests.conditional:
            return {}
        if not await self._judged(source, target):
            await require_met(self._reading.head, target, condition)
            return {}
        return self._requests.conditions(Commit(condition=condition))

    async def _judged(self, source: ObjectInfo, target: Key) -> bool:
        async with self._asking:
            if self._judges is None and source.size > PROBE_BYTES:
                return False
            if self._judges is None:
                self._judges = await self._refused(source, probe_beside(target))
        return self._judges is not False

    async def _refused(self, source: ObjectInfo, probe: Key) -> bool | None:
        """Whether a copy to *probe* that must be refused is; None where that cannot be found out now."""
        commit = Commit(condition=Matches(NO_VERSION))
        named = {"CopySource": {"Bucket": self._requests.bucket, "Key": source.key}}
        try:
            await self._requests.mutate("copy_object", probe, commit, **named, **self._requests.conditions(commit))
        except PreconditionFailed:
            return True
        except Unsupported:
            return False
        except StoreError as error:
            logger.debug("Whether conditions of copies are judged could not be found out: %s", error)
            return None
        await self._forget(probe)
        self._lacks.learn(Lack.COPY_CONDITIONS)
        return False

    async def _forget(self, probe: Key) -> None:
        with trio.move_on_after(DELETE_S, shield=True):
            try:
                await self._requests.change(
                    "delete_object", self._requests.asked(probe, mutates=True), Bucket=self._requests.bucket, Key=probe
                )
            except StoreError as error:
                logger.warning("%r could not be deleted again: %s", probe, error)

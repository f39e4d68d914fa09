"""Retrying: transient failures are waited out, and a lost reply is looked into before anything is repeated.

Owns: when to wait, how long, when to give up, and what a doubtful mutation turns out to be.
Must not know: which store it is.

R1  Only Throttled, Unavailable, TimedOut and OutcomeUnknown are waited out. Everything else is the caller's at once.
R2  The delay before attempt n is uniform in [0, min(cap, base * 2^n)] (full jitter: callers that failed together do not return together).
R3  The budget runs from the first failure, not from the start: a long upload that goes well is not cut off, nor is a running request.
R4  After TimedOut or OutcomeUnknown a mutation is in doubt. One that leaves a proof (its commit id, its metadata) is looked for before each
    repetition; found, it is done. One that leaves none is repeated only if that does no harm, else the caller gets OutcomeUnknown.
R5  A refusal while in doubt (condition failed, upload over) may be the echo of the mutation's own success: look once more, then pass it on.
R6  A mutation given up while in doubt, or refused for another reason than R5's (rights were revoked meanwhile), raises OutcomeUnknown or
    TimedOut, never an error that promises that nothing happened (C2).
R7  What a store gave up that repeats by itself (the parts of an upload) is not begun again: such an error says `given_up`.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import trio

from s3mount.errors import (
    AlreadyExists,
    NoSuchUpload,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    StoreError,
    Throttled,
    TimedOut,
    Unavailable,
)
from s3mount.model import Condition, Content, ETag, Key, ObjectInfo, Part, Upload
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.wrap.base import Op, Wrapper, committed

T = TypeVar("T")

TRANSIENT = (Throttled, Unavailable, TimedOut, OutcomeUnknown)
DOUBTFUL = (TimedOut, OutcomeUnknown)
REFUSALS = (PreconditionFailed, AlreadyExists, NoSuchUpload, NotFound)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient to be; all in seconds. The defaults ride out a failover or a short network outage without hanging a user for minutes."""

    base: float = 0.1
    cap: float = 10.0
    budget: float = 60.0


@dataclass(slots=True)
class Attempts:
    """One operation's failures so far."""

    policy: Policy
    random: random.Random
    failed: int = 0
    deadline: float = field(default=0.0)

    def next_delay(self) -> float | None:
        """Seconds until the next attempt, or None when the budget does not allow one."""
        if not self.failed:
            self.deadline = trio.current_time() + self.policy.budget
        delay = self.random.uniform(0, min(self.policy.cap, self.policy.base * 2.0**self.failed))
        self.failed += 1
        return delay if trio.current_time() + delay < self.deadline else None


class Retrying(Wrapper):
    """*inner*, patiently. *rng* makes the jitter repeatable in tests."""

    def __init__(self, inner: ObjectStore, policy: Policy = Policy(), *, rng: random.Random | None = None) -> None:
        super().__init__(inner)
        self._policy = policy
        self._random = rng or random.Random()
        self._proofs: dict[str, Callable[[ObjectInfo], bool] | None] = {}

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        attempts = Attempts(self._policy, self._random)
        in_doubt = refused = False
        while True:
            try:
                if in_doubt and op.proof is not None and (found := await self._proven(op, op.proof)):
                    return cast(T, found)
                return await call()
            except TRANSIENT as error:
                if error.given_up:
                    raise
                in_doubt = in_doubt or (op.mutates and isinstance(error, DOUBTFUL))
                await self._wait_or_give_up(op, attempts, error, in_doubt=in_doubt)
            except REFUSALS:
                if not in_doubt or refused:
                    raise
                refused = True
            except StoreError as error:
                if not in_doubt:
                    raise
                raise _unknown(op) from error

    async def _proven(self, op: Op, proof: Callable[[ObjectInfo], bool]) -> ObjectInfo | None:
        try:
            info = await self.inner.head(Key(op.key))
        except NotFound:
            return None
        return info if proof(info) else None

    async def _wait_or_give_up(self, op: Op, attempts: Attempts, error: StoreError, *, in_doubt: bool) -> None:
        delay = attempts.next_delay()
        if delay is None or (in_doubt and op.once):
            error.given_up = True
            if in_doubt and not isinstance(error, DOUBTFUL):
                raise _unknown(op) from error
            raise error
        logger.debug("%s of %r: %s; next attempt in %.2f s", op.verb, op.key, error, delay)
        await trio.sleep(delay)

    # -- every commit gets an id, so that there is a proof --------------------------------

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        return await super().put(key, data, identified(commit))

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        return await super().adopt(key, content, identified(commit))

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        return await super().copy(source, target, if_match=if_match, commit=commit and identified(commit), condition=condition)

    async def create_upload(self, key: Key, commit: Commit = Commit()) -> Upload:  # noqa: B008 (frozen)
        commit = identified(commit)
        upload = await super().create_upload(key, commit)
        self._proofs[upload.upload_id] = committed(commit)
        return upload

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        op = Op("complete_upload", upload.key, self._proofs.get(upload.upload_id))
        info = await self.around(op, lambda: self.inner.complete_upload(upload, parts))
        self._proofs.pop(upload.upload_id, None)
        return info

    async def abort_upload(self, upload: Upload) -> None:
        await super().abort_upload(upload)
        self._proofs.pop(upload.upload_id, None)


def _unknown(op: Op) -> OutcomeUnknown:
    doubt = OutcomeUnknown(f"Whether {op.verb} of {op.key!r} happened could not be found out.")
    doubt.given_up = True
    return doubt


def identified(commit: Commit) -> Commit:
    """*commit* with an id: its own, or a fresh one."""
    return commit if commit.commit_id else replace(commit, commit_id=secrets.token_hex(16))

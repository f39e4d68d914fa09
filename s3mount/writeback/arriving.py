"""Waiting for what is pending, and what is told of it.

Owns: `sync` and its errors, the figures for people, what they decide on what was refused.
Must not know: how changes are entered and sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import trio

from s3mount.errors import Unavailable
from s3mount.model import Key
from s3mount.store.api import ObjectStore
from s3mount.writeback.chains import Entry
from s3mount.writeback.journal import Journal
from s3mount.writeback.options import LIMIT
from s3mount.writeback.pending import Pending
from s3mount.writeback.room import Room
from s3mount.writeback.sender import Sender
from s3mount.writeback.shown import Shown


class Arriving(Shown):
    """*inner*, with what the *journal* holds on its way there. *limit*: how many bytes may wait."""

    def __init__(self, inner: ObjectStore, journal: Journal, *, limit: int = LIMIT, clock_ns: Callable[[], int] = time.time_ns) -> None:
        super().__init__(inner, Pending(journal, clock_ns=clock_ns))
        self._journal = journal
        self._sender = Sender(inner, self._pending)
        self._room = Room(self._pending, self._sender, limit)
        self._began = trio.current_time()

    async def sync(self, key: Key | None = None) -> None:
        """On return every change acknowledged before (of *key*, or all) is in the store.

        Raises why it is not: the store's refusal, or what was the matter when it was tried last. It goes on being tried.
        """
        await self.arrival(list(self._pending.chains if key is None else self._pending.chains.of(key)))
        await trio.lowlevel.checkpoint()
        self._raise_refused(key)
        if key is None:
            await self._pending.leaving.all_left()
        if not self.inner.capabilities.durable:
            await self.inner.sync(key)

    async def arrival(self, entries: Sequence[Entry]) -> None:
        """Until none of *entries* is pending, nor what replaced them."""
        pending = self._pending
        limit, failures = pending.last_id, pending.failures
        self._sender.hurry(entries)
        keys = list({entry.record.key for entry in entries})
        while keys:
            left = [entry for entry in pending.chains.of(keys[-1]) if entry.since <= limit]
            if not left:
                keys.pop()
                continue
            if self._room.closed:
                raise Unavailable(f"{keys[-1]!r} is not in the bucket yet; the next mount with --write-back sends it.")
            needed = pending.chains.with_those_before(left)
            if pending.failures > failures:
                self._raise_failed({*keys, *(entry.record.key for entry in needed)}, failures)
            self._sender.hurry([entry for entry in needed if not entry.failed and not entry.hurried])
            await pending.moved.park()

    def _raise_failed(self, keys: Collection[str], since: int) -> None:
        for key in keys:
            for entry in self._pending.chains.of(key):
                if entry.failed > since and entry.error is not None:
                    raise entry.error
            self._raise_refused(key)

    def _raise_refused(self, key: str | None) -> None:
        refused = self._pending.refused
        if key is not None and key in refused:
            raise refused[key]
        if key is None and refused:
            first, error = next(iter(refused.items()))
            if len(refused) == 1:
                raise error
            raise type(error)(f"{len(refused)} files could not be stored, {first!r} among them: {error}") from error

    async def decide(self, verb: str, ids: Sequence[int]) -> int:
        """`retry` or `discard` what the store refused, by the ids in the journal; how many of them there were."""
        return await self._pending.decide(verb, ids)

    def status(self) -> dict[str, object]:
        """What is pending, for people: changes, bytes, since when; what was sent since the mount began; the last failure, as a sentence."""
        pending, sender = self._pending, self._sender
        return {
            "pending": len(pending.chains),
            "pending_bytes": pending.bytes,
            "spooled_bytes": pending.holding.waiting + pending.holding.refused,
            "spool_size": self._room.limit,
            "oldest_ns": min((entry.record.created_ns for entry in pending.chains), default=0),
            "refused": pending.failed_records,
            "sent": sender.sent,
            "sent_bytes": sender.sent_bytes,
            "uptime_s": trio.current_time() - self._began,
            "error": sender.last_error,
        }

"""Changes of the journal that arrive together share a transaction, and its sync.

Owns: who waits for which transaction.
Must not know: what the changes mean.

    commit --> queued --> [ the thread is busy with the former batch ] --> one `Journal.apply` for all that queued meanwhile --> answers

A batch that fails is tried once more change by change, so that nobody gets the failure of somebody else's change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from s3mount.errors import StoreError, Unavailable
from s3mount.writeback.journal import Change, Enter, Journal
from s3mount.writeback.worker import Worker

T = TypeVar("T")

# Changes in one transaction: their bodies are in memory twice meanwhile.
BATCH = 256


@dataclass(slots=True, eq=False)
class _Waiting:
    changes: Sequence[Change]
    synced: bool
    woken: trio.Event = field(default_factory=trio.Event)
    done: bool = False
    ids: list[int] = field(default_factory=list)
    error: BaseException | None = None


class Together:
    """*journal*, for many tasks."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._worker = Worker()
        self._queue: list[_Waiting] = []
        self._working = False
        self.transactions = 0

    async def commit(self, changes: Sequence[Change], *, synced: bool = True) -> list[int]:
        """As `Journal.apply`. Not cancellable: on return the caller knows what the journal says."""
        waiting = _Waiting(changes, synced)
        self._queue.append(waiting)
        with trio.CancelScope(shield=True):
            if self._working:
                # Until it is done, or it is our turn to work.
                await waiting.woken.wait()
            if not waiting.done:
                await self._work(waiting)
        if waiting.error is not None:
            raise waiting.error
        return waiting.ids

    async def call(self, work: Callable[..., T], *arguments: object) -> T:
        """Run a method of the journal in its thread, between batches. Not cancellable."""
        return await self._worker.call(partial(work, *arguments))

    def close(self) -> None:
        """The thread ends. Idempotent."""
        self._worker.close()

    async def _work(self, mine: _Waiting) -> None:
        """Do batches until *mine* is done, then let the next one in the queue go on."""
        self._working = True
        try:
            while not mine.done:
                batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
                try:
                    await self._worker.shielded(partial(self._apply, batch))
                except RuntimeError as error:  # no thread to be had
                    for waiting in batch:
                        waiting.error = Unavailable(f"The journal cannot be written: {error}.")
                for waiting in batch:
                    waiting.done = True
                    waiting.woken.set()
        finally:
            self._working = bool(self._queue)
            if self._queue:
                self._queue[0].woken.set()

    def _apply(self, batch: Sequence[_Waiting]) -> None:
        try:
            self._transact(batch)
        except StoreError as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for waiting in batch:
                self._apply([waiting])
        except BaseException as error:
            for waiting in batch:
                waiting.error = error

    def _transact(self, batch: Sequence[_Waiting]) -> None:
        changes = [change for waiting in batch for change in waiting.changes]
        ids = iter(self._journal.apply(changes, synced=any(waiting.synced for waiting in batch)))
        self.transactions += 1
        for waiting in batch:
            waiting.ids = [next(ids) for change in waiting.changes if isinstance(change, Enter)]

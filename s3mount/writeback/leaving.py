"""Telling the journal what is done: many changes in a transaction.

Owns: which records are done and are in the journal still, when they leave it.
Must not know: what the changes were.

    done --> a moment later with others that are done, at once where nothing else is pending or many are --> a transaction of their own
       `--> sooner: in that of the next change that is entered

Nothing waits for it but room on the disk: whoever opens the journal before finds such a change in the store, by its commit id.

L1  What is done leaves the journal before or with the next record that enters it: so a key has no more than two there.
L2  What was to leave with a change that failed leaves all the same: whoever is to tell the journal waits for such changes first.
L3  Where the journal is full, the bodies' files go at least, and the records with the next that leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import trio

from s3mount.errors import StoreError
from s3mount.writeback.journal import Change, Journal, Leave
from s3mount.writeback.together import Together

# Uploads that end within this leave together: half of what an arrival costs is saved.
LINGER_S = 0.05
MANY = 64


class Leaving:
    """`under_way`: calls that are to make room; `left`: those that have. *moved* is called after each; *others*: more is pending."""

    def __init__(self, journal: Journal, together: Together, moved: Callable[[], object], others: Callable[[], bool]) -> None:
        self._journal = journal
        self._together = together
        self._moved = moved
        self._others = others
        self._ids: list[int] = []
        self._lingers = False
        self._along: set[object] = set()
        self._over = trio.lowlevel.ParkingLot()
        self.under_way = 0
        self.left = 0

    async def leave(self, ids: Sequence[int]) -> None:
        """Records *ids* are done; who is cancelled, or returns early, leaves the rest to others (see `settle`)."""
        self._ids += ids
        if self._others() and len(self._ids) < MANY:
            if self._lingers:
                return
            await self._linger()
        await self._returned()
        await self.settle()

    async def _linger(self) -> None:
        self._lingers = True
        self.under_way += 1
        try:
            await trio.sleep(LINGER_S)
        finally:
            self._lingers = False
            self.under_way -= 1
            self._moved()

    async def _returned(self) -> None:
        """Until the changes that have something along now are through."""
        before = set(self._along)
        while not before.isdisjoint(self._along):
            self.under_way += 1
            try:
                await self._over.park()
            finally:
                self.under_way -= 1
                self._moved()

    async def settle(self) -> None:
        """The journal is told now. Never fails."""
        ids, self._ids = self._ids, []
        if not ids:
            return
        self.under_way += 1
        try:
            await self._together.commit([Leave(tuple(ids))], synced=False)
        except StoreError:
            self._ids += ids
            await self._together.call(self._journal.spare, ids)
        finally:
            self.under_way -= 1
            self.left += 1
            self._moved()

    async def all_left(self) -> None:
        """What was done before has left the journal, if that can be written."""
        await self._returned()
        await self.settle()
        if self.under_way:
            with suppress(StoreError):
                await self._together.commit([], synced=False)  # behind those of others

    def along(self) -> AbstractContextManager[list[Change]]:
        """What is to be changed with others, behind them, within the block: all is done or nothing."""
        return self._with_others() if self._ids else nullcontext([])

    @contextmanager
    def _with_others(self) -> Iterator[list[Change]]:
        ids, self._ids = self._ids, []
        self._along.add(mine := object())
        try:
            yield [Leave(tuple(ids))]
        except BaseException:
            self._ids += ids
            raise
        finally:
            self._along.discard(mine)
            self._over.unpark_all()
        self.left += 1
        self._moved()

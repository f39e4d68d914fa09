"""Questions about single names: from the tables where they are fresh, else in one round trip, which brings the siblings along.

Owns: which request a question is worth.
Must not know: how listings are told, what is listed ahead.

    nothing of the directory is known    HEAD, the first page of the directory, and that of what lies below the name, side by side
    a stretch of it is known, but old    that stretch is listed again
    another stretch is known             a page that begins just before the name, as long as pages listed so were of use to later lookups;
                                         else HEAD (or `find`) alone: random access to a million names does not list them all

Names are looked up in any order: find(1) and all that use fts(3) sort those of a directory of more than 10,000 by inode number, and take
longer for them than the time-to-live. To list a page again for nearly each of them would never end. So a name in a large directory is good
for as long as it takes to list that (`PAGE_SECONDS` a page), and what else of it has grown old is listed again beside. That is for names
only: who opens a file asks for the object, within the time-to-live.

With `--attributes=list` there is no HEAD: a page that begins just before the name takes its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from s3mount.cache.asking import Asking
from s3mount.cache.leaf import Asked, Mark
from s3mount.cache.listings import TRIES, Ahead, Listings
from s3mount.cache.table import Accept, Known, Table
from s3mount.cache.tables import Tables
from s3mount.cache.texts import START, behind, just_before, stem_of, text_of
from s3mount.errors import StoreError
from s3mount.model import Found, Key, ObjectInfo

T = TypeVar("T")

# Pages that may be listed for lookups in one directory before one of them has been of use, and lookups that pay for one more.
PAGES_ON_TRUST = 3
LOOKUPS_PER_PAGE = 2
# How long a name of a directory is good for, for each of its pages: of more than five, that is more than the usual time-to-live. It is what
# a page of names takes to be asked about on a busy machine.
PAGE_SECONDS = 0.2
# What S3 takes: a longer name has nothing below it that could be listed.
KEY_BYTES = 1024
# Stretches listed again beside the one that somebody waits for.
BESIDE = 5


class Lookups:
    """*exact*: whether a directory has a marker is always found out; *heads*: HEAD may be used."""

    def __init__(self, tables: Tables, asking: Asking, listings: Listings, ahead: Ahead, *, exact: bool, heads: bool) -> None:
        self._tables = tables
        self._asking = asking
        self._listings = listings
        self._ahead = ahead
        self._exact = exact
        self._heads = heads

    # -- from the tables ----------------------------------------------------------------

    def _row(self, stem: str, key: str, since: Asked | None) -> Known | None:
        """What is known of a name, if that is good."""
        table = self._tables.find(stem)
        known = None if table is None else table.look(text_of(stem, key))
        return known if table is not None and known is not None and self._of_names(table, since)(known.asked) else None

    def _of_names(self, table: Table, since: Asked | None) -> Accept:
        return self._listings.accept(since, longer_s=PAGE_SECONDS * table.stretches)

    def known_object(self, key: str, since: Asked | None = None) -> Known | None:
        """What is known of the object *key*, if that is fresh: an ObjectInfo or Mark.ABSENT."""
        known = self._row(stem_of(key), key, since)
        return known if known is not None and self._listings.accept(since)(known.asked) else None

    def known_name(self, name: str, since: Asked | None = None) -> Found | None:
        """What stands under *name*, if all of that is fresh."""
        row, prefix = self._row(stem_of(name), name, since), self._row(stem_of(name), name + "/", since)
        if row is None or prefix is None:
            return self._being_read(name) if since is None else None
        there = row.value if isinstance(row.value, ObjectInfo) else None
        if prefix.value is not Mark.PREFIX:
            return Found(there, None, implied=False)
        known, others = self.known_object(name + "/", since), self._others(name + "/", since)
        marker = known.value if known is not None and isinstance(known.value, ObjectInfo) else None
        if self._exact and (known is None or (marker is not None and others is None)):
            return None
        return Found(there, marker, implied=marker is None or others is not False)

    def _being_read(self, name: str) -> Found | None:
        """A directory of which something was just listed is there: who reads a large one need not have the one above listed again.

        So is one below which this mount has just put something: who copies a tree in need not have its path listed every second.
        Whether an object of the same name is hidden by it, and what its marker says, may be older news then.
        """
        below, above = self._tables.find(name + "/"), self._tables.find(stem_of(name))
        if below is None or above is None or not (self._is_proved(below) or below.shows_any(self._listings.is_fresh)):
            return None
        row, marker = above.look(text_of(above.stem, name)), below.look(START)
        if (
            row is None
            or not self._listings.is_recent(row.asked)
            or (self._exact and (marker is None or not self._listings.is_recent(marker.asked)))
        ):
            return None
        return Found(_object(row), _object(marker), implied=True)

    def _is_proved(self, table: Table) -> bool:
        return table.proof is not None and self._listings.is_fresh(table.proof[1])

    def _others(self, marker: str, since: Asked | None) -> bool | None:
        """Whether other keys are known to lie below *marker*, or known not to."""
        table = self._tables.find(marker)
        piece = None if table is None else table.page(behind(START), 1, self._listings.accept(since))
        return None if piece is None else bool(piece.rows)

    # -- asked for ----------------------------------------------------------------------

    async def find(self, name: str) -> Found | None:
        """What stands under *name*; None where changes of this mount left no answer that one can rely on."""
        since = None
        for _ in range(TRIES):
            found = self.known_name(name, since)
            if found is not None:
                self._was_of_use(name)
                return found
            if self._leads_to_directory(name, since):
                flight = self._ahead.first(name + "/")
                await flight.wait()
                since = since or flight.asked
                continue
            found, since = await self._asked(name, lambda: self._asking.find(name), self.known_name, since, first=lambda: self._look(name))
            if found is not None:
                return found
        return None

    async def _look(self, name: str) -> tuple[Found, Asked]:
        return await (self._asking.look(name) if len(name.encode()) < KEY_BYTES else self._asking.find(name))

    def _leads_to_directory(self, name: str, since: Asked | None) -> bool:
        """Whether all is known but what the listing of the directory *name* itself would tell: its marker, or whether it is there still."""
        table = self._tables.find(stem_of(name))
        if table is None or self._row(table.stem, name, since) is None:
            return False
        prefix = self._row(table.stem, name + "/", since)
        return prefix.value is Mark.PREFIX if prefix is not None else table.is_doubted(text_of(table.stem, name + "/"))

    async def object(self, key: Key) -> Known | None:
        """The object *key* or Mark.ABSENT; None as with `find`."""
        since = None
        for _ in range(TRIES):
            known = self.known_object(key, since)
            if known is not None:
                self._was_of_use(key)
                return known
            known, since = await self._asked(key, lambda: self._head(key), self.known_object, since)
            if known is not None:
                return known
        return None

    async def _head(self, key: Key) -> tuple[Known, Asked]:
        info, asked = await self._asking.head(key)
        return Known(Mark.ABSENT if info is None else info, asked), asked

    async def _asked(
        self,
        name: str,
        single: Callable[[], Awaitable[tuple[T, Asked]]],
        known: Callable[[str, Asked | None], T | None],
        since: Asked | None,
        *,
        first: Callable[[], Awaitable[tuple[T, Asked]]] | None = None,
    ) -> tuple[T | None, Asked | None]:
        """An answer from the store and None, or None and since when the tables may have one.

        *single* asks for the name alone; *first* does where nothing is known of its directory.
        """
        stem = stem_of(name)
        table = self._tables.table(stem)
        table.using += 1
        try:
            if not table.leaves:
                return await self._side_by_side(name, first or single, known)
            after = table.stretch(text_of(stem, name))
            if after is None and self._heads and not self._pays(table):
                return await single()
            if after is None or since is not None:
                after = just_before(name)
                table.paid += 1
            else:
                self._list_others(stem, table, text_of(stem, name))
            flight = self._asking.page(stem, after)
            await flight.wait()
            return None, since or flight.asked
        finally:
            table.using -= 1

    def _list_others(self, stem: str, table: Table, text: bytes) -> None:
        """Stretches behind *text* that have grown old too, as far as lookups have been paying for them."""
        good, begun = self._of_names(table, None), 0
        for leaf in table.leaves_behind(text):
            if begun == BESIDE or not self._pays(table):
                return
            after = None if good(leaf.asked) else table.stretch(leaf.lo)
            if after is not None:
                table.paid += 1
                begun += 1
                self._asking.page(stem, after)

    async def _side_by_side(
        self, name: str, single: Callable[[], Awaitable[tuple[T, Asked]]], known: Callable[[str, Asked | None], T | None]
    ) -> tuple[T | None, Asked | None]:
        first = self._ahead.first(stem_of(name))
        if not self._heads:
            await first.wait()
            return None, first.asked
        answers: list[T] = []
        errors: list[StoreError] = []

        async def ask(scope: trio.CancelScope) -> None:
            try:
                answers.append((await single())[0])
                scope.cancel()
            except StoreError as error:
                errors.append(error)

        async def listen(scope: trio.CancelScope) -> None:
            try:
                await first.wait()
            except StoreError as error:
                errors.append(error)
            answer = known(name, first.asked)
            if answer is not None:
                answers.append(answer)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, nursery.cancel_scope)
            nursery.start_soon(listen, nursery.cancel_scope)
        if answers:
            return answers[0], first.asked
        raise errors[0]

    def _pays(self, table: Table) -> bool:
        return table.paid < PAGES_ON_TRUST + table.hits // LOOKUPS_PER_PAGE

    def _was_of_use(self, name: str) -> None:
        table = self._tables.find(stem_of(name))
        if table is not None:
            table.hits += 1


def _object(known: Known | None) -> ObjectInfo | None:
    return known.value if known is not None and isinstance(known.value, ObjectInfo) else None

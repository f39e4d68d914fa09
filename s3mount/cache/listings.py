"""Listings of directories, page by page, from the tables where they are fresh, else from the store.

Owns: what is fresh enough, and that a listing goes on in spite of changes meanwhile.
Must not know: what is listed ahead and why, lookups, attributes.

An answer is fresh for the time-to-live. A listing under way may also use what was asked for since it began: readdir may show a directory
as it was at any time since opendir, and pages listed ahead would be asked for twice else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from s3mount.cache.asking import Asking, Flight
from s3mount.cache.leaf import Asked
from s3mount.cache.table import Accept, Piece, Table
from s3mount.cache.tables import Tables
from s3mount.cache.texts import START, place_behind
from s3mount.model import Page

# How long a listing under way may use pages that are older than the time-to-live: a reader that takes longer asks anew.
GRACE_SECONDS = 30.0

# A page whose rows were changed while it was asked for is asked for again, this often.
TRIES = 4


class Ahead(Protocol):
    """Who wants to know how listings go on."""

    def first(self, stem: str) -> Flight[Page]:
        """Ask for the beginning of the directory *stem*, which somebody has begun to look into."""
        ...

    def next(self, stem: str, after: str) -> Flight[Page]:
        """Ask for how *stem* goes on behind *after*."""
        ...

    def reading(self, table: Table, piece: Piece, *, first: bool) -> None:
        """*piece* of a listing has just been served."""
        ...


class Listings:
    """Pages of directories. *ttl_s*: seconds; 0 asks each time."""

    def __init__(self, tables: Tables, asking: Asking, *, clock: Callable[[], float], ttl_s: float) -> None:
        self._tables = tables
        self._asking = asking
        self._clock = clock
        self._ttl_s = ttl_s

    def is_fresh(self, asked: Asked) -> bool:
        return self._clock() - asked.at_s < self._ttl_s

    def fresh_at(self, now: float) -> Accept:
        """As `is_fresh` then."""
        return lambda asked: now - asked.at_s < self._ttl_s

    def is_recent(self, asked: Asked) -> bool:
        """Whether an answer is good enough for what cannot matter much."""
        return self._clock() - asked.at_s < max(self._ttl_s, GRACE_SECONDS)

    def accept(self, since: Asked | None = None, *, longer_s: float = 0.0) -> Accept:
        """Whether an answer is fresh, or to a request sent at *since* or later; *longer_s*: if anything is fresh at all, for so long."""
        lasts_s = max(self._ttl_s, min(longer_s, GRACE_SECONDS)) if self._ttl_s else 0.0
        oldest_s = self._clock() - lasts_s
        return lambda asked: asked.at_s > oldest_s or (since is not None and asked.at_s >= since.at_s)

    def _going_on(self, table: Table, since: Asked | None) -> Accept:
        """As `accept`, for a page that continues a listing."""
        fresh, began, now = self.accept(since), table.began, self._clock()
        if began is None:
            return fresh
        return lambda asked: fresh(asked) or (asked.at_s >= began.at_s and now - asked.at_s < GRACE_SECONDS)

    async def page(self, stem: str, after: str, limit: int, ahead: Ahead) -> Piece | None:
        """Rows of *stem* behind *after*; None where changes of this mount left no answer that one can rely on."""
        place = place_behind(stem, after)
        assert place is not None
        table, first, since = self._tables.table(stem), place == START, None
        table.using += 1
        try:
            for _ in range(TRIES):
                piece = table.page(place, limit, self.accept(since) if first else self._going_on(table, since))
                if piece is not None:
                    if first:
                        table.began = piece.oldest
                    ahead.reading(table, piece, first=first)
                    return piece
                flight = self._asked(stem, after, ahead, first=first)
                await flight.wait()
                since = flight.asked
            return None
        finally:
            table.using -= 1

    def _asked(self, stem: str, after: str, ahead: Ahead, *, first: bool) -> Flight[Page]:
        if not first:
            return ahead.next(stem, after)
        return ahead.first(stem) if self._ttl_s else self._asking.page(stem, join=False)

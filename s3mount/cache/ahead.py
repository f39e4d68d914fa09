"""What is listed before anybody asks for it.

Owns: that the next pages of a directory, and the directories beside it, are asked for in time.
Must not know: how either is decided (see scans, walks), who reads.
"""

from __future__ import annotations

from s3mount.cache.asking import Asking, Flight
from s3mount.cache.attributes import Attributes
from s3mount.cache.scans import Scans
from s3mount.cache.table import Accept, Piece, Table
from s3mount.cache.tables import Tables
from s3mount.cache.tasks import Background
from s3mount.cache.walks import Walks
from s3mount.model import Page


class ListAhead:
    """Told of all that is read and asked for the beginnings of directories."""

    def __init__(self, tables: Tables, asking: Asking, attributes: Attributes, background: Background, *, fresh: Accept) -> None:
        self._tables, self._asking, self._attributes, self._background = tables, asking, attributes, background
        self._fresh = fresh
        self._scans = Scans(tables, asking, attributes, background, fresh)
        self._walks = Walks(tables, asking, attributes, background, fresh)

    def __repr__(self) -> str:
        return f"<ListAhead {self._scans!r} {self._walks!r}>"

    def first(self, stem: str) -> Flight[Page]:
        """Ask for the beginning of *stem*, which somebody looks into."""
        return self._walks.first(stem)

    def next(self, stem: str, after: str) -> Flight[Page]:
        """Ask for how *stem* goes on behind *after*."""
        return self._walks.next(stem, after)

    def list(self, stem: str) -> None:
        """Have the beginning of *stem* listed, unless it is, or there is no room for it: a walk through files comes there soon."""
        table = self._tables.find(stem)
        if (table is None or not table.shows_any(self._fresh)) and not self._tables.is_nearly_full:
            self._asking.page(stem).when_landed(self._listed)

    def _listed(self, page: Page | None) -> None:
        if page is not None:
            self._background.start(self._attributes.ahead, page.objects)

    def reading(self, table: Table, piece: Piece, *, first: bool) -> None:
        """*piece* has been read."""
        self._scans.reading(table, piece, first=first)
        if first:
            self._walks.visited(table.stem)

    def let_go(self) -> None:
        """Called now and then: forget what is of no use to a walk that goes on."""
        self._walks.let_go()

    def place(self, table: Table) -> bytes | None:
        return self._scans.place(table)

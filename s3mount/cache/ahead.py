"""What is listed before anybody asks for it.

Owns: when the next pages of a directory, and the directories beside it, are asked for.
Must not know: who reads, attributes.
"""

from __future__ import annotations

from s3mount.cache.asking import Asking, Flight
from s3mount.cache.attributes import Attributes
from s3mount.cache.listings import Listings
from s3mount.cache.table import Piece, Table
from s3mount.cache.tables import Tables
from s3mount.cache.tasks import Background
from s3mount.model import Page


class ListAhead:
    def __init__(self, tables: Tables, asking: Asking, listings: Listings, attributes: Attributes, background: Background) -> None:
        self._asking = asking

    def first(self, stem: str) -> Flight[Page]:
        return self._asking.page(stem)

    def reading(self, table: Table, piece: Piece, *, first: bool) -> None:
        pass

    def place(self, table: Table) -> bytes | None:
        return None

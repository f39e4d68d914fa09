"""Large directories listed ahead of their readers, in several places at a time.

Owns: how far ahead of a reader pages are asked for.
Must not know: where pages begin (see splitter), other directories.

Nothing is asked for before the second page of a listing is read: who looks at the beginning only pays for that. From then on as many
pages may lie unread as `UNREAD + UNREAD_PER_READ * pages read`, at most `UNREAD_MOST`, so a reader who stops leaves little behind. When the
tables are nearly full, nothing is listed ahead.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from s3mount.cache.asking import Asking
from s3mount.cache.attributes import Attributes
from s3mount.cache.splitter import LANES, Splitter
from s3mount.cache.table import Accept, Piece, Table
from s3mount.cache.tables import Tables
from s3mount.cache.tasks import Background
from s3mount.cache.texts import END, START, behind
from s3mount.errors import StoreError
from s3mount.model import Page

# Lanes go on side by side: while one page is read, each of the others brings one too.
UNREAD = 4
UNREAD_PER_READ = LANES
# But no more than a reader takes before they are too old for him, though he stops for some seconds every hundred pages, as fts(3) does.
UNREAD_MOST = 64

# The page at which listing ahead begins: what is fresh by then from an earlier listing need not be listed.
SECOND = 2

# Listings under way that are remembered.
SCANS = 32


@dataclass(slots=True)
class Scan:
    """One directory being listed. `reader` is how far it has been read; `failing` stops it until it is read on."""

    splitter: Splitter = field(default_factory=Splitter)
    reader: bytes = START
    read: int = 0
    failing: bool = False

    @property
    def room(self) -> int:
        """How many pages may be asked for."""
        unread = self.splitter.pages + self.splitter.flying - self.read
        return 0 if self.failing else min(UNREAD_MOST, UNREAD + UNREAD_PER_READ * self.read) - unread


class Scans:
    """The scans of one store."""

    def __init__(self, tables: Tables, asking: Asking, attributes: Attributes, background: Background, fresh: Accept) -> None:
        self._tables = tables
        self._fresh = fresh
        self._asking = asking
        self._attributes = attributes
        self._background = background
        self._scans: OrderedDict[str, Scan] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Scans {dict(self._scans)!r}>"

    def place(self, table: Table) -> bytes | None:
        """How far *table* has been read, if it is being listed."""
        scan = self._scans.get(table.stem)
        return None if scan is None else scan.reader

    def reading(self, table: Table, piece: Piece, *, first: bool) -> None:
        """*piece* has been read."""
        stem = table.stem
        if piece.hi == END:
            self._scans.pop(stem, None)
            return
        if first or stem not in self._scans:
            self._scans[stem] = Scan()
            self._scans[stem].splitter.formerly(table.former())
        scan = self._scans[stem]
        self._scans.move_to_end(stem)
        if len(self._scans) > SCANS:
            self._scans.popitem(last=False)
        scan.reader, scan.failing = piece.hi, False
        scan.read += 1
        scan.splitter.landed(piece.lo, piece.hi, [text.decode() for text, _ in piece.rows])
        if not first:
            if scan.read <= SECOND:
                for leaf in table.leaves:
                    if self._fresh(leaf.asked):
                        scan.splitter.known(leaf.lo, leaf.hi)
            self._go_on(stem, scan)

    def _go_on(self, stem: str, scan: Scan) -> None:
        most = 0 if self._tables.is_nearly_full else scan.room
        for place in scan.splitter.next_places(scan.reader, most=most):
            self._background.start(self._list, stem, scan, place)

    async def _list(self, stem: str, scan: Scan, place: bytes) -> None:
        try:
            page = await self._asking.page(stem, stem + place[:-1].decode() if place else "").wait()
        except StoreError:
            scan.splitter.failed(place)
            scan.failing = True
            return
        names = names_of(stem, page)
        hi = END if page.next is None or not names else behind(names[-1].encode())
        scan.splitter.landed(place, hi, names)
        if self._scans.get(stem) is scan:
            self._go_on(stem, scan)
            await self._attributes.ahead(page.objects)


def names_of(stem: str, page: Page) -> list[str]:
    """The rows of *page* in order, as names within *stem*."""
    return sorted(key[len(stem) :] for key in (*(info.key for info in page.objects), *page.prefixes))

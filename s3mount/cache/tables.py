"""All directories that are known of, and what this mount changed lately.

Owns: which answer of the store belongs where, what a change of one key means for the directories above it, and what is forgotten when
memory runs short.
Must not know: requests, time-to-live, who asks. Pure; nothing here awaits.

Every request and every change gets a number (`ask`, `_now`). An answer is worth nothing for a key that was changed after the request was
sent: the change is applied once more on top of it (`_again`). Of changes the last `CHANGES` are remembered one by one; an answer that is
older than all of these is not recorded at all.

M1  `cost` is the sum of the tables' costs.
M2  A small table that nobody uses is expelled when the tables take more than `limit`, the one used longest ago first; others lose leaves.
M3  Of what is stale and was not touched for a while nothing stays but where the pages of large directories began.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from s3mount.cache.leaf import Asked, Leaf, Mark, Stretch
from s3mount.cache.spread import spread
from s3mount.cache.table import MANY_ROWS, NOTES, Accept, Table
from s3mount.cache.texts import END, START, behind, parent_of, place_behind, stem_of, text_of
from s3mount.model import Found, Metadata, MiB, ObjectInfo, Page

# Changes remembered one by one: more happen within one request only in a storm.
CHANGES = 4096
# What may be kept of stale tables: a hundred thousand rows, so that a walk over a million leaves no more behind than one over these.
STALE_BYTES = 8 * MiB
# And while one is read: the hundred thousand names that fts(3) reads before it asks for the first again, and what is listed meanwhile.
READ_BYTES = 20 * MiB
# Tables used last, which stay: somebody may have read one to its end and ask for its names now.
USED_LAST = 4
# Looks now and then at a table that is stale, each of which finds it untouched, until it goes.
UNTOUCHED = 2
# Tables that go at a time: some ten milliseconds, for which everybody else waits.
AT_A_TIME = 4096
# Leaves of a table that is expelled as a whole; a large one may have been listed ahead for somebody who reads on.
SMALL = 16


@dataclass(frozen=True, slots=True)
class Change:
    """What this mount made of a key."""

    key: str
    value: ObjectInfo | Mark
    asked: Asked


class Tables:
    """The tables of one bucket, by their directories' stems. *limit*: bytes; *blank*: as with `Leaf`."""

    def __init__(self, clock: Callable[[], float], *, limit: int, blank: Metadata | None = None) -> None:
        self._clock = clock
        self._blank = blank
        self._limit = limit
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._changes: OrderedDict[str, Change] = OrderedDict()
        self._number = 0
        self._doubted = 0
        self._next_trim = min(STALE_BYTES, limit)
        self.cost = 0

    def __repr__(self) -> str:
        return f"<Tables {len(self._tables)} of {self.cost} bytes>"

    def check(self) -> None:
        for table in self._tables.values():
            table.check()
        assert self.cost == sum(table.cost for table in self._tables.values()), "M1"

    def ask(self) -> Asked:
        """A request is about to be sent."""
        self._number += 1
        return Asked(self._number, self._clock())

    @property
    def is_nearly_full(self) -> bool:
        """What comes in now makes something go that may still be wanted."""
        return self.cost > self._limit * 3 // 4

    # -- tables -----------------------------------------------------------------------

    def find(self, stem: str) -> Table | None:
        table = self._tables.get(stem)
        if table is not None:
            self._tables.move_to_end(stem)
            table.untouched = 0
        return table

    def table(self, stem: str) -> Table:
        """The table of *stem*, made where there is none."""
        table = self.find(stem)
        if table is None:
            table = self._tables[stem] = Table(stem)
            self.cost += table.cost
        return table

    def all(self) -> Sequence[Table]:
        return list(self._tables.values())

    def trim(self, fresh: Accept, place: Callable[[Table], bytes | None] = lambda table: None) -> None:
        """Forget what is cold until the tables fit; *place* says how far a table that is being listed has been read.

        Does nothing until the tables have grown by a little since the last time.
        """
        if self.cost < self._next_trim:
            return
        self._drop_stale(fresh, place)
        if self.cost > self._limit:
            self._drop_cold(place)
        self._next_trim = max(min(STALE_BYTES, self._limit), self.cost) + min(STALE_BYTES, self._limit) // 16

    def let_go(self, fresh: Accept) -> int:
        """Called now and then: forget what nobody comes back to; how many bytes that gives.

        The next listing of a large directory begins in as many places as the last one.
        """
        before = self.cost
        for table in self._tables.values():
            table.untouched += 1
        for stem, table in list(islice(((stem, table) for stem, table in self._tables.items() if _may_go(table, fresh)), AT_A_TIME)):
            self.cost -= table.drop_all()
            if not table.is_of_use:
                self.cost -= table.cost
                del self._tables[stem]
        if self.cost < before:
            self._next_trim = max(min(STALE_BYTES, self._limit), self.cost)
        return before - self.cost

    def _drop_stale(self, fresh: Accept, place: Callable[[Table], bytes | None]) -> None:
        """What would be asked for anew anyway is worth little: the first tables, and of those in use what was read already."""
        for stem in list(self._tables)[:-USED_LAST]:
            table = self._tables[stem]
            if self.cost <= STALE_BYTES or (table.latest is not None and fresh(table.latest)):
                break
            if not table.using and place(table) is None:
                self.cost -= table.cost
                del self._tables[stem]
        for table in self.all() if self.cost > READ_BYTES else ():
            if len(table.leaves) > SMALL and (read := place(table)) is not None:
                self.cost -= table.drop_read(read, fresh, most=self.cost - READ_BYTES)

    def _drop_cold(self, place: Callable[[Table], bytes | None]) -> None:
        for stem in list(self._tables):
            table = self._tables[stem]
            if not table.using and len(table.leaves) <= SMALL:
                self.cost -= table.cost
                del self._tables[stem]
            if self.cost <= self._limit:
                return
        for table in self.all():
            while self.cost > self._limit and not table.is_empty:
                self.cost -= table.drop_coldest(place(table))

    # -- answers ----------------------------------------------------------------------

    def listed(self, stem: str, after: str, page: Page, asked: Asked) -> bool:
        """A page of `list(stem, delimiter="/", after=after)`. False where it comes too late to be believed."""
        lo = place_behind(stem, after)
        if asked.number < self._doubted or lo is None or lo == END:
            return False
        rows = [(text_of(stem, info.key), info) for info in page.objects] + [(text_of(stem, text), Mark.PREFIX) for text in page.prefixes]
        rows = sorted((row for row in rows if row[0] >= lo), key=lambda row: row[0])
        hi = END if page.next is None else behind(rows[-1][0]) if rows else lo
        if hi > lo:
            self._record(self.table(stem), Leaf(stem, lo, hi, rows, asked, blank=self._blank))
        if rows or (lo == START and hi == END):
            self._tell_above(stem, asked, there=bool(rows))
        self._again(asked)
        return hi > lo

    def listed_flat(self, prefix: str, after: str, page: Page, asked: Asked, *, sought: str = "") -> bool:
        """A page of `list(prefix, after=after)`: it tells of all directories whose keys it holds, and if *sought* is empty."""
        if asked.number < self._doubted:
            return False
        if sought and (page.next is None or page.next > sought) and not any(info.key.startswith(sought) for info in page.objects):
            self._record(self.table(sought), Leaf(sought, START, END, (), asked, blank=self._blank))
            self._tell_above(sought, asked, there=False)
        for part in spread(prefix, after, page):
            if part.lo < part.hi:
                self._record(self.table(part.stem), Leaf(part.stem, part.lo, part.hi, part.rows, asked, blank=self._blank))
        self._again(asked)
        return True

    def _tell_above(self, stem: str, asked: Asked, *, there: bool) -> None:
        """The listing of *stem* tells whether it is there: the directory above may not know."""
        table = self._tables.get(parent_of(stem)) if stem else None
        if table is not None:
            known = table.look(text_of(table.stem, stem))
            if known is None or (known.value is Mark.PREFIX) != there:
                self._note_row(table.stem, stem, Mark.PREFIX if there else Mark.ABSENT, asked)

    def told(self, key: str, info: ObjectInfo | None, asked: Asked) -> None:
        """HEAD has answered: the object, or that there is none."""
        if self.made_since(key, asked) is None:
            self._note(key, Mark.ABSENT if info is None else info, asked)

    def found(self, name: str, found: Found, asked: Asked) -> None:
        """`find` has answered."""
        if asked.number < self._doubted:
            return
        self._note(name, found.object or Mark.ABSENT, asked)
        self._note_row(stem_of(name), name + "/", Mark.PREFIX if found.is_directory else Mark.ABSENT, asked)
        if found.marker is not None or found.is_directory:
            self._note(name + "/", found.marker or Mark.ABSENT, asked)
        self._again(asked)

    def filled(self, infos: Sequence[ObjectInfo]) -> None:
        """Attributes of objects that are listed without."""
        by_stem: dict[str, list[ObjectInfo]] = {}
        for info in infos:
            by_stem.setdefault(stem_of(info.key), []).append(info)
        for stem, some in by_stem.items():
            table = self._tables.get(stem)
            if table is not None:
                self.cost -= table.cost
                table.fill(some)
                self.cost += table.cost

    # -- changes ----------------------------------------------------------------------

    def changed(self, key: str, value: ObjectInfo | Mark) -> None:
        """This mount has put *key* (the object), deleted it (ABSENT), or tried one of these in vain (UNKNOWN)."""
        if isinstance(value, ObjectInfo) and key.endswith("/"):
            self._empty_until_now(key)
        change = Change(key, value, self.ask())
        self._changes.pop(key, None)
        self._changes[key] = change
        if len(self._changes) > CHANGES:
            self._doubted = max(self._doubted, self._changes.popitem(last=False)[1].asked.number)
        self._apply(change)
        self._prove(change)

    def _prove(self, change: Change) -> None:
        """What was put below a directory proves that it is there; what went proves nothing any more."""
        if isinstance(change.value, ObjectInfo):
            return self.proved(change.key, change.asked)
        stem = stem_of(change.key)
        while stem:
            if (table := self._tables.get(stem)) is not None and table.proof is not None and table.proof[0] == change.key:
                table.proof = None
            stem = parent_of(stem)

    def proved(self, key: str, asked: Asked) -> None:
        """The object *key* was there when that was asked for, and with it the directories above."""
        stem = stem_of(key)
        while stem:
            table = self._tables.get(stem)
            if table is not None and (table.proof is None or table.proof[1].number < asked.number):
                table.proof = (key, asked)
            stem = parent_of(stem)

    def _empty_until_now(self, stem: str) -> None:
        """A directory gets a marker: where it was not there at all, nothing is in it, as of the answer that said so."""
        above = self._tables.get(parent_of(stem))
        known = None if above is None else above.look(text_of(above.stem, stem))
        if known is not None and known.value is Mark.ABSENT:
            self._record(self.table(stem), Leaf(stem, START, END, (), known.asked, blank=self._blank))

    def made_since(self, key: str, asked: Asked) -> ObjectInfo | Mark | None:
        """What this mount has made of *key* since the request *asked* was sent; None: nothing."""
        change = self._changes.get(key)
        if change is not None and change.asked.number > asked.number:
            return change.value
        return Mark.UNKNOWN if asked.number < self._doubted else None

    def has_changed(self, stem: str, asked: Asked) -> bool:
        """Whether this mount has changed, or may have changed, anything below *stem* since the request *asked* was sent."""
        since = takewhile(lambda change: change.asked.number > asked.number, reversed(self._changes.values()))
        return asked.number < self._doubted or any(change.key.startswith(stem) for change in since)

    def forget_all(self) -> None:
        """More has changed than one would name: nothing that is known counts any more, nor what is under way."""
        self._doubted = self.ask().number
        self._changes.clear()
        for stem in list(self._tables):
            table = self._tables[stem]
            self.cost -= table.cost
            if table.using:
                table.proof = None
                while not table.is_empty:
                    table.drop_coldest(None)
                self.cost += table.cost
            else:
                del self._tables[stem]

    def _again(self, asked: Asked) -> None:
        """Apply the changes once more that came after a request was sent whose answer has just been recorded."""
        late = []
        for change in reversed(self._changes.values()):
            if change.asked.number < asked.number:
                break
            late.append(change)
        for change in reversed(late):
            self._apply(change)

    def _apply(self, change: Change) -> None:
        self._note(change.key, change.value, change.asked)
        stem = stem_of(change.key)
        while stem:
            self._note_above(parent_of(stem), stem, change)
            stem = parent_of(stem)

    def _note_above(self, above: str, stem: str, change: Change) -> None:
        """What *change*, below *stem*, means for the row that says that *stem* is there."""
        table, below = self._tables.get(above), self._tables.get(stem)
        known = None if table is None else table.look(text_of(above, stem))
        if known is None:
            return
        if isinstance(change.value, ObjectInfo):
            doubt, there = False, True
        elif known.value is Mark.PREFIX:
            doubt, there = below is None or not below.holds_any(known.asked), True  # what went may have been the last
        else:
            doubt, there = change.value is Mark.UNKNOWN, False  # it may have come
        if doubt or there != (known.value is Mark.PREFIX):
            self._note_row(above, stem, Mark.UNKNOWN if doubt else Mark.PREFIX, change.asked)

    def _note(self, key: str, value: ObjectInfo | Mark, asked: Asked) -> None:
        self._note_row(stem_of(key), key, value, asked)

    def _note_row(self, stem: str, key: str, value: ObjectInfo | Mark, asked: Asked) -> None:
        table = self.table(stem)
        self.cost -= table.cost
        table.note(text_of(stem, key), value, asked)
        self.cost += table.cost

    def _record(self, table: Table, leaf: Leaf) -> None:
        self.cost -= table.cost
        table.record(leaf)
        self.cost += table.cost

    # -- from one mount to the next -----------------------------------------------------------

    def stretches(self, fresh: Accept, *, now: float) -> Iterator[Stretch]:
        """All that is known from answers that are *fresh*, and where pages began that are not. Another thread may run this."""
        for table in self.all():
            for leaf in table.leaves:
                piece = table.page(leaf.lo, len(leaf) + NOTES, fresh)
                if piece is not None:
                    rows = [row for row in piece.rows if row[0] < leaf.hi]
                    yield Stretch(table.stem, leaf.lo, min(leaf.hi, piece.hi), now - piece.oldest.at_s, rows, len(rows))
            for place in table.former():
                yield Stretch(table.stem, place, END, math.inf, None, MANY_ROWS)

    def restore(self, stretch: Stretch) -> None:
        """What an earlier mount knew; what this one has learnt or changed since goes before it."""
        if stretch.many >= MANY_ROWS:
            self._began_at(stretch.stem, stretch.lo)
        if stretch.rows is not None and not self._doubted and not self._changes:
            asked = Asked(0, self._clock() - stretch.age_s)
            self._record(self.table(stretch.stem), Leaf(stretch.stem, stretch.lo, stretch.hi, stretch.rows, asked, blank=self._blank))

    def _began_at(self, stem: str, place: bytes) -> None:
        table = self.table(stem)
        self.cost -= table.cost
        table.began_at(place)
        self.cost += table.cost

    # -- who follows whom -----------------------------------------------------------------

    def after(self, key: str, count: int) -> Sequence[ObjectInfo]:
        """Up to *count* objects of the same directory behind *key*, as far as they are known without a gap; asks nobody."""
        stem = stem_of(key)
        table = self.find(stem)
        found: list[ObjectInfo] = []
        if table is not None:
            for _, value in table.rows_behind(behind(text_of(stem, key)) if key != stem else START):
                if isinstance(value, ObjectInfo) and value.key != stem:
                    found.append(value)
                    if len(found) == count:
                        break
        return found

    def directories(self, stem: str, most: int) -> Sequence[str] | None:
        """The directories in *stem*, as far as they are known without a gap; None where nothing is, or more than *most* rows."""
        table = self.find(stem)
        if table is None or table.is_empty or table.rows_known() > most:
            return None
        return [stem + text.decode() for text, value in table.rows_behind(START) if value is Mark.PREFIX]


def _may_go(table: Table, fresh: Accept) -> bool:
    """Whether nobody has come back to it for a while, and what it tells is too old. Where pages began does not go."""
    if table.using or table.untouched <= UNTOUCHED or (table.is_empty and table.is_of_use):
        return False
    return table.latest is None or not fresh(table.latest)

"""What is known of one directory: stretches of its listing, and notes about single rows.

Owns: how what comes later goes before what came earlier, and what a question about a row or a stretch is answered with.
Must not know: other directories, time-to-live, stores. Pure; nothing here awaits.

A leaf says all about its stretch as it was when it was asked for. A note says what stands under one text: it was put or deleted by this
mount, or HEAD told. "Later" is told by numbers (`Asked.number`), which requests get when they are sent and changes when they are over.

T1  Leaves do not overlap and lie in order; `_los` holds where they begin.
T2  A note is later than the leaf that covers its text.
T3  `_order` holds the texts of the notes, sorted; `_there` counts those that tell of something.
T4  `cost` is the sum of what leaves, notes and former places take.

Of a leaf of many rows that is forgotten its place is kept: a page began there, so the next listing may begin there too.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from s3mount.cache.leaf import Asked, Leaf, Mark, Row
from s3mount.cache.texts import END, START, behind, just_before, text_of
from s3mount.model import ObjectInfo
from s3mount.store.api import PAGE_KEYS

Accept = Callable[[Asked], bool]
"""Whether an answer that was asked for then is good enough."""

# What a note takes: its entry, its text, an ObjectInfo with its strings. What a table takes that is empty.
NOTE_BYTES = 900
TABLE_BYTES = 1000

NOT_THERE = (Mark.ABSENT, Mark.UNKNOWN)

# Notes before they are worked into the leaves: so that a burst of creations costs each file a few microseconds, not a leaf.
NOTES = 512
# Former places that are remembered, and what each takes; rows that a leaf has at least whose place is.
FORMER = 10_000
FORMER_BYTES = 120
MANY_ROWS = PAGE_KEYS // 2
# Notes outside of any leaf that are remembered: the kernel looks up what was just made.
LONE_NOTES = 4096


@dataclass(frozen=True, slots=True)
class Known:
    """What stands under a text, and since when that is known."""

    value: ObjectInfo | Mark
    asked: Asked


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows from a stretch, from *lo* to *hi*, that is known without a gap; `oldest` is when the first of it was asked for."""

    rows: list[Row]
    lo: bytes
    hi: bytes
    oldest: Asked


class Table:
    """The directory *stem*. `using` counts who works on it: it is not expelled meanwhile; `began` is when the last listing began.

    `latest` is when the newest of what is known was asked for.
    `paid` and `hits` count pages that were listed for the sake of lookups, and lookups that were answered from here.
    `untouched` counts how often it was found unused by who looks now and then.
    `proof` is the key that this mount has last put below it, or HEAD has found there, and when: the directory was there then.
    """

    __slots__ = (
        "_former",
        "_leaves",
        "_los",
        "_notes",
        "_order",
        "_there",
        "_ticks",
        "began",
        "cost",
        "hits",
        "latest",
        "paid",
        "proof",
        "stem",
        "untouched",
        "using",
    )

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.using = 0
        self.paid = self.hits = self.untouched = 0
        self.began: Asked | None = None
        self.latest: Asked | None = None
        self.proof: tuple[str, Asked] | None = None
        self.cost = TABLE_BYTES
        self._leaves: list[Leaf] = []
        self._los: list[bytes] = []
        self._notes: dict[bytes, Known] = {}
        self._order: list[bytes] = []
        self._ticks = 0
        self._former: list[bytes] = []
        self._there = 0

    def __repr__(self) -> str:
        return f"<Table {self.stem!r} {len(self._leaves)} leaves, {len(self._notes)} notes>"

    def check(self) -> None:
        assert self._los == [leaf.lo for leaf in self._leaves], "T1"
        assert all(one.hi <= other.lo for one, other in itertools.pairwise(self._leaves)), "T1"
        for leaf in self._leaves:
            leaf.check()
        for text, note in self._notes.items():
            cover = self._covering(text)
            assert cover is None or cover.asked.number < note.asked.number, "T2"
        assert self._order == sorted(self._notes), "T3"
        assert self._there == sum(note.value not in NOT_THERE for note in self._notes.values()), "T3"
        known = NOTE_BYTES * len(self._notes) + sum(leaf.cost for leaf in self._leaves)
        assert self.cost == TABLE_BYTES + known + FORMER_BYTES * len(self._former), "T4"

    # -- questions --------------------------------------------------------------------

    @property
    def leaves(self) -> list[Leaf]:
        return list(self._leaves)

    @property
    def stretches(self) -> int:
        """How many leaves: about as many as pages of a listing."""
        return len(self._leaves)

    @property
    def is_of_use(self) -> bool:
        """Whether anything is left, if only where pages began."""
        return bool(self._leaves or self._notes or self._former)

    @property
    def is_empty(self) -> bool:
        return not self._leaves and not self._notes

    def look(self, text: bytes) -> Known | None:
        """What is known under *text*; None where nothing is."""
        note = self._notes.get(text)
        if note is not None:
            return None if note.value is Mark.UNKNOWN else note
        leaf = self._covering(text)
        if leaf is None:
            return None
        self._touch(leaf)
        return Known(leaf.get(text), leaf.asked)

    def is_doubted(self, text: bytes) -> bool:
        """Whether a change of this mount left it open what stands under *text*."""
        note = self._notes.get(text)
        return note is not None and note.value is Mark.UNKNOWN

    def page(self, lo: bytes, limit: int, accept: Accept) -> Piece | None:
        """Up to *limit* rows from *lo* on, from leaves and notes that *accept* takes; None where the first of them is not known so."""
        rows: list[Row] = []
        at, oldest = lo, None
        while len(rows) < limit and at != END:
            leaf = self._covering(at)
            if leaf is None or not accept(leaf.asked):
                break
            self._touch(leaf)
            oldest = leaf.asked if oldest is None or leaf.asked.at_s < oldest.at_s else oldest
            stop = self._doubt(at, leaf.hi, accept)
            rows += self._merged(leaf, at, stop)
            at = stop
            if stop != leaf.hi:
                break
        if len(rows) > limit:
            del rows[limit:]
            at = behind(rows[-1][0])
        if oldest is None or (at != END and not rows):
            return None
        return Piece(rows, lo, END if at == END else behind(rows[-1][0]), oldest)

    def holds_any(self, since: Asked) -> bool:
        """Whether a row is known to be there from an answer not earlier than *since*. Errs towards no."""
        if self._there and any(note.asked.number >= since.number and note.value not in NOT_THERE for note in self._notes.values()):
            return True
        return sum(len(leaf) for leaf in self._leaves if leaf.asked.number >= since.number) > len(self._notes)

    def shows_any(self, accept: Accept) -> bool:
        """Whether rows are there by a listing that *accept* takes. Errs towards no."""
        return sum(len(leaf) for leaf in self._leaves if accept(leaf.asked)) > len(self._notes)

    def rows_known(self) -> int:
        return sum(map(len, self._leaves))

    def rows_behind(self, lo: bytes) -> Iterator[Row]:
        """Rows from *lo* on as far as they are known without a gap, of any age."""
        at = lo
        while at != END and (leaf := self._covering(at)) is not None:
            yield from self._merged(leaf, at, leaf.hi)
            at = leaf.hi

    def leaves_behind(self, text: bytes) -> Iterator[Leaf]:
        """Those that begin behind *text*, in order, and then the others, but for the one that covers it."""
        at = bisect_right(self._los, text)
        yield from (leaf for leaf in [*self._leaves[at:], *self._leaves[: max(0, at - 1)]])

    def unread(self, place: bytes) -> int:
        """Rows known behind *place*."""
        return sum(len(leaf) for leaf in self._leaves[bisect_left(self._los, place) :])

    def stretch(self, text: bytes) -> str | None:
        """What to list behind, so as to ask anew for the stretch that covers *text*; None where none does."""
        leaf = self._covering(text)
        if leaf is None or leaf.lo == START:
            return None if leaf is None else ""
        return self.stem + leaf.lo[:-1].decode() if leaf.lo.endswith(b"\0") else just_before(self.stem + leaf.lo.decode())

    # -- what is told -----------------------------------------------------------------

    def record(self, leaf: Leaf) -> None:
        """A listing has told all about a stretch. What is known from later requests stays."""
        pieces = [leaf]
        for old in self._overlapping(leaf.lo, leaf.hi):
            if old.asked.number > leaf.asked.number:
                pieces = [rest for piece in pieces for rest in _without(piece, old.lo, old.hi)]
            else:
                self._replace(old, _without(old, leaf.lo, leaf.hi))
        for piece in pieces:
            for text in self._order[bisect_left(self._order, piece.lo) : bisect_left(self._order, piece.hi)]:
                if self._notes[text].asked.number <= piece.asked.number:
                    self._drop_note(text)
            self._add(piece)
        told = self._former_in(leaf.lo, leaf.hi)
        if told:
            del self._former[bisect_left(self._former, leaf.lo) : bisect_left(self._former, leaf.hi)]
            self.cost -= FORMER_BYTES * len(told)

    def note(self, text: bytes, value: ObjectInfo | Mark, asked: Asked) -> None:
        """*value* stands under *text*, as of *asked*; something later that is known goes before it."""
        known = self._notes.get(text)
        leaf = self._covering(text)
        if (known is not None and known.asked.number > asked.number) or (leaf is not None and leaf.asked.number >= asked.number):
            return
        if known is not None:
            self._drop_note(text)
        self._notes[text] = Known(value, asked)
        self._there += value not in NOT_THERE
        self._learnt(asked)
        insort(self._order, text)
        self.cost += NOTE_BYTES
        if len(self._notes) > max(NOTES, self.rows_known() // 4):
            self._work_in(asked)

    def fill(self, infos: Iterable[ObjectInfo]) -> None:
        """Attributes of rows that have none yet, as long as they are the versions that *infos* speak of."""
        changed: dict[bytes, int] = {}
        for info in infos:
            text = text_of(self.stem, info.key)
            note, leaf = self._notes.get(text), self._covering(text)
            if note is not None:
                if isinstance(note.value, ObjectInfo) and note.value.metadata is None and note.value.etag == info.etag:
                    self._notes[text] = Known(info, note.asked)
            elif leaf is not None:
                changed.setdefault(leaf.lo, leaf.cost)
                leaf.fill(text, info)
        for lo, cost in changed.items():
            leaf = self._covering(lo)
            self.cost += (leaf.cost if leaf is not None else cost) - cost

    # -- forgetting -------------------------------------------------------------------

    def drop_coldest(self, place: bytes | None) -> int:
        """Forget a tenth of the leaves: those before *place* first, then those used longest ago; how many bytes that gives."""
        many = max(1, len(self._leaves) // 10)
        return self._drop(sorted(self._leaves, key=lambda leaf: (place is None or leaf.lo >= place, leaf.used))[:many])

    def drop_read(self, place: bytes, fresh: Accept, *, most: int) -> int:
        """Forget leaves before *place* that are not *fresh*, the furthest first, until that gives *most* bytes; how many it gives."""
        read = [leaf for leaf in self._leaves if leaf.hi <= place and not fresh(leaf.asked)]
        before = itertools.accumulate((leaf.cost for leaf in read), initial=0)
        return self._drop([leaf for leaf, given in zip(read, before, strict=False) if given < most])

    def drop_all(self) -> int:
        """Forget all but where pages began, which is made anew, or it would keep the memory around it; how many bytes that gives."""
        given = self._drop(self.leaves)
        self._former = [bytes(bytearray(place)) for place in self._former]
        return given

    def _drop(self, leaves: Iterable[Leaf]) -> int:
        before = self.cost
        for leaf in leaves:
            if len(leaf) >= MANY_ROWS:
                self.began_at(leaf.lo)
            for text in self._order[bisect_left(self._order, leaf.lo) : bisect_left(self._order, leaf.hi)]:
                self._drop_note(text)
            self._replace(leaf, [])
        if not self._leaves:
            for text in list(self._order):
                self._drop_note(text)
        return before - self.cost

    # -- where pages began ----------------------------------------------------------------

    def began_at(self, place: bytes) -> None:
        """A page began at *place* when it was last listed."""
        if place.endswith(b"\0") and len(self._former) < FORMER and place not in self._former_in(place, behind(place)):
            insort(self._former, place)
            self.cost += FORMER_BYTES

    def former(self) -> list[bytes]:
        """Where pages began when they were last listed, in order."""
        leaves = (leaf.lo for leaf in self._leaves if len(leaf) >= MANY_ROWS and leaf.lo.endswith(b"\0"))
        return sorted({*self._former, *leaves})

    def _former_in(self, lo: bytes, hi: bytes) -> list[bytes]:
        return self._former[bisect_left(self._former, lo) : bisect_left(self._former, hi)]

    # -- leaves -----------------------------------------------------------------------

    def _covering(self, text: bytes) -> Leaf | None:
        at = bisect_right(self._los, text) - 1
        return self._leaves[at] if at >= 0 and text < self._leaves[at].hi else None

    def _overlapping(self, lo: bytes, hi: bytes) -> list[Leaf]:
        first = max(0, bisect_right(self._los, lo) - 1)
        return [leaf for leaf in self._leaves[first : bisect_left(self._los, hi)] if leaf.hi > lo]

    def _replace(self, leaf: Leaf, rest: list[Leaf]) -> None:
        at = bisect_left(self._los, leaf.lo)
        del self._leaves[at], self._los[at]
        self.cost -= leaf.cost
        for piece in rest:
            self._add(piece)

    def _add(self, leaf: Leaf) -> None:
        at = bisect_left(self._los, leaf.lo)
        self._leaves.insert(at, leaf)
        self._learnt(leaf.asked)
        self._los.insert(at, leaf.lo)
        self.cost += leaf.cost
        self._touch(leaf)

    def _learnt(self, asked: Asked) -> None:
        if self.latest is None or asked.at_s > self.latest.at_s:
            self.latest = asked

    def _touch(self, leaf: Leaf) -> None:
        self._ticks += 1
        leaf.used = self._ticks

    # -- notes ------------------------------------------------------------------------

    def _drop_note(self, text: bytes) -> None:
        self._there -= self._notes.pop(text).value not in NOT_THERE
        del self._order[bisect_left(self._order, text)]
        self.cost -= NOTE_BYTES

    def _doubt(self, lo: bytes, hi: bytes, accept: Accept) -> bytes:
        """The first text from *lo* to before *hi* whose note does not answer; *hi* where all do."""
        for text in self._order[bisect_left(self._order, lo) : bisect_left(self._order, hi)]:
            note = self._notes[text]
            if note.value is Mark.UNKNOWN or not accept(note.asked):
                return text
        return hi

    def _merged(self, leaf: Leaf, lo: bytes, hi: bytes) -> list[Row]:
        """The leaf's rows from *lo* to before *hi*, with what the notes say."""
        texts = self._order[bisect_left(self._order, lo) : bisect_left(self._order, hi)]
        if not texts:
            return leaf.rows(lo, hi)
        rows = dict(leaf.rows(lo, hi))
        rows.update((text, self._notes[text].value) for text in texts)
        return sorted(((t, v) for t, v in rows.items() if v is not Mark.ABSENT and v is not Mark.UNKNOWN), key=lambda row: row[0])

    def _work_in(self, now: Asked) -> None:
        """Make the notes part of their leaves, which keep their age; of the others some are forgotten where they are too many."""
        for leaf in self.leaves:
            texts = self._order[bisect_left(self._order, leaf.lo) : bisect_left(self._order, leaf.hi)]
            if not texts:
                continue
            said = {text: self._notes[text].value for text in texts}
            for text in texts:
                self._drop_note(text)
            unknown = [text for text, value in said.items() if value is Mark.UNKNOWN]
            pieces = [leaf.changed({**said, **dict.fromkeys(unknown, Mark.ABSENT)}, Asked(now.number, leaf.asked.at_s))]
            for text in unknown:
                pieces = [rest for piece in pieces for rest in _without(piece, text, behind(text))]
            self._replace(leaf, pieces)
        if len(self._notes) > LONE_NOTES:
            for text in self._order[::2]:
                self._drop_note(text)


def _without(leaf: Leaf, lo: bytes, hi: bytes) -> list[Leaf]:
    """What is left of *leaf* outside of *lo* to *hi*."""
    if hi <= leaf.lo or leaf.hi <= lo:
        return [leaf]
    rest = []
    if leaf.lo < lo:
        rest.append(leaf.part(leaf.lo, lo))
    if hi < leaf.hi:
        rest.append(leaf.part(hi, leaf.hi))
    return rest

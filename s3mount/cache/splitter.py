"""Listing one large directory in several places at once: where to ask next.

Owns: the guess where pages begin that nobody has reached yet, and how many such guesses may fail.
Must not know: requests, time, tables. Pure.

A listing can begin behind any text, so several pages can be under way at a time, if one guesses texts that lie apart. Whatever the guess,
each page says what it covers, so no key is lost or told twice by a bad one; it costs at most one request: the last page before the guessed
place reaches beyond it, or the guessed place lies behind the last key.

The guesses go in strides: from how far apart the names of the pages so far are, so many pages further. The first one tells whether the
directory is that long at all. A gap between two places that turns out to be long is divided once more. Where it is known from an earlier
listing where pages began, guesses are taken from there, from the first page on.

What lies between two guesses is listed one page after another, and a reader who comes there waits for each: long strides are for names
whose guesses cost something. Where names are counted up, or known from an earlier listing, and nothing was lost so far, strides are short,
so that the next pages of the reader are all under way; and there a first guess is made before ten pages, though not beyond these.

    |pages read|==gap==>|pages|==gap==>|pages|==gap, open=======>
               ^ lane           ^ lane        ^ lane

S1  Spans are disjoint, in order, and hold only what was listed.
S2  A guess lies strictly inside a gap in which nothing is under way behind it.
S3  pages asked for <= pages needed by one listing from front to end + the greater of `SPARE` and one in `PER_SPARE`.

A guess is free if the page before it ends where it begins, as it does where names are counted up; what it cost is known when the gap before
it is closed. So S3 holds because no guess is made while what was lost and what open gaps may still lose, a page each, are as many.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from s3mount.cache.ruler import Ruler
from s3mount.cache.texts import END, START, behind

# Pages under way at a time: issue-sized directories in a fifth of the time, and still few against the connections of a mount.
LANES = 6
# Pages from one guess to the next, which one lane lists one after another: five guesses divide a hundred pages. Where guesses are free.
STRIDE = 16
NEAR = 4
# Pages that may be lost: so many of the first hundred, then one in so many.
SPARE = 5
PER_SPARE = 20
# A gap of fewer pages is not worth dividing.
LONG_GAP = 4
# Pages before the first guess, so that directories of up to ten thousand keys cost what they cost. Before one that costs nothing if the
# directory reaches so far.
PAGES_BEFORE = 10
COUNTED_BEFORE = 5
# Names that the ruler is made from, of each page.
SAMPLES = 24
# Names and pages that are remembered to measure by.
NAMES = 1000
RECENT = 16


@dataclass(frozen=True, slots=True)
class Gap:
    """What nobody has listed: from *lo*, where the listing goes on, to *hi*."""

    lo: bytes
    hi: bytes

    @property
    def is_open(self) -> bool:
        return self.hi == END


class Splitter:
    """One listing of one directory."""

    def __init__(self, *, lanes: int = LANES, page_rows: int = 1000) -> None:
        self._lanes = lanes
        self._page_rows = page_rows
        self._spans: list[tuple[bytes, bytes]] = []
        self._flying: set[bytes] = set()
        self._tried: set[bytes] = set()
        self._names: list[str] = []
        self._ends: list[tuple[str, str, int]] = []
        self._ruler: Ruler | None = None
        self._page_distance = 1
        self._counted = False
        self._furthest = ""
        self._former: Sequence[bytes] = ()
        self._lost_rows = 0
        self.pages = self.splits = 0

    def __repr__(self) -> str:
        return f"<Splitter {self.pages} pages, {self.splits} guesses, {len(self._flying)} under way, {len(self._spans)} spans>"

    @property
    def flying(self) -> int:
        """Pages under way."""
        return len(self._flying)

    def check(self) -> None:
        ends = [place for span in self._spans for place in span]
        assert ends == sorted(set(ends)), "S1"
        assert len(self._flying) <= self._lanes, "lanes"

    # -- what happened ----------------------------------------------------------------

    def landed(self, lo: bytes, hi: bytes, names: Sequence[str]) -> None:
        """A page from *lo* has told all up to *hi*; *names* are its rows, in order."""
        asked = lo in self._flying
        self._flying.discard(lo)
        self._tried.discard(lo)
        if any(start <= lo and hi <= stop for start, stop in self._spans):
            self._lost_rows += self._page_rows * asked
            return
        self.pages += 1
        self._lost_rows += self._lost_of(lo, hi, names)
        self._cover(lo, hi)
        if len(names) > 1:
            self._learn(names)

    def _lost_of(self, lo: bytes, hi: bytes, names: Sequence[str]) -> int:
        """How many rows of a page were told before, or could have been in it."""
        known = min((start for start, _ in self._spans if lo < start < hi), default=None)
        return max(0, self._page_rows - (len(names) if known is None else bisect_right(names, _name(known))))

    def _learn(self, names: Sequence[str]) -> None:
        """How far apart names are."""
        some = [*names[:: max(1, len(names) // SAMPLES)], names[-1]]
        self._furthest = max(self._furthest, names[-1])
        self._ends = [*self._ends[-RECENT:], (names[0], names[-1], len(names) - 1)]
        if self._ruler is None or not self._ruler.fits(some):
            self._names = [*self._names[-NAMES:], *some]
            self._ruler = Ruler(self._names)
        measured = [(self._ruler.measure(last) - self._ruler.measure(first), rows) for first, last, rows in self._ends]
        distance, many = (sum(column) for column in zip(*measured, strict=True))
        self._page_distance = max(1, distance * self._page_rows // many)
        self._counted = all(one * many == rows * distance for one, rows in measured)

    def known(self, lo: bytes, hi: bytes) -> None:
        """What lies between need not be asked for."""
        self._cover(lo, hi)

    def formerly(self, places: Sequence[bytes]) -> None:
        """Pages of an earlier listing began at *places*, in order."""
        self._former = places

    def failed(self, lo: bytes) -> None:
        """The page from *lo* could not be had: somebody may ask again."""
        self._flying.discard(lo)
        self._tried.discard(lo)

    def _cover(self, lo: bytes, hi: bytes) -> None:
        spans = [*self._spans, (lo, hi)]
        spans.sort()
        joined = [spans[0]]
        for start, stop in spans[1:]:
            if start <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(stop, joined[-1][1])
            else:
                joined.append((start, stop))
        self._spans = joined

    # -- what to do ---------------------------------------------------------------------

    def next_places(self, reader: bytes, *, most: int = LANES) -> list[bytes]:
        """Where to begin pages now (up to *most*), for a reader who is at *reader*; they count as under way from here on."""
        places: list[bytes] = []
        while len(places) < most and len(self._flying) < self._lanes and (place := self._next(reader)) is not None:
            self._flying.add(place)
            places.append(place)
        return places

    def _next(self, reader: bytes) -> bytes | None:
        gaps = self.gaps(reader)
        going_on = next((gap.lo for gap in gaps if gap.lo not in self._flying and not self._is_coming(gap.lo)), None)
        if going_on is not None or not self._may_guess(gaps):
            return going_on
        place = self._guess(gaps)
        if place is not None:
            self.splits += 1
            self._tried.add(place)
        return place

    def _is_coming(self, place: bytes) -> bool:
        """Whether a page under way, passed meanwhile by the page before it, will tell what follows *place*."""
        return any(lo < flying < place == hi for lo, hi in self._spans for flying in self._flying)

    def gaps(self, reader: bytes = START) -> list[Gap]:
        """What is left to be listed behind *reader*, cut where something is under way."""
        gaps, at = [], reader
        for lo, hi in self._spans:
            if lo > at:
                gaps.append(Gap(at, lo))
            at = max(at, hi)
        if at < END:
            gaps.append(Gap(at, END))
        return [piece for gap in gaps for piece in self._cut(gap)]

    def _cut(self, gap: Gap) -> list[Gap]:
        places = sorted(place for place in self._flying if gap.lo < place < gap.hi)
        return [Gap(lo, hi) for lo, hi in zip([gap.lo, *places], [*places, gap.hi], strict=True)]

    def _may_guess(self, gaps: Sequence[Gap]) -> bool:
        """One to try, more where that was right."""
        if self.pages < self._before and not self._former:
            return False
        at_stake = sum(not gap.is_open for gap in gaps) + -(-self._lost_rows // self._page_rows)
        return at_stake < max(min(SPARE, self._spare()), self.pages // PER_SPARE)

    @property
    def _before(self) -> int:
        """Pages before the first guess."""
        return COUNTED_BEFORE if self._counted else PAGES_BEFORE

    @property
    def _stride(self) -> int:
        """Pages from one guess to the next."""
        return NEAR if (self._counted or self._former) and self._lost_rows < self._page_rows else STRIDE

    def _spare(self) -> int:
        """How many guesses may fail."""
        if self._former or self._counted:
            return SPARE
        return 1 + 3 * (self._reach() // (PAGES_BEFORE + STRIDE)) + self.pages // PAGES_BEFORE - 1

    def _reach(self) -> int:
        """How many pages lie before the last name that was seen, by estimate."""
        if self._ruler is None:
            return 0
        return (self._ruler.measure(self._furthest) - self._ruler.measure(self._names[0])) // self._page_distance

    # -- guesses ----------------------------------------------------------------------

    def _guess(self, gaps: Sequence[Gap]) -> bytes | None:
        if (place := self._of_former(gaps)) is not None:
            return place
        if self._ruler is None or not gaps or self.pages < self._before + len(self._former):
            return None
        if self._counted and gaps[-1].lo in self._tried:
            return None  # nobody knows yet whether the directory is that long
        if self.pages < PAGES_BEFORE and not self._former:
            return self._early(gaps[-1])
        if gaps[-1].is_open and (place := self._at(gaps[-1], self._stride * self._page_distance)) is not None:
            return place
        longest = max(gaps, key=self._distance_of)
        if self._distance_of(longest) < LONG_GAP * self._page_distance:
            return None
        return self._at(longest, self._distance_of(longest) // self._page_distance // 2 * self._page_distance)

    def _early(self, gap: Gap) -> bytes | None:
        """A place in *gap*, the last one, that a directory of `PAGES_BEFORE` pages reaches."""
        assert self._ruler is not None
        before = -(-(self._ruler.measure(_name(gap.lo)) - self._ruler.measure(self._names[0])) // self._page_distance)
        stride = min(self.pages, NEAR, PAGES_BEFORE - 1 - before)
        return self._at(gap, stride * self._page_distance) if gap.is_open and stride > 1 else None

    def _of_former(self, gaps: Sequence[Gap]) -> bytes | None:
        inside: Sequence[bytes] = max((self._former_in(gap) for gap in gaps), key=len, default=())
        return inside[min(self._stride - 1, len(inside) // 2)] if len(inside) > 1 else None

    def _former_in(self, gap: Gap) -> Sequence[bytes]:
        return self._former[bisect_right(self._former, gap.lo) : bisect_left(self._former, gap.hi)]

    def _distance_of(self, gap: Gap) -> int:
        """How far *gap* reaches; one that is open, to the last name that can be measured."""
        assert self._ruler is not None
        end = self._ruler.top if gap.is_open else self._ruler.measure(_name(gap.hi))
        return end - self._ruler.measure(_name(gap.lo))

    def _at(self, gap: Gap, distance: int) -> bytes | None:
        """The place *distance* behind the beginning of *gap*, if that lies in it."""
        assert self._ruler is not None
        name = self._ruler.name(self._ruler.measure(_name(gap.lo)) + distance)
        if name is None or _has_surrogates(name):
            return None
        place = behind(name.encode())
        return place if gap.lo < place < gap.hi else None


def _name(place: bytes) -> str:
    """The text that *place* lies behind."""
    return place.rstrip(b"\0").decode(errors="replace")


def _has_surrogates(name: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in name)

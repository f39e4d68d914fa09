"""Walks of a tree: directories listed before they are entered.

Owns: noticing that directories are entered one after another, and the cheapest way to have the next ones ready.
Must not know: how large directories are listed, who walks.

Directories beside each other are entered, one after another: somebody walks. Two ways to be ahead of him:

    flat    pages of all keys below one directory, in one listing without delimiter. A page of a thousand keys tells of many small
            directories, and of all that lies below them. Tried where the directories seen were small; kept where a page was worth
            `WORTH` directories. Listed is the highest directory from which the walker came down, reading each on his way: pages that
            begin at the same place tell the same, and those of the higher one go on into the next branch.
    beside  the first pages of the next directories, several at a time; more each time one of them is entered, but no more than the walker
            gets to before they are too old.

    UNTRIED --`ENTERED` entered, small on average--> (a page) --told of `WORTH` directories--> GOOD --a page did not--> BAD
                                                              --did not--> BAD

A walker who came down two levels is believed one directory sooner. A parent whose children were walked flat suggests the same for its
other children, from their beginning.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from s3mount.cache.asking import Asking, Flight
from s3mount.cache.attributes import Attributes
from s3mount.cache.leaf import Asked, Mark
from s3mount.cache.table import Accept
from s3mount.cache.tables import Tables
from s3mount.cache.tasks import Background
from s3mount.cache.texts import behind, just_before, parent_of, stem_of, text_of
from s3mount.model import Page
from s3mount.store.api import PAGE_KEYS

# Directories entered in order before anything is done about it: two may be chance.
ENTERED = 3
# A flat page must tell of so many directories to be the cheaper way, and those seen must be small enough for that.
WORTH = 3
SMALL_ROWS = PAGE_KEYS // WORTH
# First pages of directories beside, asked for at a time.
BESIDE = 16
# Parents that are remembered.
WALKS = 256


class Flat(Enum):
    """Whether listing without delimiter is the cheaper way."""

    UNTRIED = auto()
    GOOD = auto()
    BAD = auto()


@dataclass(slots=True)
class Walk:
    """What was seen of the directories in one parent: the one entered last, and the one last read from its beginning.

    `starts` are where the latest flat pages begin; `onward` continues them. `pace` is when the latest directories were entered.
    """

    last: str = ""
    read: str = ""
    entered: int = 0
    rows: int = 0
    listed: int = 0
    flat: Flat = Flat.UNTRIED
    children_flat: bool = False
    flying: Flight[Page] | None = None
    onward: str | None = None
    starts: deque[str] = field(default_factory=lambda: deque(maxlen=2))
    pace: deque[Asked] = field(default_factory=lambda: deque(maxlen=BESIDE))
    window: int = 1
    ahead: str = ""

    @property
    def looks_small(self) -> bool:
        return self.listed > 0 and self.rows <= SMALL_ROWS * self.listed


class Walks:
    """The walks in one store."""

    def __init__(self, tables: Tables, asking: Asking, attributes: Attributes, background: Background, fresh: Accept) -> None:
        self._fresh = fresh
        self._tables = tables
        self._asking = asking
        self._attributes = attributes
        self._background = background
        self._walks: OrderedDict[str, Walk] = OrderedDict()
        self._beside = 0
        self._top_read = False

    def __repr__(self) -> str:
        return f"<Walks {dict(self._walks)!r}>"

    def _walk(self, parent: str) -> Walk:
        walk = self._walks.setdefault(parent, Walk())
        self._walks.move_to_end(parent)
        if len(self._walks) > WALKS:
            self._walks.popitem(last=False)
        return walk

    def _enter(self, stem: str) -> Walk:
        parent = parent_of(stem)
        for above in above_of(parent):
            if above in self._walks:
                self._walks.move_to_end(above)
        walk = self._walk(parent)
        if stem > walk.last:
            walk.entered += 1 + (not walk.entered and parent != "" and self._was_read(parent) and self._was_read(parent_of(parent)))
        elif stem < walk.last:
            walk.entered, walk.window, walk.ahead = 1, 1, ""
        if stem != walk.last:
            walk.pace.append(self._tables.ask())
        walk.last = stem
        return walk

    def _was_read(self, stem: str) -> bool:
        """Whether *stem* is the directory, of those beside it, that somebody read last."""
        if not stem:
            return self._top_read
        walk = self._walks.get(parent_of(stem))
        return walk is not None and walk.read == stem

    # -- what happens -------------------------------------------------------------------

    def first(self, stem: str) -> Flight[Page]:
        """Ask for the beginning of *stem*, which is not known: the flight after which it is, or one may ask again."""
        if not stem:
            return self._asking.page(stem)
        walk = self._enter(stem)
        if (above := self._flat_above(stem)) is not None:
            good = self._walk(above)
            if good.flying is not None and good.onward is not None and good.onward < stem:
                return good.flying
            return self._start_flat(above, good, just_before(stem), stem)
        if walk.flat is Flat.UNTRIED and walk.children_flat:
            return self._start_flat(stem, self._walk(stem), "", stem)
        if walk.flat is Flat.UNTRIED and walk.entered >= ENTERED and walk.looks_small:
            walk.flat = Flat.BAD  # unless a page proves the contrary: of the directory above or of this one, it would be the same page
            above = self._came_down_from(parent_of(stem))
            return self._start_flat(above, self._walk(above), just_before(stem), stem, trying=walk)
        flight = self._asking.page(stem)
        flight.when_landed(lambda page: self._weigh(walk, page))
        self._list_beside(stem, walk)
        return flight

    def next(self, stem: str, after: str) -> Flight[Page]:
        """Ask for how *stem* goes on behind *after*: flat where a flat page ended there."""
        if (above := self._flat_above(stem)) is not None:
            walk = self._walk(above)
            if walk.onward is not None and walk.onward.startswith(stem):
                return walk.flying or self._start_flat(above, walk, walk.onward, stem)
        return self._asking.page(stem, after)

    def visited(self, stem: str) -> None:
        """*stem* is listed, from its beginning; it may have been known."""
        if not stem:
            self._top_read = True
            return
        walk = self._enter(stem)
        walk.read = stem
        if (above := self._flat_above(stem)) is not None:
            self._go_on(above, self._walk(above), stem)
        elif walk.entered >= ENTERED and walk.ahead:
            self._list_beside(stem, walk)

    def let_go(self) -> None:
        """Called now and then: forget when directories were entered that nobody is among any more."""
        for walk in self._walks.values():
            if walk.pace and not self._fresh(walk.pace[-1]):
                walk.pace.clear()

    # -- flat -----------------------------------------------------------------------------

    def _flat_above(self, stem: str) -> str | None:
        """The highest directory above *stem* that is listed flat."""
        good = [above for above in above_of(stem) if above in self._walks and self._walks[above].flat is Flat.GOOD]
        return good[-1] if good else None

    def _came_down_from(self, stem: str) -> str:
        """The highest directory from which on somebody read each one down to *stem*."""
        for above in above_of(stem):
            walk = self._walks.get(above)
            if not self._was_read(above) or walk is None or walk.flat is Flat.BAD:
                break
            stem = above
        return stem

    def _start_flat(self, parent: str, walk: Walk, after: str, sought: str, *, trying: Walk | None = None) -> Flight[Page]:
        # Only a page that begins before all of *sought* can tell that there is nothing of it.
        flight = self._asking.flat(parent, after, sought=sought if "" < after < sought else "")
        walk.flying, walk.onward = flight, after
        walk.starts.append(sought)
        flight.when_landed(lambda page: self._judge(parent, walk, flight, page, trying))
        return flight

    def _judge(self, parent: str, walk: Walk, flight: Flight[Page], page: Page | None, trying: Walk | None) -> None:
        """Whether the page was worth it, and from where to go on; *trying* is the walk for whose sake it was asked for."""
        if walk.flying is not flight:
            return
        walk.flying = None
        if page is None:
            walk.onward = None
            if trying is not None:
                trying.flat = Flat.UNTRIED
            return
        worth = page.next is None or len({stem_of(info.key) for info in page.objects} - {parent}) > WORTH
        if worth and trying is not None:
            trying.flat = Flat.UNTRIED
        walk.flat = Flat.GOOD if worth else Flat.BAD
        walk.onward = page.next if worth else None
        if worth and parent:
            self._walk(parent_of(parent)).children_flat = True
        self._background.start(self._attributes.ahead, page.objects)

    def _go_on(self, parent: str, walk: Walk, stem: str) -> None:
        """Ask for the next flat page as soon as the one before the last is being read."""
        if walk.flying is None and walk.onward is not None and walk.starts and stem >= walk.starts[0] and not self._tables.is_nearly_full:
            self._start_flat(parent, walk, walk.onward, walk.onward)

    # -- beside -----------------------------------------------------------------------------

    def _weigh(self, walk: Walk, page: Page | None) -> None:
        """How large directories are here."""
        if page is not None:
            walk.listed += 1
            walk.rows += len(page.objects) + len(page.prefixes) + (0 if page.next is None else PAGE_KEYS)

    def _list_beside(self, stem: str, walk: Walk) -> None:
        """Ask for the first pages of the directories that follow *stem*."""
        if walk.entered < ENTERED or self._tables.is_nearly_full:
            return
        walk.window = min(BESIDE, max(1, walk.window) * 2, sum(map(self._fresh, walk.pace)) - 1)
        parent = parent_of(stem)
        table = self._tables.find(parent)
        if table is None:
            return
        following = 0
        for text, value in table.rows_behind(behind(text_of(parent, stem))):
            if following >= walk.window or self._beside >= BESIDE:
                return
            if value is Mark.PREFIX:
                following += 1
                if (beside := parent + text.decode()) > walk.ahead:
                    walk.ahead = beside
                    self._beside += 1
                    self._asking.page(beside).when_landed(lambda page: self._landed_beside(walk, page))

    def _landed_beside(self, walk: Walk, page: Page | None) -> None:
        self._beside -= 1
        self._weigh(walk, page)


def above_of(stem: str) -> Iterator[str]:
    """The directories above *stem*, the nearest first."""
    while stem:
        stem = parent_of(stem)
        yield stem

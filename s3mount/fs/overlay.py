"""Which object stands under which key while whole directories move.

Owns: keys that show an object which still lies elsewhere, keys that show nothing any more though their object is still there, and pages of
listings put right.
Must not know: how keys are carried, stores, inodes. Pure; nothing here awaits.

A rename of many keys is answered when it is written down; from then on the whole tree is seen under its new name. Each key is a leg:

    WAITING --copied--> COPIED --source deleted--> OVER
       |  seen at the target,     |  seen at the target, where it is;
       |  read at the source      |  not seen at the source
       `--taken over by another rename, or somebody else's by now--> OVER

What lies under a source (an area) is not seen until all its legs are over, but for what this mount has put there since (`reborn`): what
other clients put there meanwhile is seen late, and never touched. A leg whose source cannot be deleted has an area of that key `alone`.

A COPIED leg whose source cannot be deleted may be detached: what is seen at its target is its own affair from then on, and only the source
is still hidden, until it can be deleted or something else is put there.

A rename that failed hides the copies that it could not take back yet (`hide`), each in the version that it made: what others put there is
seen. Whether a common prefix shows only such copies, or single keys that are not seen, has to be asked.

V1  A key is the source of at most one leg that is not over, and the target of at most one.
V2  Each leg that is not over has its source in an area.
V3  A leg that is not over and not detached is found by its target.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import trio

from s3mount.fs.areas import Area, Areas
from s3mount.fs.listing import END
from s3mount.model import ETag, Key, ObjectInfo, Page

# Names find their places one by one where there are at least so many for each: else all are sorted anew.
FEW = 8


class State(Enum):
    WAITING = "waiting"
    COPIED = "copied"
    OVER = "over"


class Copies:
    """Keys that show nothing as long as the object is of this version (None: whatever it is). `left`: how many were not taken back yet."""

    __slots__ = ("_keys", "etags", "left")

    def __init__(self, etags: Mapping[str, ETag | None]) -> None:
        self.etags = dict(etags)
        self.left = len(etags)
        self._keys = sorted(etags)

    def hides(self, info: ObjectInfo) -> bool:
        return info.key in self.etags and self.etags[Key(info.key)] in (None, info.etag)

    def any_below(self, stem: str) -> bool:
        """Whether any lies below *stem*, or is its marker."""
        at = bisect_left(self._keys, stem)
        while at < len(self._keys) and self._keys[at].startswith(stem):
            if self._keys[at] in self.etags:
                return True
            at += 1
        return False


class Leg:
    """One key on its way. `info` is the source's, as it is seen under the target; `copy` what was made of it; `doubt`: it may be there.

    `late`: the source could not be deleted when it was copied.
    """

    __slots__ = ("areas", "busy", "copy", "doubt", "info", "late", "source", "state")

    def __init__(self, source: Key, info: ObjectInfo, areas: tuple[Area, ...]) -> None:
        self.source = source
        self.info = info
        self.areas = areas
        self.copy: ObjectInfo | None = None
        self.doubt = False
        self.late = False
        self.state = State.WAITING
        self.busy: trio.Event | None = None

    def __repr__(self) -> str:
        return f"<Leg {self.source!r} to {self.target!r} {self.state.value}>"

    @property
    def target(self) -> Key:
        return self.info.key

    @property
    def etag(self) -> ETag:
        return self.info.etag


@dataclass(frozen=True, slots=True)
class Asked:
    """A page that is asked for."""

    prefix: str
    delimiter: str
    after: str
    limit: int

    def rolled_up(self, key: str) -> str | None:
        """The common prefix that shows *key*, be it the key itself; None where that is shown as an object."""
        cut = key.find(self.delimiter, len(self.prefix)) if self.delimiter else -1
        return None if cut < 0 else key[: cut + len(self.delimiter)]


@dataclass(frozen=True, slots=True)
class View:
    """What was known of keys on their way when a page was asked for: its answer may be older than what happens meanwhile."""

    overlay: Overlay
    asked: Asked
    areas: Areas
    waiting: dict[str, Leg | None]
    copies: tuple[Copies, ...]

    def shows(self, info: ObjectInfo) -> bool:
        """Whether the store's word that *info* is there is to be believed."""
        return not self.areas.hides(info.key) and not any(copies.hides(info) for copies in self.copies)

    def doubtful(self, page: Page) -> list[str]:
        """The common prefixes of *page* below which there may be nothing but copies, and single keys that are not seen."""
        return [text for text in page.prefixes if text not in self.waiting and self._any_unseen_below(text)]

    def _any_unseen_below(self, stem: str) -> bool:
        return self.areas.any_key_below(stem) or any(copies.any_below(stem) for copies in self.copies)

    def merged(self, page: Page, unseen: Collection[str] = ()) -> Page | None:
        """*page* as it is seen, but for the common prefixes *unseen*; None where nothing of it is, and there is more behind it."""
        ends = [info.key for info in page.objects[-1:]] + list(page.prefixes[-1:])
        until = END if page.next is None else max(ends, default=self.asked.after)
        items: dict[str, ObjectInfo | None] = {info.key: info for info in page.objects if self.shows(info)}
        told = (text for text in page.prefixes if text not in unseen)
        items.update((text, None) for text in told if not self.areas.hides(text) or self.areas.leaves_below(text))
        for text, leg in self.waiting.items():
            if text <= until:
                self._put(items, text, leg)
        texts = sorted(items)
        more = page.next
        if len(texts) > self.asked.limit:
            texts = texts[: self.asked.limit]
            more = texts[-1]
        if not texts and more is not None:
            return None
        found = [(text, items[text]) for text in texts]
        return Page(tuple(info for _, info in found if info is not None), tuple(text for text, info in found if info is None), more)

    def _put(self, items: dict[str, ObjectInfo | None], text: str, leg: Leg | None) -> None:
        if leg is None:
            items[text] = None
        elif leg.state is State.WAITING:
            items[text] = leg.info
        elif leg.copy is not None:
            items.setdefault(text, leg.copy)


class Overlay:
    """All keys on their way."""

    def __init__(self) -> None:
        self._to: dict[str, Leg] = {}
        self._from: dict[str, Leg] = {}
        self._areas = Areas()
        self._copies: list[Copies] = []
        self._targets: list[str] = []

    def __repr__(self) -> str:
        return f"<Overlay of {len(self._to)} keys on their way>"

    @property
    def idle(self) -> bool:
        return not self._areas and not self._copies

    def check(self) -> None:
        assert all(key == leg.target and leg.state is not State.OVER for key, leg in self._to.items()), "V1"
        assert all(key == leg.source and leg.state is not State.OVER for key, leg in self._from.items()), "V1"
        for leg in self._from.values():
            assert any(area.covers(leg.source) for area in leg.areas), f"V2 {leg}"
            assert all(area in self._areas for area in leg.areas), f"V2 {leg}"
        assert self._targets == sorted(self._targets)
        assert set(self._to) <= set(self._targets)

    # -- one key ------------------------------------------------------------------------

    def waiting(self, key: str) -> Leg | None:
        """The leg that is seen under *key* and lies elsewhere."""
        leg = self._to.get(key)
        return leg if leg is not None and leg.state is State.WAITING else None

    def lagging(self, key: str) -> Leg | None:
        """The leg that has brought an object to *key* and could not delete it where it was."""
        leg = self._to.get(key)
        return leg if leg is not None and leg.state is State.COPIED and leg.late and key not in self._from else None

    def unseen(self, key: str) -> Leg | None:
        """The leg whose object could not be deleted under *key*, where it is not seen any more."""
        leg = self._from.get(key)
        return leg if leg is not None and leg.state is State.COPIED and leg.late else None

    def late(self, key: str) -> bool:
        """Whether something could not be deleted under *key*, or where what stands there came from."""
        return self.lagging(key) is not None or self.unseen(key) is not None

    def touching(self, key: str) -> list[Leg]:
        """Legs that go from or to *key*."""
        return [leg for leg in (self._from.get(key), self._to.get(key)) if leg is not None]

    @property
    def count(self) -> int:
        """How many legs are not over, those that are detached among them."""
        return len(self._from)

    def legs(self, prefix: str = "") -> list[Leg]:
        """All that are not over nor detached, and go to somewhere below *prefix*."""
        return [leg for key, leg in self._to.items() if key.startswith(prefix)]

    def hides(self, key: str) -> bool:
        """Whether what stands under *key*, if anything does, is gone from there."""
        return self._areas.hides(key)

    def is_copy(self, info: ObjectInfo) -> bool:
        """Whether *info* is a copy that is not seen."""
        return any(copies.hides(info) for copies in self._copies)

    def areas_of(self, source: str) -> Sequence[Area]:
        return self._areas.covering(source)

    # -- names --------------------------------------------------------------------------

    def shows_below(self, stem: str) -> bool:
        """Whether a key below *stem* is seen there and lies elsewhere."""
        at = bisect_left(self._targets, stem + "\0")
        while at < len(self._targets) and self._targets[at].startswith(stem):
            if self.waiting(self._targets[at]) is not None:
                return True
            at += 1
        return False

    def leaves_below(self, stem: str) -> bool:
        """Whether the store's word that keys lie below *stem* is to be believed."""
        return self._areas.leaves_below(stem)

    # -- pages --------------------------------------------------------------------------

    def view(self, asked: Asked) -> View:
        """What is to be made of a page that is asked for now."""
        return View(self, asked, self._areas.snapshot(), self._between(asked), tuple(self._copies))

    def _between(self, asked: Asked) -> dict[str, Leg | None]:
        """The first of what is seen behind `after` and lies elsewhere: keys with their legs, common prefixes."""
        found: dict[str, Leg | None] = {}
        at = bisect_left(self._targets, max(asked.prefix, asked.after))
        while at < len(self._targets) and len(found) <= asked.limit and (key := self._targets[at]).startswith(asked.prefix):
            leg = self.waiting(key)
            rolled_up = asked.rolled_up(key)
            if leg is not None and (text := rolled_up or key) > asked.after:
                found[text] = leg if rolled_up is None else None
            at = at + 1 if leg is None or rolled_up is None else bisect_left(self._targets, rolled_up + END)
        return found

    # -- coming and going ----------------------------------------------------------------

    def add(self, area: Area, legs: Sequence[Leg], instead_of: Sequence[Leg] = ()) -> None:
        """*legs*, at least one, leave *area*; *instead_of* are over, as they are carried on by some of them."""
        self._areas.add(area)
        for leg in legs:
            for area in leg.areas:
                area.legs += 1
        for leg in instead_of:
            self.over(leg)
        for leg in legs:
            assert leg.source not in self._from, f"V1 {leg}"
            assert leg.target not in self._to, f"V1 {leg}"
            self._to[leg.target] = self._from[leg.source] = leg
            self.put(leg.target)
        self._sort_in([leg.target for leg in legs])

    def _sort_in(self, targets: Sequence[str]) -> None:
        """One of many finds its place; where most are new, or over, all are sorted anew."""
        if len(targets) * FEW > len(self._targets) or len(self._targets) > 2 * len(self._to):
            self._targets = sorted({*(key for key in self._targets if key in self._to), *targets})
            return
        for target in targets:
            at = bisect_left(self._targets, target)
            if at == len(self._targets) or self._targets[at] != target:
                self._targets.insert(at, target)

    def copied(self, leg: Leg, copy: ObjectInfo) -> None:
        leg.copy, leg.state = copy, State.COPIED

    def add_detached(self, leg: Leg) -> None:
        """*leg*, which is COPIED, has only its source to be deleted, whatever stands at its target."""
        assert leg.source not in self._from, f"V1 {leg}"
        for area in leg.areas:
            area.legs += 1
            if area not in self._areas:
                self._areas.add(area)
        self._from[leg.source] = leg

    def detach(self, leg: Leg) -> None:
        """What stands at the target of *leg*, which is COPIED, has nothing to do with it any more."""
        del self._to[leg.target]

    def alone(self, leg: Leg) -> None:
        """The source of *leg*, which is COPIED, cannot be deleted: once the others have gone, what else is there is seen."""
        if any(area.is_tree for area in leg.areas):
            former, leg.areas = leg.areas, (Area(leg.source, alone=True),)
            leg.areas[0].legs += 1
            leg.areas[0].reborn.update(key for key in (leg.source,) if not any(area.hides(key) for area in former))
            self._areas.add(leg.areas[0])
            for area in former:
                self.ended(area)

    def over(self, leg: Leg) -> None:
        leg.state = State.OVER
        del self._from[leg.source]
        if self._to.get(leg.target) is leg:
            del self._to[leg.target]
        for area in leg.areas:
            self.ended(area)
        if not self._to:
            self._targets = []

    def hide(self, copies: Copies) -> None:
        """They are not seen until the last one was taken back."""
        self._copies.append(copies)

    def taken_back(self, copies: Copies) -> None:
        """One more of them."""
        copies.left -= 1
        if not copies.left:
            self._copies = [other for other in self._copies if other is not copies]

    def ended(self, area: Area) -> None:
        area.legs -= 1
        if not area.legs:
            self._areas.remove(area)

    def put(self, key: str) -> None:
        """This mount has put something there: it is seen."""
        for area in self.areas_of(key):
            area.reborn.add(key)
        for copies in self._copies:
            copies.etags.pop(key, None)

    def removed(self, key: str) -> None:
        """What this mount has put there is gone again."""
        for area in self.areas_of(key):
            area.reborn.discard(key)


def as_seen(leg: Leg, info: ObjectInfo) -> ObjectInfo:
    """What the store says of a leg's source, under the name by which it is seen."""
    return replace(info, key=leg.target)


def lacking(page: Page, overlay: Overlay) -> Iterator[Leg]:
    """The legs in *page* whose metadata nobody has told yet."""
    for info in page.objects:
        if info.metadata is None and (leg := overlay.waiting(info.key)) is not None:
            yield leg

"""Directories that are there although perhaps no key says so.

Owns: which those are for this mount alone: kept, held, or on the way to one of them.
Must not know: stores, inodes. Pure; nothing here awaits.

A directory that only keys imply would vanish with the last of them. Not under the feet of whoever removes that one here:

    kept     its last key went, by our doing; until it is removed, moved, or gets a marker
    held     a key in it is just being taken away, and nobody has asked yet whether there is another: from before the store hears of it
             until it is known whether the directory must be kept. Else whoever looks meanwhile would take our removal for somebody else's
             (who does not learn that leaves it kept)
    above    what lies on the way to those: nothing in the store says that it is there either

What is kept is asked for much more often than it changes, what is held the other way round: each removal holds a directory, few at a time.

R1  `_counts` has each stem above or among the kept, with how many of them are it or lie below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import trio

from s3mount.errors import OutcomeUnknown, TimedOut

# After these a key may have gone or not.
UNCERTAIN = (OutcomeUnknown, TimedOut, trio.Cancelled)


class Kept:
    """Stems of such directories, by the prefix that they lie in. What does not end with "/" is passed over: it needs no keys."""

    def __init__(self) -> None:
        self._kept: set[str] = set()
        self._held: dict[str, int] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def __contains__(self, stem: str) -> bool:
        return stem in self._counts.get(_parent(stem), ()) or any(held.startswith(stem) for held in self._held)

    def __iter__(self) -> Iterator[str]:
        """The kept and the held."""
        return iter(self._kept.union(self._held))

    def lastingly(self, stem: str) -> bool:
        """Whether *stem* is kept, whoever holds it."""
        return stem in self._kept

    def add(self, stem: str) -> None:
        if stem.endswith("/") and stem not in self._kept:
            self._kept.add(stem)
            self._count(stem, 1)

    def discard(self, stem: str) -> None:
        if stem in self._kept:
            self._kept.remove(stem)
            self._count(stem, -1)

    def holding(self, *stems: str) -> Hold:
        """For the time of a `with` block they are there; they may be held several times at once."""
        return Hold(self, tuple(stem for stem in stems if stem.endswith("/")))

    def _hold(self, stem: str, more: int) -> None:
        count = self._held.get(stem, 0) + more
        if count:
            self._held[stem] = count
        else:
            del self._held[stem]

    def _count(self, stem: str, more: int) -> None:
        while stem:
            parent = _parent(stem)
            counts = self._counts.setdefault(parent, {})
            counts[stem] = counts.get(stem, 0) + more
            if not counts[stem]:
                del counts[stem]
                if not counts:
                    del self._counts[parent]
            stem = parent

    def directly_in(self, stem: str) -> Iterable[str]:
        """Those whose component begins in *stem*, which may be a pseudo-directory's."""
        prefix = stem[: stem.rfind("/") + 1]
        held = (held[: held.find("/", len(prefix)) + 1] for held in self._held if held.startswith(prefix))
        return [each for each in {*self._counts.get(prefix, ()), *held} if each.startswith(stem)]

    def move(self, names: Mapping[str, str]) -> None:
        """Rename what is kept, and lies below these stems, at once. (What is held does not move: whoever holds it has the gate.)"""
        moved = {stem: new + stem[len(old) :] for old, new in names.items() for stem in self._kept if stem.startswith(old)}
        for stem in moved:
            self.discard(stem)
        for stem in moved.values():
            self.add(stem)

    def check(self) -> None:
        counts: dict[str, int] = {}
        for stem in self._kept:
            while stem:
                counts[stem] = counts.get(stem, 0) + 1
                stem = _parent(stem)
        assert counts == {stem: count for stems in self._counts.values() for stem, count in stems.items()}, "R1"


class Hold:
    """Stems held for the time of a `with` block."""

    __slots__ = ("_kept", "_stems")

    def __init__(self, kept: Kept, stems: tuple[str, ...]) -> None:
        self._kept = kept
        self._stems = stems

    def __enter__(self) -> None:
        for stem in self._stems:
            self._kept._hold(stem, 1)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for stem in self._stems:
            self._kept._hold(stem, -1)
            if error is not None and issubclass(error, UNCERTAIN):
                self._kept.add(stem)


def _parent(stem: str) -> str:
    return stem[: stem.rfind("/", 0, len(stem) - 1) + 1]

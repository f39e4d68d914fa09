"""Where renames have taken everything from: prefixes, and single keys.

Owns: which of them cover a key, be they many.
Must not know: what went where, pages, stores. Pure; nothing here awaits.

Who may put and not delete leaves a key behind with each rename: a thousand of them must not be gone through for each name of a listing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Area:
    """The prefix *source* (ends with "/"), from which everything went; or one key, which may be a marker (*alone*).

    `legs`: how many are not over.
    """

    __slots__ = ("is_tree", "legs", "reborn", "source")

    def __init__(self, source: str, *, alone: bool = False) -> None:
        self.source = source
        self.is_tree = source.endswith("/") and not alone
        self.reborn: set[str] = set()
        self.legs = 0

    def covers(self, key: str) -> bool:
        return key.startswith(self.source) if self.is_tree else key == self.source

    def hides(self, key: str) -> bool:
        return key not in self.reborn and self.covers(key)


class Areas:
    """Some of them. What `snapshot` gives stays as it is."""

    def __init__(self) -> None:
        self._trees: list[Area] = []
        self._keys: dict[str, tuple[Area, ...]] = {}
        self._sorted: list[str] | None = None
        self._snapshot: Areas | None = None

    def __len__(self) -> int:
        return len(self._trees) + len(self._keys)

    def __contains__(self, area: Area) -> bool:
        return any(other is area for other in (self._trees if area.is_tree else self._keys.get(area.source, ())))

    def covering(self, key: str) -> Sequence[Area]:
        """Those from which *key* went, if it was there."""
        alone = self._keys.get(key, ())
        return [*alone, *(area for area in self._trees if key.startswith(area.source))] if self._trees else alone

    def hides(self, key: str) -> bool:
        """Whether what stands under *key*, if anything does, is gone from there."""
        return any(key not in area.reborn for area in self.covering(key))

    def leaves_below(self, stem: str) -> bool:
        """Whether the store's word that keys lie below *stem* is to be believed."""
        trees = (area for area in self._trees if stem.startswith(area.source))
        return all(any(key.startswith(stem) and key != stem for key in area.reborn) for area in trees)

    def any_key_below(self, stem: str) -> bool:
        """Whether a single key that is covered lies below *stem*."""
        if self._sorted is None:
            self._sorted = sorted(self._keys)
        at = bisect_left(self._sorted, stem)
        return at < len(self._sorted) and self._sorted[at].startswith(stem)

    def add(self, area: Area) -> None:
        if area.is_tree:
            self._trees.append(area)
        else:
            self._keys[area.source] = (*self._keys.get(area.source, ()), area)
        self._sorted = self._snapshot = None

    def remove(self, area: Area) -> None:
        if area.is_tree:
            self._trees = [other for other in self._trees if other is not area]
        elif rest := tuple(other for other in self._keys.get(area.source, ()) if other is not area):
            self._keys[area.source] = rest
        else:
            self._keys.pop(area.source, None)
        self._sorted = self._snapshot = None

    def snapshot(self) -> Areas:
        """As they are now."""
        if self._snapshot is None:
            self._snapshot = Areas()
            self._snapshot._trees, self._snapshot._keys = list(self._trees), dict(self._keys)
        return self._snapshot

"""What is pending, laid over what the store says: the answers that whoever asks gets.

Owns: merging pages and finds; which answers of the store are too old for a key; which version of the store is one of ours.
Must not know: stores, the journal, time. Pure: every method is atomic between checkpoints.

A pending key hides what the store has under it. When its change has arrived the store tells it by itself, but not in answers to requests
that were sent before: for those it stays laid over (`asking` brackets a request). And a version of ours goes on being shown under its local
ETag, so that inodes and caches, which know it by that, do not see a replaced object. Of how many that is remembered is bounded; one that is
forgotten is shown by its ETag in the store, and still found by its local one (its commit id is in the object).

Invariants (`check`):
O1  `order` are the pending keys in the order of listings.
O2  What has arrived is laid over only while a request is under way that was sent before.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cachetools import LRUCache

from s3mount.model import ETag, Found, Key, ObjectInfo, Page, Version

# Versions of ours that are shown under their local ETags: a KiB each, with what objects usually carry.
ALIASES = 20_000

Shown = ObjectInfo | None
"""An object, or (None) that there is none."""


@dataclass(frozen=True, slots=True)
class Alias:
    """The store calls our version *shown* by another ETag."""

    etag: ETag
    shown: ObjectInfo


@dataclass(frozen=True, slots=True)
class Merged:
    """A page, and those of its common prefixes of which it must be asked whether anything but hidden keys is below them."""

    page: Page
    doubtful: tuple[str, ...]


class Overlay:
    """What is laid over one bucket."""

    def __init__(self, *, aliases: int = ALIASES) -> None:
        self._pending: dict[str, Shown] = {}
        self._order: list[str] = []
        self._arrived: dict[str, tuple[int, Shown]] = {}
        self._aliases: LRUCache[str, Alias] = LRUCache(aliases)
        self._now = 0
        self._asked: Counter[int] = Counter()

    def __repr__(self) -> str:
        return f"<Overlay {len(self._pending)} pending, {len(self._aliases)} aliases>"

    # -- what changes -----------------------------------------------------------------

    def lay(self, key: str, shown: Shown) -> None:
        """*key* is pending, and shown so."""
        if key not in self._pending:
            insort(self._order, key)
        self._pending[key] = shown

    def lift(self, key: str) -> None:
        """*key* is not pending any more, and what the store says of it is true again."""
        if key in self._pending:
            del self._pending[key]
            del self._order[bisect_left(self._order, key)]
        self._arrived.pop(key, None)

    def arrive(self, key: str, shown: Shown, etag: ETag | None) -> None:
        """The change of *key* has reached the store, which calls the version *etag*."""
        self.lift(key)
        self._now += 1
        if self._asked:
            self._arrived[key] = (self._now, shown)
        self.alias(key, shown, etag)

    def alias(self, key: str, shown: Shown, etag: ETag | None) -> None:
        """The store calls our version *shown* of *key* by *etag*; with None for either, it has none of ours any more."""
        if shown is not None and etag is not None:
            self._aliases[key] = Alias(etag, shown)
        else:
            self._aliases.pop(key, None)

    @contextmanager
    def asking(self) -> Iterator[int]:
        """A request is under way; what it answers is to be read with the number given."""
        asked = self._now
        self._asked[asked] += 1
        try:
            yield asked
        finally:
            self._asked[asked] -= 1
            if not self._asked[asked]:
                del self._asked[asked]
            oldest = min(self._asked, default=self._now)
            if self._arrived:
                self._arrived = {key: held for key, held in self._arrived.items() if held[0] > oldest}

    # -- single keys ------------------------------------------------------------------

    def is_pending(self, key: str) -> bool:
        return key in self._pending

    def covers(self, key: str, asked: int) -> bool:
        """Whether `shown` knows better than an answer to a request of *asked*."""
        return key in self._pending or self._arrived.get(key, (0, None))[0] > asked

    def shown(self, key: str) -> Shown:
        """What is laid over *key*, which is covered."""
        return self._pending[key] if key in self._pending else self._arrived[key][1]

    def view(self, key: str, told: Shown, asked: int) -> Shown:
        """What to show of *key*, of which the store said *told*."""
        if self.covers(key, asked):
            return self.shown(key)
        return None if told is None else self.seen(told)

    def seen(self, info: ObjectInfo) -> ObjectInfo:
        """An object of the store as it is shown: one of ours under its local ETag. Others may have described it anew."""
        alias = self._aliases.get(info.key)
        if alias is None or alias.etag != info.etag:
            return info
        told = alias.shown if info.metadata is None else info
        # Not `replace`, which takes five times as long: all of a page of a listing comes here.
        return ObjectInfo(
            info.key,
            info.size,
            alias.shown.etag,
            alias.shown.mtime_ns,
            told.content_type,
            info.storage_class,
            told.metadata,
            info.file_id,
            info.links,
            info.version_id,
            info.extra,
        )

    def seen_version(self, version: Version) -> Version:
        """As `seen`."""
        alias = self._aliases.get(version.key)
        return version if alias is None or alias.etag != version.etag else replace(version, etag=alias.shown.etag)

    def real(self, key: str, etag: ETag) -> ETag | None:
        """How the store calls our version *etag* of *key*, if that is remembered."""
        alias = self._aliases.get(key)
        return alias.etag if alias is not None and alias.shown.etag == etag else None

    def alias_of(self, key: str) -> ObjectInfo | None:
        """Our version of *key* in the store, if that is remembered."""
        alias = self._aliases.get(key)
        return None if alias is None else alias.shown

    # -- many keys --------------------------------------------------------------------

    def found(self, name: str, told: Found, asked: int) -> tuple[Found, bool]:
        """What stands under *name*; True: unless nothing but hidden keys is below it, which must be asked."""
        below = f"{name}/"
        known = [key for key in self._below(below, asked) if key != below]
        visible = any(self.shown(key) is not None for key in known)
        found = Found(self.view(name, told.object, asked), self.view(below, told.marker, asked), told.implied or visible)
        return found, told.implied and not visible and bool(known)

    def page(self, told: Page, asked: int, *, prefix: str, delimiter: str, after: str, limit: int) -> Merged:
        """*told*, which answers a listing by these arguments, as it is shown: at most *limit* entries, perhaps none."""
        objects = {info.key: self.seen(info) for info in told.objects if not self.covers(info.key, asked)}
        prefixes = set(told.prefixes)
        hiding: set[str] = set()
        certain: set[str] = set()
        for key in self._below(prefix, asked):
            group = rolled_up(key, prefix, delimiter)
            if not _behind(key, after, prefix, delimiter) or (told.next is not None and (group or key) > told.next):
                continue
            shown = self.shown(key)
            if shown is None:
                hiding.add(group or key)
            elif group is None:
                objects[Key(key)] = shown
            else:
                certain.add(group)
        names = sorted(objects.keys() | prefixes | certain)
        following = told.next
        if len(names) > limit:
            names, following = names[:limit], names[limit - 1]
        page = Page(
            tuple(objects[Key(name)] for name in names if name in objects),
            tuple(name for name in names if name in prefixes or name in certain),
            following,
        )
        return Merged(page, tuple(name for name in page.prefixes if name in hiding and name not in certain))

    def survives(self, key: str, asked: int) -> bool:
        """Whether *key*, which the store told, is shown."""
        return not self.covers(key, asked) or self.shown(key) is not None

    def has_below(self, prefix: str) -> bool:
        """Whether a pending key begins with *prefix*."""
        at = bisect_left(self._order, prefix)
        return at < len(self._order) and self._order[at].startswith(prefix)

    def pending_below(self, prefix: str) -> Iterator[str]:
        return (key for key in self._slice(prefix))

    def _below(self, prefix: str, asked: int) -> Iterator[str]:
        """Keys under *prefix* that are laid over for a request of *asked*, in any order."""
        yield from self._slice(prefix)
        for key, (arrived, _) in self._arrived.items():
            if arrived > asked and key not in self._pending and key.startswith(prefix):
                yield key

    def _slice(self, prefix: str) -> list[str]:
        start = bisect_left(self._order, prefix)
        stop = bisect_right(self._order, prefix, lo=start, key=lambda key: key[: len(prefix)])
        return self._order[start:stop]

    def check(self) -> None:
        assert self._order == sorted(self._pending), "O1"
        assert self._asked or not self._arrived, "O2"
        assert not self._arrived.keys() & self._pending.keys(), "O2"


def rolled_up(key: str, prefix: str, delimiter: str) -> str | None:
    """The common prefix that a delimited listing of *prefix* shows in place of *key*, or None."""
    at = key.find(delimiter, len(prefix)) if delimiter else -1
    return None if at < 0 else key[: at + len(delimiter)]


def _behind(key: str, after: str, prefix: str, delimiter: str) -> bool:
    """Whether a listing that goes on behind *after* has *key*: all of a common prefix is behind it."""
    if after.startswith(prefix) and rolled_up(after, prefix, delimiter) == after and key.startswith(after):
        return False
    return key > after

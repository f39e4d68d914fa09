"""A store as it is seen while keys are on their way: asked for, listed and read where they lie.

Owns: what each question means for a key on its way, and for the copies that a rename which failed has left.
Must not know: POSIX, inodes, how keys are carried (see moving), what is taken back when (see undoing).

A key on its way may arrive while it is asked for where it lay: then it is asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from s3mount.errors import NotFound, PreconditionFailed
from s3mount.fs.aliases import Aliases
from s3mount.fs.copies import each
from s3mount.fs.overlay import Asked, Leg, Overlay, State, View, as_seen, lacking
from s3mount.model import ByteRange, ETag, Found, Key, ObjectInfo, Page
from s3mount.store.api import PAGE_KEYS, Arrived, ObjectStore, Pin
from s3mount.store.aspects import URL
from s3mount.store.wrap.base import Wrapper

GONE = (PreconditionFailed, NotFound)


class Looking(Wrapper):
    """*inner* as `overlay` has it seen."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.overlay = Overlay()
        self._aliases = Aliases()

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        while (leg := self.overlay.waiting(key)) is not None:
            try:
                return as_seen(leg, await self.inner.head(leg.source))
            except NotFound:
                if leg.state is State.WAITING:
                    raise NotFound(f"There is no object {key!r}.") from None
        if self.overlay.hides(key):
            raise NotFound(f"There is no object {key!r}.")
        info = await self.inner.head(key)
        if self.overlay.is_copy(info):
            raise NotFound(f"There is no object {key!r}.")
        return info

    async def find(self, name: str) -> Found:
        if self.overlay.idle:
            return await self.inner.find(name)
        stem = name + "/"
        below = self.overlay.shows_below(stem)
        waiting = {key: self.overlay.waiting(key) is not None for key in (name, stem)}
        hidden = {key: self.overlay.hides(key) for key in (name, stem)}
        believed = self.overlay.leaves_below(stem)
        seen = self.overlay.view(Asked(stem, "", stem, PAGE_KEYS))
        found = await self.inner.find(name)
        objects = {name: found.object, stem: found.marker}
        for key in objects:
            if waiting[key]:
                objects[key] = await self._head(Key(key))
            elif hidden[key] or ((info := objects[key]) is not None and self.overlay.is_copy(info)):
                objects[key] = None
        implied = found.implied and believed
        if implied and not below and seen.doubtful(Page((), (stem,), None)):
            implied = await self._shows(seen, stem, after=stem)
        return Found(objects[name], objects[stem], below or implied)

    async def _shows(self, seen: View, stem: str, *, after: str = "") -> bool:
        """Whether the store has anything below *stem* and behind *after* that is seen."""
        more: str | None = after
        while more is not None:
            page = await self.inner.list(stem, after=more)
            if any(seen.shows(info) for info in page.objects):
                return True
            more = page.next
        return False

    async def _head(self, key: Key) -> ObjectInfo | None:
        try:
            return await self.head(key)
        except NotFound:
            return None

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        if self.overlay.idle:
            return await self.inner.list(prefix, delimiter=delimiter, after=after, limit=limit)
        while True:
            asked = Asked(prefix, delimiter, after, limit)
            seen = self.overlay.view(asked)
            page = await self.inner.list(prefix, delimiter=delimiter, after=after, limit=limit)
            unseen = [stem for stem in seen.doubtful(page) if not await self._shows(seen, stem)]
            merged = seen.merged(page, unseen)
            if merged is not None:
                return await self._completed(merged) if delimiter and self.capabilities.listed_metadata else merged
            assert page.next is not None
            after = page.next

    async def _completed(self, page: Page) -> Page:
        """With the metadata of what lies elsewhere: a listing in one piece does not tell them."""
        told: dict[Key, ObjectInfo | None] = {}

        async def ask(leg: Leg) -> None:
            told[leg.target] = await self._head(leg.target)

        legs = list(lacking(page, self.overlay))
        for stem, together in groupby(legs, key=lambda leg: leg.source[: leg.source.rfind("/") + 1]):
            told.update(await self._told_together(stem, list(together)))
        await each([leg for leg in legs if leg.target not in told], ask)
        objects = (told.get(info.key, info) for info in page.objects)
        return replace(page, objects=tuple(info for info in objects if info is not None))

    async def _told_together(self, stem: str, legs: Sequence[Leg]) -> Mapping[Key, ObjectInfo]:
        """What listings tell of sources that lie in *stem*, one behind the other. The first of them is where those begin."""
        told: dict[Key, ObjectInfo] = {}
        sought = {leg.source: leg for leg in legs[1:]}
        more: str | None = legs[0].source
        while sought and more is not None and more < legs[-1].source:
            page = await self.inner.list(stem, delimiter="/", after=more, limit=min(len(sought), PAGE_KEYS))
            for info in page.objects:
                leg = sought.pop(info.key, None)
                if leg is not None and info.etag == leg.etag and leg.state is State.WAITING:
                    told[leg.target] = as_seen(leg, info)
            more = page.next
        return told

    async def aspect(self, key: Key, name: str) -> str | None:
        while (leg := self.overlay.waiting(key)) is not None and name != URL:
            try:
                return await self.inner.aspect(leg.source, name)
            except NotFound:
                if leg.state is State.WAITING:
                    raise
        return await self.inner.aspect(key, name)

    # -- reading ----------------------------------------------------------------------

    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo:
        while (leg := self.overlay.waiting(key)) is not None:
            try:
                return as_seen(leg, await self.inner.get_into(leg.source, span, buffer, if_match=if_match, arrived=arrived))
            except GONE:
                if leg.state is State.WAITING:
                    raise
        return await self.inner.get_into(key, span, buffer, if_match=if_match and self._aliases.etag(key, if_match), arrived=arrived)

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        while (leg := self.overlay.waiting(key)) is not None:
            try:
                return await self.inner.pin(leg.source, if_match=if_match, known=known and replace(known, key=leg.source))
            except GONE:
                if leg.state is State.WAITING:
                    raise
        return await self.inner.pin(
            key, if_match=if_match and self._aliases.etag(key, if_match), known=known and self._aliases.info(replace(known, key=key))
        )

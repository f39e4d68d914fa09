"""What is shown of a bucket for which changes are pending: the looking and reading half of write-back.

Owns: what each verb that asks means for what is pending.
Must not know: how changes are entered and sent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import trio

from s3mount.errors import NotFound, Unavailable
from s3mount.model import ByteRange, ETag, Found, Key, ObjectInfo, Page, VersionPlace, Versions
from s3mount.store.api import PAGE_KEYS, Arrived, ObjectStore, Pin
from s3mount.store.aspects import CONTENT_TYPE, ETAG, SIZE, STORAGE_CLASS, URL, commit_id_of, told_by
from s3mount.store.rules import changed, not_found
from s3mount.store.wrap.base import Wrapper
from s3mount.writeback.chains import Entry
from s3mount.writeback.pending import Pending
from s3mount.writeback.pins import CalledPin, PendingPin
from s3mount.writeback.records import Op, commit_of, is_local

# What is known of a pending version without asking anybody.
_TOLD = frozenset({ETAG, SIZE, CONTENT_TYPE, STORAGE_CLASS})
# Bodies that are looked for again where their change arrived in between.
TRIES = 5


class Shown(Wrapper):
    """*inner*, with what is *pending* laid over it."""

    def __init__(self, inner: ObjectStore, pending: Pending) -> None:
        super().__init__(inner)
        self._pending = pending

    @abstractmethod
    async def arrival(self, entries: Sequence[Entry]) -> None:
        """Until none of *entries* is pending, nor what replaced them. Raises why not."""

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        overlay = self._pending.overlay
        if overlay.is_pending(key):
            await trio.lowlevel.checkpoint()
        with overlay.asking() as asked:
            if overlay.is_pending(key):
                shown = overlay.shown(key)
            else:
                try:
                    told: ObjectInfo | None = await self.inner.head(key)
                except NotFound:
                    told = None
                shown = overlay.view(key, told, asked)
        if shown is None:
            raise not_found(key)
        return shown

    async def find(self, name: str) -> Found:
        with self._pending.overlay.asking() as asked:
            told = await self.inner.find(name)
            if not name:
                return told
            found, doubtful = self._pending.overlay.found(name, told, asked)
            if doubtful and not await self._survives(f"{name}/", asked, marker=False):
                found = replace(found, implied=False)
            return found

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        """A page is short only at the end: who asks for two keys wants to know whether there are two."""
        limit = min(limit, PAGE_KEYS)
        page = await self._page(prefix, delimiter, after, limit)
        while page.next is not None and (missing := limit - len(page.objects) - len(page.prefixes)) > 0:
            more = await self._page(prefix, delimiter, page.next, missing)
            page = Page((*page.objects, *more.objects), (*page.prefixes, *more.prefixes), more.next)
        return page

    async def _page(self, prefix: str, delimiter: str, after: str, limit: int) -> Page:
        """What is shown of one page of the store; perhaps nothing. A whole one is asked for where something may be hidden."""
        with self._pending.overlay.asking() as asked:
            wanted = PAGE_KEYS if limit > 0 and self._pending.overlay.has_below(prefix) else limit
            told = await self.inner.list(prefix, delimiter=delimiter, after=after, limit=wanted)
            merged = self._pending.overlay.page(told, asked, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
            empty = {group for group in merged.doubtful if not await self._survives(group, asked, marker=True)}
        return replace(merged.page, prefixes=tuple(group for group in merged.page.prefixes if group not in empty)) if empty else merged.page

    async def _survives(self, prefix: str, asked: int, *, marker: bool) -> bool:
        """Whether the store has a key under *prefix* that is shown; the marker counts only if it is asked for."""
        after = ""
        while True:
            page = await self.inner.list(prefix, after=after)
            for info in page.objects:
                if self._pending.overlay.survives(info.key, asked) and (marker or info.key != prefix):
                    return True
            if page.next is None:
                return False
            after = page.next

    async def aspect(self, key: Key, name: str) -> str | None:
        newest = self._pending.chains.newest(key)
        if newest is None or name == URL:
            return await self.inner.aspect(key, name)
        if newest.record.op is Op.DELETE:
            raise not_found(key)
        if name in _TOLD:
            return told_by(newest.record.info, name)
        await self.arrival([newest])
        return await self.inner.aspect(key, name)

    async def list_versions(self, prefix: str = "", *, after: VersionPlace | None = None) -> Versions:
        await self.arrival([entry for entry in self._pending.chains if entry.record.key.startswith(prefix)])
        told = await self.inner.list_versions(prefix, after=after)
        return replace(told, entries=tuple(self._pending.overlay.seen_version(version) for version in told.entries))

    # -- reading ----------------------------------------------------------------------

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        wanted = known.etag if known is not None else if_match
        for _ in range(TRIES):
            entry = self._entry(key, wanted)
            if entry is None:
                return await self._pin_inner(key, wanted, known)
            if entry.record.op is Op.DELETE:
                raise not_found(key)
            if wanted is not None and entry.record.etag != wanted:
                raise changed(key)
            try:
                return await self._pin_pending(entry)
            except NotFound:
                continue  # it arrived meanwhile
        raise Unavailable(f"What waits of {key!r} cannot be read.")

    def _entry(self, key: str, wanted: ETag | None) -> Entry | None:
        """The pending version that is meant: the one of this ETag, else the newest."""
        chain = self._pending.chains.of(key)
        named = [entry for entry in chain if entry.record.op is Op.PUT and entry.record.etag == wanted]
        if named:
            return named[0]
        return chain[-1] if chain else None

    async def _pin_pending(self, entry: Entry) -> Pin:
        record = entry.record
        bodies = await self._pending.holding.of(entry)

        async def base() -> Pin:
            assert record.base is not None
            there = record.base
            if any(before.record.etag == there.etag for before in self._pending.chains.of(there.key)):
                return await self.pin(there.key, known=there)
            return await self._pin_former(there.key, there)

        async def moved() -> Pin:
            return await self._pin_former(record.key, record.info)

        return PendingPin(record, bodies, base, moved)

    async def _pin_former(self, key: Key, info: ObjectInfo) -> Pin:
        """Our or the store's version *info*, if it is the store's current one, whatever is pending by now. Raises as `_real`."""
        etag = (await self._real(key, info.etag)).etag if is_local(info.etag) else info.etag
        return await self.inner.pin(key, known=replace(info, key=key, etag=etag))

    async def _pin_inner(self, key: Key, wanted: ETag | None, known: ObjectInfo | None) -> Pin:
        if wanted is None:
            pin = await self.inner.pin(key)
            seen = self._pending.overlay.seen(pin.info)
            return pin if seen is pin.info else CalledPin(pin, seen)
        if not is_local(wanted):
            return await self.inner.pin(key, if_match=wanted, known=known)
        real = await self._real(key, wanted)
        return CalledPin(await self.inner.pin(key, known=real), known or replace(real, etag=wanted))

    async def _real(self, key: Key, etag: ETag) -> ObjectInfo:
        """Our version *etag* of *key* as the store calls it. Raises PreconditionFailed where it is another one by now, NotFound."""
        known = self._pending.overlay.real(key, etag)
        if known is not None and (shown := self._pending.overlay.alias_of(key)) is not None:
            return replace(shown, etag=known)
        info = await self.inner.head(key)
        if commit_id_of(info) != commit_of(etag):
            raise changed(key)
        return info

    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo:
        if self._pending.chains.newest(key) is None and (if_match is None or not is_local(if_match)):
            info = await self.inner.get_into(key, span, buffer, if_match=if_match, arrived=arrived)
            return self._pending.overlay.seen(info)
        pin = await self.pin(key, if_match=if_match)
        try:
            if span.stop > pin.info.size or len(buffer) != span.length:
                raise ValueError(f"{span} of {pin.info.size} bytes into {len(buffer)}")
            await pin.get_into(span.start, buffer, arrived=arrived)
            return pin.info
        finally:
            await pin.aclose()

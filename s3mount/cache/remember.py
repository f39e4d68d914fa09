"""Remembering: a store whose names and attributes are answered from what listings told.

Owns: the composition, and what each verb of the protocol means for what is remembered.
Must not know: the rules of any of it (see the modules below), POSIX, which store is inside.

    texts, leaf, spread   pure: places, packed stretches of listings, pages taken apart
    table, tables         pure: one directory, all directories, this mount's own changes
    asking                requests under way, joined
    listings, lookups     what is served from the tables, what is asked for
    ahead                 what is listed before anybody asks
    attributes            metadata, by HEAD and remembered, or not at all

Mutations pass through and then correct what is remembered: exactly where the outcome is known, else the key is forgotten. An answer of the
store to a request that was sent before a key's last change by this mount is ignored for that key.

`find`, `head` and `list` with the delimiter "/" are at most `metadata_ttl_s` old and carry metadata. A listing without delimiter is always
asked for, and carries metadata only as far as that is remembered: who moves or counts keys does not want a HEAD for each.
`Found.implied` is True for each directory that is there, unless its marker is known to be its only key.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import trio

from s3mount.cache.ahead import ListAhead
from s3mount.cache.asking import Asking
from s3mount.cache.attributes import Attributes, FullAttributes, ListAttributes, Records
from s3mount.cache.leaf import Mark
from s3mount.cache.listings import Listings
from s3mount.cache.lookups import KEY_BYTES, Lookups
from s3mount.cache.options import CacheOptions
from s3mount.cache.records import MemoryRecords
from s3mount.cache.snapshot import Snapshot
from s3mount.cache.tables import Tables
from s3mount.cache.tasks import Background
from s3mount.cache.texts import END, is_text, place_behind, stem_of, text_of
from s3mount.cache.watched import GONE, WatchedPin
from s3mount.model import NO_METADATA, Condition, Content, ETag, Found, Key, Metadata, ObjectInfo, Page, Part, Upload
from s3mount.store.api import PAGE_KEYS, Capabilities, Commit, Failure, ObjectStore, Pin, Relocation
from s3mount.store.rules import not_found
from s3mount.store.wrap.base import Wrapper

# The tables' part of the memory limit.
SHARE = 8
# Stretches of an earlier mount's listings that are read at a time.
STRETCHES = 16

# Rows of a directory up to which the directories in it are sorted for walks: some 20 ms.
DIRECTORY_ROWS = 20_000


class Remembering(Wrapper):
    """*inner*, with a memory. Close it: it has tasks of its own."""

    def __init__(
        self,
        inner: ObjectStore,
        options: CacheOptions,
        *,
        records: Records | None = None,
        snapshot: Snapshot | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        super().__init__(inner)
        self.as_stored: Callable[[Sequence[ObjectInfo]], Sequence[ObjectInfo]] = lambda infos: infos
        """What the store calls versions that are shown under other ETags."""
        self._ttl_s = options.metadata_ttl_s
        self._clock = clock
        self._background = Background()
        self._snapshot = snapshot
        self._warming = trio.Lock()
        self._cold = snapshot is not None
        self._full = full = options.attributes == "full"
        self.tables = Tables(clock, limit=options.memory_limit // SHARE, blank=None if full else NO_METADATA)
        self._asking = Asking(inner, self.tables, self._background)
        self._attributes: Attributes = (
            FullAttributes(self._asking, self.tables, records or MemoryRecords(options.identity), self._background)
            if full
            else ListAttributes()
        )
        self._listings = Listings(self.tables, self._asking, clock=clock, ttl_s=self._ttl_s)
        self._ahead = ListAhead(self.tables, self._asking, self._attributes, self._background, fresh=self._listings.is_fresh)
        self._lookups = Lookups(self.tables, self._asking, self._listings, self._ahead, exact=full, heads=full)

    def __repr__(self) -> str:
        return f"<Remembering {self.tables!r} {self.inner!r}>"

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, listed_metadata=True, whole_metadata=self._full)

    async def aclose(self) -> None:
        await self._background.aclose()
        if self._snapshot is not None and not self._cold:
            self._cold = True
            now = self._clock()
            await trio.to_thread.run_sync(self._snapshot.leave, self.tables.stretches(self._listings.fresh_at(now), now=now))
        await self._attributes.aclose()
        await super().aclose()

    def after(self, key: str, count: int) -> Sequence[ObjectInfo]:
        """Objects that follow *key* in its directory, as far as they are known; asks nobody."""
        return self.as_stored(self.tables.after(key, count))

    def directories(self, stem: str) -> Sequence[str] | None:
        """The directories in *stem*, as far as they are known; None where nothing is, or too much. Asks nobody."""
        return self.tables.directories(stem, DIRECTORY_ROWS)

    def list_ahead(self, stem: str) -> None:
        """Have *stem* listed, unless it is fresh: somebody is about to read it."""
        if self._ttl_s:
            self._ahead.list(stem)

    def let_go(self) -> int:
        """Called now and then: forget what nobody has come back to, and what is too old to be told; how many bytes that gives."""
        self._ahead.let_go()
        return self.tables.let_go(self._listings.is_recent)

    async def _warm(self) -> None:
        """Take up what the last mount left; everybody waits for it."""
        async with self._warming:
            if self._cold and self._snapshot is not None:
                stretches = self._snapshot.take(self._ttl_s)
                while some := await trio.to_thread.run_sync(lambda: list(itertools.islice(stretches, STRETCHES))):
                    for stretch in some:
                        self.tables.restore(stretch)
            self._cold = False

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        if self._cold:
            await self._warm()
        known = await self._lookups.object(key) if self._ttl_s and is_text(key) else None
        info = await self._object(key) if known is None else known.value
        whole = await self._attributes.complete([info]) if isinstance(info, ObjectInfo) else ()
        self.tables.trim(self._listings.is_fresh, self._ahead.place)
        if not whole:
            raise not_found(key)
        return whole[0]

    async def find(self, name: str) -> Found:
        if not name:
            return Found(None, None, implied=True)
        if self._cold:
            await self._warm()
        found = await self._lookups.find(name) if self._ttl_s and is_text(name) else None
        found = found or await self._found(name)
        self.tables.trim(self._listings.is_fresh, self._ahead.place)
        return Found(await self._whole(found.object), await self._whole(found.marker), found.implied)

    async def _object(self, key: Key) -> ObjectInfo | None:
        return await (self.inner.head(key) if self._full or not is_text(key) else self._asking.listed(key))

    async def _found(self, name: str) -> Found:
        if self._full or not is_text(name):
            return await self.inner.find(name)
        if len(name.encode()) >= KEY_BYTES:
            return Found(await self._asking.listed(name), None, implied=False)
        return await self._asking.found_listed(name)

    async def _whole(self, info: ObjectInfo | None) -> ObjectInfo | None:
        if info is None:
            return None
        whole = await self._attributes.complete([info])
        return whole[0] if whole else None

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        if delimiter != "/" or (prefix and not prefix.endswith("/")) or place_behind(prefix, after) in (None, END) or limit < 1:
            page = await self.inner.list(prefix, delimiter=delimiter, after=after, limit=limit)
            return Page(tuple(await self._attributes.remembered(page.objects)), page.prefixes, page.next)
        if self._cold:
            await self._warm()
        piece = await self._listings.page(prefix, after, limit, self._ahead)
        if piece is None:
            page = await self.inner.list(prefix, delimiter=delimiter, after=after, limit=limit)
            return Page(tuple(await self._attributes.complete(page.objects)), page.prefixes, page.next)
        self.tables.trim(self._listings.is_fresh, self._ahead.place)
        objects = await self._attributes.complete([value for _, value in piece.rows if isinstance(value, ObjectInfo)])
        prefixes = tuple(prefix + text.decode() for text, value in piece.rows if value is Mark.PREFIX)
        return Page(tuple(objects), prefixes, None if piece.hi == END else prefix + piece.rows[-1][0].decode())

    # -- reading ----------------------------------------------------------------------

    def made(self, info: ObjectInfo) -> None:
        """A version that this mount has made is called *info* in the store: remember that for those who will find it there."""
        self._attributes.shown(info)

    def known(self, key: str, etag: ETag | None) -> ObjectInfo | None:
        """What is remembered of *key*, however old, if it is version *etag* (None: whichever); asks nobody."""
        table = self.tables.find(stem_of(key)) if is_text(key) else None
        known = None if table is None else table.look(text_of(table.stem, key))
        info = known.value if known is not None and isinstance(known.value, ObjectInfo) else None
        if info is None or etag not in (None, info.etag):
            return None
        return info if self._full else replace(info, metadata=None)

    def forget(self, key: str) -> None:
        """What is remembered of *key* is wrong."""
        if is_text(key):
            self._gone(key)

    def _gone(self, key: str) -> None:
        """A read has met another version than the one that is remembered."""
        self.tables.changed(key, Mark.UNKNOWN)

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        try:
            return WatchedPin(await self.inner.pin(key, if_match=if_match, known=known), self._gone)
        except GONE:
            self._gone(key)
            raise

    # -- committing -------------------------------------------------------------------

    @contextmanager
    def _changing(self, *keys: str) -> Iterator[None]:
        """Whatever else happens than a return, nobody knows what stands under *keys*."""
        try:
            yield
        except BaseException:
            for key in filter(is_text, keys):
                self.tables.changed(key, Mark.UNKNOWN)
            raise

    def _made(self, info: ObjectInfo) -> ObjectInfo:
        # What the store gets later, it calls otherwise: see `made`.
        shown = self._attributes.shown(info, lasting=bool(self.as_stored((info,))))
        self.tables.changed(info.key, shown)
        return shown

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        with self._changing(key):
            return self._made(await self.inner.put(key, data, commit))

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        with self._changing(key):
            return self._made(await self.inner.adopt(key, content, commit))

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        with self._changing(key):
            return self._made(await self.inner.update(key, metadata, if_match=if_match, file_id=file_id))

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        with self._changing(key):
            return self._made(await self.inner.set_aspect(key, name, value, if_match=if_match, file_id=file_id))

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        with self._changing(target):
            return self._made(await self.inner.copy(source, target, if_match=if_match, commit=commit, condition=condition))

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        with self._changing(upload.key):
            return self._made(await self.inner.complete_upload(upload, parts))

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        with self._changing(key):
            await self.inner.delete(key, if_match=if_match)
            self.tables.changed(key, Mark.ABSENT)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        with self._changing(*keys):
            failures = await self.inner.delete_many(keys)
            failed = {failure.key for failure in failures}
            for key in keys:
                self.tables.changed(key, Mark.UNKNOWN if key in failed else Mark.ABSENT)
            return failures

    async def relocate(self, moves: Sequence[Relocation]) -> Sequence[ObjectInfo]:
        with self._changing(*(key for move in moves for key in (move.source.key, move.target))):
            made = [self._made(info) for info in await self.inner.relocate(moves)]
            for move in moves:
                self.tables.changed(move.source.key, Mark.ABSENT)
            return made

    # -- names: of stores that can do that, more may change than one would name ----------------

    @contextmanager
    def _changing_all(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.tables.forget_all()

    async def rename(self, source: Key, target: Key, *, replace: bool = True) -> None:
        with self._changing_all():
            await self.inner.rename(source, target, replace=replace)

    async def rename_prefix(self, source: str, target: str, *, replace: bool = True) -> int:
        with self._changing_all():
            return await self.inner.rename_prefix(source, target, replace=replace)

    async def exchange(self, a: str, b: str) -> None:
        with self._changing_all():
            await self.inner.exchange(a, b)

    async def link(self, source: Key, target: Key) -> ObjectInfo:
        with self._changing_all():
            return self._attributes.shown(await self.inner.link(source, target))

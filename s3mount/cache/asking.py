"""Requests to the store: the same question is asked once however many want to know, and every answer is recorded.

Owns: what is under way, and whose caller waits for it.
Must not know: time-to-live, which questions are worth asking.

A request that is under way is not cancelled with those who wait for it: its answer is wanted by whoever comes next.

HEADs for attributes stand in two lines: those that somebody waits for go before those `ahead` of a reader, who may have gone since.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from s3mount.cache.leaf import Asked
from s3mount.cache.tables import Tables
from s3mount.cache.tasks import Background
from s3mount.errors import NotFound, StoreError, Unavailable
from s3mount.model import Found, Key, ObjectInfo, Page
from s3mount.store.api import PAGE_KEYS, ObjectStore

T = TypeVar("T")

# HEADs for attributes under way at a time: that hides 30 ms each behind the shell's own pace; S3 grants a prefix 5500 per second.
HEADS = 64
# As many wait for their turn though nobody waits for them: enough for all turns while a reader goes from one page to the next.
AHEAD = PAGE_KEYS


class Flight(Generic[T]):
    """One request under way, or waiting for its turn. `asked` is when it was sent, as far as it was."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._done = trio.Event()
        self._answer: list[T] = []
        self._heirs: list[Callable[[T | None], None]] = []
        self._error: StoreError = Unavailable("The store was closed meanwhile.")

    async def fly(self, call: Callable[[], Awaitable[T]], record: Callable[[T], object]) -> None:
        try:
            answer = await call()
            record(answer)
            self._answer.append(answer)
        except StoreError as error:
            self._error = error
        finally:
            self._done.set()
            for heir in self._heirs:
                heir(self._answer[0] if self._answer else None)

    def when_landed(self, heir: Callable[[T | None], None]) -> None:
        """Call *heir* with the answer as soon as it has been recorded; with None if there is none."""
        self._heirs.append(heir)

    async def wait(self) -> T:
        """The answer, or its error."""
        await self._done.wait()
        if not self._answer:
            raise self._error
        return self._answer[0]


class Asking:
    """Questions to *inner*; answers go into *tables*, and what HEAD tells of an object to `heard`."""

    def __init__(self, inner: ObjectStore, tables: Tables, background: Background) -> None:
        self._inner = inner
        self._tables = tables
        self._background = background
        self._pages: dict[tuple[str, str, str], Flight[Page]] = {}
        self._heads: dict[Key, Flight[ObjectInfo | None]] = {}
        self._flying = 0
        self._wanted: OrderedDict[Key, Flight[ObjectInfo | None]] = OrderedDict()
        self._ahead: OrderedDict[Key, Flight[ObjectInfo | None]] = OrderedDict()
        self.heard: Callable[[ObjectInfo], None] = lambda info: None

    def __repr__(self) -> str:
        return f"<Asking {len(self._pages)} pages under way>"

    def page(self, stem: str, after: str = "", *, join: bool = True) -> Flight[Page]:
        """Begin, or join, a page of the directory *stem* behind *after*."""
        return self._list(stem, "/", after, lambda asked, page: self._tables.listed(stem, after, page, asked), join=join)

    def _page_as_it_is(self, stem: str) -> Flight[Page]:
        """The first page of *stem*, whose answer itself counts: one under way since before a change of this mount is not joined."""
        under_way = self._pages.get((stem, "/", ""))
        return self.page(stem, join=under_way is None or not self._tables.has_changed(stem, under_way.asked))

    def flat(self, prefix: str, after: str, *, sought: str = "") -> Flight[Page]:
        """Begin, or join, a page of all keys below *prefix* behind *after*, for the sake of the directory *sought*."""
        return self._list(
            prefix, "", after, lambda asked, page: self._tables.listed_flat(prefix, after, page, asked, sought=sought), join=True
        )

    def _list(self, prefix: str, delimiter: str, after: str, record: Callable[[Asked, Page], object], *, join: bool) -> Flight[Page]:
        name = (prefix, delimiter, after)
        flight = self._pages.get(name)
        if flight is None or not join:
            flight = self._pages[name] = Flight(self._tables.ask())
            self._background.start(self._fly_page, name, flight, record)
        return flight

    async def _fly_page(self, name: tuple[str, str, str], flight: Flight[Page], record: Callable[[Asked, Page], object]) -> None:
        prefix, delimiter, after = name
        table = self._tables.table(prefix)
        table.using += 1
        try:
            await flight.fly(
                lambda: self._inner.list(prefix, delimiter=delimiter, after=after, limit=PAGE_KEYS),
                lambda page: record(flight.asked, page),
            )
        finally:
            table.using -= 1
            if self._pages.get(name) is flight:
                del self._pages[name]

    @property
    def room_ahead(self) -> int:
        """For how many a `peek` ahead is welcome."""
        return AHEAD - len(self._ahead)

    def peek(self, key: Key, *, ahead: bool = False) -> Flight[ObjectInfo | None]:
        """Begin, or join, a HEAD whose answer (None: no such object) goes into no table. At most `HEADS` are sent at a time."""
        flight = self._heads.get(key)
        if flight is None:
            flight = self._heads[key] = Flight(self._tables.ask())
            (self._ahead if ahead else self._wanted)[key] = flight
            self._send_heads()
        elif not ahead and key in self._ahead:
            self._wanted[key] = self._ahead.pop(key)
        return flight

    def _send_heads(self) -> None:
        while self._flying < HEADS and (line := self._wanted or self._ahead):
            self._flying += 1
            self._background.start(self._fly_head, *line.popitem(last=False))

    async def _fly_head(self, key: Key, flight: Flight[ObjectInfo | None]) -> None:
        try:
            flight.asked = self._tables.ask()
            await flight.fly(lambda: self._head(key, flight.asked), lambda info: None)
        finally:
            del self._heads[key]
            self._flying -= 1
            self._send_heads()

    async def _head(self, key: Key, asked: Asked) -> ObjectInfo | None:
        try:
            info = await self._inner.head(key)
        except NotFound:
            return None
        self._hear(info, asked)
        return info

    def _hear(self, info: ObjectInfo, asked: Asked) -> None:
        """Metadata may change without the ETag: what was asked for before this mount's last change is no news."""
        if self._tables.made_since(info.key, asked) is None:
            self.heard(info)
            self._tables.proved(info.key, asked)

    async def head(self, key: Key) -> tuple[ObjectInfo | None, Asked]:
        """The object, None where there is none."""
        asked = self._tables.ask()
        info = await self._head(key, asked)
        self._tables.told(key, info, asked)
        return info, asked

    async def look(self, name: str) -> tuple[Found, Asked]:
        """As `find`, by HEAD and the first page of what lies below *name*: whoever looks for a directory reads it next."""
        below = self._page_as_it_is(f"{name}/")
        info, _ = await self.head(Key(name))
        return found_with(info, await below.wait(), name), below.asked

    async def listed(self, key: str) -> ObjectInfo | None:
        """The object, as `inner` lists it now: what begins with *key* begins with itself. Nothing is recorded."""
        page = await self._inner.list(key, limit=1)
        return next((info for info in page.objects if info.key == key), None)

    async def found_listed(self, name: str) -> Found:
        """As `find`, without HEAD, as it is now. *name* has room for a "/" behind it."""
        below = self.page(f"{name}/", join=False)
        info = await self.listed(name)
        return found_with(info, await below.wait(), name)

    async def find(self, name: str) -> tuple[Found, Asked]:
        asked = self._tables.ask()
        found = await self._inner.find(name)
        for info in (found.object, found.marker):
            if info is not None and info.metadata is not None:
                self._hear(info, asked)
        self._tables.found(name, found, asked)
        return found, asked


def found_with(info: ObjectInfo | None, below: Page, name: str) -> Found:
    """What stands under *name*: the object *info*, and *below* as the first page of what lies below."""
    marker = next((found for found in below.objects if found.key == f"{name}/"), None)
    return Found(info, marker, implied=len(below.objects) + len(below.prefixes) > (marker is not None))

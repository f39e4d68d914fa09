"""Past: a bucket as it was at a moment, out of the versions that it keeps.

Owns: which version of a key was current then, listings made of that.
Must not know: which store keeps the versions, how old they may be.

Of each key the newest version that is not younger than the moment was the current one; where that is a delete marker there was no object.
Services tell times to the second, so the moment is as exact as that. A bucket that kept no versions then shows what was made before and not
replaced since: what it has forgotten is not there. In the embedded store, whose renames copy nothing, a renamed key counts from its rename,
a further hard link from when the file was written.

Nothing changes behind the moment, so that everything may be remembered for ever. Listings carry no metadata; `head` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from s3mount.errors import AccessDenied
from s3mount.model import ByteRange, ETag, Found, Key, ObjectInfo, Page, Version, VersionPlace
from s3mount.store.api import PAGE_KEYS, Arrived, Capabilities, ObjectStore, Pin
from s3mount.store.aspects import URL
from s3mount.store.rules import changed, not_found
from s3mount.store.wrap.base import Op, Wrapper

T = TypeVar("T")

# The last character of Unicode: no key that goes on with anything comes behind one that goes on with these, up to S3's limit of a key.
LAST = "\U0010ffff"
KEY_BYTES = 1024


class Past(Wrapper):
    """*inner* as it was at *at_ns* (nanoseconds since 1970). Every change is AccessDenied."""

    def __init__(self, inner: ObjectStore, at_ns: int) -> None:
        super().__init__(inner)
        self._at_ns = at_ns

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, listed_metadata=False, cheap_metadata=False, links=False, versions=True, changes=False)

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        if op.mutates:
            raise AccessDenied("The past cannot be changed.")
        return await call()

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        then = await self._then(key)
        return await self.inner.head_version(key, then.version_id or "")

    async def find(self, name: str) -> Found:
        if not name:
            return Found(None, None, implied=True)
        here = (await self.list(name, limit=1)).objects
        below = (await self.list(f"{name}/", limit=2)).objects
        marker = next((info for info in below if info.key == f"{name}/"), None)
        return Found(next((info for info in here if info.key == name), None), marker, implied=any(info is not marker for info in below))

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        limit = min(limit, PAGE_KEYS)
        found: list[ObjectInfo | str] = []
        place = place_behind(after, rolled=rolled_up(after, prefix, delimiter) == after) if after else None
        decided = ""
        while True:
            page = await self.inner.list_versions(prefix, after=place)
            for version in page.entries:
                if version.key == decided or version.mtime_ns > self._at_ns:
                    continue
                decided = version.key
                item = rolled_up(version.key, prefix, delimiter) or info_of(version)
                if version.marker or (found and found[-1] == item):
                    continue
                if len(found) == limit:
                    return page_of(found, goes_on=True)
                found.append(item)
            if (place := page.next) is None:
                return page_of(found, goes_on=False)
            if found and isinstance(last := found[-1], str) and place.key.startswith(last):
                place = place_behind(last, rolled=True)

    async def aspect(self, key: Key, name: str) -> str | None:
        if name == URL:
            return await self.inner.aspect(key, name)
        then = await self._then(key)
        return await self.inner.version_aspect(key, then.version_id or "", name)

    async def _then(self, key: Key) -> ObjectInfo:
        objects = (await self.list(key, limit=1)).objects
        if not objects or objects[0].key != key:
            raise not_found(key)
        return objects[0]

    # -- reading ----------------------------------------------------------------------

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        then = known if known is not None and known.version_id else await self._then(key)
        wanted = known.etag if known is not None else if_match
        if wanted is not None and then.etag != wanted:
            raise changed(key)
        return await self.inner.pin_version(then)

    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo:
        if buffer.nbytes != span.length:
            raise ValueError(f"{span.length} bytes do not fill a buffer of {buffer.nbytes}")
        pin = await self.pin(key, if_match=if_match)
        try:
            if span.stop > pin.info.size:
                raise ValueError(f"bytes {span.start}-{span.stop} do not lie in an object of {pin.info.size} bytes")
            await pin.get_into(span.start, buffer, arrived=arrived)
        finally:
            await pin.aclose()
        return pin.info


def info_of(version: Version) -> ObjectInfo:
    """What a listing tells of the object that *version* was."""
    return ObjectInfo(
        version.key,
        version.size,
        version.etag,
        version.mtime_ns,
        storage_class=version.storage_class,
        metadata=None,
        version_id=version.version_id,
    )


def rolled_up(key: str, prefix: str, delimiter: str) -> str | None:
    """The common prefix that *key* is rolled up into; None for none."""
    at = key.find(delimiter, len(prefix)) if delimiter and key.startswith(prefix) else -1
    return None if at < 0 else key[: at + len(delimiter)]


def place_behind(text: str, *, rolled: bool) -> VersionPlace:
    """Behind the key *text*, or behind all keys that begin with it."""
    more = LAST * ((KEY_BYTES - len(text.encode())) // len(LAST.encode())) if rolled else ""
    return VersionPlace(text + more, "")


def page_of(found: list[ObjectInfo | str], *, goes_on: bool) -> Page:
    objects = tuple(item for item in found if isinstance(item, ObjectInfo))
    prefixes = tuple(item for item in found if isinstance(item, str))
    last = found[-1] if found else ""
    return Page(objects, prefixes, (last if isinstance(last, str) else last.key) if goes_on else None)

"""What a listing does not tell of an object: its metadata, and its content type.

Owns: `--attributes`: what is asked for, how many at a time, and that nothing is asked twice.
Must not know: directories, how records are kept.

    list    nothing is asked: an object has no metadata, whatever the store knows
    full    one HEAD for each version of an object, remembered in the tables and in the records

HEAD may find another version than the listing did, or none: its word goes, because it is the later one.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cachetools import LRUCache

from s3mount.cache.asking import Asking, Flight
from s3mount.cache.leaf import Asked, Mark
from s3mount.cache.tables import Tables
from s3mount.cache.tasks import Background
from s3mount.cache.texts import stem_of
from s3mount.errors import AccessDenied, StoreError
from s3mount.model import NO_METADATA, Key, ObjectInfo

# Objects of one directory asked about one by one before those that follow are asked about too; how many for each so far, and at most.
SINGLES = 3
SINGLES_AHEAD = 16
MOST_AHEAD = 1000
# Directories for which that is counted.
STEMS = 256

logger = logging.getLogger(__name__)


class Attributes(Protocol):
    """One of the two ways."""

    @abstractmethod
    async def complete(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        """*infos* with metadata. Those that are gone are left out."""
        ...

    @abstractmethod
    async def remembered(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        """*infos* with metadata as far as nobody need be asked."""
        ...

    @abstractmethod
    async def ahead(self, infos: Sequence[ObjectInfo]) -> None:
        """As `complete`, for somebody who will ask soon: after those that are waited for, and not more than a few. No failure is told."""
        ...

    @abstractmethod
    def shown(self, info: ObjectInfo, *, lasting: bool = True) -> ObjectInfo:
        """*info*, which this mount has just made or HEAD has just told, as it is shown; *lasting*: the store calls it so too."""
        ...

    async def aclose(self) -> None: ...


class Records(Protocol):
    """What is remembered of versions."""

    async def get(self, infos: Sequence[ObjectInfo]) -> Mapping[Key, ObjectInfo]:
        """Those of *infos* that are remembered, with their metadata."""
        ...

    def put(self, infos: Sequence[ObjectInfo], *, own: bool = False) -> None:
        """Remember; *own* are commits of this mount, whose time the store may see otherwise."""
        ...

    async def aclose(self) -> None: ...


class ListAttributes:
    """A listing tells all there is."""

    async def complete(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        return [info if info.metadata is NO_METADATA else self.shown(info) for info in infos]

    async def remembered(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        return [info if info.metadata is NO_METADATA else self.shown(info) for info in infos]

    async def ahead(self, infos: Sequence[ObjectInfo]) -> None:
        pass

    def shown(self, info: ObjectInfo, *, lasting: bool = True) -> ObjectInfo:
        if info.metadata is NO_METADATA:
            return info
        return ObjectInfo(
            info.key,
            info.size,
            info.etag,
            info.mtime_ns,
            info.content_type,
            info.storage_class,
            NO_METADATA,
            info.file_id,
            info.links,
            info.version_id,
            info.extra,
        )

    async def aclose(self) -> None:
        pass


@dataclass(slots=True)
class Singly:
    """How many objects of a directory were asked about one by one. Keys from `begin` to before `half` are the first half of what follows
    and is just asked about: it is not gone through again for each of them."""

    count: int = 0
    begin: str = ""
    half: str = ""


class FullAttributes:
    """One HEAD for each version."""

    def __init__(self, asking: Asking, tables: Tables, records: Records, background: Background) -> None:
        self._asking = asking
        self._tables = tables
        self._records = records
        self._background = background
        self._singles: LRUCache[str, Singly] = LRUCache(STEMS)
        asking.heard = lambda info: records.put([info])

    async def complete(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        missing = [info for info in infos if info.metadata is None]
        if not missing:
            return infos
        known, unknown = await self._recorded(missing)
        if len(infos) == 1 and unknown:
            self._look_ahead(unknown[0].key)
        await self._ask([(info, self._asking.peek(info.key)) for info in unknown], known)
        completed = (info if info.metadata is not None else known[info.key] for info in infos)
        return [info for info in completed if info is not None]

    async def _recorded(self, missing: Sequence[ObjectInfo]) -> tuple[dict[Key, ObjectInfo | None], Sequence[ObjectInfo]]:
        """Those that are remembered (None for who is gone), and those that are not."""
        began = self._tables.ask()
        known = {key: self._latest(info, began) for key, info in (await self._records.get(missing)).items()}
        return known, [info for info in missing if info.key not in known]

    async def _ask(self, asked: Sequence[tuple[ObjectInfo, Flight[ObjectInfo | None]]], known: dict[Key, ObjectInfo | None]) -> None:
        """Add the answers to *known*, and tell the tables of all."""
        for info, flight in asked:
            known[info.key] = await self._told(info, flight)
        self._tables.filled([told for told in known.values() if told is not None])

    async def remembered(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        known = await self._records.get([info for info in infos if info.metadata is None])
        return [known.get(info.key, info) for info in infos]

    async def ahead(self, infos: Sequence[ObjectInfo]) -> None:
        try:
            known, unknown = await self._recorded([info for info in infos if info.metadata is None])
            await self._ask([(info, self._asking.peek(info.key, ahead=True)) for info in unknown[: self._asking.room_ahead]], known)
        except StoreError as error:
            logger.debug("Attributes ahead: %s", error)

    def _look_ahead(self, key: Key) -> None:
        """Objects of one directory are asked about one by one: ask about those that follow, more each time."""
        singly = self._singles.setdefault(stem_of(key), Singly())
        singly.count += 1
        if singly.count >= SINGLES and not singly.begin <= key < singly.half:
            following = self._tables.after(key, min(SINGLES_AHEAD * singly.count, MOST_AHEAD))
            singly.begin, singly.half = key, following[len(following) // 2].key if following else ""
            self._background.start(self._follow, singly, key, following)

    async def _follow(self, singly: Singly, begin: str, following: Sequence[ObjectInfo]) -> None:
        """Ask about *following*, behind *begin*; whoever asks about one of them afterwards means another version."""
        try:
            await self.ahead(following)
        finally:
            if singly.begin == begin:
                singly.half = ""

    async def _told(self, info: ObjectInfo, flight: Flight[ObjectInfo | None]) -> ObjectInfo | None:
        try:
            told = await flight.wait()
        except AccessDenied as error:
            logger.warning("The attributes of %r may not be read: %s", info.key, error)
            return replace(info, metadata=NO_METADATA)
        if told is None or told.etag != info.etag:
            self._tables.told(info.key, told, flight.asked)
            return told
        return self._latest(replace(info, metadata=told.metadata, content_type=told.content_type, version_id=told.version_id), flight.asked)

    def _latest(self, told: ObjectInfo, asked: Asked) -> ObjectInfo | None:
        """*told*, unless this mount has changed the object since that was asked for."""
        made = self._tables.made_since(told.key, asked)
        if made is Mark.ABSENT:
            return None
        return made if isinstance(made, ObjectInfo) and made.metadata is not None else told

    def shown(self, info: ObjectInfo, *, lasting: bool = True) -> ObjectInfo:
        """A version that this mount has made: its record is written now, so that nobody need ask."""
        if lasting and info.metadata is not None:
            self._records.put([info], own=True)
        return info

    async def aclose(self) -> None:
        await self._records.aclose()

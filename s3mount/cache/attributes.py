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
from dataclasses import replace
from typing import Protocol

from s3mount.cache.asking import Asking, Flight
from s3mount.cache.tables import Tables
from s3mount.errors import AccessDenied, StoreError
from s3mount.model import NO_METADATA, Key, ObjectInfo

logger = logging.getLogger(__name__)


class Attributes(Protocol):
    """One of the two ways."""

    @abstractmethod
    async def complete(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        """*infos* with metadata. Those that are gone are left out."""
        ...

    @abstractmethod
    async def ahead(self, infos: Sequence[ObjectInfo]) -> None:
        """As `complete`, for somebody who will ask soon: no failure is told."""
        ...

    @abstractmethod
    def shown(self, info: ObjectInfo) -> ObjectInfo:
        """*info*, which this mount has just made or HEAD has just told, as it is shown."""
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
        return [self.shown(info) for info in infos]

    async def ahead(self, infos: Sequence[ObjectInfo]) -> None:
        pass

    def shown(self, info: ObjectInfo) -> ObjectInfo:
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


class FullAttributes:
    """One HEAD for each version."""

    def __init__(self, asking: Asking, tables: Tables, records: Records) -> None:
        self._asking = asking
        self._tables = tables
        self._records = records

    async def complete(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        missing = [info for info in infos if info.metadata is None]
        if not missing:
            return infos
        known: dict[Key, ObjectInfo | None] = {**await self._records.get(missing)}
        asked = [(info, self._asking.peek(info.key)) for info in missing if info.key not in known]
        for info, flight in asked:
            known[info.key] = await self._told(info, flight)
        self._records.put([told for info, _ in asked if (told := known[info.key]) is not None])
        self._tables.filled([told for told in known.values() if told is not None])
        completed = (info if info.metadata is not None else known[info.key] for info in infos)
        return [info for info in completed if info is not None]

    async def ahead(self, infos: Sequence[ObjectInfo]) -> None:
        try:
            await self.complete(infos)
        except StoreError as error:
            logger.debug("Attributes ahead: %s", error)

    async def _told(self, info: ObjectInfo, flight: Flight[ObjectInfo | None]) -> ObjectInfo | None:
        try:
            told = await flight.wait()
        except AccessDenied as error:
            logger.warning("The attributes of %r may not be read: %s", info.key, error)
            return replace(info, metadata=NO_METADATA)
        if told is None or told.etag != info.etag:
            self._tables.told(info.key, told, flight.asked)
        return told

    def shown(self, info: ObjectInfo) -> ObjectInfo:
        """A version that this mount has made: its record is written now, so that nobody need ask."""
        if info.metadata is not None:
            self._records.put([info], own=True)
        return info

    async def aclose(self) -> None:
        await self._records.aclose()


class NoRecords:
    """Nothing is remembered beyond the tables."""

    async def get(self, infos: Sequence[ObjectInfo]) -> Mapping[Key, ObjectInfo]:
        return {}

    def put(self, infos: Sequence[ObjectInfo], *, own: bool = False) -> None:
        pass

    async def aclose(self) -> None:
        pass

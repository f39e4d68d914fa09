"""Pins whose reads tell when a version is gone.

Owns: noticing that what is remembered of a key was proven wrong by a read.
Must not know: what is remembered.
"""

from __future__ import annotations

from collections.abc import Callable

from s3mount.errors import NotFound, PreconditionFailed
from s3mount.model import ObjectInfo
from s3mount.store.api import Arrived, Pin

GONE = (PreconditionFailed, NotFound)


class WatchedPin:
    """*inner*; *gone* is called with the key when its version turns out to be gone. What comes from memory passes straight through."""

    __slots__ = ("_gone", "_inner")

    def __init__(self, inner: Pin, gone: Callable[[str], None]) -> None:
        self._inner = inner
        self._gone = gone

    def __repr__(self) -> str:
        return f"<WatchedPin {self._inner!r}>"

    @property
    def info(self) -> ObjectInfo:
        return self._inner.info

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        return self._inner.get_into_nowait(offset, buffer)

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        return self._inner.view_nowait(offset, size)

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        try:
            await self._inner.get_into(offset, buffer, arrived=arrived)
        except GONE:
            self._gone(self.info.key)
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

"""Reading a version that is pending, or was when it was pinned.

Owns: putting bytes together from bodies and from what is kept of the base; going over to the store when the base has gone there.
Must not know: chains, the journal's rows.

Bodies are held open: what is pinned stays readable after it was sent, and after its files are removed. What is kept of a base is read from
that version; once ours has replaced it in the store, everything is read from ours there.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping

import trio

from s3mount.errors import NotFound, PreconditionFailed
from s3mount.model import Hole, Kept, ObjectInfo
from s3mount.store.api import Arrived, Pin
from s3mount.writeback.bodies import read_all
from s3mount.writeback.records import Piece, Record, cut

GONE = (PreconditionFailed, NotFound)

Body = bytes | int
"""A body's bytes, or the descriptor of its file."""


class PendingPin:
    """The version that *record* makes. *bodies* are its own from here on; *pin_base* pins what it keeps; *moved*: see `store`."""

    def __init__(
        self,
        record: Record,
        bodies: Mapping[str, Body],
        pin_base: Callable[[], Awaitable[Pin]],
        moved: Callable[[], Awaitable[Pin]],
    ) -> None:
        """*moved* pins the version in the store. Raises PreconditionFailed, NotFound where it is not there."""
        self.info: ObjectInfo = record.info
        self._pieces = record.pieces
        self._bodies = dict(bodies)
        self._pin_base = pin_base
        self._moved = moved
        self._base: Pin | None = None
        self._there: Pin | None = None
        self._open = True

    def __repr__(self) -> str:
        return f"<PendingPin {self.info.key!r} {self.info.etag}{'' if self._open else ' closed'}>"

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        self._require_open()
        pieces = cut(self._pieces, offset, offset + size)
        if len(pieces) != 1 or isinstance(pieces[0], Kept | Hole):
            return None
        body = self._bodies[pieces[0].body]
        return memoryview(body)[pieces[0].position : pieces[0].position + size] if isinstance(body, bytes) else None

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        self._require_open()
        pieces = cut(self._pieces, offset, offset + len(buffer))
        return not any(isinstance(piece, Kept) for piece in pieces) and all(
            self._fill_nowait(piece, buffer[piece.offset - offset : piece.offset - offset + piece.length]) for piece in pieces
        )

    def _fill_nowait(self, piece: Piece, buffer: memoryview) -> bool:
        if isinstance(piece, Hole | Kept):
            buffer[:] = bytes(len(buffer))
            return True
        body = self._bodies[piece.body]
        if isinstance(body, bytes):
            buffer[:] = body[piece.position : piece.position + piece.length]
            return True
        try:
            return os.preadv(body, [buffer], piece.position, os.RWF_NOWAIT) == len(buffer)
        except OSError:
            return False  # not in the page cache, or a file system that cannot say so

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        self._require_open()
        if self._there is not None:
            return await self._there.get_into(offset, buffer, arrived=arrived)
        if self.get_into_nowait(offset, buffer):
            return await trio.lowlevel.checkpoint()
        for piece in cut(self._pieces, offset, offset + len(buffer)):
            into = buffer[piece.offset - offset : piece.offset - offset + piece.length]
            if isinstance(piece, Kept):
                try:
                    await self._read_base(piece, into)
                except GONE:
                    return await self._go_there(offset, buffer, arrived)
            elif not self._fill_nowait(piece, into) and not isinstance(piece, Hole):
                body = self._bodies[piece.body]
                assert isinstance(body, int)
                await trio.to_thread.run_sync(read_all, body, piece.position, into)
        return None

    async def _read_base(self, piece: Kept, buffer: memoryview) -> None:
        if self._base is None:
            self._base = await self._pin_base()
        await self._base.get_into(piece.offset, buffer)

    async def _go_there(self, offset: int, buffer: memoryview, arrived: Arrived | None) -> None:
        self._there = there = self._there or await self._moved()
        await there.get_into(offset, buffer, arrived=arrived)

    async def aclose(self) -> None:
        if not self._open:
            return
        self._open = False
        for body in self._bodies.values():
            if isinstance(body, int):
                os.close(body)
        for pin in (self._base, self._there):
            if pin is not None:
                await pin.aclose()

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError(f"the pin of {self.info.key!r} was released")


class CalledPin:
    """*pin*, whose version is shown as *info*."""

    def __init__(self, pin: Pin, info: ObjectInfo) -> None:
        self.info = info
        self._pin = pin

    def __repr__(self) -> str:
        return f"<CalledPin {self.info.etag} {self._pin!r}>"

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        return self._pin.view_nowait(offset, size)

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        return self._pin.get_into_nowait(offset, buffer)

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        await self._pin.get_into(offset, buffer, arrived=arrived)

    async def aclose(self) -> None:
        await self._pin.aclose()

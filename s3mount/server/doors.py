"""Connections: how many there may be, and how long one may keep us waiting.

Owns: `Door` (a connection around aiohttp's protocol), `House` (all of a worker's).
Must not know: requests, but for whether one is under way and still owes bytes.

    quiet --first byte--> asking --request--> served --answer sent--> quiet          any --too long or too many--> closed

    quiet    nothing asked for: aiohttp's keep-alive timer closes it; first to go when the house is full
    asking   a request line or headers are under way: closed `silence` seconds after its first byte, however many trickle in
    served   closed when the request's body is owed, we are reading, and nothing came for `silence` seconds
A client that takes nothing of an answer is the kernel's to judge: TCP_USER_TIMEOUT, set on the listening socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from s3mount.server.front import Connection

log = logging.getLogger(__name__)

# Looking at some thousand connections takes a millisecond or two.
INSPECTION_SECONDS = 5.0


class Door(asyncio.BufferedProtocol):
    """One connection. It hands everything on to *inner*."""

    def __init__(self, house: House, inner: Connection) -> None:
        self._house = house
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._heard = 0.0
        self._asking_since: float | None = None
        self._request: web.BaseRequest | None = None

    # -- what asyncio calls -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._heard = self._house.now()
        self._inner.connection_made(transport)
        self._house.enter(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._inner.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = self._house.now()
        if self._request is None and self._asking_since is None:
            self._asking_since = self._heard
        self._house.received(nbytes)
        self._inner.buffer_updated(nbytes)

    def eof_received(self) -> bool | None:
        self._inner.eof_received()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.leave(self)
        self._request = None
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    # -- what the house asks ------------------------------------------------------------

    def serve(self, request: web.BaseRequest) -> None:
        self._request = request
        self._asking_since = None
        self._house.busy(self)

    def served(self) -> None:
        self._request = None
        self._house.quiet(self)

    def is_owing(self, now: float, silence_s: float) -> bool:
        """Whether we wait for bytes of this client, and have for too long."""
        if self._request is None:
            return self._asking_since is not None and now - self._asking_since > silence_s
        waiting = not self._request.content.is_eof() and self._transport is not None and self._transport.is_reading()
        return waiting and now - self._heard > silence_s

    def close(self) -> None:
        """At once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()


def door_of(request: web.BaseRequest) -> Door | None:
    """The door that *request* came through, while it is open."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, Door) else None


class House:
    """The connections of one worker: a protocol factory around *make*.

    *received* is told bytes as they arrive, *present* how many connections there are.
    """

    def __init__(
        self,
        make: Callable[[], Connection],
        *,
        limit: int,
        silence_s: float,
        received: Callable[[int], None] = lambda _: None,
        present: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._make = make
        self._limit = limit
        self._silence_s = silence_s
        self.received = received
        self._present = present
        self.now = asyncio.get_running_loop().time
        self._all: set[Door] = set()
        self._quiet: dict[Door, None] = {}  # in the order in which they fell quiet

    def __call__(self) -> Door:
        return Door(self, self._make())

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, door: Door) -> None:
        self._all.add(door)
        self._present(len(self._all))
        self._quiet[door] = None
        if len(self._all) > self._limit:  # the newcomer itself is quiet, so there is one
            next(iter(self._quiet)).close()

    def leave(self, door: Door) -> None:
        self._all.discard(door)
        self._present(len(self._all))
        self._quiet.pop(door, None)

    def busy(self, door: Door) -> None:
        self._quiet.pop(door, None)

    def quiet(self, door: Door) -> None:
        if door in self._all:
            self._quiet[door] = None

    def close_quiet(self) -> None:
        """Close whoever asks for nothing, or has not asked to the end. (aiohttp's own way would drop the rest of bodies under way.)"""
        for door in list(self._quiet):
            door.close()

    async def watch(self) -> None:
        """Close who owes us bytes for too long, until cancelled."""
        while True:
            await asyncio.sleep(min(INSPECTION_SECONDS, self._silence_s / 2))
            self.inspect()

    def inspect(self) -> None:
        """One look at everybody."""
        now = self.now()
        owing = [door for door in self._all if door.is_owing(now, self._silence_s)]
        for door in owing:
            door.close()
        if owing:
            log.info("Connections closed that kept us waiting: %d.", len(owing))

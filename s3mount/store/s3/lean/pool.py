"""The connections of one endpoint: kept alive, bounded, the last used first.

Owns: how many there are, which one is next, when an idle one is too old.
Must not know: what is asked on them.

    take: [idle, alive] --used--> [busy] --clean--> [idle]      K1  at most `limit`, idle and busy together (and one just put back)
          [none idle] --connect--> [busy] --else--> closed       K2  whoever took one puts it back or lost it: no third way

Last in, first out: the one that was used last is the likeliest to be alive, and what is too many grows old and is closed.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from s3mount.errors import Unavailable
from s3mount.store.s3.answers import Asked
from s3mount.store.s3.failures import failure_of
from s3mount.store.s3.lean.connection import Connection, Patience, connect

# Seconds. S3 closes an idle connection after about 20, our own server after 75; what was closed is seen before it is used, or replaced
# when the request finds out. A firewall that forgets a connection says nothing, but takes minutes to do so.
IDLE_S = 60.0


class Pool:
    """Connections to one *host* and *port*; with *tls*, over TLS."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, patience: Patience, *, limit: int) -> None:
        self._host, self._port, self._tls, self._patience = host, port, tls, patience
        self._where = f"{'http' if tls is None else 'https'}://{host}:{port}"
        self._places = trio.Semaphore(limit)
        self._limit = limit
        self._idle: list[Connection] = []
        self._closed = False
        self._busy = 0
        self.opened = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """The right to one connection: waits while *limit* others have theirs."""
        async with self._places:
            self._busy += 1
            try:
                yield
            finally:
                self._busy -= 1

    async def open_one(self) -> None:
        """Have a connection ready for whoever comes first. Raises as `take`."""
        async with self.place():
            connection = await self.take()
            connection.used = True  # it may be old by then: whoever finds it closed asks again on another
            self.put(connection, keep=True)

    async def take(self, *, fresh: bool = False) -> Connection:
        """A kept connection, or a new one; with *fresh* a new one in any case.

        Raises Unavailable, TimedOut, AccessDenied for a certificate that nobody vouches for.
        """
        if self._closed:
            raise Unavailable("The store is closed.")
        self.drop_old()
        while self._idle and not fresh:
            connection = self._idle.pop()
            if not connection.looks_dead():
                return connection
            connection.close()
        if fresh and self._idle:
            self._idle.pop(0).close()
        self.opened += 1
        try:
            return await connect(self._host, self._port, self._patience, self._tls)
        except OSError as error:
            raise failure_of(error, Asked(bucket=""), endpoint=self._where) from error

    def put(self, connection: Connection, *, keep: bool) -> None:
        """Give *connection* back; it is kept if it may be used again."""
        if not keep or not connection.clean or self._closed:
            connection.close()
            return
        connection.idle_since = trio.current_time()
        self._idle.append(connection)
        self.drop_old()

    def forget_idle(self) -> None:
        """Close what is idle: where one connection went silent, the others, as old, would each cost a time-out more."""
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """Close what is idle, and what is busy when it comes back. Idempotent."""
        self._closed = True
        self.forget_idle()

    def check(self) -> None:
        assert self._busy <= self._limit, "K1"
        assert self._busy + len(self._idle) <= self._limit + 1, "K1"

    def drop_old(self) -> None:
        """Close what has been idle for long. The oldest are in front."""
        oldest = trio.current_time() - IDLE_S
        while self._idle and (self._idle[0].idle_since < oldest or len(self._idle) + self._busy > self._limit + 1):
            self._idle.pop(0).close()

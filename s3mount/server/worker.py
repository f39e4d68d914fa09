"""One process that serves: engine, application, socket, maintenance, and the way out.

Owns: the order in which they begin and end; the listening socket; what the process may open.
Must not know: what the application answers, other workers.

    engine -> application -> socket -> ready -> ... -> SIGTERM -> no new connections -> what is under way, bounded -> engine closed -> 0

D1  From SIGTERM on nobody is accepted; idle connections are closed, the others end with their answer.
D2  What is not finished after `limits.drain` is cut off: its client was never answered, so nothing acknowledged is lost.
D3  A second signal ends the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from s3mount.engine.engine import Engine
from s3mount.errors import Unavailable, UsageError
from s3mount.server.app import make_front
from s3mount.server.doors import House
from s3mount.server.figures import Board
from s3mount.server.maintenance import Bounds, Maintenance, Rebuilder
from s3mount.server.observe import Observer
from s3mount.server.settings import Address, Settings

log = logging.getLogger("s3mount.server")

# Connections that the kernel may hold until we accept them; it has its own limit (net.core.somaxconn, 4096 by default).
BACKLOG = 4096

# Request lines and headers: a key of 1024 bytes, each percent-encoded, user metadata of 2 KiB, session tokens of several.
LINE_BYTES = 32 * 1024
FIELD_BYTES = 32 * 1024

# Bytes that a request's body may be ahead of its handler: twice that, and what one read takes (256 KiB). With 100 uploads the process then
# peaks at 200 MiB (measured).
READ_BYTES = 128 * 1024

# How long one thread may keep the interpreter from the loop; Python's own is 5 ms, which several in a row make a slow answer.
SWITCH_SECONDS = 0.001

# What is left after the drain is cut off, and gets this long to notice.
CUT_SECONDS = 1.0

# Descriptors besides the connections: segments, bodies that are read, the index, logs.
SPARE_DESCRIPTORS = 512


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """None without TLS. Raises UsageError for files that are no certificate and key."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{settings.tls_cert} and {settings.tls_key} are no certificate and key: {reason}.") from None
    return context


def bind(address: Address, *, silence_s: float) -> socket.socket:
    """A socket that can listen there, beside others of the same user. Raises Unavailable, UsageError."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"{address} is no address of this machine: {error.strerror}.") from None
    bound = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence_s * 1000))
        bound.bind(where)
    except OSError as error:
        bound.close()
        raise Unavailable(f"Cannot listen on {address}: {error.strerror}.") from None
    return bound


def allow_descriptors(connections: int) -> int:
    """Let this process open as much as it may; how many connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + SPARE_DESCRIPTORS
    if soft < wanted:
        higher = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with contextlib.suppress(OSError, ValueError):  # a service manager may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (higher, hard))
            soft = higher
    return max(1, min(connections, (soft - SPARE_DESCRIPTORS) // 2))


class Worker:
    """Worker *number* of a server. `run` returns when it has been told to end."""

    def __init__(self, settings: Settings, open_engine: Callable[[], Engine], board: Board, number: int) -> None:
        self._settings = settings
        self._open_engine = open_engine
        self._board = board
        self._number = number
        self._end = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self, bound: socket.socket, tls: ssl.SSLContext | None, ready: Callable[[], None], parent: int | None = None) -> None:
        """Serve on *bound*. *parent*: a descriptor whose end means that who started us is gone. Raises StoreError at the beginning."""
        with contextlib.closing(await asyncio.to_thread(self._open_engine)) as engine:
            self._heed_signals(parent)
            async with self._upkeep(engine) as rebuilder, self._serving(engine, rebuilder, bound, tls):
                _settle_down()
                ready()
                await self._end.wait()
            await asyncio.to_thread(engine.sync)

    def _heed_signals(self, parent: int | None) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        if parent is not None:
            loop.add_reader(parent, self._told_to_end)

    def _told_to_end(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._hurry.set)
        self._end.set()

    @contextlib.asynccontextmanager
    async def _upkeep(self, engine: Engine) -> AsyncIterator[Rebuilder]:
        settings = self._settings
        bounds = Bounds(
            settings.maintenance_sweep, settings.maintenance_uploads, settings.maintenance_scrub, settings.maintenance_scrub_rate
        )
        maintenance = Maintenance(engine, bounds, self._board.row(self._number)) if self._number == 0 else None
        rebuilder = Rebuilder(engine)
        if maintenance is not None:
            maintenance.start()
        try:
            yield rebuilder
        finally:
            if maintenance is not None:
                await asyncio.to_thread(maintenance.stop)
            await asyncio.to_thread(rebuilder.join)

    @contextlib.asynccontextmanager
    async def _serving(self, engine: Engine, rebuilder: Rebuilder, bound: socket.socket, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
        settings, row = self._settings, self._board.row(self._number)
        observer = Observer(engine, self._board, row, bases=settings.bases, lines=settings.log_requests)
        front = make_front(
            engine,
            keyring=settings.keyring,
            hosts=settings.public_hostnames,
            domains=settings.bases,
            region=settings.region,
            wrapper=observer,
            rebuild=rebuilder.begin,
            **_http_options(settings),
        )
        runner = web.ServerRunner(front, shutdown_timeout=CUT_SECONDS)
        await runner.setup()
        limit = allow_descriptors(settings.limits_connections)
        house = House(front, limit=limit, silence_s=settings.limits_silence, received=observer.received, present=observer.present)
        listening = await asyncio.get_running_loop().create_server(house, sock=bound, ssl=tls, backlog=BACKLOG)
        tasks = [asyncio.create_task(house.watch()), asyncio.create_task(observer.report())]
        try:
            yield
        finally:
            observer.draining = True
            listening.close()
            house.close_quiet()
            await self._drain(observer)
            for task in tasks:
                task.cancel()
            await runner.cleanup()

    async def _drain(self, observer: Observer) -> None:
        """Wait until nothing is under way, as long as we may."""
        waits = [asyncio.create_task(event.wait()) for event in (observer.idle, self._hurry)]
        await asyncio.wait(waits, timeout=self._settings.limits_drain, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        if observer.under_way:
            log.warning("%d requests were cut off: they were not done in time.", observer.under_way)


def _settle_down() -> None:
    """Spare requests the pauses that an interpreter makes by default: what is there now is not searched for garbage again (a full search of
    the modules takes 50 ms), and a thread with work that is all Python gives way to the loop sooner."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)


def _http_options(settings: Settings) -> dict[str, Any]:
    return {
        "logger": http_log(),
        "keepalive_timeout": settings.limits_silence,
        "max_line_size": LINE_BYTES,
        "max_field_size": FIELD_BYTES,
        "read_bufsize": READ_BYTES,
        "lingering_time": 5.0,
    }


def http_log() -> logging.Logger:
    """aiohttp's log, without the tracebacks that it writes for requests that are no HTTP, and for clients that went away."""
    logger = logging.getLogger("aiohttp.server")
    if _is_defect not in logger.filters:
        logger.addFilter(_is_defect)
    return logger


def _is_defect(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)

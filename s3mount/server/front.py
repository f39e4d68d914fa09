"""The HTTP front: aiohttp's server protocol, with small answers of our own and S3's document for what is no HTTP.

Owns: `Front` (a factory of connections), `Answer` (what goes out); the bytes of status lines and headers.
Must not know: S3's operations, what wraps them.

aiohttp parses requests and paces bodies, but for long ones: they go from the socket to where they are worked on (`intake`), and a new
parser takes over behind them. aiohttp's answers cost several times what a small one needs, and its own errors are plain text without
a line in our log; both are replaced here. An `Answer` is what aiohttp expects of a response, as far as it looks: `prepare`, `write_eof`,
`keep_alive`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from s3mount.model import KiB
from s3mount.server.calls import REQUEST_ID
from s3mount.server.intake import Intake
from s3mount.server.lanes import Room
from s3mount.server.s3errors import S3Error

Handler = Callable[[web.BaseRequest], Awaitable["Answer"]]
Told = Callable[[web.BaseRequest, int, int], None]
"""Is told of a request that nobody handled: request, status, bytes of the answer."""

SERVER = "s3mount"
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
# What one read takes at most, as asyncio's own.
RECEIVE_BYTES = 256 * KiB
# Statuses without a body, and without a length.
_BARE = frozenset({204, 304})


class Answer:
    """One answer. *body* is all of it, unless `stream` is used.

    *length*: what Content-Length says, where that is not the length of *body* (HEAD, streams); a header of that name goes before.
    """

    __slots__ = ("_begun", "_keep", "_request", "body", "headers", "length", "status")

    def __init__(self, status: int, headers: Iterable[tuple[str, str]], body: bytes = b"", *, length: int | None = None) -> None:
        self.status = status
        self.headers = list(headers)
        self.body = body
        self.length = len(body) if length is None else length
        self._keep: bool | None = None
        self._request: web.BaseRequest | None = None
        self._begun = False

    @property
    def prepared(self) -> bool:
        """Whether its head has left."""
        return self._begun

    @property
    def keep_alive(self) -> bool:
        return bool(self._keep)

    def force_close(self) -> None:
        """The connection ends with it. Before it is begun."""
        self._keep = False

    async def prepare(self, request: web.BaseRequest) -> None:
        self._request = request
        if self._keep is None:
            self._keep = request.keep_alive

    async def begin(self, request: web.BaseRequest) -> asyncio.Transport:
        """Send the head; the caller sends the body into the transport. Raises ConnectionResetError."""
        await self.prepare(request)
        transport = _transport(request)
        self._begun = True
        transport.write(self._head(request))
        return transport

    async def write_eof(self) -> None:
        """Send what is not sent yet. Raises ConnectionResetError."""
        if self._begun:
            return
        request = self._request
        assert request is not None
        transport = _transport(request)
        self._begun = True
        head = self._head(request)
        bare = request.method == "HEAD" or self.status in _BARE
        transport.write(head if bare or not self.body else head + self.body)
        await request.writer.drain()

    def _head(self, request: web.BaseRequest) -> bytes:
        lines = [f"{name}: {value}" for name, value in self.headers]
        if self.status not in _BARE and not any(name.lower() == "content-length" for name, _ in self.headers):
            lines.append(f"Content-Length: {self.length}")
        lines.append(f"Date: {_date()}")
        if not self._keep:
            lines.append("Connection: close")
        elif request.version < (1, 1):
            lines.append("Connection: keep-alive")
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
            raise ValueError("a header with a line break")
        line = _LINES.get(self.status) or f"HTTP/1.1 {self.status} Unknown"
        return f"{line}\r\n{text}\r\n\r\n".encode("utf-8", "surrogateescape")


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    return transport


_today = (0, "")


def _date() -> str:
    """Now, as HTTP writes it; made once a second."""
    global _today
    now = int(time.time())
    if _today[0] != now:
        _today = now, formatdate(now, usegmt=True)
    return _today[1]


class Front(web.Server):
    """Makes connections whose requests go to *handler*. *refused* is told of what is no request; *ended* is called at the shutdown."""

    def __init__(
        self,
        handler: Handler,
        *,
        refused: Told = lambda request, status, sent: None,
        ended: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> None:
        super().__init__(handler, access_log=None, auto_decompress=False, **options)  # type: ignore[arg-type]
        self.refused = refused
        self._ended = ended
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))

    def __call__(self) -> Connection:
        return Connection(self, self._buffer, loop=self._loop, **self._kwargs)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (aiohttp's)
        await super().shutdown(timeout)
        self._ended()


class Connection(RequestHandler, asyncio.BufferedProtocol):
    """aiohttp's, with our answer to what it cannot read, or to a defect, and long bodies past its parser.

    *buffer* is where bytes arrive that are not diverted, for all connections of a loop: they are taken out at once.
    """

    __slots__ = ("_buffer", "_intake")

    def __init__(self, manager: Front, buffer: memoryview, **options: Any) -> None:
        super().__init__(manager, **options)
        self._buffer = buffer
        self._intake: Intake | None = None

    # -- arriving bytes ---------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer if self._intake is None else self._intake.space()

    def buffer_updated(self, nbytes: int) -> None:
        if self._intake is None:
            self.data_received(bytes(self._buffer[:nbytes]))
        else:
            self._intake.filled(nbytes)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._intake is not None:
            self._intake.lost()
        super().connection_lost(exc)

    def divert(self, content: StreamReader, size: int, room: Room) -> tuple[list[bytes], Intake | None] | None:
        """What is here of a body of *size* bytes, and where the rest will be, None where all is here. Raises what *content* does.

        None where aiohttp is another than the one known here, so that the body has to come through it.
        """
        try:
            lost, parser = self._parser is None or self.transport is None, self._new_parser()
        except (AttributeError, TypeError):
            return None
        pieces = []
        while piece := content.read_nowait():
            pieces.append(piece)
        left = size - content.total_bytes
        if left <= 0 or lost:
            return pieces, None
        assert self.transport is not None
        ended = partial(self._go_on_behind, content, left, parser)
        self._intake = Intake(left, room, line=self.transport, nowhere=self._buffer, ended=ended)
        return pieces, self._intake

    def _new_parser(self) -> HttpRequestParser:
        """As aiohttp makes it for a new connection."""
        return HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def _go_on_behind(self, content: StreamReader, size: int, parser: HttpRequestParser) -> None:
        """The rest of the body, *size* bytes, is here: what follows is a request. The former parser still waits for them, and goes."""
        self._intake = None
        self._parser = parser
        content.total_bytes += size
        content.feed_eof()

    # -- answers ----------------------------------------------------------------------

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        self.keep_alive(False)
        error = S3Error("InternalError") if status >= 500 else _unread(exc)
        number = request.get(REQUEST_ID) or secrets.token_hex(8).upper()
        body = error.body(resource="", request_id=number)
        fields = [("Content-Type", "application/xml"), ("Server", SERVER), ("x-amz-request-id", number), ("x-amz-id-2", number)]
        answer = Answer(error.status, fields, body)
        answer.force_close()
        if isinstance(self._manager, Front) and status < 500:
            request[REQUEST_ID] = number
            self._manager.refused(request, error.status, len(body))
        return answer  # type: ignore[return-value]


def _unread(exc: BaseException | None) -> S3Error:
    """What S3 says of a request that cannot be parsed."""
    if isinstance(exc, LineTooLong):
        return S3Error("RequestHeaderSectionTooLarge")
    return S3Error("BadRequest", "An error occurred when parsing the HTTP request.")

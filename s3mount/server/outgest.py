"""An answer on its way out: small ones at once, contents of objects piece by piece or by the kernel.

Owns: how bytes leave. Must not know: what they answer.

1. A content that is one body file goes out by sendfile, unless TLS is in between, in windows: what of a window the page cache does not hold
   is fetched by a thread first, as sendfile on the loop would wait for the disk.
2. Others are read into one buffer after another, from the page cache at once, else in a thread.
3. A reader is closed whatever happens. What fails behind the head ends the connection: the client sees that it came short.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import BinaryIO

from s3mount.engine.reader import Reader
from s3mount.model import KiB, MiB
from s3mount.server.calls import BYTES_OUT, Call, Reply
from s3mount.server.front import SERVER, Answer

log = logging.getLogger(__name__)

# What is read before it is sent with the headers in one go.
AT_ONCE = 64 * KiB
# One buffer per answer under way.
BUFFER = 256 * KiB
# What sendfile gets at once, and how far apart it is looked whether the page cache holds it: the kernel reads ahead by that or more.
WINDOW = 8 * MiB
STRIDE = 128 * KiB


async def send(call: Call, reply: Reply, *, close: bool) -> Answer:
    """The answer, sent or ready to be sent. *close*: the connection ends with it."""
    if reply.reader is None:
        return _closing(Answer(reply.status, _headers(call, reply.headers), reply.body), close)
    try:
        return await _send_content(call, reply, reply.reader, close)
    finally:
        reply.reader.close()


def _closing(answer: Answer, close: bool) -> Answer:
    if close:
        answer.force_close()
    return answer


def _headers(call: Call, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [("x-amz-id-2", call.id), ("x-amz-request-id", call.id), *headers, ("Server", SERVER)]


async def _send_content(call: Call, reply: Reply, reader: Reader, close: bool) -> Answer:
    start, stop = (0, reader.info.size) if reply.span is None else (reply.span.start, reply.span.stop)
    headers = _headers(call, reply.headers)
    if stop - start <= AT_ONCE:
        body = bytearray(stop - start)
        if body:
            await _read(call, reader, start, memoryview(body))
        return _closing(Answer(reply.status, headers, bytes(body)), close)
    answer = _closing(Answer(reply.status, headers, length=stop - start), close)
    transport = await answer.begin(call.web)
    try:
        if not await _send_file(call, transport, reader, start, stop):
            await _send_pieces(call, transport, reader, start, stop)
    except (ConnectionError, asyncio.CancelledError):
        _abort(transport)
        raise
    except Exception as error:
        _abort(transport)
        log.exception("Request %s: a content could not be sent to its end.", call.id)
        raise ConnectionResetError("the answer came short") from error
    return answer


async def _read(call: Call, reader: Reader, offset: int, view: memoryview) -> None:
    if not reader.read_into_nowait(offset, view):
        await call.run(reader.read_into, offset, view)


async def _send_file(call: Call, transport: asyncio.Transport, reader: Reader, start: int, stop: int) -> bool:
    """By sendfile; False where that cannot be done."""
    if transport.get_extra_info("sslcontext") is not None:
        return False
    found = reader.whole_file()
    if found is None:
        return False
    fd, place = found
    with os.fdopen(fd, "rb", buffering=0) as file:
        for at in range(start, stop, WINDOW):
            count = min(WINDOW, stop - at)
            try:
                await _send_window(call, transport, file, place + at, count)
            except asyncio.SendfileNotAvailableError as error:
                # So asyncio calls whatever failed before the window's first byte: a client that hung up, or a medium without sendfile.
                if _is_gone(transport):
                    raise ConnectionResetError("the client is gone") from error
                if at == start:
                    return False
                raise
            call.web[BYTES_OUT] = at + count - start
    return True


def _is_gone(transport: asyncio.Transport) -> bool:
    if transport.is_closing():
        return True
    try:
        transport.get_extra_info("socket").getpeername()
    except OSError:
        return True
    return False


async def _send_window(call: Call, transport: asyncio.Transport, file: BinaryIO, offset: int, count: int) -> None:
    if not _is_cached(file.fileno(), offset, count):
        await call.run(_fetch, file.fileno(), offset, count)
    sent = await asyncio.get_running_loop().sendfile(transport, file, offset, count, fallback=False)
    if sent != count:
        raise EOFError(f"a body ends {count - sent} bytes before its size")


def _is_cached(fd: int, offset: int, count: int) -> bool:
    """Whether the page cache seems to hold it all."""
    probe = [bytearray(1)]
    try:
        return all(os.preadv(fd, probe, at, os.RWF_NOWAIT) for at in _probes(offset, count))
    except OSError:
        return False


def _fetch(fd: int, offset: int, count: int) -> None:
    """Bring it into the page cache."""
    os.posix_fadvise(fd, offset, count, os.POSIX_FADV_WILLNEED)
    for at in _probes(offset, count):
        os.pread(fd, 1, at)


def _abort(transport: asyncio.Transport) -> None:
    """One that is closing ends by itself; one that the client's end has closed meanwhile cannot be aborted any more."""
    if not transport.is_closing():
        transport.abort()


def _probes(offset: int, count: int) -> Iterable[int]:
    yield from range(offset, offset + count, STRIDE)
    yield offset + count - 1


async def _send_pieces(call: Call, transport: asyncio.Transport, reader: Reader, start: int, stop: int) -> None:
    for at in range(start, stop, BUFFER):
        # A fresh buffer each time: the transport may still hold the former.
        view = memoryview(bytearray(min(BUFFER, stop - at)))
        await _read(call, reader, at, view)
        if transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(view)
        call.web[BYTES_OUT] = at + len(view) - start
        await call.web.writer.drain()

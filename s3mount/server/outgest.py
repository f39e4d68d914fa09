"""An answer on its way out: small ones at once, contents of objects piece by piece or by the kernel.

Owns: how bytes leave. Must not know: what they answer.

A content that is one body file goes out by sendfile, unless TLS is in between; others are read into one buffer, from the page cache at
once, else in a thread. A reader is closed whatever happens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

from aiohttp import web
from multidict import CIMultiDict

from s3mount.engine.reader import Reader
from s3mount.model import ByteRange, KiB
from s3mount.server.calls import Call, Reply

# What is read before it is sent with the headers in one go.
AT_ONCE = 64 * KiB
# One buffer per answer under way.
BUFFER = 256 * KiB
SERVER = "s3mount"


async def send(call: Call, reply: Reply) -> web.StreamResponse:
    """The answer, sent or ready to be sent by aiohttp."""
    if reply.reader is None:
        return _plain(call, reply)
    try:
        return await _send_content(call, reply, reply.reader)
    finally:
        reply.reader.close()


def _plain(call: Call, reply: Reply) -> web.Response:
    head = call.s3.method == "HEAD"
    named = any(name.lower() == "content-length" for name, _ in reply.headers)
    response = web.Response(status=reply.status, headers=_headers(call, reply.headers), body=None if head and named else reply.body)
    return _typed(response, reply.headers)


def _headers(call: Call, headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    return CIMultiDict([*headers, ("Server", SERVER), ("x-amz-request-id", call.id), ("x-amz-id-2", call.id)])


def _typed(response: web.Response, headers: Iterable[tuple[str, str]]) -> web.Response:
    """Without a type of ours where the answer says none."""
    if not any(name.lower() == "content-type" for name, _ in headers) and response.body is None:
        response.headers.pop("Content-Type", None)
    return response


async def _send_content(call: Call, reply: Reply, reader: Reader) -> web.StreamResponse:
    span = reply.span
    start, stop = (0, reader.info.size) if span is None else (span.start, span.stop)
    if stop - start <= AT_ONCE:
        body = bytearray(stop - start)
        if body:
            await _read(call, reader, start, memoryview(body))
        return web.Response(status=reply.status, headers=_headers(call, reply.headers), body=bytes(body))
    response = web.StreamResponse(status=reply.status, headers=_headers(call, reply.headers))
    response.content_length = stop - start
    await response.prepare(call.web)
    if not await _send_file(call, reader, start, stop):
        await _send_pieces(call, response, reader, ByteRange(start, stop))
    return response


async def _read(call: Call, reader: Reader, offset: int, view: memoryview) -> None:
    if not reader.read_into_nowait(offset, view):
        await call.run(reader.read_into, offset, view)


async def _send_file(call: Call, reader: Reader, start: int, stop: int) -> bool:
    """By sendfile; False where that cannot be done."""
    transport = call.web.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    if transport.get_extra_info("sslcontext") is not None:
        return False
    found = reader.whole_file()
    if found is None:
        return False
    fd, place = found
    with os.fdopen(fd, "rb", buffering=0) as file:
        await asyncio.get_running_loop().sendfile(transport, file, place + start, stop - start, fallback=False)
    return True


async def _send_pieces(call: Call, response: web.StreamResponse, reader: Reader, span: ByteRange) -> None:
    at = span.start
    while at < span.stop:
        # A fresh buffer each time: the transport may still hold the former.
        view = memoryview(bytearray(min(BUFFER, span.stop - at)))
        await _read(call, reader, at, view)
        await response.write(view)
        at += len(view)

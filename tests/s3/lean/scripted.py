"""A server that answers as a test tells it, byte by byte: what no real server can be made to do.

Owns: the listening socket, the steps of an answer, the requests that came.
Must not know: S3, the lane.

    async with scripted() as server:
        server.plan = [[ok(b"body")], [partial[:100], RESET]]       one entry for each request, in the order of their arrival

A step is bytes to send, an Event to wait for, a function to call, HANG, RESET or CLOSE. After the last step the
connection waits for its next request; a request beyond the plan is a failure of the test. A body is heard to its end before the answer,
unless `hears` is smaller.
"""

from __future__ import annotations

import atexit
import functools
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

import trio


class Act(Enum):
    RESET = "reset"
    CLOSE = "close"
    HANG = "hang"


RESET, CLOSE, HANG = Act.RESET, Act.CLOSE, Act.HANG
Step = bytes | Act | trio.Event | Callable[[], None]
ETAG = '"tag"'


@dataclass
class Scripted:
    port: int
    plan: list[Sequence[Step]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    bodies: list[bytes] = field(default_factory=list)
    hears: int = 2**62
    open: int = 0
    most: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fields(self, number: int = -1) -> dict[str, str]:
        """The header fields of a request, names in lower case."""
        lines = self.requests[number].decode().split("\r\n")[1:-2]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            async with stream:
                while request := await self._request(stream):
                    self.requests.append(request)
                    if not await self._answer(stream, self.plan.pop(0)):
                        return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1

    async def _request(self, stream: trio.SocketStream) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            more = await stream.receive_some()
            if not more:
                return b""
            received += more
        head, _, begun = received.partition(b"\r\n\r\n")
        portions, heard = [begun], len(begun)
        length = min(self.hears, int((re.findall(rb"\r\ncontent-length: (\d+)", head.lower()) or [0])[0]))
        while heard < length:
            more = await stream.receive_some()
            if not more:
                return b""
            portions.append(bytes(more))
            heard += len(more)
        self.bodies.append(b"".join(portions))
        return head + b"\r\n\r\n"

    async def _answer(self, stream: trio.SocketStream, steps: Sequence[Step]) -> bool:
        """Whether the connection goes on."""
        for step in steps:
            if isinstance(step, bytes):
                await stream.send_all(step)
            elif isinstance(step, trio.Event):
                await step.wait()
            elif callable(step):
                step()
            elif step is HANG:
                await trio.sleep_forever()
            else:
                if step is RESET:
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
        return True


@functools.cache
def doorstep() -> socket.socket:
    """One address for all tests, so that one client serves them all."""
    listening = socket.create_server(("127.0.0.1", 0))
    atexit.register(listening.close)
    return listening


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    async with trio.open_nursery() as nursery:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(doorstep().dup()))
        server = Scripted(listener.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        yield server
        nursery.cancel_scope.cancel()


def ok(body: bytes, *fields: str, start: int = 0, total: int | None = None) -> bytes:
    """206 with *body* as the bytes from *start* of an object of *total* bytes."""
    size = start + len(body) if total is None else total
    return answer("206 Partial Content", body, f"Content-Range: bytes {start}-{start + len(body) - 1}/{size}", *fields)


def answer(status: str, body: bytes = b"", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", f"ETag: {ETAG}", "Last-Modified: Sat, 21 Nov 2026 02:40:00 GMT", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def refusal(status: str, code: str, *fields: str, **elements: str) -> bytes:
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in {"Code": code, "Message": "no", **elements}.items())
    return answer(status, f"<?xml version='1.0'?><Error>{inner}</Error>".encode(), *fields)


def chunked(body: bytes, size: int, *fields: str) -> bytes:
    """206 of the whole of *body*, in chunks of *size*."""
    head = ["HTTP/1.1 206 Partial Content", f"Content-Range: bytes 0-{len(body) - 1}/{len(body)}", "Transfer-Encoding: chunked"]
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return "\r\n".join([*head, f"ETag: {ETAG}", *fields]).encode() + b"\r\n\r\n" + encoded + b"0\r\n\r\n"

"""A server that gives one answer to everything, and keeps what it was asked.

Owns: the socket, the thread. Asserts nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """What came in; headers with lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]


Script = Callable[[Request], Reply]


def refusal(status: int, code: str, message: str = "", *, headers: Mapping[str, str] | None = None, **fields: str) -> Reply:
    """An error as S3 says it."""
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in {"Code": code, "Message": message, **fields}.items())
    return Reply(status, f"<?xml version='1.0' encoding='UTF-8'?><Error>{inner}</Error>".encode(), dict(headers or {}))


def listing(bucket: str) -> Reply:
    """An empty bucket."""
    name = f"<Name>{bucket}</Name><KeyCount>0</KeyCount><MaxKeys>1</MaxKeys><IsTruncated>false</IsTruncated>"
    return Reply(200, f"<ListBucketResult>{name}</ListBucketResult>".encode(), {"Content-Type": "application/xml"})


@contextmanager
def canned(answer: Script) -> Iterator[tuple[str, list[Request]]]:
    """The URL of a server that answers by *answer*, and the requests as they come."""
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
            requests.append(request)
            reply = answer(request)
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

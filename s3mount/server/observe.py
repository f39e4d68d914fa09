"""What the server says of itself: a line per request, a bandwidth report, /-/health and /-/metrics.

Owns: what stands around every request, the request id, the counting.
Must not know: S3, what a handler does; how lines are written (logs), where numbers lie (figures).

Seam with the handlers: REQUEST_ID is set before they run (they give it as x-amz-request-id); they set KEY_ID once they know who asks, and
may keep BYTES_OUT current while they send, so that a long answer shows in the bandwidth reports before it ends.

A signature in a query is as good as a secret until it expires, so no line holds one: SECRET_PARAMS.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Sequence

from aiohttp import web

from s3mount.engine.engine import Engine
from s3mount.errors import S3MountError
from s3mount.server.calls import BYTES_OUT, KEY_ID, REQUEST_ID
from s3mount.server.doors import door_of
from s3mount.server.figures import Board, Row, exposition
from s3mount.server.front import Answer, Handler
from s3mount.server.logs import say
from s3mount.server.wire import bucket_of_host

log = logging.getLogger("s3mount.server")

# Seconds that one bandwidth report covers.
REPORT_SECONDS = 10.0

# A health check that takes longer says that the server is not well.
HEALTH_SECONDS = 5.0

# What a client that went away is logged with; nginx's number.
GONE = 499

SECRET_PARAMS = re.compile(r"(?i)\b(X-Amz-Signature|X-Amz-Security-Token|Signature)=[^&]*")
PATH_CHARACTERS = 2048


class Observer:
    """Counts and logs every request of one worker. `draining` is set by whoever ends it, `idle` while nothing is under way."""

    def __init__(self, engine: Engine, board: Board, row: Row, *, bases: Sequence[str], lines: bool) -> None:
        self._engine = engine
        self._board = board
        self._row = row
        self._bases = bases
        self._lines = lines
        self._under_way: dict[str, web.BaseRequest] = {}
        self._started = time.time()
        self.draining = False
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def received(self, count: int) -> None:
        """Bytes that a connection took in, headers and all."""
        self._row.add("received_bytes_total", count)

    def present(self, count: int) -> None:
        """How many connections are open."""
        self._row.set("connections", count)

    # -- requests -----------------------------------------------------------------------

    async def observe(self, request: web.BaseRequest, handler: Handler) -> Answer:
        """Pass it on, count it, and write its line."""
        request[REQUEST_ID] = secrets.token_hex(8).upper()
        own = self._own(request)
        begun, door = time.perf_counter(), door_of(request)
        self._enter(request)
        if door is not None:
            door.serve(request)
        status, sent = GONE, 0
        try:
            response = await (own or handler)(request)
            if self.draining and not response.prepared:
                response.force_close()
            status, sent = response.status, _sent(request, response)
            return response
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            status = 500
            log.exception("A defect: a request failed.", extra={"fields": {"request_id": request[REQUEST_ID]}})
            raise
        finally:
            if door is not None:
                door.served()
            self._leave(request, status=status, sent=sent, seconds=time.perf_counter() - begun)

    def refused(self, request: web.BaseRequest, status: int, sent: int) -> None:
        """What was no request is counted and logged like one."""
        self._leave(request, status=status, sent=sent, seconds=0.0)

    def _enter(self, request: web.BaseRequest) -> None:
        self._under_way[request[REQUEST_ID]] = request
        self.idle.clear()
        self._row.set("requests_in_flight", len(self._under_way))

    def _leave(self, request: web.BaseRequest, *, status: int, sent: int, seconds: float) -> None:
        self._under_way.pop(request[REQUEST_ID], None)
        if not self._under_way:
            self.idle.set()
        self._row.set("requests_in_flight", len(self._under_way))
        sent = max(sent, request.get(BYTES_OUT, 0))
        self._row.add("sent_bytes_total", sent)
        self._row.count_request(request.method, status, seconds)
        if self._lines and log.isEnabledFor(logging.INFO):
            say(log, "request", _fields(request, status, sent, seconds))

    # -- its own pages ------------------------------------------------------------------

    def _own(self, request: web.BaseRequest) -> Handler | None:
        """`-` is no bucket's name, so these paths are free, but for keys of a bucket that the host names."""
        if not request.raw_path.startswith("/-/") or bucket_of_host(request.host, self._bases):
            return None
        return {"/-/health": self._health, "/-/metrics": self._metrics}.get(request.path, _not_found)

    async def _health(self, request: web.BaseRequest) -> Answer:
        """200 while the index can be read, and 503 when it cannot, or the server is about to end."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                await asyncio.to_thread(self._engine.buckets)
        except (TimeoutError, S3MountError) as error:
            return _json(503, status="failing", reason=str(error) or "no answer in time")
        return _json(503, status="draining") if self.draining else _json(200, status="ok")

    async def _metrics(self, request: web.BaseRequest) -> Answer:
        space = await asyncio.to_thread(self._engine.space)
        text = exposition(
            self._board,
            {
                "space_bytes": ("Size of the data folder's medium.", space.total),
                "space_available_bytes": ("What is free there.", space.free),
                "start_time_seconds": ("When the worker that answers was started, in seconds since 1970.", self._started),
            },
        )
        return Answer(200, [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")], text.encode())

    # -- bandwidth ----------------------------------------------------------------------

    async def report(self) -> None:
        """Say every REPORT_SECONDS what went through, if anything did, until cancelled."""
        before = self._traffic()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            now = self._traffic()
            self.say_bandwidth(now[0] - before[0], now[1] - before[1], now[2] - before[2])
            before = now

    def say_bandwidth(self, received: float, sent: float, requests: float) -> None:
        """One report of REPORT_SECONDS; nothing where nothing went through."""
        if received or sent or requests:
            rate = {
                "seconds": REPORT_SECONDS,
                "received_bytes_per_s": round(received / REPORT_SECONDS),
                "sent_bytes_per_s": round(sent / REPORT_SECONDS),
                "requests_per_s": round(requests / REPORT_SECONDS, 1),
                "in_flight": len(self._under_way),
            }
            log.info("bandwidth", extra={"fields": rate})

    def _traffic(self) -> tuple[float, float, float]:
        """Bytes in, bytes out (what answers under way have sent so far included), requests."""
        sending = sum(request.get(BYTES_OUT, 0) for request in self._under_way.values())
        return self._row.get("received_bytes_total"), self._row.get("sent_bytes_total") + sending, self._row.get("requests")


def _json(code: int, **fields: str) -> Answer:
    return Answer(code, [("Content-Type", "application/json; charset=utf-8")], json.dumps(fields).encode())


def _sent(request: web.BaseRequest, answer: Answer) -> int:
    """Bytes of the answer's body: sent, or about to be."""
    return 0 if request.method == "HEAD" else answer.length


def _fields(request: web.BaseRequest, status: int, sent: int, seconds: float) -> dict[str, object]:
    return {
        "method": request.method,
        "path": _told_path(request.raw_path),
        "status": status,
        "bytes_in": request.content.total_bytes,
        "bytes_out": sent,
        "ms": round(seconds * 1000, 2),
        "request_id": request[REQUEST_ID],
        "key_id": request.get(KEY_ID, ""),
        "remote": request.remote or "",
    }


def _told_path(path: str) -> str:
    return (SECRET_PARAMS.sub(r"\1=-", path) if "?" in path else path)[:PATH_CHARACTERS]


async def _not_found(request: web.BaseRequest) -> Answer:
    return _json(404, status="not found")

"""The application: from aiohttp's request to an answer, whatever happens.

Owns: the order of things for every request (take it as it arrived, who asks, route, answer), the one place where errors become answers.
Must not know: what handlers do; where settings come from; sockets (who runs the server listens).

aiohttp's applications and routes are not used: they would normalise paths, and cost more than most of our answers. `Expect` is answered by
whoever reads the body (`ingest`), after the early checks. What wraps the application sees answers only, never an error of ours.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aiohttp import web

from s3mount.engine.engine import Engine
from s3mount.errors import StoreError
from s3mount.server import corsapi, routing
from s3mount.server.access import ALL, Caller, Keyring, action_of, authenticate, unverified
from s3mount.server.calls import BYTES_IN, KEY_ID, REGION, REQUEST_ID, Call, Reply, Service
from s3mount.server.front import Answer, Front, Handler
from s3mount.server.outgest import send
from s3mount.server.s3errors import S3Error, from_store
from s3mount.server.wire import S3Request, parse_request

log = logging.getLogger(__name__)

# A body of which so much is left is not worth reading after an error: the connection is closed.
DRAIN_BYTES = 1024 * 1024


class Wrapper(Protocol):
    """What sees every request and its answer, errors included."""

    async def observe(self, request: web.BaseRequest, handler: Handler) -> Answer: ...

    def refused(self, request: web.BaseRequest, status: int, sent: int) -> None:
        """Of what came, nothing could be read as a request."""
        ...


def make_front(
    engine: Engine,
    *,
    keyring: Keyring | None = None,
    hosts: Sequence[str] = (),
    domains: Sequence[str] = (),
    region: str = REGION,
    wrapper: Wrapper | None = None,
    rebuild: Callable[[], bool] | None = None,
    **options: Any,
) -> Front:
    """The S3 API over *engine*, which stays the caller's, for an `aiohttp.web.ServerRunner`. *keyring* None: authentication is off.

    *hosts* are further names that may have been signed, *domains* those under which buckets are sub-domains; *rebuild* begins to rebuild
    the index, or says that it runs already. *options* are aiohttp's, for its connections.
    """
    service = Service(engine, keyring, hosts, domains, region, rebuild)

    async def handle(request: web.BaseRequest) -> Answer:
        return await _handle(service, request)

    async def wrapped(request: web.BaseRequest) -> Answer:
        assert wrapper is not None
        return await wrapper.observe(request, handle)

    if wrapper is None:
        return Front(handle, ended=service.close, **options)
    return Front(wrapped, refused=wrapper.refused, ended=service.close, **options)


async def _handle(service: Service, request: web.BaseRequest) -> Answer:
    call = Call(_UNREAD, request, service, Caller(), request.get(REQUEST_ID) or secrets.token_hex(8).upper())
    try:
        reply = await _answer(call)
    except Exception as error:
        reply = _error_reply(call, error)
    request[KEY_ID], request[BYTES_IN] = call.caller.access_key, call.received
    if call.s3.header("origin") is not None:
        reply.headers += await corsapi.headers_for(call)
    return await send(call, reply, close=_must_close(call))


_UNREAD = S3Request("GET", "/", "", (), "", "", "")


async def _answer(call: Call) -> Reply:
    call.s3 = S3Request(call.web.method, call.web.raw_path, "", (), "", "", "")
    call.s3 = parse_request(call.web.method, call.web.raw_path, call.web.raw_headers, bases=call.service.bases)
    route = routing.find(call.s3)
    if route.open:
        call.caller = Caller(rights=ALL)
    elif call.service.keys is None:
        call.caller = unverified(call.s3)
    else:
        call.caller = authenticate(call.s3, call.service.keys, now=call.service.now(), hosts=call.service.hosts)
        call.caller.require(action_of(call.s3), call.bucket)
    return await route.handler(call)


def _error_reply(call: Call, error: Exception) -> Reply:
    if isinstance(error, StoreError):
        error = from_store(error, **_named(call))
    if isinstance(error, ConnectionError):
        raise error
    if not isinstance(error, S3Error):
        log.error("Request %s %s failed.", call.id, call.s3.method, exc_info=error)
        error = S3Error("InternalError")
    fields = getattr(error, "headers", [])
    if call.s3.method == "HEAD":
        return Reply(error.status, [("Content-Type", "application/xml"), *fields])
    body = error.body(resource=call.s3.path, request_id=call.id)
    return Reply(error.status, [("Content-Type", "application/xml"), *fields], body)


def _named(call: Call) -> dict[str, str]:
    names = {"BucketName": call.s3.bucket, "Key": call.s3.key, "UploadId": call.s3.param("uploadId") or ""}
    return {name: value for name, value in names.items() if value}


def _must_close(call: Call) -> bool:
    """Whether a body is left that the client may or may not send, or that is too long to be read for nothing.

    Botocore's connections are of no use after an answer without the 100 that they waited for, even to an empty body: they send no more.
    """
    if call.expects and not call.continued:
        return True
    if call.web.content.is_eof():
        return False
    length = call.s3.header("content-length")
    return length is None or not length.isdigit() or int(length) > DRAIN_BYTES

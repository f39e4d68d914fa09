"""The application: from aiohttp's request to an answer, whatever happens.

Owns: the order of things for every request (take it as it arrived, who asks, route, answer), the one place where errors become answers.
Must not know: what handlers do; where settings come from; sockets (who runs the server listens).

One route takes every path: aiohttp's router would normalise them. `Expect` is answered by whoever reads the body (`ingest`), after the
early checks. What wraps the application (`middlewares`) sees answers only, never an error of ours.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

from s3mount.engine.engine import Engine
from s3mount.errors import StoreError
from s3mount.server import corsapi, routing
from s3mount.server.access import ALL, Caller, Keyring, action_of, authenticate, unverified
from s3mount.server.calls import BYTES_IN, KEY_ID, REGION, REQUEST_ID, Call, Reply, Service
from s3mount.server.outgest import send
from s3mount.server.s3errors import S3Error, from_store
from s3mount.server.wire import S3Request, parse_request

log = logging.getLogger(__name__)

# A body of which so much is left is not worth reading after an error: the connection is closed.
DRAIN_BYTES = 1024 * 1024


def make_app(
    engine: Engine,
    *,
    keyring: Keyring | None = None,
    hosts: Sequence[str] = (),
    domains: Sequence[str] = (),
    region: str = REGION,
    middlewares: Sequence[Middleware] = (),
    rebuild: Callable[[], bool] | None = None,
) -> web.Application:
    """The S3 API over *engine*, which stays the caller's. *keyring* None: authentication is off.

    *hosts* are further names that may have been signed, *domains* those under which buckets are sub-domains; *rebuild* begins to rebuild
    the index, or says that it runs already. Who runs it must switch off aiohttp's own decompression of bodies.
    """
    service = Service(engine, keyring, hosts, domains, region, rebuild)

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _handle(service, request)

    async def leave_to_the_reader(request: web.Request) -> None:
        pass

    async def close(app: web.Application) -> None:
        service.close()

    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", r"/{path:[\s\S]*}", handle, expect_handler=leave_to_the_reader)
    app.on_cleanup.append(close)
    return app


async def _handle(service: Service, request: web.Request) -> web.StreamResponse:
    call = Call(_UNREAD, request, service, Caller(), request.get(REQUEST_ID) or secrets.token_hex(8).upper())
    try:
        reply = await _answer(call)
    except Exception as error:
        reply = _error_reply(call, error)
    request[KEY_ID], request[BYTES_IN] = call.caller.access_key, call.received
    reply.headers += await corsapi.headers_for(call)
    if _must_close(call):
        reply.headers.append(("Connection", "close"))
    response = await send(call, reply)
    if _must_close(call):
        response.force_close()
    return response


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
    if call.s3.method == "HEAD" or error.status == 304:
        return Reply(error.status, [*fields])
    body = error.body(resource=call.s3.path, request_id=call.id)
    return Reply(error.status, [("Content-Type", "application/xml"), *fields], body)


def _named(call: Call) -> dict[str, str]:
    names = {"BucketName": call.s3.bucket, "Key": call.s3.key, "UploadId": call.s3.param("uploadId") or ""}
    return {name: value for name, value in names.items() if value}


def _must_close(call: Call) -> bool:
    """Whether a body is left that the client may or may not send, or that is too long to be read for nothing."""
    if call.web.content.is_eof():
        return False
    waits = (call.s3.header("expect") or "").lower() == "100-continue" and not call.continued
    length = call.s3.header("content-length")
    return waits or length is None or not length.isdigit() or int(length) > DRAIN_BYTES

"""CORS of a bucket: its rules, the preflight, and the headers that every answer to a browser gets.

Owns: these operations. Must not know: how rules match (`cors`).

Rules are kept as the XML that was sent, checked before.
"""

from __future__ import annotations

from collections.abc import Sequence

from s3mount.errors import StoreError
from s3mount.server import cors
from s3mount.server.calls import Call, Headers, Reply, xml
from s3mount.server.cors import CorsRule
from s3mount.server.demands import require_possible
from s3mount.server.ingest import receive_document
from s3mount.server.s3errors import S3Error
from s3mount.server.xml import cors_document, parse_cors

SETTING = "cors"


async def get(call: Call) -> Reply:
    rules = await _rules(call)
    if rules is None:
        raise S3Error("NoSuchCORSConfiguration", BucketName=call.bucket)
    return xml(cors_document(rules))


async def put(call: Call) -> Reply:
    require_possible(call.s3)
    rules = parse_cors(await receive_document(call, "CORSConfiguration"))
    await call.run(call.engine.set_setting, call.bucket, SETTING, cors_document(rules))
    return Reply(200)


async def delete(call: Call) -> Reply:
    require_possible(call.s3)
    await call.run(call.engine.set_setting, call.bucket, SETTING, None)
    return Reply(204)


async def preflight(call: Call) -> Reply:
    header = call.s3.header
    rules = await _rules(call) if call.bucket else None
    method, asked = header("access-control-request-method"), header("access-control-request-headers")
    return Reply(200, cors.preflight(rules, header("origin"), method, asked))


async def headers_for(call: Call) -> Headers:
    """What an answer says to the page that asked; nothing where the request names no origin."""
    origin = call.s3.header("origin")
    if origin is None or not call.bucket or call.s3.method == "OPTIONS":
        return []
    try:
        rules = await _rules(call)
    except StoreError:
        return []
    return cors.actual(rules or (), origin, call.s3.header("access-control-request-method") or call.s3.method)


async def _rules(call: Call) -> Sequence[CorsRule] | None:
    """Raises NoSuchBucket."""
    found = await call.run(call.engine.setting, call.bucket, SETTING)
    return None if found is None else parse_cors(found)

"""Browser uploads: a POST of multipart/form-data to a bucket, its fields in place of headers.

Owns: reading the form, and the answer to it (success_action_status, success_action_redirect).
Must not know: how policies are judged (`post_policy`), how objects are stored (`objects`).
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import quote, urlsplit

from aiohttp import BodyPartReader, MultipartReader

from s3mount.server import checksums, objects
from s3mount.server.access import Action
from s3mount.server.calls import Call, Reply, xml
from s3mount.server.checksums import DEFAULT, Algorithm
from s3mount.server.demands import require_possible
from s3mount.server.ingest import Received, give_up, receive_file, send_continue
from s3mount.server.post_policy import Policy, is_signed, parse_policy, resolve_key, verify_form
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import S3Request, require_key_length
from s3mount.server.xml import document, parse_tagging, tag

# S3's limit for all fields before the file, bytes.
FIELDS_BYTES = 20 * 1024
READ = 64 * 1024
# Fields that are no headers of the object.
_FORM_ONLY = frozenset(
    {"key", "policy", "signature", "awsaccesskeyid", "file", "success_action_status", "success_action_redirect", "redirect"}
)


async def post(call: Call) -> Reply:
    call.engine.require_bucket(call.bucket)
    await send_continue(call)
    try:
        form = await call.web.multipart()
        fields, file = await _fields(form)
    except (ValueError, AssertionError, LookupError):
        raise S3Error("MalformedPOSTRequest") from None
    policy = _authorise(call, fields)
    call.s3 = _as_put(call.s3, fields)
    require_possible(call.s3)
    require_key_length(call.s3.key)
    how, kept = objects.described(call)
    if "tagging" in fields:
        kept = type(kept)(kept.headers, parse_tagging(fields["tagging"].encode()))
    call.source = _File(file)
    received = await receive_file(call, [_algorithm(fields)])
    try:
        _require_right(fields, received, policy)
    except S3Error:
        await give_up(call, received)
        raise
    reply = await objects.store(call, received, how, kept)
    return _answer(call, fields, reply)


class _Chunked(Protocol):
    async def read_chunk(self, size: int) -> bytes: ...


class _File:
    """The file's part of the form, as a source of a body."""

    def __init__(self, part: _Chunked) -> None:
        self._part = part

    async def readany(self) -> bytes:
        return await self._part.read_chunk(READ)


async def _fields(form: MultipartReader) -> tuple[dict[str, str], BodyPartReader]:
    """The fields by lower-case name, `${filename}` replaced, and the file. Raises S3Error."""
    fields: dict[str, str] = {}
    left = FIELDS_BYTES
    while True:
        part = await form.next()
        if part is None:
            sentence = "POST requires exactly one file upload per request."
            raise S3Error("InvalidArgument", sentence, ArgumentName="file", ArgumentValue="0")
        if not isinstance(part, BodyPartReader):
            raise S3Error("MalformedPOSTRequest")
        name = (part.name or "").lower()
        if name == "file":
            if "key" in fields:
                fields["key"] = resolve_key(fields["key"], part.filename or "")
            return fields, part
        data = bytearray()
        while chunk := await part.read_chunk(READ):
            data += chunk
            if len(data) > left:
                raise S3Error("MaxPostPreDataLengthExceeded", MaxPostPreDataLengthBytes=FIELDS_BYTES)
        left -= len(data)
        fields[name] = data.decode("utf-8", "surrogateescape")


def _authorise(call: Call, fields: dict[str, str]) -> Policy | None:
    """Raises AccessDenied, InvalidArgument and whatever the policy says."""
    if not fields.get("key"):
        sentence = "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields."
        raise S3Error("InvalidArgument", sentence, ArgumentName="key", ArgumentValue="")
    keys = call.service.keys
    if keys is not None:
        if not is_signed(fields):
            raise S3Error("AccessDenied")
        pair = verify_form(fields, keys)
        if not pair.rights.allow(Action.WRITE, call.bucket):
            raise S3Error("AccessDenied")
        call.caller = type(call.caller)(pair.access_key, pair.rights, signed=True)
    if not is_signed(fields):
        return None
    policy = parse_policy(fields["policy"])
    policy.check(fields, bucket=call.bucket, now=call.service.now())
    return policy


def _as_put(request: S3Request, fields: dict[str, str]) -> S3Request:
    """The PUT that the form stands for: its fields are the headers."""
    headers = tuple((_HEADER_OF.get(name, name), value) for name, value in fields.items() if name not in _FORM_ONLY)
    first: dict[str, str] = {}
    for name, value in headers:
        first.setdefault(name, value)
    own = tuple((name, value) for name, value in request.headers if name in ("origin", "access-control-request-method"))
    for name, value in own:
        first.setdefault(name, value)
    return S3Request(
        "POST", request.path, request.query, (*headers, *own), request.host, request.bucket, fields["key"], request.virtual, {}, first
    )


_HEADER_OF = {"acl": "x-amz-acl", "x-amz-tagging": "x-amz-tagging"}


def _algorithm(fields: dict[str, str]) -> Algorithm:
    return next((algorithm for algorithm in Algorithm if algorithm.header in fields), DEFAULT)


def _require_right(fields: dict[str, str], received: Received, policy: Policy | None) -> None:
    if policy is not None:
        policy.check_length(received.size)
    if "content-md5" in fields and checksums.decode_md5(fields["content-md5"]) != received.md5:
        raise checksums.bad_digest()
    algorithm = _algorithm(fields)
    if algorithm.header in fields and checksums.decode(algorithm, fields[algorithm.header]) != received.sums[algorithm]:
        raise checksums.bad_digest(algorithm)


def _answer(call: Call, fields: dict[str, str], reply: Reply) -> Reply:
    etag = dict(reply.headers)["ETag"]
    location = f"{call.web.scheme}://{call.s3.host}/{call.bucket}/{quote(call.key)}"
    redirect = fields.get("success_action_redirect") or fields.get("redirect") or ""
    if urlsplit(redirect).scheme in ("http", "https"):
        mark = "&" if "?" in redirect else "?"
        target = f"{redirect}{mark}bucket={quote(call.bucket)}&key={quote(call.key, safe='')}&etag={quote(etag, safe='')}"
        return Reply(303, [*reply.headers, ("Location", "".join(char for char in target if char.isprintable()))])
    status = fields.get("success_action_status")
    headers = [*reply.headers, ("Location", location)]
    if status == "201":
        rows = [tag("Location", location), tag("Bucket", call.bucket), tag("Key", call.key), tag("ETag", etag)]
        created = xml(document("PostResponse", rows), *headers)
        created.status = 201
        return created
    return Reply(200 if status == "200" else 204, headers)

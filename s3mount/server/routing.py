"""Which handler answers which request: by what is named (service, bucket, object), method and sub-resource.

Owns: the table. Must not know: what handlers do.

A sub-resource that nobody handles is NotImplemented, whatever the method, and never falls back to the plain operation. One that is
handled with other methods is MethodNotAllowed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from s3mount.server import buckets, copying, corsapi, deleting, listing, multipart, objects, posting, tagging
from s3mount.server import versions as versionsapi
from s3mount.server.calls import Call, Reply
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import S3Request

Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """`open`: the handler asks for no signature of the request itself."""

    handler: Handler
    open: bool = False


# (what, method, sub-resource)
_TABLE: dict[tuple[str, str, str], Handler] = {
    ("service", "GET", ""): buckets.list_buckets,
    ("bucket", "PUT", ""): buckets.create,
    ("bucket", "HEAD", ""): buckets.head,
    ("bucket", "DELETE", ""): buckets.delete,
    ("bucket", "GET", "location"): buckets.location,
    ("bucket", "GET", "versioning"): versionsapi.get_versioning,
    ("bucket", "PUT", "versioning"): versionsapi.put_versioning,
    ("bucket", "GET", ""): listing.list_objects,
    ("bucket", "GET", "versions"): versionsapi.list_versions,
    ("bucket", "GET", "uploads"): multipart.list_uploads,
    ("bucket", "POST", "delete"): deleting.delete_objects,
    ("bucket", "POST", "rebuildIndex"): buckets.rebuild_index,
    ("bucket", "GET", "cors"): corsapi.get,
    ("bucket", "PUT", "cors"): corsapi.put,
    ("bucket", "DELETE", "cors"): corsapi.delete,
    ("bucket", "GET", "tagging"): tagging.get_of_bucket,
    ("bucket", "PUT", "tagging"): tagging.put_of_bucket,
    ("bucket", "DELETE", "tagging"): tagging.delete_of_bucket,
    ("object", "GET", ""): objects.get,
    ("object", "HEAD", ""): objects.head,
    ("object", "PUT", ""): objects.put,
    ("object", "DELETE", ""): deleting.delete,
    ("object", "GET", "attributes"): objects.attributes,
    ("object", "GET", "tagging"): tagging.get,
    ("object", "PUT", "tagging"): tagging.put,
    ("object", "DELETE", "tagging"): tagging.delete,
    ("object", "POST", "uploads"): multipart.create,
    ("object", "PUT", "uploadId"): multipart.upload_part,
    ("object", "GET", "uploadId"): multipart.list_parts,
    ("object", "POST", "uploadId"): multipart.complete,
    ("object", "DELETE", "uploadId"): multipart.abort,
}
_KNOWN = {(what, sub) for what, _, sub in _TABLE}


def find(request: S3Request) -> Route:
    """Raises NotImplemented, MethodNotAllowed, InvalidRequest."""
    what = "object" if request.key else "bucket" if request.bucket else "service"
    if request.method == "OPTIONS":
        return Route(corsapi.preflight, open=True)
    subs = request.subresources
    if len(subs) > 1:
        raise S3Error("InvalidArgument", "Conflicting query string parameters: " + ", ".join(sorted(subs)), ResourceType="")
    sub = next(iter(subs), "")
    if (what, "POST", sub) == ("bucket", "POST", "") and _is_form(request):
        return Route(posting.post, open=True)
    handler = _TABLE.get((what, _like_get(request.method, sub), sub))
    if handler is None:
        raise _refusal(request, what, sub)
    if handler is objects.put and request.header("x-amz-copy-source") is not None:
        handler = copying.copy
    elif handler is multipart.upload_part and request.header("x-amz-copy-source") is not None:
        handler = copying.copy_part
    return Route(handler)


def _like_get(method: str, sub: str) -> str:
    """HEAD of a sub-resource is its GET without a body."""
    return "GET" if method == "HEAD" and sub else method


def _is_form(request: S3Request) -> bool:
    return (request.header("content-type") or "").lower().startswith("multipart/form-data")


def _refusal(request: S3Request, what: str, sub: str) -> S3Error:
    if (what, sub) not in _KNOWN:
        return S3Error("NotImplemented", Header=sub) if sub else S3Error("MethodNotAllowed", Method=request.method, ResourceType="SERVICE")
    kind = sub.upper() or what.upper()
    return S3Error("MethodNotAllowed", Method=request.method[:32], ResourceType=kind)

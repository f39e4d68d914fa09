"""What an HTTP/1.1 head says to somebody who only passes it on: the kind of S3 request, and how long the body is.

Owns: splitting a head, the names of the kinds, the framing of bodies. Pure.
Must not know: sockets, time, faults.

Kinds are S3's operations as one counts them; path-style addressing is taken for granted. A target may come in absolute form.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

HEAD_END = b"\r\n\r\n"

# How a body ends where no length says so.
CHUNKED = -1
UNTIL_CLOSED = -2

# Sub-resources of a bucket or object that no file system asks for in bulk are one kind.
LISTINGS = {"versions": "LIST-versions", "uploads": "LIST-uploads"}


@dataclass(frozen=True, slots=True)
class Head:
    """`line` is the first one; names in `fields` are lower case, values stripped; `raw` is all of it, the empty line included."""

    line: bytes
    fields: dict[bytes, bytes]
    raw: bytes

    def has(self, name: bytes, token: bytes) -> bool:
        return token in self.fields.get(name, b"").lower()


def parse(raw: bytes) -> Head:
    line, _, rest = raw.partition(b"\r\n")
    fields: dict[bytes, bytes] = {}
    for field in rest.split(b"\r\n"):
        name, colon, value = field.partition(b":")
        if colon:
            fields[name.strip().lower()] = value.strip()
    return Head(line, fields, raw)


def with_field(head: Head, name: bytes, value: bytes | None) -> Head:
    """*head* with one field replaced; without it where *value* is None."""
    lines = head.raw[: -len(HEAD_END)].split(b"\r\n")
    kept = [line for line in lines[1:] if line.partition(b":")[0].strip().lower() != name]
    added = [] if value is None else [name + b": " + value]
    return parse(b"\r\n".join([lines[0], *kept, *added]) + HEAD_END)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it is counted: its kind, and what tells it from others of that kind."""

    kind: str
    method: str
    target: str
    span: str

    @property
    def key(self) -> str:
        """Of an object (decoded, without the bucket), or the prefix of a listing."""
        parts = urlsplit(self.target)
        if self.kind.startswith("LIST"):
            return dict(parse_qsl(parts.query, keep_blank_values=True)).get("prefix", "")
        return unquote_to_bytes(parts.path.lstrip("/").partition("/")[2]).decode(errors="replace")


def request_of(head: Head) -> Request:
    method, _, rest = head.line.decode("latin-1").partition(" ")
    target = rest.rpartition(" ")[0]
    if not target.startswith("/"):
        parts = urlsplit(target)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
    return Request(kind_of(method, target, head), method, target, head.fields.get(b"range", b"").decode("latin-1"))


def kind_of(method: str, target: str, head: Head) -> str:
    path, _, query = target.partition("?")
    asked = {item.partition("=")[0] for item in query.split("&") if item}
    of_object = bool(path.lstrip("/").partition("/")[2])
    match method:
        case "GET" | "HEAD":
            return _kind_of_reading(method, asked, head, of_object=of_object, root=path == "/")
        case "PUT":
            return _kind_of_put(asked, head, of_object=of_object)
        case "POST":
            return _kind_of_post(asked)
        case "DELETE":
            return "Abort" if "uploadId" in asked else "DELETE" if of_object else "other"
    return "other"


def _kind_of_reading(method: str, asked: set[str], head: Head, *, of_object: bool, root: bool) -> str:
    if method == "HEAD":
        return "HEAD" if of_object else "HEAD-bucket"
    if of_object:
        if asked & {"tagging", "acl", "attributes", "uploadId", "legal-hold", "retention", "torrent"}:
            return "other"
        return "GET-range" if b"range" in head.fields else "GET"
    for name, kind in LISTINGS.items():
        if name in asked:
            return kind
    plain = {"list-type", "prefix", "delimiter", "marker", "max-keys", "encoding-type", "start-after", "continuation-token", "fetch-owner"}
    return "other" if root or asked - plain - {"x-id", "allow-unordered"} else "LIST"


def _kind_of_put(asked: set[str], head: Head, *, of_object: bool) -> str:
    copy = b"x-amz-copy-source" in head.fields
    if "partNumber" in asked:
        return "UploadPartCopy" if copy else "UploadPart"
    if not of_object or asked & {"tagging", "acl", "legal-hold", "retention"}:
        return "other"
    return "COPY" if copy else "PUT"


def _kind_of_post(asked: set[str]) -> str:
    if "uploads" in asked:
        return "CreateUpload"
    if "uploadId" in asked:
        return "Complete"
    return "DeleteObjects" if "delete" in asked else "other"


def request_length(head: Head) -> int:
    """Bytes of the body, or CHUNKED."""
    if head.has(b"transfer-encoding", b"chunked"):
        return CHUNKED
    return int(head.fields.get(b"content-length", b"0"))


def status_of(head: Head) -> int:
    return int(head.line.split(b" ", 2)[1])


def answer_length(head: Head, method: str) -> int:
    """Bytes of the body, CHUNKED, or UNTIL_CLOSED."""
    status = status_of(head)
    if method == "HEAD" or status in (204, 304) or status < 200:
        return 0
    if head.has(b"transfer-encoding", b"chunked"):
        return CHUNKED
    length = head.fields.get(b"content-length")
    return UNTIL_CLOSED if length is None else int(length)


def keeps_alive(head: Head) -> bool:
    if head.has(b"connection", b"close"):
        return False
    return b"HTTP/1.0" not in head.line or head.has(b"connection", b"keep-alive")

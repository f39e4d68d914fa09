"""What a write's headers say of the object besides its bytes: user metadata, content headers, storage class.

Owns: reading them from a request, and writing them into an answer.
Must not know: where they are kept.

Text that is no ASCII arrives as UTF-8 or Latin-1, is kept as text, and is answered as S3 does: encoded by RFC 2047.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from s3mount.server.s3errors import S3Error
from s3mount.server.wire import S3Request

PREFIX = "x-amz-meta-"
# S3's limit: names and values together, in bytes of UTF-8.
METADATA_BYTES = 2048
# Kept with the object and answered with it. Content-Type stands apart: it always has a value.
CONTENT_HEADERS = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")
# Query parameter -> header of the answer that it replaces.
OVERRIDES = {
    "response-cache-control": "Cache-Control",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
    "response-content-language": "Content-Language",
    "response-content-type": "Content-Type",
    "response-expires": "Expires",
}
# Those of S3 that need no restore before a read; all mean the same here, and are echoed.
STORAGE_CLASSES = frozenset(
    {"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "EXPRESS_ONEZONE"}
)
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE", "OUTPOSTS", "SNOW"})


def user_metadata(request: S3Request) -> dict[str, str]:
    """Lower-case names without the prefix; repeated headers are joined by commas. Raises MetadataTooLarge, InvalidArgument."""
    found: dict[str, str] = {}
    for name, value in request.headers:
        if name.startswith(PREFIX):
            short, text = name[len(PREFIX) :], kept_text(value)
            found[short] = f"{found[short]},{text}" if short in found else text
    size = sum(len(name.encode()) + len(value.encode()) for name, value in found.items())
    if size > METADATA_BYTES:
        raise S3Error("MetadataTooLarge", Size=size, MaxSizeAllowed=METADATA_BYTES)
    return found


def kept_text(value: str) -> str:
    """A header's value as text: UTF-8 if it is that, else Latin-1."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value


def sent_text(value: str) -> str:
    """As it goes into an answer: ASCII as it is, else RFC 2047. What could end a header line never leaves."""
    if value.isascii():
        return value if value.isprintable() else "".join(char if char.isprintable() or char == "\t" else " " for char in value)
    return f"=?UTF-8?B?{base64.b64encode(value.encode(errors='replace')).decode()}?="


def content_headers(request: S3Request) -> dict[str, str]:
    """Those of CONTENT_HEADERS that say something; aws-chunked is taken out of Content-Encoding, which names only what is stored."""
    found = {}
    for name in CONTENT_HEADERS:
        values = request.values(name)
        text = stored_encoding(",".join(values)) if name == "content-encoding" else kept_text(", ".join(values))
        if text:
            found[name] = text
    return found


def stored_encoding(text: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    return ",".join(part for part in parts if part and part.lower() != "aws-chunked")


def content_type(request: S3Request) -> str:
    return kept_text(request.header("content-type") or "") or "binary/octet-stream"


def storage_class(request: S3Request) -> str:
    """Raises InvalidStorageClass; NotImplemented for archives, which would have to be restored."""
    text = request.header("x-amz-storage-class") or "STANDARD"
    if text in ARCHIVES:
        raise S3Error("NotImplemented", Header="x-amz-storage-class")
    if text not in STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass", StorageClassRequested=text[:64])
    return text


def overrides(request: S3Request, *, signed: bool) -> Mapping[str, str]:
    """Headers of the answer that response-* parameters replace. Raises InvalidRequest where nobody signed."""
    if not request.params:
        return {}
    found = {header: request.params[name] for name, header in OVERRIDES.items() if name in request.params}
    if found and not signed:
        raise S3Error("InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.")
    return {header: sent_text(value) for header, value in found.items()}

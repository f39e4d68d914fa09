"""Byte ranges: the Range header of a read, the source range of a part copy.

Owns: what a range asks of an object of a given size.
Must not know: objects, replies.

Rules chosen: several ranges, other units and malformed values are ignored, as AWS does (200 with everything). A range that no byte
satisfies is 416; of an empty object every range is. A bad source range of a copy is InvalidArgument (AWS), not InvalidRange.
"""

from __future__ import annotations

import re

from s3mount.model import ByteRange
from s3mount.server.s3errors import S3Error

# 19 digits hold every size there is; longer numbers are cut to something beyond all objects.
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,40})\s*-\s*(\d{0,40})\s*", re.IGNORECASE | re.ASCII)
_COPY_RANGE = re.compile(r"bytes=(\d{1,40})-(\d{1,40})", re.ASCII)


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The bytes to send; None for all of them. Raises InvalidRange (416)."""
    found = _RANGE.fullmatch(header or "")
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = min(int(found[2]), size)
        first, last = size - length, size - 1
    else:
        first, last = int(found[1]), int(found[2] or size - 1) if size else 0
        if found[2] and int(found[2]) < first:
            return None
    if first >= size or last < first:
        raise S3Error("InvalidRange", RangeRequested=header, ActualObjectSize=size)
    return ByteRange(first, min(last, size - 1) + 1)


def content_range(span: ByteRange, size: int) -> str:
    """The value of Content-Range for a 206."""
    return f"bytes {span.start}-{span.stop - 1}/{size}"


def parse_copy_range(header: str | None, size: int) -> ByteRange | None:
    """The bytes of the source, of which there are *size*; None for all of them. Raises InvalidArgument."""
    if header is None:
        return None
    found = _COPY_RANGE.fullmatch(header)
    if not found or int(found[2]) < int(found[1]):
        sentence = "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets"
        raise _bad_copy_range(f"{sentence} of the first and last bytes to copy", header)
    if int(found[2]) >= size:
        raise _bad_copy_range(f"Range specified is not valid for source object of size: {size}", header)
    return ByteRange(int(found[1]), int(found[2]) + 1)


def _bad_copy_range(message: str, header: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName="x-amz-copy-source-range", ArgumentValue=header[:128])

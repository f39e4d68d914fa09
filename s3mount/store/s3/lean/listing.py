"""A LIST answer's XML straight into our values.

Owns: the document's grammar, its bounds, what of it is refused.
Must not know: sockets, how it was asked for. Pure.

A page (1000 keys, at most `DOCUMENT_BYTES`) whose objects are written plainly (see plain) is taken apart by one expression, but for its
first object: under 2 ms, where botocore takes 50. Of any other the C parser builds the tree, and one pass over it makes the values: 3-4 ms.
A target that hears each element (pull parser, SAX) costs more than the tree: the calls into Python are what is dear. Keys come url-encoded,
so that XML 1.0 can carry every one of them.

A document type could define entities that grow without end: a document that has one is refused before it is parsed, and so is one that
hides it in UTF-16; the parser is told the encoding, lest the document chooses a third.
"""

from __future__ import annotations

import functools
import itertools
import re
from operator import attrgetter
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

from s3mount.model import Key, MiB, ObjectInfo
from s3mount.store.s3.headers import NS, etag_in, iso_time
from s3mount.store.s3.lean.paging import Listed
from s3mount.store.s3.lean.plain import Plain, plain_objects
from s3mount.store.s3.lean.wire import Garbled, number

# 1000 keys of 1024 bytes, each byte written as %XX, with 1 KiB of markup each, owners among it.
DOCUMENT_BYTES = 4 * MiB

BYTES = "application/octet-stream"
_KEY = attrgetter("key")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(?:\.\d+)?Z", re.ASCII)
_ROOTS = ("ListBucketResult", "ListObjectsV2Result")


def parse_listing(document: bytes) -> Listed:
    """The page that *document* is, in byte order. Raises Garbled."""
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document or b"\0" in document:
        raise Garbled("The endpoint's listing has a document type or another encoding, which no listing needs.")
    plain = plain_objects(document)
    return (_of_plain(plain) if plain is not None else None) or _of_tree(document)


def _of_plain(plain: Plain) -> Listed | None:
    """None where the parser reads the first object otherwise. Raises Garbled."""
    root, space = _root(plain.rest)
    listed = _listed(root, space)
    keys = (
        plain.keys if not _is_encoded(root, space) or _is_itself("".join(plain.keys)) else [_text(key, encoded=True) for key in plain.keys]
    )
    times = [_minute_ns(time[:17]) + int(time[17:]) * NS for time in plain.times]
    classes = itertools.repeat("STANDARD") if plain.classes is None else (name or "STANDARD" for name in plain.classes)
    columns = zip(keys, map(int, plain.sizes), map(etag_in, plain.etags), times, classes, strict=False)
    objects = [ObjectInfo(Key(key), size, etag, time, BYTES, kind, None) for key, size, etag, time, kind in columns]
    return Listed(_in_order(objects), listed.prefixes, listed.token) if tuple(objects[:1]) == listed.objects else None


def _of_tree(document: bytes) -> Listed:
    return _listed(*_root(document))


def _root(document: bytes) -> tuple[ElementTree.Element, str]:
    """The root and its name space, as it stands before each name."""
    try:
        root = ElementTree.XML(document, ElementTree.XMLParser(encoding="utf-8"))
    except ElementTree.ParseError as error:
        raise Garbled(f"The endpoint's listing is no XML ({error}).") from None
    space, _, name = root.tag.rpartition("}")
    if name not in _ROOTS:
        raise Garbled(f"The endpoint answers a listing with a {name[:40]!r}.")
    return root, f"{space}}}" if space else ""


def _listed(root: ElementTree.Element, space: str) -> Listed:
    encoded = _is_encoded(root, space)
    objects = _objects(root, space, encoded=encoded)
    groups = root.iterfind(f"{space}CommonPrefixes/{space}Prefix")
    prefixes = sorted(_text(group.text or "", encoded=encoded) for group in groups)
    truncated = root.findtext(f"{space}IsTruncated", "false").strip() == "true"
    token = root.findtext(f"{space}NextContinuationToken") if truncated else None
    if truncated and token is None:
        raise Garbled("The endpoint's listing goes on, but does not say how.")
    return Listed(objects, tuple(prefixes), token)


def _is_encoded(root: ElementTree.Element, space: str) -> bool:
    return root.findtext(f"{space}EncodingType") == "url"


def _objects(root: ElementTree.Element, space: str, *, encoded: bool) -> tuple[ObjectInfo, ...]:
    names = tuple(space + name for name in ("Key", "Size", "LastModified", "ETag", "StorageClass"))
    try:
        return _in_order([_object(element, names, encoded=encoded) for element in root.iterfind(f"{space}Contents")])
    except KeyError as error:
        raise Garbled(f"The endpoint's listing lacks an object's {error.args[0].removeprefix(space)}.") from None


def _in_order(objects: list[ObjectInfo]) -> tuple[ObjectInfo, ...]:
    """In the order of the keys' bytes, which is that of their code points; servers that sort otherwise are put right within the page."""
    objects.sort(key=_KEY)
    return tuple(objects)


def _object(element: ElementTree.Element, names: tuple[str, ...], *, encoded: bool) -> ObjectInfo:
    """Raises KeyError with the name of what is missing."""
    key_name, size_name, time_name, etag_name, class_name = names
    fields = {child.tag: child.text for child in element}
    key, size, stamp = fields[key_name], fields[size_name] or "", fields[time_name] or ""
    if not key:
        raise Garbled("The endpoint lists an object without a key.")
    return ObjectInfo(
        key=Key(_text(key, encoded=encoded)),
        size=number(size),
        etag=etag_in(fields.get(etag_name) or ""),
        mtime_ns=_minute_ns(stamp[:17]) + int(stamp[17:19]) * NS if _STAMP.fullmatch(stamp) else iso_time(stamp),
        storage_class=fields.get(class_name) or "STANDARD",
        metadata=None,
    )


@functools.lru_cache(maxsize=4096)
def _minute_ns(stamp: str) -> int:
    """Of `2026-11-21T02:40:`: what is written together was mostly written in the same minutes."""
    return iso_time(f"{stamp}00Z")


def _text(text: str, *, encoded: bool) -> str:
    """A key as it is. S3 writes a blank as "+"."""
    if not encoded or _is_itself(text):
        return text
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise Garbled(f"The endpoint lists a key that is not UTF-8: {text[:60]!r}.") from None


def _is_itself(text: str) -> bool:
    return "%" not in text and "+" not in text

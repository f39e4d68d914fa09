"""A listing's objects that are all written in the same way, by one expression over the page.

Owns: when a page is that plain, and that nothing of it is passed over.
Must not know: what the fields mean. Pure.

Servers write every object of a page with the same elements in the same order. The first one, with its texts left out, is the expression
for all: it finds a thousand of them in a millisecond, where a tree of the page takes five. What it finds must be the whole stretch from the
first object to the last, to the byte, else the page is not plain, and the parser has its say:

    P1  The stretch is as long as what was found, so there is nothing between two objects.
    P2  The rest of the document keeps the first object: the parser judges where it stands, and whether it is what was found here.
    P3  Texts have no markup, no control characters, and of the entities only &quot;: they are what is written.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

OPEN, CLOSE = "<Contents>", "</Contents>"
WANTED = ("Key", "Size", "LastModified", "ETag", "StorageClass")

# Between the end of a tag and the beginning of a closing one: the text of an element.
_TEXT = re.compile(r"(?<=>)[^<>]*(?=</)")
_OPENED = re.compile(r"<([A-Za-z]+)>\Z")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d((?:\.\d+)?Z)", re.ASCII)
_ANY = r"([^<>\x00-\x1f]*)"
_MOMENT = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d)"


@dataclass(frozen=True, slots=True)
class Plain:
    """Columns of all objects in the order of the document, and the *rest* of that. Times end with their seconds."""

    keys: Sequence[str]
    sizes: Sequence[str]
    times: Sequence[str]
    etags: Sequence[str]
    classes: Sequence[str] | None
    rest: bytes


@dataclass(frozen=True, slots=True)
class Shape:
    """How an object is written: an expression with a group for each text, the groups of `WANTED`, how long it is without their texts."""

    expression: re.Pattern[str]
    groups: dict[str, int]
    fixed: int


def plain_objects(document: bytes) -> Plain | None:
    """The objects of *document*, where they are written plainly."""
    if not document.isascii():
        return None
    text = document.decode()
    start, stop = text.find(OPEN), text.rfind(CLOSE) + len(CLOSE)
    if start < 0 or stop < start:
        return None
    stretch = text[start:stop].replace("&quot;", '"')
    shape = None if "&" in stretch or "<!" in text else _shape(*_sample(stretch))
    if shape is None:
        return None
    found: Sequence[tuple[str, ...]] = shape.expression.findall(stretch)
    columns: list[Sequence[str]] = list(zip(*found, strict=True))
    if not found or shape.fixed * len(found) + sum(len("".join(column)) for column in columns) != len(stretch):
        return None
    rest = text[: text.find(CLOSE, start) + len(CLOSE)] + text[stop:]
    key, size, time, etag = (columns[shape.groups[name]] for name in WANTED[:4])
    return Plain(key, size, time, etag, columns[shape.groups["StorageClass"]] if "StorageClass" in shape.groups else None, rest.encode())


def _sample(stretch: str) -> tuple[tuple[str, ...], bool, str]:
    """The first object without its texts, whether its ETag is in quotes, and how its time goes on behind the seconds."""
    first = stretch[: stretch.find(CLOSE) + len(CLOSE)]
    moment = re.search(r"<LastModified>([^<>]*)<", first)
    stamp = _STAMP.fullmatch(moment[1]) if moment else None
    return tuple(_TEXT.split(first)), '<ETag>"' in first, stamp[1] if stamp else ""


@functools.lru_cache(maxsize=64)
def _shape(literals: tuple[str, ...], quoted: bool, fraction: str) -> Shape | None:
    opened = [_OPENED.search(literal) for literal in literals[:-1]]
    names = [found[1] if found else "" for found in opened]
    if not fraction or any(names.count(name) != 1 for name in WANTED[:4]) or names.count("StorageClass") > 1:
        return None
    ending = "".join(r"\d" if char.isdigit() else re.escape(char) for char in fraction)
    texts = {"Key": r"([^<>\x00-\x1f]+)", "Size": r"([0-9]{1,19})", "LastModified": _MOMENT + ending, "ETag": _ANY}
    fixed = sum(map(len, literals)) + len(fraction)
    if quoted:
        texts["ETag"], fixed = r'"([^<>"\x00-\x1f]*)"', fixed + 2
    pieces = [re.escape(literal) + texts.get(name, _ANY) for literal, name in zip(literals, names, strict=False)]
    groups = {name: names.index(name) for name in WANTED if name in names}
    return Shape(re.compile("".join(pieces) + re.escape(literals[-1]), re.ASCII), groups, fixed)

"""What a listing without delimiter says of the directories whose keys it holds.

Owns: taking such a page apart into stretches of directories.
Must not know: tables. Pure.

A page covers all keys behind `after` up to its last one. For a directory that lies in there wholly this is its complete listing; one that
begins before or ends behind it is told of in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from s3mount.cache.leaf import Mark, Row
from s3mount.cache.texts import END, START, behind, parent_of, stem_of
from s3mount.model import Page


@dataclass(slots=True)
class Part:
    """The rows of the directory *stem* in [lo, hi)."""

    stem: str
    lo: bytes
    hi: bytes
    rows: list[Row] = field(default_factory=list)


def spread(prefix: str, after: str, page: Page) -> Iterator[Part]:
    """The stretches that a page of `list(prefix, after=after)` tells of; *prefix* ends with "/" or is empty."""
    parts: dict[str, Part] = {prefix: Part(prefix, START, END)}
    current = parts[prefix]
    for info in page.objects:
        key = info.key
        if not key.startswith(current.stem) or "/" in key[len(current.stem) :]:
            current = _opened(parts, stem_of(key))
        current.rows.append((key[len(current.stem) :].encode(), info))
    for stem in _within(prefix, after):
        parts.setdefault(stem, Part(stem, START, END))
    last = page.objects[-1].key if page.objects else after
    for part in parts.values():
        part.lo = _begin(part, after)
        part.hi = END if page.next is None else _end(part.stem, last)
        yield part


def _within(prefix: str, after: str) -> Iterator[str]:
    """The directories below *prefix* in which the page begins: what is left of them is told of even if that is nothing."""
    stem = stem_of(after) if after.startswith(prefix) else prefix
    while len(stem) > len(prefix):
        yield stem
        stem = parent_of(stem)


def _opened(parts: dict[str, Part], stem: str) -> Part:
    """The part of *stem*; a new one is a row of the directory above."""
    part = parts.get(stem)
    if part is None:
        part = parts[stem] = Part(stem, START, END)
        above = _opened(parts, parent_of(stem))
        above.rows.append((stem[len(above.stem) :].encode(), Mark.PREFIX))
    return part


def _begin(part: Part, after: str) -> bytes:
    """Where what is told of *part* begins: the common prefix in which *after* lies is told of only if more of it follows."""
    if not after.startswith(part.stem) or (not after and not part.stem):
        return START
    inner = after[len(part.stem) :]
    at = inner.find("/") + 1
    if not at:
        return behind(inner.encode())
    through = inner[:at].encode()
    return through if part.rows and part.rows[0][0] == through else behind(through)


def _end(stem: str, last: str) -> bytes:
    if not last.startswith(stem):
        return END
    inner = last[len(stem) :]
    at = inner.find("/") + 1
    return behind(inner[:at].encode() if at else inner.encode())

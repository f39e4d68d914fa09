"""A stretch of one directory's listing, packed.

Owns: the packing. A thousand rows take about a tenth of the memory of a thousand `ObjectInfo`s.
Must not know: other stretches, time-to-live, stores. Pure; a leaf never changes, but for attributes that are filled in.

What a listing says of nearly every object fits into columns: text, size, time, ETag. The rest (attributes, content type, ids) is kept
aside for the rows that have it.

F1  Texts rise strictly, and lie in [lo, hi).
"""

from __future__ import annotations

import itertools
import json
import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from s3mount.cache.texts import END
from s3mount.model import ETag, Key, Metadata, ObjectInfo, cheap_value


class Mark(Enum):
    """What stands in the place of an object."""

    PREFIX = "prefix"  # a common prefix
    ABSENT = "absent"  # nothing
    UNKNOWN = "unknown"  # perhaps something: ask


Row = tuple[bytes, ObjectInfo | Mark]
"""A text, and the object, or Mark.PREFIX."""

# The size that marks a common prefix.
NO_SIZE = -1

# Rows that are cheaper to make one by one.
FEW = 8

# What a leaf takes besides its columns (slots, arrays, bytes objects), and a row that is kept aside; measured with sys.getsizeof.
LEAF_BYTES = 700
ASIDE_BYTES = 120
ODD_BYTES = 700

# What nearly all objects are listed as.
CONTENT_TYPE = "application/octet-stream"
STORAGE_CLASS = "STANDARD"

# What stands in the columns for a common prefix.
NO_OBJECT = ObjectInfo(Key(""), NO_SIZE, ETag(""), 0, CONTENT_TYPE, STORAGE_CLASS)


@cheap_value
class Asked:
    """When a request was sent: its number in the order of requests and changes, and the clock."""

    number: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of the directory *stem* from *lo* to *hi*, *age_s* seconds old: `many` rows, None where they are left out."""

    stem: str
    lo: bytes
    hi: bytes
    age_s: float
    rows: list[Row] | None
    many: int


class Leaf:
    """Rows of the directory *stem* from *lo* to *hi*, as they were at *asked*.

    *blank* is the metadata of a row that is kept without any: None where it may be asked for, NO_METADATA where nobody will.
    """

    __slots__ = (
        "_aside", "_blank", "_classes", "_ends", "_etag_ends", "_etags", "_mtimes", "_odd", "_sizes", "_text", "asked", "hi", "lo", "stem",
        "used",
    )  # fmt: skip

    def __init__(self, stem: str, lo: bytes, hi: bytes, rows: Iterable[Row], asked: Asked, *, blank: Metadata | None = None) -> None:
        self.stem, self.lo, self.hi, self.asked = stem, lo, hi, asked
        self.used = 0
        self._blank = blank
        self._aside: dict[int, bytes] = {}
        self._odd: dict[int, ObjectInfo] = {}
        listed = list(rows)
        infos = [value if isinstance(value, ObjectInfo) else NO_OBJECT for _, value in listed]
        for at, info in enumerate(infos):
            told = info.metadata is not None and blank is None and info is not NO_OBJECT
            if told or info.content_type != CONTENT_TYPE or info.version_id or info.file_id:
                self._set_aside(at, info)
        texts, etags = [text for text, _ in listed], [info.etag.encode() for info in infos]
        self._sizes, self._mtimes = array("q", [info.size for info in infos]), array("q", [info.mtime_ns for info in infos])
        self._text, self._ends = b"".join(texts), array("I", itertools.accumulate(map(len, texts)))
        self._etags, self._etag_ends = b"".join(etags), array("I", itertools.accumulate(map(len, etags)))
        classes = [info.storage_class for info in infos]
        self._classes = None if classes.count(STORAGE_CLASS) == len(classes) else tuple(map(sys.intern, classes))

    def _set_aside(self, at: int, info: ObjectInfo) -> None:
        if info.file_id or info.links != 1 or info.extra is not None:
            self._odd[at] = info
        else:
            self._aside[at] = _packed(info)

    def __len__(self) -> int:
        return len(self._sizes)

    def __repr__(self) -> str:
        return f"<Leaf {self.stem!r} {self.lo!r}..{self.hi!r} {len(self)} rows>"

    @property
    def cost(self) -> int:
        """Bytes of memory, about."""
        aside = sum(map(len, self._aside.values())) + ASIDE_BYTES * len(self._aside) + ODD_BYTES * len(self._odd)
        classes = 8 * len(self._classes) if self._classes else 0
        return LEAF_BYTES + len(self._text) + len(self._etags) + 24 * len(self._sizes) + classes + aside

    def check(self) -> None:
        texts = [self.text(at) for at in range(len(self))]
        assert all(one < other for one, other in itertools.pairwise(texts)), "F1"
        assert all(self.lo <= text < self.hi for text in texts), "F1"
        assert self.lo < self.hi <= END, "F1"

    # -- rows -------------------------------------------------------------------------

    def text(self, at: int) -> bytes:
        return self._text[self._ends[at - 1] if at else 0 : self._ends[at]]

    def at(self, text: bytes) -> int:
        """The number of the first row that is not before *text*."""
        low, high = 0, len(self._sizes)
        while low < high:
            middle = (low + high) // 2
            if self.text(middle) < text:
                low = middle + 1
            else:
                high = middle
        return low

    def get(self, text: bytes) -> ObjectInfo | Mark:
        """The row under *text*, which lies in this leaf; Mark.ABSENT where there is none."""
        at = self.at(text)
        return self.value(at) if at < len(self) and self.text(at) == text else Mark.ABSENT

    def value(self, at: int) -> ObjectInfo | Mark:
        size = self._sizes[at]
        if size == NO_SIZE:
            return Mark.PREFIX
        if at in self._odd:
            return self._odd[at]
        key = Key(self.stem + self.text(at).decode())
        etag = ETag(self._etags[self._etag_ends[at - 1] if at else 0 : self._etag_ends[at]].decode())
        kind = self._classes[at] if self._classes else STORAGE_CLASS
        if at not in self._aside:
            return ObjectInfo(key, size, etag, self._mtimes[at], CONTENT_TYPE, kind, self._blank)
        content_type, version_id, metadata = json.loads(self._aside[at])
        return ObjectInfo(
            key, size, etag, self._mtimes[at], content_type, kind, self._blank if metadata is None else metadata, version_id=version_id
        )

    def rows(self, lo: bytes, hi: bytes = END) -> list[Row]:
        """Rows from *lo* to before *hi*."""
        first = self.at(lo) if lo > self.lo else 0
        last = len(self) if hi >= self.hi else self.at(hi)
        if last - first < FEW:
            return [(self.text(at), self.value(at)) for at in range(first, last)]
        return self._many(first, last)

    def _many(self, first: int, last: int) -> list[Row]:
        """The rows from *first* to before *last*: as if each were plain, and then those again that are not."""
        stem, blank, some = self.stem, self._blank, slice(first, last)
        texts, etags = _cut(self._text, self._ends, some), _cut(self._etags, self._etag_ends, some)
        kinds = itertools.repeat(STORAGE_CLASS) if self._classes is None else self._classes[some]
        columns = zip(texts, _decoded(texts), self._sizes[some], _decoded(etags), self._mtimes[some], kinds, strict=False)
        rows: list[Row] = [
            (text, ObjectInfo(Key(stem + name), size, ETag(etag), mtime_ns, CONTENT_TYPE, kind, blank))
            for text, name, size, etag, mtime_ns, kind in columns
        ]
        odd = {*self._aside, *self._odd}
        if NO_SIZE in self._sizes:
            odd.update(at for at, size in enumerate(self._sizes) if size == NO_SIZE)
        for at in odd:
            if first <= at < last:
                rows[at - first] = texts[at - first], self.value(at)
        return rows

    # -- parts and changes ------------------------------------------------------------

    def part(self, lo: bytes, hi: bytes) -> Leaf:
        """The same between *lo* and *hi*."""
        return Leaf(self.stem, lo, hi, self.rows(lo, hi), self.asked, blank=self._blank)

    def changed(self, changes: Mapping[bytes, ObjectInfo | Mark], asked: Asked) -> Leaf:
        """The same with other rows under some texts (Mark.ABSENT: none)."""
        rows: dict[bytes, ObjectInfo | Mark] = {**dict(self.rows(self.lo)), **changes}
        there = sorted(((text, value) for text, value in rows.items() if value is not Mark.ABSENT), key=_text)
        return Leaf(self.stem, self.lo, self.hi, there, asked, blank=self._blank)

    def fill(self, text: bytes, info: ObjectInfo) -> None:
        """The attributes of the row under *text*, if it has none yet and still is the version that *info* speaks of."""
        at = self.at(text)
        if at < len(self) and self.text(at) == text:
            known = self.value(at)
            if isinstance(known, ObjectInfo) and known.metadata is None and known.etag == info.etag and at not in self._odd:
                self._aside[at] = _packed(info)


def _text(row: Row) -> bytes:
    return row[0]


def _packed(info: ObjectInfo) -> bytes:
    metadata = None if info.metadata is None else dict(info.metadata)
    return json.dumps((info.content_type, info.version_id, metadata), separators=(",", ":")).encode()


def _cut(joined: bytes, ends: array[int], some: slice) -> list[bytes]:
    """Those pieces of *joined*, which end at *ends*."""
    starts = [ends[some.start - 1] if some.start else 0, *ends[some]]
    return [joined[start:end] for start, end in itertools.pairwise(starts)]


def _decoded(texts: Iterable[bytes]) -> list[str]:
    return [text.decode() for text in texts]

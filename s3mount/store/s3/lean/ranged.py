"""A GET of a range: what it asks, and what its answer must say to be believed.

Owns: the fields of the request, the checks of the answer's head, the checksum of a whole object.
Must not know: sockets, signatures, connections. Pure.

G1  The version is judged first, then the range: a service that ignores If-Match answers for another object.
G2  Content-Range counts, whatever the status is (`rclone serve s3` says 200 to a range); without one the body is the whole object.
G3  A checksum counts only where the body is the whole object: some services send the object's with each of its ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from s3mount.model import ByteRange, ETag, Key, ObjectInfo
from s3mount.store.rules import changed
from s3mount.store.s3 import headers
from s3mount.store.s3.checksums import COMPARED, Algorithm
from s3mount.store.s3.lean.origin import Unfit
from s3mount.store.s3.lean.wire import Garbled, Head, content_range


@dataclass(frozen=True, slots=True)
class Question:
    """The bytes *span* of *key*. `whole`: that is known to be all of the version *if_match*, so that its checksum can be asked for."""

    key: Key
    span: ByteRange
    if_match: ETag | None = None
    whole: bool = False

    def fields(self) -> dict[str, str]:
        """What the request says besides host and signature. A whole object is asked without Range: S3 then sends its checksum."""
        what = {"x-amz-checksum-mode": "ENABLED"} if self.whole else {"Range": f"bytes={self.span.start}-{self.span.stop - 1}"}
        return what if self.if_match is None else {**what, "If-Match": headers.etag_out(self.if_match)}

    def accept(self, head: Head) -> Accepted:
        """Raises PreconditionFailed, ValueError for a span that the object does not hold, Garbled, Unfit."""
        if head.status not in (200, 206):
            raise Unfit(f"The endpoint answers a GET with status {head.status}.")
        start, stop, total = self._extent(head)
        info = headers.info_of(self.key, {**head.fields, "content-length": str(total)})
        if self.if_match is not None and info.etag != self.if_match:
            raise changed(self.key)
        if self.span.stop > total and self.whole:
            raise Garbled(f"The endpoint says {total} bytes of a version of {self.key!r} that has {self.span.stop}.")
        if self.span.stop > total:
            raise ValueError(f"{self.span} does not lie inside {self.key!r} of {total} bytes")
        if (start, stop) != (self.span.start, self.span.stop):
            if head.status == 200:
                raise Unfit("The endpoint does not know ranges.")
            raise Garbled(f"The endpoint sends the bytes {start} to {stop} where {self.span.start} to {self.span.stop} were asked for.")
        return Accepted(info, _claimed(head.fields) if (start, stop) == (0, total) else None)

    def _extent(self, head: Head) -> tuple[int, int, int]:
        """Start, stop and total of what the answer's body is."""
        if "content-range" in head.fields:
            return content_range(head.fields["content-range"])
        if head.status == 206:
            raise Garbled("The endpoint sends a range and does not say which.")
        if head.length is None and not self.whole:
            raise Unfit("The endpoint does not say how much it sends.")
        size = self.span.length if head.length is None else head.length
        return 0, size, size


@dataclass(frozen=True, slots=True)
class Accepted:
    """An answer's head that fits the question; `checksum` is the algorithm and value that its body must fit."""

    info: ObjectInfo
    checksum: tuple[Algorithm, str] | None

    def is_fit_by(self, body: memoryview) -> bool:
        return self.checksum is None or self.checksum[0].of(body) == self.checksum[1]


def _claimed(fields: Mapping[str, str]) -> tuple[Algorithm, str] | None:
    """The checksum over all bytes. One of parts' checksums (COMPOSITE, or `...==-3`) says nothing of the bytes alone."""
    if fields.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    said = ((algorithm, fields.get(algorithm.header, "")) for algorithm in COMPARED)
    return next((claim for claim in said if claim[1] and "-" not in claim[1]), None)

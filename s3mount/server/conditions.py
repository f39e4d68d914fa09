"""Conditional requests: reads, copies, writes, deletes.

Owns: reading of the headers, and each decision.
Must not know: how objects are found. Times are whole seconds since 1970, ETags are without quotes.

Rules chosen
1. Reads follow RFC 9110 (13.2.2): If-Match before If-Unmodified-Since, which it overrides; then If-None-Match before
   If-Modified-Since, likewise. A copy source that fails is always 412.
2. Writes follow HTTP: `*` and ETags count in both headers (AWS answers 501 for `*` in If-Match and for an ETag in If-None-Match; the
   suites of others test them). Nothing there to match: NoSuchKey, as at AWS.
3. Deletes: If-Match only; If-None-Match is NotImplemented. Nothing there: NoSuchKey for an ETag, PreconditionFailed for `*`, as at AWS.
4. A write's decision becomes the engine's condition and is judged under its lock, so two writers cannot both pass. A decision that rests
   on what was seen before (`*` in If-Match, an ETag in If-None-Match) is bound to that ETag; a caller whose commit then fails looks
   again, and answers ConditionalRequestConflict when it has done so a few times in vain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from s3mount.model import Absent, Condition, ETag, Matches
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import parse_http_date

Header = Callable[[str], str | None]
STAR = "*"


@dataclass(frozen=True, slots=True)
class Preconditions:
    """None where a header did not come. ETag sets hold STAR for `*`."""

    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None

    def __bool__(self) -> bool:
        return self != NONE


NONE = Preconditions()


def preconditions(header: Header, prefix: str = "") -> Preconditions:
    """Those that the headers state; *prefix* is "x-amz-copy-source-" for a copy's source. Dates that cannot be read do not count."""
    return Preconditions(
        parse_etags(header(f"{prefix}if-match")),
        parse_etags(header(f"{prefix}if-none-match")),
        parse_http_date(header(f"{prefix}if-modified-since")),
        parse_http_date(header(f"{prefix}if-unmodified-since")),
    )


def parse_etags(text: str | None) -> frozenset[str] | None:
    """A list of ETags, quoted or not; weak ones count as themselves."""
    if text is None:
        return None
    return frozenset(bare_etag(part) for part in text.split(",") if part.strip())


def bare_etag(text: str) -> str:
    return text.strip().removeprefix("W/").strip('"')


def http_date(seconds: float) -> str:
    return formatdate(seconds, usegmt=True)


def check_read(asked: Preconditions, etag: str, mtime: int) -> bool:
    """True: send it; False: 304. Raises PreconditionFailed."""
    failed = _failed(asked, etag, mtime)
    if failed in ("If-Match", "If-Unmodified-Since"):
        raise precondition_failed(failed)
    return not failed


def check_copy_source(asked: Preconditions, etag: str, mtime: int) -> None:
    """Raises PreconditionFailed."""
    failed = _failed(asked, etag, mtime)
    if failed:
        raise precondition_failed(f"x-amz-copy-source-{failed}")


def _failed(asked: Preconditions, etag: str, mtime: int) -> str:
    """The first header whose condition does not hold; "" for none."""
    if asked.if_match is not None:
        if not _names(asked.if_match, etag):
            return "If-Match"
    elif asked.if_unmodified_since is not None and mtime > asked.if_unmodified_since:
        return "If-Unmodified-Since"
    if asked.if_none_match is not None:
        return "If-None-Match" if _names(asked.if_none_match, etag) else ""
    if asked.if_modified_since is not None and mtime <= asked.if_modified_since:
        return "If-Modified-Since"
    return ""


def range_applies(if_range: str | None, etag: str, mtime: int) -> bool:
    """Whether a Range counts, given the value of If-Range: else the whole is sent."""
    if if_range is None:
        return True
    when = parse_http_date(if_range)
    return when == mtime if when is not None else bare_etag(if_range) == etag


def write_condition(asked: Preconditions, current: Callable[[], str | None]) -> Condition:
    """What the engine is to judge. Raises PreconditionFailed, NoSuchKey.

    *current* tells the ETag of what is there (None: nothing, or a delete marker), and is asked only where the answer is needed.
    """
    if asked.if_match is None and asked.if_none_match is None:
        return None
    if asked.if_match is None and asked.if_none_match == frozenset({STAR}):
        return Absent()
    there = current()
    if asked.if_match is not None:
        if there is None:
            raise S3Error("NoSuchKey")
        if not _names(asked.if_match, there):
            raise precondition_failed("If-Match")
    if asked.if_none_match is not None and there is not None and _names(asked.if_none_match, there):
        raise precondition_failed("If-None-Match")
    return Absent() if there is None else Matches(ETag(there))


@dataclass(frozen=True, slots=True)
class DeleteCondition:
    """What must hold of an object that is to be deleted. None where nothing was said; `etag` is STAR for `*`."""

    etag: str | None = None
    mtime: int | None = None
    size: int | None = None

    def __bool__(self) -> bool:
        return self != DeleteCondition()

    def check(self, etag: str | None, mtime: int, size: int) -> None:
        """*etag* None: nothing is there. Raises NoSuchKey, PreconditionFailed."""
        if etag is None:
            raise precondition_failed("If-Match") if self.etag == STAR else S3Error("NoSuchKey")
        if self.etag not in (None, STAR, etag):
            raise precondition_failed("If-Match")
        if self.mtime not in (None, mtime):
            raise precondition_failed("x-amz-if-match-last-modified-time")
        if self.size not in (None, size):
            raise precondition_failed("x-amz-if-match-size")


def delete_condition(header: Header) -> DeleteCondition:
    """Raises NotImplemented (If-None-Match), InvalidArgument."""
    if header("if-none-match") is not None:
        raise S3Error("NotImplemented", Header="If-None-Match")
    etag, when, size = header("if-match"), header("x-amz-if-match-last-modified-time"), header("x-amz-if-match-size")
    mtime = parse_http_date(when)
    if when is not None and mtime is None:
        raise S3Error("InvalidArgument", ArgumentName="x-amz-if-match-last-modified-time", ArgumentValue=when[:64])
    if size is not None and not (size.isascii() and size.isdigit() and len(size) < 20):
        raise S3Error("InvalidArgument", ArgumentName="x-amz-if-match-size", ArgumentValue=size[:64])
    return DeleteCondition(None if etag is None else bare_etag(etag), mtime, None if size is None else int(size))


def precondition_failed(header: str) -> S3Error:
    return S3Error("PreconditionFailed", Condition=header)


def _names(etags: frozenset[str], etag: str) -> bool:
    return STAR in etags or etag in etags

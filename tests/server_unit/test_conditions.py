"""Conditions of reads, copies, writes and deletes, and byte ranges, in tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.model import Absent, ByteRange, Condition, ETag, Matches
from s3mount.server import conditions, ranges
from s3mount.server.conditions import DeleteCondition, Preconditions
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import parse_http_date

ETAG = "abc"
MTIME = 1_000_000_000
AT = "Sun, 09 Sep 2001 01:46:40 GMT"
BEFORE = "Sun, 09 Sep 2001 01:46:39 GMT"
AFTER = "Sun, 09 Sep 2001 01:46:41 GMT"

SEND, SAME, FAIL = "200", "304", "412"
# If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since -> answer.
READS = [
    (None, None, None, None, SEND),
    ('"abc"', None, None, None, SEND),
    ("abc", None, None, None, SEND),
    ("*", None, None, None, SEND),
    ('"x", "abc"', None, None, None, SEND),
    ('W/"abc"', None, None, None, SEND),
    ('"x"', None, None, None, FAIL),
    ("", None, None, None, FAIL),
    (None, AT, None, None, SEND),
    (None, AFTER, None, None, SEND),
    (None, BEFORE, None, None, FAIL),
    (None, "no date", None, None, SEND),
    ('"abc"', BEFORE, None, None, SEND),
    ('"x"', AFTER, None, None, FAIL),
    (None, None, '"abc"', None, SAME),
    (None, None, "*", None, SAME),
    (None, None, '"x"', None, SEND),
    (None, None, None, AT, SAME),
    (None, None, None, AFTER, SAME),
    (None, None, None, BEFORE, SEND),
    (None, None, None, "no date", SEND),
    (None, None, '"x"', AFTER, SEND),
    (None, None, '"abc"', BEFORE, SAME),
    ('"abc"', None, '"abc"', None, SAME),
    ('"x"', None, '"abc"', None, FAIL),
]


def stated(prefix: str, if_match: str | None, unmodified: str | None, none_match: str | None, modified: str | None) -> Preconditions:
    headers = {"if-match": if_match, "if-unmodified-since": unmodified, "if-none-match": none_match, "if-modified-since": modified}
    return conditions.preconditions({prefix + name: value for name, value in headers.items()}.get, prefix)


@pytest.mark.parametrize(("if_match", "unmodified", "none_match", "modified", "answer"), READS)
def test_a_read_is_answered_as_http_says(
    if_match: str | None, unmodified: str | None, none_match: str | None, modified: str | None, answer: str
) -> None:
    asked = stated("", if_match, unmodified, none_match, modified)
    if answer == FAIL:
        with pytest.raises(S3Error) as caught:
            conditions.check_read(asked, ETAG, MTIME)
        assert (caught.value.status, caught.value.fields["Condition"] in ("If-Match", "If-Unmodified-Since")) == (412, True)
    else:
        assert conditions.check_read(asked, ETAG, MTIME) is (answer == SEND)


@pytest.mark.parametrize(("if_match", "unmodified", "none_match", "modified", "answer"), READS)
def test_a_copy_whose_source_is_not_as_stated_fails(
    if_match: str | None, unmodified: str | None, none_match: str | None, modified: str | None, answer: str
) -> None:
    asked = stated("x-amz-copy-source-", if_match, unmodified, none_match, modified)
    assert bool(asked) is any(value is not None and value != "no date" for value in (if_match, unmodified, none_match, modified))
    if answer == SEND:
        conditions.check_copy_source(asked, ETAG, MTIME)
    else:
        with pytest.raises(S3Error, match="PreconditionFailed"):
            conditions.check_copy_source(asked, ETAG, MTIME)


BOUND = Matches(ETag(ETAG))
# If-Match, If-None-Match, what is there -> the engine's condition, or the error.
WRITES: list[tuple[str | None, str | None, str | None, Condition | str]] = [
    (None, None, ETAG, None),
    (None, "*", None, Absent()),
    (None, "*", ETAG, Absent()),
    (None, '"x"', ETAG, BOUND),
    (None, '"x"', None, Absent()),
    (None, '"abc"', ETAG, "PreconditionFailed"),
    ('"abc"', None, ETAG, BOUND),
    ("abc", None, ETAG, BOUND),
    ('"x"', None, ETAG, "PreconditionFailed"),
    ('"abc"', None, None, "NoSuchKey"),
    ("*", None, None, "NoSuchKey"),
    ("*", None, ETAG, BOUND),
    ('"*"', None, ETAG, BOUND),
    ('"abc"', "*", ETAG, "PreconditionFailed"),
    ('"abc"', '"x"', ETAG, BOUND),
]


@pytest.mark.parametrize(("if_match", "none_match", "there", "expected"), WRITES)
def test_a_writes_condition_becomes_the_engines(
    if_match: str | None, none_match: str | None, there: str | None, expected: Condition | str
) -> None:
    asked = stated("", if_match, None, none_match, None)
    if isinstance(expected, str):
        with pytest.raises(S3Error, match=expected):
            conditions.write_condition(asked, lambda: there)
    else:
        assert conditions.write_condition(asked, lambda: there) == expected


def test_what_is_there_is_looked_at_only_where_it_decides() -> None:
    def look() -> str | None:
        raise AssertionError("looked")

    assert conditions.write_condition(stated("", None, None, "*", None), look) == Absent()
    assert conditions.write_condition(stated("", None, AT, None, AT), look) is None


@pytest.mark.parametrize(
    ("headers", "there", "code"),
    [
        ({}, (ETAG, MTIME, 5), None),
        ({"if-match": '"abc"'}, (ETAG, MTIME, 5), None),
        ({"if-match": "*"}, (ETAG, MTIME, 5), None),
        ({"if-match": '"x"'}, (ETAG, MTIME, 5), "PreconditionFailed"),
        ({"if-match": '"abc"'}, (None, 0, 0), "NoSuchKey"),
        ({"if-match": "*"}, (None, 0, 0), "PreconditionFailed"),
        ({"x-amz-if-match-size": "5"}, (ETAG, MTIME, 5), None),
        ({"x-amz-if-match-size": "4"}, (ETAG, MTIME, 5), "PreconditionFailed"),
        ({"x-amz-if-match-size": "0"}, (ETAG, MTIME, 5), "PreconditionFailed"),
        ({"x-amz-if-match-last-modified-time": AT}, (ETAG, MTIME, 5), None),
        ({"x-amz-if-match-last-modified-time": AFTER}, (ETAG, MTIME, 5), "PreconditionFailed"),
        ({"if-match": '"abc"', "x-amz-if-match-size": "4"}, (ETAG, MTIME, 5), "PreconditionFailed"),
    ],
)
def test_a_delete_may_be_bound_to_what_is_there(headers: dict[str, str], there: tuple[str | None, int, int], code: str | None) -> None:
    condition = conditions.delete_condition(headers.get)
    assert bool(condition) is bool(headers)
    if code is None:
        condition.check(*there)
    else:
        with pytest.raises(S3Error, match=code):
            condition.check(*there)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"if-none-match": "*"}, "NotImplemented"),
        ({"x-amz-if-match-size": "-1"}, "InvalidArgument"),
        ({"x-amz-if-match-size": "x"}, "InvalidArgument"),
        ({"x-amz-if-match-last-modified-time": "x"}, "InvalidArgument"),
    ],
)
def test_a_delete_condition_that_makes_no_sense_is_refused(headers: dict[str, str], code: str) -> None:
    with pytest.raises(S3Error, match=code):
        conditions.delete_condition(headers.get)
    assert not DeleteCondition()


@pytest.mark.parametrize(
    ("value", "applies"), [(None, True), ('"abc"', True), ("abc", True), ('"x"', False), (AT, True), (AFTER, False), (BEFORE, False)]
)
def test_a_range_counts_only_for_the_version_that_if_range_names(value: str | None, applies: bool) -> None:
    assert conditions.range_applies(value, ETAG, MTIME) is applies


def test_a_date_survives_its_text() -> None:
    assert conditions.http_date(MTIME) == AT
    assert parse_http_date(AT) == MTIME
    assert parse_http_date("Sun, 09 Sep 2001 03:46:40 +0200") == parse_http_date("Sun, 09 Sep 2001 01:46:40 -0000") == MTIME
    assert [parse_http_date(text) for text in (None, "", "x", "1", "Sun, 99 Sep 2001 01:46:40 GMT")] == [None] * 5


# -- ranges ------------------------------------------------------------------------------------

UNSATISFIABLE = "InvalidRange"


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        (None, 10, None),
        ("bytes=0-9", 10, (0, 10)),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=4-7", 10, (4, 8)),
        ("bytes=4-", 10, (4, 10)),
        ("bytes=9-", 10, (9, 10)),
        ("bytes=4-100", 10, (4, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-100", 10, (0, 10)),
        ("Bytes = 1 - 2 ", 10, (1, 3)),
        ("bytes=10-", 10, UNSATISFIABLE),
        ("bytes=10-20", 10, UNSATISFIABLE),
        ("bytes=-0", 10, UNSATISFIABLE),
        ("bytes=0-", 0, UNSATISFIABLE),
        ("bytes=-5", 0, UNSATISFIABLE),
        ("bytes=0-0", 0, UNSATISFIABLE),
        ("bytes=99999999999999999999999999-", 10, UNSATISFIABLE),
        ("bytes=0-99999999999999999999999999", 10, (0, 10)),
        ("bytes=7-4", 10, None),
        ("bytes=-", 10, None),
        ("bytes=", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=1-2,4-5", 10, None),
        ("bytes=--1", 10, None),
        ("items=0-1", 10, None),
        ("0-1", 10, None),
        ("bytes=" + "9" * 5000 + "-", 10, None),
    ],
)
def test_a_range_is_cut_to_the_object_or_ignored_or_unsatisfiable(
    header: str | None, size: int, expected: tuple[int, int] | str | None
) -> None:
    if isinstance(expected, str):
        with pytest.raises(S3Error) as caught:
            ranges.parse_range(header, size)
        assert (caught.value.status, caught.value.fields["ActualObjectSize"]) == (416, str(size))
    else:
        assert ranges.parse_range(header, size) == (expected and ByteRange(*expected))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_a_range_sends_the_bytes_that_a_slice_would(first: int, last: int, size: int) -> None:
    data = bytes(range(size))
    if first < size and first <= last:
        span = ranges.parse_range(f"bytes={first}-{last}", size)
        assert span is not None
        assert data[span.start : span.stop] == data[first : last + 1]
        assert ranges.content_range(span, size) == f"bytes {first}-{min(last, size - 1)}/{size}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-9", (0, 10)),
        ("bytes=3-3", (3, 4)),
        ("bytes=0-10", "InvalidArgument"),
        ("bytes=10-12", "InvalidArgument"),
        ("bytes=0-", "InvalidArgument"),
        ("bytes=-3", "InvalidArgument"),
        ("bytes=3-1", "InvalidArgument"),
        ("0-2", "InvalidArgument"),
        ("bytes=hello-world", "InvalidArgument"),
        ("bytes=0-1,3-4", "InvalidArgument"),
        ("", "InvalidArgument"),
    ],
)
def test_a_copy_takes_whole_ranges_only(header: str | None, expected: tuple[int, int] | str | None) -> None:
    if isinstance(expected, str):
        with pytest.raises(S3Error, match=expected):
            ranges.parse_copy_range(header, 10)
    else:
        assert ranges.parse_copy_range(header, 10) == (expected and ByteRange(*expected))

"""What stands in headers: ETags, times, metadata, versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import TooLarge, Unavailable, Unsupported
from s3mount.model import ETag, Key
from s3mount.store.api import Commit
from s3mount.store.s3.headers import (
    content_range,
    etag_in,
    etag_out,
    http_time,
    info_of,
    iso_time,
    meta_in,
    meta_out,
    sent_metadata,
    with_commit_id,
)

KEY = Key("key")


@pytest.mark.parametrize(("sent", "kept"), [('"abc"', "abc"), ("abc", "abc"), ('W/"abc"', 'W/"abc"'), ('"', '"'), ('"a-16"', "a-16")])
def test_an_etag_is_kept_without_quotes(sent: str, kept: str) -> None:
    assert etag_in(sent) == kept


def test_an_etag_goes_out_as_it_came() -> None:
    for sent in ('"abc"', 'W/"abc"'):
        assert etag_out(etag_in(sent)) == sent
    assert etag_out(ETag("abc")) == '"abc"'


def test_both_forms_of_a_time_mean_the_same_second() -> None:
    for text in (
        "2026-11-21T02:40:00.000Z",
        "2026-11-21T02:40:00Z",
        "2026-11-21T02:40:00.999Z",
        "2026-11-21T02:40:00+00:00",
        "2026-11-21T02:40:00",
    ):
        assert iso_time(text) == http_time("Sat, 21 Nov 2026 02:40:00 GMT") == 1_795_228_800_000_000_000


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00.000Z", "20xx-11-21T02:40:00.000Z"])
def test_what_is_no_time_is_no_answer(text: str) -> None:
    with pytest.raises(Unavailable):
        iso_time(text)
    with pytest.raises(Unavailable):
        http_time(text)


@given(st.text())
def test_every_value_survives_its_header(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return
    sent = meta_out(value)
    assert meta_in(sent) == value
    assert sent.isascii()
    assert sent.isprintable()
    assert sent == sent.strip()


@pytest.mark.parametrize("value", ["33188", "1700000000.123456789", "a b=c;d", "%C3%BC", "x"])
def test_a_plain_value_goes_as_it_is(value: str) -> None:
    assert meta_out(value) == value


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("=?UTF-8?Q?caf=C3=A9?=", "café"),
        ("=?UTF-8?B?w7w=?= =?UTF-8?B?w7w=?=", "üü"),
        ("=?nonsense?=", "=?nonsense?="),
        ("=?no-such-set?B?YQ==?=", "=?no-such-set?B?YQ==?="),
    ],
)
def test_what_others_sent_is_read_as_s3_answers_it(sent: str, meant: str) -> None:
    assert meta_in(sent) == meant


def test_more_metadata_than_s3_takes_is_refused_before_it_is_sent() -> None:
    sent_metadata({"a": "x" * 2047})
    with pytest.raises(TooLarge, match="2049"):
        sent_metadata({"a": "x" * 2048})


@pytest.mark.parametrize("name", ["", "A", "a b", "ü", "a:b", "a\n"])
def test_a_name_that_no_header_can_have_is_refused(name: str) -> None:
    with pytest.raises(Unsupported):
        sent_metadata({name: "x"})


def test_a_commit_id_goes_among_the_metadata() -> None:
    assert with_commit_id(Commit(metadata={"a": "b"}, commit_id="id")) == {"a": "b", "s3mount-commit": "id"}
    assert with_commit_id(Commit(metadata={"a": "b"})) == {"a": "b"}


def test_an_answer_describes_its_version() -> None:
    headers = {
        "etag": '"e"',
        "content-range": "bytes 5-9/1234",
        "content-length": "5",
        "last-modified": "Sat, 21 Nov 2026 02:40:00 GMT",
        "content-type": "text/x",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-meta-mode": "33188",
        "x-amz-meta-name": "=?UTF-8?B?w7w=?=",
        "x-amz-version-id": "v1",
    }
    info = info_of(KEY, headers)
    assert (info.size, info.etag, info.content_type, info.storage_class, info.version_id) == (1234, "e", "text/x", "STANDARD_IA", "v1")
    assert info.metadata == {"mode": "33188", "name": "ü"}
    assert info_of(KEY, headers | {"x-amz-version-id": "null"}).version_id is None


@pytest.mark.parametrize(
    "headers",
    [{}, {"etag": '"e"'}, {"content-length": "5"}, {"etag": '"e"', "content-length": "x"}, {"etag": '"e"', "content-range": "bytes */5"}],
)
def test_half_an_answer_is_none(headers: dict[str, str]) -> None:
    with pytest.raises(Unavailable):
        info_of(KEY, headers)


def test_a_content_range_is_read() -> None:
    assert content_range("bytes 0-0/1") == (0, 1, 1)
    for text in ("bytes 0-/1", "0-1/2", "bytes 0-1/*", ""):
        with pytest.raises(ValueError):
            content_range(text)

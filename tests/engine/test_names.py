"""Rules of bucket names and keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.engine.engine import Engine
from s3mount.engine.names import end_of, key_bytes, require_bucket_name
from s3mount.errors import BucketExists, BucketNotEmpty, InvalidName, NoSuchBucket
from s3mount.model import KEY_BYTES
from tests.engine.helpers import BUCKET, key, keys, read

LETTERS = st.sampled_from(["\0", "a", "b", "/", "\x7f", "\x80", "é", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"])


@pytest.mark.parametrize("name", ["abc", "a-b.c", "0ab", "a" * 63, "1.2.3.four"])
def test_a_bucket_name_that_s3_allows_is_taken(name: str) -> None:
    require_bucket_name(name)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("ab", "3 to 63"),
        ("a" * 64, "3 to 63"),
        ("", "3 to 63"),
        ("Abc", "lower-case"),
        ("a_b", "lower-case"),
        ("-ab", "begins and ends"),
        ("ab.", "begins and ends"),
        ("bücher", "lower-case"),
        ("abc\n", "lower-case"),
        ("a..b", "two dots"),
        ("192.168.0.1", "IP address"),
        ("xn--abc", "xn--"),
        ("abc-s3alias", "-s3alias"),
    ],
)
def test_a_bucket_name_that_s3_refuses_is_refused_with_the_rule(name: str, rule: str) -> None:
    with pytest.raises(InvalidName, match=rule):
        require_bucket_name(name)


@pytest.mark.parametrize("name", ["", "x" * (KEY_BYTES + 1), "ü" * (KEY_BYTES // 2 + 1), "\ud800"])
def test_a_key_that_is_empty_too_long_or_no_utf8_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(InvalidName):
        engine.put(BUCKET, key(name), b"")


@pytest.mark.parametrize("name", ["x" * KEY_BYTES, "ü" * (KEY_BYTES // 2), "/", "//a", "a\0b", "..", "\U0010ffff", "a\nb", "e\u0301"])
def test_any_other_key_is_kept_as_it_is(engine: Engine, name: str) -> None:
    engine.put(BUCKET, key(name), b"here")
    assert keys(engine) == [name]
    assert read(engine, name) == b"here"


@given(st.text(LETTERS, min_size=1, max_size=8), st.text(LETTERS, max_size=8))
def test_the_end_of_a_prefix_lies_behind_all_that_begin_with_it_and_before_everything_else(prefix: str, rest: str) -> None:
    raw = prefix.encode(errors="surrogatepass")
    other = rest.encode(errors="surrogatepass")
    assert raw + other < end_of(raw)
    assert other.startswith(raw) or other < raw or other >= end_of(raw)


def test_a_key_may_not_hold_lone_surrogates_but_may_be_looked_for(engine: Engine) -> None:
    with pytest.raises(InvalidName):
        key_bytes("\udc80")
    assert not engine.find(BUCKET, "\udc80").is_directory


def test_buckets_come_and_go(engine: Engine) -> None:
    engine.create_bucket("another")
    assert [bucket.name for bucket in engine.buckets()] == ["another", BUCKET]
    with pytest.raises(BucketExists):
        engine.create_bucket("another")
    engine.delete_bucket("another")
    with pytest.raises(NoSuchBucket):
        engine.require_bucket("another")
    with pytest.raises(NoSuchBucket):
        engine.delete_bucket("another")


def test_a_bucket_with_objects_stays(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), b"")
    with pytest.raises(BucketNotEmpty):
        engine.delete_bucket(BUCKET)
    engine.delete(BUCKET, key("a"))
    engine.create_upload(BUCKET, key("b"))
    engine.delete_bucket(BUCKET)
    engine.create_bucket(BUCKET)
    assert engine.uploads(BUCKET) == []


def test_everything_says_which_bucket_is_missing(engine: Engine) -> None:
    for call in (
        lambda: engine.head("absent", key("a")),
        lambda: engine.find("absent", "a"),
        lambda: engine.find("absent", ""),
        lambda: engine.list("absent"),
        lambda: engine.open_object("absent", key("a")),
        lambda: engine.put("absent", key("a"), b""),
        lambda: engine.delete("absent", key("a")),
        lambda: engine.rename("absent", key("a"), key("b")),
        lambda: engine.reserve("absent", key("a")),
        lambda: engine.create_upload("absent", key("a")),
    ):
        with pytest.raises(NoSuchBucket, match="absent"):
            call()

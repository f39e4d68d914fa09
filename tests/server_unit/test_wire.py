"""Requests as they arrive: targets, hosts, keys, queries; nothing that was signed is changed."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.server.s3errors import S3Error
from s3mount.server.wire import KEY_BYTES, PARAMS, S3Request, parse_copy_source, parse_request

BASES = ("s3.example.com", "localhost")


def arrived(target: str, host: str = "127.0.0.1:9000") -> S3Request:
    return parse_request("GET", target, [(b"Host", host.encode())], bases=BASES)


def refused(target: str, host: str = "h") -> str:
    with pytest.raises(S3Error) as caught:
        arrived(target, host)
    return caught.value.code


@pytest.mark.parametrize(
    ("target", "bucket", "key"),
    [
        ("/", "", ""),
        ("", "", ""),
        ("*", "", ""),
        ("/?x", "", ""),
        ("/b", "b", ""),
        ("/b/", "b", ""),
        ("/b?k", "b", ""),
        ("/b/k", "b", "k"),
        ("/b/k/", "b", "k/"),
        ("/b//k", "b", "/k"),
        ("/b/..", "b", ".."),
        ("/b/../../etc/passwd", "b", "../../etc/passwd"),
        ("/b/%2E%2E%2Fa", "b", "../a"),
        ("/b/a%20b+c", "b", "a b+c"),
        ("/b/%00", "b", "\0"),
        ("/b/%C3%A4", "b", "ä"),
        ("/b/a%2525", "b", "a%25"),
        ("/b/k#fragment", "b", "k"),
        ("/b/k%3Fa", "b", "k?a"),
        ("http://127.0.0.1:9000/b/k?a=1", "b", "k"),
        ("http://127.0.0.1:9000", "", ""),
        ("HTTPS://user@other.example.com/b/k", "b", "k"),
    ],
)
def test_the_path_names_bucket_and_key(target: str, bucket: str, key: str) -> None:
    request = arrived(target)
    assert (request.bucket, request.key) == (bucket, key)
    assert not request.virtual


@pytest.mark.parametrize(
    ("host", "target", "bucket", "key"),
    [
        ("b.s3.example.com", "/k", "b", "k"),
        ("B.S3.Example.com:9000", "/k/l", "b", "k/l"),
        ("my.dotted.bucket.s3.example.com", "/", "my.dotted.bucket", ""),
        ("b.localhost:9000", "//k", "b", "/k"),
        ("s3.example.com", "/b/k", "b", "k"),
        ("xs3.example.com", "/b/k", "b", "k"),
        ("[::1]:9000", "/b/k", "b", "k"),
        ("", "/b/k", "b", "k"),
        ("127.0.0.1", "http://b.s3.example.com/k", "b", "k"),
    ],
)
def test_the_host_may_name_the_bucket(host: str, target: str, bucket: str, key: str) -> None:
    request = arrived(target, host)
    assert (request.bucket, request.key) == (bucket, key)


def test_what_arrived_is_kept_for_signatures() -> None:
    raw = [(b"X-Amz-Meta-A", b" one "), (b"x-amz-meta-a", b"two\xff"), (b"Expect", b"100-continue")]
    request = parse_request("PUT", "/b/%7e%2f?uploads&a=+%20", raw)
    assert (request.path, request.query, request.key) == ("/b/%7e%2f", "uploads&a=+%20", "~/")
    assert request.headers[:2] == (("x-amz-meta-a", "one"), ("x-amz-meta-a", "two\udcff"))
    assert request.header("x-amz-meta-a") == "one"
    assert request.header("X-Amz-Meta-A") is None
    assert request.values("x-amz-meta-a") == ["one", "two\udcff"]
    assert request.values("expect") == ["100-continue"]


@pytest.mark.parametrize(
    "target", ["/b/%", "/b/%2", "/b/%zz", "/b/%C3", "/b/%C0%AF", "/b/%ED%A0%80", "/%FF/k", "b/k", "ftp://h/b", "/b?a=%FF", "/b?%C0%80"]
)
def test_what_is_no_utf_8_or_no_path_is_an_invalid_uri(target: str) -> None:
    assert refused(target) == "InvalidURI"


def test_a_key_without_a_bucket_has_no_bucket() -> None:
    assert refused("//k") == "InvalidBucketName"


@pytest.mark.parametrize(
    ("key", "code"),
    [("k" * KEY_BYTES, None), ("k" * (KEY_BYTES + 1), "KeyTooLongError"), ("ä" * 512, None), ("ä" * 513, "KeyTooLongError")],
)
def test_a_key_has_at_most_1024_bytes(key: str, code: str | None) -> None:
    target = f"/b/{quote(key)}"
    if code is None:
        assert arrived(target).key == key
    else:
        assert refused(target) == code


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_every_key_survives_encoding(key: str) -> None:
    for safe in ("/", "", "/~-._!$&'()*,;=:@+"):
        assert arrived(f"/b/{quote(key, safe=safe)}").key == key


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("", {}),
        ("uploads", {"uploads": ""}),
        ("uploads=", {"uploads": ""}),
        ("a=1&a=2", {"a": "1"}),
        ("a=b=c&&d", {"a": "b=c", "d": ""}),
        ("a+b=c+d%2B", {"a b": "c d+"}),
        ("prefix=&x-id=Put", {"prefix": "", "x-id": "Put"}),
        ("a=%zz", {"a": "%zz"}),
    ],
)
def test_the_first_value_of_a_parameter_counts(query: str, params: dict[str, str]) -> None:
    request = arrived(f"/b?{query}")
    assert dict(request.params) == params
    assert request.param("absent") is None


def test_a_query_of_endless_parameters_is_refused() -> None:
    assert refused("/b?" + "a&" * (PARAMS + 1)) == "InvalidURI"


def test_sub_resources_are_those_that_s3_knows() -> None:
    assert arrived("/b?acl&x-id=a&prefix=b").subresources == {"acl"}
    assert arrived("/b/k?uploadId=a&partNumber=1").subresources == {"uploadId"}
    assert arrived("/b?list-type=2").subresources == frozenset()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("b/k", ("b", "k", None)),
        ("/b/k", ("b", "k", None)),
        ("b%2Fk", ("b", "k", None)),
        ("/b/a%20b/c", ("b", "a b/c", None)),
        ("b/a%2525", ("b", "a%25", None)),
        ("b/k?versionId=v1", ("b", "k", "v1")),
        ("b/k%3FversionId=v1", ("b", "k?versionId=v1", None)),
        ("b/k?x", ("b", "k?x", None)),
        ("", None),
        ("b", None),
        ("b/", None),
        ("//k", None),
        ("b/%FF", None),
        ("b/k?versionId=", None),
    ],
)
def test_a_copy_source_names_bucket_key_and_version(value: str, expected: tuple[str, str, str | None] | None) -> None:
    if expected is None:
        with pytest.raises(S3Error, match="InvalidArgument"):
            parse_copy_source(value)
    else:
        assert parse_copy_source(value) == expected

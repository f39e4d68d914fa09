"""User metadata, content headers, storage classes, response overrides; rules of tags; the error document."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3mount import errors
from s3mount.server import metadata, s3errors, tags
from s3mount.server.s3errors import S3Error, from_store
from s3mount.server.wire import S3Request, parse_request


def request(*headers: tuple[str, bytes], target: str = "/b/k") -> S3Request:
    return parse_request("PUT", target, [(name.encode(), value) for name, value in headers])


def test_user_metadata_is_what_has_the_prefix() -> None:
    sent = request(
        ("X-Amz-Meta-Mtime", b"1.5"), ("x-amz-meta-", b"empty"), ("x-amz-meta-a", b"1"), ("x-amz-meta-a", b"2"), ("x-amz-acl", b"x")
    )
    assert metadata.user_metadata(sent) == {"mtime": "1.5", "": "empty", "a": "1,2"}


@pytest.mark.parametrize("raw", ["Hello Wörld €".encode(), "Hello Wörld".encode("latin-1")])
def test_text_that_is_no_ascii_is_kept_as_text_and_sent_encoded(raw: bytes) -> None:
    text = metadata.user_metadata(request(("x-amz-meta-a", raw)))["a"]
    assert text.startswith("Hello Wörld")
    sent = metadata.sent_text(text)
    assert sent.isascii()
    assert base64.b64decode(sent.removeprefix("=?UTF-8?B?").removesuffix("?=")).decode() == text


@given(st.text())
def test_no_value_can_end_a_header_line(text: str) -> None:
    sent = metadata.sent_text(text)
    assert sent.isascii()
    assert not {"\r", "\n", "\0"} & set(sent)


@pytest.mark.parametrize(("length", "code"), [(2044, None), (2045, "MetadataTooLarge")])
def test_metadata_has_two_kilobytes_at_most(length: int, code: str | None) -> None:
    sent = request(("x-amz-meta-name", b"v" * length))
    if code is None:
        assert len(metadata.user_metadata(sent)["name"]) == length
    else:
        with pytest.raises(S3Error, match=code):
            metadata.user_metadata(sent)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("gzip", "gzip"),
        ("aws-chunked", ""),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("AWS-Chunked, ,", ""),
        ("br, aws-chunked, gzip", "br,gzip"),
        ("", ""),
    ],
)
def test_the_stored_encoding_is_without_aws_chunked(value: str, stored: str) -> None:
    found = metadata.content_headers(request(("Content-Encoding", value.encode()), ("Cache-Control", b"no-cache")))
    assert found == {"cache-control": "no-cache"} | ({"content-encoding": stored} if stored else {})


def test_a_type_always_has_a_value() -> None:
    assert metadata.content_type(request()) == "binary/octet-stream"
    assert metadata.content_type(request(("Content-Type", b"a/b"))) == "a/b"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "STANDARD"),
        ("STANDARD_IA", "STANDARD_IA"),
        ("GLACIER", "NotImplemented"),
        ("standard", "InvalidStorageClass"),
        ("X", "InvalidStorageClass"),
    ],
)
def test_storage_classes_that_need_no_restore_are_echoed(value: str | None, expected: str) -> None:
    sent = request(*([] if value is None else [("x-amz-storage-class", value.encode())]))
    if expected[1].isupper():
        assert metadata.storage_class(sent) == expected
    else:
        with pytest.raises(S3Error, match=expected):
            metadata.storage_class(sent)


def test_response_overrides_are_for_signed_requests() -> None:
    sent = request(target="/b/k?response-content-type=text%2Fplain&response-expires=a%0D%0Ab")
    assert metadata.overrides(sent, signed=True) == {"Content-Type": "text/plain", "Expires": "a  b"}
    assert metadata.overrides(request(), signed=False) == {}
    with pytest.raises(S3Error, match="InvalidRequest"):
        metadata.overrides(sent, signed=False)


# -- tags --------------------------------------------------------------------------------------

TEN = tuple((f"k{number}", "v") for number in range(10))


@pytest.mark.parametrize("given", [(), TEN, (("k" * 128, "v" * 256),), (("äж中 _.:/=+-@1", ""),), (("k", "a"), ("K", "a"))])
def test_a_valid_tag_set_is_kept_as_it_is(given: tags.Tags) -> None:
    assert tags.require_tags(given) is given


@pytest.mark.parametrize(
    "given",
    [
        (*TEN, ("more", "")),
        (("k" * 129, ""),),
        (("k", "v" * 257),),
        (("", "v"),),
        (("k", "1"), ("k", "2")),
        (("aws:x", ""),),
        (("k", "<"),),
        (("k", "€"),),
        (("k\n", ""),),
    ],
)
def test_what_is_no_tag_set_is_an_invalid_tag(given: tags.Tags) -> None:
    with pytest.raises(S3Error, match="InvalidTag"):
        tags.require_tags(given)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ()),
        ("", ()),
        ("a=1&b=2", (("a", "1"), ("b", "2"))),
        ("b&a=x%20y+z", (("b", ""), ("a", "x y z"))),
        ("a=%FF", "InvalidArgument"),
        ("a&a", "InvalidTag"),
    ],
)
def test_a_header_carries_tags_as_a_query(header: str | None, expected: tags.Tags | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(S3Error, match=expected):
            tags.parse_header(header)
    else:
        assert tags.parse_header(header) == expected


# -- errors ------------------------------------------------------------------------------------


def store_errors() -> list[type[errors.StoreError]]:
    return [errors.StoreError, *errors.StoreError.__subclasses__()]


@pytest.mark.parametrize("kind", store_errors())
def test_whatever_the_engine_says_has_a_name_in_s3(kind: type[errors.StoreError]) -> None:
    error = from_store(kind("A sentence."), Key="k")
    assert error.code in s3errors.TABLE
    assert error.fields["Key"] == "k"


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [(errors.NotFound, "NoSuchKey", 404), (errors.AlreadyExists, "PreconditionFailed", 412), (errors.NoSpace, "ServiceUnavailable", 503)],
)
def test_an_engines_error_gets_s3s_status(kind: type[errors.StoreError], code: str, status: int) -> None:
    error = from_store(kind("Full."))
    assert (error.code, error.status) == (code, status)
    assert ("Full." in error.message) is (status == 503)


def test_every_code_has_a_status_of_an_error_and_a_sentence() -> None:
    assert all(400 <= status < 600 and sentence for status, sentence in s3errors.TABLE.values())


@given(st.text(max_size=50))
@example("\ufffe\uffff")
def test_the_error_document_can_always_be_read(text: str) -> None:
    body = S3Error("InvalidArgument", ArgumentName=text).body(resource=text, request_id="R1")
    top = ET.fromstring(body)
    assert [child.tag for child in top] == ["Code", "Message", "ArgumentName", "Resource", "RequestId", "HostId"]
    assert (top.findtext("Code"), top.findtext("RequestId")) == ("InvalidArgument", "R1")


def test_a_status_may_differ_from_the_tables() -> None:
    assert S3Error("InvalidArgument").with_status(416).status == 416
    assert s3errors.not_implemented("x-amz-acl").status == 501
    assert s3errors.invalid_argument("No.", "a", "b").fields == {"ArgumentName": "a", "ArgumentValue": "b"}

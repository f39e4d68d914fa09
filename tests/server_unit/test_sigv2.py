"""Signature Version 2 against botocore's signers: headers, presigned queries, virtual hosts."""

from __future__ import annotations

import dataclasses

import pytest

from s3mount.server import sigv2
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import S3Request, parse_request
from tests.server_unit.signing import ACCESS_KEY, NOW, SECRET, received, sign_v2_header, sign_v2_query

URL = "http://s3.example.com"
TARGETS = [
    "/",
    "/bucket",
    "/bucket/",
    "/bucket/a%20key/with%2Bmore",
    "/bucket/%C3%A4",
    "/bucket/k?uploads",
    "/bucket/k?uploads=",
    "/bucket/k?partNumber=3&uploadId=abc%2Fdef",
    "/bucket/k?versionId=null&x-id=GetObject",
    "/bucket?prefix=a&delete",
    "/bucket/k?response-content-type=text%2Fplain&response-content-disposition=attachment%3B%20filename%3D%22a%20b%22",
    "/bucket?location&acl=",
]


def checked(request: S3Request, *, now: float = NOW) -> None:
    claim = sigv2.parse_claim(request)
    assert claim is not None
    assert claim.access_key == ACCESS_KEY
    sigv2.verify(request, claim, SECRET, now=now)


def refused(request: S3Request, *, now: float = NOW) -> S3Error:
    with pytest.raises(S3Error) as caught:
        checked(request, now=now)
    return caught.value


@pytest.mark.parametrize("target", TARGETS)
def test_what_botocore_signs_in_a_header_verifies(target: str) -> None:
    checked(sign_v2_header("GET", URL + target))


@pytest.mark.parametrize("target", TARGETS)
def test_what_botocore_presigns_verifies(target: str) -> None:
    checked(sign_v2_query("GET", URL + target))


@pytest.mark.parametrize(
    "headers", [{"x-amz-meta-b": "1", "x-amz-acl": "private"}, {"Content-Type": "text/plain"}, {"Content-MD5": "abc", "x-amz-meta-a": "x"}]
)
def test_signed_headers_count_where_they_came_or_in_the_query(headers: dict[str, str]) -> None:
    checked(sign_v2_header("PUT", f"{URL}/b/k", headers))
    checked(sign_v2_query("PUT", f"{URL}/b/k", headers))


def test_presigned_headers_may_also_be_sent() -> None:
    request = sign_v2_query("PUT", f"{URL}/b/k", {"Content-Type": "text/plain"})
    checked(parse_request("PUT", f"{request.path}?{request.query}", [(b"content-type", b"text/plain")]))
    assert (
        refused(parse_request("PUT", f"{request.path}?{request.query}", [(b"content-type", b"text/html")])).code == "SignatureDoesNotMatch"
    )


def test_a_virtual_hosts_bucket_is_part_of_the_resource() -> None:
    request = sign_v2_header("GET", "http://bucket.s3.example.com/k", auth_path="/bucket/k")
    assert (request.bucket, request.key, request.virtual) == ("bucket", "k", True)
    checked(request)


@pytest.mark.parametrize("target", ["/bucket", "/bucket?prefix=a&delete=", "/bucket?uploads"])
def test_a_bucket_may_be_signed_with_a_slash_as_boto3_does(target: str) -> None:
    checked(sign_v2_header("GET", URL + target, auth_path="/bucket/"))


def test_an_empty_sub_resource_may_be_signed_without_its_equals_sign() -> None:
    signed = sign_v2_header("POST", f"{URL}/bucket/k?uploads")
    checked(dataclasses.replace(signed, query="uploads="))


def test_an_x_amz_date_takes_the_dates_place() -> None:
    request = received("GET", f"{URL}/b/k", {"x-amz-date": "Fri, 24 May 2013 00:00:00 GMT", "date": "Thu, 01 Jan 1970 00:00:00 GMT"})
    text = "GET\n\n\n\nx-amz-date:Fri, 24 May 2013 00:00:00 GMT\n/b/k"
    signature = sigv2.signature_of(SECRET, text)
    headers = dict(request.headers) | {"authorization": f"AWS {ACCESS_KEY}:{signature}"}
    checked(received("GET", f"{URL}/b/k", headers))


@pytest.mark.parametrize("change", [{"method": "PUT"}, {"path": "/b/other"}])
@pytest.mark.parametrize("query", ["", "?uploads"])
def test_one_change_breaks_the_signature(change: dict[str, str], query: str) -> None:
    for request in (sign_v2_header("GET", f"{URL}/b/k{query}"), sign_v2_query("GET", f"{URL}/b/k{query}")):
        error = refused(dataclasses.replace(request, **change))  # type: ignore[arg-type]
        assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)


def test_an_added_subresource_breaks_the_signature() -> None:
    request = sign_v2_header("GET", f"{URL}/b/k")
    assert refused(dataclasses.replace(request, query="acl")).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(("later", "code"), [(59, None), (60, "AccessDenied"), (61, "AccessDenied")])
def test_a_presigned_request_expires(later: int, code: str | None) -> None:
    request = sign_v2_query("GET", f"{URL}/b/k", expires=60)
    if code is None:
        checked(request, now=NOW + later)
    else:
        assert refused(request, now=NOW + later).message == "Request has expired"


@pytest.mark.parametrize("expires", ["", "soon", "-1", "9" * 400, "0", "1.5"])
def test_an_expiry_that_is_no_time_to_come_is_access_denied(expires: str) -> None:
    error = refused(parse_request("GET", f"/b/k?AWSAccessKeyId={ACCESS_KEY}&Signature=abc&Expires={expires}", []))
    assert (error.code, error.status) == ("AccessDenied", 403)


def test_a_far_expiry_is_no_defect() -> None:
    assert (
        refused(parse_request("GET", f"/b/k?AWSAccessKeyId={ACCESS_KEY}&Signature=abc&Expires={'9' * 18}", [])).code
        == "SignatureDoesNotMatch"
    )


@pytest.mark.parametrize("authorization", ["AWS HAHAHA", "AWS :", "AWS a:", "AWS :b"])
def test_a_header_without_key_and_signature_is_an_invalid_argument(authorization: str) -> None:
    error = refused(received("GET", f"{URL}/b", {"authorization": authorization}))
    assert (error.code, error.status) == ("InvalidArgument", 400)


@pytest.mark.parametrize(
    ("date", "code"),
    [
        ("", "AccessDenied"),
        ("Bad Date", "AccessDenied"),
        ("Thu, 01 Jan 1950 00:00:00 GMT", "AccessDenied"),
        ("Tue, 07 Jul 2010 21:53:04 GMT", "RequestTimeTooSkewed"),
        ("Tue, 07 Jul 9999 21:53:04 GMT", "RequestTimeTooSkewed"),
    ],
)
def test_a_date_must_be_one_and_near(date: str, code: str) -> None:
    error = refused(received("GET", f"{URL}/b", {"authorization": f"AWS {ACCESS_KEY}:abc", "x-amz-date": date}))
    assert (error.code, error.status) == (code, 403)


@pytest.mark.parametrize("authorization", ["", "AWS4-HMAC-SHA256 Credential=a", "Basic abc"])
def test_what_is_of_another_kind_is_no_claim(authorization: str) -> None:
    assert sigv2.parse_claim(received("GET", f"{URL}/b", {"authorization": authorization})) is None

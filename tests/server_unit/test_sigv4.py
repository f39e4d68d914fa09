"""Signature Version 4 against botocore's signers and against the numbers that AWS's documents give for their examples."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.server import sigv4
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import S3Request, parse_request
from tests.server_unit.signing import ACCESS_KEY, NOW, SECRET, received, sign_header, sign_query

URL = "http://s3.example.com:9000"
PATHS = [
    "/",
    "/bucket",
    "/bucket/",
    "/bucket/key",
    "/bucket//a//b/",
    "/bucket/../c/./d",
    "/bucket/a%20b%2Bc%25",
    "/bucket/%C3%A4%E2%82%AC",
    "/bucket/~-._!$&'()*,;=:@",
    "/bucket/%7Etilde",
]
QUERIES = [
    "",
    "?uploads",
    "?uploads=",
    "?uploadId=x&partNumber=2",
    "?x-id=PutObject",
    "?prefix=a%20b&delimiter=%2F&encoding-type=url",
    "?prefix=&delimiter=",
    "?list-type=2&continuation-token=a%2Bb%3D%3D",
    "?b=2&a=1&B=3&a=0",
    "?key=%E2%82%AC",
    "?a=b%3Dc",
]


def checked(request: S3Request, *, now: float = NOW, hosts: tuple[str, ...] = ()) -> sigv4.SignatureChain:
    claim = sigv4.parse_claim(request)
    assert claim is not None
    assert claim.access_key == ACCESS_KEY
    return sigv4.verify(request, claim, SECRET, now=now, hosts=hosts)


def refused(request: S3Request, *, now: float = NOW, hosts: tuple[str, ...] = ()) -> S3Error:
    with pytest.raises(S3Error) as caught:
        checked(request, now=now, hosts=hosts)
    return caught.value


def with_header(request: S3Request, name: str, value: str | None) -> S3Request:
    """*request* with another value for *name*, or without it."""
    kept = [(each.encode(), text.encode()) for each, text in request.headers if each != name]
    added = [] if value is None else [(name.encode(), value.encode())]
    return parse_request(request.method, f"{request.path}?{request.query}", kept + added)


# -- what others signed is right -------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sign", [sign_header, sign_query])
def test_a_path_is_taken_as_it_was_signed(path: str, sign: Callable[..., S3Request]) -> None:
    checked(sign("GET", URL + path))


@pytest.mark.parametrize("query", [query for query in QUERIES if query != "?b=2&a=1&B=3&a=0"])
def test_a_query_is_canonical_in_both_kinds_of_authentication(query: str) -> None:
    checked(sign_header("GET", f"{URL}/bucket/key{query}"))
    checked(sign_query("GET", f"{URL}/bucket/key{query}"))


def test_a_repeated_parameter_is_sorted_by_its_value() -> None:
    checked(sign_header("GET", f"{URL}/bucket?b=2&a=1&B=3&a=0"))


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-9"},
        {"x-amz-meta-a": "  several   blanks  between "},
        {"Content-MD5": "abc", "Content-Type": "text/plain; charset=utf-8"},
        {"amz-sdk-invocation-id": "1", "amz-sdk-request": "attempt=1; max=3", "accept-encoding": "identity", "content-length": "0"},
        {"x-amz-api-version": "2006-03-01", "te": "trailers"},
        {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
        {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-trailer": "x-amz-checksum-crc32"},
    ],
)
def test_whatever_headers_were_signed_count(headers: dict[str, str]) -> None:
    request = sign_header("PUT", f"{URL}/bucket/key", headers, b"body")
    checked(request)


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-3", "garage", "auto"])
def test_any_region_is_right(region: str) -> None:
    checked(sign_header("GET", f"{URL}/b/k", region=region))


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_key_and_any_parameter_verify_as_botocore_signs_them(key: str, value: str) -> None:
    url = f"{URL}/bucket/{quote(key, safe='/~')}?prefix={quote(value, safe='')}"
    request = sign_header("GET", url)
    checked(request)
    assert request.key == key
    assert request.param("prefix") == value


def test_a_date_header_stands_in_for_x_amz_date() -> None:
    request = sign_header("GET", f"{URL}/b/k", {"Date": "now"})
    assert request.header("x-amz-date") is None
    checked(request)


# The examples of "Authenticating requests: using the Authorization header" and "using query parameters" (API reference): what to send, and
# the signature that AWS prints for it.
HOST = "examplebucket.s3.amazonaws.com"
EMPTY = hashlib.sha256(b"").hexdigest()
EXAMPLES = [
    (
        "GET",
        "/test.txt",
        {"range": "bytes=0-9", "x-amz-content-sha256": EMPTY},
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    (
        "PUT",
        "/test%24file.text",
        {
            "date": "Fri, 24 May 2013 00:00:00 GMT",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": hashlib.sha256(b"Welcome to Amazon S3.").hexdigest(),
        },
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    ("GET", "/?lifecycle", {"x-amz-content-sha256": EMPTY}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ("GET", "/?max-keys=2&prefix=J", {"x-amz-content-sha256": EMPTY}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
]


@pytest.mark.parametrize(("method", "target", "headers", "signature"), EXAMPLES)
def test_the_examples_of_the_reference_verify(method: str, target: str, headers: dict[str, str], signature: str) -> None:
    checked(example(method, target, headers, signature))


def example(method: str, target: str, headers: dict[str, str], signature: str) -> S3Request:
    sent = {"host": HOST, "x-amz-date": "20130524T000000Z", **headers}
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={';'.join(sorted(sent))},Signature={signature}"
    )
    raw = [(name.encode(), value.encode()) for name, value in {**sent, "authorization": authorization}.items()]
    return parse_request(method, target, raw, bases=("s3.amazonaws.com",))


PRESIGNED = (
    f"/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={ACCESS_KEY}%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
)


def test_the_presigned_example_of_the_reference_verifies() -> None:
    checked(parse_request("GET", PRESIGNED, [(b"Host", HOST.encode())]), now=NOW + 86399)


# -- chunks ------------------------------------------------------------------------------------

# "Transferring payload in multiple chunks": 66560 letters a in chunks of 64 KiB and 1 KiB, without and with a trailer.
CHUNKS = [
    (
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        [
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ],
        "",
    ),
    (
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
        [
            "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
            "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
            "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
        ],
        "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
    ),
]


@pytest.mark.parametrize(("seed", "signatures", "trailer"), CHUNKS)
def test_the_chunk_signatures_of_the_reference_come_out(seed: str, signatures: list[str], trailer: str) -> None:
    key = sigv4.signing_key(SECRET, "20130524", "us-east-1")
    chain = sigv4.SignatureChain(key, "20130524T000000Z", "20130524/us-east-1/s3/aws4_request", seed)
    chunks = [b"a" * 65536, b"a" * 1024, b""]
    assert [chain.next(hashlib.sha256(chunk).hexdigest()) for chunk in chunks] == signatures
    if trailer:
        assert chain.trailer([("x-amz-checksum-crc32c", "sOO8/Q==")]) == trailer


def test_the_chain_begins_with_the_signature_of_the_request() -> None:
    headers = {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "x-amz-decoded-content-length": "3"}
    request = sign_header("PUT", f"{URL}/b/k", headers, b"abc")
    claim = sigv4.parse_claim(request)
    assert claim is not None
    key = sigv4.signing_key(SECRET, claim.date, claim.region)
    ours = sigv4.SignatureChain(key, claim.stamp, claim.scope, claim.signature)
    assert checked(request).next("00") == ours.next("00")


# -- what is not right is refused -----------------------------------------------------------


@pytest.mark.parametrize("sign", [sign_header, sign_query])
@pytest.mark.parametrize("change", ["method", "path", "query", "header", "signature"])
def test_one_change_breaks_the_signature(sign: Callable[..., S3Request], change: str) -> None:
    request = sign("GET", f"{URL}/b/k?prefix=a", {"x-amz-meta-a": "1"})
    changed = {
        "method": lambda: dataclasses.replace(request, method="PUT"),
        "path": lambda: dataclasses.replace(request, path="/b/other"),
        "query": lambda: dataclasses.replace(request, query=request.query.replace("prefix=a", "prefix=b")),
        "header": lambda: with_header(request, "x-amz-meta-a", "2"),
        "signature": lambda: broken_signature(request),
    }[change]()
    error = refused(changed)
    assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)
    assert SECRET not in str(error.fields)


def broken_signature(request: S3Request) -> S3Request:
    def other(found: re.Match[str]) -> str:
        return found[1] + "0" * 64

    query = re.sub("(X-Amz-Signature=)[0-9a-f]{64}", other, request.query)
    header = re.sub("(Signature=)[0-9a-f]{64}", other, request.header("authorization") or "")
    again = parse_request(request.method, f"{request.path}?{query}", [(name.encode(), text.encode()) for name, text in request.headers])
    return with_header(again, "authorization", header) if header else again


def test_another_secret_does_not_match() -> None:
    request = sign_header("GET", f"{URL}/b/k")
    claim = sigv4.parse_claim(request)
    assert claim is not None
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        sigv4.verify(request, claim, SECRET + "x", now=NOW)


@pytest.mark.parametrize(
    ("offset", "code"), [(0, None), (899, None), (-899, None), (901, "RequestTimeTooSkewed"), (-901, "RequestTimeTooSkewed")]
)
def test_a_clock_may_be_a_quarter_of_an_hour_off(offset: int, code: str | None) -> None:
    request = sign_header("GET", f"{URL}/b/k")
    if code is None:
        checked(request, now=NOW + offset)
    else:
        error = refused(request, now=NOW + offset)
        assert (error.code, error.status) == (code, 403)
        assert error.fields["MaxAllowedSkewMilliseconds"] == "900000"


@pytest.mark.parametrize(
    ("expires", "later", "sentence"),
    [
        (1, 0, None),
        (604800, 604799, None),
        (10, 10, "Request has expired"),
        (10, 11, "Request has expired"),
        (10, -901, "Request is not valid yet"),
        (0, 0, "Request has expired"),
        (-1, 0, "X-Amz-Expires must be non-negative"),
        (604801, 0, "X-Amz-Expires must be less than a week"),
    ],
)
def test_a_presigned_request_holds_for_its_time(expires: int, later: int, sentence: str | None) -> None:
    request = sign_query("GET", f"{URL}/b/k", expires=expires)
    if sentence is None:
        checked(request, now=NOW + later)
        return
    error = refused(request, now=NOW + later)
    assert (error.code, error.status) == ("AccessDenied", 403)
    assert sentence in error.message


def test_an_x_amz_header_that_was_not_signed_is_refused() -> None:
    error = refused(with_header(sign_header("PUT", f"{URL}/b/k"), "x-amz-acl", "public-read"))
    assert (error.code, error.fields["HeadersNotSigned"]) == ("AccessDenied", "x-amz-acl")


def test_other_headers_may_be_added_on_the_way() -> None:
    checked(with_header(sign_header("PUT", f"{URL}/b/k"), "via", "1.1 proxy"))


def test_a_proxys_name_may_have_been_signed() -> None:
    request = with_header(sign_query("GET", "http://public.example.com/b/k"), "host", "127.0.0.1:9000")
    assert refused(request).code == "SignatureDoesNotMatch"
    checked(request, hosts=("other.example.com", "public.example.com"))


def test_a_latin_1_header_signed_as_utf_8_is_right() -> None:
    request = sign_header("PUT", f"{URL}/b/k", {"x-amz-meta-a": "h\xe9"})
    checked(request)
    raw = [(name.encode(), b"h\xe9" if name == "x-amz-meta-a" else value.encode()) for name, value in request.headers]
    checked(parse_request("PUT", request.path, raw))


AUTHORIZATION = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"


@pytest.mark.parametrize(
    ("authorization", "code", "status"),
    [
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed", 400),
        ("AWS4-HMAC-SHA256 Credential=HAHAHA", "AuthorizationHeaderMalformed", 400),
        (AUTHORIZATION.replace("/s3/", "/ec2/"), "AuthorizationHeaderMalformed", 400),
        (AUTHORIZATION.replace("aws4_request", "aws5_request"), "AuthorizationHeaderMalformed", 400),
        (AUTHORIZATION.replace("20130524", "20130525"), "AuthorizationHeaderMalformed", 400),
        (AUTHORIZATION.replace(", Signature=00", ""), "AuthorizationHeaderMalformed", 400),
        (AUTHORIZATION.replace("host;x-amz-date", ""), "AuthorizationHeaderMalformed", 400),
        (AUTHORIZATION.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "InvalidRequest", 400),
        (AUTHORIZATION, "SignatureDoesNotMatch", 403),
    ],
)
def test_a_header_that_makes_no_sense_says_why(authorization: str, code: str, status: int) -> None:
    error = refused(
        received("GET", f"{URL}/b", {"authorization": authorization, "x-amz-date": "20130524T000000Z", "x-amz-content-sha256": EMPTY})
    )
    assert (error.code, error.status) == (code, status)


@pytest.mark.parametrize("date", ["", "Bad Date", "20139999T000000Z", "Tue, 07 Jul 1099 21:53:04 GMT"])
def test_a_date_that_cannot_be_is_access_denied(date: str) -> None:
    error = refused(received("GET", f"{URL}/b", {"authorization": AUTHORIZATION, "x-amz-date": date, "x-amz-content-sha256": EMPTY}))
    assert (error.code, error.status) == ("AccessDenied", 403)


@pytest.mark.parametrize(
    ("value", "code"), [(None, "InvalidRequest"), ("", "InvalidArgument"), ("abc", "InvalidArgument"), ("g" * 64, "InvalidArgument")]
)
def test_the_payload_hash_must_come_and_be_one(value: str | None, code: str) -> None:
    assert refused(with_header(sign_header("GET", f"{URL}/b"), "x-amz-content-sha256", value)).code == code


@pytest.mark.parametrize("name", ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"])
def test_a_presigned_query_must_be_complete(name: str) -> None:
    request = sign_query("GET", f"{URL}/b/k")
    query = "&".join(part for part in request.query.split("&") if not part.startswith(f"X-Amz-{name}="))
    error = refused(parse_request("GET", f"/b/k?{query}", [(b"host", b"s3.example.com:9000")]))
    assert (error.code, error.status) == ("AuthorizationQueryParametersError", 400)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("Algorithm", "AWS4-HMAC-MD5", "AuthorizationQueryParametersError"),
        ("Credential", "nonsense", "AuthorizationQueryParametersError"),
        ("Date", "20130524", "AuthorizationQueryParametersError"),
        ("Date", "20130525T000000Z", "AuthorizationQueryParametersError"),
        ("Expires", "soon", "AuthorizationQueryParametersError"),
        ("Expires", "9" * 400, "AuthorizationQueryParametersError"),
    ],
)
def test_a_presigned_query_must_make_sense(name: str, value: str, code: str) -> None:
    query = re.sub(f"X-Amz-{name}=[^&]*", f"X-Amz-{name}={value}", sign_query("GET", f"{URL}/b/k").query)
    assert refused(parse_request("GET", f"/b/k?{query}", [(b"host", b"s3.example.com:9000")])).code == code


@pytest.mark.parametrize("authorization", ["", "AWS abc:def", "Basic abc"])
def test_what_is_of_another_kind_is_no_claim(authorization: str) -> None:
    assert sigv4.parse_claim(received("GET", f"{URL}/b", {"authorization": authorization})) is None


# -- presigning ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("query", QUERIES[:2] + QUERIES[3:])
def test_what_we_presign_verifies(path: str, query: str) -> None:
    url = sigv4.presign(URL + path + query, access_key=ACCESS_KEY, secret=SECRET, now=NOW, method="PUT", headers={"Content-Type": "a/b"})
    checked(received("PUT", url, {"content-type": "a/b"}))
    assert refused(received("PUT", url, {"content-type": "c/d"})).code == "SignatureDoesNotMatch"


def test_our_presigned_url_is_botocores() -> None:
    url = sigv4.presign(f"{URL}/b/k?versionId=1", access_key=ACCESS_KEY, secret=SECRET, now=NOW, expires=60)
    request = sign_query("GET", f"{URL}/b/k?versionId=1", expires=60)
    assert url == f"{URL}{request.path}?{request.query}"


@pytest.mark.parametrize("expires", [0, -1, 604801])
def test_nobody_presigns_for_longer_than_a_week(expires: int) -> None:
    with pytest.raises(ValueError):
        sigv4.presign(URL, access_key=ACCESS_KEY, secret=SECRET, now=NOW, expires=expires)

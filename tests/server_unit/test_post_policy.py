"""Browser forms: policies in tables, signatures against botocore's."""

from __future__ import annotations

import base64
import json

import pytest
from botocore.auth import HmacV1PostAuth, S3SigV4PostAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.server import post_policy
from s3mount.server.access import KeyPair, Keyring
from s3mount.server.post_policy import Policy, parse_policy
from s3mount.server.s3errors import S3Error
from tests.server_unit.signing import ACCESS_KEY, NOW, SECRET, clock

LATER = "2013-05-25T00:00:00Z"
KEYS = Keyring([KeyPair(ACCESS_KEY, SECRET)])


def encoded(document: object) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def policy(*conditions: object, expiration: object = LATER) -> Policy:
    return parse_policy(encoded({"expiration": expiration, "conditions": [{"bucket": "b"}, *conditions]}))


def refused(one: Policy, fields: dict[str, str], bucket: str = "b") -> str:
    with pytest.raises(S3Error) as caught:
        one.check(fields, bucket=bucket, now=NOW)
    assert caught.value.code == "AccessDenied"
    return caught.value.message


STARTS = ["starts-with", "$key", "user/"]


@pytest.mark.parametrize(
    ("conditions", "fields"),
    [
        ([], {}),
        ([STARTS], {"key": "user/a"}),
        ([["starts-with", "$key", ""]], {"key": "anything"}),
        ([["eq", "$key", "k"], {"acl": "private"}], {"key": "k", "acl": "private"}),
        ([["EQ", "$KEY", "k"], ["Starts-With", "$Content-Type", "text/"]], {"key": "k", "content-type": "text/plain"}),
        ([["starts-with", "$Content-Type", "image/"]], {"content-type": "image/png, image/gif"}),
        ([{"x-amz-meta-a": "1", "acl": "private"}], {"x-amz-meta-a": "1", "acl": "private"}),
        ([STARTS], {"key": "user/a", "x-ignore-this": "1", "policy": "p", "signature": "s", "awsaccesskeyid": "a"}),
        ([["content-length-range", 1, 10]], {}),
    ],
)
def test_a_form_that_meets_its_policy_passes(conditions: list[object], fields: dict[str, str]) -> None:
    policy(*conditions).check(fields, bucket="b", now=NOW)


@pytest.mark.parametrize(
    ("conditions", "fields", "sentence"),
    [
        ([STARTS], {"key": "other/a"}, "Condition failed"),
        ([STARTS], {}, "Condition failed"),
        ([["eq", "$key", "k"]], {"key": "K"}, "Condition failed"),
        ([["starts-with", "$Content-Type", "image/"]], {"content-type": "image/png, text/html"}, "Condition failed"),
        ([], {"key": "k"}, "Extra input fields: key"),
        ([STARTS], {"key": "user/a", "x-amz-meta-b": "1", "acl": "x"}, "Extra input fields: acl, x-amz-meta-b"),
    ],
)
def test_a_form_that_does_not_is_denied(conditions: list[object], fields: dict[str, str], sentence: str) -> None:
    assert sentence in refused(policy(*conditions), fields)


def test_a_policy_is_for_its_bucket_and_must_name_one() -> None:
    assert "Condition failed" in refused(policy(), {}, bucket="other")
    assert "bucket" in refused(parse_policy(encoded({"expiration": LATER, "conditions": []})), {})


@pytest.mark.parametrize("expiration", ["2013-05-24T00:00:00Z", "2013-05-23T23:59:59.999Z", "1969-01-01T00:00:00Z"])
def test_a_policy_expires(expiration: str) -> None:
    assert "expired" in refused(policy(expiration=expiration), {})


@pytest.mark.parametrize(
    "document",
    [
        [],
        "text",
        {},
        {"expiration": LATER},
        {"conditions": []},
        {"EXPIRATION": LATER, "conditions": []},
        {"expiration": LATER, "CONDITIONS": []},
        {"expiration": LATER, "conditions": {}},
        {"expiration": 5, "conditions": []},
        {"expiration": "2013-05-25", "conditions": []},
        {"expiration": "2013-99-25T00:00:00Z", "conditions": []},
        {"expiration": "Sat, 25 May 2013 00:00:00 GMT", "conditions": []},
        *(
            {"expiration": LATER, "conditions": [condition]}
            for condition in (
                {},
                [],
                "x",
                5,
                ["eq", "$key"],
                ["eq", "key", "v"],
                ["eq", "$key", 5],
                ["like", "$key", "v"],
                [5, "$key", "v"],
                {"key": 5},
                ["content-length-range"],
                ["content-length-range", 0],
                ["content-length-range", -1, 5],
                ["content-length-range", "a", "b"],
                ["content-length-range", 0, 5, 6],
            )
        ),
        {"expiration": LATER, "conditions": [{"a": "b"}] * 1000},
    ],
)
def test_a_policy_that_makes_no_sense_is_invalid(document: object) -> None:
    with pytest.raises(S3Error) as caught:
        parse_policy(encoded(document))
    assert (caught.value.code, caught.value.status) == ("InvalidPolicyDocument", 400)


@pytest.mark.parametrize(
    "text", ["", "%%%", "e30", base64.b64encode(b"{").decode(), base64.b64encode(b"[" * 9000).decode(), "A" * 30_000, "\xe4"]
)
def test_what_is_no_document_is_invalid(text: str) -> None:
    with pytest.raises(S3Error, match="InvalidPolicyDocument"):
        parse_policy(text)


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner)
    )
)
def test_any_document_is_a_policy_or_refused(condition: object) -> None:
    try:
        policy(condition)
    except S3Error as error:
        assert error.code == "InvalidPolicyDocument"  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(("length", "code"), [(1, "EntityTooSmall"), (2, None), (10, None), (11, "EntityTooLarge")])
def test_the_length_of_the_file_is_bounded(length: int, code: str | None) -> None:
    one = policy(["content-length-range", 2, "10"])
    if code is None:
        one.check_length(length)
    else:
        with pytest.raises(S3Error, match=code):
            one.check_length(length)
    policy().check_length(1 << 40)


@pytest.mark.parametrize(
    ("key", "filename", "resolved"),
    [
        ("a/${filename}", "f.txt", "a/f.txt"),
        ("k", "f.txt", "k"),
        ("${filename}", r"C:\dir\f.txt", "f.txt"),
        ("${filename}", "../../etc/passwd", "passwd"),
    ],
)
def test_the_files_name_goes_into_the_key(key: str, filename: str, resolved: str) -> None:
    assert post_policy.resolve_key(key, filename) == resolved


# -- signatures ----------------------------------------------------------------------------


def signed_form(signer: type[S3SigV4PostAuth] | type[HmacV1PostAuth]) -> dict[str, str]:
    """A form as botocore signs it, as its fields arrive."""
    request = AWSRequest("POST", "http://s3.example.com/b")
    request.context["s3-presign-post-fields"] = {"key": "user/a"}
    request.context["s3-presign-post-policy"] = {"expiration": LATER, "conditions": [{"bucket": "b"}, STARTS]}
    with clock():
        signer(Credentials(ACCESS_KEY, SECRET), "s3", "us-east-1").add_auth(request)
    return {name.lower(): value for name, value in request.context["s3-presign-post-fields"].items()}


@pytest.mark.parametrize("signer", [S3SigV4PostAuth, HmacV1PostAuth])
def test_what_botocore_signs_verifies_and_meets_its_policy(signer: type[S3SigV4PostAuth] | type[HmacV1PostAuth]) -> None:
    fields = signed_form(signer)
    assert post_policy.is_signed(fields)
    assert post_policy.verify_form(fields, KEYS).access_key == ACCESS_KEY
    parse_policy(fields["policy"]).check(fields, bucket="b", now=NOW)


@pytest.mark.parametrize("signer", [S3SigV4PostAuth, HmacV1PostAuth])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"policy": encoded({})}, "SignatureDoesNotMatch"),
        ({"signature": "x", "x-amz-signature": "x"}, "SignatureDoesNotMatch"),
        ({"signature": "\udcff", "x-amz-signature": "\udcff"}, "SignatureDoesNotMatch"),
        ({"awsaccesskeyid": "NOBODY", "x-amz-credential": "NOBODY/20130524/us-east-1/s3/aws4_request"}, "InvalidAccessKeyId"),
        ({"policy": ""}, "InvalidArgument"),
        ({"signature": "", "x-amz-signature": ""}, "InvalidArgument"),
        ({"awsaccesskeyid": "", "x-amz-credential": ""}, "InvalidArgument"),
    ],
)
def test_a_form_that_was_changed_is_refused(
    signer: type[S3SigV4PostAuth] | type[HmacV1PostAuth], change: dict[str, str], code: str
) -> None:
    fields = signed_form(signer)
    with pytest.raises(S3Error, match=code):
        post_policy.verify_form({**fields, **{name: value for name, value in change.items() if name in fields}}, KEYS)

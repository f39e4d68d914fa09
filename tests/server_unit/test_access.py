"""Key pairs and rights; the order in which a request is refused; secrets that stay where they are."""

from __future__ import annotations

import pytest

from s3mount.server import access
from s3mount.server.access import Action, Caller, KeyPair, Keyring, Rights, authenticate
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import parse_request
from tests.server_unit.signing import ACCESS_KEY, NOW, SECRET, received, sign_header, sign_query, sign_v2_header, sign_v2_query

URL = "http://s3.example.com"
READER = Rights(write=False)
TENANT = Rights(bucket="mine")
KEYS = Keyring([KeyPair("other", "x"), KeyPair(ACCESS_KEY, SECRET, TENANT)])


@pytest.mark.parametrize("sign", [sign_header, sign_query, sign_v2_header, sign_v2_query])
def test_every_kind_of_signature_tells_who_asks(sign: type) -> None:
    caller = authenticate(sign("GET", f"{URL}/b/k"), KEYS, now=NOW)
    assert (caller.access_key, caller.rights, caller.signed) == (ACCESS_KEY, TENANT, True)


@pytest.mark.parametrize("sign", [sign_header, sign_query, sign_v2_header, sign_v2_query])
def test_an_unknown_key_is_named_before_anything_else(sign: type) -> None:
    with pytest.raises(S3Error) as caught:
        authenticate(sign("GET", f"{URL}/b/k"), Keyring([]), now=NOW + 10**9)
    assert (caught.value.code, caught.value.status) == ("InvalidAccessKeyId", 403)


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({}, "AccessDenied", 403),
        ({"authorization": ""}, "AccessDenied", 403),
        ({"authorization": "Basic abc"}, "InvalidArgument", 400),
        ({"authorization": "AWS HAHAHA"}, "InvalidArgument", 400),
        ({"authorization": "AWS4-HMAC-SHA256 HAHAHA"}, "AuthorizationHeaderMalformed", 400),
    ],
)
def test_who_does_not_sign_is_denied(headers: dict[str, str], code: str, status: int) -> None:
    with pytest.raises(S3Error) as caught:
        authenticate(received("GET", f"{URL}/b", headers), KEYS, now=NOW)
    assert (caught.value.code, caught.value.status) == (code, status)


def test_one_request_has_one_signature() -> None:
    request = sign_query("GET", f"{URL}/b/k")
    twice = received("GET", f"{URL}{request.path}?{request.query}", {"authorization": "AWS a:b"})
    with pytest.raises(S3Error, match="Only one auth mechanism"):
        authenticate(twice, KEYS, now=NOW)


R, W = Action.READ, Action.WRITE


@pytest.mark.parametrize(
    ("rights", "action", "bucket", "may"),
    [
        (access.ALL, W, "b", True),
        (access.ALL, W, "", True),
        (READER, R, "b", True),
        (READER, R, "", True),
        (READER, W, "b", False),
        (TENANT, W, "mine", True),
        (TENANT, R, "mine", True),
        (TENANT, R, "", True),
        (TENANT, R, "yours", False),
        (TENANT, W, "yours", False),
        (Rights(write=False, bucket="mine"), R, "mine", True),
        (Rights(write=False, bucket="mine"), W, "mine", False),
        (Rights(write=False, bucket="mine"), R, "yours", False),
    ],
)
def test_rights_are_what_they_say(rights: Rights, action: Action, bucket: str, may: bool) -> None:
    caller = Caller("a", rights, signed=True)
    if may:
        caller.require(action, bucket)
    else:
        with pytest.raises(S3Error, match="AccessDenied"):
            caller.require(action, bucket)


def test_one_buckets_key_is_shown_this_bucket_alone() -> None:
    assert [name for name in ("mine", "yours") if TENANT.show(name)] == ["mine"]
    assert access.ALL.show("yours")


@pytest.mark.parametrize(
    ("method", "action"), [("GET", R), ("HEAD", R), ("OPTIONS", R), ("PUT", W), ("POST", W), ("DELETE", W), ("PATCH", W)]
)
def test_what_changes_something_is_a_write(method: str, action: Action) -> None:
    assert access.action_of(parse_request(method, "/b/k", [])) is action


def test_no_repr_shows_a_secret() -> None:
    caller = authenticate(sign_header("GET", f"{URL}/b"), KEYS, now=NOW)
    assert SECRET not in repr([KEYS, KEYS.find(ACCESS_KEY), caller, caller.chain, KeyPair("a", SECRET)])


@pytest.mark.parametrize("sign", [sign_header, sign_query, sign_v2_header, sign_v2_query])
def test_without_authentication_a_caller_is_who_it_says(sign: type) -> None:
    caller = access.unverified(sign("GET", f"{URL}/b"))
    assert (caller.access_key, caller.signed, caller.rights) == (ACCESS_KEY, True, access.ALL)
    assert access.unverified(received("GET", f"{URL}/b", {})) == Caller()

"""Where and as whom the lane asks: as botocore would, by its own word."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ParamValidationError

from s3mount.store.s3.lean import sign
from s3mount.store.s3.lean.origin import Origin, Scope, Unfit, learn, read_probe
from tests.s3.lean.lanes import SESSION, client_of

V4 = "AWS4-HMAC-SHA256 Credential=AK/20261121/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=00"


@pytest.mark.parametrize(
    ("url", "config", "bucket", "authority", "base"),
    [
        (None, {}, "box", "box.s3.eu-west-1.amazonaws.com", "/"),
        (None, {"s3": {"addressing_style": "path"}}, "box", "s3.eu-west-1.amazonaws.com", "/box/"),
        (None, {"use_dualstack_endpoint": True}, "box", "box.s3.dualstack.eu-west-1.amazonaws.com", "/"),
        (None, {}, "dotted.box", "s3.eu-west-1.amazonaws.com", "/dotted.box/"),
        ("http://localhost:9000", {}, "box", "localhost:9000", "/box/"),
        ("http://localhost:9000/s3/", {}, "box", "localhost:9000", "/s3/box/"),
        ("https://store.example", {"s3": {"addressing_style": "virtual"}}, "box", "box.store.example", "/"),
        ("https://store.example:443", {}, "box", "store.example", "/box/"),
        ("http://[::1]:9000", {}, "box", "[::1]:9000", "/box/"),
        (None, {}, "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine", "mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com", "/"),
    ],
)
async def test_the_bucket_is_where_botocore_says(url: str | None, config: dict[str, Any], bucket: str, authority: str, base: str) -> None:
    async with client_of(url, region="eu-west-1", **config) as client:
        origin = await learn(client, bucket, {})
    assert (origin.authority, origin.base, origin.scope) == (authority, base, Scope("eu-west-1", "s3"))
    assert origin.key_target("a b/../ü+%") == base + "a%20b/../%C3%BC%2B%25"
    assert origin.bucket_path == (base[:-1] or "/")


async def test_what_goes_with_every_request_goes_with_the_lanes_too() -> None:
    async with client_of(None) as client:
        origin = await learn(client, "box", {"RequestPayer": "requester", "ExpectedBucketOwner": "123456789012"})
    fields = {name.lower(): value for name, value in origin.fields.items()}
    assert fields.pop("user-agent")
    assert fields == {"x-amz-request-payer": "requester", "x-amz-expected-bucket-owner": "123456789012"}


async def test_an_anonymous_client_signs_nothing() -> None:
    async with client_of(None, sign=False) as client:
        assert (await learn(client, "box", {})).scope is None


async def test_a_bucket_that_botocore_refuses_is_its_to_refuse_and_leaves_no_handler_behind() -> None:
    async with client_of(None) as client:
        with pytest.raises(ParamValidationError):
            await learn(client, "no such name!", {})
        assert (await learn(client, "box", {})).host == "box.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://host/box/TOKEN", {}),
        ("http://host/box/", {}),
        ("http://host/box/TOKEN/more", {}),
        ("http://host/box/xTOKEN", {}),
        ("http://host/box/TOKEN", {"Authorization": "AWS AK:signature"}),
        ("http://host/box/TOKEN", {"Authorization": "AWS4-ECDSA-P256-SHA256 Credential=AK/20261121/s3/aws4_request, SignedHeaders=host"}),
        ("http://host/box/TOKEN", {"Authorization": V4, "x-amz-s3session-token": "t"}),
    ],
)
def test_what_the_lane_cannot_do_is_left_to_the_client_for_ever(url: str, headers: Mapping[str, str]) -> None:
    with pytest.raises(Unfit) as caught:
        read_probe(url, headers, "TOKEN", {})
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("environment", "proxies", "fit"),
    [
        ({}, None, True),
        ({"HTTP_PROXY": "http://proxy:1"}, None, False),
        ({"HTTPS_PROXY": "http://proxy:1"}, None, True),
        ({"HTTP_PROXY": "http://proxy:1", "NO_PROXY": "host"}, None, True),
        ({"HTTP_PROXY": "http://proxy:1"}, {}, True),
        ({}, {"http": "http://proxy:1"}, False),
        ({}, {"https": "http://proxy:1"}, True),
    ],
)
def test_a_proxy_is_seen_as_the_client_sees_it(
    environment: dict[str, str], proxies: dict[str, str] | None, fit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        read_probe("http://host/box/TOKEN", {"Authorization": V4}, "TOKEN", proxies)
        assert fit
    except Unfit:
        assert not fit


# -- signatures -------------------------------------------------------------------------------


NOON = datetime(2026, 11, 21, 2, 40, 7, tzinfo=UTC)
SIGNING = Origin(
    "http", "host", 9000, "host:9000", "/box/", {"User-Agent": "x", "x-amz-request-payer": "requester"}, Scope("eu-west-1", "s3")
)
REQUESTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("GET", SIGNING.key_target("a ü"), {"Range": "bytes=0-9", "If-Match": '"e"'}),
    ("GET", SIGNING.bucket_target({"list-type": "2", "delimiter": "/", "prefix": "ü +&=", "start-after": ""}), {}),
    ("HEAD", SIGNING.key_target("a//../b", "null"), {}),
    ("DELETE", SIGNING.key_target("~._-!*'()", query={"a-b": "1", "a": "2"}), {}),
    ("GET", "/box?uploads&b=2&a-b=3&a=&a=1", {}),
    (
        "PUT",
        SIGNING.key_target("k", query={"uploadId": "x/y", "partNumber": "1"}),
        {
            "x-amz-meta-b": "two  blanks",
            "x-amz-meta-a": "",
            "x-amz-meta-A-": "=?UTF-8?B?w7w=?=",
            "Content-Type": "text/plain; charset=utf-8",
        },
    ),
    ("PUT", SIGNING.key_target("k"), {"x-amz-copy-source": "box/a%20b", "If-None-Match": "*", "x-amz-checksum-crc64nvme": "AAAA="}),
)


class _Botocores(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """With the caller's word for the body."""

    def payload(self, request: Any) -> str:
        said: str = request.context["payload"]
        return said


def _by_botocore(identity: ReadOnlyCredentials, method: str, target: str, fields: Mapping[str, str], payload: str) -> dict[str, str]:
    request = AWSRequest(method, f"http://host:9000{target}", headers={"x-amz-request-payer": "requester", "Host": "host:9000", **fields})
    request.context["payload"] = payload
    _Botocores(identity, "s3", "eu-west-1").add_auth(request)
    return dict(request.headers.items())


@pytest.mark.parametrize("payload", [sign.EMPTY, sign.UNSIGNED, "ab" * 32])
@pytest.mark.parametrize("token", [None, "session-token"])
@pytest.mark.parametrize(("method", "target", "fields"), REQUESTS)
async def test_a_signature_is_the_one_that_botocore_makes(
    method: str, target: str, fields: dict[str, str], token: str | None, payload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: NOON)
    identity = ReadOnlyCredentials("AK", "SK", token, None)
    signer = sign.Signer(SIGNING, await SESSION.get_credentials(), clock=NOON.timestamp)
    ours = dict(signer.sign(identity, method, target, fields, payload=payload))
    assert (ours.pop("User-Agent"), ours.pop("Accept-Encoding")) == ("x", "identity")
    assert ours == _by_botocore(identity, method, target, fields, payload)


async def test_the_signing_key_of_yesterday_signs_nothing_today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [NOON]
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now[0])
    identity = ReadOnlyCredentials("AK", "SK", None, None)
    signer = sign.Signer(SIGNING, await SESSION.get_credentials(), clock=lambda: now[0].timestamp())
    for moment in (NOON, NOON.replace(day=22), NOON):
        now[0] = moment
        ours = dict(signer.sign(identity, "GET", "/box/k", {}))
        assert ours["Authorization"] == _by_botocore(identity, "GET", "/box/k", {}, sign.EMPTY)["Authorization"]


async def test_renewed_credentials_get_a_signing_key_of_their_own() -> None:
    origin = Origin("http", "host", 80, "host", "/box/", {}, Scope("r", "s3"))
    signer = sign.Signer(origin, await SESSION.get_credentials())
    first = dict(signer.sign(ReadOnlyCredentials("A", "one", None, None), "GET", "/box/k", {}))
    second = dict(signer.sign(ReadOnlyCredentials("B", "two", None, None), "GET", "/box/k", {}))
    assert "Credential=A/" in first["Authorization"]
    assert "Credential=B/" in second["Authorization"]
    assert first["Authorization"][-64:] != second["Authorization"][-64:]

"""Where and as whom the lane asks: as botocore would, by its own word."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
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


@pytest.mark.parametrize("token", [None, "session-token"])
async def test_a_signature_is_the_one_that_botocore_makes(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime(2026, 11, 21, 2, 40))  # noqa: DTZ001 (as botocore's own)
    identity = ReadOnlyCredentials("AK", "SK", token, None)
    origin = Origin(
        "http", "host", 9000, "host:9000", "/box/", {"User-Agent": "x", "x-amz-request-payer": "requester"}, Scope("eu-west-1", "s3")
    )
    signer = sign.Signer(origin, await SESSION.get_credentials())
    for target, fields in ((origin.key_target("a ü"), {"Range": "bytes=0-9", "If-Match": '"e"'}), ("/box?delimiter=%2F&list-type=2", {})):
        ours = dict(signer.sign(identity, "GET", target, fields))
        request = AWSRequest(
            "GET", f"http://host:9000{target}", headers={"x-amz-request-payer": "requester", "Host": "host:9000", **fields}
        )
        S3SigV4Auth(identity, "s3", "eu-west-1").add_auth(request)
        assert ours["Authorization"] == request.headers["Authorization"]
        assert ours.get("X-Amz-Security-Token") == token
        assert ours["User-Agent"] == "x"
        assert "user-agent" not in ours["Authorization"]


async def test_renewed_credentials_get_a_signing_key_of_their_own() -> None:
    origin = Origin("http", "host", 80, "host", "/box/", {}, Scope("r", "s3"))
    signer = sign.Signer(origin, await SESSION.get_credentials())
    first = dict(signer.sign(ReadOnlyCredentials("A", "one", None, None), "GET", "/box/k", {}))
    second = dict(signer.sign(ReadOnlyCredentials("B", "two", None, None), "GET", "/box/k", {}))
    assert "Credential=A/" in first["Authorization"]
    assert "Credential=B/" in second["Authorization"]
    assert first["Authorization"][-64:] != second["Authorization"][-64:]

"""Where credentials come from when they do not stand in the environment: real resolvers, on trio, against stand-ins for who knows them.

Each gives credentials that are about to expire, with a new token each time, so that every request shows whether they are renewed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3mount.errors import AccessDenied
from s3mount.model import ByteRange, Key
from s3mount.store.s3.options import S3Options
from s3mount.store.s3.store import open_s3
from tests.conftest import ExpectLogs
from tests.s3.canned import Reply, Request, canned

pytestmark = pytest.mark.slow

K = Key("key")
HEADERS = {"ETag": '"e"', "Last-Modified": "Sat, 21 Nov 2026 03:00:00 GMT", "Date": "Sat, 21 Nov 2026 03:00:00 GMT"}
ROLE = "arn:aws:iam::123456789012:role/reader"


class Authority:
    """Gives credentials in each way that AWS has for it, and is the S3 service too. `given` counts them, `asked` is what S3 saw."""

    def __init__(self) -> None:
        self.given = 0
        self.deny = False
        self.asked: list[Request] = []
        self.url = ""

    def answer(self, request: Request) -> Reply:
        if request.target.endswith("/container"):
            assert request.headers["authorization"] == "a-secret"
            return self._json(self._fields("Token"))
        if "/federation/credentials" in request.target:
            return self._json({"roleCredentials": self._lowered()})
        if request.method == "POST":
            return self._sts()
        self.asked.append(request)
        return Reply(200, b"x", HEADERS) if request.method == "GET" else Reply(200, b"", HEADERS)

    def _expires(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=30)

    def _fields(self, token: str) -> dict[str, str]:
        self.given += 1
        expires = self._expires().strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"AccessKeyId": "AKID", "SecretAccessKey": "secret", token: f"token-{self.given}", "Expiration": expires}

    def _lowered(self) -> dict[str, object]:
        self.given += 1
        expires = int(self._expires().timestamp() * 1000)
        return {"accessKeyId": "AKID", "secretAccessKey": "secret", "sessionToken": f"token-{self.given}", "expiration": expires}

    def _json(self, value: object) -> Reply:
        if self.deny:
            return Reply(403, b"{}", {"Content-Type": "application/json"})
        return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _sts(self) -> Reply:
        if self.deny:
            said = (
                b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no such role</Message></Error></ErrorResponse>"
            )
            return Reply(403, said, {"Content-Type": "text/xml"})
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in self._fields("SessionToken").items())
        results = "".join(
            f"<{way}Result><Credentials>{inner}</Credentials><AssumedRoleUser><Arn>{ROLE}</Arn><AssumedRoleId>r:s</AssumedRoleId></AssumedRoleUser></{way}Result>"
            for way in ("AssumeRole", "AssumeRoleWithWebIdentity")
        )
        return Reply(200, f"<Response>{results}</Response>".encode(), {"Content-Type": "text/xml"})

    @property
    def tokens(self) -> list[str]:
        """The session token of each request to S3."""
        return [request.headers["x-amz-security-token"] for request in self.asked]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    authority = Authority()
    with canned(authority.answer) as (url, _):
        authority.url = url
        for name in ("STS", "SSO"):
            monkeypatch.setenv(f"AWS_ENDPOINT_URL_{name}", url)
        yield authority


def by_container(authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{authority.url}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a-secret")


def by_role(authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config").write_text(f"[default]\nrole_arn = {ROLE}\nsource_profile = base\n[profile base]\n")
    (folder / "credentials").write_text("[base]\naws_access_key_id = a\naws_secret_access_key = b\n")


def by_web_identity(authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "identity").write_text("a-token-of-somebody")
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "identity"))


def by_single_sign_on(authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = "https://sign.example/start"
    keys = f"sso_start_url = {start}\nsso_region = us-east-1\nsso_account_id = 123456789012\nsso_role_name = reader\n"
    (folder / "config").write_text(f"[default]\n{keys}")
    cache = folder / ".aws/sso/cache"
    cache.mkdir(parents=True)
    # Looked up once, when botocore is imported.
    monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(cache))
    until = (datetime.now(UTC) + timedelta(hours=8)).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = {"startUrl": start, "region": "us-east-1", "accessToken": "signed-on", "expiresAt": until}
    # botocore finds a sign-on by this name.
    (cache / f"{hashlib.sha1(start.encode()).hexdigest()}.json").write_text(json.dumps(said))


def by_process(authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "program.py"
    program.write_text(
        f"import urllib.request\nasked = urllib.request.Request('{authority.url}/container', headers={{'Authorization': 'a-secret'}})\n"
    )
    with program.open("a") as more:
        more.write("import json\nsaid = json.load(urllib.request.urlopen(asked))\n")
        more.write("print(json.dumps({'Version': 1, 'SessionToken': said.pop('Token'), **said}))\n")
    (folder / "config").write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")


async def look(authority: Authority) -> None:
    store = await open_s3(S3Options(endpoint=authority.url), "bucket")
    try:
        await store.head(K)
    finally:
        await store.aclose()


WAYS = {
    "container": by_container,
    "role": by_role,
    "web identity": by_web_identity,
    "single sign-on": by_single_sign_on,
    "process": by_process,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_credentials_are_found_and_renewed_while_the_store_is_open(
    way: object, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(way)
    way(authority, tmp_path, monkeypatch)
    store = await open_s3(S3Options(endpoint=authority.url), "bucket")
    try:
        await store.put(K, b"by the lane")
        await store.get_into(K, ByteRange(0, 1), memoryview(bytearray(1)))
        await store.client("head_object", store._requests.asked(K), Bucket="bucket", Key=K)
        await store.delete(K)
    finally:
        await store.aclose()
    numbers = [int(token.removeprefix("token-")) for token in authority.tokens]
    assert len(numbers) == 4
    assert numbers == sorted(set(numbers)), "each request has the token that was the newest"
    assert all("AKID" in request.headers["authorization"] for request in authority.asked)


@pytest.mark.parametrize("way", [WAYS[name] for name in ("container", "role", "web identity", "single sign-on")])
async def test_what_gives_no_credentials_is_an_access_denied_with_a_reason(
    way: object, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_logs: ExpectLogs
) -> None:
    assert callable(way)
    way(authority, tmp_path, monkeypatch)
    authority.deny = True
    expect_logs("Refreshing temporary credentials failed")
    with pytest.raises(AccessDenied, match=r"credentials|sign-on"):
        await look(authority)
    assert authority.asked == []


async def test_credentials_that_cannot_be_renewed_end_as_an_error_of_the_store(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_logs: ExpectLogs
) -> None:
    """By the lane and by the client: while the store is open, the role is taken away."""
    expect_logs("Refreshing temporary credentials failed")
    by_role(authority, tmp_path, monkeypatch)
    store = await open_s3(S3Options(endpoint=authority.url), "bucket")
    try:
        await store.put(K, b"data")
        authority.deny = True
        for _ in range(2):
            with pytest.raises(AccessDenied, match="no such role"):
                await store.put(K, b"data")
        authority.deny = False
        await store.put(K, b"data")
    finally:
        await store.aclose()
    assert len(authority.asked) == 2


async def test_a_role_is_assumed_in_the_region_that_was_named(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile without a region has no endpoint to ask for a role."""
    by_role(authority, tmp_path, monkeypatch)
    monkeypatch.delenv("AWS_REGION")
    store = await open_s3(S3Options(endpoint=authority.url, region="eu-west-1"), "bucket")
    await store.head(K)
    await store.aclose()
    assert "/eu-west-1/s3/" in authority.asked[0].headers["authorization"]

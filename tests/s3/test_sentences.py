"""A store that cannot be used says why in one sentence, at once: bucket, region, endpoint, credentials, clock."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3mount.cli.main import run
from tests.s3.canned import Reply, Request, canned, listing, refusal
from tests.s3.services import Service, ours, ours_with_tls
from tests.server.serving import ACCESS_KEY, SECRET_KEY, environment

pytestmark = pytest.mark.slow

URL = "s3://bucket"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with ours(tmp_path_factory.mktemp("ours")) as service:
        yield service


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of a developer's own."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "S3MOUNT_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_DEFAULT_REGION")


class Said:
    """What a command line says on stderr, in one sentence."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str, status: int = 1) -> str:
        assert run(words) == status
        error = self._capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert "Traceback" not in error
        return error


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def test_a_missing_bucket_is_named_with_the_command_that_makes_it(said: Said, service: Service) -> None:
    assert "no bucket 'missing'" in (text := said("ls", "s3://missing", "--endpoint-url", service.url))
    assert "`s3mount mb s3://missing`" in text
    assert service.url in text


def test_what_cannot_be_a_bucket_is_refused(said: Said, service: Service) -> None:
    assert "cannot be the name of a bucket" in said("mb", "s3://No_Bucket!", "--endpoint-url", service.url, status=2)


def test_a_port_where_nobody_listens_is_named(said: Said) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert f"Nothing listens at {url}" in said("ls", URL, "--endpoint-url", url)


def test_a_host_that_is_not_known_is_named(said: Said) -> None:
    assert "http://no-such-host.invalid is not known" in said("ls", URL, "--endpoint-url", "http://no-such-host.invalid")


def test_an_endpoint_without_tls_is_told_from_one_with(said: Said, service: Service) -> None:
    assert "is it an http:// endpoint" in said("ls", URL, "--endpoint-url", service.url.replace("http://", "https://"))


def test_a_certificate_that_is_not_trusted_asks_for_its_authority(said: Said, tmp_path: Path) -> None:
    with ours_with_tls(tmp_path) as service:
        assert "--ca-bundle FILE" in said("ls", URL, "--endpoint-url", service.url)
        assert "no bucket" in said("ls", URL, "--endpoint-url", service.url, "--ca-bundle", str(service.ca))
    assert "no-such-file" in said("ls", URL, "--endpoint-url", service.url, "--ca-bundle", "/no-such-file", status=2)


def test_what_is_no_s3_service_is_said_to_be_none(said: Said) -> None:
    with canned(lambda _: Reply(200, b"<html>Welcome!</html>", {"Content-Type": "text/html"})) as (url, _):
        assert "S3" in said("ls", URL, "--endpoint-url", url)


def test_missing_credentials_say_where_they_may_come_from(said: Said, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    text = said("ls", URL, "--endpoint-url", service.url)
    assert "No credentials" in text
    assert "--no-sign-request" in text


def test_wrong_credentials_say_which_half_is_wrong(said: Said, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "secret key does not fit" in said("ls", URL, "--endpoint-url", service.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "does not know this access key" in said("ls", URL, "--endpoint-url", service.url)


def test_half_of_the_credentials_is_said_to_be_half(said: Said, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "not complete" in said("ls", URL, "--endpoint-url", service.url)


def test_a_profile_that_is_not_there_is_named(said: Said, service: Service) -> None:
    assert "nobody" in said("ls", URL, "--endpoint-url", service.url, "--profile", "nobody", status=2)


def test_a_profile_brings_its_credentials_and_its_endpoint(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"[profile here]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        f"endpoint_url = {service.url}\nregion = xy\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert run(["mb", "s3://of-a-profile", "--profile", "here"]) == 0
    assert run(["ls", "s3://", "--profile", "here"]) == 0
    assert "of-a-profile" in capsys.readouterr().out


def test_credentials_of_a_process_are_taken(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, script = tmp_path / "config", tmp_path / "keys"
    script.write_text(f'#!/bin/sh\necho \'{{"Version": 1, "AccessKeyId": "{ACCESS_KEY}", "SecretAccessKey": "{SECRET_KEY}"}}\'\n')
    script.chmod(0o755)
    config.write_text(f"[profile made]\ncredential_process = {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert run(["ls", "s3://", "--profile", "made", "--endpoint-url", service.url]) == 0


def test_expired_credentials_are_said_to_be_expired(said: Said) -> None:
    with canned(lambda _: refusal(400, "ExpiredToken", "The provided token has expired.")) as (url, _):
        assert "The credentials have expired" in said("ls", URL, "--endpoint-url", url)


def test_a_wrong_clock_is_said_with_how_far_it_is_off(said: Said) -> None:
    server = (datetime.now(UTC) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    with canned(lambda _: refusal(403, "RequestTimeTooSkewed", "skewed", ServerTime=server)) as (url, _):
        assert "by 2 hours (behind)" in said("ls", URL, "--endpoint-url", url)


def test_a_bucket_of_another_region_is_followed_there_unless_the_region_was_given(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    def only_from_xy(request: Request) -> Reply:
        if "/xy/s3/aws4_request" in request.headers.get("authorization", ""):
            return listing("bucket")
        return refusal(301, "PermanentRedirect", "elsewhere", headers={"x-amz-bucket-region": "xy"})

    with canned(only_from_xy) as (url, requests):
        assert run(["ls", URL, "--endpoint-url", url]) == 0
        assert capsys.readouterr().err == ""
        assert len(requests) == 3
        assert "is in region xy: use --region xy" in said("ls", URL, "--endpoint-url", url, "--region", "us-east-1")


def test_a_region_that_only_the_heads_answer_names_is_found(said: Said) -> None:
    def elsewhere(request: Request) -> Reply:
        named = {"x-amz-bucket-region": "xy"} if request.method == "HEAD" else {}
        return refusal(301, "PermanentRedirect", "elsewhere", headers=named)

    with canned(elsewhere) as (url, _):
        assert "is in region xy" in said("ls", URL, "--endpoint-url", url, "--region", "us-east-1")


def test_a_refused_listing_is_a_refusal(said: Said) -> None:
    with canned(lambda _: refusal(403, "AccessDenied", "Access Denied")) as (url, _):
        assert "403 AccessDenied: Access Denied" in said("ls", URL, "--endpoint-url", url)


def test_an_archived_object_is_asked_back(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    replies = [Reply(202), refusal(409, "RestoreAlreadyInProgress"), refusal(404, "NoSuchKey"), refusal(403, "InvalidObjectState")]
    with canned(lambda _: replies.pop(0)) as (url, requests):
        assert run(["restore", "s3://bucket/key", "--days", "3", "--tier", "bulk", "--endpoint-url", url]) == 0
        assert run(["restore", "s3://bucket/key", "--endpoint-url", url]) == 0
        assert capsys.readouterr().out.splitlines() == ["s3://bucket/key: will be restored", "s3://bucket/key: is being restored already"]
        assert "no object 'key'" in said("restore", "s3://bucket/key", "--endpoint-url", url)
        assert "s3://bucket/key is in no archive" in said("restore", "s3://bucket/key", "--endpoint-url", url, status=2)
    assert requests[0].target.endswith("/bucket/key?restore")
    assert "never archived" in said("restore", "local://bucket/key", status=2)


def test_the_archived_objects_of_a_whole_prefix_are_asked_back(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    def entry(key: str, storage_class: str) -> str:
        rest = f"<Size>1</Size><ETag>e</ETag><LastModified>2026-11-21T00:00:00Z</LastModified><StorageClass>{storage_class}</StorageClass>"
        return f"<Contents><Key>{key}</Key>{rest}</Contents>"

    def answer(request: Request) -> Reply:
        if request.method == "POST":
            return Reply(202)
        entries = [("p/cold", "GLACIER"), ("p/colder", "DEEP_ARCHIVE"), ("p/warm", "GLACIER_IR")] if "prefix=p%2F" in request.target else []
        inside = "".join(entry(*pair) for pair in entries)
        counts = f"<KeyCount>{len(entries)}</KeyCount><IsTruncated>false</IsTruncated>"
        page = f"<ListBucketResult><Name>b</Name>{counts}{inside}</ListBucketResult>"
        return Reply(200, page.encode(), {"Content-Type": "application/xml"})

    with canned(answer) as (url, requests):
        assert run(["restore", "-r", "s3://bucket/p", "--endpoint-url", url]) == 0
        assert sorted(capsys.readouterr().out.splitlines()) == [f"s3://bucket/p/{key}: will be restored" for key in ("cold", "colder")]
        assert "nothing below" in said("restore", "-r", "s3://bucket/q", "--endpoint-url", url)
    asked = {request.target.partition("/bucket/")[2] for request in requests if request.method == "POST"}
    assert asked == {"p/cold?restore", "p/colder?restore"}


@pytest.mark.fuse
@pytest.mark.parametrize(("bucket", "words"), [("missing", "no bucket 'missing'"), ("bucket", "have expired")])
def test_a_mount_that_cannot_be_says_so_before_it_goes_into_the_background(
    bucket: str, words: str, service: Service, tmp_path: Path
) -> None:
    with canned(lambda _: refusal(400, "ExpiredToken", "The provided token has expired.")) as (expired, _):
        url = service.url if bucket == "missing" else expired
        command = [sys.executable, "-m", "s3mount", "mount", f"s3://{bucket}", str(tmp_path), "--endpoint-url", url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert ended.returncode == 1
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not os.path.ismount(tmp_path)

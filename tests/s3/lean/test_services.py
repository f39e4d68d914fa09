"""The lane over real services, with TLS and without: the same bytes and the same keys as the client gets."""

from __future__ import annotations

import itertools
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from s3mount.errors import AccessDenied, NoSuchBucket, NotFound, PreconditionFailed
from s3mount.model import ByteRange, ETag, Key, MiB
from s3mount.store.s3.headers import info_of
from s3mount.store.s3.lean.lane import Lane
from s3mount.store.s3.options import S3Options
from tests.s3.lean.lanes import client_of, lane_to
from tests.s3.services import SERVICES, Service
from tests.server.serving import served

NUMBERS = itertools.count()
ODD = ["a b", "a+b", "100%", "ü/ß", "a//b", "x/./y/../z", "tab\there", "q?x=1&y#z", "'\"<&>", "\U0001f600", "/leading", "trailing/"]
# What rclone, which keeps objects as files, cannot name.
NO_FILES = {"a//b", "x/./y/../z", "/leading", "trailing/"}


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for *name*, signed by itself, and its key."""
    pem, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    subject = ["-subj", "/CN=test", "-addext", f"subjectAltName={name}", "-keyout", str(key), "-out", str(pem)]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    return pem, key


@contextmanager
def secure(folder: Path, name: str) -> Iterator[Service]:
    pem, key = certificate(folder, name)
    with served(folder, "--auth", "--tls-cert", pem, "--tls-key", key) as server:
        yield Service(server.url, ca=pem)


EACH = ["ours", *(pytest.param(name, marks=pytest.mark.slow) for name in SERVICES if name not in ("ours", "ours-by-client"))]


@pytest.fixture(scope="module", params=EACH)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    with SERVICES[request.param](tmp_path_factory.mktemp("service")) as service:
        yield request.param, service


@pytest.fixture
async def client(service: tuple[str, Service]) -> AsyncIterator[Any]:
    _, where = service
    async with client_of(where.url, ca=str(where.ca) if where.ca else None) as client:
        yield client


@pytest.fixture
async def lane(service: tuple[str, Service], client: Any) -> AsyncIterator[Lane]:
    """To a bucket of its own, `lane.bucket`."""
    bucket = f"bucket-{next(NUMBERS)}"
    await client.create_bucket(Bucket=bucket)
    async with lane_to(service[1].url, bucket=bucket, options=service[1].options) as lane:
        yield lane


async def put(client: Any, lane: Lane, key: str, body: bytes) -> ETag:
    answer = await client.put_object(Bucket=lane.bucket, Key=key, Body=body, Metadata={"mode": "33188"})
    return ETag(answer["ETag"].strip('"'))


async def test_ranges_are_the_objects_bytes(client: Any, lane: Lane) -> None:
    body = bytes(range(11, 256)) * 40_000
    etag = await put(client, lane, "large", body)
    async with trio.open_nursery() as nursery:

        async def read(start: int, stop: int, **more: Any) -> None:
            buffer = bytearray(stop - start)
            info = await lane.get_into(Key("large"), ByteRange(start, stop), memoryview(buffer), **more)
            assert buffer == body[start:stop]
            assert (info.size, info.etag, info.metadata) == (len(body), etag, {"mode": "33188"})

        for start, stop in [(0, 1), (0, len(body)), (len(body) - 1, len(body)), (4097, 5 * MiB), (3, 70_000)]:
            nursery.start_soon(read, start, stop)
        nursery.start_soon(lambda: read(0, len(body), if_match=etag, size=len(body)))
        nursery.start_soon(lambda: read(MiB, 2 * MiB, if_match=etag))


async def test_what_is_not_there_is_said_alike_everywhere(client: Any, lane: Lane, service: tuple[str, Service]) -> None:
    etag = await put(client, lane, "there", b"0123456789")
    buffer = memoryview(bytearray(10))
    with pytest.raises(NotFound):
        await lane.get_into(Key("elsewhere"), ByteRange(0, 10), buffer)
    with pytest.raises(NotFound):
        await lane.head(Key("elsewhere"))
    with pytest.raises(PreconditionFailed):
        await lane.get_into(Key("there"), ByteRange(0, 10), buffer, if_match=ETag("0" * 32))
    with pytest.raises(ValueError):
        await lane.get_into(Key("there"), ByteRange(10, 20), buffer)
    with pytest.raises(ValueError):
        await lane.get_into(Key("there"), ByteRange(5, 15), buffer)
    assert (await lane.get_into(Key("there"), ByteRange(0, 10), buffer, if_match=etag)).size == 10
    async with lane_to(service[1].url, bucket="nobodys-bucket", options=service[1].options) as astray:
        with pytest.raises(NoSuchBucket):
            await astray.list()


async def test_odd_keys_are_read_and_listed(client: Any, lane: Lane, service: tuple[str, Service]) -> None:
    keys = [key for key in ODD if service[0] != "rclone" or key not in NO_FILES]
    for key in keys:
        await put(client, lane, key, key.encode())
        buffer = bytearray(len(key.encode()))
        await lane.get_into(Key(key), ByteRange(0, len(buffer)), memoryview(buffer))
        assert buffer == key.encode()
    assert [info.key for info in (await lane.list()).objects] == sorted(keys, key=str.encode)


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_pages_are_whole_whoever_goes_on_with_them(client: Any, lane: Lane, service: tuple[str, Service], limit: int) -> None:
    keys = [f"{folder}/{name}" for folder in "abc" for name in ("x", "y", "z")] + ["b", "d"]
    if service[0] == "rclone":
        keys.remove("b")
    for key in keys:
        await put(client, lane, key, b"1")
    async with lane_to(service[1].url, bucket=lane.bucket, options=service[1].options) as stranger:
        for prefix, delimiter, expected in (
            ("", "", keys),
            ("", "/", ["a/", "b/", "c/", *(k for k in keys if "/" not in k)]),
            ("b/", "/", ["b/x", "b/y", "b/z"]),
        ):
            after: str | None = ""
            found: list[str] = []
            for one in itertools.cycle((lane, lane, stranger)):
                page = await one.list(prefix, delimiter=delimiter, after=after or "", limit=limit)
                assert len(page.objects) + len(page.prefixes) <= limit
                found += [*(info.key for info in page.objects), *page.prefixes]
                after = page.next
                if after is None:
                    break
            assert sorted(found) == sorted(expected)


async def test_a_listing_says_what_the_objects_say(client: Any, lane: Lane) -> None:
    etag = await put(client, lane, "one", b"0123456789")
    (listed,) = (await lane.list()).objects
    buffer = memoryview(bytearray(10))
    read = await lane.get_into(Key("one"), ByteRange(0, 10), buffer)
    assert (listed.key, listed.size, listed.etag, listed.metadata) == ("one", 10, etag, None)
    assert (read.mtime_ns, read.etag) == (listed.mtime_ns, etag)
    assert info_of(Key("one"), await lane.head(Key("one"))) == read


async def test_a_wrong_secret_is_refused(service: tuple[str, Service], lane: Lane, client: Any) -> None:
    if service[0] == "moto":
        pytest.skip("moto verifies no signatures")
    from aiobotocore.credentials import AioCredentials

    stranger = Lane(
        client,
        lane.bucket,
        AioCredentials("tester", "not-the-secret", None),
        service[1].options,
        ca_bundle=str(service[1].ca) if service[1].ca else None,
    )
    with pytest.raises(AccessDenied):
        await stranger.list()
    await stranger.aclose()


# -- TLS --------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pem, _ = certificate(other, "IP:127.0.0.1")
    with secure(tmp_path, "IP:127.0.0.1") as service:
        async with lane_to(service.url, options=S3Options(ca_bundle=pem)) as lane:
            with pytest.raises(AccessDenied, match="not trusted") as caught:
                await lane.list()
            assert isinstance(caught.value.__cause__, ssl.SSLError)


@pytest.mark.slow
async def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    with secure(tmp_path, "DNS:store.example") as service:
        async with lane_to(service.url, options=service.options) as lane:
            with pytest.raises(AccessDenied, match="not valid for '127"):
                await lane.list()

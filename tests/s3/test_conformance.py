"""The conformance suite over S3 services: our own server, and servers that we did not write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import trio

from s3mount.store.s3.buckets import create_bucket
from s3mount.store.s3.client import open_client
from s3mount.store.s3.store import S3Store, capabilities, open_s3
from tests.s3.services import SERVICES, Service
from tests.server.serving import ACCESS_KEY, SECRET_KEY
from tests.store.conformance import CHECKS, Check, apply, lacking

# Starting moto takes longer than the whole suite over it.
pytestmark = pytest.mark.slow

# What TLS may change: bodies, large and small, and what becomes of them when they are cut off.
SHOWS_TRANSPORT = {f"tests.store.{name}" for name in ("check_contents", "check_uploads", "check_replies")}

NUMBERS = itertools.count()


@pytest.fixture(scope="module", params=list(SERVICES))
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with SERVICES[request.param](tmp_path_factory.mktemp(request.param)) as service:
        yield service


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_conformance(check: Check, service: Service) -> None:
    if service.ca is not None and check.run.__module__ not in SHOWS_TRANSPORT:
        pytest.skip("nothing of it depends on TLS")
    if check.name in service.lacks:
        pytest.xfail(service.lacks[check.name])
    if missing := lacking(check, capabilities(service.options)):
        pytest.skip(f"S3 has no {', '.join(missing)}")
    bucket = f"bucket-{next(NUMBERS)}"
    store = await open_s3(service.options, bucket) if service.lane else S3Store(await open_client(service.options), bucket)
    try:
        await create_bucket(store.client, store.bucket)
        await apply(check, store)
    finally:
        with trio.CancelScope(shield=True):
            await store.aclose()

"""The conformance suite over S3 services: our own server, and servers that we did not write."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from s3mount.store.api import ObjectStore
from s3mount.store.s3.buckets import create_bucket
from s3mount.store.s3.client import open_client
from s3mount.store.s3.store import open_s3
from tests.s3.services import SERVICES, Service
from tests.server.serving import ACCESS_KEY, SECRET_KEY
from tests.store.conformance import CHECKS, Check, apply

# Starting moto takes longer than the whole suite over it.
pytestmark = pytest.mark.slow

NUMBERS = itertools.count()


@pytest.fixture(scope="module", params=list(SERVICES))
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with SERVICES[request.param](tmp_path_factory.mktemp(request.param)) as service:
        yield service


@pytest.fixture
async def store(service: Service, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    bucket = f"bucket-{next(NUMBERS)}"
    client = await open_client(service.options)
    await create_bucket(client, bucket)
    await client.aclose()
    store = await open_s3(service.options, bucket)
    yield store
    await store.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_conformance(check: Check, store: ObjectStore, service: Service) -> None:
    if check.name in service.lacks:
        pytest.xfail(service.lacks[check.name])
    await apply(check, store)

"""A store that remembers keeps the contract of all stores."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest

from s3mount.cache.options import CacheOptions
from s3mount.cache.remember import Remembering
from s3mount.store.api import ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from tests.store.conformance import CHECKS, Check, apply


@pytest.fixture(params=[pytest.param(0.0, marks=pytest.mark.slow, id="asking"), pytest.param(math.inf, id="remembering")])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    store = Remembering(MemoryStore(LIKE_S3), CacheOptions(attributes="full", metadata_ttl_s=request.param))
    yield store
    store.tables.check()
    await store.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_conformance(check: Check, store: ObjectStore) -> None:
    await apply(check, store)

"""The conformance suite of stores, over a store behind the cache of blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from s3mount.cache.blocks import Blocks
from s3mount.cache.options import CacheOptions
from s3mount.model import MiB
from s3mount.store.api import EVERYTHING, ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from tests.store.conformance import CHECKS, Check, apply


@pytest.fixture(params=["everything", "like-s3"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    blocks = Blocks(MemoryStore(EVERYTHING if request.param == "everything" else LIKE_S3), CacheOptions(memory_limit=16 * MiB))
    yield blocks
    blocks.check()
    await blocks.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_conformance(check: Check, store: ObjectStore) -> None:
    await apply(check, store)

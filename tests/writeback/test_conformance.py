"""The conformance suite over write-back. Virtual clock: nothing is sent before it is asked for, or the checks wait for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from trio.testing import MockClock

from s3mount.errors import Unavailable
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.writeback.store import WriteBack
from tests.store.conformance import CHECKS, Check, apply
from tests.writeback.test_store import clock

__all__ = ["clock"]  # a fixture


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[WriteBack]:
    store = await WriteBack.open(MemoryStore(LIKE_S3), tmp_path / "j")
    yield store
    store.check()
    with suppress(Unavailable):  # closed already, with something left
        await store.sync()
    await store.aclose()


# A journal for each check is more than `make check` has time for.
@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_conformance(check: Check, clock: MockClock, store: WriteBack) -> None:
    await apply(check, store)

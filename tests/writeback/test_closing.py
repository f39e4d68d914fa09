"""What a close with write-back need not do: where the file system above is told that it waits for this machine alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from trio.testing import MockClock

from s3mount.cache.options import CacheOptions
from s3mount.cache.records import MemoryRecords
from s3mount.cache.remember import Remembering
from s3mount.fs.filesystem import Filesystem
from s3mount.fs.options import FsOptions
from s3mount.model import Key
from s3mount.store.api import Commit
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.writeback.store import WriteBack
from tests.writeback.test_store import bucket, clock

__all__ = ["bucket", "clock"]


@pytest.fixture
async def late(bucket: MemoryStore, tmp_path: Path) -> AsyncIterator[WriteBack]:
    store = await WriteBack.open(bucket, tmp_path / "j")
    yield store
    await store.aclose()


async def test_a_close_waits_for_this_machine_alone_unless_each_is_to_be_in_the_store(late: WriteBack) -> None:
    assert Filesystem(late, FsOptions()).commits_here
    assert not Filesystem(late, FsOptions(sync="close")).commits_here
    assert not Filesystem(MemoryStore(LIKE_S3), FsOptions()).commits_here


async def test_attributes_are_recorded_once_and_of_the_version_that_the_store_has(
    clock: MockClock, late: WriteBack, bucket: MemoryStore
) -> None:
    """A record by the local ETag is of no use: nobody finds it when that is over."""
    records = MemoryRecords("")
    remembering = Remembering(late, CacheOptions(attributes="full"), records=records)
    late.listener.stored, remembering.as_stored = remembering.made, late.as_stored
    made = await remembering.put(Key("key"), b"data", Commit(metadata={"m": "1"}))
    assert not records._held
    assert await remembering.head(Key("key")) == made
    await late.sync()
    there = await bucket.head(Key("key"))
    assert list(records.held([there])) == ["key"]
    assert len(records._held) == 1

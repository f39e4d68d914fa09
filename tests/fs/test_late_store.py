"""A file system over a store that commits late."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import AlreadyExists, Unavailable
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty
from s3mount.writeback.store import WriteBack
from tests.conftest import ExpectLogs
from tests.fs.mounted import RW, Mounted, body
from tests.fs.test_leftover import KEPT_LINE, Hands
from tests.writeback.test_store import clock

__all__ = ["clock"]  # a fixture


async def test_one_refused_file_does_not_keep_the_others_from_the_bucket_at_the_end(
    tmp_path: Path, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: umount ended with the first refusal, and left what was still on its way to the next mount."""
    bucket = MemoryStore(LIKE_S3)
    late = await WriteBack.open(Faulty(bucket, lambda op: Fault(delay=10) if op.mutates and op.key == "b" else NOTHING), tmp_path / "j")
    mount = Mounted(late, flush_timeout_s=600.0)
    await mount.close(await mount.create("a", flags=RW | os.O_EXCL))
    await bucket.put(Key("a"), b"theirs")
    await mount.write("b", b"ours")
    with pytest.raises(AlreadyExists):
        await mount.fs.aclose()
    await late.aclose()
    assert (await body(bucket, "a"), await body(bucket, "b")) == (b"theirs", b"ours")


async def test_what_is_written_when_nobody_wants_to_wait_for_the_bucket_is_for_the_next_mount(tmp_path: Path, clock: MockClock) -> None:
    """Regression: with `--flush-timeout 0` it was kept aside, as what could not be stored is, and nobody sent it."""
    bucket, hands = MemoryStore(LIKE_S3), Hands()
    late = await WriteBack.open(Faulty(bucket, lambda op: Fault(delay=10) if op.mutates else NOTHING), tmp_path / "j")
    mount = Mounted(late, flush_timeout_s=0.0, keep=hands)
    for name in ("open", "another"):
        fh = await mount.create(name)
        await mount.fs.write(fh, 0, b"precious")
    with pytest.raises(Unavailable, match="the next mount"):
        await mount.fs.aclose(by=trio.current_time())
    await late.aclose()
    assert not hands.kept
    late = await WriteBack.open(bucket, tmp_path / "j")
    await late.sync()
    await late.aclose()
    assert (await body(bucket, "open"), await body(bucket, "another")) == (b"precious", b"precious")


async def test_the_end_of_a_mount_does_not_wait_for_ever_for_room(tmp_path: Path, clock: MockClock, expect_logs: ExpectLogs) -> None:
    """Regression: with a full spool, and the store away, umount and SIGTERM never came to an end."""
    expect_logs("Away", KEPT_LINE)
    hands = Hands()
    away = Faulty(MemoryStore(LIKE_S3), lambda op: Fault(before=Unavailable("Away.")) if op.mutates else NOTHING)
    late = await WriteBack.open(away, tmp_path / "j", limit=10)
    mount = Mounted(late, flush_timeout_s=10.0, keep=hands)
    await mount.write("a", b"12345678")
    fh = await mount.create("b")
    await mount.fs.write(fh, 0, b"precious")
    with trio.fail_after(3600), pytest.raises(ExceptionGroup):
        await mount.fs.aclose()
    await late.aclose()
    assert (hands.only.key, hands.only_bytes) == ("b", b"precious")

"""What becomes of a removal behind a change that never reached the bucket. Virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.model import Absent, Condition, Key, Matches
from s3mount.store.api import Commit
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import Faulty, Script, lost_request
from s3mount.writeback.store import WriteBack
from tests.store.registry import keys_of

K = Key("key")


@pytest.mark.parametrize("foreign", [False, True], ids=["a new file", "a file that was there"])
async def test_a_removal_of_what_never_arrived_removes_what_it_was_to_replace(
    foreign: bool, autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: a file that was renamed to and fro, by the second rename while the first one's copy was in doubt, stayed where it was."""
    bucket, script = MemoryStore(LIKE_S3), Script()
    condition: Condition = Matches((await bucket.put(K, b"there before")).etag) if foreign else Absent()
    script.add("put", lost_request())
    store = await WriteBack.open(Faulty(bucket, script), tmp_path / "journal")
    info = await store.put(K, b"written", Commit(condition=condition))
    await trio.sleep(0.5)
    assert script.used_up
    await store.delete(K, if_match=info.etag)
    await store.sync()
    store.check()
    await store.aclose()
    assert await keys_of(bucket) == []

"""A service that refuses a change for good, although nobody else has changed anything, is asked some times and not for ever."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from s3mount.errors import PreconditionFailed, Unavailable
from s3mount.fs.patience import PAUSE_S, TRIES
from s3mount.model import Key
from s3mount.store.api import Commit
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import Fault, Faulty
from s3mount.store.wrap.traced import Traced
from tests.fs.mounted import Mounted

# Of all pauses.
PATIENCE_S = PAUSE_S * (2 ** (TRIES - 2) - 1)


def unlike(op: Op) -> Fault:
    """Its ETags are never those that it tells."""
    return Fault(before=PreconditionFailed("another version")) if op.verb == "update" else Fault()


async def stored() -> MemoryStore:
    store = MemoryStore(LIKE_S3)
    await store.put(Key("file"), b"bytes", Commit(commit_id="ours"))
    return store


async def test_attributes_of_a_file_that_nobody_holds_are_not_tried_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: chmod never returned, and asked without a pause."""
    traced = Traced(Faulty(await stored(), unlike))
    began = trio.current_time()
    with pytest.raises(Unavailable, match="keeps refusing a change of 'file'"):
        await Mounted(traced).chmod("file", 0o600)
    assert traced.requests["update"] == TRIES
    assert trio.current_time() - began == pytest.approx(PATIENCE_S)


async def test_attributes_that_wait_with_an_open_file_are_not_tried_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: fsync never returned; the change stays with the file, and is saved once that can be."""
    faults = [unlike]
    traced = Traced(Faulty(await stored(), lambda op: faults[-1](op)))
    mount = Mounted(traced)
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        fh = await mount.open("file")
        await mount.chmod("file", 0o600)
        with pytest.raises(Unavailable):
            await mount.fs.fsync(fh)
        assert traced.requests["update"] <= 2 * TRIES
        faults.append(lambda op: Fault())
        await mount.fs.fsync(fh)
        await mount.close(fh)
        nursery.cancel_scope.cancel()
    assert (await Mounted(traced).stat("file")).mode & 0o777 == 0o600


async def test_one_refusal_costs_no_pause(autojump_clock: trio.testing.MockClock) -> None:
    """As after a copy whose reply was lost."""
    left = [Fault(before=PreconditionFailed("another version"))]
    traced = Traced(Faulty(await stored(), lambda op: left.pop() if op.verb == "update" and left else Fault()))
    began = trio.current_time()
    await Mounted(traced).chmod("file", 0o600)
    assert trio.current_time() == began
    assert traced.requests["update"] == 2

"""Small changes on the loop: many share a sync, none is answered before it, and what would have to wait goes to a thread."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3mount.engine.disk import Disk
from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.errors import AlreadyExists, OutcomeUnknown
from s3mount.model import Absent, Key
from s3mount.server.settling import Settler
from tests.conftest import ExpectLogs

BODY = b"x" * 1000


class SlowDisk(Disk):
    """Counts syncs; they wait at the gate, or fail."""

    def __init__(self) -> None:
        self.syncs = 0
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()

    def fsync(self, fd: int) -> None:
        self.syncs += 1
        assert self.gate.wait(30)
        if self.fails:
            raise OSError(errno.EIO, "broken")
        super().fsync(fd)


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def engine(tmp_path: Path, disk: SlowDisk) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data", disk=disk) as engine:
        engine.create_bucket("box")
        yield engine


def run(engine: Engine, work: Callable[[Settler], object]) -> None:
    with ThreadPoolExecutor(4) as threads:

        async def go() -> None:
            await work(Settler(engine, threads))  # type: ignore[misc]

        asyncio.run(go())


def test_changes_made_while_one_is_synced_share_the_next_sync(engine: Engine, disk: SlowDisk) -> None:
    before = disk.syncs

    async def work(settler: Settler) -> None:
        disk.gate.clear()
        puts = [asyncio.ensure_future(settler.change(engine.put, "box", Key(f"{number}"), BODY)) for number in range(50)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert all(engine.find("box", f"{number}").object is not None for number in range(50))
        assert not any(put.done() for put in puts)
        disk.gate.set()
        await asyncio.gather(*puts)

    run(engine, work)
    assert disk.syncs - before <= 3


def test_what_is_refused_is_refused_at_once(engine: Engine, disk: SlowDisk) -> None:
    engine.put("box", Key("a"), BODY)
    before = disk.syncs

    async def work(settler: Settler) -> None:
        with pytest.raises(AlreadyExists):
            await settler.change(engine.put, "box", Key("a"), BODY, How(condition=Absent()))

    run(engine, work)
    assert disk.syncs == before


def test_while_somebody_else_writes_the_change_waits_in_a_thread_and_the_loop_goes_on(engine: Engine) -> None:
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.lock:
            held.set()
            assert enough.wait(30)

    async def work(settler: Settler) -> None:
        somebody = threading.Thread(target=hold)
        somebody.start()
        assert await asyncio.to_thread(held.wait, 30)
        put = asyncio.ensure_future(settler.change(engine.put, "box", Key("a"), BODY))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not put.done()
        enough.set()
        assert (await put).size == len(BODY)
        somebody.join()

    run(engine, work)


def test_a_sync_that_fails_is_everybodys_failure(tmp_path: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("ERROR s3mount.engine.log: The data folder .* could not be synced")
    disk = SlowDisk()
    with Engine.open(tmp_path / "data", disk=disk) as engine:
        engine.create_bucket("box")

        async def work(settler: Settler) -> None:
            disk.fails = True
            puts = [settler.change(engine.put, "box", Key(f"{number}"), BODY) for number in range(5)]
            outcomes = await asyncio.gather(*puts, return_exceptions=True)
            disk.fails = False
            assert outcomes
            assert all(isinstance(outcome, Exception) for outcome in outcomes)
            assert isinstance(outcomes[0], OutcomeUnknown)

        run(engine, work)

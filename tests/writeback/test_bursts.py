"""When what is pending is sent: a program that writes many files goes first. The clock stands still until it is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty
from s3mount.writeback.pending import PAUSE_S
from s3mount.writeback.sender import BURST_S, GATHER_S, SETTLE_S
from s3mount.writeback.store import WriteBack

STEP_S = PAUSE_S / 2


class Sent:
    """Counts what changes the store."""

    def __init__(self) -> None:
        self.verbs: list[str] = []

    def __call__(self, op: Op) -> Fault:
        if op.mutates:
            self.verbs.append(op.verb)
        return NOTHING


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
async def store(sent: Sent, tmp_path: Path) -> AsyncIterator[WriteBack]:
    store = await WriteBack.open(Faulty(MemoryStore(LIKE_S3), sent), tmp_path / "j")
    yield store
    store.check()
    await store.aclose()


async def pass_(clock: MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await wait_all_tasks_blocked()


async def write(clock: MockClock, store: WriteBack, number: int) -> None:
    await store.put(Key(f"file{number}"), b"data")
    await pass_(clock, STEP_S)


async def test_what_comes_in_a_burst_is_sent_when_that_has_ended(clock: MockClock, store: WriteBack, sent: Sent) -> None:
    for number in range(20):
        await write(clock, store, number)
    assert sent.verbs == []
    await pass_(clock, SETTLE_S - STEP_S)
    assert sent.verbs == ["put"] * 20


async def test_a_burst_without_an_end_does_not_put_off_sending_for_ever(clock: MockClock, store: WriteBack, sent: Sent) -> None:
    number, began = 0, trio.current_time()
    while not sent.verbs:
        await write(clock, store, number := number + 1)
    assert BURST_S <= trio.current_time() - began <= BURST_S + 2 * STEP_S


async def test_a_backlog_is_sent_during_the_burst(clock: MockClock, store: WriteBack, sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3mount.writeback.sender.BACKLOG", 15)
    for number in range(14):
        await write(clock, store, number)
    assert sent.verbs == []
    await write(clock, store, 15)
    assert sent.verbs


async def test_what_is_due_before_all_that_the_sender_waits_for_is_not_sent_late(clock: MockClock, store: WriteBack, sent: Sent) -> None:
    await store.delete(Key("gone"))
    await pass_(clock, PAUSE_S)
    await store.put(Key("file"), b"data")
    await pass_(clock, SETTLE_S)
    assert sent.verbs == ["put"]
    await pass_(clock, GATHER_S)
    assert len(sent.verbs) == 2


async def test_nobody_wakes_the_sender_for_what_is_not_next(clock: MockClock, store: WriteBack) -> None:
    await store.put(Key("first"), b"data")
    await wait_all_tasks_blocked()
    waiting = store._sender._wake
    await write(clock, store, 2)
    assert store._sender._wake is waiting
    assert not waiting.is_set()

"""Work behind an answer: what fails is tried again, less and less often, and told once."""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.testing

from s3mount.errors import AccessDenied, S3MountError, Throttled
from s3mount.fs.copies import AT_ONCE
from s3mount.fs.later import RETRY_MAX_S, RETRY_S, About, Later
from s3mount.model import Key


class Rig:
    """Numbers as work; `error`: what all of it fails with; `tried`: which, when."""

    def __init__(self) -> None:
        self.error: S3MountError | None = AccessDenied("revoked.")
        self.tried: list[tuple[int, float]] = []
        self.later = Later(self.work, lambda number: About(Key(f"{number}"), number, f"{number} is stuck"), clock_ns=lambda: 7)

    async def work(self, number: int) -> None:
        self.tried.append((number, trio.current_time()))
        if self.error is not None:
            self.later.failed(number, self.error, "work")
            raise self.error
        self.later.over(number)

    def moments(self, number: int) -> list[float]:
        return [moment for tried, moment in self.tried if tried == number]


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    """What fails is said in the log."""


@pytest.fixture
async def rig(nursery: trio.Nursery) -> Rig:
    rig = Rig()
    nursery.start_soon(rig.later.run)
    return rig


async def test_the_pause_between_two_tries_grows_to_some_minutes(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    rig.later.add([1])
    await trio.sleep(3600)
    moments = rig.moments(1)
    pauses = [round(after - before) for before, after in itertools.pairwise(moments)]
    assert pauses[:7] == [5, 10, 20, 40, 80, 160, 300]
    assert set(pauses[7:]) == {RETRY_MAX_S}


async def test_of_much_that_is_stuck_little_is_tried_until_something_gets_through(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    rig.later.add(range(10 * AT_ONCE))
    await trio.sleep(1)
    assert rig.later.failures == len(rig.tried) == 10 * AT_ONCE
    await trio.sleep(RETRY_S)
    assert len(rig.tried) == 11 * AT_ONCE
    await trio.sleep(3600)
    assert len(rig.tried) < 30 * AT_ONCE
    rig.error = None
    await trio.sleep(RETRY_MAX_S)
    assert rig.later.failures == 0
    assert {number for number, _ in rig.tried} == set(range(10 * AT_ONCE))


async def test_a_reason_is_told_once_in_the_log_and_a_new_one_again(
    rig: Rig, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig.later.add(range(100))
    await trio.sleep(1000)
    (record,) = caplog.records
    assert record.message.startswith("0 is stuck: revoked. It is tried again")
    rig.error = Throttled("busy.")
    await trio.sleep(1000)
    assert len(caplog.records) == 2
    rig.error = AccessDenied("revoked.")
    await trio.sleep(1000)
    assert len(caplog.records) == 2, "the same as before"
    rig.error = None
    await trio.sleep(1000)
    rig.error = AccessDenied("revoked.")
    rig.later.add([5])
    await trio.sleep(1)
    assert len(caplog.records) == 3, "nothing was stuck in between"


async def test_what_is_stuck_is_told_with_its_reason_and_done_on_demand(
    rig: Rig, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig.later.add([1, 2])
    await trio.sleep(RETRY_S + 1)
    (first,) = rig.later.stuck(1)
    assert (first.key, first.size, first.since_ns, first.reason, first.tries) == ("1", 1, 7, "1 is stuck: revoked.", 2)
    assert await rig.later.retry(["1"]) == {"1": "revoked."}
    rig.error = None
    assert await rig.later.retry(["1", "3"]) == {}
    await trio.testing.wait_all_tasks_blocked()
    assert rig.later.failures == 0, "as that got through, the other one was tried at once"


async def test_what_was_put_off_waits_for_the_first_pause(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    rig.error = None
    rig.later.put_off([1])
    await trio.sleep(RETRY_S - 1)
    assert not rig.tried
    await trio.sleep(2)
    assert rig.moments(1) == [RETRY_S]


async def test_what_was_cut_off_is_taken_up_again(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: a key was on its way for ever when the work behind a mount began again."""
    done: list[int] = []
    held = trio.Event()

    async def work(number: int) -> None:
        if not held.is_set():
            held.set()
            await trio.sleep_forever()
        done.append(number)

    later = Later(work, lambda number: About(Key(""), 0, ""))
    later.add([1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.run)
        await held.wait()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert done == [1]

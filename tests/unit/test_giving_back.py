"""What was freed is given back to the system."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.fuse.giving_back import PERIOD_S, give_back_now_and_then, trimmer
from tests.virtual_time import standing_still

MiB = 1 << 20


@pytest.fixture
def patient_clock() -> Iterator[MockClock]:
    with standing_still() as clock:
        yield clock


def resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def test_what_lies_freed_below_something_in_use_is_given_back() -> None:
    trim = trimmer()
    if trim is None:
        pytest.skip("this C library gives memory back by itself, or never")
    pieces = [b"x" * (60 * 1024 + number) for number in range(1000)]
    pinned = pieces[-1]
    full = resident()
    del pieces
    trim()
    assert len(pinned) > 0
    assert resident() < full - 40 * MiB


async def test_the_store_is_asked_to_forget_now_and_then(patient_clock: MockClock) -> None:
    asked: list[float] = []

    def let_go() -> int:
        asked.append(trio.current_time() - began)
        return MiB

    began = trio.current_time()
    with trio.move_on_after(3.5 * PERIOD_S):
        await give_back_now_and_then(let_go)
    assert asked == pytest.approx([PERIOD_S, 2 * PERIOD_S, 3 * PERIOD_S])

"""How many parts go at once, over lines that are modelled by what a part takes on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from s3mount.fs.width import LEAST, MOST, Width
from s3mount.model import KiB, MiB

PART = 8 * MiB
Line = Callable[[int, int], float]
"""Seconds that a part of a size takes while so many are under way."""


def connections(latency_s: float, rate: float) -> Line:
    """Each connection has its own rate."""
    return lambda size, at_once: latency_s + size / rate


def shared(latency_s: float, rate: float) -> Line:
    """All connections together have one rate."""
    return lambda size, at_once: max(latency_s, at_once * size / rate)


def sent(width: Width, line: Line, parts: int, *, size: int = PART) -> int:
    for _ in range(parts):
        width.arrived(size, line(size, width.at_once), full=True)
    return width.at_once


@pytest.mark.parametrize(
    ("line", "between"),
    [
        (connections(0.300, 9e6), (MOST, MOST)),  # a far store that gives each connection little
        (connections(0.030, 90e6), (MOST, MOST)),
        (connections(1.0, 1e9), (MOST, MOST)),  # that thinks long
        (shared(0.030, 125e6), (24, 26)),  # a line of 1 Gbit/s, full with four parts: up to where a third is waiting
        (shared(0.030, 1e6), (24, 26)),
        (shared(2.0, 80e6), (28, 31)),  # full with 19
        (lambda size, at_once: at_once**2 * 0.001, (20, 21)),  # worse with each: a processor that is overrun
    ],
)
def test_more_go_at_once_while_they_do_not_wait_for_each_other(line: Line, between: tuple[int, int]) -> None:
    assert between[0] <= sent(Width(), line, 100) <= between[1]


def test_one_round_later_there_are_twice_as_many() -> None:
    assert sent(Width(), connections(0.3, 9e6), LEAST) == 2 * LEAST


def test_where_the_store_is_far_the_first_round_is_as_wide_as_may_be() -> None:
    far, near = Width(), Width()
    far.answered(0.3)
    near.answered(0.03)
    assert (far.at_once, near.at_once) == (MOST, LEAST)
    assert sent(far, connections(0.3, 9e6), 100) == MOST


def test_a_far_store_behind_a_line_that_is_full_gets_fewer_once_that_is_known() -> None:
    width, line = Width(), shared(0.3, 20e6)
    width.answered(0.3)
    assert sent(width, line, 100) == MOST
    for left in range(MOST, 0, -1):
        width.arrived(PART, line(PART, left), full=False)
    assert sent(width, line, 100) == LEAST


def test_a_near_store_that_answered_late_for_another_reason_is_known_from_its_first_part() -> None:
    width = Width()
    width.answered(2.0)  # it asked to slow down
    width.arrived(PART, 0.12, full=True)
    assert width.at_once == LEAST + 1
    width.answered(2.0)
    assert width.at_once == LEAST + 1


def test_what_parts_have_told_counts_for_more_than_an_answer_that_took_long() -> None:
    width = Width()
    sent(width, shared(0.3, 20e6), 1)
    width.answered(5.0)
    assert width.at_once == LEAST + 1


def test_a_line_that_fills_up_gets_fewer_again_but_never_below_the_least() -> None:
    width = Width()
    sent(width, connections(0.3, 9e6), 100)
    assert sent(width, shared(0.3, 20e6), 5) == MOST - 5
    assert sent(width, shared(0.3, 20e6), 100) == LEAST


def test_a_line_that_has_become_slower_for_good_is_known_for_it_in_time() -> None:
    width = Width()
    sent(width, connections(0.1, 90e6), 100)
    assert sent(width, connections(0.3, 9e6), 100) == LEAST
    assert sent(width, connections(0.3, 9e6), 5000) == MOST


def test_who_has_not_as_many_under_way_as_may_be_learns_nothing_from_more() -> None:
    width = Width()
    for _ in range(100):
        width.arrived(PART, 1.0, full=False)
    assert width.at_once == LEAST


def test_parts_are_compared_with_their_like() -> None:
    width = Width()
    sent(width, connections(0.3, 9e6), 4, size=PART)
    assert sent(width, connections(0.3, 9e6), 4, size=2 * PART) == LEAST + 8
    # The last one of a file is as small as may be, and arrives soon.
    sent(width, connections(0.0, 1e9), 100, size=700 * KiB)
    assert sent(width, connections(0.3, 9e6), 4, size=PART) == LEAST + 12

"""Which parts of a file may go, and which of those that went are still true."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3mount.fs.extents import Extents
from s3mount.fs.grid import PART_BYTES, Grid
from s3mount.fs.upload import Parts
from s3mount.model import ETag, MiB, Part

A, B = PART_BYTES, 2 * PART_BYTES
GRID = Grid()


def table_of(*spans: tuple[int, int], size: int = 0) -> Extents:
    """A file of holes, written at *spans*."""
    table = Extents()
    table.resize(max(size, *(stop for _, stop in spans)), 1)
    position = 0
    for start, stop in spans:
        table.overwrite(start, stop, generation=1, position=position)
        position += stop - start
    return table


def write(parts: Parts, start: int, stop: int, table: Extents) -> bool:
    parts.touched(start, stop)
    parts.touched(start, stop)
    ready = parts.written(start, stop, table)
    parts.check()
    return ready


def unsent(parts: Parts, size: int) -> list[int]:
    """The cells that a commit has to send."""
    there = parts.true_parts(size)
    return [cell for cell in range(1, parts.grid.count(size) + 1) if cell not in there]


def send(parts: Parts, number: int, size: int) -> None:
    parts.begin(number)
    parts.done(number, Part(number, GRID.clipped(number, size).length, ETag(f"e{number}")))
    parts.check()


# -- going early ------------------------------------------------------------------------


def test_a_part_becomes_ready_with_its_last_byte_whatever_the_order() -> None:
    parts = Parts(Grid())
    assert not write(parts, A // 2, A, table_of((A // 2, A)))
    assert write(parts, 0, A // 2, table_of((0, A)))
    assert parts.next_ready == 1


def test_parts_go_in_their_order_though_they_fill_in_another() -> None:
    parts = Parts(Grid())
    table = table_of((0, B))
    write(parts, A, B, table)
    write(parts, 0, A, table)
    assert (parts.next_ready, parts.ready) == (1, 2)


def test_a_part_goes_early_once_only() -> None:
    parts = Parts(Grid())
    table = table_of((0, A))
    write(parts, 0, A, table)
    send(parts, 1, A)
    assert not write(parts, 10, 20, table)
    assert parts.next_ready is None
    assert unsent(parts, A) == [1]


def test_what_lies_before_the_beginning_of_an_upload_is_left_to_the_commit() -> None:
    parts = Parts(Grid())
    table = table_of((0, 4 * A))
    write(parts, A, 2 * A, table)
    write(parts, 2 * A, 3 * A, table)
    parts.leave_out(3)
    assert not write(parts, 0, A, table)
    assert write(parts, 3 * A, 4 * A, table)
    assert (parts.next_ready, parts.ready) == (3, 2)


def test_what_is_committed_is_not_news() -> None:
    parts = Parts(Grid())
    table = table_of((0, A))
    parts.touched(0, 5)
    assert not parts.written(0, 5, table, settled=1)
    table.overwrite(0, A, generation=2, position=0)
    assert parts.written(0, A, table, settled=1)


def test_a_part_that_failed_is_left_to_the_commit() -> None:
    parts = Parts(Grid())
    table = table_of((0, A))
    write(parts, 0, A, table)
    parts.begin(1)
    parts.ended(1)
    assert not write(parts, 0, 5, table)
    assert unsent(parts, A) == [1]


# -- what is true -----------------------------------------------------------------------


def test_what_was_sent_and_not_touched_need_not_be_sent_by_the_commit() -> None:
    parts = Parts(Grid())
    write(parts, 0, B, table_of((0, B)))
    send(parts, 1, B + 5)
    send(parts, 2, B + 5)
    assert unsent(parts, B + 5) == [3]
    assert list(parts.true_parts(B + 5)) == [1, 2]


@pytest.mark.parametrize("moment", ["before the reading", "while it is read", "after it arrived"])
def test_a_write_under_way_makes_what_was_read_meanwhile_untrue(moment: str) -> None:
    parts = Parts(Grid())
    table = table_of((0, A))
    write(parts, 0, A, table)
    if moment == "before the reading":
        parts.touched(100, 200)  # the write begins; it ends after the reading did
    parts.begin(1)
    if moment == "while it is read":
        parts.touched(100, 200)
    parts.done(1, Part(1, A, ETag("old")))
    parts.touched(100, 200)
    assert unsent(parts, A) == [1]


def test_a_part_sent_again_counts() -> None:
    parts = Parts(Grid())
    write(parts, 0, A, table_of((0, A)))
    send(parts, 1, A)
    parts.touched(0, 1)
    send(parts, 1, A)
    assert unsent(parts, A) == []


def test_only_the_part_that_was_touched_goes_again() -> None:
    parts = Parts(Grid())
    write(parts, 0, 3 * A, table_of((0, 3 * A)))
    for number in (1, 2, 3):
        send(parts, number, 3 * A)
    parts.touched(A, A + 1)
    assert unsent(parts, 3 * A) == [2]


@pytest.mark.parametrize(
    ("cut", "size", "missing"), [(A // 2, A // 2, [1]), (A, A, []), (B - 1, B - 1, [2]), (A, 3 * A, [2, 3]), (B, 3 * A, [3])]
)
def test_after_a_cut_only_whole_parts_before_it_are_true(cut: int, size: int, missing: list[int]) -> None:
    parts = Parts(Grid())
    write(parts, 0, B, table_of((0, B)))
    send(parts, 1, B)
    send(parts, 2, B)
    parts.resized(B, cut)
    parts.resized(cut, size)
    assert unsent(parts, size) == missing


def test_what_was_cut_off_before_it_went_does_not_go() -> None:
    parts = Parts(Grid())
    write(parts, 0, B, table_of((0, B)))
    parts.resized(B, A)
    assert (parts.next_ready, parts.ready) == (1, 1)


SMALL = st.integers(0, 4 * A)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), SMALL, st.integers(1, A)),
            st.tuples(st.just("resize"), SMALL, st.just(0)),
            st.tuples(st.just("begin"), st.integers(1, 5), st.just(0)),
            st.tuples(st.just("done"), st.integers(1, 5), st.just(0)),
        ),
        max_size=30,
    )
)
@example([("resize", 1, 0), ("begin", 1, 0), ("resize", 1, 0), ("done", 1, 0)])
def test_a_true_part_always_holds_what_the_file_does(steps: list[tuple[str, int, int]]) -> None:
    """Contents are modelled by the number of the last change of each 1/4 MiB."""
    parts, table = Parts(Grid()), Extents()
    grain, model, held, position = MiB // 4, dict[int, int](), dict[int, tuple[int, dict[int, int]]](), 0

    def shown(number: int) -> dict[int, int]:
        span = GRID.clipped(number, table.size)
        return {at: model.get(at, 0) for at in range(span.start // grain, -(-span.stop // grain))}

    reading: dict[int, tuple[int, dict[int, int]]] = {}
    for moment, (what, at, length) in enumerate(steps, start=1):
        if what == "write":
            parts.touched(at, at + length)
            former = table.size
            table.overwrite(at, at + length, generation=1, position=position)
            position += length
            for cell in range(min(at, former) // grain, -(-(at + length) // grain)):
                model[cell] = moment
            parts.touched(min(at, former), at + length)
            parts.written(at, at + length, table)
        elif what == "resize":
            for cell in range(min(at, table.size) // grain, -(-max(at, table.size) // grain) if at != table.size else 0):
                model[cell] = moment
            parts.resized(table.size, at)
            table.resize(at, 1)
        elif what == "begin" and at <= GRID.count(table.size) and at not in reading:
            parts.begin(at)
            reading[at] = (GRID.clipped(at, table.size).length, shown(at))
        elif what == "done" and at in reading:
            held[at] = reading.pop(at)
            parts.done(at, Part(at, held[at][0], ETag("e")))
        parts.check()
        for number, part in parts.true_parts(table.size).items():
            assert held[number] == (part.size, shown(number))
        assert sorted([*parts.true_parts(table.size), *unsent(parts, table.size)]) == list(range(1, GRID.count(table.size) + 1))

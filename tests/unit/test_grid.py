"""Where the parts of an upload begin and end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.fs.extents import Extents, kept
from s3mount.fs.grid import (
    BASE_CELLS,
    COPY_BYTES,
    LARGEST_PART,
    LEAST_PART,
    MIXED_BYTES,
    PART_BYTES,
    PARTS,
    Grid,
    Plan,
    Step,
    copied_singly,
    graded,
    is_full,
    is_kept,
)
from s3mount.model import OBJECT_BYTES, ByteRange, GiB, MiB, TiB

A, B = PART_BYTES, 2 * PART_BYTES


def table_of(*spans: tuple[int, int], base: int = 0, size: int = 0) -> Extents:
    """A file of *size* bytes, holes beyond *base*, written at *spans*."""
    table = Extents([kept(0, base)] if base else [])
    table.resize(max(size, base, *(stop for _, stop in spans)), 1)
    position = 0
    for start, stop in spans:
        table.overwrite(start, stop, generation=1, position=position)
        position += stop - start
    return table


# -- cells ------------------------------------------------------------------------------


def test_cells_join_and_keep_within_the_limits_of_s3() -> None:
    grid = Grid()
    at = 0
    for cell in range(1, PARTS + 1):
        span = grid.span_of(cell)
        assert (span.start, grid.cell_at(span.start), grid.cell_at(span.stop - 1)) == (at, cell, cell)
        assert LEAST_PART <= span.length <= LARGEST_PART <= 5 * GiB
        at = span.stop
    assert at >= OBJECT_BYTES
    assert grid.count(OBJECT_BYTES) <= PARTS


@pytest.mark.parametrize(
    ("size", "cells"),
    [(0, 0), (1, 1), (PART_BYTES, 1), (PART_BYTES + 1, 2), (4000 * MiB, 500), (4000 * MiB + 1, 501), (4016 * MiB + 1, 502)],
)
def test_a_file_has_as_many_cells_as_its_size_takes(size: int, cells: int) -> None:
    assert Grid().count(size) == cells


def test_the_last_cell_ends_with_the_file() -> None:
    assert Grid().clipped(2, PART_BYTES + 10) == ByteRange(PART_BYTES, PART_BYTES + 10)


@pytest.mark.parametrize(
    ("base", "anchor", "cells"),
    [
        (0, 0, 0),
        (4 * MiB, 0, 0),
        (5 * MiB, 5 * MiB, 1),
        (20 * MiB, 16 * MiB, 2),
        (21 * MiB, 21 * MiB, 3),
        (24 * MiB, 24 * MiB, 3),
        (100 * GiB, 100 * GiB, 3200),
    ],
)
def test_what_is_appended_begins_a_cell_unless_the_last_of_the_base_were_too_small(base: int, anchor: int, cells: int) -> None:
    grid = Grid(base)
    assert (grid.anchor, grid.count(anchor)) == (anchor, cells)
    assert grid.span_of(cells + 1) == ByteRange(anchor, anchor + PART_BYTES)


@given(base=st.integers(0, 2 * TiB), more=st.integers(0, 2 * TiB), at=st.floats(0, 1))
def test_the_cells_of_an_edit_join_and_are_few_enough(base: int, more: int, at: float) -> None:
    grid = Grid(base)
    assert grid.count(base) <= BASE_CELLS + 1
    cell = grid.cell_at(int(at * (base + more)))
    span, after = grid.span_of(cell), grid.span_of(cell + 1)
    assert span.start <= int(at * (base + more)) < span.stop == after.start
    assert LEAST_PART <= span.length <= 5 * GiB


@pytest.mark.parametrize(
    ("spans", "full"),
    [
        ([(0, A)], True),
        ([(0, A - 1)], False),
        ([(A // 2, A), (0, A // 2)], True),
        ([(0, 10), (11, A)], False),
        ([(0, 3 * A)], True),
    ],
)
def test_a_cell_is_full_when_every_byte_was_written(spans: list[tuple[int, int]], *, full: bool) -> None:
    assert is_full(table_of(*spans), ByteRange(0, A)) is full


def test_what_is_in_the_base_is_kept_wherever_it_is_read_from() -> None:
    table = table_of((A, B), base=A, size=3 * A)
    table.overwrite(2 * A, 2 * A + 5, generation=2, position=0)
    assert is_kept(table, ByteRange(0, A), settled=0)
    assert not is_kept(table, ByteRange(0, B), settled=0)
    assert is_kept(table, ByteRange(0, B), settled=1)
    assert not is_kept(table, ByteRange(0, 3 * A), settled=1)
    assert not is_full(table, ByteRange(A, B), settled=1)


# -- plans ------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 5 * MiB, A, 12 * MiB, B, 21 * MiB, 24 * MiB, 37 * MiB, GiB, 5 * GiB + 3 * MiB])
def test_the_head_is_cut_finely_at_both_ends(stop: int) -> None:
    parts = graded(stop)
    assert sum(part.length for part in parts) == stop
    assert all(a.stop == b.start for a, b in pairwise(parts))
    assert all(LEAST_PART <= part.length <= 2 * COPY_BYTES + LEAST_PART for part in parts)
    if stop >= GiB:
        assert [part.length // MiB for part in parts[:6]] == [8, 16, 32, 64, 128, 256]
        assert [part.length // MiB for part in parts[-6:]] == [256, 128, 64, 32, 16, 8]


def test_of_a_new_file_each_cell_is_sent() -> None:
    table = table_of((0, 3 * A + 5))
    plan = Plan.of(Grid(), 2, table, 0)
    assert plan.steps(table, 0, copies=False) == [Step(at, Grid().clipped(at, 3 * A + 5), copied=False, cell=at) for at in (1, 2, 3, 4)]


def sizes(plan: Plan, table: Extents) -> list[tuple[bool, int]]:
    steps = plan.steps(table, 0, copies=True)
    assert steps is not None
    return [(step.copied, step.span.length // MiB) for step in steps]


def test_what_is_appended_is_sent_and_the_base_is_copied_in_large_parts() -> None:
    table = table_of((GiB, GiB + 2 * A), base=GiB)
    plan = Plan.of(Grid(GiB), 130, table, 0)
    head = [8, 16, 32, 64, 128, 256, 16, 256, 128, 64, 32, 16, 8]
    assert sizes(plan, table) == [(True, size) for size in head] + [(False, 8), (False, 8)]


def test_what_lies_behind_what_is_written_is_copied_in_large_parts() -> None:
    table = table_of((2 * A, 4 * A), base=GiB)
    plan = Plan.of(Grid(GiB), 3, table, 0)
    assert sizes(plan, table) == [(True, 8), (True, 8), (False, 8), (False, 8), *[(True, 256)] * 3, (True, 224)]


def test_between_what_is_written_each_cell_is_copied() -> None:
    table = table_of((0, A), (3 * A, 4 * A), base=4 * A)
    assert sizes(Plan.of(Grid(4 * A), 1, table, 0), table) == [(False, 8), (True, 8), (True, 8), (False, 8)]


def test_cells_that_are_copied_one_by_one_count_by_what_they_take_more_than_together() -> None:
    table = table_of((0, A), (101 * A, 102 * A), base=GiB)
    steps = Plan.of(Grid(GiB), 1, table, 0).steps(table, 0, copies=True)
    assert steps is not None
    assert copied_singly(steps) == 100 - 4  # 32 cells are 256 MiB
    assert copied_singly(steps[:2] + steps[3:4]) == copied_singly(steps[-1:]) == 0


def test_a_header_written_later_is_sent_with_the_little_that_lies_around_it() -> None:
    table = table_of((GiB, GiB + A), base=GiB)
    plan = Plan.of(Grid(GiB), 129, table, 0)
    table.overwrite(100, 200, generation=1, position=A)
    table.overwrite(GiB - 100, GiB - 50, generation=1, position=A + 100)
    found = sizes(plan, table)
    assert [size for copied, size in found if not copied] == [8, 8, 8]


def test_an_upload_whose_head_is_written_in_its_middle_had_better_not_be_completed() -> None:
    table = table_of((GiB, GiB + A), base=GiB)
    plan = Plan.of(Grid(GiB), 129, table, 0)
    table.overwrite(300 * MiB, 300 * MiB + 1, generation=1, position=A)
    assert not plan.suits(table, 0)
    assert plan.steps(table, 0, copies=True) is None


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 10),
        (20 * MiB, 30 * MiB),
        (50 * MiB, 56 * MiB),
        (50 * MiB, 57 * MiB),
        (300 * MiB, 300 * MiB + 1),
        (GiB - 1, GiB + 5),
        (GiB, 2 * GiB),
    ],
)
def test_what_spoils_a_head_is_seen_from_where_it_is_written(start: int, stop: int) -> None:
    table = table_of((GiB, GiB + A), base=GiB)
    plan = Plan.of(Grid(GiB), 129, table, 0)
    table.overwrite(start, stop, generation=1, position=A)
    assert plan.is_spoilt_by(start, stop) is not plan.suits(table, 0)


def test_nor_one_whose_head_was_cut() -> None:
    table = table_of((GiB, GiB + A), base=GiB)
    plan = Plan.of(Grid(GiB), 129, table, 0)
    table.resize(GiB - 1, 2)
    assert plan.steps(table, 0, copies=True) is None


def test_an_upload_begins_where_the_file_was_written_first_unless_that_is_near_an_end() -> None:
    near = table_of((5, 6), (GiB, GiB + A), base=GiB)
    assert Plan.of(Grid(GiB), 129, near, 0).first == 129
    far = table_of((300 * MiB, 300 * MiB + 1), (GiB, GiB + A), base=GiB)
    plan = Plan.of(Grid(GiB), 129, far, 0)
    assert plan.grid.span_of(plan.first).start == 296 * MiB
    assert plan.suits(far, 0)


def test_nor_one_with_a_large_cell_of_which_little_was_written() -> None:
    base = 400 * GiB
    cell = Grid(base).span_of(2)
    whole = table_of((cell.start, cell.stop), base=base)
    patched = table_of((cell.start, cell.stop), (cell.stop + 5, cell.stop + 6), base=base)
    plan = Plan.of(Grid(base), 2, whole, 0)
    assert cell.length > MIXED_BYTES
    assert plan.steps(whole, 0, copies=True) is not None
    assert plan.steps(patched, 0, copies=True) is None


def test_more_parts_than_s3_takes_are_no_upload() -> None:
    base = 39 * GiB
    table = table_of((base, base + 2 * TiB), base=base)
    plan = Plan.of(Grid(base), Grid(base).cell_at(base), table, 0)
    assert plan.steps(table, 0, copies=True) is not None
    table = table_of((0, A), (base, base + 4 * TiB), base=base)
    assert Plan.of(Grid(base), 1, table, 0).steps(table, 0, copies=True) is None


@given(
    base=st.integers(0, 40),
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=6),
    ready=st.integers(1, 6),
    size=st.integers(1, 100),
)
def test_whatever_is_written_the_parts_join_and_only_what_is_kept_is_copied(
    base: int, spans: list[tuple[int, int]], ready: int, size: int
) -> None:
    table = table_of(*((start * MiB, (start + length) * MiB) for start, length in spans), base=base * MiB)
    plan = Plan.of(Grid(base * MiB), ready, table, 0)
    assert plan.first <= ready
    table.resize(size * MiB, 2)
    steps = plan.steps(table, 0, copies=True)
    if steps is None:
        assert not plan.suits(table, 0)
        return
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert (steps[0].span.start, steps[-1].span.stop) == (0, size * MiB)
    assert all(a.span.stop == b.span.start for a, b in pairwise(steps))
    assert all(step.span.length >= LEAST_PART for step in steps[:-1])
    for step in steps:
        assert not step.copied or is_kept(table, step.span, settled=0)
        assert not step.cell or (step.number, step.span) == (plan.number_of(step.cell), plan.grid.clipped(step.cell, size * MiB))
        assert step.cell or step.copied or step.span.length <= MIXED_BYTES

"""The table of extents against a row of single bytes."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.fs.extents import SCATTER_PIECES, Extent, Extents, Kind, joined, kept

Cell = tuple[Kind, int, int]
"""Where one byte of the file is: kind, generation, position."""

SPAN = 64


@dataclass
class Model:
    """One cell per byte."""

    cells: list[Cell] = field(default_factory=list)

    def overwrite(self, start: int, stop: int, generation: int, position: int) -> None:
        self.resize(max(start, len(self.cells)), generation)
        self.cells[start:stop] = [(Kind.STAGED, generation, position + at) for at in range(stop - start)]

    def resize(self, size: int, generation: int) -> None:
        del self.cells[size:]
        self.cells += [(Kind.HOLE, generation, 0)] * (size - len(self.cells))

    def settle(self, generation: int) -> None:
        self.cells = [(Kind.KEPT, 0, at) if cell[1] <= generation else cell for at, cell in enumerate(self.cells)]


def cells(extents: list[Extent] | Extents) -> list[Cell]:
    return [(x.kind, x.generation, 0 if x.kind is Kind.HOLE else x.position + at) for x in extents for at in range(x.stop - x.start)]


ranges = st.tuples(st.integers(0, SPAN), st.integers(1, 16)).map(lambda pair: (pair[0], pair[0] + pair[1]))
operations = st.one_of(
    st.tuples(st.just("write"), ranges, st.integers(1, 4), st.integers(0, 40)),
    st.tuples(st.just("resize"), st.integers(0, SPAN), st.integers(1, 4)),
    st.tuples(st.just("settle"), st.integers(0, 4)),
    st.tuples(st.just("gather"), st.integers(1, 4)),
)


def apply(table: Extents, model: Model, operation: tuple[object, ...]) -> None:
    match operation:
        case "write", (int(start), int(stop)), int(generation), int(position):
            table.overwrite(start, stop, generation=generation, position=position)
            model.overwrite(start, stop, generation, position)
        case "resize", int(size), int(generation):
            table.resize(size, generation)
            model.resize(size, generation)
        case "settle", int(generation):
            assert cells(list(table.committed(generation))) == cells(Extents(table.committed(generation)))
            table.settle(generation)
            model.settle(generation)
        case "gather", int(generation):
            table.gather(generation)
            model.cells = [(Kind.STAGED, generation, at) if cell[1] <= generation else cell for at, cell in enumerate(model.cells)]


@given(st.integers(0, SPAN), st.lists(operations, max_size=12), ranges)
def test_the_table_agrees_with_a_row_of_cells_after_any_operations(
    base: int, steps: list[tuple[object, ...]], part: tuple[int, int]
) -> None:
    table, model = Extents([kept(0, base)] if base else []), Model([(Kind.KEPT, 0, at) for at in range(base)])
    for operation in steps:
        apply(table, model, operation)
        table.check()
        assert cells(table) == model.cells
        assert table.size == len(model.cells)
    assert cells(table.slice(*part)) == model.cells[part[0] : part[1]]
    assert all(table.live(g) == sum(c[1] == g and c[0] is not Kind.HOLE for c in model.cells) for g in range(5))


@given(st.lists(operations, max_size=10), ranges, st.integers(1, 4))
def test_places_cover_the_range_and_touch_only_its_own_or_new_bytes(
    steps: list[tuple[object, ...]], part: tuple[int, int], generation: int
) -> None:
    table, model = Extents(), Model()
    for operation in steps:
        apply(table, model, operation)
    end = 1 + max((x.position + x.stop - x.start for x in table), default=0)
    places = table.places(*part, generation=generation, end=end)
    assert [place.start for place in places] == [part[0], *(place.stop for place in places[:-1])]
    assert places[-1].stop == part[1]
    for at, (_, number, position) in enumerate(cells(places), start=part[0]):
        former = model.cells[at] if at < len(model.cells) else None
        own = former is not None and former[0] is Kind.STAGED and former[1] == generation
        assert number == generation
        assert position == former[2] if own and former else position >= end


def test_a_copy_does_not_follow_its_original() -> None:
    table = Extents([kept(0, 10)])
    twin = table.copy()
    table.overwrite(2, 4, generation=1, position=0)
    twin.resize(5, 1)
    assert [x.kind for x in table] == [Kind.KEPT, Kind.STAGED, Kind.KEPT]
    assert list(twin) == [kept(0, 5)]
    assert (table.live(0), twin.live(0)) == (8, 5)


def test_bytes_written_in_a_row_are_one_extent() -> None:
    table, end = Extents(), 0
    for start in range(0, 1000, 10):
        (place,) = table.places(start, start + 10, generation=1, end=end)
        table.overwrite(place.start, place.stop, generation=1, position=place.position)
        end += 10
    assert list(table) == [Extent(0, 1000, Kind.STAGED, 1, 0)]


def test_a_page_that_grows_is_written_over_itself_and_its_end() -> None:
    table = Extents()
    table.overwrite(0, 100, generation=1, position=0)
    assert table.places(0, 300, generation=1, end=100) == [Extent(0, 300, Kind.STAGED, 1, 0)]


def test_bytes_of_a_former_generation_are_never_written_over() -> None:
    table = Extents()
    table.overwrite(0, 100, generation=1, position=0)
    assert table.places(0, 100, generation=2, end=0) == [Extent(0, 100, Kind.STAGED, 2, 0)]


def test_a_write_over_many_crumbs_is_appended_in_one() -> None:
    table = Extents()
    for at in range(SCATTER_PIECES + 1):
        table.overwrite(at, at + 1, generation=1, position=2 * (SCATTER_PIECES - at))
    assert table.places(0, SCATTER_PIECES + 1, generation=1, end=99) == [Extent(0, SCATTER_PIECES + 1, Kind.STAGED, 1, 99)]


def test_holes_of_two_generations_stay_apart() -> None:
    table = Extents()
    table.resize(10, 1)
    table.resize(20, 2)
    assert [x.generation for x in table] == [1, 2]
    table.settle(1)
    assert list(table) == [kept(0, 10), Extent(10, 20, Kind.HOLE, 2)]


def test_shrinking_and_growing_again_leaves_a_hole() -> None:
    table = Extents([kept(0, 100)])
    table.resize(40, 1)
    table.resize(100, 1)
    assert list(table) == [kept(0, 40), Extent(40, 100, Kind.HOLE, 1)]


@pytest.mark.slow
def test_thousands_of_crumbs_are_written_and_looked_up_fast() -> None:
    count = 30_000
    table = Extents([kept(0, 2 * count * 4096)])
    pages = list(range(0, 2 * count, 2))
    random.Random(1).shuffle(pages)
    began = time.perf_counter()
    for position, page in enumerate(pages):
        table.overwrite(page * 4096, (page + 1) * 4096, generation=1, position=position * 4096)
    for page in pages:
        assert table.slice(page * 4096, (page + 1) * 4096)[0].kind is Kind.STAGED
    # One that walks the table for each would take minutes.
    assert time.perf_counter() - began < 20
    assert len(table) == 2 * count
    table.check()
    table.settle(1)
    assert list(table) == [kept(0, 2 * count * 4096)]


@pytest.mark.slow
def test_cutting_and_overwriting_across_blocks_agrees_with_the_model() -> None:
    rng = random.Random(2)
    table, model = Extents([kept(0, 8000)]), Model([(Kind.KEPT, 0, at) for at in range(8000)])
    for position, at in enumerate(range(0, 8000, 2)):
        apply(table, model, ("write", (at, at + 1), 1, position * 3))
    for _ in range(60):
        start = rng.randrange(len(model.cells))
        apply(table, model, ("write", (start, start + rng.choice([1, 700, 3000])), 2, rng.randrange(9000)))
        apply(table, model, ("resize", rng.randrange(len(model.cells) - 200, len(model.cells) + 200), 2))
        table.check()
        assert cells(table) == model.cells


def test_joining_an_empty_row_gives_an_empty_row() -> None:
    assert list(joined([])) == []
    assert Extents().slice(0, 10) == []

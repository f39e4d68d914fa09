"""Lists of spans that are had anew from a former one, and readers that live on them."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3mount.engine.engine import Engine
from s3mount.engine.spans import BLOCK, InBody, InLog, Place, Span, Spans
from s3mount.engine.values import How
from tests.engine.helpers import BUCKET, edited, key, read

PLACES = st.sampled_from([None, "body", "other", 1, 2])
PIECES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), PLACES), max_size=6)


def place_of(file: str | int | None, offset: int) -> Place:
    if isinstance(file, str):
        return InBody(file, offset)
    return None if file is None else InLog(file, offset)


def drawn(spans: Spans) -> list[tuple[str, int] | None]:
    """Where each single byte comes from."""
    cells: list[tuple[str, int] | None] = []
    for span in spans:
        assert span.offset == len(cells)
        assert span.length > 0
        for at in range(span.length):
            place = span.between(span.offset + at, span.offset + at + 1).place
            cells.append(None if place is None else (repr(place), 0))
    return cells


@pytest.fixture(autouse=True, params=[2, BLOCK])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3mount.engine.spans.BLOCK", request.param)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PIECES, st.lists(st.tuples(PIECES, st.integers(0, 40)), max_size=4))
def test_a_spliced_list_says_of_each_byte_what_writing_them_one_by_one_would(
    first: list[tuple[int, int, str | int | None]], rounds: list[tuple[list[tuple[int, int, str | int | None]], int]]
) -> None:
    spans = Spans(())
    model: list[tuple[str, int] | None] = []
    for raw, wanted in [(first, 20), *rounds]:
        size = max([wanted, *(offset + length for offset, length, _ in raw)])
        pieces = [Span(offset, length, place_of(file, 100 * number)) for number, (offset, length, file) in enumerate(raw)]
        spans = spans.spliced(pieces, size)
        model = model[:size] + [None] * (size - len(model))
        for piece in pieces:
            model[piece.offset : piece.end] = drawn(Spans([Span(0, piece.length, piece.place)]))
        assert drawn(spans) == model
        assert len(spans) == len(list(spans))
        assert set(spans.files) == set(Spans(spans).files)
        assert [next(spans.since(at)) for at in range(size)] == [span for span in spans for _ in range(span.length)]


@pytest.mark.slow
def test_a_reader_of_an_edited_object_needs_no_walk_over_its_extents(engine: Engine) -> None:
    some = random.Random(5)
    model = bytearray(2_000_000)
    info = engine.put(BUCKET, key("a"), model, durable=False)
    for number in range(400):
        offset, data = some.randrange(1_900_000), some.randbytes(some.choice([10, 4096, 20_000]) if number > 300 else 10)
        model[offset : offset + len(data)] = data
        info = engine.adopt(BUCKET, key("a"), edited(info, offset, data), How(file_id=info.file_id), durable=False)
        if number % 50 == 49:
            assert read(engine, "a") == model
            with engine.index.read() as db:
                fresh = engine.known_spans.get(info.file_id, info.etag)
                engine.known_spans.forget(info.file_id)
                assert fresh is None or list(fresh) == list(engine._look(db, BUCKET, key("a"), None)[1])
    assert engine.known_spans.get(info.file_id, info.etag) is not None


def test_spans_that_compaction_moved_are_looked_up_again(engine: Engine) -> None:
    info = engine.put(BUCKET, key("a"), bytes(100_000), durable=False)
    for number in range(100):
        info = engine.adopt(BUCKET, key("a"), edited(info, 1000 * number, b"%d" % number), How(file_id=info.file_id), durable=False)
    expected = read(engine, "a")
    known = engine.known_spans.get(info.file_id, info.etag)
    assert known is not None
    engine.known_spans.put(info.file_id, info.etag, Spans(Span(span.offset, span.length, InLog(999, 0)) for span in known))
    assert engine.open_object_nowait(BUCKET, key("a")) is None
    assert read(engine, "a") == expected

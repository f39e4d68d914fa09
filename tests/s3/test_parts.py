"""How a content is cut into parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.model import OBJECT_BYTES, Content, ETag, GiB, Hole, Kept, Key, MiB, ObjectInfo, Piece, Staged, TiB
from s3mount.store.s3.parts import COPY_BYTES, MIN_PART, PART_BYTES, Copied, Sent, cut, least, pieces_between
from tests.store.registry import InMemory

NOWHERE = InMemory(b"")


def content(*kinds: tuple[str, int], base: int | None = None) -> Content:
    """Pieces by their letters (k, s, h) and lengths."""
    pieces: list[Piece] = []
    at = 0
    for kind, length in kinds:
        pieces.append(Kept(at, length) if kind == "k" else Hole(at, length) if kind == "h" else Staged(at, length, NOWHERE, at))
        at += length
    info = ObjectInfo(Key("k"), base if base is not None else at, ETag("e"), 0) if any(kind == "k" for kind, _ in kinds) else None
    return Content(at, tuple(pieces), info)


def test_new_bytes_are_cut_into_equal_parts() -> None:
    assert cut(content(("s", 20 * MiB))) == [Sent(0, 8 * MiB), Sent(8 * MiB, 16 * MiB), Sent(16 * MiB, 20 * MiB)]


def test_an_edit_in_the_middle_sends_little_and_has_the_rest_copied() -> None:
    cuts = cut(content(("k", 500 * MiB), ("s", 4096), ("k", 524 * MiB - 4096)))
    sent = [piece for piece in cuts if isinstance(piece, Sent)]
    assert sum(piece.stop - piece.start for piece in sent) == MIN_PART
    assert sent[0].start == 500 * MiB
    assert all(piece.stop - piece.start <= COPY_BYTES for piece in cuts)


def test_appended_bytes_are_sent_alone() -> None:
    assert cut(content(("k", 100 * MiB), ("s", 10))) == [Copied(0, 100 * MiB), Sent(100 * MiB, 100 * MiB + 10)]


def test_what_is_kept_but_too_short_to_be_a_part_is_sent() -> None:
    cuts = cut(content(("k", 4 * MiB), ("s", 20 * MiB), ("k", 4 * MiB)))
    assert all(isinstance(piece, Sent) for piece in cuts)


def test_a_source_that_s3_copies_no_range_of_is_sent() -> None:
    assert cut(content(("k", 5 * MiB), ("s", 20 * MiB), base=5 * MiB))[0] == Sent(0, 8 * MiB)
    assert cut(content(("k", 5 * MiB), ("s", 20 * MiB), base=5 * MiB + 1))[0] == Copied(0, 5 * MiB)


@pytest.mark.parametrize("size", [78 * GiB, 100 * GiB, TiB, OBJECT_BYTES])
def test_the_largest_object_fits_into_the_number_of_parts(size: int) -> None:
    assert len(cut(content(("s", size)))) <= 10_000
    assert least(size) * 9_999 >= size


pieces = st.lists(
    st.tuples(st.sampled_from("ksh"), st.one_of(st.integers(1, 100), st.integers(1, 40 * MiB), st.just(5 * MiB))), min_size=1, max_size=12
)


@given(pieces)
def test_parts_join_and_keep_s3s_bounds(kinds: list[tuple[str, int]]) -> None:
    whole = content(*kinds)
    cuts = cut(whole)
    assert [piece.start for piece in cuts] == [0, *(piece.stop for piece in cuts[:-1])]
    assert cuts[-1].stop == whole.size
    assert all(MIN_PART <= piece.stop - piece.start <= max(PART_BYTES, COPY_BYTES) for piece in cuts[:-1])
    for piece in cuts:
        covered = list(pieces_between(whole, piece.start, piece.stop))
        assert sum(each.length for each in covered) == piece.stop - piece.start
        assert not isinstance(piece, Copied) or all(isinstance(each, Kept) for each in covered)


def test_a_staged_piece_is_cut_with_its_position() -> None:
    whole = Content(30, (Hole(0, 10), Staged(10, 20, NOWHERE, 100)))
    assert list(pieces_between(whole, 5, 15)) == [Hole(5, 5), Staged(10, 5, NOWHERE, 100)]
    assert list(pieces_between(whole, 12, 30)) == [Staged(12, 18, NOWHERE, 102)]

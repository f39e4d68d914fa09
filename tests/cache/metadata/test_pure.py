"""The pure parts: packed leaves, tables, pages taken apart, rulers and guesses."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.cache.leaf import Asked, Leaf, Mark, Row
from s3mount.cache.ruler import Ruler
from s3mount.cache.splitter import Splitter
from s3mount.cache.spread import spread
from s3mount.cache.table import Table
from s3mount.cache.texts import END, START, behind, just_before, parent_of, place_behind, stem_of
from s3mount.model import NO_METADATA, ETag, Key, ObjectInfo, Page
from s3mount.store.bucket import rolled_up

CHARS = st.sampled_from("ab0-./é\U0001f600")
NAMES = st.text(CHARS, min_size=1, max_size=6)
KEYS = st.lists(st.text(st.sampled_from("ab0-/é"), min_size=1, max_size=8), unique=True, max_size=40)


def info(key: str, *, size: int = 1, etag: str = "e") -> ObjectInfo:
    return ObjectInfo(Key(key), size, ETag(etag), 7, metadata=None)


# -- texts ------------------------------------------------------------------------------------


@given(NAMES, NAMES)
def test_nothing_with_ordinary_characters_lies_just_before_a_key(key: str, other: str) -> None:
    before = just_before(key)
    assert before.encode() < key.encode()
    assert not before.encode() < other.encode() < key.encode()


def test_a_surrogate_is_never_made() -> None:
    just_before("\ue000").encode()


@pytest.mark.parametrize(
    ("stem", "after", "place"),
    [
        ("", "", START),
        ("d/", "", START),
        ("d/", "c", START),
        ("d/", "d/", b"\0"),
        ("d/", "d/x", b"x\0"),
        ("d/", "d/x/", b"x/\0"),
        ("d/", "d/x/y", None),
        ("d/", "e", END),
    ],
)
def test_a_listing_begins_behind_its_place(stem: str, after: str, place: bytes | None) -> None:
    assert place_behind(stem, after) == place


def test_directories_are_found_by_their_slashes() -> None:
    assert [stem_of(key) for key in ("a", "a/b", "a/b/", "")] == ["", "a/", "a/b/", ""]
    assert [parent_of(stem) for stem in ("a/", "a/b/", "a//")] == ["", "a/", "a/"]


# -- leaves -------------------------------------------------------------------------------------


def test_a_packed_row_comes_out_as_it_went_in() -> None:
    rows: list[Row] = [
        (b"", ObjectInfo(Key("d/"), 0, ETag(""), 3, metadata=None)),
        (b"a", ObjectInfo(Key("d/a"), 2**40, ETag("etag-2"), 10**18, storage_class="GLACIER", metadata=None)),
        (b"b", ObjectInfo(Key("d/b"), 1, ETag("x"), 5, "text/plain", "STANDARD", {"mode": "é"}, version_id="v")),
        (b"c", ObjectInfo(Key("d/c"), 1, ETag("x"), 5, metadata=NO_METADATA, file_id=9, links=2)),
        (b"sub/", Mark.PREFIX),
        ("é".encode(), info("d/é")),
    ]
    leaf = Leaf("d/", START, END, rows, Asked(1, 0.0))
    leaf.check()
    assert list(leaf.rows(START)) == rows
    assert leaf.get(b"a") == rows[1][1]
    assert leaf.get(b"nothing") is Mark.ABSENT
    assert list(leaf.rows(b"b", b"c")) == rows[2:3]


def test_a_leaf_takes_about_a_hundred_bytes_for_a_row() -> None:
    rows = [(f"file-{n:08d}.parquet".encode(), info(f"d/file-{n:08d}.parquet", etag="0" * 32)) for n in range(1000)]
    assert Leaf("d/", START, END, rows, Asked(1, 0.0)).cost < 100 * 1000


# -- tables -------------------------------------------------------------------------------------


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Truth changes; requests are sent and answered later, in any order; this mount changes keys."""
    step = st.one_of(
        st.tuples(st.just("ours"), st.tuples(st.sampled_from("abcdef"), st.integers(0, 3))),
        st.tuples(st.just("send"), st.tuples(st.sampled_from(["", "a", "b", "c", "e"]), st.integers(1, 4))),
        st.tuples(st.just("land"), st.integers(0, 5)),
        st.tuples(st.just("unknown"), st.sampled_from("abcdef")),
    )
    return draw(st.lists(step, max_size=40))


@given(stories())
@settings(max_examples=80, deadline=None)
def test_a_table_never_tells_what_is_older_than_this_mounts_own_change(story: list[tuple[str, Any]]) -> None:
    """Only this mount changes things, so whatever is told without doubt must be the truth as of now."""
    table, truth, number = Table("d/"), dict[str, ObjectInfo](), 0
    flying: list[tuple[Leaf, int]] = []
    changed: dict[str, tuple[int, ObjectInfo | Mark]] = {}

    def ask() -> Asked:
        nonlocal number
        number += 1
        return Asked(number, 0.0)

    for what, with_ in story:
        if what == "ours":
            name, size = with_
            value: ObjectInfo | Mark = info(f"d/{name}", size=size) if size else Mark.ABSENT
            truth.pop(name, None)
            if isinstance(value, ObjectInfo):
                truth[name] = value
            asked = ask()
            changed[name] = asked.number, value
            table.note(name.encode(), value, asked)
        elif what == "unknown":
            asked = ask()
            changed[str(with_)] = asked.number, Mark.UNKNOWN
            table.note(str(with_).encode(), Mark.UNKNOWN, asked)
        elif what == "send":
            after, limit = with_
            names = [name for name in sorted(truth) if name > after]
            told = names[:limit]
            hi = END if len(names) <= limit else behind(told[-1].encode())
            lo = behind(after.encode()) if after else START
            flying.append((Leaf("d/", lo, hi, [(name.encode(), truth[name]) for name in told], ask()), number))
        elif flying:
            leaf, sent = flying.pop(int(with_) % len(flying))
            table.record(leaf)
            for name, (when, value) in changed.items():
                if when > sent:
                    table.note(name.encode(), value, Asked(when, 0.0))
        table.check()
        for name in "abcdef":
            known = table.look(name.encode())
            assert known is None or known.value == truth.get(name, Mark.ABSENT)
        piece = table.page(START, 100, lambda asked: True)
        if piece is not None:
            names = [name for name in sorted(truth) if name.encode() < piece.hi]
            assert piece.rows == [(name.encode(), truth[name]) for name in names]


def test_a_burst_of_creations_is_worked_into_the_leaves() -> None:
    table = Table("d/")
    table.record(Leaf("d/", START, END, [(f"f{n:05}".encode(), info(f"d/f{n:05}")) for n in range(0, 4000, 10)], Asked(1, 0.0)))
    for n in range(4000):
        if n % 10:
            table.note(f"f{n:05}".encode(), info(f"d/f{n:05}"), Asked(n + 2, 1.0))
    table.check()
    piece = table.page(START, 100_000, lambda asked: True)
    assert piece is not None
    assert [text.decode() for text, _ in piece.rows] == [f"f{n:05}" for n in range(4000)]
    assert table.rows_known() > 3000


# -- pages without delimiter -----------------------------------------------------------------------


@given(KEYS, st.sampled_from(["", "a/", "a/b/"]), st.text(st.sampled_from("ab0-/é"), max_size=6), st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_a_flat_page_tells_of_each_directory_what_its_own_listing_would(keys: list[str], prefix: str, tail: str, limit: int) -> None:
    after = prefix + tail if tail else ""
    order = sorted(keys, key=str.encode)
    behind_after = [key for key in order if key.startswith(prefix) and key > after]
    told = behind_after[:limit]
    page = Page(tuple(info(key) for key in told), (), told[-1] if len(behind_after) > limit else None)
    for part in spread(prefix, after, page):
        if part.lo >= part.hi:
            continue
        rows = {}
        for key in order:
            if key.startswith(part.stem):
                group = rolled_up(key, part.stem, "/")
                rows[(group or key)[len(part.stem) :].encode()] = Mark.PREFIX if group else info(key)
        assert part.rows == [(text, row) for text, row in sorted(rows.items()) if part.lo <= text < part.hi] or part.rows == [
            (text, row) for text, row in sorted(rows.items()) if part.lo <= text
        ]
        Leaf(part.stem, part.lo, part.hi, part.rows, Asked(1, 0.0)).check()


# -- rulers and guesses ----------------------------------------------------------------------------

ALPHABETS = ["0123456789", "0123456789abcdef", "abcxyz", "ABCXYZ019", "aé\U0001f600/-._", "0a\U0010ffff\ue000"]


@st.composite
def name_lists(draw: st.DrawFn) -> list[str]:
    chars = draw(st.sampled_from(ALPHABETS))
    head = draw(st.sampled_from(["", "file-", "é"]))
    return [head + tail for tail in draw(st.lists(st.text(st.sampled_from(chars), max_size=6), min_size=1, max_size=60, unique=True))]


@given(name_lists(), name_lists())
def test_a_ruler_never_falls_along_the_order_of_names(seen: list[str], names: list[str]) -> None:
    ruler = Ruler(seen)
    measures = [ruler.measure(name) for name in sorted({*seen, *names})]
    assert measures == sorted(measures)
    assert all(measure < ruler.top for measure in measures)


def test_a_ruler_counts_numbers_up() -> None:
    ruler = Ruler([f"file-{n:06d}.txt" for n in range(1000)])
    assert ruler.measure("file-000999.txt") - ruler.measure("file-000000.txt") == 999
    assert ruler.name(ruler.measure("file-000999.txt") + 20_000) == "file-020999.txt"


def list_in_parallel(keys: Sequence[str], *, page: int, lanes: int = 6, rng: random.Random | None = None) -> tuple[Splitter, int]:
    """List *keys* as the splitter says, answers coming in any order; how many pages that took."""
    texts = sorted(key.encode() for key in set(keys))
    splitter, asked = Splitter(lanes=lanes, page_rows=page), 0
    flying = [START]
    while flying:
        at = rng.randrange(len(flying)) if rng else 0
        lo = flying.pop(at)
        first = bisect_left(texts, lo)
        rows = texts[first : first + page]
        splitter.landed(lo, END if first + page >= len(texts) else behind(rows[-1]), [text.decode() for text in rows])
        asked += 1
        flying += splitter.next_places(START)
        splitter.check()
        assert len(flying) <= lanes
    assert not splitter.gaps()
    return splitter, asked


@given(name_lists(), st.integers(1, 7), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_whatever_the_names_all_are_listed_for_one_page_in_twenty_more(keys: list[str], page: int, seed: int) -> None:
    splitter, asked = list_in_parallel(keys, page=page, rng=random.Random(seed))
    needed = max(1, -(-len(keys) // page))
    assert asked <= needed + max(5, splitter.pages // 20)


def distribution(name: str, rng: random.Random) -> list[str]:
    many = 5_000
    return {
        "numbers": lambda: [f"file-{n:06d}" for n in range(many)],
        "unpadded": lambda: [f"file-{n}.csv" for n in range(many)],
        "holes": lambda: [f"img_{n:07d}.jpg" for n in range(many * 2) if rng.random() < 0.5],
        "hashes": lambda: [f"{rng.getrandbits(160):040x}" for _ in range(many)],
        "skewed": lambda: [f"a{n:06d}" for n in range(500)] + [f"z{n:06d}" for n in range(many)],
        "unicode": lambda: [f"ä{rng.randint(0, 10**6):07d}ß" for _ in range(many)],
    }[name]()


@pytest.mark.parametrize("name", ["numbers", "unpadded", "holes", "hashes", "skewed", "unicode"])
def test_a_hundred_pages_cost_at_most_five_more_in_parallel(name: str) -> None:
    keys = set(distribution(name, random.Random(7)))
    splitter, asked = list_in_parallel(sorted(keys), page=50)
    assert asked <= -(-len(keys) // 50) + 5
    assert splitter.splits

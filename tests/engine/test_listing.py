"""Listings: byte order, prefixes, delimiters, pages, and what stands under a name."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3mount.engine.engine import Engine
from s3mount.engine.values import PLAIN, How
from tests.engine.helpers import BUCKET, key, keys

LETTERS = st.sampled_from(["a", "b", "/", "é", "\uffff", "\U00010000", "-", "\0"])
NUMBERS = itertools.count()
NAMES = st.text(LETTERS, min_size=1, max_size=5)


def fill(engine: Engine, *names: str, bucket: str = BUCKET) -> None:
    engine.put_many(bucket, [(key(name), name.encode(), PLAIN) for name in names], durable=False)


def expected(names: set[str], prefix: str, delimiter: str) -> list[str]:
    """Keys and common prefixes, in byte order: the definition, without an index."""
    items = set()
    for name in names:
        if name.startswith(prefix):
            at = name.find(delimiter, len(prefix)) if delimiter else -1
            items.add(name if at < 0 else name[: at + len(delimiter)])
    return sorted(items, key=str.encode)


def walk(engine: Engine, bucket: str, prefix: str, delimiter: str, limit: int) -> list[str]:
    items: list[str] = []
    after: str | None = ""
    while after is not None:
        page = engine.list(bucket, prefix, delimiter=delimiter, after=after, limit=limit)
        found = [*(info.key for info in page.objects), *page.prefixes]
        assert 0 < len(found) <= limit or (not found and page.next is None)
        items += sorted(found, key=str.encode)
        after = page.next
    return items


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(NAMES, max_size=25), st.text(LETTERS, max_size=2), st.sampled_from(["", "/", "b", "a/"]), st.integers(1, 7))
def test_pages_joined_are_what_the_definition_says(engine: Engine, names: set[str], prefix: str, delimiter: str, limit: int) -> None:
    bucket = f"example-{next(NUMBERS)}"
    engine.create_bucket(bucket)
    fill(engine, *names, bucket=bucket)
    assert walk(engine, bucket, prefix, delimiter, limit) == expected(names, prefix, delimiter)
    for name in names:
        found = engine.find(bucket, name)
        assert found.object is not None
        assert (found.marker is not None) == (f"{name}/" in names)
        assert found.implied == any(other.startswith(f"{name}/") and other != f"{name}/" for other in names)


def test_keys_come_in_the_order_of_their_bytes(engine: Engine) -> None:
    names = ["a", "a-b", "a/b", "a0", "A", "é", "\uffff", "\U00010000", "z"]
    fill(engine, *names)
    assert keys(engine) == sorted(names, key=str.encode)


def test_a_common_prefix_with_many_keys_costs_one_entry(engine: Engine) -> None:
    fill(engine, "a", *(f"b/{number:03}" for number in range(300)), "c/x", "d")
    page = engine.list(BUCKET, delimiter="/", limit=3)
    assert [info.key for info in page.objects] == ["a"]
    assert page.prefixes == ("b/", "c/")
    assert page.next == "c/"
    assert [info.key for info in engine.list(BUCKET, delimiter="/", after="c/").objects] == ["d"]


def test_behind_a_common_prefix_all_of_it_is_skipped_but_behind_a_key_in_it_the_rest_is_there(engine: Engine) -> None:
    fill(engine, "p/x/1", "p/x/2", "p/y")
    page = engine.list(BUCKET, "p/", delimiter="/", after="p/x/")
    assert ([info.key for info in page.objects], page.prefixes) == (["p/y"], ())
    page = engine.list(BUCKET, "p/", delimiter="/", after="p/x/1")
    assert ([info.key for info in page.objects], page.prefixes) == (["p/y"], ("p/x/",))
    assert [info.key for info in engine.list(BUCKET, "p/", after="p/x/").objects] == ["p/x/1", "p/x/2", "p/y"]


def test_a_page_that_is_exactly_full_is_the_last(engine: Engine) -> None:
    fill(engine, "a", "b")
    assert engine.list(BUCKET, limit=2).next is None
    assert engine.list(BUCKET, limit=1).next == "a"
    with pytest.raises(ValueError, match="page"):
        engine.list(BUCKET, limit=0)


def test_a_listing_carries_everything_that_head_does(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), b"abc", How(metadata={"mode": "33188"}, content_type="text/plain", storage_class="GLACIER"))
    engine.link(BUCKET, key("a"), key("b"))
    assert [engine.head(BUCKET, key("a")), engine.head(BUCKET, key("b"))] == [*engine.list(BUCKET).objects]
    assert engine.head(BUCKET, key("b")).links == 2


def test_the_top_of_a_bucket_is_always_a_directory(engine: Engine) -> None:
    found = engine.find(BUCKET, "")
    assert (found.object, found.marker, found.implied) == (None, None, True)


def test_buckets_do_not_see_each_other(engine: Engine) -> None:
    engine.create_bucket("another")
    fill(engine, "a", "z")
    engine.put("another", key("m"), b"")
    assert keys(engine) == ["a", "z"]
    assert [info.key for info in engine.list("another").objects] == ["m"]

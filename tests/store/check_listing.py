"""Checks: find and list - order, prefixes, delimiters, pages."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import trio

from s3mount.model import Key
from s3mount.store.api import Commit, ObjectStore
from tests.store.registry import conforms, keys_of

TREE = ("a", "a-", "a/", "a/b", "a/b/c", "a/b/d", "a/e", "a0", "b/x", "b/y", "c", "d//", "d//e", "é/f", "\U00010000/g", "\uffff")


async def fill(store: ObjectStore, keys: Iterable[str]) -> None:
    for key in keys:
        await store.put(Key(key), b"")


async def pages(store: ObjectStore, prefix: str, delimiter: str, limit: int) -> tuple[list[str], list[str]]:
    """All objects and common prefixes, asserting what each page owes."""
    objects: list[str] = []
    prefixes: list[str] = []
    after = ""
    while True:
        page = await store.list(prefix, delimiter=delimiter, after=after, limit=limit)
        found = [info.key for info in page.objects]
        assert found == sorted(found, key=str.encode)
        assert list(page.prefixes) == sorted(page.prefixes, key=str.encode)
        objects += found
        prefixes += page.prefixes
        if page.next is None:
            return objects, prefixes
        assert len(found) + len(page.prefixes) == limit
        after = page.next


def expected(keys: Iterable[str], prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
    objects: list[str] = []
    prefixes: list[str] = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        if not found:
            objects.append(key)
        elif prefix + head + delimiter not in prefixes:
            prefixes.append(prefix + head + delimiter)
    return objects, prefixes


@conforms()
async def an_empty_bucket_lists_nothing(store: ObjectStore) -> None:
    page = await store.list()
    assert (page.objects, page.prefixes, page.next) == ((), (), None)
    assert (await store.list("a/", delimiter="/", after="a/b")).objects == ()


@conforms()
async def keys_come_in_the_order_of_their_bytes(store: ObjectStore) -> None:
    # UTF-16 order would put the astral character before U+FFFF.
    keys = ["\U00010000", "\uffff", "é", "e\u0301", "Z", "a", "_", "\x01", "\x7f", "\u0800", "\U0010ffff", "a\U0010ffff", "ab"]
    await fill(store, keys)
    assert await keys_of(store) == sorted(keys, key=str.encode)


@conforms()
async def every_prefix_and_page_size_lists_everything_once(store: ObjectStore) -> None:
    await fill(store, TREE)
    for prefix in ("", "a", "a/", "a/b", "a/b/", "b/", "d/", "d//", "é", "\U00010000/", "z", "a/b/c", "a/b/cx"):
        for delimiter in ("", "/"):
            for limit in (1, 2, 3, 7, 1000):
                assert await pages(store, prefix, delimiter, limit) == expected(TREE, prefix, delimiter), (prefix, delimiter, limit)


@conforms()
async def any_text_is_a_delimiter(store: ObjectStore) -> None:
    keys = ["a-b-c", "a-b", "a--b", "ab", "-", "--", "a\U0001f600b"]
    await fill(store, keys)
    for delimiter in ("-", "--", "b", "\U0001f600"):
        for limit in (1, 1000):
            assert await pages(store, "", delimiter, limit) == expected(keys, "", delimiter), delimiter


@conforms()
async def a_prefix_is_taken_literally(store: ObjectStore) -> None:
    keys = ["100%", "100%/x", "100x", "a_b", "axb", "a*b", "a[b]", "a?c", "a'c", 'a"c', "A_B", "a\\b", "a\\%"]
    await fill(store, keys)
    for prefix in ("100%", "a_", "a*", "a[", "a?", "a'", 'a"', "A", "a\\"):
        assert await keys_of(store, prefix) == expected(keys, prefix, "")[0], prefix


@conforms()
async def a_listing_goes_on_behind_any_text(store: ObjectStore) -> None:
    await fill(store, TREE)
    ordered = sorted(TREE, key=str.encode)
    for after in (*TREE, "a/b/", "\x00", "a/bb", "zzz", "\U0010ffff"):
        page = await store.list(after=after)
        assert [info.key for info in page.objects] == [key for key in ordered if key.encode() > after.encode()], after


@conforms()
async def a_listing_behind_a_common_prefix_skips_all_of_it(store: ObjectStore) -> None:
    await fill(store, TREE)
    page = await store.list(delimiter="/", after="a/")
    assert [info.key for info in page.objects] == ["a0", "c", "\uffff"]
    assert page.prefixes == ("b/", "d/", "é/", "\U00010000/")
    page = await store.list("a/", delimiter="/", after="a/b/")
    assert [info.key for info in page.objects] == ["a/e"]
    page = await store.list("a/", delimiter="/", after="a/")
    assert [info.key for info in page.objects] == ["a/b", "a/e"]
    assert page.prefixes == ("a/b/",)


@conforms()
async def a_listing_behind_the_prefix_itself_ends_or_begins_there(store: ObjectStore) -> None:
    await fill(store, TREE)
    assert (await store.list("a/", after="b")).objects == ()
    assert [info.key for info in (await store.list("b/", after="a")).objects] == ["b/x", "b/y"]
    assert [info.key for info in (await store.list("b/", delimiter="/", after="a/")).objects] == ["b/x", "b/y"]


@conforms()
async def a_page_that_is_just_full_is_the_last(store: ObjectStore) -> None:
    await fill(store, ("a", "b/1", "b/2", "c"))
    assert (await store.list(limit=4)).next is None
    assert (await store.list(limit=3)).next is not None
    assert (await store.list(delimiter="/", limit=3)).next is None
    assert (await store.list("b/", limit=2)).next is None


@conforms()
async def a_page_has_a_thousand_keys_at_most(store: ObjectStore) -> None:
    keys = [f"{number:04}" for number in range(1003)]
    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(store.put, Key(key), b"")
    page = await store.list(limit=5000)
    assert len(page.objects) == 1000
    assert page.next is not None
    assert await keys_of(store) == keys
    with pytest.raises(ValueError):
        await store.list(limit=0)


@conforms()
async def a_listing_sees_every_acknowledged_change(store: ObjectStore) -> None:
    for number in range(20):
        await store.put(Key(f"{number:02}"), b"")
        assert await keys_of(store) == [f"{n:02}" for n in range(number + 1)]
    for number in range(20):
        await store.delete(Key(f"{number:02}"))
        assert await keys_of(store) == [f"{n:02}" for n in range(number + 1, 20)]


@conforms()
async def a_listing_of_what_changes_neither_repeats_nor_loses_what_stays(store: ObjectStore) -> None:
    stays = [f"{number:02}-stays" for number in range(30)]
    await fill(store, [*stays, *(f"{number:02}-goes" for number in range(30))])
    seen: list[str] = []
    after = ""
    while after is not None:
        page = await store.list(after=after, limit=4)
        seen += [info.key for info in page.objects]
        for info in page.objects:
            if info.key.endswith("goes"):
                await store.delete(info.key)
                await store.put(Key(f"{info.key}-anew"), b"")
        after = page.next  # type: ignore[assignment]
    assert [key for key in seen if key.endswith("stays")] == stays
    assert len(seen) == len(set(seen))


@conforms("listed_metadata")
async def a_listing_carries_metadata(store: ObjectStore) -> None:
    await store.put(Key("d/a"), b"x", Commit(metadata={"mode": "33188"}))
    await store.put(Key("d/"), b"", Commit(metadata={"mode": "16877"}))
    assert [(info.metadata or {}).get("mode") for info in (await store.list("d/")).objects] == ["16877", "33188"]
    marker = (await store.find("d")).marker
    assert marker is not None
    assert (marker.metadata or {})["mode"] == "16877"


# -- find ---------------------------------------------------------------------------------


@conforms()
async def find_tells_object_marker_and_what_lies_below(store: ObjectStore) -> None:
    await fill(store, ("object", "marker/", "implied/x", "all", "all/", "all/x", "deep/er/x", "empty-neighbour-", "empty-neighbour0"))
    for name, answer in {
        "object": (True, False, False),
        "marker": (False, True, False),
        "implied": (False, False, True),
        "all": (True, True, True),
        "deep": (False, False, True),
        "deep/er": (False, False, True),
        "empty-neighbour": (False, False, False),
        "nothing": (False, False, False),
        "objec": (False, False, False),
        "object/": (False, False, False),
    }.items():
        found = await store.find(name)
        assert (found.object is not None, found.marker is not None, found.implied) == answer, name
        assert found.object is None or found.object.key == name
        assert found.marker is None or found.marker.key == f"{name}/"


@conforms()
async def find_of_the_top_is_a_directory(store: ObjectStore) -> None:
    found = await store.find("")
    assert (found.object, found.marker, found.implied) == (None, None, True)
    await store.put(Key("/"), b"")
    assert (await store.find("")).marker is None


@conforms()
async def find_sees_the_last_key_below_go(store: ObjectStore) -> None:
    await fill(store, ("d/x", "d/y"))
    await store.delete(Key("d/x"))
    assert (await store.find("d")).is_directory
    await store.delete(Key("d/y"))
    assert not (await store.find("d")).is_directory

"""Pages of listings while keys are on their way: as if the rename had been one step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3mount.fs.areas import Area
from s3mount.fs.overlay import Asked, Leg, Overlay
from s3mount.model import ETag, Key, ObjectInfo, Page
from s3mount.store.bucket import Blob, Bucket, File

SUFFIXES = ["", "a", "a/", "a/x", "a/y", "b", "b/x/y", "c"]


def info(key: str, etag: str = "one") -> ObjectInfo:
    return ObjectInfo(Key(key), 1, ETag(etag), 0)


def page_of(keys: list[str], asked: Asked) -> Page:
    """As a store answers that has *keys*."""
    bucket = Bucket()
    for number, key in enumerate(sorted(keys), 2):
        bucket.bind(key, File(number, Blob.of(b"x"), ETag(key), 0, "", "", {}))
    found = bucket.page(asked.prefix, asked.delimiter, asked.after, asked.limit)
    return Page(tuple(info(key) for key, _ in found.files), tuple(found.prefixes), found.next)


def all_pages(overlay: Overlay, keys: list[str], prefix: str, delimiter: str, limit: int) -> tuple[list[str], list[str]]:
    """What a reader of the whole listing is told."""
    objects: list[str] = []
    prefixes: list[str] = []
    after = ""
    while True:
        asked = Asked(prefix, delimiter, after, limit)
        page = page_of(keys, asked)
        seen = overlay.view(asked).merged(page)
        if seen is not None:
            assert len(seen.objects) + len(seen.prefixes) <= limit
            objects += [found.key for found in seen.objects]
            prefixes += seen.prefixes
        following = page.next if seen is None else seen.next
        if following is None:
            return objects, prefixes
        assert following > after
        after = following


moved = st.lists(st.sampled_from(SUFFIXES), min_size=1, unique=True)
others = st.lists(st.sampled_from(["a", "dir.txt", "dir0", "e", "to", "to.txt", "to0/x", "zz/a"]), unique=True)


@given(moved, others, st.lists(st.integers(0, 2), min_size=8, max_size=8), st.sampled_from(["", "to/", "to/a/", "dir/", "d"]),
       st.sampled_from(["", "/"]), st.integers(1, 5))  # fmt: skip
def test_pages_tell_the_tree_under_its_new_name(
    suffixes: list[str], beside: list[str], states: list[int], prefix: str, delimiter: str, limit: int
) -> None:
    overlay, area = Overlay(), Area("dir/")
    legs = [Leg(Key(f"dir/{suffix}"), info(f"to/{suffix}"), (area,)) for suffix in suffixes]
    overlay.add(area, legs)
    there = set(beside)
    for leg, state in zip(legs, states, strict=False):
        there.add(leg.source)
        if state:
            there.add(leg.target)
            overlay.copied(leg, info(leg.target, "two"))
        if state == 2:
            there.discard(leg.source)
            overlay.over(leg)
        overlay.check()
    asked = Asked(prefix, delimiter, "", 1000)
    wanted = page_of([*beside, *(leg.target for leg in legs)], asked)
    told = all_pages(overlay, sorted(there), prefix, delimiter, limit)
    if overlay.idle:
        assert told == all_pages(Overlay(), sorted(there), prefix, delimiter, limit)
    else:
        assert told == ([found.key for found in wanted.objects], list(wanted.prefixes))


def test_a_key_that_ends_with_the_delimiter_is_told_as_a_prefix() -> None:
    overlay, area = Overlay(), Area("dir/")
    overlay.add(area, [Leg(Key("dir/a/"), info("to/a/"), (area,))])
    assert all_pages(overlay, ["dir/a/"], "to/", "/", 5) == ([], ["to/a/"])
    assert all_pages(overlay, ["dir/a/"], "to/a/", "/", 5) == (["to/a/"], [])


def test_what_is_put_below_a_source_is_seen_and_what_is_removed_is_not() -> None:
    overlay, area = Overlay(), Area("dir/")
    overlay.add(area, [Leg(Key("dir/a"), info("to/a"), (area,))])
    assert overlay.hides("dir/a")
    assert overlay.hides("dir/new")
    assert not overlay.leaves_below("dir/")
    overlay.put("dir/new")
    assert not overlay.hides("dir/new")
    assert overlay.leaves_below("dir/")
    overlay.removed("dir/new")
    assert overlay.hides("dir/new")
    assert not overlay.leaves_below("dir/")
    assert overlay.leaves_below("to/")


def test_a_leg_that_is_taken_over_keeps_its_source_hidden() -> None:
    overlay, first, second = Overlay(), Area("dir/"), Area("to/")
    leg = Leg(Key("dir/a"), info("to/a"), (first,))
    overlay.add(first, [leg])
    again = Leg(Key("dir/a"), info("there/a"), (second, first))
    overlay.add(second, [again], instead_of=[leg])
    overlay.check()
    assert overlay.hides("dir/a")
    assert overlay.waiting("there/a") is again
    assert overlay.waiting("to/a") is None
    overlay.over(again)
    assert overlay.idle
    assert not overlay.hides("dir/a")

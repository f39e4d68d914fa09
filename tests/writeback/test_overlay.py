"""What is pending, laid over listings: compared with a bucket in which it had arrived."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3mount.model import ETag, Found, Key, ObjectInfo, Page
from s3mount.writeback.overlay import Overlay, Shown, rolled_up

KEYS = st.text("ab/", min_size=1, max_size=5)
BUCKETS = st.dictionaries(KEYS, st.sampled_from("xyz"), max_size=12)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), st.sampled_from(("wb-1", "wb-2"))), max_size=8)


def info(key: str, etag: str) -> ObjectInfo:
    return ObjectInfo(Key(key), 1, ETag(etag), 5)


def overlay_of(changes: dict[str, str | None]) -> Overlay:
    overlay = Overlay()
    for key, etag in changes.items():
        overlay.lay(key, None if etag is None else info(key, etag))
    overlay.check()
    return overlay


def applied(bucket: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    return {key: etag for key, etag in {**bucket, **changes}.items() if etag is not None}


def page_of(bucket: dict[str, str], prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """What a store answers."""
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    last: str | None = None
    names = sorted(key for key in bucket if key.startswith(prefix))
    skipped = after if after and after.startswith(prefix) and rolled_up(after, prefix, delimiter) == after else None
    names = [key for key in names if key > after and not (skipped is not None and key.startswith(skipped))]
    while names:
        if len(objects) + len(prefixes) == limit:
            return Page(tuple(objects), tuple(prefixes), last)
        group = rolled_up(names[0], prefix, delimiter)
        last = group or names[0]
        if group is None:
            objects.append(info(names[0], bucket[names[0]]))
            names = names[1:]
        else:
            prefixes.append(group)
            names = [key for key in names if not key.startswith(group)]
    return Page(tuple(objects), tuple(prefixes), None)


def walk(overlay: Overlay, bucket: dict[str, str], prefix: str, delimiter: str, after: str, limit: int) -> list[tuple[str, str]]:
    """All that a listing shows, page by page, as `WriteBack.list` puts it together."""
    shown: list[tuple[str, str]] = []
    while True:
        with overlay.asking() as asked:
            told = page_of(bucket, prefix, delimiter, after, limit)
            merged = overlay.page(told, asked, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
            below = {group: [key for key in bucket if key.startswith(group)] for group in merged.doubtful}
            empty = {group for group, keys in below.items() if not any(overlay.survives(key, asked) for key in keys)}
        page = merged.page
        assert len(page.objects) + len(page.prefixes) <= limit
        entries = [(str(found.key), str(found.etag)) for found in page.objects]
        entries += [(group, "") for group in page.prefixes if group not in empty]
        shown += sorted(entries)
        if page.next is None:
            return shown
        after = page.next


@given(
    bucket=BUCKETS,
    changes=CHANGES,
    prefix=st.sampled_from(("", "a", "a/", "b/a/")),
    delimiter=st.sampled_from(("", "/")),
    after=st.one_of(st.just(""), KEYS),
    limit=st.integers(1, 4),
)
def test_a_listing_shows_what_the_bucket_will_be(
    bucket: dict[str, str], changes: dict[str, str | None], prefix: str, delimiter: str, after: str, limit: int
) -> None:
    shown = walk(overlay_of(changes), bucket, prefix, delimiter, after, limit)
    page = page_of(applied(bucket, changes), prefix, delimiter, after, 1000)
    expected = [(str(found.key), str(found.etag)) for found in page.objects] + [(group, "") for group in page.prefixes]
    assert shown == sorted(expected)


def found_in(bucket: dict[str, str], name: str) -> Found:
    def one(key: str) -> Shown:
        return info(key, bucket[key]) if key in bucket else None

    return Found(one(name), one(f"{name}/"), any(key.startswith(f"{name}/") and key != f"{name}/" for key in bucket))


@given(bucket=BUCKETS, changes=CHANGES, name=st.sampled_from(("a", "b", "a/b", "a/", "ab")))
def test_what_is_found_under_a_name_is_what_the_bucket_will_hold(bucket: dict[str, str], changes: dict[str, str | None], name: str) -> None:
    overlay = overlay_of(changes)
    with overlay.asking() as asked:
        found, doubtful = overlay.found(name, found_in(bucket, name), asked)
        if doubtful and not any(overlay.survives(key, asked) for key in bucket if key.startswith(f"{name}/") and key != f"{name}/"):
            found = Found(found.object, found.marker, implied=False)
    assert found == found_in(applied(bucket, changes), name)


@given(bucket=BUCKETS, changes=CHANGES, etags=st.lists(st.sampled_from("mn"), min_size=1))
def test_an_answer_from_before_an_arrival_does_not_hide_it(
    bucket: dict[str, str], changes: dict[str, str | None], etags: list[str]
) -> None:
    overlay = overlay_of(changes)
    with overlay.asking() as asked:
        told = page_of(bucket, "", "", "", 1000)  # what the store says had been said before the changes arrived there
        for number, (key, etag) in enumerate(changes.items()):
            overlay.arrive(key, None if etag is None else info(key, etag), ETag(etags[number % len(etags)]) if etag else None)
        merged = overlay.page(told, asked, prefix="", delimiter="", after="", limit=1000)
        overlay.check()
    assert {str(found.key): str(found.etag) for found in merged.page.objects} == applied(bucket, changes)
    overlay.check()
    with overlay.asking() as asked:
        assert not any(overlay.covers(key, asked) for key in changes)


def test_a_version_of_ours_goes_on_being_shown_as_it_was() -> None:
    overlay = overlay_of({"k": "wb-1"})
    overlay.arrive("k", info("k", "wb-1"), ETag("e1"))
    assert overlay.seen(info("k", "e1")).etag == "wb-1"
    assert overlay.real("k", ETag("wb-1")) == "e1"
    assert overlay.seen(info("k", "e2")).etag == "e2"
    assert overlay.real("k", ETag("wb-2")) is None


def test_only_so_many_versions_of_ours_are_remembered() -> None:
    overlay = Overlay(aliases=2)
    for key in ("a", "b", "c"):
        overlay.arrive(key, info(key, f"wb-{key}"), ETag(f"e{key}"))
    assert [overlay.seen(info(key, f"e{key}")).etag for key in ("a", "b", "c")] == ["ea", "wb-b", "wb-c"]

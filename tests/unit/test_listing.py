"""The merge of pages gives every key exactly one name, whatever the pages' borders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hypothesis import example, given
from hypothesis import strategies as st

from s3mount.fs.listing import NO_EXTRAS, START, Extras, Listed, Mark, Merge, Sort
from s3mount.fs.names import meaning, name_in
from s3mount.model import ETag, Key, ObjectInfo, Page
from s3mount.store.bucket import Blob, Bucket, File

PARTS = ["a", "b", "!", ".", "/", "//", "␛", "ab", "k" * 130, "é", "-", "\0"]
keys = st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("".join), max_size=25, unique=True)


def bucket_of(keys: list[str]) -> Bucket:
    bucket = Bucket()
    for number, key in enumerate(keys):
        bucket.bind(key, File(number + 2, Blob.of(b"x" * (number % 3)), ETag("e"), 0, "", "", {}))
    return bucket


def page_of(bucket: Bucket, stem: str, after: str, limit: int) -> Page:
    found = bucket.page(stem, "/", after, limit)
    return Page(tuple(ObjectInfo(Key(key), file.blob.size, file.etag, 0) for key, file in found.files), tuple(found.prefixes), found.next)


def walk(bucket: Bucket, stem: str, limit: int, extras: Extras = NO_EXTRAS, *, resume: bool = False) -> Iterator[Listed]:
    merge, after = Merge(stem), ""
    while True:
        page = page_of(bucket, stem, after, limit)
        yield from merge.feed(page, extras)
        if page.next is None:
            return
        after = page.next
        if resume:
            merge = Merge(stem, merge.mark)


def expected(bucket: Bucket, stem: str) -> set[tuple[bytes, Sort, str]]:
    """Straight from the definition: each component is a directory, an object, or both."""
    seen: set[tuple[bytes, Sort, str]] = set()
    below = [key for key in bucket.order if key.startswith(stem)]
    directories = {key[: key.index("/", len(stem))] for key in below if "/" in key[len(stem) :]}
    for name in directories:
        add(seen, stem, name, Sort.DIRECTORY, name + "/", shadowed=False)
    for key in below:
        if "/" not in key[len(stem) :] and (key != stem or bucket.keys[key].blob.size):
            add(seen, stem, key, Sort.FILE, key, shadowed=key in directories)
    return seen


def add(seen: set[tuple[bytes, Sort, str]], stem: str, text: str, sort: Sort, key: str, *, shadowed: bool) -> None:
    shown = name_in(stem, text, shadowed=shadowed)
    if shown is not None:
        seen.add((shown.name, Sort.CONTINUED, meaning(stem, shown.name).key) if shown.continued else (shown.name, sort, key))


def told(entries: Iterable[Listed]) -> list[tuple[bytes, Sort, str]]:
    return [(entry.name, entry.sort, entry.key) for entry in entries]


@given(keys, st.integers(1, 7), st.booleans())
@example(["a", "a!", "a!b", "a-", "a/", "a/b"], 1, True)
def test_every_entry_is_told_once_whatever_the_pages(keys: list[str], limit: int, resume: bool) -> None:
    bucket = bucket_of(keys)
    stems = {"", *(key[: at + 1] for key in keys for at, char in enumerate(key) if char == "/")}
    for stem in stems:
        entries = told(walk(bucket, stem, limit, resume=resume))
        assert len(entries) == len(set(entries))
        assert set(entries) == expected(bucket, stem)


@given(keys, st.integers(1, 7))
def test_names_lead_back_to_their_keys(keys: list[str], limit: int) -> None:
    bucket = bucket_of(keys)
    reached: set[str] = set()
    todo = [""]
    while todo:
        stem = todo.pop()
        for entry in walk(bucket, stem, limit):
            said = meaning(stem, entry.name)
            if entry.sort is Sort.FILE:
                assert said.key == entry.key
                reached.add(entry.key)
            else:
                assert said.key + ("/" if entry.sort is Sort.DIRECTORY else "") == entry.key
                todo.append(entry.key)
    assert reached == {key for key in keys if not key.endswith("/") or bucket.keys[key].blob.size}


@given(keys, keys, st.integers(1, 5))
def test_new_files_appear_among_the_others(keys: list[str], fresh: list[str], limit: int) -> None:
    bucket = bucket_of(keys)
    fresh = [*dict.fromkeys(key.replace("/", "") for key in fresh if key.replace("/", ""))]
    entries = told(walk(bucket, "", limit, Extras(files=tuple(Key(key) for key in fresh))))
    everything = bucket_of([*keys, *(key for key in dict.fromkeys(fresh) if key not in keys)])
    assert len(entries) == len(set(entries))
    assert set(entries) == expected(everything, "")


def test_directories_without_keys_appear_too() -> None:
    entries = told(walk(bucket_of(["a", "c"]), "", 1, Extras(directories=("a/", "b/"))))
    assert entries == [
        (b"a", Sort.DIRECTORY, "a/"),
        ("a␛f".encode(), Sort.FILE, "a"),
        (b"b", Sort.DIRECTORY, "b/"),
        (b"c", Sort.FILE, "c"),
    ]


def test_an_object_waits_until_no_directory_can_shadow_it() -> None:
    merge = Merge("")
    first = merge.feed(page_of(bucket_of(["a", "a!", "a/b"]), "", "", 2))
    assert first == []
    rest = told(merge.feed(page_of(bucket_of(["a", "a!", "a/b"]), "", "a!", 2)))
    assert rest == [(b"a!", Sort.FILE, "a!"), (b"a", Sort.DIRECTORY, "a/"), ("a␛f".encode(), Sort.FILE, "a")]


@given(keys, st.integers(1, 4), st.integers(1, 7))
def test_a_second_pass_over_a_stretch_tells_the_same(keys: list[str], limit: int, other: int) -> None:
    bucket = bucket_of(keys)
    merge, after, mark = Merge(""), "", START
    while True:
        page = page_of(bucket, "", after, limit)
        first = told(merge.feed(page))
        assert again(bucket, mark, merge.mark.position, other) == first
        if page.next is None:
            return
        after, mark = page.next, merge.mark


def again(bucket: Bucket, mark: Mark, until: str, limit: int) -> list[tuple[bytes, Sort, str]]:
    merge, after, entries = Merge("", mark), mark.position, []
    while True:
        page = page_of(bucket, "", after, limit)
        entries += told(merge.feed(page, until=until))
        if page.next is None or page.next >= until:
            return entries
        after = page.next

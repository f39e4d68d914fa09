"""Tags as text, values that can be set, versions of an S3 listing: tables in, values out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import Invalid, NoAttribute, NotPermitted, UsageError
from s3mount.fs import virtual
from s3mount.model import VersionPlace
from s3mount.store.aspects import ASPECTS, SETTABLE, require_value, tags_in, tags_out
from s3mount.store.s3.history import versions_of

TEXT = st.characters(exclude_categories=["Cs"])
TAG = st.tuples(st.text(TEXT, min_size=1, max_size=9), st.text(TEXT, max_size=9))
TAGS = st.lists(TAG, max_size=10, unique_by=lambda tag: tag[0])


@given(TAGS.map(tuple))
def test_tags_survive_being_written_as_text(tags: tuple[tuple[str, str], ...]) -> None:
    assert tags_in(tags_out(tags) or "") == tags


@pytest.mark.parametrize("text", ["a", "a=1&a=2", "&".join(f"t{n}=" for n in range(11)), "=x", "a=" + "x" * 257, "n" * 129 + "=", "a=%ff"])
def test_tags_that_s3_would_refuse_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        tags_in(text)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("content-type", ["text/plain", "text/html; charset=utf-8", "x"], ["", "a\r\nX: y", " a", "é", "x" * 1025]),
        ("storage-class", ["STANDARD_IA", "DEEP_ARCHIVE"], ["", "standard", "A-B", "A B"]),
        ("tags", ["", "a=1"], ["a"]),
    ],
)
def test_only_what_a_header_can_say_is_taken(name: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        require_value(name, value)
    for value in bad:
        with pytest.raises(UsageError):
            require_value(name, value)


def test_every_aspect_has_a_name_and_every_other_is_kept_free() -> None:
    assert {virtual.aspect_of(f"user.s3.{aspect}".encode()) for aspect in ASPECTS} == ASPECTS
    assert {virtual.settable(f"user.s3.{aspect}".encode()) for aspect in SETTABLE} == SETTABLE
    for aspect in (ASPECTS - SETTABLE) | {"", "more", "ETag"}:
        with pytest.raises(NotPermitted):
            virtual.settable(f"user.s3.{aspect}".encode())
    for name in (b"user.s3.", b"user.s3.\xff", b"user.s3.ETag"):
        with pytest.raises(NoAttribute):
            virtual.aspect_of(name)
    with pytest.raises(Invalid):
        virtual.text_of(b"\xff")
    assert virtual.without({b"user.s3.etag": b"", b"user.s3": b"", b"user.x": b""}) == {b"user.s3": b"", b"user.x": b""}


def entry(key: str, version: str, time: str, *, latest: bool = False) -> dict[str, object]:
    return {"Key": key, "VersionId": version, "LastModified": f"2026-11-21T{time}Z", "IsLatest": latest, "Size": 3, "ETag": '"e"'}


def test_versions_and_delete_markers_become_one_row_the_newest_first() -> None:
    page = versions_of(
        {
            "Versions": [entry("a+b%2B", "v2", "02:00:00"), entry("a+b%2B", "v1", "01:00:00"), entry("c", "v4", "02:00:00", latest=True)],
            "DeleteMarkers": [entry("a+b%2B", "m2", "02:00:00", latest=True), entry("a+b%2B", "m1", "01:30:00")],
            "EncodingType": "url",
            "IsTruncated": True,
            "NextKeyMarker": "c%2F",
            "NextVersionIdMarker": "v4",
        }
    )
    assert [(version.key, version.version_id, version.marker) for version in page.entries] == [
        ("a b+", "m2", True),
        ("a b+", "v2", False),
        ("a b+", "m1", True),
        ("a b+", "v1", False),
        ("c", "v4", False),
    ]
    assert page.next == VersionPlace("c/", "v4")

"""Buckets that keep versions: what put, delete, rename and edits leave behind."""

from __future__ import annotations

import pytest

from s3mount.engine.engine import Engine
from s3mount.engine.values import PLAIN, How
from s3mount.errors import BucketNotEmpty, NotFound
from s3mount.model import Matches
from tests.engine.helpers import BUCKET, body_files, edited, key, keys, read

BIG = bytes(range(256)) * 100


@pytest.fixture
def versioned(engine: Engine) -> Engine:
    engine.set_versioning(BUCKET, "enabled")
    return engine


def shape(engine: Engine, prefix: str = "") -> list[tuple[str, bool, bool, int]]:
    """(key, latest, marker, size) of every version."""
    return [(version.key, version.latest, version.marker, version.size) for version in engine.versions(BUCKET, prefix)]


def test_without_versioning_nothing_is_kept(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), b"1")
    engine.put(BUCKET, key("a"), b"22")
    assert shape(engine) == [("a", True, False, 2)]
    assert engine.versions(BUCKET)[0].version_id == "null"


def test_each_put_keeps_the_former_version(versioned: Engine) -> None:
    ids = [versioned.put(BUCKET, key("a"), b"x" * size).version_id for size in (1, 2, 3)]
    assert len(set(ids)) == 3
    assert [version.version_id for version in versioned.versions(BUCKET)] == ids[::-1]
    assert shape(versioned) == [("a", True, False, 3), ("a", False, False, 2), ("a", False, False, 1)]


def test_a_delete_leaves_a_marker_and_all_versions(versioned: Engine) -> None:
    versioned.put(BUCKET, key("a"), BIG)
    versioned.delete(BUCKET, key("a"))
    with pytest.raises(NotFound):
        versioned.head(BUCKET, key("a"))
    assert keys(versioned) == []
    assert shape(versioned) == [("a", True, True, 0), ("a", False, False, len(BIG))]
    versioned.sync()
    assert len(body_files(versioned)) == 1
    with pytest.raises(BucketNotEmpty):
        versioned.delete_bucket(BUCKET)


def test_an_edit_keeps_the_file_id_and_archives_the_old_content(versioned: Engine) -> None:
    base = versioned.put(BUCKET, key("a"), BIG)
    info = versioned.adopt(BUCKET, key("a"), edited(base, 10, b"new"), How(condition=Matches(base.etag), file_id=base.file_id))
    assert info.file_id == base.file_id
    assert [version.etag for version in versioned.versions(BUCKET)] == [info.etag, base.etag]
    assert read(versioned, "a") == BIG[:10] + b"new" + BIG[13:]


def test_a_rename_is_a_new_version_there_and_a_marker_here(versioned: Engine) -> None:
    info = versioned.put(BUCKET, key("a"), b"aa")
    versioned.put(BUCKET, key("b"), b"b")
    versioned.rename(BUCKET, key("a"), key("b"))
    assert shape(versioned) == [("a", True, True, 0), ("a", False, False, 2), ("b", True, False, 2), ("b", False, False, 1)]
    assert versioned.head(BUCKET, key("b")).file_id == info.file_id


def test_a_renamed_prefix_leaves_markers(versioned: Engine) -> None:
    versioned.put_many(BUCKET, [(key(f"a/{number}"), b"x" * number, PLAIN) for number in (1, 2)])
    versioned.put(BUCKET, key("b/"), b"")
    assert versioned.rename_prefix(BUCKET, "a/", "b/") == 2
    assert keys(versioned) == ["b/1", "b/2"]
    assert shape(versioned, "a/") == [("a/1", True, True, 0), ("a/1", False, False, 1), ("a/2", True, True, 0), ("a/2", False, False, 2)]
    assert shape(versioned, "b/") == [("b/", True, True, 0), ("b/", False, False, 0), ("b/1", True, False, 1), ("b/2", True, False, 2)]


def test_an_exchange_makes_a_version_on_both_sides(versioned: Engine) -> None:
    versioned.put(BUCKET, key("a"), b"1")
    versioned.put(BUCKET, key("b"), b"22")
    versioned.exchange(BUCKET, "a", "b")
    assert shape(versioned) == [("a", True, False, 2), ("a", False, False, 1), ("b", True, False, 1), ("b", False, False, 2)]


def test_links_of_a_file_each_keep_their_versions(versioned: Engine) -> None:
    base = versioned.put(BUCKET, key("a"), b"1")
    versioned.link(BUCKET, key("a"), key("b"))
    versioned.put(BUCKET, key("a"), b"22", How(condition=Matches(base.etag)))
    assert shape(versioned) == [("a", True, False, 2), ("a", False, False, 1), ("b", True, False, 2), ("b", False, False, 1)]
    versioned.delete(BUCKET, key("a"))
    assert read(versioned, "b") == b"22"


def test_while_suspended_only_the_null_version_is_replaced(versioned: Engine) -> None:
    versioned.put(BUCKET, key("a"), b"1")
    versioned.set_versioning(BUCKET, "suspended")
    versioned.put(BUCKET, key("a"), b"22")
    versioned.put(BUCKET, key("a"), b"333")
    assert [(version.version_id == "null", version.size) for version in versioned.versions(BUCKET)] == [(True, 3), (False, 1)]
    versioned.delete(BUCKET, key("a"))
    versioned.put(BUCKET, key("b"), b"")
    assert shape(versioned, "a") == [("a", True, True, 0), ("a", False, False, 1)]
    versioned.put(BUCKET, key("a"), b"4444")
    assert shape(versioned, "a") == [("a", True, False, 4), ("a", False, False, 1)]
    with pytest.raises(ValueError, match="suspended"):
        versioned.set_versioning(BUCKET, "off")


def test_what_was_there_before_versioning_is_the_null_version(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), b"1")
    engine.set_versioning(BUCKET, "enabled")
    engine.put(BUCKET, key("a"), b"22")
    assert [(version.version_id == "null", version.size) for version in engine.versions(BUCKET)] == [(False, 2), (True, 1)]


def test_a_version_removed_for_good_gives_way_to_the_one_before(versioned: Engine) -> None:
    ids = [versioned.put(BUCKET, key("a"), b"x" * size).version_id for size in (1, 2, 3)]
    assert ids[2] is not None
    assert ids[0] is not None
    versioned.delete_version(BUCKET, key("a"), ids[2])
    assert read(versioned, "a") == b"xx"
    versioned.delete_version(BUCKET, key("a"), ids[0])
    versioned.delete_version(BUCKET, key("a"), ids[0])
    assert shape(versioned) == [("a", True, False, 2)]


def test_a_marker_removed_brings_the_object_back(versioned: Engine) -> None:
    versioned.put(BUCKET, key("a"), BIG)
    versioned.delete(BUCKET, key("a"))
    versioned.delete_version(BUCKET, key("a"), versioned.versions(BUCKET)[0].version_id)
    assert read(versioned, "a") == BIG
    versioned.delete_version(BUCKET, key("a"), versioned.versions(BUCKET)[0].version_id)
    versioned.sync()
    assert (shape(versioned), body_files(versioned)) == ([], [])


def test_an_older_version_is_read_by_its_id(versioned: Engine) -> None:
    first = versioned.put(BUCKET, key("a"), BIG, How(metadata={"x": "1"}))
    second = versioned.put(BUCKET, key("a"), b"2")
    assert first.version_id is not None
    assert second.version_id is not None
    for info, data in ((first, BIG), (second, b"2")):
        assert info.version_id is not None
        reader = versioned.open_version(BUCKET, key("a"), info.version_id)
        assert (reader.info.etag, reader.info.metadata, reader.info.version_id) == (info.etag, info.metadata, info.version_id)
        buffer = bytearray(reader.info.size)
        reader.read_into(0, memoryview(buffer))
        reader.close()
        assert buffer == data
    with pytest.raises(NotFound):
        versioned.open_version(BUCKET, key("a"), "absent")

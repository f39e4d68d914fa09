"""Names: hard links, renames of keys and prefixes, exchange, reservations."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.engine.values import PLAIN, How
from s3mount.errors import AlreadyExists, InvalidName, NotFound
from s3mount.model import KEY_BYTES, Absent, Matches
from tests.engine.helpers import BUCKET, body_files, edited, key, keys, read

BIG = bytes(range(256)) * 100


def fill(engine: Engine, *names: str) -> None:
    engine.put_many(BUCKET, [(key(name), name.encode(), PLAIN) for name in names], durable=False)


# -- links ----------------------------------------------------------------------------


def test_links_share_content_and_attributes(engine: Engine) -> None:
    first = engine.put(BUCKET, key("a"), b"one", How(metadata={"x": "1"}))
    linked = engine.link(BUCKET, key("a"), key("b"))
    assert (linked.key, linked.file_id, linked.links, linked.etag) == ("b", first.file_id, 2, first.etag)
    engine.adopt(BUCKET, key("b"), edited(linked, 0, b"TWO"), How(condition=Matches(first.etag), file_id=first.file_id))
    assert read(engine, "a") == read(engine, "b") == b"TWO"
    engine.update(BUCKET, key("a"), {"x": "2"})
    assert engine.head(BUCKET, key("b")).metadata == {"x": "2"}


def test_a_file_lives_until_its_last_name_goes(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), BIG)
    engine.link(BUCKET, key("a"), key("b"))
    engine.delete(BUCKET, key("a"))
    assert (engine.head(BUCKET, key("b")).links, read(engine, "b")) == (1, BIG)
    engine.put(BUCKET, key("b"), b"other")
    engine.sync()
    assert body_files(engine) == []


def test_a_link_needs_a_source_and_a_free_target(engine: Engine) -> None:
    fill(engine, "a", "b")
    with pytest.raises(NotFound):
        engine.link(BUCKET, key("absent"), key("c"))
    for target in ("a", "b"):
        with pytest.raises(AlreadyExists):
            engine.link(BUCKET, key("a"), key(target))


def test_a_put_with_a_file_id_makes_the_key_name_that_file(engine: Engine) -> None:
    first = engine.put(BUCKET, key("a"), b"one", How(file_id=42))
    second = engine.put(BUCKET, key("b"), b"two", How(file_id=42))
    assert (first.links, second.links) == (1, 2)
    assert read(engine, "a") == b"two"


# -- renames --------------------------------------------------------------------------


def test_a_rename_keeps_the_file(engine: Engine) -> None:
    before = engine.put(BUCKET, key("a"), b"one", How(metadata={"x": "1"}))
    engine.rename(BUCKET, key("a"), key("b/c"))
    after = engine.head(BUCKET, key("b/c"))
    assert (after.file_id, after.etag, after.mtime_ns, after.metadata) == (before.file_id, before.etag, before.mtime_ns, {"x": "1"})
    assert keys(engine) == ["b/c"]


def test_a_rename_replaces_its_target_or_refuses_to(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), b"one")
    engine.put(BUCKET, key("b"), BIG)
    with pytest.raises(AlreadyExists):
        engine.rename(BUCKET, key("a"), key("b"), replace=False)
    engine.rename(BUCKET, key("a"), key("b"))
    assert (keys(engine), read(engine, "b")) == (["b"], b"one")
    engine.sync()
    assert body_files(engine) == []


def test_a_rename_onto_another_link_of_the_file_does_nothing(engine: Engine) -> None:
    fill(engine, "a")
    engine.link(BUCKET, key("a"), key("b"))
    engine.rename(BUCKET, key("a"), key("b"))
    engine.rename(BUCKET, key("a"), key("a"))
    assert keys(engine) == ["a", "b"]
    with pytest.raises(AlreadyExists):
        engine.rename(BUCKET, key("a"), key("b"), replace=False)


def test_a_rename_needs_a_source_and_a_valid_target(engine: Engine) -> None:
    fill(engine, "a")
    with pytest.raises(NotFound):
        engine.rename(BUCKET, key("absent"), key("b"))
    with pytest.raises(InvalidName):
        engine.rename(BUCKET, key("a"), key("x" * (KEY_BYTES + 1)))


def test_a_key_that_ends_with_a_slash_is_renamed_alone(engine: Engine) -> None:
    fill(engine, "a/", "a/a")
    engine.rename(BUCKET, key("a/"), key("a"))
    assert keys(engine) == ["a", "a/a"]


def test_a_prefix_is_renamed_with_all_that_begins_with_it_and_nothing_else(engine: Engine) -> None:
    fill(engine, "a", "a-b", "a/", "a/1", "a/b/2", "a/\U0010ffff", "a0", "z")
    assert engine.rename_prefix(BUCKET, "a/", "b/c/") == 4
    assert keys(engine) == ["a", "a-b", "a0", "b/c/", "b/c/1", "b/c/b/2", "b/c/\U0010ffff", "z"]
    assert read(engine, "b/c/b/2") == b"a/b/2"


def test_a_prefix_may_replace_an_empty_directory_but_no_other(engine: Engine) -> None:
    fill(engine, "a/1", "b/", "c/x")
    with pytest.raises(AlreadyExists):
        engine.rename_prefix(BUCKET, "a/", "c/")
    with pytest.raises(AlreadyExists):
        engine.rename_prefix(BUCKET, "a/", "b/", replace=False)
    assert engine.rename_prefix(BUCKET, "a/", "b/") == 1
    assert keys(engine) == ["b/1", "c/x"]


def test_a_prefix_that_cannot_be_renamed_says_why(engine: Engine) -> None:
    fill(engine, "a/1", "long/" + "x" * (KEY_BYTES - 5))
    with pytest.raises(NotFound):
        engine.rename_prefix(BUCKET, "absent/", "b/")
    with pytest.raises(InvalidName):
        engine.rename_prefix(BUCKET, "long/", "longer/")
    for source, target in (("a/", "a/b/"), ("a/", "a/"), ("a", "b/"), ("a/", "b")):
        with pytest.raises(ValueError, match="'"):
            engine.rename_prefix(BUCKET, source, target)
    assert len(keys(engine)) == 2


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("x", "y", {"x": b"y", "y": b"x", "d/1": b"d/1", "d/2": b"d/2", "e/1": b"e/1"}),
        ("d/", "e/", {"x": b"x", "y": b"y", "d/1": b"e/1", "e/1": b"d/1", "e/2": b"d/2"}),
        ("x", "d/", {"y": b"y", "d": b"x", "x/1": b"d/1", "x/2": b"d/2", "e/1": b"e/1"}),
        ("x", "x", {"x": b"x", "y": b"y", "d/1": b"d/1", "d/2": b"d/2", "e/1": b"e/1"}),
    ],
)
def test_an_exchange_swaps_names_of_any_kind(engine: Engine, a: str, b: str, expected: dict[str, bytes]) -> None:
    fill(engine, "x", "y", "d/1", "d/2", "e/1")
    engine.exchange(BUCKET, a, b)
    assert {name: read(engine, name) for name in keys(engine)} == expected


def test_an_exchange_that_cannot_be_says_why(engine: Engine) -> None:
    fill(engine, "x", "d/1", "d/e/1", "d")
    for a, b in (("x", "absent"), ("absent/", "x")):
        with pytest.raises(NotFound):
            engine.exchange(BUCKET, a, b)
    with pytest.raises(ValueError, match="inside each other"):
        engine.exchange(BUCKET, "d/", "d/e/")
    with pytest.raises(AlreadyExists):
        engine.exchange(BUCKET, "x", "d/")


# -- reservations ---------------------------------------------------------------------


def test_a_reservation_holds_against_everybody_until_it_is_committed(engine: Engine) -> None:
    with Engine.open(engine.folder) as other:
        engine.reserve(BUCKET, key("a"))
        assert not keys(engine)
        for one in (engine, other):
            with pytest.raises(AlreadyExists):
                one.reserve(BUCKET, key("a"))
        with pytest.raises(AlreadyExists):
            other.put(BUCKET, key("a"), b"theirs", How(condition=Absent()))
        engine.put(BUCKET, key("a"), b"ours", How(condition=Absent()))
        engine.delete(BUCKET, key("a"))
        other.put(BUCKET, key("a"), b"theirs", How(condition=Absent()))


def test_a_released_reservation_is_free(engine: Engine) -> None:
    with Engine.open(engine.folder) as other:
        engine.reserve(BUCKET, key("a"))
        engine.release(BUCKET, key("a"))
        engine.release(BUCKET, key("a"))
        other.reserve(BUCKET, key("a"))


def test_a_reservation_ends_with_its_process(engine: Engine) -> None:
    other = Engine.open(engine.folder)
    other.reserve(BUCKET, key("a"))
    other.owner.close()  # as the kernel does when the process is killed
    engine.reserve(BUCKET, key("a"))
    engine.put(BUCKET, key("a"), b"", How(condition=Absent()))
    other.close()


def test_what_a_killed_process_had_staged_goes_with_the_next_opening(engine: Engine) -> None:
    other = Engine.open(engine.folder)
    (other.staging / "half").write_bytes(b"half an object")
    other.owner.close()  # as the kernel does when the process is killed
    assert (other.staging / "half").exists()
    with Engine.open(engine.folder):
        assert not other.staging.exists()
        assert engine.staging.exists()
    other.close()


def test_a_refused_commit_leaves_the_reservation(engine: Engine, tmp_path: Path) -> None:
    base = engine.put(BUCKET, key("base"), b"one")
    engine.put(BUCKET, key("base"), b"two", How(file_id=base.file_id))
    engine.reserve(BUCKET, key("a"))
    with pytest.raises(Exception, match="another version"):
        engine.adopt(BUCKET, key("a"), edited(base, 0, b"x"), How(condition=Absent()))
    with pytest.raises(AlreadyExists):
        engine.reserve(BUCKET, key("a"))


def test_nothing_but_a_replacing_commit_takes_a_reserved_name(engine: Engine) -> None:
    fill(engine, "b")
    with Engine.open(engine.folder) as other:
        engine.reserve(BUCKET, key("a"))
        for call in (
            lambda: other.rename(BUCKET, key("b"), key("a"), replace=False),
            lambda: other.link(BUCKET, key("b"), key("a")),
        ):
            with pytest.raises(AlreadyExists):
                call()
        other.put(BUCKET, key("a"), b"theirs")
    with pytest.raises(AlreadyExists):
        engine.put(BUCKET, key("a"), b"ours", How(condition=Absent()))

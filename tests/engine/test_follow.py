"""What others than this process change in a bucket, told out of the log."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.engine import records
from s3mount.engine.engine import Engine
from s3mount.engine.follow import Follower
from s3mount.engine.log import Log
from s3mount.engine.records import Record, Write, encode
from s3mount.engine.values import How
from s3mount.errors import NoSuchBucket
from s3mount.model import Changed, Key
from tests.engine.helpers import BUCKET, key

NOTHING = Changed()


def keys(*names: str) -> Changed:
    return Changed(keys=frozenset(names))


@pytest.fixture
def other(engine: Engine) -> Iterator[Engine]:
    with Engine.open(engine.folder) as other:
        yield other


@pytest.fixture
def follower(engine: Engine) -> Follower:
    return engine.follow(BUCKET)


def put(engine: Engine, name: str, data: bytes = b"text") -> None:
    engine.put(BUCKET, key(name), data, durable=False)


def test_nothing_is_told_where_nobody_did_anything(follower: Follower) -> None:
    assert follower.changed() == NOTHING


def test_our_own_changes_are_not_told(engine: Engine, follower: Follower) -> None:
    for number in range(3):
        put(engine, f"file {number}")
    engine.delete(BUCKET, key("file 1"), durable=False)
    engine.sync()
    assert follower.changed() == NOTHING


def test_what_another_process_writes_and_removes_is_told_once(other: Engine, follower: Follower) -> None:
    put(other, "new")
    other.delete(BUCKET, key("new"), durable=False)
    put(other, "newer")
    assert follower.changed() == keys("new", "newer")
    assert follower.changed() == NOTHING


def test_what_was_there_before_is_not_told(engine: Engine, other: Engine) -> None:
    put(other, "old")
    assert engine.follow(BUCKET).changed() == NOTHING


def test_only_theirs_is_told_of_what_we_did_in_turns(engine: Engine, other: Engine, follower: Follower) -> None:
    for number in range(4):
        put(engine, f"ours {number}")
        put(other, f"theirs {number}")
    assert follower.changed() == keys(*(f"theirs {number}" for number in range(4)))


def test_what_is_told_can_be_looked_at(engine: Engine, other: Engine, follower: Follower) -> None:
    put(other, "new", b"12345")
    assert follower.changed() == keys("new")
    assert engine.head(BUCKET, key("new")).size == 5


def test_a_change_of_a_file_is_told_under_all_its_names(engine: Engine, other: Engine, follower: Follower) -> None:
    put(engine, "file")
    engine.link(BUCKET, key("file"), key("other name"), durable=False)
    other.update(BUCKET, key("file"), {"mode": "1"}, durable=False)
    assert follower.changed() == keys("file", "other name")
    other.link(BUCKET, key("file"), key("third"), durable=False)
    assert follower.changed() == keys("file", "other name", "third")


def test_a_write_to_a_file_by_its_id_is_told_under_its_name(engine: Engine, other: Engine, follower: Follower) -> None:
    info = engine.put(BUCKET, key("file"), b"text", durable=False)
    other.put(BUCKET, key("file"), b"other text", How(file_id=info.file_id), durable=False)
    assert follower.changed() == keys("file")


def test_renames_are_told_at_both_ends(engine: Engine, other: Engine, follower: Follower) -> None:
    for name in ("a", "folder/b", "x/1", "y"):
        put(engine, name)
    other.rename(BUCKET, key("a"), key("c"), durable=False)
    assert follower.changed() == keys("a", "c")
    other.rename_prefix(BUCKET, "folder/", "archive/", durable=False)
    assert follower.changed() == Changed(prefixes=frozenset({"folder/", "archive/"}))
    other.exchange(BUCKET, "x/", "y", durable=False)
    assert follower.changed() == Changed(frozenset({"x", "y"}), frozenset({"x/", "y/"}))


def test_an_upload_is_told_when_it_is_complete(other: Engine, follower: Follower) -> None:
    upload = other.create_upload(BUCKET, key("large"), durable=False)
    part = other.put_part(BUCKET, upload, 1, b"text", durable=False)
    assert follower.changed() == NOTHING
    other.complete_upload(BUCKET, upload, [part], durable=False)
    assert follower.changed() == keys("large")


def test_other_buckets_are_nobodys_business(engine: Engine, other: Engine, follower: Follower) -> None:
    other.create_bucket("another")
    other.put("another", key("file"), b"text", durable=False)
    assert follower.changed() == NOTHING
    with pytest.raises(NoSuchBucket):
        engine.follow("no-such-bucket")


def test_a_bucket_that_is_gone_is_lost(other: Engine, follower: Follower) -> None:
    other.delete_bucket(BUCKET)
    other.create_bucket(BUCKET)
    assert follower.changed().lost


def test_records_that_compaction_dropped_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log.__init__, "__kwdefaults__", {"segment_bytes": 20_000})
    with Engine.open(tmp_path / "data") as engine, Engine.open(tmp_path / "data") as other:
        engine.create_bucket(BUCKET)
        follower = engine.follow(BUCKET)
        for number in range(60):
            put(other, f"file {number % 20}", b"%d" % number * 500)
        assert other.compact().segments > 0
        assert follower.changed().lost
        put(other, "newer")
        assert follower.changed() == keys("newer")


def test_more_than_one_would_name_is_lost(other: Engine, follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3mount.engine.follow.TOLD_MOST", 3)
    other.put_many(BUCKET, ((Key(f"file {number}"), b"", How()) for number in range(4)), durable=False)
    assert follower.changed().lost


def test_a_change_whose_outcome_was_open_is_told_when_it_turns_out(engine: Engine, other: Engine, follower: Follower) -> None:
    """Its record was appended by us, but the index could not follow: whoever asked was told that nobody knows."""
    engine.log.append(_record_of(other), [])
    put(other, "theirs")
    assert follower.changed() == keys("ours", "theirs")


def _record_of(other: Engine) -> bytes:
    """The payload of a commit that puts an empty object."""
    (bucket,) = (info.id for info in other.buckets() if info.name == BUCKET)
    write = Write(bucket, b"ours", 12345, 0, "", 0, '"tag"', 1, "text/plain", "STANDARD", None, ())
    return encode(Record(1, (), (write,)))


def test_what_a_newer_program_wrote_is_not_understood_but_known_of(
    monkeypatch: pytest.MonkeyPatch, other: Engine, follower: Follower
) -> None:
    """Regression: a mount of the older one ended with that."""
    put(other, "new")
    with monkeypatch.context() as patched:
        patched.delitem(records._KINDS, records._CODES[Write])
        assert follower.changed() == Changed(lost=True)
    assert follower.changed() == NOTHING


def test_where_the_log_cannot_be_opened_anything_may_have_changed(
    monkeypatch: pytest.MonkeyPatch, other: Engine, follower: Follower
) -> None:
    """Regression: a mount that had no descriptor left for a moment ended with that."""
    put(other, "new")

    def refuses(segment: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(follower._log, "open_segment", refuses)
        assert follower.changed() == Changed(lost=True)
    put(other, "newer")
    assert follower.changed() == keys("newer")

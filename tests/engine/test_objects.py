"""Objects: put, adopt, edit, update, copy, delete, and what a reader keeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3mount.engine import objects
from s3mount.engine.engine import Engine
from s3mount.engine.values import COMMIT_ID, INLINE_BYTES, PLAIN, How
from s3mount.errors import AlreadyExists, NotFound, PreconditionFailed
from s3mount.model import Absent, Content, ETag, Hole, Kept, KiB, Matches, MiB, Staged
from tests.engine.helpers import BUCKET, InFile, InMemory, body_files, edited, key, keys, read, whole

BIG = random.Random(1).randbytes(200 * KiB)


def test_an_object_is_read_as_it_was_put(engine: Engine) -> None:
    for name, data in (("empty", b""), ("small", b"small"), ("edge", BIG[:INLINE_BYTES]), ("big", BIG)):
        info = engine.put(BUCKET, key(name), data)
        assert info.size == len(data)
        assert engine.head(BUCKET, key(name)) == info
        assert read(engine, name) == data


def test_a_put_says_all_that_it_was_told(engine: Engine) -> None:
    how = How(metadata={"mode": "33188"}, content_type="text/plain", storage_class="GLACIER", commit_id="c1", file_id=77)
    info = engine.put(BUCKET, key("a"), memoryview(bytearray(b"abc")), how, etag="900150983cd24fb0d6963f7d28e17f72")
    assert (info.etag, info.file_id, info.links) == ("900150983cd24fb0d6963f7d28e17f72", 77, 1)
    assert info.metadata == {"mode": "33188", COMMIT_ID: "c1"}
    assert (info.content_type, info.storage_class) == ("text/plain", "GLACIER")


def test_each_version_has_its_own_etag_with_a_dash(engine: Engine) -> None:
    tags = {engine.put(BUCKET, key("a"), b"same").etag for _ in range(3)}
    assert len(tags) == 3
    assert all("-" in tag for tag in tags)


def test_the_same_bytes_are_stored_once(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), BIG)
    engine.put(BUCKET, key("b"), BIG)
    source = InFile(engine.staging, BIG)
    engine.adopt(BUCKET, key("c"), whole(source))
    source.close()
    assert len(body_files(engine)) == 1
    for name in ("a", "b"):
        engine.delete(BUCKET, key(name))
    engine.sync()
    assert read(engine, "c") == BIG
    engine.delete(BUCKET, key("c"))
    engine.sync()
    assert body_files(engine) == []


def test_a_staged_file_is_taken_over_without_a_copy(engine: Engine) -> None:
    source = InFile(engine.staging, BIG)
    inode = source.path.stat().st_ino
    engine.adopt(BUCKET, key("a"), whole(source))
    assert not source.path.exists()
    assert [path.stat().st_ino for path in body_files(engine)] == [inode]
    assert read(engine, "a") == BIG
    source.close()


def test_a_staged_file_goes_by_the_hash_that_its_owner_knows(engine: Engine) -> None:
    class Hashed(InFile):
        digest = b"\xab" * 32

    source = Hashed(engine.staging, BIG)
    engine.adopt(BUCKET, key("a"), whole(source))
    source.close()
    assert [path.name.startswith("ab" * 32) for path in body_files(engine)] == [True]


def test_a_staged_file_that_is_hardly_used_is_copied_from(engine: Engine) -> None:
    source = InFile(engine.staging, BIG)
    engine.adopt(BUCKET, key("a"), Content(50_000, (Hole(0, 10_000), Staged(10_000, 40_000, source, 5))))
    source.close()
    assert read(engine, "a") == bytes(10_000) + BIG[5:40_005]
    assert [path.stat().st_size for path in body_files(engine)] == [40_000]


def test_a_source_whose_name_is_gone_is_read_through_its_descriptor(engine: Engine) -> None:
    source = InFile(engine.staging, BIG)
    source.path.unlink()
    engine.adopt(BUCKET, key("a"), whole(source))
    source.close()
    assert read(engine, "a") == BIG


def test_after_a_refusal_the_staged_file_is_still_the_callers(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), b"")
    source = InFile(engine.staging, BIG)
    with pytest.raises(AlreadyExists):
        engine.adopt(BUCKET, key("a"), whole(source), How(condition=Absent()))
    assert source.path.read_bytes() == BIG
    assert [path.name for path in engine.staging.iterdir() if path.name != "owner.lock"] == [source.path.name]
    engine.adopt(BUCKET, key("a"), whole(source))
    source.close()
    assert read(engine, "a") == BIG


def test_a_put_that_is_refused_leaves_no_file(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), b"")
    with pytest.raises(AlreadyExists):
        engine.put(BUCKET, key("a"), BIG, How(condition=Absent()))
    assert [path.name for path in engine.staging.iterdir()] == ["owner.lock"]
    assert body_files(engine) == []


def test_an_edit_writes_only_what_changed(engine: Engine) -> None:
    source = InFile(engine.staging, bytes(64 * MiB))
    base = engine.adopt(BUCKET, key("a"), whole(source), durable=False)
    source.close()
    before = sum(path.stat().st_size for path in (engine.folder / "log").iterdir())
    engine.adopt(BUCKET, key("a"), edited(base, 33 * MiB, b"x" * 4096), How(condition=Matches(base.etag), file_id=base.file_id))
    assert sum(path.stat().st_size for path in (engine.folder / "log").iterdir()) - before < 5 * KiB
    assert len(body_files(engine)) == 1
    reader = engine.open_object(BUCKET, key("a"))
    buffer = bytearray(4098)
    reader.read_into(33 * MiB - 1, memoryview(buffer))
    reader.close()
    assert buffer == b"\0" + b"x" * 4096 + b"\0"


def test_an_edit_of_another_version_than_the_current_is_refused(engine: Engine) -> None:
    base = engine.put(BUCKET, key("a"), b"one")
    engine.put(BUCKET, key("a"), b"two", How(file_id=base.file_id))
    for how in (PLAIN, How(condition=Matches(base.etag), file_id=base.file_id)):
        with pytest.raises(PreconditionFailed):
            engine.adopt(BUCKET, key("a"), edited(base, 1, b"x"), how)
    assert read(engine, "a") == b"two"


def test_an_edit_under_another_file_id_leaves_the_base_alone(engine: Engine) -> None:
    base = engine.put(BUCKET, key("a"), b"0123456789")
    engine.adopt(BUCKET, key("b"), edited(base, 3, b"xyz"), How(file_id=55))
    assert (read(engine, "a"), read(engine, "b")) == (b"0123456789", b"012xyz6789")
    assert engine.head(BUCKET, key("b")).file_id == 55


def extents(engine: Engine, file: int) -> list[tuple[int, int]]:
    with engine.index.read() as db:
        return db.execute("SELECT offset, length FROM extent WHERE file = ? ORDER BY offset", (file,)).fetchall()


def test_many_small_appends_leave_few_extents_and_write_little(engine: Engine) -> None:
    info = engine.put(BUCKET, key("log"), b"", durable=False)
    model = b""
    for number in range(300):
        line = b"line %d\n" % number * 5
        info = engine.adopt(BUCKET, key("log"), edited(info, info.size, line), How(file_id=info.file_id), durable=False)
        model += line
    assert read(engine, "log") == model
    assert len(extents(engine, info.file_id)) < 20
    assert sum(path.stat().st_size for path in (engine.folder / "log").iterdir()) < 512 * KiB


def test_a_page_written_again_and_again_stays_small(engine: Engine) -> None:
    info = engine.put(BUCKET, key("db"), bytes(1 * MiB), durable=False)
    some = random.Random(4)
    model = bytearray(1 * MiB)
    for _ in range(300):
        page, data = some.randrange(32) * 4096, some.randbytes(4096)
        model[page : page + 4096] = data
        info = engine.adopt(BUCKET, key("db"), edited(info, page, data), How(file_id=info.file_id), durable=False)
    assert read(engine, "db") == model
    assert len(extents(engine, info.file_id)) < 20


EDIT = st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=20), st.sampled_from(["edit", "cut", "grow"]))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.lists(EDIT, max_size=8))
def test_any_row_of_edits_gives_what_a_file_would_hold(engine: Engine, start: bytes, edits: list[tuple[int, bytes, str]]) -> None:
    info = engine.put(BUCKET, key("a"), start, durable=False)
    model = bytearray(start)
    for offset, data, kind in edits:
        if kind == "edit":
            model += bytes(max(0, offset - len(model)))
            model[offset : offset + len(data)] = data
            content = edited(info, offset, data)
        elif kind == "cut":
            del model[offset:]
            content = Content(len(model), (Kept(0, len(model)),) if model else (), info)
        else:
            pieces = (Kept(0, len(model)),) if model else ()
            content = Content(len(model) + 7, (*pieces, Hole(len(model), 7)), info)
            model += bytes(7)
        info = engine.adopt(BUCKET, key("a"), content, How(condition=Matches(info.etag), file_id=info.file_id), durable=False)
        assert info.size == len(model)
        assert read(engine, "a") == model
    assert engine.check() == []


def test_absent_and_matches_are_judged(engine: Engine) -> None:
    first = engine.put(BUCKET, key("a"), b"1", How(condition=Absent()))
    with pytest.raises(AlreadyExists):
        engine.put(BUCKET, key("a"), b"2", How(condition=Absent()))
    second = engine.put(BUCKET, key("a"), b"2", How(condition=Matches(first.etag)))
    assert second.file_id == first.file_id
    for name in ("a", "b"):
        with pytest.raises(PreconditionFailed):
            engine.put(BUCKET, key(name), b"3", How(condition=Matches(first.etag)))
    assert read(engine, "a") == b"2"


def test_under_matches_the_file_is_found_by_its_id_whatever_its_name(engine: Engine) -> None:
    info = engine.put(BUCKET, key("a"), b"1")
    engine.rename(BUCKET, key("a"), key("b"))
    written = engine.put(BUCKET, key("a"), b"2", How(condition=Matches(info.etag), file_id=info.file_id))
    assert written.key == "b"
    assert (keys(engine), read(engine, "b")) == (["b"], b"2")
    engine.delete(BUCKET, key("b"))
    with pytest.raises(PreconditionFailed):
        engine.put(BUCKET, key("a"), b"3", How(condition=Matches(written.etag), file_id=info.file_id))


def test_a_plain_put_makes_a_new_file_and_leaves_other_links_the_old_one(engine: Engine) -> None:
    old = engine.put(BUCKET, key("a"), b"1")
    engine.link(BUCKET, key("a"), key("b"))
    new = engine.put(BUCKET, key("a"), b"2")
    assert new.file_id != old.file_id
    assert (read(engine, "a"), read(engine, "b")) == (b"2", b"1")
    assert engine.head(BUCKET, key("b")).links == 1


def test_an_update_changes_the_metadata_and_nothing_else(engine: Engine) -> None:
    before = engine.put(BUCKET, key("a"), BIG, How(metadata={"a": "1"}))
    after = engine.update(BUCKET, key("a"), {"b": "2"}, if_match=before.etag)
    assert after.metadata == {"b": "2"}
    assert (after.etag, after.mtime_ns, after.size, after.file_id) == (before.etag, before.mtime_ns, before.size, before.file_id)
    engine.rename(BUCKET, key("a"), key("c"))
    assert engine.update(BUCKET, key("a"), {}, file_id=before.file_id).key == "c"
    with pytest.raises(NotFound):
        engine.update(BUCKET, key("a"), {})
    with pytest.raises(PreconditionFailed):
        engine.update(BUCKET, key("c"), {}, if_match=ETag("other"))


def test_a_copy_shares_the_bytes_and_goes_its_own_way(engine: Engine) -> None:
    engine.create_bucket("another")
    source = engine.put(BUCKET, key("a"), BIG, How(metadata={"a": "1"}, content_type="x/y"))
    same = engine.copy(BUCKET, key("a"), key("b"))
    other = engine.copy(BUCKET, key("a"), key("c"), target_bucket="another", how=How(metadata={"c": "3"}))
    assert (same.metadata, same.content_type) == ({"a": "1"}, "x/y")
    assert (other.metadata, other.content_type) == ({"c": "3"}, "application/octet-stream")
    assert len({source.file_id, same.file_id, other.file_id}) == 3
    assert len(body_files(engine)) == 1
    engine.adopt(BUCKET, key("a"), edited(source, 100, b"changed"), How(file_id=source.file_id))
    engine.delete(BUCKET, key("a"))
    assert read(engine, "b") == read(engine, "c", bucket="another") == BIG


def test_a_copy_onto_itself_replaces_the_metadata(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), BIG, How(metadata={"a": "1"}))
    engine.copy(BUCKET, key("a"), key("a"), how=How(metadata={"b": "2"}))
    assert engine.head(BUCKET, key("a")).metadata == {"b": "2"}
    assert read(engine, "a") == BIG


def test_a_copy_judges_both_sides(engine: Engine) -> None:
    info = engine.put(BUCKET, key("a"), b"1")
    with pytest.raises(NotFound):
        engine.copy(BUCKET, key("absent"), key("b"))
    with pytest.raises(PreconditionFailed):
        engine.copy(BUCKET, key("a"), key("b"), if_match=ETag("other"))
    with pytest.raises(AlreadyExists):
        engine.copy(BUCKET, key("a"), key("a"), how=How(condition=Absent()))
    assert engine.head(BUCKET, key("a")) == info


def test_a_delete_is_idempotent_but_judges_what_it_finds(engine: Engine) -> None:
    info = engine.put(BUCKET, key("a"), b"1")
    with pytest.raises(PreconditionFailed):
        engine.delete(BUCKET, key("a"), if_match=ETag("other"))
    engine.delete(BUCKET, key("a"), if_match=info.etag)
    engine.delete(BUCKET, key("a"), if_match=info.etag)
    with pytest.raises(NotFound):
        engine.head(BUCKET, key("a"))


def test_many_are_deleted_at_once_and_bad_keys_come_back(engine: Engine) -> None:
    engine.put_many(BUCKET, [(key(f"{number}"), b"", PLAIN) for number in range(5)])
    failed = engine.delete_many(BUCKET, [key(name) for name in ("1", "3", "1", "absent", "")])
    assert [failure.key for failure in failed] == [""]
    assert keys(engine) == ["0", "2", "4"]
    with pytest.raises(ValueError, match="1001"):
        engine.delete_many(BUCKET, [key("x")] * 1001)


def test_many_are_put_with_all_that_belongs_to_them(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MANY", 50)
    engine.put_many(BUCKET, ((key(f"{number:05}"), b"%d" % number, How(metadata={"n": str(number)})) for number in range(120)))
    assert len(keys(engine)) == 120
    assert read(engine, "00099") == b"99"
    assert engine.head(BUCKET, key("00119")).metadata == {"n": "119"}


REPLACE: list[Callable[[Engine], object]] = [
    lambda engine: engine.delete(BUCKET, key("a")),
    lambda engine: engine.put(BUCKET, key("a"), b"other"),
    lambda engine: engine.rename(BUCKET, key("b"), key("a")),
    lambda engine: engine.adopt(BUCKET, key("a"), edited(engine.head(BUCKET, key("a")), 0, b"x" * 99)),
]


@pytest.mark.parametrize("replace", REPLACE)
@pytest.mark.parametrize("data", [b"", b"small", BIG])
def test_a_reader_keeps_its_version_whatever_happens(engine: Engine, replace: Callable[[Engine], object], data: bytes) -> None:
    engine.put(BUCKET, key("a"), data)
    engine.put(BUCKET, key("b"), b"b")
    reader = engine.open_object(BUCKET, key("a"))
    replace(engine)
    engine.sync()
    engine.sweep(grace_seconds=0)
    buffer = bytearray(len(data))
    reader.read_into(0, memoryview(buffer))
    reader.close()
    assert buffer == data


def test_a_reader_of_many_bodies_keeps_them_by_leases(engine: Engine) -> None:
    parts = [random.Random(number).randbytes(20_000) for number in range(40)]
    info = engine.put(BUCKET, key("a"), parts[0])
    for part in parts[1:]:
        info = engine.adopt(BUCKET, key("a"), edited(info, info.size, part), How(file_id=info.file_id), durable=False)
    assert engine.open_object_nowait(BUCKET, key("a")) is None
    reader = engine.open_object(BUCKET, key("a"))
    engine.delete(BUCKET, key("a"))
    engine.sync()
    engine.sweep(grace_seconds=0)
    assert len(body_files(engine)) == 40
    buffer = bytearray(info.size)
    reader.read_into(0, memoryview(buffer))
    assert buffer == b"".join(parts)
    reader.close()
    engine.sync()
    assert body_files(engine) == []


def test_a_reader_wants_the_version_it_names(engine: Engine) -> None:
    info = engine.put(BUCKET, key("a"), b"1")
    engine.open_object(BUCKET, key("a"), if_match=info.etag).close()
    with pytest.raises(PreconditionFailed):
        engine.open_object(BUCKET, key("a"), if_match=ETag("other"))
    with pytest.raises(NotFound):
        engine.open_object_nowait(BUCKET, key("absent"))
    quick = engine.open_object_nowait(BUCKET, key("a"))
    assert quick is not None
    quick.close()


def test_a_sparse_object_takes_no_room(engine: Engine) -> None:
    size = 6 << 30
    content = Content(size, (Hole(0, size - 3), Staged(size - 3, 3, InMemory(b"end"), 0)))
    engine.adopt(BUCKET, key("a"), content)
    reader = engine.open_object(BUCKET, key("a"))
    buffer = bytearray(b"x" * 6)
    reader.read_into(size - 6, memoryview(buffer))
    reader.close()
    assert buffer == b"\0\0\0end"


@pytest.mark.slow
def test_an_object_of_6_gib_is_adopted_and_read_in_constant_memory(engine: Engine) -> None:
    source = InFile(engine.staging, b"")
    source.length = 6 << 30
    with source.path.open("r+b") as file:
        file.truncate(source.length)
        file.seek(5 << 30)
        file.write(b"here")
    before = anonymous_kib()
    engine.adopt(BUCKET, key("a"), whole(source), durable=False)
    source.close()
    reader = engine.open_object(BUCKET, key("a"))
    buffer = bytearray(1 * MiB)
    for offset in range(0, reader.info.size, 512 * MiB):
        reader.read_into(offset, memoryview(buffer))
        assert buffer[:4] == (b"here" if offset == 5 << 30 else bytes(4))
    reader.close()
    assert anonymous_kib() - before < 64 * 1024


def anonymous_kib() -> int:
    """Memory of this process that is no page of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_everything_is_there_when_the_folder_is_opened_again(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), BIG, durable=False)
    engine.put(BUCKET, key("b"), b"small", How(metadata={"x": "y"}), durable=False)
    before = engine.list(BUCKET)
    with Engine.open(engine.folder) as other:
        assert other.list(BUCKET) == before
        assert read(other, "a") == BIG
        other.put(BUCKET, key("c"), b"theirs")
    assert read(engine, "c") == b"theirs"
    engine.put(BUCKET, key("d"), b"ours")

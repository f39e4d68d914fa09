"""What a server keeps with versions and buckets: it comes back, survives a rebuild and a compaction, and older logs replay without it."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest

from s3mount.engine import records
from s3mount.engine.contents import StagedFile
from s3mount.engine.engine import Engine
from s3mount.engine.records import Record, Remove, Write
from s3mount.engine.values import Doomed, How, Removed, VersionInfo
from s3mount.engine.version_queries import Place
from s3mount.errors import NoSuchUpload, NotFound, PreconditionFailed
from s3mount.model import Content, MiB, ObjectInfo, Staged
from tests.engine.helpers import BUCKET, key


def test_extra_stays_with_each_version(engine: Engine) -> None:
    engine.set_versioning(BUCKET, "enabled")
    first = engine.put(BUCKET, key("a"), b"1", How(extra=b"one"))
    engine.put(BUCKET, key("a"), b"2", How(extra=b"two"))
    assert engine.head(BUCKET, key("a")).extra == b"two"
    assert first.version_id is not None
    assert engine.head_version(BUCKET, key("a"), first.version_id).extra == b"one"
    assert [version.extra for version in engine.versions(BUCKET)] == [b"two", b"one"]


def test_extra_is_copied_or_replaced(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), b"1", How(extra=b"one"))
    assert engine.copy(BUCKET, key("a"), key("b")).extra == b"one"
    assert engine.copy(BUCKET, key("a"), key("c"), how=How(extra=b"other")).extra == b"other"


def test_extra_can_be_changed_alone(engine: Engine) -> None:
    before = engine.put(BUCKET, key("a"), b"1", How(extra=b"one"))
    engine.set_extra(BUCKET, key("a"), lambda info: (info.extra or b"") + b"+")
    after = engine.head(BUCKET, key("a"))
    assert (after.extra, after.etag, after.mtime_ns) == (b"one+", before.etag, before.mtime_ns)
    with pytest.raises(NotFound):
        engine.set_extra(BUCKET, key("absent"), lambda info: None)


def test_extra_of_an_upload_and_its_parts(engine: Engine) -> None:
    upload = engine.create_upload(BUCKET, key("a"), How(extra=b"plan", content_type="text/x"))
    part = engine.put_part(BUCKET, upload, 1, b"1", extra=b"sum")
    assert [info.extra for info in engine.part_infos(BUCKET, upload)] == [b"sum"]
    assert (engine.upload_info(BUCKET, key("a"), upload.upload_id).extra, engine.upload_page(BUCKET).uploads[0].content_type) == (
        b"plan",
        "text/x",
    )
    with pytest.raises(NoSuchUpload):
        engine.upload_info(BUCKET, key("b"), upload.upload_id)
    assert engine.complete_upload(BUCKET, upload, [part], extra=b"made").extra == b"made"
    other = engine.create_upload(BUCKET, key("b"), How(extra=b"plan"))
    assert engine.complete_upload(BUCKET, other, [engine.put_part(BUCKET, other, 1, b"1")]).extra == b"plan"


def test_settings_of_a_bucket_go_with_it(engine: Engine) -> None:
    engine.set_setting(BUCKET, "cors", b"rules")
    assert engine.setting(BUCKET, "cors") == b"rules"
    engine.set_setting(BUCKET, "cors", None)
    assert engine.setting(BUCKET, "cors") is None
    engine.set_setting(BUCKET, "cors", b"again")
    engine.delete_bucket(BUCKET)
    engine.create_bucket(BUCKET)
    assert engine.setting(BUCKET, "cors") is None


def test_all_of_it_survives_a_rebuild(tmp_path: Path) -> None:
    with Engine.open(tmp_path) as engine:
        engine.create_bucket(BUCKET)
        engine.set_setting(BUCKET, "cors", b"rules")
        engine.put(BUCKET, key("a"), b"1", How(extra=b"one"))
    for file in tmp_path.glob("index*"):
        file.unlink()
    with Engine.open(tmp_path) as engine:
        assert (engine.setting(BUCKET, "cors"), engine.head(BUCKET, key("a")).extra) == (b"rules", b"one")


def test_a_record_without_the_later_fields_is_read() -> None:
    write = Write(1, b"k", 2, 0, "", 0, "e", 3, "t", "STANDARD", None, ())
    old = msgpack.packb((5, [], [(4, 1, b"k", 2, 0, "", 0, "e", 3, "t", "STANDARD", None, []), (6, 1, [b"k"], 3)]))
    assert records.decode(old) == Record(5, (), (write, Remove(1, (b"k",), 3)))


def test_a_staged_file_with_its_hash_is_taken_over(engine: Engine) -> None:
    data = bytes(range(256)) * 4096
    path = engine.bodies.stage_path()
    path.write_bytes(data)
    staged = StagedFile(path, len(data), engine.bodies.hash_bytes(data))
    engine.adopt(BUCKET, key("a"), Content(len(data), (Staged(0, len(data), staged, 0),)))
    assert not path.exists()
    reader = engine.open_object(BUCKET, key("a"))
    buffer = bytearray(MiB)
    reader.read_into(0, memoryview(buffer))
    reader.close()
    assert buffer == data


# -- removing -------------------------------------------------------------------------------


def test_removing_nothing_leaves_a_marker_only_where_versions_are_kept(engine: Engine) -> None:
    assert engine.remove(BUCKET, [Doomed(key("a"))]) == [Removed(key("a"), None, marker=False)]
    engine.set_versioning(BUCKET, "enabled")
    (removed,) = engine.remove(BUCKET, [Doomed(key("a"))])
    assert isinstance(removed, Removed)
    marker = engine.find_marker(BUCKET, key("a"))
    assert marker is not None
    assert (removed.marker, removed.marker_version) == (True, marker.version_id)
    (again,) = engine.remove(BUCKET, [Doomed(key("a"), marker.version_id)])
    assert again == Removed(key("a"), marker.version_id, marker=True)
    assert engine.versions(BUCKET) == []


def test_a_condition_spares_one_of_many(engine: Engine) -> None:
    def refuse(info: ObjectInfo | None) -> None:
        raise PreconditionFailed("no")

    for name in "ab":
        engine.put(BUCKET, key(name), b"1")
    first, second = engine.remove(BUCKET, [Doomed(key("a"), check=refuse), Doomed(key("b"))])
    assert isinstance(first, PreconditionFailed)
    assert isinstance(second, Removed)
    assert [info.key for info in engine.list(BUCKET).objects] == ["a"]


# -- pages of versions ----------------------------------------------------------------------


def test_pages_of_versions_join_to_the_whole(engine: Engine) -> None:
    engine.set_versioning(BUCKET, "enabled")
    for name in ("a", "b", "b", "c/1", "c/2", "d", "b"):
        engine.put(BUCKET, key(name), b"1")
    engine.remove(BUCKET, [Doomed(key("d"))])
    whole = list(engine.versions(BUCKET))
    for limit in (1, 2, 3):
        found: list[VersionInfo] = []
        after = Place()
        while True:
            page = engine.version_page(BUCKET, after=after, limit=limit)
            found += page.versions
            if page.next is None:
                break
            after = Place(*page.next)
        assert found == whole


def test_versions_are_rolled_up_behind_a_marker_too(engine: Engine) -> None:
    engine.set_versioning(BUCKET, "enabled")
    for name in ("a", "c/1", "c/2", "d"):
        engine.put(BUCKET, key(name), b"1")
    page = engine.version_page(BUCKET, delimiter="/", limit=2)
    assert ([each.key for each in page.versions], page.prefixes, page.next) == (["a"], ("c/",), ("c/", None))
    rest = engine.version_page(BUCKET, delimiter="/", after=Place("c/"), limit=2)
    assert ([each.key for each in rest.versions], rest.prefixes, rest.next) == (["d"], (), None)

"""Multipart uploads."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3mount.engine.engine import Engine
from s3mount.engine.values import COMMIT_ID, How
from s3mount.errors import AlreadyExists, InvalidName, InvalidPart, NoSuchUpload, NotFound, PreconditionFailed
from s3mount.model import Absent, ByteRange, Content, ETag, Hole, Matches, Part, Staged, Upload
from tests.engine.helpers import BUCKET, InFile, body_files, edited, key, keys, read

PARTS = {number: random.Random(number).randbytes(size) for number, size in ((1, 50_000), (2, 10), (3, 0), (7, 30_000))}


def begun(engine: Engine, how: How | None = None) -> Upload:
    return engine.create_upload(BUCKET, key("a"), how or How())


def test_parts_are_joined_in_the_order_of_their_numbers_whatever_order_they_came_in(engine: Engine) -> None:
    upload = begun(engine, How(metadata={"x": "1"}, content_type="x/y", storage_class="GLACIER", commit_id="c", file_id=9))
    sent = {number: engine.put_part(BUCKET, upload, number, PARTS[number]) for number in (7, 2, 1, 3)}
    assert keys(engine) == []
    before = body_files(engine)
    info = engine.complete_upload(BUCKET, upload, [sent[number] for number in (1, 2, 3, 7)], etag="tag-4")
    assert body_files(engine) == before
    assert read(engine, "a") == b"".join(PARTS[number] for number in (1, 2, 3, 7))
    assert (info.metadata, info.content_type, info.storage_class) == ({"x": "1", COMMIT_ID: "c"}, "x/y", "GLACIER")
    assert (info.etag, info.file_id, info.size) == ("tag-4", 9, 80_010)
    assert engine.uploads(BUCKET) == []


def test_a_part_sent_again_replaces_the_former(engine: Engine) -> None:
    upload = begun(engine)
    old = engine.put_part(BUCKET, upload, 1, PARTS[1])
    new = engine.put_part(BUCKET, upload, 1, PARTS[7])
    with pytest.raises(InvalidPart):
        engine.complete_upload(BUCKET, upload, [old])
    engine.complete_upload(BUCKET, upload, [new])
    assert read(engine, "a") == PARTS[7]
    engine.sync()
    assert len(body_files(engine)) == 1


def test_parts_that_are_not_named_go(engine: Engine) -> None:
    upload = begun(engine)
    engine.put_part(BUCKET, upload, 1, PARTS[1])
    part = engine.put_part(BUCKET, upload, 2, PARTS[2])
    engine.complete_upload(BUCKET, upload, [part])
    assert read(engine, "a") == PARTS[2]
    engine.sync()
    assert body_files(engine) == []


def test_parts_may_come_at_once(engine: Engine) -> None:
    upload = begun(engine)
    data = {number: random.Random(number).randbytes(17_000) for number in range(1, 25)}
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda number: engine.put_part(BUCKET, upload, number, data[number]), data))
    assert [*engine.parts(BUCKET, upload)] == sent
    engine.complete_upload(BUCKET, upload, sent)
    assert read(engine, "a") == b"".join(data.values())


def test_a_completion_with_wrong_parts_is_refused_and_the_upload_lives_on(engine: Engine) -> None:
    upload = begun(engine)
    one, two = (engine.put_part(BUCKET, upload, number, PARTS[number]) for number in (1, 2))
    for parts in ([], [two, one], [one, one], [one, Part(9, 1, ETag("x"))], [Part(1, one.size, ETag("x"))]):
        with pytest.raises(InvalidPart):
            engine.complete_upload(BUCKET, upload, parts)
    engine.complete_upload(BUCKET, upload, [one, two])


def test_conditions_are_judged_at_completion(engine: Engine) -> None:
    upload = begun(engine, How(condition=Absent()))
    part = engine.put_part(BUCKET, upload, 1, b"new")
    old = engine.put(BUCKET, key("a"), b"old")
    with pytest.raises(AlreadyExists):
        engine.complete_upload(BUCKET, upload, [part])
    with pytest.raises(PreconditionFailed):
        engine.complete_upload(BUCKET, upload, [part], condition=Matches(ETag("other")))
    info = engine.complete_upload(BUCKET, upload, [part], condition=Matches(old.etag))
    assert (info.file_id, read(engine, "a")) == (old.file_id, b"new")


def test_an_aborted_upload_leaves_nothing(engine: Engine) -> None:
    upload = begun(engine)
    part = engine.put_part(BUCKET, upload, 1, PARTS[1])
    engine.abort_upload(BUCKET, upload)
    engine.abort_upload(BUCKET, upload)
    for call in (
        lambda: engine.put_part(BUCKET, upload, 2, b""),
        lambda: engine.complete_upload(BUCKET, upload, [part]),
        lambda: engine.parts(BUCKET, upload),
    ):
        with pytest.raises(NoSuchUpload):
            call()
    engine.sync()
    assert body_files(engine) == []


def test_uploads_are_listed_by_key_then_age(engine: Engine) -> None:
    uploads = [engine.create_upload(BUCKET, key(name)) for name in ("b", "a", "b", "c/d")]
    assert engine.uploads(BUCKET) == [uploads[1], uploads[0], uploads[2], uploads[3]]
    assert engine.uploads(BUCKET, "c/") == [uploads[3]]


def test_a_part_may_be_a_staged_file_with_holes(engine: Engine) -> None:
    upload = begun(engine)
    source = InFile(engine.staging, PARTS[1])
    part = engine.put_part(BUCKET, upload, 1, Content(50_100, (Hole(0, 100), Staged(100, 50_000, source, 0))))
    source.close()
    engine.complete_upload(BUCKET, upload, [part])
    assert read(engine, "a") == bytes(100) + PARTS[1]


def test_a_part_may_be_copied_from_another_object(engine: Engine) -> None:
    base = engine.put(BUCKET, key("source"), PARTS[1])
    engine.adopt(BUCKET, key("source"), edited(base, 1000, b"edit"), How(file_id=base.file_id))
    content = read(engine, "source")
    upload = begun(engine)
    before = body_files(engine)
    sent = [
        engine.copy_part(BUCKET, upload, 1, key("source"), span=ByteRange(990, 1002)),
        engine.put_part(BUCKET, upload, 2, b"between"),
        engine.copy_part(BUCKET, upload, 3, key("source")),
    ]
    engine.complete_upload(BUCKET, upload, sent)
    engine.delete(BUCKET, key("source"))
    assert read(engine, "a") == content[990:1002] + b"between" + content
    assert body_files(engine) == before


def test_a_copied_part_judges_its_source(engine: Engine) -> None:
    engine.put(BUCKET, key("source"), b"12345")
    upload = begun(engine)
    with pytest.raises(NotFound):
        engine.copy_part(BUCKET, upload, 1, key("absent"))
    with pytest.raises(PreconditionFailed):
        engine.copy_part(BUCKET, upload, 1, key("source"), if_match=ETag("other"))
    with pytest.raises(ValueError, match="do not lie in"):
        engine.copy_part(BUCKET, upload, 1, key("source"), span=ByteRange(0, 6))


def test_numbers_and_keys_have_bounds(engine: Engine) -> None:
    upload = begun(engine)
    for number in (0, 10_001):
        with pytest.raises(ValueError, match="10000"):
            engine.put_part(BUCKET, upload, number, b"")
    with pytest.raises(InvalidName):
        engine.create_upload(BUCKET, key(""))


def test_uploads_survive_reopening(engine: Engine) -> None:
    upload = begun(engine)
    part = engine.put_part(BUCKET, upload, 1, PARTS[1])
    with Engine.open(engine.folder) as other:
        assert other.uploads(BUCKET) == [upload]
        other.complete_upload(BUCKET, upload, [part])
    assert read(engine, "a") == PARTS[1]


@pytest.mark.parametrize("limit", [1, 2, 3, 300])
@pytest.mark.parametrize(("prefix", "delimiter"), [("", ""), ("", "/"), ("b", ""), ("b/", "/"), ("none", "/")])
def test_pages_of_uploads_join_to_the_whole(engine: Engine, prefix: str, delimiter: str, limit: int) -> None:
    names = ["a", "a", "b", "b/1", "b/1", "b/c/2", "b/c/3", "b/d", "c/", "c/x", "d"]
    made = sorted((engine.create_upload(BUCKET, key(name)) for name in names), key=lambda one: (one.key, one.started_ns, one.upload_id))
    under = [one for one in made if one.key.startswith(prefix)]
    groups_of = [delimiter if delimiter and delimiter in one.key[len(prefix) :] else "" for one in under]
    found: list[tuple[str, str]] = []
    groups: list[str] = []
    after: tuple[str, str] | None = ("", "")
    while after is not None:
        page = engine.upload_page(BUCKET, prefix, delimiter=delimiter, after=after, limit=limit)
        assert 0 < len(page.uploads) + len(page.prefixes) <= limit or not under
        found += [(info.upload.key, info.upload.upload_id) for info in page.uploads]
        groups += page.prefixes
        after = page.next
    assert found == [(one.key, one.upload_id) for one, group in zip(under, groups_of, strict=True) if not group]
    tops = [
        prefix + one.key[len(prefix) :].partition(delimiter)[0] + delimiter for one, group in zip(under, groups_of, strict=True) if group
    ]
    assert groups == list(dict.fromkeys(tops))


def test_behind_an_upload_that_is_over_the_other_keys_are_listed(engine: Engine) -> None:
    first, _, last = (engine.create_upload(BUCKET, key(name)) for name in ("a", "a", "b"))
    engine.abort_upload(BUCKET, first)
    page = engine.upload_page(BUCKET, after=("a", first.upload_id))
    assert [info.upload.upload_id for info in page.uploads] == [last.upload_id]

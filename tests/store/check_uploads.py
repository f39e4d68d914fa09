"""Checks: multipart uploads. Parts but the last have 5 MiB, the least that S3 takes, so that the suite runs over any store."""

from __future__ import annotations

import pytest
import trio

from s3mount.errors import AlreadyExists, InvalidPart, NoSuchUpload, NotFound, PreconditionFailed
from s3mount.model import Absent, ByteRange, ETag, Key, Matches, MiB, Part
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore
from tests.store.registry import conforms, keys_of, own_metadata, pattern, read

K = Key("key")
PART = 5 * MiB


@conforms()
async def parts_sent_in_any_order_join_in_theirs(store: ObjectStore) -> None:
    upload = await store.create_upload(K, Commit(metadata={"a": "b"}, content_type="text/x", commit_id="id"))
    last = await store.put_part(upload, 7, b"the end")
    first = await store.put_part(upload, 1, pattern(PART, 1))
    middle = await store.put_part(upload, 3, pattern(PART + 1, 3))
    assert (middle.number, middle.size) == (3, PART + 1)
    info = await store.complete_upload(upload, [first, middle, last])
    assert (info.key, info.size, info.content_type) == (K, 2 * PART + 8, "text/x")
    assert own_metadata(info) == {"a": "b"}
    assert ((await store.head(K)).metadata or {})[COMMIT_ID] == "id"
    assert await read(store, K) == pattern(PART, 1) + pattern(PART + 1, 3) + b"the end"


@conforms()
async def a_part_sent_again_replaces_the_former(store: ObjectStore) -> None:
    upload = await store.create_upload(K)
    stale = await store.put_part(upload, 1, b"wrong")
    right = await store.put_part(upload, 1, b"right")
    with pytest.raises(InvalidPart):
        await store.complete_upload(upload, [stale])
    await store.complete_upload(upload, [right])
    assert await read(store, K) == b"right"


@conforms("part_copy", "early_parts")
async def a_part_may_be_a_copy_of_another_object(store: ObjectStore) -> None:
    source = await store.put(Key("source"), pattern(2 * PART))
    upload = await store.create_upload(K)
    sent = await store.put_part(upload, 1, pattern(PART, 3))
    copied = await store.copy_part(upload, 2, source=source, span=ByteRange(5, PART + 5))
    last = await store.copy_part(upload, 3, source=source, span=ByteRange(2 * PART - 7, 2 * PART))
    assert (copied.number, copied.size, last.size) == (2, PART, 7)
    await store.complete_upload(upload, [sent, copied, last])
    assert await read(store, K) == pattern(PART, 3) + pattern(2 * PART)[5 : PART + 5] + pattern(2 * PART)[-7:]


@conforms("part_copy", "early_parts")
async def a_part_is_a_copy_of_the_version_that_was_meant_or_refused(store: ObjectStore) -> None:
    former = await store.put(Key("source"), pattern(2 * PART))
    await store.put(Key("source"), pattern(2 * PART, 1))
    gone = await store.put(Key("gone"), pattern(2 * PART))
    await store.delete(Key("gone"))
    upload = await store.create_upload(K)
    for source in (former, gone):
        with pytest.raises(PreconditionFailed):
            await store.copy_part(upload, 1, source=source, span=ByteRange(0, PART))
    await store.abort_upload(upload)


@conforms()
async def parts_are_sent_at_the_same_time(store: ObjectStore) -> None:
    upload = await store.create_upload(K)
    parts: dict[int, Part] = {}

    async def send(number: int) -> None:
        parts[number] = await store.put_part(upload, number, pattern(PART, number))

    async with trio.open_nursery() as nursery:
        for number in range(1, 5):
            nursery.start_soon(send, number)
    await store.complete_upload(upload, [parts[number] for number in range(1, 5)])
    assert await read(store, K) == b"".join(pattern(PART, number) for number in range(1, 5))


@conforms()
async def an_upload_is_not_seen_before_it_is_completed(store: ObjectStore) -> None:
    await store.put(K, b"old")
    upload = await store.create_upload(K)
    part = await store.put_part(upload, 1, b"new")
    assert await read(store, K) == b"old"
    assert await keys_of(store) == [K]
    await store.complete_upload(upload, [part])
    assert await read(store, K) == b"new"


@conforms()
async def parts_that_are_not_named_are_left_out(store: ObjectStore) -> None:
    upload = await store.create_upload(K)
    await store.put_part(upload, 1, b"left out")
    part = await store.put_part(upload, 2, b"named")
    await store.complete_upload(upload, [part])
    assert await read(store, K) == b"named"


@conforms()
async def a_completion_that_names_wrong_parts_is_refused_and_may_be_mended(store: ObjectStore) -> None:
    upload = await store.create_upload(K)
    first = await store.put_part(upload, 1, pattern(PART))
    second = await store.put_part(upload, 2, b"2")
    wrong: list[list[Part]] = [[], [second, first], [first, first], [first, Part(3, 1, ETag("x"))], [Part(1, first.size, ETag("other"))]]
    for parts in wrong:
        with pytest.raises(InvalidPart):
            await store.complete_upload(upload, parts)
    assert await keys_of(store) == []
    await store.complete_upload(upload, [first, second])
    assert await read(store, K) == pattern(PART) + b"2"


@conforms()
async def a_part_number_outside_of_the_bounds_is_a_value_error(store: ObjectStore) -> None:
    upload = await store.create_upload(K)
    for number in (0, -1, 10_001):
        with pytest.raises(ValueError):
            await store.put_part(upload, number, b"x")
    part = await store.put_part(upload, 10_000, b"last")
    await store.complete_upload(upload, [part])


@conforms()
async def an_aborted_upload_is_over(store: ObjectStore) -> None:
    upload = await store.create_upload(K)
    part = await store.put_part(upload, 1, b"x")
    await store.abort_upload(upload)
    await store.abort_upload(upload)
    with pytest.raises(NoSuchUpload):
        await store.put_part(upload, 2, b"y")
    with pytest.raises(NoSuchUpload):
        await store.complete_upload(upload, [part])
    assert await keys_of(store) == []


@conforms()
async def a_completed_upload_is_over(store: ObjectStore) -> None:
    upload = await store.create_upload(K)
    part = await store.put_part(upload, 1, b"x")
    await store.complete_upload(upload, [part])
    await store.delete(K)
    with pytest.raises(NoSuchUpload):
        await store.complete_upload(upload, [part])
    with pytest.raises(NoSuchUpload):
        await store.put_part(upload, 1, b"y")
    await store.abort_upload(upload)
    with pytest.raises(NotFound):
        await store.head(K)


@conforms()
async def uploads_under_way_are_listed(store: ObjectStore) -> None:
    assert list(await store.list_uploads()) == []
    uploads = [await store.create_upload(Key(key)) for key in ("b", "a", "a")]
    assert len({upload.upload_id for upload in uploads}) == 3
    listed = await store.list_uploads()
    assert [upload.key for upload in listed] == ["a", "a", "b"]
    assert {upload.upload_id for upload in listed} == {upload.upload_id for upload in uploads}
    await store.abort_upload(uploads[0])
    await store.complete_upload(uploads[1], [await store.put_part(uploads[1], 1, b"x")])
    assert [upload.upload_id for upload in await store.list_uploads()] == [uploads[2].upload_id]


@conforms("conditional_put")
async def the_condition_is_judged_at_completion(store: ObjectStore) -> None:
    absent = await store.create_upload(K, Commit(condition=Absent()))
    part = await store.put_part(absent, 1, b"upload")
    between = await store.put(K, b"between")
    with pytest.raises(AlreadyExists):
        await store.complete_upload(absent, [part])
    matching = await store.create_upload(K, Commit(condition=Matches(between.etag)))
    part = await store.put_part(matching, 1, b"matched")
    await store.complete_upload(matching, [part])
    stale = await store.create_upload(K, Commit(condition=Matches(between.etag)))
    part = await store.put_part(stale, 1, b"stale")
    with pytest.raises(PreconditionFailed):
        await store.complete_upload(stale, [part])
    assert await read(store, K) == b"matched"
    await store.abort_upload(stale)
    await store.abort_upload(absent)


@conforms("links")
async def an_upload_writes_the_file_it_names(store: ObjectStore) -> None:
    await store.put(K, b"old", Commit(file_id=77))
    upload = await store.create_upload(K, Commit(file_id=77))
    info = await store.complete_upload(upload, [await store.put_part(upload, 1, b"new")])
    assert (info.file_id, info.links) == (77, 1)

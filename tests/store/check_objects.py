"""Checks: one object at a time - put, get, head, delete, copy, update, and their conditions."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from s3mount.errors import AlreadyExists, InvalidName, NotFound, PreconditionFailed, StoreError, TooLarge
from s3mount.model import Absent, ByteRange, ETag, Key, Matches, MiB, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore
from tests.store.registry import conforms, keys_of, own_metadata, pattern, read

K = Key("key")
OTHER = ETag("0123456789abcdef0123456789abcdef")

ODD_KEYS = (
    "a//b",
    "/leading",
    "trailing/",
    "./dot",
    "..",
    "a b+c%20d?e#f&g",
    "back\\slash",
    "quote'\"`",
    "tab\tand\x01control",
    "new\nline",
    "\u00e9",
    "e\u0301",
    "\ufffd\uffff",
    "\U0001f600",
    "x" * 1024,
)


@conforms()
async def what_was_put_is_read_back(store: ObjectStore) -> None:
    for number, size in enumerate((1, 100, 16 * 1024, 16 * 1024 + 1, MiB + 3)):
        data = pattern(size, number)
        info = await store.put(K, data)
        assert (info.key, info.size) == (K, size)
        assert await read(store, K) == data


@conforms()
async def bytes_are_taken_from_any_buffer_and_not_kept_shared(store: ObjectStore) -> None:
    mutable = bytearray(b"0123456789")
    await store.put(K, memoryview(mutable)[2:5])
    await store.put(Key("b"), mutable)
    mutable[:] = b"xxxxxxxxxx"
    assert await read(store, K) == b"234"
    assert await read(store, Key("b")) == b"0123456789"


@conforms()
async def an_empty_object_is_an_object(store: ObjectStore) -> None:
    await store.put(K, b"")
    assert (await store.head(K)).size == 0
    assert await keys_of(store) == [K]
    with pytest.raises(ValueError):
        await store.get_into(K, ByteRange(0, 1), memoryview(bytearray(1)))


@conforms()
async def head_tells_what_was_committed(store: ObjectStore) -> None:
    before = time.time_ns()
    metadata = {"mode": "33188", "mtime": "1700000000.123456789", "x-y": "a b=c;d"}
    put = await store.put(K, b"data", Commit(metadata=metadata, content_type="text/plain"))
    info = await store.head(K)
    assert own_metadata(info) == metadata
    assert (info.key, info.size, info.content_type, info.storage_class) == (K, 4, "text/plain", "STANDARD")
    assert info.etag == put.etag
    assert '"' not in info.etag
    assert before - 2_000_000_000 <= info.mtime_ns <= time.time_ns() + 2_000_000_000
    assert info.links == 1
    assert store.capabilities.links == bool(info.file_id)


@conforms()
async def every_answer_names_the_same_version(store: ObjectStore) -> None:
    put = await store.put(K, b"data", Commit(metadata={"a": "b"}))
    head = await store.head(K)
    listed = (await store.list()).objects[0]
    found = (await store.find(K)).object
    got = await store.get_into(K, ByteRange(0, 4), memoryview(bytearray(4)))
    assert found is not None
    assert replace(put, mtime_ns=head.mtime_ns) == head == got
    # S3 does not answer a write with the object's time; the answer's own is as near as anybody comes.
    assert abs(put.mtime_ns - head.mtime_ns) <= (0 if store.capabilities.cheap_metadata else 2_000_000_000)
    for info in (listed, found):
        assert (info.key, info.size, info.etag, info.mtime_ns, info.file_id) == (head.key, 4, head.etag, head.mtime_ns, head.file_id)
        assert info.metadata is None or info.metadata == head.metadata
        assert info.metadata is not None or not store.capabilities.listed_metadata


@conforms()
async def another_content_has_another_etag(store: ObjectStore) -> None:
    first = await store.put(K, b"one")
    second = await store.put(K, b"two")
    assert first.etag != second.etag
    assert await read(store, K) == b"two"


@conforms()
async def a_range_is_read_exactly(store: ObjectStore) -> None:
    data = pattern(100_000)
    info = await store.put(K, data)
    for start, stop in ((0, 1), (0, 100_000), (99_999, 100_000), (1234, 65_537)):
        buffer = bytearray(stop - start)
        got = await store.get_into(K, ByteRange(start, stop), memoryview(buffer), if_match=info.etag)
        assert got.etag == info.etag
        assert buffer == data[start:stop]


@conforms()
async def a_range_outside_or_a_buffer_of_another_size_is_a_value_error(store: ObjectStore) -> None:
    await store.put(K, b"0123456789")
    with pytest.raises(ValueError):
        await store.get_into(K, ByteRange(5, 11), memoryview(bytearray(6)))
    with pytest.raises(ValueError):
        await store.get_into(K, ByteRange(10, 11), memoryview(bytearray(1)))
    with pytest.raises(ValueError):
        await store.get_into(K, ByteRange(0, 5), memoryview(bytearray(6)))


@conforms()
async def what_is_absent_is_not_found(store: ObjectStore) -> None:
    await store.put(Key("key/below"), b"")
    await store.put(Key("key2"), b"")
    absent: list[Callable[[], Awaitable[object]]] = [
        lambda: store.head(K),
        lambda: store.get_into(K, ByteRange(0, 1), memoryview(bytearray(1))),
        lambda: store.pin(K),
        lambda: store.update(K, {}),
        lambda: store.copy(K, Key("target")),
    ]
    for ask in absent:
        with pytest.raises(NotFound):
            await ask()


@conforms()
async def a_read_of_another_version_is_refused(store: ObjectStore) -> None:
    old = await store.put(K, b"old")
    new = await store.put(K, b"new")
    buffer = memoryview(bytearray(3))
    for etag in (old.etag, OTHER):
        with pytest.raises(PreconditionFailed):
            await store.get_into(K, ByteRange(0, 3), buffer, if_match=etag)
        with pytest.raises(PreconditionFailed):
            await store.pin(K, if_match=etag)
    await store.get_into(K, ByteRange(0, 3), buffer, if_match=new.etag)
    assert bytes(buffer) == b"new"


# -- conditions ---------------------------------------------------------------------------


@conforms("conditional_put")
async def a_put_if_absent_happens_once(store: ObjectStore) -> None:
    await store.put(K, b"first", Commit(condition=Absent()))
    with pytest.raises(AlreadyExists):
        await store.put(K, b"second", Commit(condition=Absent()))
    assert await read(store, K) == b"first"
    await store.delete(K)
    await store.put(K, b"third", Commit(condition=Absent()))
    assert await read(store, K) == b"third"


@conforms("conditional_put")
async def a_put_over_another_version_is_refused(store: ObjectStore) -> None:
    first = await store.put(K, b"1")
    second = await store.put(K, b"2", Commit(condition=Matches(first.etag)))
    with pytest.raises(PreconditionFailed):
        await store.put(K, b"3", Commit(condition=Matches(first.etag)))
    assert await read(store, K) == b"2"
    await store.delete(K)
    with pytest.raises(PreconditionFailed):
        await store.put(K, b"4", Commit(condition=Matches(second.etag)))
    assert await keys_of(store) == []


async def _race(commits: list[Callable[[], Awaitable[ObjectInfo]]]) -> list[ObjectInfo | StoreError]:
    results: list[ObjectInfo | StoreError] = []

    async def one(commit: Callable[[], Awaitable[ObjectInfo]]) -> None:
        try:
            results.append(await commit())
        except StoreError as error:
            results.append(error)

    async with trio.open_nursery() as nursery:
        for commit in commits:
            nursery.start_soon(one, commit)
    return results


@conforms("conditional_put")
async def of_many_creators_at_once_one_wins(store: ObjectStore) -> None:
    def creator(number: int) -> Callable[[], Awaitable[ObjectInfo]]:
        return lambda: store.put(K, b"%d" % number, Commit(condition=Absent(), metadata={"n": str(number)}))

    results = await _race([creator(number) for number in range(12)])
    (winner,) = [result for result in results if isinstance(result, ObjectInfo)]
    assert sum(isinstance(result, AlreadyExists) for result in results) == 11
    assert await read(store, K) == own_metadata(winner)["n"].encode()


@conforms("conditional_put")
async def of_many_editors_of_one_version_one_wins(store: ObjectStore) -> None:
    base = await store.put(K, b"base")

    def editor(number: int) -> Callable[[], Awaitable[ObjectInfo]]:
        return lambda: store.put(K, b"%d" % number, Commit(condition=Matches(base.etag)))

    results = await _race([editor(number) for number in range(12)])
    (winner,) = [result for result in results if isinstance(result, ObjectInfo)]
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 11
    assert (await store.head(K)).etag == winner.etag


@conforms()
async def the_last_of_many_writers_is_there_whole(store: ObjectStore) -> None:
    contents = [pattern(20_000 + number, number) for number in range(8)]

    def writer(data: bytes) -> Callable[[], Awaitable[ObjectInfo]]:
        return lambda: store.put(K, data)

    results = await _race([writer(data) for data in contents])
    assert all(isinstance(result, ObjectInfo) for result in results)
    assert await read(store, K) in contents


@conforms()
async def a_commit_id_stays_with_its_version(store: ObjectStore) -> None:
    await store.put(K, b"1", Commit(commit_id="first"))
    assert ((await store.head(K)).metadata or {})[COMMIT_ID] == "first"
    await store.put(K, b"2", Commit(commit_id="second", metadata={"a": "b"}))
    info = await store.head(K)
    assert info.metadata == {"a": "b", COMMIT_ID: "second"}


# -- keys ---------------------------------------------------------------------------------


@conforms()
async def any_text_is_a_key(store: ObjectStore) -> None:
    for number, key in enumerate(ODD_KEYS):
        await store.put(Key(key), b"%d" % number)
    for number, key in enumerate(ODD_KEYS):
        assert await read(store, Key(key)) == b"%d" % number
    assert await keys_of(store) == sorted(ODD_KEYS, key=str.encode)
    for key in ODD_KEYS:
        await store.delete(Key(key))
    assert await keys_of(store) == []


@conforms()
async def what_is_no_key_is_refused(store: ObjectStore) -> None:
    for text in ("", "x" * 4097, "\u00e9" * 2049, "\udc80"):
        with pytest.raises(InvalidName):
            await store.put(Key(text), b"")
        with pytest.raises(InvalidName):
            await store.create_upload(Key(text))
    assert await keys_of(store) == []


@conforms()
async def what_cannot_be_a_key_is_found_nowhere(store: ObjectStore) -> None:
    for text in ("x" * 4097, "\udc80"):
        with pytest.raises((NotFound, InvalidName)):
            await store.head(Key(text))
        found = await store.find(text)
        assert not found.is_directory
        assert found.object is None


# -- delete, copy, update -----------------------------------------------------------------


@conforms()
async def what_was_deleted_is_gone_and_may_be_deleted_again(store: ObjectStore) -> None:
    await store.put(K, b"data")
    await store.put(Key("key2"), b"stays")
    await store.delete(K)
    await store.delete(K)
    await store.delete(Key("never/was"))
    with pytest.raises(NotFound):
        await store.head(K)
    assert await keys_of(store) == ["key2"]


@conforms()
async def a_delete_of_another_version_is_refused(store: ObjectStore) -> None:
    old = await store.put(K, b"old")
    new = await store.put(K, b"new")
    with pytest.raises(PreconditionFailed):
        await store.delete(K, if_match=old.etag)
    await store.delete(K, if_match=new.etag)
    await store.delete(K, if_match=new.etag)
    assert await keys_of(store) == []


@conforms()
async def many_keys_are_deleted_at_once(store: ObjectStore) -> None:
    for number in range(20):
        await store.put(Key(f"d/{number:02}"), b"x")
    doomed = [Key(f"d/{number:02}") for number in range(5, 15)]
    assert list(await store.delete_many([*doomed, Key("d/never")])) == []
    assert await keys_of(store) == [f"d/{number:02}" for number in (*range(5), *range(15, 20))]
    assert list(await store.delete_many([])) == []
    with pytest.raises(ValueError):
        await store.delete_many([Key(f"{number}") for number in range(1001)])


@conforms()
async def a_copy_is_a_second_object(store: ObjectStore) -> None:
    data = pattern(50_000)
    source = await store.put(K, data, Commit(metadata={"a": "b"}, content_type="text/x"))
    copied = await store.copy(K, Key("copy"), if_match=source.etag)
    assert (copied.key, copied.size, copied.content_type, own_metadata(copied)) == ("copy", 50_000, "text/x", {"a": "b"})
    assert not store.capabilities.links or copied.file_id != source.file_id
    await store.put(K, b"changed")
    assert await read(store, Key("copy")) == data
    await store.delete(K)
    assert await read(store, Key("copy")) == data


@conforms()
async def metadata_beyond_the_bound_is_refused_and_changes_nothing(store: ObjectStore) -> None:
    limit = store.capabilities.metadata_bytes
    most = {"a": "b" * (limit - 100)}
    put = await store.put(K, b"data", Commit(metadata=most))
    assert own_metadata(await store.head(K)) == most
    for metadata in ({"a": "b" * limit}, {f"n{number}": "v" * 20 for number in range(limit // 20)}):
        with pytest.raises(TooLarge):
            await store.put(K, b"other", Commit(metadata=metadata))
        with pytest.raises(TooLarge):
            await store.update(K, metadata, if_match=put.etag)
        with pytest.raises(TooLarge):
            await store.create_upload(Key("upload"), Commit(metadata=metadata))
    assert (await store.head(K)).etag == put.etag
    assert own_metadata(await store.head(K)) == most
    assert await store.list_uploads() == []


@conforms()
async def a_copy_may_take_new_metadata(store: ObjectStore) -> None:
    await store.put(K, b"data", Commit(metadata={"a": "b"}))
    await store.put(Key("copy"), b"replaced")
    copied = await store.copy(K, Key("copy"), commit=Commit(metadata={"c": "d"}, content_type="text/y", commit_id="id"))
    assert own_metadata(copied) == {"c": "d"}
    assert copied.content_type == "text/y"
    assert ((await store.head(Key("copy"))).metadata or {})[COMMIT_ID] == "id"
    assert await read(store, Key("copy")) == b"data"


@conforms("conditional_put")
async def a_copy_is_refused_by_either_condition(store: ObjectStore) -> None:
    await store.put(K, b"data")
    target = await store.put(Key("target"), b"old")
    with pytest.raises(PreconditionFailed):
        await store.copy(K, Key("target"), if_match=OTHER)
    with pytest.raises(AlreadyExists):
        await store.copy(K, Key("target"), commit=Commit(condition=Absent()))
    with pytest.raises(PreconditionFailed):
        await store.copy(K, Key("target"), commit=Commit(condition=Matches(OTHER)))
    with pytest.raises(AlreadyExists):
        await store.copy(K, Key("target"), condition=Absent())
    with pytest.raises(PreconditionFailed):
        await store.copy(K, Key("target"), condition=Matches(OTHER))
    assert await read(store, Key("target")) == b"old"
    await store.copy(K, Key("another"), condition=Absent())
    assert await read(store, Key("another")) == b"data"
    await store.copy(K, Key("target"), commit=Commit(condition=Matches(target.etag)))
    assert await read(store, Key("target")) == b"data"


@conforms()
async def an_update_changes_metadata_and_nothing_else(store: ObjectStore) -> None:
    before = await store.put(K, b"data", Commit(metadata={"a": "b", "gone": "x"}, content_type="text/x"))
    updated = await store.update(K, {"a": "c"}, if_match=before.etag)
    after = await store.head(K)
    assert own_metadata(updated) == own_metadata(after) == {"a": "c"}
    assert (after.size, after.content_type, after.file_id) == (4, "text/x", before.file_id)
    assert after.etag == updated.etag
    assert await read(store, K) == b"data"


@conforms()
async def an_update_of_another_version_is_refused(store: ObjectStore) -> None:
    await store.put(K, b"data", Commit(metadata={"a": "b"}))
    with pytest.raises(PreconditionFailed):
        await store.update(K, {}, if_match=OTHER)
    assert own_metadata(await store.head(K)) == {"a": "b"}


# -- the medium ---------------------------------------------------------------------------


@conforms()
async def sync_takes_all_or_one_key_or_one_that_is_not_there(store: ObjectStore) -> None:
    await store.sync()
    await store.put(K, pattern(40_000))
    await store.sync(K)
    await store.sync()
    await store.sync(Key("absent"))
    assert await read(store, K) == pattern(40_000)


@conforms()
async def space_is_plausible(store: ObjectStore) -> None:
    space = await store.space()
    assert 0 <= space.free <= space.total
    assert space.total > 0


@conforms()
async def closing_twice_is_no_error(store: ObjectStore) -> None:
    await store.put(K, b"data")
    await store.aclose()
    await store.aclose()

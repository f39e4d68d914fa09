"""Checks: contents made of pieces (adopt), and versions kept readable (pin)."""

from __future__ import annotations

import random

import pytest
import trio

from s3mount.errors import AlreadyExists, NotFound, PreconditionFailed, StoreError
from s3mount.model import Absent, ByteRange, Content, Hole, Kept, Key, Matches, MiB, ObjectInfo, Piece, Staged, TiB
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore
from tests.store.registry import InMemory, conforms, edited, in_file, keys_of, own_metadata, pattern, read, read_pin, whole

K = Key("key")


# -- adopt --------------------------------------------------------------------------------


@conforms()
async def a_staged_file_becomes_the_object(store: ObjectStore) -> None:
    for size in (1, 1000, 100_000, 3 * MiB):
        data = pattern(size, size % 97)
        with in_file(store, data) as staged:
            info = await store.adopt(K, whole(staged), Commit(metadata={"a": "b"}, commit_id=f"c{size}", content_type="text/x"))
        assert (info.size, own_metadata(info), info.content_type) == (size, {"a": "b"}, "text/x")
        assert ((await store.head(K)).metadata or {})[COMMIT_ID] == f"c{size}"
        assert await read(store, K) == data


@conforms()
async def staged_memory_becomes_the_object(store: ObjectStore) -> None:
    for size in (0, 1, 16 * 1024, 200_000):
        await store.adopt(K, whole(InMemory(pattern(size, 5))), Commit())
        assert await read(store, K) == pattern(size, 5)


@conforms()
async def the_caller_keeps_the_descriptor_of_what_was_adopted(store: ObjectStore) -> None:
    data = pattern(300_000)
    with in_file(store, data) as staged:
        await store.adopt(K, whole(staged), Commit())
        await store.put(K, b"replaced")
        await store.sync()
        buffer = bytearray(300_000)
        staged.read_into(0, memoryview(buffer))
        assert buffer == data


@conforms()
async def pieces_come_from_anywhere_in_several_sources(store: ObjectStore) -> None:
    memory = InMemory(pattern(5000, 1))
    with in_file(store, pattern(400_000, 2)) as staged:
        pieces: tuple[Piece, ...] = (
            Staged(0, 1000, memory, 3000),
            Hole(1000, 70_000),
            Staged(71_000, 300_000, staged, 50_000),
            Staged(371_000, 10, staged, 0),
            Staged(371_010, 5, memory, 0),
            Hole(371_015, 1),
        )
        await store.adopt(K, Content(371_016, pieces), Commit())
    file, held = pattern(400_000, 2), pattern(5000, 1)
    assert await read(store, K) == held[3000:4000] + bytes(70_000) + file[50_000:350_000] + file[:10] + held[:5] + b"\0"


@conforms()
async def holes_are_zeros(store: ObjectStore) -> None:
    await store.adopt(K, Content(100_000, (Hole(0, 100_000),)), Commit())
    assert await read(store, K) == bytes(100_000)
    source = InMemory(b"end")
    await store.adopt(K, Content(70_003, (Hole(0, 70_000), Staged(70_000, 3, source, 0))), Commit())
    assert await read(store, K) == bytes(70_000) + b"end"


@conforms("adopt")
async def a_hole_costs_nothing(store: ObjectStore) -> None:
    source = InMemory(b"end")
    await store.adopt(K, Content(TiB + 3, (Hole(0, TiB), Staged(TiB, 3, source, 0))), Commit())
    assert (await store.head(K)).size == TiB + 3
    buffer = bytearray(10)
    await store.get_into(K, ByteRange(TiB - 7, TiB + 3), memoryview(buffer))
    assert buffer == bytes(7) + b"end"


@conforms()
async def an_edit_keeps_what_it_does_not_touch(store: ObjectStore) -> None:
    data = bytearray(pattern(200_000))
    info = await store.put(K, bytes(data))
    for offset, size in ((100, 50), (0, 10), (199_990, 10), (199_995, 100), (200_095, 40_000), (20_000, 150_000)):
        new = pattern(size, offset % 89)
        info = await store.adopt(K, edited(info, offset, InMemory(new)), Commit(condition=Matches(info.etag), file_id=info.file_id))
        data[offset : offset + size] = new
        assert info.size == len(data)
        assert await read(store, K) == data


@conforms()
async def a_cut_and_a_longer_content_keep_the_beginning(store: ObjectStore) -> None:
    info = await store.put(K, pattern(100_000))
    info = await store.adopt(K, Content(40_000, (Kept(0, 40_000),), info), Commit(condition=Matches(info.etag), file_id=info.file_id))
    assert await read(store, K) == pattern(100_000)[:40_000]
    grown = Content(90_000, (Kept(0, 40_000), Hole(40_000, 50_000)), info)
    info = await store.adopt(K, grown, Commit(condition=Matches(info.etag), file_id=info.file_id))
    assert await read(store, K) == pattern(100_000)[:40_000] + bytes(50_000)
    await store.adopt(K, Content(0, (), info), Commit(condition=Matches(info.etag), file_id=info.file_id))
    assert await read(store, K) == b""


@conforms()
async def any_row_of_edits_gives_what_a_file_would_hold(store: ObjectStore) -> None:
    rng = random.Random(20)
    model = bytearray(pattern(30_000))
    info = await store.put(K, bytes(model))
    for step in range(40):
        size = rng.choice((1, 10, 4096, 20_000))
        offset = rng.randrange(len(model) + 1)
        with in_file(store, pattern(size, step)) as staged:
            info = await store.adopt(K, edited(info, offset, staged), Commit(condition=Matches(info.etag), file_id=info.file_id))
        model[offset : offset + size] = pattern(size, step)
        if rng.random() < 0.2:
            cut = rng.randrange(1, len(model))
            info = await store.adopt(K, Content(cut, (Kept(0, cut),), info), Commit(condition=Matches(info.etag), file_id=info.file_id))
            del model[cut:]
        assert await read(store, K) == model, step


@conforms()
async def nothing_is_kept_of_a_version_that_was_replaced(store: ObjectStore) -> None:
    base = await store.put(K, pattern(50_000))
    await store.put(K, b"other")
    for commit in (Commit(), Commit(file_id=base.file_id), Commit(condition=Matches(base.etag), file_id=base.file_id)):
        with pytest.raises(PreconditionFailed):
            await store.adopt(K, edited(base, 10, InMemory(b"edit")), commit)
    assert await read(store, K) == b"other"
    await store.delete(K)
    with pytest.raises(PreconditionFailed):
        await store.adopt(K, edited(base, 10, InMemory(b"edit")), Commit(condition=Matches(base.etag), file_id=base.file_id))
    assert await keys_of(store) == []


@conforms("conditional_put")
async def the_same_content_may_be_offered_again_after_a_failure(store: ObjectStore) -> None:
    data = pattern(150_000)
    await store.put(K, b"there")
    with in_file(store, data) as staged:
        for _ in range(2):
            with pytest.raises(AlreadyExists):
                await store.adopt(K, whole(staged), Commit(condition=Absent()))
        await store.adopt(Key("second"), whole(staged), Commit(condition=Absent()))
    assert await read(store, K) == b"there"
    assert await read(store, Key("second")) == data


@conforms()
async def the_same_bytes_under_many_keys_are_independent(store: ObjectStore) -> None:
    data = pattern(100_000)
    keys = [Key(f"same/{number}") for number in range(5)]
    for key in keys:
        with in_file(store, data) as staged:
            await store.adopt(key, whole(staged), Commit())
    await store.delete_many(keys[:2])
    await store.put(keys[2], b"other")
    await store.sync()
    assert await read(store, keys[2]) == b"other"
    for key in keys[3:]:
        assert await read(store, key) == data


@conforms("links")
async def an_edit_of_a_copy_leaves_the_original(store: ObjectStore) -> None:
    await store.put(K, pattern(100_000))
    copy = await store.copy(K, Key("copy"))
    await store.adopt(Key("copy"), edited(copy, 500, InMemory(b"edit")), Commit(condition=Matches(copy.etag), file_id=copy.file_id))
    assert await read(store, K) == pattern(100_000)
    original = await store.head(K)
    await store.adopt(K, edited(original, 0, InMemory(b"EDIT")), Commit(condition=Matches(original.etag), file_id=original.file_id))
    assert await read(store, Key("copy")) == pattern(100_000)[:500] + b"edit" + pattern(100_000)[504:]
    assert await read(store, K) == b"EDIT" + pattern(100_000)[4:]


# -- pin ----------------------------------------------------------------------------------


@conforms()
async def a_pin_reads_its_version(store: ObjectStore) -> None:
    data = pattern(120_000)
    info = await store.put(K, data, Commit(metadata={"a": "b"}))
    pin = await store.pin(K, if_match=info.etag)
    assert pin.info == await store.head(K)
    for offset, size in ((0, 120_000), (5, 10), (119_999, 1), (60_000, 1)):
        assert await read_pin(pin, offset, size) == data[offset : offset + size]
    await pin.aclose()
    await pin.aclose()


@conforms()
async def many_tasks_read_through_one_pin(store: ObjectStore) -> None:
    data = pattern(256 * 1024)
    await store.put(K, data)
    pin = await store.pin(K)

    async def check(offset: int) -> None:
        buffer = bytearray(8192)
        await pin.get_into(offset, memoryview(buffer))
        assert buffer == data[offset : offset + 8192]

    async with trio.open_nursery() as nursery:
        for offset in range(0, 256 * 1024, 8192):
            nursery.start_soon(check, offset)
    await pin.aclose()


@conforms()
async def a_pin_never_shows_another_version(store: ObjectStore) -> None:
    for data in (b"tiny", pattern(100_000)):
        await store.put(K, data)
        pin = await store.pin(K)
        await store.put(K, bytes(len(data)))
        try:
            seen = await read_pin(pin)
        except (PreconditionFailed, NotFound):
            assert not store.capabilities.versions
        else:
            assert seen == data
        await pin.aclose()


async def _pinned(store: ObjectStore, size: int) -> tuple[ObjectInfo, bytes]:
    return await store.put(K, pattern(size, size % 83)), pattern(size, size % 83)


@conforms("versions")
async def a_pinned_version_outlives_replacement_and_deletion(store: ObjectStore) -> None:
    for size in (10, 16 * 1024, 100_000):
        info, data = await _pinned(store, size)
        pin = await store.pin(K)
        await store.put(K, b"new", Commit(file_id=info.file_id))
        assert await read_pin(pin) == data
        await store.delete(K)
        await store.sync()
        assert await read_pin(pin) == data
        assert pin.info.etag == info.etag
        await pin.aclose()


@conforms("versions", "atomic_rename")
async def a_pinned_version_outlives_renames(store: ObjectStore) -> None:
    _, data = await _pinned(store, 50_000)
    pin = await store.pin(K)
    await store.rename(K, Key("d/elsewhere"))
    assert await read_pin(pin) == data
    await store.rename_prefix("d/", "e/")
    await store.put(Key("other"), b"other")
    await store.rename(Key("other"), Key("e/elsewhere"))
    await store.sync()
    assert await read_pin(pin) == data
    await pin.aclose()


@conforms("versions")
async def a_pinned_version_outlives_edits(store: ObjectStore) -> None:
    info, data = await _pinned(store, 80_000)
    pin = await store.pin(K)
    for offset in (0, 40_000, 79_000):
        edit = edited(info, offset, InMemory(b"edit"))
        info = await store.adopt(K, edit, Commit(condition=Matches(info.etag), file_id=info.file_id))
    assert await read_pin(pin) == data
    later = await store.pin(K)
    assert await read_pin(later, 39_998, 8) == data[39_998:40_000] + b"edit" + data[40_004:40_006]
    await pin.aclose()
    assert await read_pin(later, 0, 4) == b"edit"
    await later.aclose()


@conforms("versions")
async def a_pin_is_whole_while_others_write(store: ObjectStore) -> None:
    sizes = [30_000, 100, 60_000]
    contents = [pattern(size, number) for number, size in enumerate(sizes)]
    await store.put(K, contents[0])

    async def write() -> None:
        for step in range(30):
            await store.put(K, contents[step % 3])

    async def look() -> None:
        for _ in range(30):
            pin = await store.pin(K)
            assert await read_pin(pin) in contents
            await pin.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(look)
        nursery.start_soon(look)


@conforms()
async def a_get_is_whole_while_others_write(store: ObjectStore) -> None:
    contents = [pattern(40_000, number) for number in range(3)]
    await store.put(K, contents[0])

    async def write() -> None:
        for step in range(30):
            await store.put(K, contents[step % 3])

    async def look() -> None:
        for _ in range(30):
            buffer = bytearray(40_000)
            try:
                await store.get_into(K, ByteRange(0, 40_000), memoryview(buffer))
            except StoreError as error:
                raise AssertionError("a read of what is always there failed") from error
            assert bytes(buffer) in contents

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(look)
        nursery.start_soon(look)

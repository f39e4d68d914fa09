"""MemoryStore: what it does as a poorer store, with several clients, and inside. What all stores do is in the conformance suite."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import AlreadyExists, InvalidName, NotFound, PreconditionFailed, Unsupported
from s3mount.model import Absent, ByteRange, Content, Hole, Kept, Key, Matches, Piece, Staged
from s3mount.store.api import EVERYTHING, Commit, ObjectStore
from s3mount.store.bucket import Blob, Bucket, File
from s3mount.store.memory import LIKE_S3, MemoryStore
from tests.store.registry import InFile, InMemory, keys_of, pattern, read, read_pin, whole

K = Key("key")

UNABLE: dict[str, Callable[[ObjectStore], Awaitable[object]]] = {
    "rename": lambda s: s.rename(K, Key("b")),
    "rename_prefix": lambda s: s.rename_prefix("a/", "b/"),
    "exchange": lambda s: s.exchange(K, "b"),
    "link": lambda s: s.link(K, Key("b")),
    "reserve": lambda s: s.reserve(Key("b")),
    "release": lambda s: s.release(Key("b")),
}


@pytest.mark.parametrize("verb", UNABLE)
async def test_what_is_switched_off_is_unsupported(verb: str) -> None:
    store = MemoryStore(LIKE_S3)
    await store.put(K, b"data")
    with pytest.raises(Unsupported):
        await UNABLE[verb](store)


async def test_without_conditional_writes_a_condition_is_refused_rather_than_ignored() -> None:
    store = MemoryStore(replace(LIKE_S3, conditional_put=False))
    with pytest.raises(Unsupported):
        await store.put(K, b"data", Commit(condition=Absent()))
    await store.put(K, b"data")


async def test_without_links_there_are_no_file_ids() -> None:
    store = MemoryStore(LIKE_S3)
    info = await store.put(K, b"data", Commit(file_id=5))
    assert (info.file_id, info.links) == (0, 1)
    edit = Content(5, (Kept(0, 4), Hole(4, 1)), info)
    await store.adopt(K, edit, Commit(condition=Matches(info.etag), file_id=99))
    assert await read(store, K) == b"data\0"


async def test_without_listed_metadata_only_head_tells_it() -> None:
    store = MemoryStore(LIKE_S3)
    await store.put(K, b"", Commit(metadata={"a": "b"}))
    found = (await store.find("key")).object
    assert found is not None
    assert found.metadata is None
    assert (await store.list()).objects[0].metadata is None
    assert (await store.head(K)).metadata == {"a": "b"}


async def test_without_versions_a_pin_notices_that_its_version_is_gone() -> None:
    store = MemoryStore(LIKE_S3)
    await store.put(K, b"old")
    pin = await store.pin(K)
    buffer = memoryview(bytearray(3))
    assert not pin.get_into_nowait(0, buffer)
    await pin.get_into(0, buffer)
    await store.put(K, b"new")
    with pytest.raises(PreconditionFailed):
        await pin.get_into(0, buffer)
    await store.delete(K)
    with pytest.raises(NotFound):
        await pin.get_into(0, buffer)


async def test_a_pin_that_was_released_reads_no_more() -> None:
    store = MemoryStore()
    await store.put(K, b"data")
    pin = await store.pin(K)
    await pin.aclose()
    with pytest.raises(ValueError):
        pin.get_into_nowait(0, memoryview(bytearray(1)))
    with pytest.raises(ValueError):
        await pin.get_into(0, memoryview(bytearray(1)))


async def test_the_longest_key_is_a_choice() -> None:
    store = MemoryStore(LIKE_S3, key_bytes=1024)
    await store.put(Key("k" * 1024), b"")
    with pytest.raises(InvalidName, match="1 to 1024 bytes"):
        await store.put(Key("k" * 1025), b"")


async def test_another_client_sees_the_same_objects() -> None:
    store = MemoryStore()
    other = store.another()
    await store.put(K, b"data")
    assert await read(other, K) == b"data"
    await other.delete(K)
    assert await keys_of(store) == []


async def test_a_reservation_binds_other_clients_until_its_owner_is_gone() -> None:
    store = MemoryStore()
    other = store.another()
    await store.reserve(K)
    for refused in (other.reserve(K), other.put(K, b"x", Commit(condition=Absent()))):
        with pytest.raises(AlreadyExists):
            await refused
    await other.release(K)
    with pytest.raises(AlreadyExists):
        await other.reserve(K)
    await store.aclose()
    await other.reserve(K)


async def test_a_reservation_does_not_bind_those_who_overwrite_on_purpose() -> None:
    store = MemoryStore()
    other = store.another()
    await store.reserve(K)
    await other.put(K, b"theirs")
    with pytest.raises(AlreadyExists):
        await store.put(K, b"ours", Commit(condition=Absent()))


async def test_the_staged_file_is_taken_over_where_the_store_adopts(tmp_path: Path) -> None:
    for capabilities, taken in ((EVERYTHING, True), (LIKE_S3, False)):
        staged = InFile(tmp_path, b"data")
        assert staged.path is not None
        await MemoryStore(capabilities).adopt(K, whole(staged), Commit())
        assert staged.path.exists() != taken


async def test_times_come_from_the_clock() -> None:
    times = iter((111, 222))
    store = MemoryStore(clock_ns=lambda: next(times))
    assert (await store.put(K, b"")).mtime_ns == 111
    await store.update(K, {})
    assert (await store.head(K)).mtime_ns == 111
    assert (await store.put(K, b"")).mtime_ns == 222


# -- inside -------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("ksh"), st.integers(1, 40)), max_size=8), st.integers(0, 2**32))
def test_a_blob_holds_the_bytes_that_its_pieces_describe(shapes: list[tuple[str, int]], seed: int) -> None:
    rng = random.Random(seed)
    base, source = pattern(400, 1), InMemory(pattern(400, 2))
    pieces: list[Piece] = []
    expected = b""
    for shape, length in shapes:
        at = len(expected)
        if shape == "k":
            pieces.append(Kept(at, length))
            expected += base[at : at + length]
        elif shape == "s":
            pieces.append(Staged(at, length, source, at))
            expected += pattern(400, 2)[at : at + length]
        else:
            pieces.append(Hole(at, length))
            expected += bytes(length)
    blob = Blob([part for piece in pieces for part in Blob.slices_of(piece, Blob.of(base))])
    blob.check()
    start = rng.randint(0, blob.size)
    buffer = bytearray(rng.randint(0, blob.size - start))
    blob.read_into(start, memoryview(buffer))
    assert buffer == expected[start : start + len(buffer)]


def test_a_blob_does_not_read_behind_its_end() -> None:
    blob = Blob.of(b"data")
    for offset, size in ((0, 5), (4, 1), (-1, 1)):
        with pytest.raises(ValueError):
            blob.read_into(offset, memoryview(bytearray(size)))


async def test_the_bucket_keeps_its_invariants() -> None:
    rng = random.Random(3)
    store = MemoryStore()
    names = ["a", "b", "a/", "a/b", "b/c", "é/\U0001f600"]
    for _ in range(500):
        one, other = rng.choice(names), rng.choice(names)
        try:
            match rng.randrange(7):
                case 0 | 1:
                    await store.put(Key(one), b"x", Commit(file_id=rng.choice((0, 0, 7, 8))))
                case 2:
                    await store.delete(Key(one))
                case 3:
                    await store.rename(Key(one), Key(other), replace=rng.random() < 0.5)
                case 4:
                    await store.link(Key(one), Key(other))
                case 5:
                    await store.exchange(one, other)
                case _:
                    await store.rename_prefix(one, other)
        except (NotFound, AlreadyExists, ValueError):
            pass
        store.check()


def test_a_file_that_no_key_names_is_gone() -> None:
    bucket = Bucket()
    bucket.bind("a", File(5, Blob.of(b""), "e", 0, "t", "S", {}))  # type: ignore[arg-type]
    bucket.bind("b", bucket.keys["a"])
    bucket.unbind("a")
    bucket.check()
    assert bucket.files
    bucket.unbind("b")
    bucket.unbind("b")
    assert not bucket.files


async def test_a_range_is_checked_before_the_buffer_is_touched() -> None:
    store = MemoryStore()
    await store.put(K, b"data")
    buffer = bytearray(b"....")
    with pytest.raises(ValueError):
        await store.get_into(K, ByteRange(2, 6), memoryview(buffer))
    assert buffer == b"...."


async def test_a_pin_of_a_replaced_file_reads_the_old_bytes() -> None:
    store = MemoryStore()
    await store.put(K, b"old")
    pin = await store.pin(K)
    await store.another().put(K, b"newer")
    assert await read_pin(pin) == b"old"

"""What other clients of the bucket do, seen through a mount."""

from __future__ import annotations

import os

import pytest

from s3mount.errors import Exists, NoEntry, Stale
from s3mount.fs.attrs import AttrChange
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from tests.fs.mounted import RW, Mounted, body


@pytest.fixture(params=["everything", "like S3"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore() if request.param == "everything" else MemoryStore(LIKE_S3)


@pytest.fixture
def mount(store: MemoryStore) -> Mounted:
    return Mounted(store)


@pytest.fixture
def other(store: MemoryStore) -> MemoryStore:
    return store.another()


async def test_a_replaced_object_is_a_new_inode_and_the_old_one_is_stale(mount: Mounted, other: MemoryStore) -> None:
    await mount.write("f", b"old")
    ino = await mount.ino("f")
    await other.put(Key("f"), b"newer")
    with pytest.raises(Stale):
        await mount.fs.open(ino, RW)
    with pytest.raises(Stale):
        await mount.fs.getattr(ino)
    attr = await mount.stat("f")
    assert attr.ino != ino
    assert attr.size == 5
    assert await mount.read("f") == b"newer"
    mount.forget(ino)
    mount.fs.check()


async def test_an_open_file_shows_one_version() -> None:
    store = MemoryStore()
    mount = Mounted(store)
    await mount.write("f", b"old")
    fh = await mount.open("f")
    await store.another().put(Key("f"), b"newer")
    assert bytes(await mount.fs.read(fh, 0, 10)) == b"old"
    assert await mount.read("f") == b"newer"
    assert bytes(await mount.fs.read(fh, 0, 10)) == b"old"
    await mount.close(fh)
    assert await body(store, "f") == b"newer"


async def test_an_edit_of_a_replaced_object_fails_and_undoes_nothing(
    mount: Mounted, other: MemoryStore, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    await mount.write("f", b"old")
    fh = await mount.open("f")
    await mount.fs.write(fh, 0, b"OLD")
    await other.put(Key("f"), b"theirs")
    with pytest.raises(Stale):
        await mount.fs.flush(fh)
    with pytest.raises(Stale):
        await mount.fs.fsync(fh)
    with pytest.raises(Stale):
        await mount.fs.release(fh)
    assert "given up" in caplog.text
    assert await body(store, "f") == b"theirs"
    assert await mount.read("f") == b"theirs"
    mount.fs.check()


async def test_a_full_overwrite_wins(mount: Mounted, other: MemoryStore, store: MemoryStore) -> None:
    await mount.write("f", b"old")
    fh = await mount.open("f", RW | os.O_TRUNC)
    await mount.fs.write(fh, 0, b"mine")
    await other.put(Key("f"), b"theirs")
    assert await mount.read("f") == b"theirs"
    await mount.close(fh)
    assert await body(store, "f") == b"mine"
    assert await mount.read("f") == b"mine"


async def test_a_deleted_object_is_gone_and_its_edits_are_stale(
    mount: Mounted, other: MemoryStore, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    await mount.write("f", b"old")
    fh = await mount.open("f")
    await mount.fs.write(fh, 0, b"x")
    await other.delete(Key("f"))
    with pytest.raises(NoEntry):
        await mount.stat("f")
    with pytest.raises(Stale):
        await mount.close(fh)
    assert "given up" in caplog.text
    assert not store.bucket.keys


async def test_a_new_file_of_ours_goes_before_theirs_and_replaces_it(mount: Mounted, other: MemoryStore, store: MemoryStore) -> None:
    fh = await mount.create("f")
    await mount.fs.write(fh, 0, b"ours")
    await other.put(Key("f"), b"theirs!")
    assert (await mount.stat("f")).size == 4
    assert [entry.attr.size for entry in await mount.entries()] == [4]
    await mount.close(fh)
    assert await body(store, "f") == b"ours"


async def test_exclusive_creation_is_decided_at_once_where_keys_can_be_reserved() -> None:
    store = MemoryStore()
    mount = Mounted(store)
    other = Mounted(store.another())
    fh = await mount.create("f", flags=RW | os.O_EXCL)
    with pytest.raises(Exists):
        await other.create("f", flags=RW | os.O_EXCL)
    await mount.unlink("f")
    await mount.close(fh)
    await other.close(await other.create("f", flags=RW | os.O_EXCL))


async def test_exclusive_creation_is_decided_at_commit_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    from s3mount.errors import AlreadyExists

    store = MemoryStore(LIKE_S3)
    mount = Mounted(store)
    fh = await mount.create("f", flags=RW | os.O_EXCL)
    await mount.fs.write(fh, 0, b"ours")
    await store.another().put(Key("f"), b"theirs")
    with pytest.raises(AlreadyExists):
        await mount.close(fh)
    assert "given up" in caplog.text
    assert await mount.read("f") == b"theirs"


async def test_a_key_below_makes_an_object_shadowed(mount: Mounted, other: MemoryStore, store: MemoryStore) -> None:
    await mount.write("a", b"object")
    fh = await mount.open("a")
    await other.put(Key("a/b"), b"below")
    assert await mount.names() == ["a", "a␛f"]
    assert await mount.names("a") == ["b"]
    await mount.fs.write(fh, 0, b"OBJECT")
    assert await mount.read("a␛f") == b"OBJECT"
    await mount.close(fh)
    assert await body(store, "a") == b"OBJECT"
    await mount.rename("a␛f", "free")
    assert await mount.names() == ["a", "free"]


async def test_a_time_that_others_set_shows_on_another_inode(mount: Mounted, other: MemoryStore, store: MemoryStore) -> None:
    """The kernel would pass over it on the inode that it knows."""
    await mount.write("f", b"x")
    await mount.setattr("f", AttrChange(mtime_ns=5))
    async with mount.at("f") as ino:
        assert (await mount.stat("f")).ino == ino
        info = await other.head(Key("f"))
        await other.update(Key("f"), {**(info.metadata or {}), "mtime": "7.000000000"})
        changed = await mount.stat("f")
        assert (changed.ino != ino, changed.mtime_ns) == (True, 7_000_000_000)


async def test_a_directory_that_others_removed_is_gone(mount: Mounted, other: MemoryStore) -> None:
    await mount.mkdir("d")
    ino = await mount.ino("d")
    await other.delete(Key("d/"))
    with pytest.raises(Stale):
        await mount.fs.getattr(ino)
    with pytest.raises(NoEntry):
        await mount.stat("d")
    await mount.mkdir("d")
    assert (await mount.stat("d")).ino != ino
    mount.forget(ino)
    mount.fs.check()


async def test_a_tree_moves_to_where_others_removed_one(mount: Mounted, other: MemoryStore) -> None:
    for name in ("a", "a/sub", "b", "b/sub"):
        await mount.mkdir(name)
    for name in ("a/file", "b/file"):
        await mount.write(name, name.encode())
    known = {name: await mount.ino(name) for name in ("a", "a/sub", "a/file", "b", "b/sub", "b/file")}
    await other.delete_many([Key("b/"), Key("b/sub/"), Key("b/file")])
    await mount.rename("a", "b")
    assert await mount.names("b") == ["file", "sub"]
    assert await mount.read("b/file") == b"a/file"
    for name in ("", "/sub", "/file"):
        assert (await mount.stat(f"b{name}")).ino == known[f"a{name}"]
    for name in ("", "/sub"):
        assert (await mount.fs.getattr(known[f"b{name}"])).nlink == 0
    with pytest.raises(Stale):
        await mount.fs.getattr(known["b/file"])
    mount.fs.check()


async def test_a_file_that_others_renamed_is_found_under_its_new_name() -> None:
    store = MemoryStore()
    mount = Mounted(store)
    await mount.write("a", b"x")
    ino = await mount.ino("a")
    fh = await mount.open("a")
    await store.another().rename(Key("a"), Key("b"))
    assert (await mount.stat("b")).ino == ino
    with pytest.raises(NoEntry):
        await mount.stat("a")
    await mount.fs.write(fh, 0, b"y")
    await mount.close(fh)
    assert await body(store, "b") == b"y"
    assert sorted(store.bucket.keys) == ["b"]
    mount.forget(ino)


async def test_two_mounts_see_each_other_after_close(mount: Mounted, store: MemoryStore) -> None:
    there = Mounted(store.another())
    await mount.write("f", b"one")
    assert await there.read("f") == b"one"
    await there.write("f", b"two!")
    assert await mount.read("f") == b"two!"
    await mount.chmod("f", 0o600)
    assert (await there.stat("f")).mode & 0o777 == 0o600
    await there.unlink("f")
    with pytest.raises(NoEntry):
        await mount.read("f")
    await mount.mkdir("d")
    await there.write("d/x", b"")
    assert await mount.names("d") == ["x"]

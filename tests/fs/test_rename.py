"""Renaming files and directories, open or not, committed or not."""

from __future__ import annotations

import os

import pytest

from s3mount.errors import Exists, Invalid, IsADirectory, NameTooLong, NoEntry, NotADirectory, NotEmpty, NotSupported, Unavailable
from s3mount.fs.rename import EXCHANGE, NOREPLACE
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import Fault, Faulty, Script
from tests.fs.mounted import RW, Mounted, body


@pytest.fixture(params=["everything", "like S3"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore() if request.param == "everything" else MemoryStore(LIKE_S3)


@pytest.fixture
def mount(store: MemoryStore) -> Mounted:
    return Mounted(store)


async def test_a_file_keeps_its_number_and_bytes(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("a", b"x")
    ino = await mount.ino("a")
    await mount.mkdir("d")
    await mount.rename("a", "d/b")
    assert (await mount.stat("d/b")).ino == ino
    mount.forget(ino)
    assert await body(store, "d/b") == b"x"
    assert await mount.names() == ["d"]


async def test_the_target_is_replaced_and_its_readers_keep_it(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("a", b"new")
    await mount.write("b", b"old")
    fh = await mount.open("b")
    await mount.rename("a", "b")
    assert await mount.read("b") == b"new"
    assert bytes(await mount.fs.read(fh, 0, 9)) == b"old"
    await mount.fs.write(fh, 0, b"gone")
    await mount.close(fh)
    assert await body(store, "b") == b"new"
    assert sorted(store.bucket.keys) == ["b"]


async def test_a_new_file_is_committed_under_one_name_only(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("target", b"old")
    fh = await mount.create("temporary", flags=RW | os.O_EXCL)
    await mount.fs.write(fh, 0, b"whole")
    await mount.rename("temporary", "target")
    assert await body(store, "target") == b"whole"
    await mount.fs.write(fh, 5, b" more")
    await mount.close(fh)
    assert await body(store, "target") == b"whole more"
    assert sorted(store.bucket.keys) == ["target"]


async def test_an_edit_goes_on_under_the_new_name(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("a", b"0123456789")
    fh = await mount.open("a")
    await mount.fs.write(fh, 2, b"XX")
    await mount.rename("a", "b")
    assert await mount.read("b") == b"01XX456789"
    await mount.close(fh)
    assert await body(store, "b") == b"01XX456789"
    assert sorted(store.bucket.keys) == ["b"]


async def test_a_full_overwrite_goes_on_under_the_new_name(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("a", b"0123456789")
    fh = await mount.open("a", RW | os.O_TRUNC)
    await mount.rename("a", "b")
    await mount.fs.write(fh, 0, b"new")
    await mount.close(fh)
    assert await body(store, "b") == b"new"
    assert sorted(store.bucket.keys) == ["b"]


async def test_a_directory_moves_with_open_and_new_files_below(mount: Mounted, store: MemoryStore) -> None:
    await mount.mkdir("d")
    await mount.mkdir("d/sub")
    await mount.write("d/sub/f", b"one")
    edited = await mount.open("d/sub/f")
    await mount.fs.write(edited, 3, b" two")
    new = await mount.create("d/new", flags=RW | os.O_EXCL)
    await mount.fs.write(new, 0, b"new")
    ino = await mount.ino("d/sub")
    await mount.rename("d", "e")
    assert await mount.names("e") == ["new", "sub"]
    assert (await mount.stat("e/sub")).ino == ino
    mount.forget(ino)
    await mount.close(edited)
    await mount.close(new)
    assert sorted(store.bucket.keys) == ["e/", "e/new", "e/sub/", "e/sub/f"]
    assert await body(store, "e/sub/f") == b"one two"
    assert await body(store, "e/new") == b"new"
    await store.another().put(Key("d/new"), b"free again")


async def test_a_directory_replaces_an_empty_one_only(mount: Mounted, store: MemoryStore) -> None:
    await mount.mkdir("d")
    await mount.write("d/f", b"")
    await mount.mkdir("empty")
    await mount.mkdir("full")
    await mount.write("full/f", b"")
    await mount.write("file", b"")
    with pytest.raises(NotEmpty):
        await mount.rename("d", "full")
    with pytest.raises(NotADirectory):
        await mount.rename("d", "file")
    with pytest.raises(IsADirectory):
        await mount.rename("file", "empty")
    with pytest.raises(Exists):
        await mount.rename("d", "empty", flags=NOREPLACE)
    await mount.rename("d", "empty")
    assert await mount.names() == ["empty", "file", "full"]
    assert await mount.names("empty") == ["f"]


async def test_a_directory_does_not_become_its_own_descendant(mount: Mounted) -> None:
    await mount.mkdir("d")
    await mount.mkdir("d/e")
    with pytest.raises(Invalid):
        await mount.rename("d", "d/e/f")
    await mount.rename("d", "d")
    assert await mount.names("d") == ["e"]


async def test_no_replace_refuses_a_taken_name(mount: Mounted) -> None:
    await mount.write("a", b"a")
    await mount.write("b", b"b")
    fh = await mount.create("new")
    for target in ("b", "new"):
        with pytest.raises(Exists):
            await mount.rename("a", target, flags=NOREPLACE)
    await mount.rename("a", "c", flags=NOREPLACE)
    assert await mount.names() == ["b", "c", "new"]
    await mount.close(fh)
    with pytest.raises(NoEntry):
        await mount.rename("gone", "x")


async def test_a_directory_that_this_mount_alone_keeps_can_be_renamed(mount: Mounted, store: MemoryStore) -> None:
    await store.put(Key("d/x"), b"")
    await mount.unlink("d/x")
    await mount.rename("d", "e")
    assert await mount.names() == ["e"]
    fh = await mount.create("e/f")
    await mount.rename("e", "g")
    await mount.close(fh)
    assert sorted(store.bucket.keys) == ["g/f"]


async def test_an_implied_directory_stays_when_its_last_file_is_moved_away(mount: Mounted, store: MemoryStore) -> None:
    await store.put(Key("d/x"), b"")
    await mount.rename("d/x", "x")
    assert await mount.names() == ["d", "x"]


async def test_a_name_is_free_again_after_the_rename(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("a", b"1")
    fh = await mount.open("a")
    await mount.rename("a", "b")
    await mount.write("a", b"2")
    await mount.fs.write(fh, 1, b"!")
    await mount.close(fh)
    assert await body(store, "a") == b"2"
    assert await body(store, "b") == b"1!"


async def test_two_names_are_exchanged() -> None:
    store = MemoryStore()
    mount = Mounted(store)
    await mount.mkdir("d")
    await mount.write("d/x", b"x")
    new = await mount.create("f")
    await mount.fs.write(new, 0, b"f")
    inside = await mount.open("d/x")
    await mount.rename("d", "f", flags=EXCHANGE)
    assert await mount.names("f") == ["x"]
    assert await mount.read("d") == b"f"
    await mount.fs.write(inside, 1, b"y")
    await mount.fs.write(new, 1, b"g")
    await mount.close(inside)
    await mount.close(new)
    assert await body(store, "f/x") == b"xy"
    assert await body(store, "d") == b"fg"
    await mount.mkdir("e")
    await mount.write("e/z", b"z")
    await mount.rename("e", "f", flags=EXCHANGE)
    assert await mount.names("e") == ["x"]
    with pytest.raises(NoEntry):
        await mount.rename("e", "gone", flags=EXCHANGE)
    with pytest.raises(Invalid):
        await mount.rename("e/x", "e", flags=EXCHANGE)


async def test_a_store_that_cannot_exchange_says_so() -> None:
    mount = Mounted(MemoryStore(LIKE_S3))
    await mount.write("a", b"")
    await mount.write("b", b"")
    with pytest.raises(NotSupported):
        await mount.rename("a", "b", flags=EXCHANGE)


async def test_a_shadowed_object_gets_its_name_back_when_the_directory_moves_away(mount: Mounted, store: MemoryStore) -> None:
    await store.put(Key("a"), b"object")
    await store.put(Key("a/b"), b"below")
    assert await mount.names() == ["a", "a␛f"]
    await mount.rename("a", "d")
    assert await mount.names() == ["a", "d"]
    assert await mount.read("a") == b"object"
    await mount.rename("d", "c")
    await mount.rename("a", "c/a")
    assert sorted(store.bucket.keys) == ["c/a", "c/b"]


async def test_a_shadowed_object_can_be_removed_under_its_listed_name_after_its_directory(mount: Mounted, store: MemoryStore) -> None:
    """As `rm -r` does, which lists first."""
    await store.put(Key("d/a"), b"object")
    await store.put(Key("d/a/b"), b"below")
    assert await mount.names("d") == ["a", "a␛f"]
    await mount.unlink("d/a/b")
    await mount.rmdir("d/a")
    assert await mount.names("d") == ["a"]
    await mount.unlink("d/a␛f")
    await mount.rmdir("d")
    assert not store.bucket.keys


async def test_hard_links_move_one_by_one() -> None:
    store = MemoryStore()
    mount = Mounted(store)
    await mount.mkdir("d")
    await mount.write("d/a", b"x")
    await mount.link("d/a", "d/b")
    await mount.link("d/a", "c")
    fh = await mount.open("d/b")
    await mount.rename("d", "e")
    await mount.rename("e/a", "e/z")
    await mount.unlink("c")
    await mount.fs.write(fh, 0, b"y")
    await mount.close(fh)
    assert await body(store, "e/b") == await body(store, "e/z") == b"y"
    assert (await mount.stat("e/b")).nlink == 2


async def test_directories_that_this_mount_alone_keeps_can_be_exchanged() -> None:
    store = MemoryStore()
    mount = Mounted(store)
    await store.put(Key("d/x"), b"")
    await mount.unlink("d/x")
    await mount.write("f", b"f")
    await mount.rename("d", "f", flags=EXCHANGE)
    assert await mount.names() == ["d", "f"]
    assert await mount.read("d") == b"f"
    assert await mount.names("f") == []


async def test_a_directory_that_cannot_be_made_ready_for_an_exchange_is_not_looked_up() -> None:
    """Regression: nobody gave that lookup back."""
    store, script = MemoryStore(), Script()
    mount = Mounted(Faulty(store, script))
    await store.put(Key("d/x"), b"")
    await mount.unlink("d/x")
    await mount.write("f", b"f")
    script.add("put", Fault(before=Unavailable("The service is away.")))
    with pytest.raises(Unavailable):
        await mount.rename("d", "f", flags=EXCHANGE)
    assert script.used_up
    assert not any(inode.lookups for inode in mount.fs._inodes)
    mount.fs.check()


async def test_a_path_that_becomes_too_long_is_refused() -> None:
    store = MemoryStore(key_bytes=1024)
    mount = Mounted(store, key_bytes=1024)
    deep = "/".join(["d" * 200] * 4)
    for depth in range(1, 5):
        await mount.mkdir("/".join(["d" * 200] * depth))
    await mount.write(f"{deep}/f", b"")
    with pytest.raises(NameTooLong):
        await mount.write(f"{deep}/{'k' * 250}", b"")
    await mount.mkdir("s")
    await store.put(Key("s/" + "k" * 250), b"")
    with pytest.raises(NameTooLong):
        await mount.rename("s", f"{deep}/s")
    assert await mount.names("s") == ["k" * 250]

"""Names, files and directories over an object store."""

from __future__ import annotations

import os
import stat

import pytest

from s3mount.errors import (
    Exists,
    Invalid,
    IsADirectory,
    NameTooLong,
    NoAttribute,
    NoEntry,
    NoSpace,
    NotADirectory,
    NotEmpty,
    NotPermitted,
    NotSupported,
    ReadOnly,
    Stale,
)
from s3mount.fs.attrs import AttrChange
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from tests.fs.mounted import ME, RW, SUPERUSER, Mounted, body, told


@pytest.fixture(params=["everything", "like S3"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore() if request.param == "everything" else MemoryStore(LIKE_S3)


@pytest.fixture
def mount(store: MemoryStore) -> Mounted:
    return Mounted(store)


async def test_a_written_file_is_an_object_with_its_attributes(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("hello.txt", b"hello")
    assert await body(store, "hello.txt") == b"hello"
    metadata = (await store.head(Key("hello.txt"))).metadata
    assert metadata is not None
    assert metadata["mode"] == str(stat.S_IFREG | 0o644)
    assert (await mount.stat("hello.txt")).size == 5
    assert await mount.read("hello.txt") == b"hello"


async def test_a_new_file_is_there_before_its_first_commit(mount: Mounted, store: MemoryStore) -> None:
    fh = await mount.create("new", mode=0)
    await mount.fs.write(fh, 0, b"abc")
    assert await mount.names() == ["new"]
    assert (await mount.stat("new")).size == 3
    assert not store.bucket.keys
    with pytest.raises(Exists):
        await mount.create("new", flags=RW | os.O_EXCL)
    other = await mount.open("new", os.O_RDONLY)
    assert bytes(await mount.fs.read(other, 0, 10)) == b"abc"
    await mount.close(other)
    assert await body(store, "new") == b"abc"
    await mount.close(fh)


async def test_an_empty_file_is_committed_by_the_last_release_and_not_by_a_flush(mount: Mounted, store: MemoryStore) -> None:
    fh = await mount.create("empty")
    await mount.fs.flush(fh)
    assert not store.bucket.keys
    await mount.fs.release(fh)
    assert await body(store, "empty") == b""


async def test_a_close_says_beforehand_whether_it_commits_anything(mount: Mounted, store: MemoryStore) -> None:
    fh = await mount.create("file")
    other = (await mount.fs.open((await mount.stat("file")).ino, os.O_WRONLY)).fh
    assert not mount.fs.has_to_commit(fh)
    await mount.fs.release(fh)
    assert mount.fs.has_to_commit(other)
    await mount.fs.write(other, 0, b"one")
    await mount.fs.flush(other)
    assert not mount.fs.has_to_commit(other)
    await mount.fs.write(other, 3, b"two")
    assert mount.fs.has_to_commit(other)
    await mount.fs.release(other)
    assert not mount.fs.has_to_commit(other)
    assert await body(store, "file") == b"onetwo"


async def test_writes_behind_the_last_flush_are_committed_by_release(mount: Mounted, store: MemoryStore) -> None:
    fh = await mount.create("late")
    await mount.fs.write(fh, 0, b"one")
    await mount.fs.flush(fh)
    await mount.fs.write(fh, 3, b"two")
    await mount.fs.release(fh)
    assert await body(store, "late") == b"onetwo"


async def test_keys_make_directories_appear(mount: Mounted, store: MemoryStore) -> None:
    await store.put(Key("a/b/c"), b"x")
    assert await mount.names() == ["a"]
    assert await mount.names("a") == ["b"]
    assert stat.S_ISDIR((await mount.stat("a/b")).mode)
    assert await mount.read("a/b/c") == b"x"


async def test_mkdir_persists_and_an_emptied_implied_directory_stays_within_the_mount(mount: Mounted, store: MemoryStore) -> None:
    await mount.mkdir("made", 0o750)
    assert "made/" in store.bucket.keys
    await store.put(Key("implied/x"), b"")
    await mount.unlink("implied/x")
    assert await mount.names() == ["implied", "made"]
    assert await mount.names("implied") == []
    await mount.rmdir("implied")
    again = await mount.remount()
    assert await again.names() == ["made"]
    assert stat.S_IMODE((await again.stat("made")).mode) == 0o750


async def test_rmdir_asks_the_store(mount: Mounted, store: MemoryStore) -> None:
    await mount.mkdir("d")
    await store.another().put(Key("d/theirs"), b"")
    with pytest.raises(NotEmpty):
        await mount.rmdir("d")
    await store.another().delete(Key("d/theirs"))
    fh = await mount.create("d/new")
    with pytest.raises(NotEmpty):
        await mount.rmdir("d")
    await mount.unlink("d/new")
    await mount.rmdir("d")
    await mount.close(fh)
    assert not store.bucket.keys


async def test_what_is_there_is_not_made_again(mount: Mounted) -> None:
    await mount.mkdir("d")
    await mount.write("f", b"")
    for path in ("d", "f"):
        with pytest.raises(Exists):
            await mount.mkdir(path)
        with pytest.raises(Exists):
            await mount.symlink(path, b"x")
        with pytest.raises(Exists):
            await mount.create(path, flags=RW | os.O_EXCL)
    with pytest.raises(NotADirectory):
        await mount.rmdir("f")
    with pytest.raises(IsADirectory):
        await mount.unlink("d")
    with pytest.raises(NoEntry):
        await mount.unlink("gone")
    with pytest.raises(NoEntry):
        await mount.rmdir("gone")
    with pytest.raises(NotADirectory):
        await mount.mkdir("f/x")


async def test_an_unlinked_open_file_goes_on_and_leaves_nothing(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("f", b"old bytes")
    fh = await mount.open("f")
    ino = (await mount.stat("f")).ino
    await mount.unlink("f")
    assert bytes(await mount.fs.read(fh, 0, 20)) == b"old bytes"
    await mount.fs.write(fh, 0, b"new")
    assert (await mount.fs.getattr(ino)).nlink == 0
    with pytest.raises(NoEntry):
        await mount.stat("f")
    assert bytes(await mount.fs.read(fh, 0, 20)) == b"new bytes"
    await mount.fs.fsync(fh)
    await mount.close(fh)
    assert not store.bucket.keys


async def test_a_name_can_be_used_again_while_the_former_file_is_open(mount: Mounted, store: MemoryStore) -> None:
    old = await mount.create("f")
    await mount.fs.write(old, 0, b"old")
    await mount.unlink("f")
    new = await mount.create("f", flags=RW | os.O_EXCL)
    await mount.fs.write(new, 0, b"new")
    assert bytes(await mount.fs.read(old, 0, 5)) == b"old"
    await mount.close(new)
    await mount.close(old)
    assert await body(store, "f") == b"new"


async def test_truncation_by_name_and_by_open(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("f", b"0123456789")
    assert (await mount.truncate("f", 4)).size == 4
    assert await body(store, "f") == b"0123"
    await mount.truncate("f", 6)
    assert await mount.read("f") == b"0123\0\0"
    fh = await mount.open("f", os.O_WRONLY | os.O_TRUNC)
    assert (await mount.stat("f")).size == 0
    assert await body(store, "f") == b"0123\0\0"
    await mount.close(fh)
    assert await body(store, "f") == b""


async def test_attributes_survive_a_remount(mount: Mounted) -> None:
    await mount.write("f", b"x")
    await mount.mkdir("d")
    for path in ("f", "d"):
        await mount.setattr(
            path, AttrChange(mode=0o4711, uid=7, gid=8, atime_ns=-1_500_000_000, mtime_ns=1_234_567_890_123_456_789), SUPERUSER
        )
    again = await mount.remount()
    for path in ("f", "d"):
        attr = await again.stat(path)
        assert (stat.S_IMODE(attr.mode), attr.uid, attr.gid) == (0o4711, 7, 8)
        assert (attr.atime_ns, attr.mtime_ns) == (-1_500_000_000, 1_234_567_890_123_456_789)


async def test_an_attribute_change_rides_with_the_commit(mount: Mounted, store: MemoryStore) -> None:
    fh = await mount.create("f")
    await mount.fs.write(fh, 0, b"x")
    await mount.chmod("f", 0o600)
    assert not store.bucket.keys
    await mount.close(fh)
    metadata = (await store.head(Key("f"))).metadata
    assert metadata is not None
    assert metadata["mode"] == str(stat.S_IFREG | 0o600)


async def test_foreign_metadata_is_kept(mount: Mounted, store: MemoryStore) -> None:
    from s3mount.store.api import Commit

    await store.put(Key("f"), b"x", Commit(metadata={"colour": "blue"}, content_type="text/plain"))
    await mount.chmod("f", 0o600)
    fh = await mount.open("f")
    await mount.fs.write(fh, 1, b"y")
    await mount.close(fh)
    info = await store.head(Key("f"))
    assert info.metadata is not None
    assert info.metadata["colour"] == "blue"
    assert info.content_type == "text/plain"


async def test_writing_clears_set_id_bits(mount: Mounted) -> None:
    await mount.write("f", b"x")
    await mount.chmod("f", 0o6755)
    fh = await mount.open("f")
    await mount.fs.write(fh, 0, b"y")
    assert stat.S_IMODE((await mount.stat("f")).mode) == 0o755
    await mount.close(fh)


async def test_new_entries_of_a_set_group_id_directory_inherit_its_group(mount: Mounted) -> None:
    await mount.mkdir("d")
    await mount.setattr("d", AttrChange(mode=0o2775, gid=55), SUPERUSER)
    await mount.mkdir("d/sub")
    attr = await mount.stat("d/sub")
    assert attr.gid == 55
    assert attr.mode & stat.S_ISGID


async def test_symbolic_links_and_special_files_are_objects(mount: Mounted, store: MemoryStore) -> None:
    await mount.symlink("link", b"some/where")
    assert await body(store, "link") == b"some/where"
    attr = await mount.stat("link")
    assert stat.S_ISLNK(attr.mode)
    assert attr.size == 10
    async with mount.at("link") as ino:
        assert await mount.fs.readlink(ino) == b"some/where"
    fs = mount.fs
    for name, kind, rdev in (
        (b"fifo", stat.S_IFIFO, 0),
        (b"dev", stat.S_IFCHR, os.makedev(1, 3)),
        (b"socket", stat.S_IFSOCK, 0),
        (b"reg", stat.S_IFREG, 0),
    ):
        made = await fs.mknod(fs.ROOT, name, mode=kind | 0o600, rdev=rdev, caller=ME)
        fs.forget(made.ino, 1)
    again = await mount.remount()
    assert stat.S_ISFIFO((await again.stat("fifo")).mode)
    assert (await again.stat("dev")).rdev == os.makedev(1, 3)
    assert stat.S_ISSOCK((await again.stat("socket")).mode)
    assert stat.S_ISREG((await again.stat("reg")).mode)
    async with again.at("fifo") as ino:
        with pytest.raises(Invalid):
            await again.fs.readlink(ino)


async def test_extended_attributes(mount: Mounted) -> None:
    await mount.write("f", b"x")
    await mount.mkdir("d")
    for path in ("f", "d"):
        async with mount.at(path) as ino:
            with pytest.raises(NoAttribute):
                await mount.fs.getxattr(ino, b"user.a")
            with pytest.raises(NoAttribute):
                await mount.fs.getxattr(ino, b"security.capability")
            with pytest.raises(NotSupported):
                await mount.fs.setxattr(ino, b"system.posix_acl_access", b"x")
            await mount.fs.setxattr(ino, b"user.a", bytes(range(256)))
            await mount.fs.setxattr(ino, b"user.\xff", b"")
            with pytest.raises(Exists):
                await mount.fs.setxattr(ino, b"user.a", b"", os.XATTR_CREATE)
            with pytest.raises(NoAttribute):
                await mount.fs.setxattr(ino, b"user.b", b"", os.XATTR_REPLACE)
    mount = await mount.remount()
    for path in ("f", "d"):
        async with mount.at(path) as ino:
            assert await mount.fs.listxattr(ino) == [b"user.a", b"user.\xff"]
            assert await mount.fs.getxattr(ino, b"user.a") == bytes(range(256))
            await mount.fs.removexattr(ino, b"user.a")
            assert await mount.fs.listxattr(ino) == [b"user.\xff"]


@pytest.mark.parametrize("store", [MemoryStore(), MemoryStore(LIKE_S3)])
async def test_extended_attributes_beyond_what_the_store_takes_are_refused_at_once(store: MemoryStore) -> None:
    mount = Mounted(store)
    await mount.write("f", b"x")
    most = store.capabilities.metadata_bytes // 2
    async with mount.at("f") as ino:
        await mount.fs.setxattr(ino, b"user.a", b"a" * most)
        with pytest.raises(NoSpace):
            await mount.fs.setxattr(ino, b"user.b", b"b" * most)
        assert await mount.fs.listxattr(ino) == [b"user.a"]
    mount = await mount.remount()
    async with mount.at("f") as ino:
        assert await mount.fs.getxattr(ino, b"user.a") == b"a" * most


async def test_hard_links_share_one_file() -> None:
    store = MemoryStore()
    mount = Mounted(store)
    await mount.write("a", b"x")
    await mount.link("a", "b")
    assert (await mount.stat("a")).ino == (await mount.stat("b")).ino
    assert (await mount.stat("b")).nlink == 2
    fh = await mount.open("a")
    await mount.fs.write(fh, 0, b"shared")
    assert await mount.read("b") == b"shared"
    await mount.unlink("a")
    assert (await mount.stat("b")).nlink == 1
    await mount.fs.write(fh, 6, b"!")
    await mount.close(fh)
    assert await body(store, "b") == b"shared!"
    again = await mount.remount()
    await again.mkdir("d")
    with pytest.raises(NotPermitted):
        await again.link("d", "e")


async def test_an_edit_through_a_removed_name_reaches_the_links_that_are_left() -> None:
    store = MemoryStore()
    mount = Mounted(store)
    await mount.write("a", b"x")
    await store.link(Key("a"), Key("elsewhere"))
    for flags in (RW, RW | os.O_TRUNC):
        await mount.link("elsewhere", "name") if flags != RW else await mount.rename("a", "name")
        mount = await mount.remount()
        fh = await mount.open("name", flags)
        await mount.unlink("name")
        await mount.fs.write(fh, 0, b"edit%d" % flags)
        await mount.close(fh)
        assert await body(store, "elsewhere") == b"edit%d" % flags
        assert sorted(store.bucket.keys) == ["elsewhere"]


async def test_a_store_without_links_refuses_them() -> None:
    mount = Mounted(MemoryStore(LIKE_S3))
    await mount.write("a", b"")
    with pytest.raises(NotPermitted):
        await mount.link("a", "b")


async def test_inode_numbers_survive_a_remount(mount: Mounted, store: MemoryStore) -> None:
    await mount.write("f", b"x")
    await mount.mkdir("d")
    await store.put(Key("implied/x"), b"")
    before = [(await mount.stat(path)).ino for path in ("f", "d", "implied", "implied/x")]
    again = await mount.remount()
    assert [(await again.stat(path)).ino for path in ("f", "d", "implied", "implied/x")] == before


async def test_every_key_is_reachable(mount: Mounted, store: MemoryStore) -> None:
    keys = [
        "a",
        "a/b",
        "a//c",
        "/x",
        "./y",
        "../z",
        "d/",
        "e/e/",
        "n\0n",
        "␛",
        "caf␛E9",
        "k" * 600,
        "k" * 600 + "/z",
        "␛f",
        "a␛f",
        "/",
        "//",
    ]
    for key in keys:
        await store.put(Key(key), key.encode())
    found: dict[bytes, bytes] = {}

    async def walk(path: bytes) -> None:
        for entry in await mount.entries(path):
            below = path + b"/" + entry.name if path else entry.name
            attr = await mount.stat(below)
            assert (attr.ino, attr.mode) == (entry.attr.ino, entry.attr.mode)
            if stat.S_ISDIR(entry.attr.mode):
                await walk(below)
            else:
                found[below] = await mount.read(below)

    await walk(b"")
    assert sorted(found.values()) == sorted(key.encode() for key in keys)
    mark = "␛".encode()
    assert found[b"a" + mark + b"f"] == b"a"
    assert found[b"d/" + mark + b"_"] == b"d/"
    assert found[b"caf\xe9"] == "caf␛E9".encode()
    for path in found:
        await mount.unlink(path)
    assert all(not file.blob.size for file in store.bucket.files.values())


async def test_an_application_may_use_any_name(mount: Mounted, store: MemoryStore) -> None:
    names = [b"\xff\xfe", "x␛y".encode(), b"new\nline", b"back\\slash", b"k" * 255, "é".encode(), b"e\xcc\x81", b" ", b"~"]
    for name in names:
        await mount.write(name, name)
        await mount.mkdir(b"d" + name[:254])
    assert sorted(entry.name for entry in await mount.entries()) == sorted(names + [b"d" + name[:254] for name in names])
    again = await mount.remount()
    for name in names:
        assert await again.read(name) == name
    assert "back\\slash" in store.bucket.keys
    with pytest.raises(NameTooLong):
        await mount.write(b"k" * 256, b"")


async def test_names_that_stand_for_something_else_cannot_be_made(mount: Mounted) -> None:
    await mount.mkdir("d")
    for name in ("x␛f", "k" * 251 + "␛>"):
        with pytest.raises(Invalid):
            await mount.write(name, b"")
        with pytest.raises(Invalid):
            await mount.mkdir(name)
    with pytest.raises(NotPermitted):
        await mount.write("d/␛_", b"x")


async def test_a_read_only_mount_changes_nothing(store: MemoryStore) -> None:
    await store.put(Key("f"), b"x")
    mount = Mounted(store, read_only=True)
    assert await mount.read("f") == b"x"
    for attempt in (
        mount.write("g", b""),
        mount.write("f", b""),
        mount.mkdir("d"),
        mount.unlink("f"),
        mount.rename("f", "g"),
        mount.chmod("f", 0),
        mount.truncate("f", 0),
        mount.open("f", os.O_WRONLY),
        mount.symlink("s", b"x"),
        mount.rmdir("f"),
    ):
        with pytest.raises(ReadOnly):
            await attempt


async def test_a_prefix_can_be_the_top_of_a_mount(store: MemoryStore) -> None:
    await store.put(Key("p/q/x"), b"x")
    await store.put(Key("other"), b"")
    mount = Mounted(store, root="p/q/")
    assert await mount.names() == ["x"]
    await mount.write("y", b"y")
    assert await body(store, "p/q/y") == b"y"
    await mount.chmod("", 0o711)
    mount = await mount.remount(root="p/q/")
    assert stat.S_IMODE((await mount.stat("")).mode) == 0o711
    empty = Mounted(store, root="nowhere/")
    assert await empty.names() == []


async def test_the_time_of_a_directory_follows_its_entries(mount: Mounted) -> None:
    await mount.mkdir("d")
    await mount.setattr("d", AttrChange(mtime_ns=1, ctime_ns=1))
    await mount.write("d/f", b"")
    made = await mount.stat("d")
    assert made.mtime_ns > 1
    again = await mount.remount()
    assert (await again.stat("d")).mtime_ns == made.mtime_ns
    await again.setattr("d", AttrChange(mtime_ns=5))
    await again.unlink("d/f")
    assert (await again.stat("d")).mtime_ns > 5


async def test_a_removed_directory_that_is_open_is_empty_and_takes_nothing(mount: Mounted) -> None:
    await mount.mkdir("d")
    ino = await mount.ino("d")
    fh = await mount.fs.opendir(ino)
    await mount.rmdir("d")
    assert await told(mount.fs, fh) == []
    assert (await mount.fs.getattr(ino)).nlink == 0
    with pytest.raises(NoEntry):
        await mount.fs.mkdir(ino, b"x", mode=0o755, caller=ME)
    await mount.fs.releasedir(fh)
    mount.forget(ino)
    with pytest.raises(Stale):
        await mount.fs.getattr(ino)

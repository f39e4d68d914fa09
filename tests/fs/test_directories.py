"""Reading directories: of any size, while they change, from any position."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

import pytest
import trio

from s3mount.errors import Unavailable
from s3mount.fs.inode import FileInode
from s3mount.model import Key
from s3mount.store.api import EVERYTHING, Capabilities
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty, Script
from tests.fs.mounted import ME, Mounted, accepted, told


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def mount(store: MemoryStore) -> Mounted:
    return Mounted(store)


async def fill(store: MemoryStore, count: int, prefix: str = "") -> list[bytes]:
    names = [f"{number:05}" for number in range(count)]
    for name in names:
        await store.put(Key(prefix + name), b"")
    return [name.encode() for name in names]


async def take_all(mount: Mounted, fh: int, start: int = 0, count: int = 300) -> list[bytes]:
    names: list[bytes] = []
    while taken := await told(mount.fs, fh, start, count):
        names += [entry.name for entry in taken]
        start = taken[-1].next_id
    return names


async def test_a_large_directory_comes_in_pages_each_entry_once(mount: Mounted, store: MemoryStore) -> None:
    names = await fill(store, 2500)
    fh = await mount.fs.opendir(mount.fs.ROOT)
    assert await take_all(mount, fh) == names
    mount.fs.check()
    assert await take_all(mount, fh, start=2000) == names[2000:]
    assert await take_all(mount, fh, start=17, count=5) == names[17:]
    await mount.fs.releasedir(fh)


async def test_deleting_while_reading_loses_nothing(mount: Mounted, store: MemoryStore) -> None:
    names = await fill(store, 2500)
    fh = await mount.fs.opendir(mount.fs.ROOT)
    seen, start = [], 0
    while taken := await told(mount.fs, fh, start, 100):
        for entry in taken:
            seen.append(entry.name)
            await mount.unlink(entry.name)
        start = taken[-1].next_id
    assert seen == names
    assert not store.bucket.keys
    await mount.fs.releasedir(fh)


async def test_a_seek_backwards_finds_the_same_positions_although_entries_went_and_came(mount: Mounted, store: MemoryStore) -> None:
    names = await fill(store, 2300)
    fh = await mount.fs.opendir(mount.fs.ROOT)
    positions = {entry.name: entry.next_id for entry in await told(mount.fs, fh, 0, 5000)}
    for name in names[::7]:
        await mount.unlink(name)
    for number in range(0, 2300, 11):
        await store.put(Key(f"{number:05}-new"), b"")
    left = [name for at, name in enumerate(names) if at % 7]
    for start in (1, 999, 1000, 1001, 1500, 2299):
        assert await take_all(mount, fh, start) == [name for name in left if positions[name] > start]
    assert len(await take_all(mount, fh, 0)) == len(left) + len(range(0, 2300, 11))
    await mount.fs.releasedir(fh)


async def test_new_files_are_listed_in_a_large_directory(mount: Mounted, store: MemoryStore) -> None:
    names = await fill(store, 1500)
    opened = [await mount.create(f"{number:05}.new") for number in (3, 999, 1000, 1499)]
    assert len(await mount.names()) == len(names) + 4
    for fh in opened:
        await mount.close(fh)
    assert len(await mount.names()) == len(names) + 4


async def test_what_is_committed_or_unlinked_while_it_is_read_is_told_once_or_not_at_all(mount: Mounted, store: MemoryStore) -> None:
    await fill(store, 10)
    new = await mount.create("00005.new")
    fh = await mount.fs.opendir(mount.fs.ROOT)
    first = await told(mount.fs, fh, 0, 2)
    await mount.close(new)
    await mount.unlink("00007")
    rest = await take_all(mount, fh, first[-1].next_id)
    names = [entry.name for entry in first] + rest
    assert sorted(names) == [b"00000", b"00001", b"00002", b"00003", b"00004", b"00005", b"00005.new", b"00006", b"00008", b"00009"]
    await mount.fs.releasedir(fh)


async def test_a_directory_renamed_while_it_is_read_goes_on(mount: Mounted, store: MemoryStore) -> None:
    names = await fill(store, 2100, "d/")
    ino = await mount.ino("d")
    fh = await mount.fs.opendir(ino)
    first = await told(mount.fs, fh, 0, 500)
    await mount.rename("d", "e")
    seen = [entry.name for entry in first] + await take_all(mount, fh, 500)
    assert seen == names
    await mount.fs.releasedir(fh)
    mount.forget(ino)


async def test_accepted_entries_hold_a_lookup_and_the_others_do_not(mount: Mounted, store: MemoryStore) -> None:
    await fill(store, 5)
    await mount.mkdir("d")
    fh = await mount.fs.opendir(mount.fs.ROOT)
    numbers = [entry.attr.ino for entry in await accepted(mount.fs, fh, count=2)]
    await mount.fs.releasedir(fh)
    mount.fs.check()
    assert [(await mount.fs.getattr(ino)).ino for ino in numbers] == numbers
    assert (await mount.stat("00001")).ino == numbers[1]
    assert len(mount.fs._inodes) == 3
    for ino in numbers:
        mount.fs.forget(ino, 1)
    mount.fs.check()
    assert len(mount.fs._inodes) == 1


async def test_entries_carry_their_attributes_on_stores_whose_listings_do_not() -> None:
    mount = Mounted(MemoryStore(LIKE_S3))
    await mount.symlink("link", b"x")
    await mount.mkdir("d", 0o700)
    await mount.write("f", b"abc")
    modes = {entry.name: (entry.attr.mode, entry.attr.size) for entry in await mount.entries()}
    assert modes == {b"d": (0o040700, 0), b"f": (0o100644, 3), b"link": (0o120777, 1)}


class Kernel:
    """Notes what it is asked to forget. *stands*: where processes are; None: nobody can tell."""

    def __init__(self, *stands: bytes, knows: bool = True) -> None:
        self.asked: list[tuple[int, bytes]] = []
        self._stands = stands if knows else None

    def entry(self, parent: int, name: bytes) -> None:
        self.asked.append((parent, name))

    def inode(self, ino: int) -> None:
        raise AssertionError

    def attributes(self, ino: int) -> None:
        raise AssertionError

    def covered(self) -> Collection[bytes]:
        return ()

    def occupied(self) -> Collection[bytes] | None:
        return self._stands


@pytest.mark.parametrize("can", [EVERYTHING, replace(LIKE_S3, listed_metadata=True)], ids=["everything", "like S3"])
async def test_cold_files_are_expelled_when_there_are_too_many(can: Capabilities) -> None:
    store = MemoryStore(can)
    mount = Mounted(store, inode_limit=100)
    kernel = mount.fs._volume.invalidate = Kernel()
    await fill(store, 500, "d/")
    directory = await mount.ino("d")
    held = await mount.open("d/00000")
    numbers: dict[bytes, int] = {}
    fh = await mount.fs.opendir(directory)
    start = 0
    while entries := await accepted(mount.fs, fh, start, 20):
        start = entries[-1].next_id
        numbers |= {entry.name: entry.attr.ino for entry in entries}
        assert len(mount.fs._inodes) <= 100 + 20 + 2
        for parent, name in kernel.asked:
            assert parent == directory
            mount.fs.forget(numbers.pop(name), 1)
        kernel.asked.clear()
    assert b"00000" in numbers
    await mount.fs.releasedir(fh)
    await mount.close(held)
    for ino in numbers.values():
        mount.fs.forget(ino, 1)
    mount.forget(directory)
    mount.fs.check()
    assert len(mount.fs._inodes) == 1


@pytest.mark.parametrize("can", [EVERYTHING, replace(LIKE_S3, listed_metadata=True)], ids=["everything", "like S3"])
async def test_a_kernel_that_is_slow_to_forget_is_asked_on_after_the_walk(can: Capabilities) -> None:
    store = MemoryStore(can)
    mount = Mounted(store, inode_limit=100)
    kernel = mount.fs._volume.invalidate = Kernel()
    await fill(store, 3000, "d/")
    directory = await mount.ino("d")
    fh = await mount.fs.opendir(directory)
    numbers: dict[bytes, int] = {}
    start = 0
    while entries := await accepted(mount.fs, fh, start, 20):
        start = entries[-1].next_id
        numbers |= {entry.name: entry.attr.ino for entry in entries}
    await mount.fs.releasedir(fh)
    assert len(mount.fs._inodes) == 3002
    for _, name in kernel.asked:  # which grows
        mount.fs.forget(numbers[name], 1)
    assert len(mount.fs._inodes) <= 100
    mount.fs.check()


@pytest.mark.parametrize("can", [EVERYTHING, replace(LIKE_S3, listed_metadata=True)], ids=["everything", "like S3"])
async def test_entries_in_front_of_one_that_cannot_be_listed_are_not_looked_up(can: Capabilities) -> None:
    """Regression: the kernel is only told of the failure, so it never gave back what it had accepted before."""
    store, script = MemoryStore(can), Script()
    mount = Mounted(Faulty(store, script))
    names = await fill(store, 1200)
    fh = await mount.fs.opendir(mount.fs.ROOT)
    script.add("list", NOTHING, Fault(before=Unavailable("The service is away.")))
    with pytest.raises(Unavailable):
        await accepted(mount.fs, fh)
    mount.fs.check()
    assert len(mount.fs._inodes) == 1
    assert await take_all(mount, fh) == names
    await mount.fs.releasedir(fh)
    assert len(mount.fs._inodes) == 1


async def test_what_is_only_listed_has_no_inode_until_somebody_asks_for_it() -> None:
    store = MemoryStore(replace(LIKE_S3, listed_metadata=True))
    mount = Mounted(store)
    names = await fill(store, 50)
    fh = await mount.fs.opendir(mount.fs.ROOT)
    listed = await accepted(mount.fs, fh)
    assert list(mount.fs._inodes) == [mount.fs._inodes.root]
    assert len(mount.fs._inodes) == 51
    assert await mount.fs.lookup(mount.fs.ROOT, b"00003", ME) == listed[3].attr
    assert len(list(mount.fs._inodes)) == 1
    held = (await mount.fs.open(listed[7].attr.ino, os.O_RDWR)).fh
    await store.put(Key("00009"), b"by somebody else")
    again = await accepted(mount.fs, fh)
    assert [entry.name for entry in again] == names
    assert [was.name for was, now in zip(listed, again, strict=True) if was.attr != now.attr] == [b"00009"]
    assert [inode.key for inode in mount.fs._inodes if isinstance(inode, FileInode)] == ["00007", "00009", "00009"]
    await mount.fs.release(held)
    await mount.fs.releasedir(fh)
    for entry in (*listed, *again, listed[3]):
        mount.fs.forget(entry.attr.ino, 1)
    mount.fs.check()
    assert len(mount.fs._inodes) == 1


@pytest.mark.parametrize("knows", [True, False])
async def test_cold_directories_are_expelled_when_they_alone_are_too_many_but_none_that_somebody_is_in(knows: bool) -> None:
    store = MemoryStore()
    mount = Mounted(store, inode_limit=20)
    kernel = mount.fs._volume.invalidate = Kernel(b"d000/sub", knows=knows)
    await mount.mkdir("d000")
    await mount.mkdir("d000/sub")
    for number in range(1, 200):
        await mount.mkdir(f"d{number:03}")
    numbers: dict[bytes, int] = {}
    standing = [await mount.ino("d000"), await mount.ino("d000/sub")]
    for number in range(200):
        numbers[b"d%03d" % number] = await mount.ino(f"d{number:03}")
        for parent, name in kernel.asked:
            assert parent == mount.fs.ROOT
            mount.fs.forget(numbers.pop(name), 1)
        kernel.asked.clear()
        assert len(mount.fs._inodes) <= (25 if knows else 203)
    assert b"d000" in numbers
    for ino in (*numbers.values(), *standing):
        mount.fs.forget(ino, 1)
    mount.fs.check()


@pytest.mark.slow
async def test_names_that_were_only_listed_are_made_ready_in_steps_and_keep_their_numbers_in_a_renamed_directory() -> None:
    store = MemoryStore(replace(LIKE_S3, listed_metadata=True))
    mount = Mounted(store)
    names = await fill(store, 500, f"d/{'long' * 60}-")  # in three steps: one of two need not be seen
    await mount.ino("d")
    fh = await mount.fs.opendir(await mount.ino("d"))
    listed = await accepted(mount.fs, fh)
    assert len(listed) == len(names)
    known = {inode.key for inode in mount.fs._inodes}
    parts: list[int] = []

    async def look() -> None:
        while True:
            parts.append(len({inode.key for inode in mount.fs._inodes} - known))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await mount.rename("d", "e")
        nursery.cancel_scope.cancel()
    assert any(0 < part < 500 for part in parts)
    mount.fs.check()
    for entry in (listed[0], listed[-1]):
        inode = mount.fs._inodes.get(entry.attr.ino)
        assert inode is mount.fs._inodes.file_at(f"e/{entry.name.decode()}")
        assert (await mount.fs.getattr(entry.attr.ino)).size == entry.attr.size
    await mount.fs.releasedir(fh)
    for entry in listed:
        mount.fs.forget(entry.attr.ino, 1)
    mount.fs.check()
    assert not [inode for inode in mount.fs._inodes if isinstance(inode, FileInode)]

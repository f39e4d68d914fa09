"""A store that takes its time, or fails: what waits, what does not, and what becomes of it. On virtual time."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from s3mount.errors import Exists, NoEntry, NoSpace, S3MountError, Stale, Unavailable
from s3mount.fs.attrs import AttrChange
from s3mount.fs.filesystem import SYNC_SECONDS
from s3mount.model import Key
from s3mount.store.api import EVERYTHING, Capabilities
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty, Script, lost_reply, lost_request
from s3mount.store.wrap.traced import Traced
from tests.fs.mounted import ME, RW, Mounted, body, told

COMMITS = ("put", "adopt")


def slow_commits(seconds: float, *, reply: float = 0.0) -> Callable[[Op], Fault]:
    """Commits reach the store after *seconds*; the answer takes *reply* seconds."""
    return lambda op: Fault(delay=seconds, reply_delay=reply) if op.verb in COMMITS else NOTHING


async def elapsed(action: Awaitable[object]) -> float:
    start = trio.current_time()
    await action
    return trio.current_time() - start


@pytest.fixture(params=["everything", "like S3"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore(EVERYTHING if request.param == "everything" else LIKE_S3)


@pytest.mark.slow
async def test_names_and_reads_answer_while_300_slow_closes_are_under_way(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    await store.put(Key("there"), b"x")
    mount = Mounted(Faulty(store, slow_commits(60)))
    handles = [await mount.create(f"f{number:03}") for number in range(300)]
    for fh in handles:
        await mount.fs.write(fh, 0, b"data")
    async with trio.open_nursery() as nursery:
        for fh in handles:
            nursery.start_soon(mount.close, fh)
        await trio.sleep(1)

        async def look() -> None:
            assert len(await mount.names()) == 301
            assert await mount.read("there") == b"x"
            assert (await mount.stat("f007")).size == 4
            fh = await mount.open("f008", os.O_RDONLY)
            assert bytes(await mount.fs.read(fh, 0, 9)) == b"data"
            await mount.fs.write(fh, 0, b"DATA")
            await mount.unlink("there")
            nursery.start_soon(mount.close, fh)

        assert await elapsed(look()) < 1
    assert len(store.bucket.keys) == 300
    assert await body(store, "f008") == b"DATA"


async def test_a_rename_waits_for_the_commit_and_the_old_name_does_not_come_back(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    mount = Mounted(Faulty(store, slow_commits(10, reply=10)))
    await mount.write("a", b"one")
    fh = await mount.open("a", RW | os.O_TRUNC)
    await mount.fs.write(fh, 0, b"two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.close, fh)
        await trio.sleep(5)
        await mount.rename("a", "b")
        assert await mount.names() == ["b"]
    assert sorted(store.bucket.keys) == ["b"]
    assert await body(store, "b") == b"two"


async def test_a_directory_rename_holds_the_commits_below(store: MemoryStore, autojump_clock: trio.testing.MockClock) -> None:
    verbs = ("rename_prefix", "copy")
    mount = Mounted(Faulty(store, lambda op: Fault(delay=10) if op.verb in verbs else NOTHING))
    await mount.mkdir("d")
    await mount.write("d/f", b"one")
    fh = await mount.open("d/f", RW | os.O_TRUNC)
    new = await mount.create("d/new")
    await mount.fs.write(fh, 0, b"two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "d", "e")
        await trio.sleep(1)
        nursery.start_soon(mount.close, fh)
        nursery.start_soon(mount.close, new)
        await trio.testing.wait_all_tasks_blocked()
        assert (await mount.fs.read(fh, 0, 9)) == b"two"
    assert sorted(store.bucket.keys) == ["e/", "e/f", "e/new"]
    assert await body(store, "e/f") == b"two"
    mount.fs.check()


async def test_what_lies_in_a_directory_is_not_lost_while_the_answer_of_its_rename_is_under_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    mount = Mounted(Faulty(store, lambda op: Fault(reply_delay=10) if op.verb == "rename_prefix" else NOTHING))
    await mount.mkdir("d")
    await mount.mkdir("e")
    await mount.write("d/f", b"one")
    async with mount.at("d") as directory, mount.at("e"), mount.at("d/f") as file, trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "d", "e")
        await trio.sleep(1)
        assert not store.bucket.keys.keys() & {"d/", "d/f"}

        async def edit() -> None:
            await trio.sleep(2)
            fh, attr = await mount.fs.create(directory, b"f", mode=0o644, flags=RW | os.O_TRUNC, caller=ME)
            await mount.fs.write(fh, 0, b"two")
            await mount.close(fh)
            mount.forget(attr.ino)

        async def look() -> None:
            assert (await mount.fs.lookup(directory, b"f", ME)).ino == file
            mount.forget(file)

        async def listing() -> None:
            fh = await mount.fs.opendir(directory)
            assert [entry.name for entry in await told(mount.fs, fh)] == [b"f"]
            await mount.fs.releasedir(fh)

        async def stat() -> None:
            assert (await mount.fs.getattr(file)).ino == file
            assert (await mount.fs.getattr(directory)).nlink

        for task in (edit, look, listing, stat):
            nursery.start_soon(task)
    mount.fs.check()
    assert sorted(store.bucket.keys) == ["e/", "e/f"]
    assert await body(store, "e/f") == b"two"


async def test_an_open_file_stays_open_while_the_answer_of_its_rename_is_under_way(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    mount = Mounted(Faulty(store, lambda op: Fault(reply_delay=10) if op.verb == "rename" else NOTHING))
    await mount.write("f", b"one")
    async with mount.at("f") as file, trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "f", "g")
        await trio.sleep(1)
        assert "f" not in store.bucket.keys
        fh = (await mount.fs.open(file, RW | os.O_TRUNC)).fh
        await mount.fs.write(fh, 0, b"two")
        await mount.close(fh)
    assert sorted(store.bucket.keys) == ["g"]
    assert await body(store, "g") == b"two"


async def test_an_unlink_waits_for_the_commit_and_nothing_comes_back(store: MemoryStore, autojump_clock: trio.testing.MockClock) -> None:
    mount = Mounted(Faulty(store, slow_commits(10)))
    fh = await mount.create("f")
    await mount.fs.write(fh, 0, b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.close, fh)
        await trio.sleep(5)
        await mount.unlink("f")
    assert not store.bucket.keys
    assert await mount.names() == []


async def test_an_answer_that_is_older_than_our_own_change_is_not_believed(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    """The lookup is asked before the file is made, and answered after."""
    mount = Mounted(Faulty(store, script := Script()))
    script.add("find", Fault(reply_delay=10))
    found: list[int] = []

    async def look() -> None:
        found.append((await mount.stat("f")).size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.sleep(1)
        await mount.write("f", b"new")
    assert found == [3]


async def test_a_late_answer_does_not_displace_what_was_committed_meanwhile(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    mount = Mounted(Faulty(store, script := Script()))
    await mount.write("f", b"one")
    ino = await mount.ino("f")
    script.add("head", Fault(reply_delay=10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.fs.getattr, ino)
        await trio.sleep(1)
        await mount.write("f", b"two")
    assert (await mount.stat("f")).ino == ino
    mount.forget(ino)


async def test_a_lost_reply_of_a_commit_is_found_out(store: MemoryStore, autojump_clock: trio.testing.MockClock) -> None:
    for number, fault in enumerate((lost_reply(), lost_request())):
        mount = Mounted(Faulty(store, script := Script()))
        script.add("put", fault)
        await mount.write(f"f{number}", b"once")
        assert script.used_up
        assert await body(store, f"f{number}") == b"once"
        mount.fs.check()


async def test_a_failed_commit_is_told_by_every_flush_until_one_succeeds(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    mount = Mounted(Faulty(store, script := Script()))
    fh = await mount.create("f")
    await mount.fs.write(fh, 0, b"x")
    script.add("put", *[Fault(before=Unavailable("The store is away."))] * 3)
    for call in (mount.fs.flush, mount.fs.fsync, mount.fs.flush):
        with pytest.raises(Unavailable):
            await call(fh)
    await mount.close(fh)
    assert await body(store, "f") == b"x"


async def test_what_nobody_holds_any_more_is_committed_when_the_store_is_back(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    mount = Mounted(Faulty(store, script := Script()))
    fh = await mount.create("f")
    await mount.fs.write(fh, 0, b"x")
    script.add("put", *[Fault(before=Unavailable("The store is away."))] * 3)
    with pytest.raises(Unavailable):
        await mount.close(fh)
    assert (await mount.stat("f")).size == 1
    assert not store.bucket.keys
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert await body(store, "f") == b"x"
    mount.fs.check()


async def test_closing_the_file_system_commits_what_is_open_and_tells_what_it_could_not(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    mount = Mounted(Faulty(store, script := Script()))
    for name in ("a", "b"):
        fh = await mount.create(name)
        await mount.fs.write(fh, 0, b"x")
    script.add("put", Fault(before=Unavailable("The store is away.")))
    with pytest.raises(S3MountError):
        await mount.fs.aclose()
    assert len(store.bucket.keys) == 1


async def test_what_was_closed_is_synced_within_five_seconds(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore(Capabilities(**{name: getattr(EVERYTHING, name) for name in EVERYTHING.__slots__} | {"durable": False}))
    seen: list[float] = []

    def plan(op: Op) -> Fault:
        if op.verb == "sync":
            seen.append(trio.current_time())
        return NOTHING

    mount = Mounted(Faulty(store, plan))
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        await trio.sleep(20)
        assert not seen
        start = trio.current_time()
        await mount.write("f", b"x")
        await mount.write("g", b"x")
        await trio.sleep(20)
        assert [moment - start for moment in seen] == [SYNC_SECONDS]
        fh = await mount.create("h")
        await mount.fs.fsync(fh)
        assert len(seen) == 2
        await mount.close(fh)
        nursery.cancel_scope.cancel()


async def test_the_time_of_a_directory_is_written_before_long(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    mount = Mounted(store)
    await mount.mkdir("d")
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        for number in range(100):
            await mount.write(f"d/{number}", b"")
        told = (await mount.stat("d")).mtime_ns
        await trio.sleep(11)
        nursery.cancel_scope.cancel()
    assert (await Mounted(store).stat("d")).mtime_ns == told
    mount.fs.check()


async def test_attributes_that_change_while_a_commit_is_under_way_are_not_lost(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    mount = Mounted(Faulty(store, slow_commits(0, reply=10)))
    fh = await mount.create("f")
    await mount.fs.write(fh, 0, b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.close, fh)
        await trio.sleep(1)
        await mount.setattr("f", AttrChange(mode=0o600, mtime_ns=42))
    attr = await (await mount.remount()).stat("f")
    assert (attr.mode & 0o7777, attr.mtime_ns) == (0o600, 42)


@pytest.mark.parametrize("way", ["open", "truncate"])
async def test_a_file_that_lost_all_that_was_written_is_itself_again_once_it_was_emptied(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Its size is 0 all the while: emptying it is no change of size."""
    mount = Mounted(store)
    fh = await mount.create("f")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("s3mount.fs.staging.os.pwrite", full)
        with pytest.raises(NoSpace):
            await mount.fs.write(fh, 0, b"x" * 1_000_000)
    with pytest.raises(NoSpace):
        await mount.fs.fsync(fh)
    if way == "truncate":
        await mount.setattr("f", AttrChange(size=0))
    again = await mount.open("f", RW | (os.O_TRUNC if way == "open" else 0))
    await mount.fs.write(again, 0, b"short")
    await mount.close(again)
    await mount.close(fh)
    assert await body(store, "f") == b"short"


async def test_changes_of_one_directory_at_the_same_time_are_not_lost(store: MemoryStore, autojump_clock: trio.testing.MockClock) -> None:
    """The time of its last change of entries is written by the background, at any moment: with a mode that was changed meanwhile."""
    mount = Mounted(Faulty(store, lambda op: Fault(delay=5, reply_delay=5) if op.verb == "update" else NOTHING))
    await mount.mkdir("d")
    await mount.write("d/file", b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.fs.sync)
        await trio.sleep(1)
        nursery.start_soon(mount.setattr, "d", AttrChange(mode=0o1750))
        await trio.sleep(1)
        nursery.start_soon(mount.setattr, "d", AttrChange(mtime_ns=42))
    for attr in (await mount.stat("d"), await (await mount.remount()).stat("d")):
        assert (attr.mode & 0o7777, attr.mtime_ns) == (0o1750, 42)


async def test_a_cancelled_rename_leaves_both_sides_in_agreement(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    for fault in (Fault(delay=10), Fault(reply_delay=10)):
        mount = Mounted(Faulty(store, script := Script()))
        await mount.write("a", b"x")
        fh = await mount.open("a")
        script.add("rename", fault)
        with trio.move_on_after(5):
            await mount.rename("a", "b")
        mount.fs.check()
        names = await mount.names()
        assert len(names) == 1
        assert await mount.read(names[0]) == b"x"
        with pytest.raises(NoEntry):
            await mount.stat("b" if names == ["a"] else "a")
        await mount.fs.write(fh, 0, b"y")
        await mount.close(fh)
        assert await body(store, names[0]) == b"y"
        await mount.unlink(names[0])


async def test_a_directory_is_asked_for_once_within_the_time_to_live(autojump_clock: trio.testing.MockClock) -> None:
    asked: list[str] = []

    def plan(op: Op) -> Fault:
        if op.verb == "find":
            asked.append(op.verb)
        return NOTHING

    store = MemoryStore()
    mount = Mounted(Faulty(store, plan), metadata_ttl_s=1.0)
    await mount.mkdir("d")
    ino = await mount.ino("d")
    asked.clear()
    for _ in range(5):
        await mount.fs.getattr(ino)
    assert not asked
    await store.another().delete(Key("d/"))
    await trio.sleep(1)
    with pytest.raises(Stale):
        await mount.fs.getattr(ino)
    mount.forget(ino)


async def test_a_name_that_was_just_found_absent_is_not_looked_for_again(autojump_clock: trio.testing.MockClock) -> None:
    asked: list[str] = []

    def plan(op: Op) -> Fault:
        asked.append(op.verb)
        return NOTHING

    store = MemoryStore()
    mount = Mounted(Faulty(store, plan), metadata_ttl_s=1.0)
    with pytest.raises(NoEntry):
        await mount.stat("f")
    assert asked == ["find"]
    await mount.close(await mount.create("f", flags=RW | os.O_EXCL))
    assert asked == ["find", "reserve", "put"]
    with pytest.raises(NoEntry):
        await mount.stat("g")
    await store.another().put(Key("g"), b"theirs")
    await trio.sleep(0.1)
    with pytest.raises(Exists):
        await mount.create("g", flags=RW | os.O_EXCL)


async def test_the_time_of_a_directory_that_is_being_filled_is_written_once(autojump_clock: trio.testing.MockClock) -> None:
    counting = Traced(MemoryStore())
    mount = Mounted(counting)
    await mount.mkdir("d")
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        for number in range(60):
            await mount.write(f"d/{number}", b"")
            await trio.sleep(1)
        assert counting.requests["update"] == 0
        await trio.sleep(11)
        assert counting.requests["update"] == 1
        nursery.cancel_scope.cancel()

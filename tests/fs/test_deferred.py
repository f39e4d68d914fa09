"""Changes of attributes wait for what comes next: seen at once, saved together, never later than promised."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from s3mount.errors import AccessDenied, OutcomeUnknown, Unavailable
from s3mount.fs import deferred
from s3mount.fs.attrs import AttrChange
from s3mount.fs.deferred import AT_ONCE, GRACE_S, MOST, WAIT_S, Deferred
from s3mount.model import ByteRange, ETag, Key, Metadata, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.rules import changed
from s3mount.store.wrap.faulty import Fault, Faulty, Script, lost_reply
from s3mount.store.wrap.traced import Traced
from tests.fs.mounted import ME, Mounted, body
from tests.store.registry import keys_of

DAY_NS = 86_400_000_000_000


class AnewEachTime(MemoryStore):
    """As S3 with an object that was uploaded in parts: a copy onto itself has another ETag, and keeps the commit id."""

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        of_bytes = {name: value for name, value in ((await self.head(key)).metadata or {}).items() if name == COMMIT_ID}
        return await self.copy(key, key, if_match=if_match, commit=Commit(metadata={**metadata, **of_bytes}))


class SlowToCopy(MemoryStore):
    """As S3 with a large object: what is copied is read at the beginning, and there at the end, whatever came in between."""

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        info = await self.head(key)
        if if_match not in (None, info.etag):
            raise changed(key)
        data = await body(self, key)
        await trio.sleep(10)
        return await self.put(key, data, Commit(metadata={**metadata, COMMIT_ID: (info.metadata or {}).get(COMMIT_ID, "")}))


@dataclass
class Rig:
    mount: Mounted
    store: MemoryStore
    script: Script
    traced: Traced

    def changes(self) -> dict[str, int]:
        """Requests that change anything, since the last question."""
        counted = {verb: count for verb, count in self.traced.requests.items() if verb in ("put", "update", "copy", "delete") and count}
        self.traced.requests.clear()
        return counted

    async def said(self, key: str) -> Metadata:
        """The metadata of an object, past the file system."""
        return (await self.store.head(Key(key))).metadata or {}


@asynccontextmanager
async def rigged(store: MemoryStore | None = None) -> AsyncIterator[Rig]:
    store = store or AnewEachTime(LIKE_S3)
    script = Script()
    traced = Traced(Faulty(store, script))
    mount = Mounted(traced)
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        yield Rig(mount, store, script, traced)
        nursery.cancel_scope.cancel()
    mount.fs.check()


async def like_rsync(mount: Mounted, name: str) -> None:
    """Written aside and closed; then owner, time and mode; then renamed."""
    await mount.write(f".{name}.X", b"whole")
    await mount.setattr(f".{name}.X", AttrChange(mtime_ns=DAY_NS, atime_ns=DAY_NS))
    await mount.chmod(f".{name}.X", 0o640)
    await mount.rename(f".{name}.X", name)


async def test_rsync_writes_a_file_with_a_put_a_copy_and_a_delete(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await like_rsync(rig.mount, "f")
        attr = await rig.mount.stat("f")
        assert (attr.mode & 0o7777, attr.mtime_ns) == (0o640, DAY_NS)
        await trio.sleep(5 * WAIT_S)
        assert rig.changes() == {"put": 1, "copy": 1, "delete": 1}
        said = await rig.said("f")
        assert (int(said["mode"]) & 0o7777, said["mtime"]) == (0o640, "86400.000000000")
        assert await rig.mount.read("f") == b"whole"


async def test_a_release_that_comes_late_lets_them_wait(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: the kernel sends RELEASE after close(2) has returned, and rsync opens the file once more for its fchmod."""
    async with rigged() as rig:
        fh = await rig.mount.create("f")
        await rig.mount.fs.write(fh, 0, b"x")
        await rig.mount.fs.flush(fh)
        await rig.mount.setattr("f", AttrChange(mtime_ns=DAY_NS))
        await rig.mount.fs.release(fh)
        fh = await rig.mount.open("f", os.O_RDONLY)
        await rig.mount.chmod("f", 0o600)
        await rig.mount.close(fh)
        await rig.mount.rename("f", "g")
        assert rig.changes() == {"put": 1, "copy": 1, "delete": 1}
        assert (await rig.said("g"))["mtime"] == "86400.000000000"


async def test_what_only_says_when_it_was_made_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """The kernel tells the time of a rename, and `chmod -R` says again what is so already."""
    async with rigged() as rig:
        await rig.mount.write("f", b"x")
        attr = await rig.mount.chmod("f", 0o600)
        await rig.mount.fs.sync()
        rig.changes()
        again = await rig.mount.chmod("f", 0o600)
        assert again.ctime_ns > attr.ctime_ns
        await rig.mount.setattr("f", AttrChange(mtime_ns=attr.mtime_ns, ctime_ns=DAY_NS))
        await rig.mount.fs.sync()
        assert rig.changes() == {}
        fh = await rig.mount.open("f")
        assert (await rig.mount.setattr("f", AttrChange(mtime_ns=attr.mtime_ns, ctime_ns=DAY_NS))).ctime_ns == DAY_NS
        await rig.mount.close(fh)
        assert rig.changes() == {}


async def test_changes_in_a_row_are_one_copy_and_seen_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await rig.mount.write("f", b"x")
        rig.changes()
        await rig.mount.chmod("f", 0o600)
        await rig.mount.setattr("f", AttrChange(mtime_ns=DAY_NS))
        async with rig.mount.at("f") as ino:
            await rig.mount.fs.setxattr(ino, b"user.a", b"1")
            assert await rig.mount.fs.getxattr(ino, b"user.a") == b"1"
        attr = await rig.mount.stat("f")
        (entry,) = await rig.mount.entries()
        for seen in (attr, entry.attr):
            assert (seen.mode & 0o7777, seen.mtime_ns) == (0o600, DAY_NS)
        assert rig.changes() == {}
        await trio.sleep(2 * WAIT_S)
        assert rig.changes() == {"update": 1}
        assert {"mode", "mtime", "xattr"} <= set(await rig.said("f"))
        assert await rig.mount.stat("f") == attr


async def test_who_has_the_file_open_goes_on_reading_the_copy(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await rig.mount.write("f", b"x" * 300_000)
        fh = await rig.mount.open("f")
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(2 * WAIT_S)
        assert rig.changes() == {"update": 1}
        assert bytes(await rig.mount.fs.read(fh, 0, 3)) == b"xxx"
        await rig.mount.fs.write(fh, 0, b"y")
        await rig.mount.close(fh)
        assert (await body(rig.store, "f"))[:2] == b"yx"
        assert int((await rig.said("f"))["mode"]) & 0o7777 == 0o600


@pytest.mark.parametrize("how", ["fsync", "sync", "fsyncdir", "aclose"])
async def test_what_is_synced_is_in_the_store(autojump_clock: trio.testing.MockClock, how: str) -> None:
    async with rigged() as rig:
        fs = rig.mount.fs
        await rig.mount.write("f", b"x")
        await rig.mount.chmod("f", 0o600)
        began = trio.current_time()
        match how:
            case "fsync":
                fh = await rig.mount.open("f", os.O_RDONLY)
                await fs.fsync(fh)
                await fs.release(fh)
            case "fsyncdir":
                fh = await fs.opendir(fs.ROOT)
                await fs.fsyncdir(fh)
                await fs.releasedir(fh)
            case "sync":
                await fs.sync()
            case "aclose":
                await fs.aclose()
        assert int((await rig.said("f"))["mode"]) & 0o7777 == 0o600
        assert trio.current_time() < began + WAIT_S


async def test_what_is_removed_or_replaced_is_not_saved_first(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        for name in ("a", "b", "c"):
            await rig.mount.write(name, b"x" * 300_000)
            await rig.mount.chmod(name, 0o600)
        rig.traced.requests.clear()
        await rig.mount.unlink("a")
        await rig.mount.rename("b", "c")
        await trio.sleep(5 * WAIT_S)
        assert rig.changes() == {"copy": 1, "delete": 2}
        assert rig.traced.requests["get_into"] == 0, "nobody holds what goes: nothing of it is fetched"
        assert await rig.mount.names() == ["c"]


@pytest.mark.parametrize("background", [True, False])
async def test_the_kernel_may_tell_when_a_file_was_removed(autojump_clock: trio.testing.MockClock, background: bool) -> None:
    """Regression: it does so at syncfs(2), which failed with ESTALE after every rm."""
    async with rigged() as rig:
        mount = rig.mount if background else Mounted(rig.traced)
        await mount.write("f", b"x")
        async with mount.at("f") as ino:
            await mount.unlink("f")
            attr = await mount.fs.setattr(ino, AttrChange(mtime_ns=DAY_NS, ctime_ns=DAY_NS), caller=ME)
            assert (attr.ino, attr.nlink, attr.ctime_ns) == (ino, 0, DAY_NS)
        assert await keys_of(rig.store) == []


async def test_a_directory_that_is_renamed_takes_what_waits_along(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await rig.mount.mkdir("d")
        for number in range(5):
            await rig.mount.write(f"d/{number}", b"x")
            await rig.mount.chmod(f"d/{number}", 0o600 + number)
        rig.changes()
        await rig.mount.rename("d", "e")
        assert rig.changes() == {"copy": 6, "delete": 6}
        for number in range(5):
            assert int((await rig.said(f"e/{number}"))["mode"]) & 0o7777 == 0o600 + number
        await trio.sleep(WAIT_S)
        assert rig.changes().keys() <= {"update", "put"}


async def test_what_waits_outlives_a_rename_that_fails(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await rig.mount.mkdir("d")
        for number in range(3):
            await rig.mount.write(f"d/{number}", b"x")
            await rig.mount.chmod(f"d/{number}", 0o600)
        rig.script.add("copy", Fault(), Fault(), Fault(before=AccessDenied("no")))
        with pytest.raises(AccessDenied):
            await rig.mount.rename("d", "e")
        await rig.mount.fs.sync()
        assert await rig.mount.names("d") == ["0", "1", "2"]
        for number in range(3):
            assert int((await rig.said(f"d/{number}"))["mode"]) & 0o7777 == 0o600
            assert await rig.mount.read(f"d/{number}") == b"x"


async def test_a_change_that_fails_for_now_is_told_by_fsync_and_tried_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with rigged() as rig:
        await rig.mount.write("f", b"x")
        rig.script.add("update", Fault(before=Unavailable("no")), Fault(before=Unavailable("no")))
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(2 * WAIT_S)
        assert "are not saved yet" in caplog.text
        fh = await rig.mount.open("f")
        with pytest.raises(Unavailable):
            await rig.mount.fs.fsync(fh)
        await rig.mount.fs.fsync(fh)
        await rig.mount.close(fh)
        assert int((await rig.said("f"))["mode"]) & 0o7777 == 0o600


async def test_a_copy_whose_reply_was_lost_is_recognised_by_its_commit(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: the ETag of the copy is another one, so the next try took it for somebody else's object."""
    async with rigged() as rig:
        await rig.mount.write("f", b"x")
        await rig.mount.chmod("f", 0o600)
        rig.script.add("update", lost_reply())
        with pytest.raises(OutcomeUnknown):
            await rig.mount.fs.sync()
        await rig.mount.chmod("f", 0o640)
        await rig.mount.fs.sync()
        assert int((await rig.said("f"))["mode"]) & 0o7777 == 0o640
        assert await rig.mount.read("f") == b"x"


async def test_somebody_elses_object_does_not_get_what_waits(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with rigged() as rig:
        await rig.mount.write("f", b"ours")
        await rig.mount.chmod("f", 0o600)
        await rig.store.another().put(Key("f"), b"theirs", Commit(metadata={"mode": "33279"}))
        await trio.sleep(10 * WAIT_S)
        assert (await rig.said("f"))["mode"] == "33279"
        assert await rig.mount.read("f") == b"theirs"
        assert (await rig.mount.stat("f")).mode & 0o777 == 0o777


async def test_a_link_can_be_read_while_its_times_are_saved(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await rig.mount.symlink("l", b"to")
        rig.script.add("update", Fault(delay=10, reply_delay=10))
        await rig.mount.setattr("l", AttrChange(mtime_ns=DAY_NS))
        async with rig.mount.at("l") as ino:
            assert await rig.mount.fs.readlink(ino) == b"to"
            await trio.sleep(2 * WAIT_S)
            assert await rig.mount.fs.readlink(ino) == b"to"
            assert (await rig.mount.fs.getattr(ino)).mtime_ns == DAY_NS


async def test_content_that_is_written_while_attributes_are_saved_goes_behind_them(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: the copy that a service was just making of the former bytes landed on those that had been committed meanwhile."""
    async with rigged(SlowToCopy(LIKE_S3)) as rig:
        await rig.mount.write("f", b"before")
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(WAIT_S + 1)
        await rig.mount.write("f", b"after")
        await trio.sleep(60)
        assert await body(rig.store, "f") == b"after"
        assert int((await rig.said("f"))["mode"]) & 0o7777 == 0o600


async def test_an_edit_that_is_made_while_attributes_are_saved_is_one_of_the_new_version(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: it was refused as an edit of a version that somebody else had replaced."""
    async with rigged() as rig:
        await rig.mount.write("f", b"before")
        await rig.mount.chmod("f", 0o600)
        rig.script.add("update", Fault(reply_delay=10))
        await trio.sleep(WAIT_S + 1)
        fh = await rig.mount.open("f")
        await rig.mount.fs.write(fh, 0, b"B")
        await rig.mount.close(fh)
        assert await body(rig.store, "f") == b"Before"


async def test_content_that_is_written_while_attributes_are_changed_at_once_goes_behind_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = SlowToCopy(LIKE_S3)
    mount = Mounted(store)
    await mount.write("f", b"before")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.chmod, "f", 0o600)
        await trio.sleep(1)
        fh = await mount.open("f")
        await mount.fs.write(fh, 0, b"B")
        await mount.close(fh)
    assert await body(store, "f") == b"Before"
    await mount.fs.aclose()


async def test_without_a_background_changes_are_saved_at_once() -> None:
    traced = Traced(MemoryStore(LIKE_S3))
    mount = Mounted(traced)
    await mount.write("f", b"x")
    await mount.chmod("f", 0o600)
    assert traced.requests["update"] == 1


async def test_a_change_of_every_file_of_a_tree_is_many_copies_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        for number in range(100):
            await rig.mount.write(f"{number:03}", b"x")
        rig.script.add("update", *[Fault(delay=1.0)] * 100)
        for number in range(100):
            await rig.mount.chmod(f"{number:03}", 0o600)
        began = trio.current_time()
        await trio.sleep(WAIT_S + 5)
        assert rig.script.used_up
        await rig.mount.fs.sync()
        assert trio.current_time() - began <= WAIT_S + 5
        for number in range(100):
            assert int((await rig.said(f"{number:03}"))["mode"]) & 0o7777 == 0o600


# -- the waiting itself ------------------------------------------------------------------------


@asynccontextmanager
async def waiting(save: Callable[[int], object], takes: float) -> AsyncIterator[Deferred[int]]:
    async def saved(thing: int) -> None:
        save(thing)
        await trio.sleep(takes)

    one = Deferred(saved)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        yield one
        nursery.cancel_scope.cancel()


async def test_the_first_change_counts_however_many_follow(autojump_clock: trio.testing.MockClock) -> None:
    saved: list[tuple[int, float]] = []
    began = trio.current_time()
    async with waiting(lambda thing: saved.append((thing, trio.current_time() - began)), 0) as one:
        for _ in range(15):
            await one.add(7)
            await trio.sleep(WAIT_S / 10)
        await trio.sleep(WAIT_S)
    assert [(thing, round(at, 3)) for thing, at in saved] == [(7, WAIT_S), (7, 2.1 * WAIT_S)]


async def test_more_than_may_wait_are_saved_early_and_hold_up_who_changes_them(autojump_clock: trio.testing.MockClock) -> None:
    saved: list[int] = []
    async with waiting(saved.append, 10.0) as one:
        began = trio.current_time()
        for number in range(2 * MOST):
            await one.add(number)
        await trio.testing.wait_all_tasks_blocked()
        assert saved == list(range(AT_ONCE)), "D1: the oldest go before their time"
        assert trio.current_time() - began < deferred.WAIT_S
        for number in range(2 * MOST, 2 * MOST + 2 * AT_ONCE):
            await one.add(number)
        assert trio.current_time() - began >= 10.0, "D1: whoever brings more waits for room"


async def test_what_is_being_saved_is_finished_when_the_background_ends(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    async with waiting(lambda thing: None, 10.0) as one:
        await one.add(1)
        await trio.sleep(WAIT_S + 1)
    assert trio.current_time() - began == pytest.approx(WAIT_S + 10)
    assert not one.running


async def test_the_end_of_the_background_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    async with waiting(lambda thing: None, 1000.0) as one:
        await one.add(1)
        await trio.sleep(WAIT_S + 1)
    assert trio.current_time() - began == pytest.approx(WAIT_S + 1 + GRACE_S)


def test_the_store_of_these_tests_changes_the_tag_with_every_copy() -> None:
    async def look(store: ObjectStore) -> bool:
        info = await store.put(Key("k"), b"abc")
        again = await store.update(Key("k"), {"a": "1"}, if_match=info.etag)
        await store.get_into(Key("k"), ByteRange(0, 3), memoryview(bytearray(3)), if_match=again.etag)
        return again.etag != info.etag

    assert trio.run(look, AnewEachTime(LIKE_S3))

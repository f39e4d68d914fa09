"""Large directories are renamed at once: seen under the new name, carried behind it, finished whatever happens."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from s3mount.cache.options import CacheOptions
from s3mount.cache.remember import Remembering
from s3mount.errors import AccessDenied, Exists, NoEntry, NotEmpty, Unavailable
from s3mount.fs import aliases, rename, resuming
from s3mount.fs.areas import Area
from s3mount.fs.carry import Carrier
from s3mount.fs.copies import AT_ONCE
from s3mount.fs.deferred import WAIT_S
from s3mount.fs.journal import Journal, Move
from s3mount.fs.later import RETRY_S
from s3mount.fs.overlay import Asked, Leg, Overlay
from s3mount.model import ByteRange, Condition, ETag, Key, Metadata, ObjectInfo, Page, Part, Upload
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op, Wrapper
from s3mount.store.wrap.faulty import Fault, Faulty, lost_reply
from s3mount.store.wrap.traced import Traced
from tests.fs.mounted import Mounted, body
from tests.store.registry import keys_of

T = TypeVar("T")

COUNT = 100
COPY_S = 1.0


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rename, "ANSWER_KEYS", 10)


@dataclass
class Rig:
    mount: Mounted
    store: MemoryStore
    traced: Traced
    held: trio.Event
    """Until it is set, no copy is answered."""

    @property
    def is_moving(self) -> bool:
        moving = self.mount.fs._volume.moving
        assert moving is not None
        return not moving.overlay.idle

    async def arrive(self) -> None:
        self.held.set()
        await self.mount.fs.sync()
        assert not self.is_moving


@asynccontextmanager
async def rigged(
    folder: Path | None = None, *, faults: Callable[[Op], Fault | None] = lambda op: None, store: MemoryStore | None = None
) -> AsyncIterator[Rig]:
    store, held = store or MemoryStore(LIKE_S3), trio.Event()
    for number in range(COUNT):
        await store.put(Key(f"d/{number:03}"), b"%03d" % number)
    await store.put(Key("d/sub/x"), b"deep")
    await store.put(Key("d/"), b"")
    traced = Traced(Faulty(store, lambda op: faults(op) or Fault(until=held if op.verb == "copy" else None)))
    mount = Mounted(traced, journal=folder)
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        yield Rig(mount, store, traced, held)
        nursery.cancel_scope.cancel()
    mount.fs.check()


NAMES = [f"{number:03}" for number in range(COUNT)] + ["sub"]


async def test_a_rename_answers_before_anything_is_copied(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        ino = await rig.mount.ino("d/042")
        await rig.mount.rename("d", "e")
        assert rig.is_moving
        assert rig.traced.requests["copy"] == 0
        assert len(files(tmp_path)) == 1, "K2: it is written down"
        assert await rig.mount.names() == ["e"]
        assert await rig.mount.names("e") == NAMES
        assert (await rig.mount.stat("e/042")).ino == ino
        assert (await rig.mount.stat("e/042")).size == 3
        assert await rig.mount.read("e/042") == b"042"
        assert await rig.mount.read("e/sub/x") == b"deep"
        with pytest.raises(NoEntry):
            await rig.mount.stat("d/042")
        rig.mount.forget(ino)
        await rig.arrive()
        assert await keys_of(rig.store) == sorted(["e/", "e/sub/x", *(f"e/{name}" for name in NAMES[:-1])])
        assert not files(tmp_path)
        assert await rig.mount.names("e") == NAMES


async def test_an_empty_directory_is_listed_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: its marker was taken for an object without a name, and the directory was not seen until it had arrived."""
    async with rigged() as rig:
        await rig.store.put(Key("d/empty/"), b"")
        await rig.mount.rename("d", "e")
        assert await rig.mount.names("e") == sorted([*NAMES, "empty"])
        assert await rig.mount.names("e/empty") == []
        await rig.arrive()
        assert await rig.mount.names("e") == sorted([*NAMES, "empty"])


@pytest.mark.slow
async def test_a_listing_on_its_way_lists_where_the_keys_lie(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: each name was looked up for its metadata, a page was asked for with each, and 2600 names took twenty seconds."""
    memory, count = MemoryStore(LIKE_S3), 2600
    for number in range(count):
        await memory.put(Key(f"d/{number:04}"), b"", Commit(metadata={"mode": str(0o100640)}))
    traced = Traced(Faulty(memory, lambda op: Fault(delay=0.03)))
    async with aclosing(Remembering(traced, CacheOptions(attributes="full", metadata_ttl_s=0.1))) as store, trio.open_nursery() as nursery:
        mount = Mounted(store)
        await nursery.start(mount.fs.run)
        await mount.rename("d", "e")
        before = traced.requests.copy()
        listed = await mount.names("e")
        spent = traced.requests - before
        assert len(listed) == count
        assert spent["list"] <= 20
        await mount.fs.sync()
        nursery.cancel_scope.cancel()


async def test_it_is_carried_many_keys_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged(faults=lambda op: Fault(delay=COPY_S) if op.verb in ("copy", "delete") else None) as rig:
        began = trio.current_time()
        await rig.mount.rename("d", "e")
        assert trio.current_time() == began, "who renames does not wait"
        await rig.arrive()
        rounds = -(-(COUNT + 2) // AT_ONCE)
        assert trio.current_time() - began <= (2 * rounds + 1) * COPY_S


async def test_an_open_file_is_read_and_written_throughout(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        reader = await rig.mount.open("d/001", os.O_RDONLY)
        writer = await rig.mount.open("d/002")
        await rig.mount.fs.write(writer, 0, b"9")
        await rig.mount.rename("d", "e")
        late = await rig.mount.open("e/003", os.O_RDONLY)
        assert bytes(await rig.mount.fs.read(reader, 0, 9)) == b"001"
        assert bytes(await rig.mount.fs.read(late, 0, 9)) == b"003"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.mount.close, writer)
            await trio.testing.wait_all_tasks_blocked()
            assert bytes(await rig.mount.fs.read(reader, 0, 9)) == b"001"
            rig.held.set()
        await rig.arrive()
        assert bytes(await rig.mount.fs.read(reader, 0, 9)) == b"001"
        assert bytes(await rig.mount.fs.read(late, 0, 9)) == b"003"
        await rig.mount.close(reader)
        await rig.mount.close(late)
        assert await body(rig.store, "e/002") == b"902"
        assert not [key for key in await keys_of(rig.store) if key.startswith("d/")]


async def test_what_is_removed_on_its_way_never_arrives(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await rig.mount.rename("d", "e")
        await rig.mount.unlink("e/000")
        with pytest.raises(NotEmpty):
            await rig.mount.rmdir("e")
        assert await rig.mount.names("e") == NAMES[1:]
        await rig.arrive()
        assert "e/000" not in await keys_of(rig.store)
        assert "d/000" not in await keys_of(rig.store)


async def test_an_edit_is_committed_though_its_object_arrives_while_the_rest_of_it_is_read(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: what it was based on was gone from where it had lain, and close failed with ESTALE."""
    read = trio.Event()
    late = lambda op: Fault(until=read) if op.verb == "pin.get_into" else None  # noqa: E731
    async with rigged(faults=late) as rig:
        fh = await rig.mount.open("d/042")
        await rig.mount.fs.write(fh, 0, b"9")
        await rig.mount.rename("d", "e")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.mount.close, fh)
            await trio.testing.wait_all_tasks_blocked()
            rig.held.set()
            await trio.testing.wait_all_tasks_blocked()
            read.set()
        await rig.arrive()
        assert await body(rig.store, "e/042") == b"942"


class NewTags(MemoryStore):
    """As S3 with objects that were uploaded in parts: each copy of one onto itself has another ETag."""

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        info = await super().update(key, metadata, if_match=if_match, file_id=file_id)
        self.bucket.keys[key].etag = ETag(f"{info.etag}-again")
        return await self.head(key)


async def test_a_file_whose_attributes_are_saved_while_it_arrives_can_be_written(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: it stood on the version that arrived, and not on the one that had its attributes."""
    async with rigged(store=NewTags(LIKE_S3)) as rig:
        await rig.mount.rename("d", "e")
        fh = await rig.mount.open("e/042")
        await rig.mount.chmod("e/042", 0o600)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.mount.fs.fsync, fh)
            await trio.testing.wait_all_tasks_blocked()
            rig.held.set()
        assert await rig.mount.fs.read(fh, 0, 9) == b"042"
        await rig.mount.fs.write(fh, 0, b"9")
        await rig.mount.close(fh)
        await rig.arrive()
        assert await body(rig.store, "e/042") == b"942"
        assert (await rig.mount.stat("e/042")).mode & 0o777 == 0o600


async def test_the_old_name_can_be_used_again_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        await rig.mount.mkdir("d")
        assert await rig.mount.names("d") == []
        await rig.mount.write("d/050", b"new")
        assert await rig.mount.names("d") == ["050"]
        assert await rig.mount.read("e/050") == b"050"
        await rig.arrive()
        assert await rig.mount.names("d") == ["050"]
        assert await rig.mount.names("e") == NAMES
        assert (await body(rig.store, "d/050"), await body(rig.store, "e/050")) == (b"new", b"050")


async def test_a_new_file_whose_reply_is_lost_is_found_under_the_old_name(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: it was looked for where nothing was seen, and its own success taken for somebody else's."""
    lost = {"d/new"}

    def fault(op: Op) -> Fault | None:
        if op.verb == "copy" and op.key == "e/sub/x":
            return Fault(until=trio.Event())
        if op.verb == "put" and op.key in lost:
            lost.discard(op.key)
            return lost_reply()
        return None

    async with rigged(faults=fault) as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        await rig.mount.mkdir("d")
        fh = await rig.mount.create("d/new", flags=os.O_RDWR | os.O_EXCL)
        await rig.mount.fs.write(fh, 0, b"new")
        await rig.mount.close(fh)
        assert not lost
        assert rig.is_moving
        assert await rig.mount.read("d/new") == b"new"


async def test_it_can_be_renamed_again_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    """That waits for the copies under way, and no longer."""
    async with rigged(faults=lambda op: Fault(delay=COPY_S) if op.verb == "copy" else None) as rig:
        began = trio.current_time()
        for source, target in (("d", "e"), ("e", "f"), ("f", "g")):
            await rig.mount.rename(source, target)
        assert trio.current_time() - began <= 2 * COPY_S
        assert await rig.mount.names() == ["g"]
        assert await rig.mount.names("g") == NAMES
        await rig.arrive()
        assert rig.traced.requests["copy"] <= COUNT + 2 + 2 * AT_ONCE, "a key that waited is copied once, from where it lay"
        assert await keys_of(rig.store) == sorted(["g/", "g/sub/x", *(f"g/{name}" for name in NAMES[:-1])])


async def test_a_large_tree_that_is_renamed_back_goes_back_whole(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Regression: what arrives before that under ETags of its own was taken for others' work where there was much of it."""
    monkeypatch.setattr(aliases, "ALIASES", 5)
    async with rigged() as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        await rig.mount.rename("e", "d")
        await rig.arrive()
        assert await rig.mount.names() == ["d"]
        assert await rig.mount.names("d") == NAMES


async def test_a_target_on_its_way_is_taken(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await rig.mount.rename("d", "e")
        await rig.mount.mkdir("x")
        with pytest.raises(NotEmpty):
            await rig.mount.rename("x", "e")
        with pytest.raises(Exists):
            await rig.mount.mkdir("e/001")
        with pytest.raises(Exists):
            await rig.mount.create("e/001", flags=os.O_RDWR | os.O_EXCL)
        await rig.arrive()


async def test_attributes_ride_with_the_copies(autojump_clock: trio.testing.MockClock) -> None:
    async with rigged() as rig:
        await rig.mount.chmod("d/001", 0o600)
        await rig.mount.rename("d", "e")
        await rig.mount.chmod("e/002", 0o640)
        await trio.sleep(WAIT_S / 2)
        rig.held.set()
        await rig.mount.fs.sync()
        await trio.sleep(3 * WAIT_S)
        modes = [int((await rig.store.head(Key(key))).metadata["mode"]) & 0o777 for key in ("e/001", "e/002")]  # type: ignore[index]
        assert modes == [0o600, 0o640]
        assert (await rig.mount.stat("e/001")).mode & 0o777 == 0o600


@pytest.mark.slow
async def test_nobody_waits_for_a_rename_that_is_carried_out(autojump_clock: trio.testing.MockClock) -> None:
    """Many tasks in the same tree, each answer within a second of virtual time, though all copies hang."""
    async with rigged() as rig:
        await rig.mount.rename("d", "e")
        await trio.testing.wait_all_tasks_blocked()

        async def works(number: int) -> None:
            with trio.fail_after(1.0):
                await rig.mount.names("e")
                await rig.mount.read(f"e/{number:03}")
                await rig.mount.write(f"e/new{number}", b"x")
                await rig.mount.mkdir(f"e/dir{number}")
                await rig.mount.rename(f"e/dir{number}", f"e/other{number}") if rig.held.is_set() else None
                await rig.mount.stat(f"e/{number:03}")

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(works, number)
        await rig.arrive()
        assert len(await rig.mount.names("e")) == len(NAMES) + 80


async def test_fsync_waits_until_the_file_has_arrived_and_for_no_other(autojump_clock: trio.testing.MockClock) -> None:
    slow = lambda op: Fault(delay=1000.0) if op.verb == "copy" and op.key != "e/007" else None  # noqa: E731
    async with rigged(faults=slow) as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        fh = await rig.mount.open("e/007")
        with trio.fail_after(1.0):
            await rig.mount.fs.fsync(fh)
        assert await body(rig.store, "e/007") == b"007"
        await rig.mount.fs.release(fh)
        await rig.arrive()


async def test_what_arrives_by_being_written_is_written_though_its_old_name_cannot_be_deleted(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: the first one to write it was told that the old name cannot be deleted."""

    def rights(op: Op) -> Fault | None:
        if op.verb == "delete":
            return Fault(before=AccessDenied("revoked"))
        return Fault(delay=COPY_S) if op.verb == "copy" else None

    async with rigged(faults=rights) as rig:
        await rig.mount.rename("d", "e")
        await rig.mount.write("e/000", b"new")
        assert (await rig.store.head(Key("e/000"))).size == 3
        assert await rig.mount.read("e/000") == b"new"
        assert await rig.mount.names() == ["e"]


async def test_a_part_is_copied_of_what_has_arrived_since(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it was asked for by the ETag that it had before it was carried, and refused."""
    asked: list[ETag] = []

    async def copy_part(upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        asked.append(source.etag)
        return Part(number, span.length, ETag("part"))

    async with rigged() as rig:
        moving = rig.mount.fs._volume.moving
        assert moving is not None
        await rig.mount.rename("d", "e")
        before = await moving.head(Key("e/042"))
        await rig.arrive()
        monkeypatch.setattr(rig.store, "copy_part", copy_part, raising=False)
        await moving.copy_part(Upload(before.key, "id", 0), 1, source=before, span=ByteRange(0, 3))
        assert asked == [(await rig.store.head(before.key)).etag]
        assert asked != [before.etag]


async def test_what_fails_for_now_is_tried_again_and_told_by_sync(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    broken = True
    fault = lambda op: Fault(before=Unavailable("away")) if broken and op.verb == "copy" else None  # noqa: E731
    async with rigged(faults=fault) as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        await trio.sleep(RETRY_S)
        with pytest.raises(Unavailable):
            await rig.mount.fs.sync()
        assert await rig.mount.read("e/042") == b"042"
        broken = False
        await trio.sleep(4 * RETRY_S)
        assert not rig.is_moving
        assert await rig.mount.names("e") == NAMES


async def test_what_somebody_else_wrote_meanwhile_stays_where_it_is(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with rigged() as rig:
        await rig.mount.rename("d", "e")
        await rig.store.another().put(Key("d/050"), b"theirs")
        await rig.arrive()
        assert await body(rig.store, "d/050") == b"theirs"
        assert await rig.mount.read("d/050") == b"theirs"
        assert "050" not in await rig.mount.names("e")
        assert "it stays there" in caplog.text


async def test_what_somebody_else_put_under_the_new_name_meanwhile_is_not_copied_over(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with rigged() as rig:
        await rig.mount.rename("d", "e")
        await rig.store.another().put(Key("e/050"), b"theirs")
        await rig.arrive()
        assert await body(rig.store, "e/050") == b"theirs"
        assert await body(rig.store, "d/050") == b"050"
        assert await rig.mount.read("e/050") == b"theirs"
        assert await rig.mount.read("d/050") == b"050"
        assert await rig.mount.names("d") == ["050"]
        assert "that stays where it is" in caplog.text


async def test_a_copy_whose_reply_was_lost_is_not_taken_for_somebody_elses(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[str] = []

    def faults(op: Op) -> Fault | None:
        if op.verb != "copy" or op.key in lost:
            return None
        lost.append(op.key)
        return lost_reply()

    async with rigged(faults=faults, store=SameTags(LIKE_S3)) as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        await trio.sleep(4 * RETRY_S)
        assert await rig.mount.names("e") == NAMES
        assert not [key for key in await keys_of(rig.store) if key.startswith("d/")]


async def test_a_copy_whose_reply_was_lost_is_not_left_behind_by_another_rename(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first rename cannot tell whether there is a copy; the second must not forget that there may be."""
    lost = [lost_reply()]

    async with rigged(faults=lambda op: lost.pop() if op.verb == "copy" and lost else None, store=SameTags(LIKE_S3)) as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        await trio.sleep(RETRY_S / 2)
        await rig.mount.rename("e", "f")
        await rig.arrive()
        assert await rig.mount.names("f") == NAMES
        assert not [key for key in await keys_of(rig.store) if not key.startswith("f/")]


async def test_what_was_changed_after_a_copy_whose_reply_was_lost_is_not_lost_with_it(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lost = trio.Event()

    def faults(op: Op) -> Fault | None:
        if (op.verb, op.key) != ("copy", "e/098") or lost.is_set():
            return None
        lost.set()
        return lost_reply()

    async with rigged(faults=faults) as rig:
        await rig.mount.rename("d", "e")
        await lost.wait()
        await trio.testing.wait_all_tasks_blocked()
        await rig.mount.chmod("e/098", 0o600)
        await rig.arrive()
        assert int(((await rig.store.head(Key("e/098"))).metadata or {})["mode"]) & 0o777 == 0o600
        assert (await rig.mount.stat("e/098")).mode & 0o777 == 0o600


async def test_a_rename_that_cannot_be_written_down_does_not_happen(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.write_text("in the way")
    async with rigged(folder) as rig:
        with pytest.raises(Unavailable):
            await rig.mount.rename("d", "e")
        assert await rig.mount.names() == ["d"]
        assert await rig.mount.names("d") == NAMES


async def test_a_record_that_cannot_be_removed_ends_no_mount(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with rigged(tmp_path) as rig:
        await rig.mount.rename("d", "e")
        (record,) = files(tmp_path)
        record.unlink()
        record.mkdir()
        await rig.arrive()
        assert await rig.mount.names("e") == NAMES
    assert "cannot be removed" in caplog.text


async def test_unmounting_waits_until_all_has_arrived(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        await rig.mount.rename("e/sub", "sub")
    await rig.mount.fs.aclose()
    assert await keys_of(rig.store) == sorted(["e/", "sub/x", *(f"e/{name}" for name in NAMES[:-1])])
    assert not files(tmp_path)


class Counting(Overlay):
    """Counts the keys that are looked at."""

    looked_at = 0

    def waiting(self, key: str) -> Leg | None:
        self.looked_at += 1
        return super().waiting(key)


@pytest.mark.parametrize("delimiter", ["", "/"])
def test_a_page_costs_as_much_at_the_end_of_a_listing_as_at_its_beginning(delimiter: str) -> None:
    """Regression: each began at the first key of all that were on their way, and a hundred thousand took seconds."""
    overlay, area = Counting(), Area("d/")
    overlay.add(area, [Leg(Key(f"d/{n:04}"), ObjectInfo(Key(f"e/{n:04}"), 1, ETag("e"), 0), (area,)) for n in range(1000)])
    overlay.looked_at = 0
    seen = overlay.view(Asked("e/", delimiter, "e/0989", 100)).merged(Page((), (), None))
    assert seen is not None
    assert [info.key for info in seen.objects] == [f"e/{n:04}" for n in range(990, 1000)]
    assert overlay.looked_at < 20


# -- killed -----------------------------------------------------------------------------------


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


class Killed(BaseException):
    """The process is gone."""


class Dying(Wrapper):
    """A store whose client is killed at one of the copies and deletions; *journal* is then as on the disk, in *kept*."""

    def __init__(self, inner: ObjectStore, *, at: int, after: bool, journal: Path, kept: Path) -> None:
        super().__init__(inner)
        self._left, self._after, self._folders = at, after, (journal, kept)

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        if op.verb not in ("copy", "delete"):
            return await call()
        self._left -= 1
        if self._left > 0:
            return await call()
        if self._left == 0:
            if self._after:
                with trio.CancelScope(shield=True):
                    await call()
            journal, kept = self._folders
            shutil.copytree(journal, kept) if journal.exists() else kept.mkdir()
        raise Killed


class SameTags(MemoryStore):
    """As S3 with objects that were uploaded in one piece: a copy has the ETag of its source."""

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        await super().copy(source, target, if_match=if_match, commit=commit, condition=condition)
        self.bucket.keys[target].etag = self.bucket.keys[source].etag
        return await self.head(target)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("behind", [False, True])
async def test_killed_at_any_request_the_next_mount_finishes_both_renames(
    tmp_path: Path, after: bool, behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "LARGE_KEYS", 1)
    names = [f"{number:02}" for number in range(12)]
    for at in range(1, 100):
        store = SameTags(LIKE_S3)
        for name in names:
            await store.put(Key(f"d/{name}"), name.encode())
        journal, kept = tmp_path / f"{at}{after}", tmp_path / f"{at}{after}-kept"
        mount = Mounted(Dying(store, at=at, after=after, journal=journal, kept=kept), journal=journal)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(mount.fs.run)
                await mount.rename("d", "e")
                if at % 2:
                    await trio.testing.wait_all_tasks_blocked()
                await mount.rename("e", "f")
                await mount.fs.sync()
                nursery.cancel_scope.cancel()
        except (Killed, BaseExceptionGroup):
            pass
        else:
            assert at > 2 * len(names)
            return
        if behind:
            mount = Mounted(store, journal=kept)
            await mount.fs.recover()
            (place,) = await mount.names()
            assert await mount.names(place) == names
            await mount.fs.sync()
        else:
            await Carrier(store, kept).recover()
        keys = await keys_of(store)
        assert len({key[0] for key in keys}) == 1, (at, keys)
        assert not files(kept)
        assert sorted(key[2:] for key in keys) == names
        for key in keys:
            assert await body(store, key) == key[2:].encode()
    raise AssertionError("it never ends")


async def test_killed_after_a_second_rename_nothing_is_left_where_the_first_began(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Regression: a copy that went on before its source was deleted left that to be seen again."""
    deleted, journal, kept = trio.Event(), tmp_path / "journal", tmp_path / "kept"
    late = lambda op: Fault(until=deleted) if op.verb == "delete" and op.key == "d/042" else None  # noqa: E731
    async with rigged(journal, faults=late) as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.mount.rename, "e", "f")
            for _ in range(20):  # the journal is written in a thread
                await trio.testing.wait_all_tasks_blocked(0.01)
            shutil.copytree(journal, kept)
            await Carrier(rig.store, kept).recover()
            assert not [key for key in await keys_of(rig.store) if key.startswith("d/")]
            deleted.set()
        await rig.arrive()
        assert await rig.mount.names("f") == NAMES


async def test_killed_after_a_second_rename_what_was_just_arriving_then_goes_on_as_well(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Regression: it is younger than what was listed, was taken for somebody else's, and stayed where the first rename had taken it."""
    now, journal, kept = [10**18], tmp_path / "journal", tmp_path / "kept"
    stuck = lambda op: Fault(until=trio.Event()) if op.verb == "copy" and op.key.startswith("f/") else None  # noqa: E731
    async with rigged(journal, faults=stuck, store=MemoryStore(LIKE_S3, clock_ns=lambda: now[0])) as rig:
        now[0] += 3600 * 10**9
        await rig.mount.rename("d", "e")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.mount.rename, "e", "f")
            await trio.testing.wait_all_tasks_blocked()
            rig.held.set()
        shutil.copytree(journal, kept)
        assert [key for key in await keys_of(rig.store) if key.startswith("e/")]
        await Carrier(rig.store, kept).recover()
        assert {key[0] for key in await keys_of(rig.store)} == {"f"}
        assert not files(kept)


async def test_killed_after_a_second_rename_what_arrived_since_that_listed_it_goes_on_as_well(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Regression: it is younger than what was listed, though its ETag is the same, and stayed where the first rename had taken it."""
    now, listed, journal, kept = [10**18], trio.Event(), tmp_path / "journal", tmp_path / "kept"

    def faults(op: Op) -> Fault | None:
        if op.verb == "copy" and op.key.startswith("f/"):
            return Fault(until=trio.Event())
        return Fault(until=listed) if (op.verb, op.key) == ("delete", "f/") else None

    async with rigged(journal, faults=faults, store=SameTags(LIKE_S3, clock_ns=lambda: now[0])) as rig:
        await rig.mount.mkdir("f")
        now[0] += 3600 * 10**9
        await rig.mount.rename("d", "e")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.mount.rename, "e", "f")
            await trio.testing.wait_all_tasks_blocked()
            rig.held.set()
            while any(key.startswith("d/") for key in await keys_of(rig.store)):
                await trio.testing.wait_all_tasks_blocked(0.01)
            listed.set()
        shutil.copytree(journal, kept)
        await Carrier(rig.store, kept).recover()
        assert {key[0] for key in await keys_of(rig.store)} == {"f"}
        assert not files(kept)


async def test_killed_while_a_part_of_a_tree_on_its_way_is_renamed_that_is_finished_as_well(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Regression: what had just arrived is newer than what was listed, was taken for somebody else's, and stayed under both names."""
    now, journal, kept, reached = [10**18], tmp_path / "journal", tmp_path / "kept", trio.Event()

    def stuck(op: Op) -> Fault | None:
        if (op.verb, op.key) != ("delete", "e/sub/x"):
            return None
        reached.set()
        return Fault(until=trio.Event())

    async with rigged(journal, faults=stuck, store=MemoryStore(LIKE_S3, clock_ns=lambda: now[0])) as rig:
        now[0] += 3600 * 10**9
        await rig.mount.rename("d", "e")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.mount.rename, "e/sub", "e/other")
            for _ in range(20):  # the journal is written in a thread
                await trio.testing.wait_all_tasks_blocked(0.01)
            rig.held.set()
            await reached.wait()
            shutil.copytree(journal, kept)
            await Carrier(rig.store, kept).recover()
            assert [key for key in await keys_of(rig.store) if key[-1] == "x"] == ["e/other/x"]
            nursery.cancel_scope.cancel()


async def test_a_leg_that_was_taken_over_is_not_finished_by_its_first_record(tmp_path: Path) -> None:
    """Regression in the making: the earlier record would take it to where it was renamed from."""
    store = MemoryStore(LIKE_S3)
    first = await store.put(Key("d/x"), b"x")
    earlier = Journal(tmp_path).begin([Move(Key("d/x"), Key("e/x"), first.etag)])
    later = Journal(tmp_path).begin([Move(Key("d/x"), Key("f/x"), first.etag)])
    earlier.leave()
    later.leave()
    await Carrier(store, tmp_path).recover()
    assert await keys_of(store) == ["f/x"]


async def test_what_was_written_anew_where_a_key_came_from_survives_a_crash(tmp_path: Path) -> None:
    """Regression: an ETag tells of the content alone, so the next mount took the new file for the source of the copy, and deleted it."""
    slow = lambda op: Fault(until=trio.Event()) if op.verb == "copy" and op.key == "e/sub/x" else None  # noqa: E731
    journal, kept = tmp_path / "journal", tmp_path / "kept"
    async with rigged(journal, faults=slow) as rig:
        etag = (await rig.store.head(Key("d/042"))).etag
        await rig.mount.rename("d", "e")
        rig.held.set()
        await trio.testing.wait_all_tasks_blocked()
        await rig.mount.mkdir("d")
        await rig.mount.write("d/042", b"042")
        rig.store.bucket.keys["d/042"].etag = etag
        shutil.copytree(journal, kept)
    await Carrier(rig.store, kept).recover()
    assert await body(rig.store, "d/042") == b"042"


async def test_a_key_that_is_taken_over_by_another_rename_is_not_written_over_where_it_lies(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: who wrote there waited for the former rename alone, and the bytes that the later one was to carry were lost."""
    async with rigged() as rig:
        await rig.mount.rename("d", "e")
        await trio.testing.wait_all_tasks_blocked()
        moving = rig.mount.fs._volume.moving
        assert moving is not None
        infos = (await moving.list("e/")).objects
        first = infos[1]

        async def write() -> None:
            await moving.put(Key(f"d/{first.key[2:]}"), b"new")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(moving.begin, "e/", "f/", infos)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            rig.held.set()
        await moving.settle()
        assert await body(rig.store, f"f/{first.key[2:]}") == first.key[2:].encode()
        assert await body(rig.store, f"d/{first.key[2:]}") == b"new"


async def test_a_later_record_that_cannot_be_finished_yet_is_not_overtaken_by_an_earlier_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore(LIKE_S3)
    first = await store.put(Key("d/x"), b"x")
    records = [Journal(tmp_path).begin([Move(Key("d/x"), Key(target), first.etag)]) for target in ("e/x", "f/x")]
    for record in records:
        record.leave()
    away = lambda op: Fault(before=Unavailable("away")) if op.key == "f/x" else Fault()  # noqa: E731
    await Carrier(Faulty(store, away), tmp_path).recover()
    assert await keys_of(store) == ["d/x"]
    await Carrier(store, tmp_path).recover()
    assert await keys_of(store) == ["f/x"]
    assert not files(tmp_path)


async def test_a_refusal_of_one_copy_keeps_it_readable_where_it_lies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fault = lambda op: Fault(before=AccessDenied("no")) if op.verb == "copy" and op.key == "e/050" else None  # noqa: E731
    async with rigged(tmp_path, faults=fault) as rig:
        await rig.mount.rename("d", "e")
        rig.held.set()
        with pytest.raises(AccessDenied):
            await rig.mount.fs.sync()
        assert await rig.mount.read("e/050") == b"050"
        assert await rig.mount.names("e") == NAMES
        assert len(files(tmp_path)) == 1


@pytest.mark.slow
async def test_everything_at_once_never_hangs(autojump_clock: trio.testing.MockClock) -> None:
    """Renames back and forth, readers, writers, listings and removals in one tree, with copies that take their time."""
    async with rigged(faults=lambda op: Fault(delay=0.3) if op.verb in ("copy", "delete", "put") else None) as rig:
        place = "d"

        async def renames() -> None:
            nonlocal place
            for number in range(6):
                await rig.mount.rename(place, f"to{number}")
                place = f"to{number}"
                await trio.sleep(0.7)

        async def works(number: int, work: Callable[[str], Awaitable[object]]) -> None:
            for _ in range(6):
                try:
                    await work(place)
                except NoEntry:
                    pass
                await trio.sleep(0.05 * number)

        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(renames)
                for number in range(5):
                    nursery.start_soon(works, number, rig.mount.names)
                    nursery.start_soon(works, number, lambda stem, number=number: rig.mount.read(f"{stem}/{number:03}"))
                    nursery.start_soon(works, number, lambda stem, number=number: rig.mount.write(f"{stem}/w{number}", b"x"))
                    nursery.start_soon(works, number, lambda stem, number=number: rig.mount.chmod(f"{stem}/{number + 20:03}", 0o600))
            await rig.arrive()
        rig.mount.fs.check()
        assert set(await rig.mount.names(place)) >= set(NAMES)
        assert not [key for key in await keys_of(rig.store) if not key.startswith(f"{place}/") and "/w" not in key]


# -- taken up by the next mount -----------------------------------------------------------------


def moved(name: str) -> str:
    return f"e/{name}"


async def interrupted(journal: Path, store: MemoryStore) -> None:
    """A rename of d/ to e/ that stopped in the middle: some keys are over, some copied, of some of these nobody has written it down."""
    names = ["", *(f"{number:03}" for number in range(COUNT)), "sub/x"]
    infos = [await store.put(Key(f"d/{name}"), name.encode()) for name in reversed(names)]
    record = Journal(journal).begin([Move(info.key, Key(moved(info.key[2:])), info.etag) for info in infos])
    for number, info in enumerate(infos[:30]):
        copy = await store.copy(info.key, Key(moved(info.key[2:])))
        if number < 20:
            record.copied(number, copy.etag)
        if number < 10:
            await store.delete(info.key)
        if number < 5:
            record.copied(number, ETag(""))
    record.leave()


@pytest.mark.parametrize("kind", [SameTags, MemoryStore])
async def test_a_large_rename_that_was_interrupted_is_seen_as_done_at_once_and_carried_behind(
    tmp_path: Path, kind: type[MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "LARGE_KEYS", 10)
    store, held = kind(LIKE_S3), trio.Event()
    await interrupted(tmp_path, store)
    await store.put(Key("d/new"), b"somebody else's")
    traced = Traced(Faulty(store, lambda op: Fault(until=held) if op.verb == "copy" else Fault()))
    mount = Mounted(traced, journal=tmp_path)
    await mount.fs.recover()
    assert traced.requests["copy"] == 0
    assert traced.requests["head"] <= (0 if kind is SameTags else 40), "which of those with tags of their own are copies is found out"
    assert await mount.names("e") == NAMES
    assert await mount.names("d") == ["new"]
    for name in ("000", "050", "075", "085", "095", "099"):
        assert await mount.read(moved(name)) == name.encode()
        with pytest.raises(NoEntry):
            await mount.stat(f"d/{name}")
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        held.set()
        await mount.fs.sync()
        nursery.cancel_scope.cancel()
    assert await keys_of(store) == sorted(["d/new", "e/", "e/sub/x", *(moved(name) for name in NAMES[:-1])])
    assert await body(store, "d/new") == b"somebody else's"
    assert not files(tmp_path)


async def test_pages_of_a_tree_are_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "PAGE_KEYS", 7)
    store = MemoryStore(LIKE_S3)
    for number in range(50):
        await store.put(Key(f"d/{number:03}"), b"")
    ours = [f"d/{number:03}" for number in range(0, 50, 2)]
    for keys in (ours, ours[:7], ours[:8], ours[:1]):
        assert sorted(await resuming.listed(store, "d/", keys)) == [f"d/{number:03}" for number in range(50)]


@pytest.mark.parametrize(
    ("sources", "targets", "prefix"),
    [
        (["a/x", "a/y"], ["b/x", "b/y"], "a/"),
        (["a/s/x", "a/s/y"], ["b/s/x", "b/s/y"], "a/s/"),
        (["a/", "a/x"], ["b/c/", "b/c/x"], "a/"),
        (["a/x", "b/y"], ["c/x", "c/y"], None),
        (["a/x", "a/y"], ["c/x", "d/y"], None),
        (["a", "b"], ["c/a", "c/b"], None),
    ],
)
def test_only_a_tree_is_taken_up(sources: list[str], targets: list[str], prefix: str | None) -> None:
    assert resuming.tree(sources, targets) == prefix

"""Who may put and not delete (buckets in which nothing is to be lost are such): what he saves under a name is there, again and again.

Each rename leaves what it could not delete, unseen, and listed as one thing that is left.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing

from s3mount.errors import AccessDenied, AlreadyExists, NoEntry, NoSpace, NotEmpty, OutcomeUnknown, StoreError
from s3mount.fs import rename, resuming
from s3mount.fs.later import RETRY_MAX_S, RETRY_S
from s3mount.model import Key, MiB
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty
from tests.fs.mounted import RW, Mounted
from tests.fs.test_carry import records
from tests.store.registry import keys_of, read

LARGE = 17 << 20


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    """What is refused is said in the log."""


@dataclass
class Rights:
    """Not to delete what ends with *of*; *faults* befall other requests, by their verbs, once each."""

    deletes: bool = False
    of: str | tuple[str, ...] = ""

    def __post_init__(self) -> None:
        self.faults: dict[str, Fault] = {}
        self.refused = 0

    def __call__(self, op: Op) -> Fault:
        if op.verb.startswith("delete") and not self.deletes and op.key.endswith(self.of):
            self.refused += 1
            return Fault(before=AccessDenied("You may not delete."))
        return self.faults.pop(op.verb, NOTHING)


@dataclass
class Rig:
    mount: Mounted
    store: MemoryStore
    rights: Rights
    folder: Path

    def stuck(self) -> list[str]:
        """What `s3mount status` tells of."""
        renamed = self.mount.fs.outstanding().renamed
        assert renamed.under_way + sum(1 for stuck in renamed.first if "failed has left" in stuck.reason) == renamed.stuck
        return sorted(stuck.key for stuck in renamed.first)

    async def save(self, text: bytes, *, via: str = "f.tmp", flags: int = 0) -> None:
        """As programs save: written under another name, renamed over the old one."""
        fh = await self.mount.create(via, flags=RW | os.O_TRUNC | flags)
        await self.mount.fs.write(fh, 0, text)
        await self.mount.fs.fsync(fh)
        await self.mount.close(fh)
        await self.mount.rename(via, "f")

    async def with_rights(self) -> list[str]:
        """The bucket once this mount may delete."""
        self.rights.deletes = True
        await self.mount.fs.retry(self.stuck())
        assert not self.stuck()
        assert not records(self.folder)
        return await keys_of(self.store)

    def leave(self) -> None:
        """What is left is the next mount's."""
        moving = self.mount.fs._volume.moving
        assert moving is not None
        moving.leave()

    async def next_mount(self) -> Mounted:
        """After a crash, with rights."""
        self.leave()
        mount = Mounted(self.store, journal=self.folder)
        await mount.fs.recover()
        return mount


async def until(happened: Callable[[], bool]) -> None:
    """The background has come so far. (Virtual time passes while threads work.)"""
    while not happened():  # noqa: ASYNC110 (what others know of it is not told by events)
        await trio.sleep(RETRY_S)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rigged(tmp_path) as rig:
        yield rig


@asynccontextmanager
async def rigged(folder: Path) -> AsyncIterator[Rig]:
    store, rights = MemoryStore(LIKE_S3), Rights()
    await store.put(Key("f"), b"first")
    mount = Mounted(Faulty(store, rights), journal=folder)
    async with mount.at_work():
        yield Rig(mount, store, rights, folder)
    mount.fs.check()


@pytest.mark.parametrize("flags", [0, os.O_EXCL])
async def test_a_file_is_saved_again_and_again_by_way_of_one_name(rig: Rig, flags: int) -> None:
    """Regression: the second time the other name could not be written, for what lay there unseen."""
    for text in (b"one", b"two", b"three"):
        await rig.save(text, flags=flags)
        assert await rig.mount.names() == ["f"]
        assert await rig.mount.read("f") == await read(rig.store, Key("f")) == text
        assert rig.stuck() == ["f.tmp"]
    assert await rig.with_rights() == ["f"]


async def test_a_file_is_saved_again_and_again_by_way_of_other_names(rig: Rig) -> None:
    """Regression: the second rename was refused, for the name that the first one could not delete."""
    for number in range(3):
        await rig.save(b"%d" % number, via=f".f.{number}")
        assert await rig.mount.names() == ["f"]
        assert await rig.mount.read("f") == b"%d" % number
        assert rig.stuck() == [f".f.{left}" for left in range(number + 1)]
    assert await rig.with_rights() == ["f"]
    assert await read(rig.store, Key("f")) == b"2"


async def test_what_was_saved_is_renamed_and_removed_as_far_as_there_are_rights(rig: Rig) -> None:
    """Regression: without rights to the old name there were none to the new one."""
    await rig.save(b"one")
    await rig.store.put(Key("g"), b"to be replaced")
    await rig.mount.rename("f", "g")
    assert await rig.mount.names() == ["g"]
    assert await rig.mount.read("g") == b"one"
    assert rig.stuck() == ["f", "f.tmp"]
    rig.rights.refused = 0
    with pytest.raises(AccessDenied):
        await rig.mount.unlink("g")
    assert rig.rights.refused == 1
    await rig.mount.write("f", b"anew")
    assert rig.stuck() == ["f.tmp"]
    assert await rig.mount.names() == ["f", "g"]
    assert await rig.with_rights() == ["f", "g"]


async def test_a_directory_is_not_empty_behind_what_was_left_in_it(rig: Rig) -> None:
    """Regression: it was removed with a file in it, if that came behind what is not seen."""
    await rig.mount.mkdir("d")
    for path in ("d/b", "d/c"):
        await rig.mount.write(path, b"there")
    rig.rights.of = "d/b"
    await rig.mount.rename("d/b", "f")
    assert await rig.mount.names("d") == ["c"]
    with pytest.raises(NotEmpty):
        await rig.mount.rmdir("d")
    await rig.mount.unlink("d/c")
    await rig.mount.rmdir("d")
    assert await rig.mount.names() == ["f"]
    assert await rig.with_rights() == ["f"]


@pytest.mark.parametrize("many", [False, True])
async def test_a_directory_is_renamed_with_what_was_saved_in_it(rig: Rig, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it was refused for the other name of a file in it."""
    monkeypatch.setattr(rename, "ANSWER_KEYS", 0 if many else 10)
    rig.rights.of = ".tmp"
    for key in ("d/f", "d/g"):
        await rig.store.put(Key(key), b"first")
    await rig.mount.write("d/f.tmp", b"one")
    await rig.mount.rename("d/f.tmp", "d/f")
    await rig.mount.rename("d", "e")
    assert await rig.mount.names() == ["e", "f"]
    assert await rig.mount.names("e") == ["f", "g"]
    assert await rig.mount.read("e/f") == b"one"
    with suppress(AccessDenied):
        await rig.mount.fs.sync()
    assert rig.stuck() == ["d/f.tmp"]
    assert await keys_of(rig.store) == ["d/f.tmp", "e/f", "e/g", "f"]
    assert await rig.with_rights() == ["e/f", "e/g", "f"]


async def test_what_is_put_where_a_directory_left_several_things_is_seen(rig: Rig) -> None:
    """Regression: it was hidden as long as anything beside it could not be deleted."""
    rig.rights.of = ".tmp"
    for key in ("d/a.tmp", "d/b.tmp", "d/c"):
        await rig.store.put(Key(key), b"first")
    await rig.mount.rename("d", "e")
    await rig.mount.mkdir("d")
    await rig.mount.write("d/a.tmp", b"anew")
    assert await rig.mount.names("d") == ["a.tmp"]
    assert await rig.mount.read("d/a.tmp") == b"anew"
    with suppress(AccessDenied):
        await rig.mount.fs.sync()
    assert rig.stuck() == ["d/b.tmp"]
    assert await rig.with_rights() == ["d/", "d/a.tmp", "e/a.tmp", "e/b.tmp", "e/c", "f"]


async def test_a_directory_takes_the_place_of_one_that_others_removed_and_that_has_left_something(rig: Rig) -> None:
    """Regression: the rename failed, and was half done."""
    rig.rights.of = ".tmp"
    for key in ("d/a.tmp", "d/c", "new/a.tmp", "new/c"):
        await rig.store.put(Key(key), b"first")
    await rig.mount.rename("d", "e")
    for key in ("e/a.tmp", "e/c"):
        await rig.store.delete(Key(key))
    await rig.mount.rename("new", "e")
    assert await rig.mount.names() == ["e", "f"]
    assert await rig.mount.names("e") == ["a.tmp", "c"]
    with suppress(AccessDenied):
        await rig.mount.fs.sync()
    assert rig.stuck() == ["d/a.tmp", "new/a.tmp"]
    assert await rig.with_rights() == ["e/a.tmp", "e/c", "f"]


async def test_a_directory_that_was_renamed_twice_is_not_seen_when_a_part_of_what_it_left_has_gone(rig: Rig) -> None:
    """Regression: it was there again, and empty, as long as what the first rename left."""
    rig.rights.of = ".tmp"
    for key in ("d/a.tmp", "d/c"):
        await rig.store.put(Key(key), b"first")
    await rig.mount.rename("d", "e")
    await rig.mount.mkdir("d")
    for path in ("d/new.tmp", "d/z"):
        await rig.mount.write(path, b"anew")
    await rig.mount.rename("d", "g")
    assert await rig.mount.names() == ["e", "f", "g"]
    rig.rights.of = "a.tmp"
    with suppress(AccessDenied):
        await rig.mount.fs.sync()
    assert await rig.mount.names() == ["e", "f", "g"]
    assert await rig.with_rights() == ["e/a.tmp", "e/c", "f", "g/", "g/new.tmp", "g/z"]


@pytest.mark.parametrize("refusal", [AccessDenied("Not now."), NoSpace("No room.")])
async def test_a_directory_in_which_a_write_was_refused_is_not_seen_once_it_was_removed(
    rig: Rig, refusal: StoreError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it was there again, and empty, as long as what a rename had left in it could not be deleted."""
    monkeypatch.setattr(rename, "ANSWER_KEYS", 1)
    rig.rights.of = ".tmp"
    for key in ("d/a.tmp", "d/c"):
        await rig.store.put(Key(key), b"first")
    await rig.mount.rename("d", "e")
    await rig.mount.mkdir("d")
    fh = await rig.mount.create("d/new")
    await rig.mount.fs.write(fh, 0, b"anew")
    for end in (rig.mount.fs.flush, rig.mount.fs.release):
        rig.rights.faults["put"] = Fault(before=refusal)
        with pytest.raises(type(refusal)):
            await end(fh)
    assert await rig.mount.fs.discard(["d/new"]) == ["d/new"]
    await rig.mount.rmdir("d")
    assert await rig.mount.names() == ["e", "f"]
    with pytest.raises(NoEntry):
        await rig.mount.stat("d")


async def test_a_file_is_seen_though_a_later_write_of_it_was_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rename, "ANSWER_KEYS", 1)
    rig.rights.of = ".tmp"
    for key in ("d/a.tmp", "d/c"):
        await rig.store.put(Key(key), b"first")
    await rig.mount.rename("d", "e")
    await rig.mount.mkdir("d")
    await rig.mount.write("d/new", b"anew")
    rig.rights.faults["put"] = Fault(before=AccessDenied("Not now."))
    with pytest.raises(AccessDenied):
        await rig.mount.write("d/new", b"once more")
    assert await rig.mount.names("d") == ["new"]


@pytest.mark.slow
async def test_a_write_over_what_is_left_that_was_cancelled_is_not_undone(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    await rig.save(b"one")
    fh = await rig.mount.create("f.tmp")
    await rig.mount.fs.write(fh, 0, b"two")
    rig.rights.faults["put"] = Fault(reply_delay=10.0)
    with trio.move_on_after(1):
        await rig.mount.fs.flush(fh)
    rig.rights.deletes = True
    await trio.sleep(RETRY_MAX_S)
    await rig.mount.close(fh)
    assert await rig.mount.names() == await keys_of(rig.store) == ["f", "f.tmp"]
    assert await rig.mount.read("f.tmp") == b"two"


@pytest.mark.parametrize("flags", [0, os.O_EXCL])
async def test_a_large_file_is_saved_again(rig: Rig, flags: int) -> None:
    await rig.save(b"one")
    await rig.save(b"x" * LARGE, flags=flags)
    assert (await rig.mount.stat("f")).size == (await rig.store.head(Key("f"))).size == LARGE
    assert rig.stuck() == ["f.tmp"]
    assert await rig.with_rights() == ["f"]


@pytest.mark.parametrize("pieces", [1, 40])
async def test_what_others_put_in_place_of_what_lies_unseen_is_not_written_over_by_an_exclusive_create(rig: Rig, pieces: int) -> None:
    """Regression: what was so large that it was sent while it was written."""
    await rig.save(b"one")
    fh = await rig.mount.create("f.tmp", flags=RW | os.O_EXCL)
    for number in range(pieces):
        await rig.mount.fs.write(fh, number * MiB, bytes(MiB))
    await trio.testing.wait_all_tasks_blocked()
    await rig.store.put(Key("f.tmp"), b"somebody else's")
    with pytest.raises(AlreadyExists):
        await rig.mount.close(fh)
    assert await read(rig.store, Key("f.tmp")) == b"somebody else's"


@pytest.mark.parametrize("via", ["f.tmp", ".f.new"])
async def test_after_a_crash_the_next_mount_deletes_what_was_left_and_nothing_else(rig: Rig, via: str) -> None:
    await rig.save(b"one")
    await rig.save(b"two", via=via)
    await rig.mount.write("f.tmp" if via != "f.tmp" else "g", b"anew")
    seen = await rig.mount.names()
    mount = await rig.next_mount()
    assert await mount.names() == seen
    assert await mount.read("f") == b"two"
    assert await keys_of(rig.store) == seen
    assert not records(rig.folder)


async def test_after_a_crash_a_copy_goes_whose_source_was_renamed_since(rig: Rig) -> None:
    """Regression: the next mount took the source away, and kept the copy for want of it."""
    await rig.mount.write("new.tmp", b"one")
    with pytest.raises(AccessDenied):
        await rig.mount.rename("new.tmp", "new")
    await rig.mount.rename("new.tmp", "f")
    mount = await rig.next_mount()
    assert await mount.names() == await keys_of(rig.store) == ["f"]


async def test_what_was_saved_and_replaced_by_others_takes_no_leftover_with_it(rig: Rig) -> None:
    await rig.save(b"one", via=".f.1")
    await rig.save(b"two", via=".f.2")
    await rig.store.delete(Key("f"))
    await rig.store.put(Key(".f.1"), b"somebody else's")
    mount = await rig.next_mount()
    assert await read(rig.store, Key(".f.1")) == b"somebody else's"
    assert await mount.names() == [".f.1", ".f.2"]


@pytest.mark.parametrize("happened", [False, True])
async def test_a_write_over_what_is_left_whose_reply_was_lost_is_found_out(rig: Rig, happened: bool) -> None:
    await rig.save(b"one")
    lost = OutcomeUnknown("The connection broke.")
    rig.rights.faults["put"] = rig.rights.faults["adopt"] = Fault(after=lost) if happened else Fault(before=lost)
    await rig.save(b"two")
    assert await rig.mount.names() == ["f"]
    assert await rig.mount.read("f") == b"two"
    assert await rig.with_rights() == ["f"]


@pytest.mark.slow
@pytest.mark.parametrize("key", ["f.tmp", "new"])
async def test_what_was_perhaps_written_is_not_taken_for_what_was_left(rig: Rig, key: str, autojump_clock: trio.testing.MockClock) -> None:
    """Whose bytes may be the same, and so their ETags."""
    await rig.save(b"one")
    await rig.mount.write("new.tmp", b"one")
    with pytest.raises(AccessDenied):
        await rig.mount.rename("new.tmp", "new")
    assert rig.stuck() == ["f.tmp", "new"]
    former = rig.store.bucket.keys[key].etag
    rig.rights.faults["put"] = Fault(after=OutcomeUnknown("The connection broke."))
    await rig.mount.write(key, b"one")
    rig.store.bucket.keys[key].etag = former
    rig.rights.deletes = True
    await until(lambda: not rig.stuck())
    assert key in await keys_of(rig.store)


async def test_a_refused_write_over_what_is_left_leaves_it_unseen(rig: Rig) -> None:
    await rig.save(b"one")
    fh = await rig.mount.create("f.tmp")
    await rig.mount.fs.write(fh, 0, b"two")
    rig.rights.faults["put"] = rig.rights.faults["adopt"] = Fault(before=AccessDenied("You may not put."))
    with pytest.raises(AccessDenied):
        await rig.mount.fs.flush(fh)
    await rig.mount.unlink("f.tmp")
    await rig.mount.close(fh)
    assert await rig.mount.names() == ["f"]
    assert rig.stuck() == ["f.tmp"]


@pytest.mark.slow
async def test_what_is_left_goes_when_the_rights_come_while_it_is_written_over(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    """What is tried again in the background and what is put wait for each other."""
    await rig.save(b"one")
    rig.rights.deletes = True
    rig.rights.faults["delete"] = Fault(delay=100.0)
    await until(lambda: not rig.rights.faults)
    await rig.mount.write("f.tmp", b"two")
    await until(lambda: not rig.stuck())
    assert await rig.mount.names() == await keys_of(rig.store) == ["f", "f.tmp"]


async def test_what_a_failed_rename_could_not_take_back_is_written_over(rig: Rig) -> None:
    """Regression: neither a copy nor a new file could be stored there, for want of the right to delete."""
    await rig.mount.write("new.tmp", b"one")
    with pytest.raises(AccessDenied):
        await rig.mount.rename("new.tmp", "new")
    assert await rig.mount.names() == ["f", "new.tmp"]
    assert rig.stuck() == ["new"]
    fh = await rig.mount.create("new", flags=RW | os.O_EXCL)
    await rig.mount.fs.write(fh, 0, b"two")
    await rig.mount.close(fh)
    assert await rig.mount.names() == ["f", "new", "new.tmp"]
    assert await rig.mount.read("new") == await read(rig.store, Key("new")) == b"two"
    assert not rig.stuck()
    rig.rights.deletes = True
    mount = await rig.next_mount()
    assert await mount.names() == ["f", "new", "new.tmp"]


async def test_what_a_failed_rename_could_not_take_back_is_no_obstacle_to_trying_again(rig: Rig) -> None:
    """Regression: it was refused for want of the right to delete what it was to put there."""
    await rig.mount.write("new.tmp", b"one")
    with pytest.raises(AccessDenied):
        await rig.mount.rename("new.tmp", "new")
    rig.rights.of = "new"
    await rig.mount.rename("new.tmp", "new")
    assert await rig.mount.names() == await keys_of(rig.store) == ["f", "new"]
    assert await rig.mount.read("new") == b"one"
    assert not rig.stuck()
    assert not records(rig.folder)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_saved_renamed_and_removed_with_rights_that_come_and_go_is_there_once(tmp_path: Path, seed: int) -> None:
    """What is refused has not happened."""
    dice = random.Random(seed)
    async with rigged(tmp_path) as rig:
        model = {"f": b"first"}
        for step in range(40):
            rig.rights.deletes = dice.random() < 0.2
            name, other = dice.sample("abf", 2)
            text = b"%d" % step
            try:
                match dice.choice(["write", "write", "create", "rename", "rename", "unlink", "retry"]):
                    case "write":
                        await rig.mount.write(name, text)
                        model[name] = text
                    case "create" if name not in model:
                        fh = await rig.mount.create(name, flags=RW | os.O_EXCL)
                        await rig.mount.fs.write(fh, 0, text)
                        await rig.mount.close(fh)
                        model[name] = text
                    case "rename" if name in model:
                        await rig.mount.rename(name, other)
                        model[other] = model.pop(name)
                    case "unlink" if name in model:
                        await rig.mount.unlink(name)
                        del model[name]
                    case "retry":
                        await rig.mount.fs.retry(rig.stuck())
            except AccessDenied:
                assert not rig.rights.deletes
            assert {name: await rig.mount.read(name) for name in await rig.mount.names()} == model
        assert {*await keys_of(rig.store)} == {*model, *rig.stuck()}
        assert await rig.with_rights() == sorted(model)


@pytest.mark.parametrize("seed", range(3))
async def test_after_a_crash_nothing_is_lost_or_unseen_however_it_came_to_be_left(tmp_path: Path, seed: int) -> None:
    """A copy whose source has gone may be seen again: nobody can tell whether it is the last one of its bytes."""
    dice = random.Random(seed)
    async with rigged(tmp_path) as rig:
        for step in range(20):
            name, other = dice.sample("abcf", 2)
            with suppress(AccessDenied, NoEntry):
                await (rig.mount.write(name, b"%d" % step) if dice.random() < 0.5 else rig.mount.rename(name, other))
        seen = {name: await rig.mount.read(name) for name in await rig.mount.names()}
        mount = await rig.next_mount()
        found = {name: await mount.read(name) for name in await mount.names()}
        assert found.items() >= seen.items()
        assert await keys_of(rig.store) == sorted(found)
        assert not records(rig.folder)


async def test_the_next_mount_sees_nothing_where_large_renames_one_after_the_other_left_something(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a directory was there, empty, for what an earlier rename had once brought to it."""
    monkeypatch.setattr(resuming, "LARGE_KEYS", 1)
    rig.rights.of = ("d/a", "e/b")
    for key in ("d/a", "d/b", "d/z"):
        await rig.store.put(Key(key), b"first")
    await rig.mount.rename("d", "e")
    await rig.mount.unlink("e/a")
    await rig.mount.rename("e", "g")
    assert await rig.mount.names() == ["f", "g"]
    rig.leave()
    mount = Mounted(Faulty(rig.store, rig.rights), journal=rig.folder)
    await mount.fs.recover()
    assert await keys_of(rig.store) == ["d/a", "e/b", "f", "g/b", "g/z"]
    assert await mount.names() == ["f", "g"]


async def test_the_next_mount_sees_no_copy_that_was_not_taken_back_where_a_large_rename_left_something(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it was seen, and would have been taken back all the same."""
    monkeypatch.setattr(resuming, "LARGE_KEYS", 1)
    rig.rights.of = "d/b"
    for key in ("d/b", "d/z"):
        await rig.store.put(Key(key), b"first")
    await rig.mount.rename("d", "e")
    rig.rights.of = ""
    await rig.mount.mkdir("d")
    with pytest.raises(AccessDenied):
        await rig.mount.rename("f", "d/new")
    assert await rig.mount.names("d") == []
    rig.leave()
    mount = Mounted(Faulty(rig.store, rig.rights), journal=rig.folder)
    await mount.fs.recover()
    assert await keys_of(rig.store) == ["d/", "d/b", "d/new", "e/b", "e/z", "f"]
    assert await mount.names() == ["d", "e", "f"]
    assert await mount.names("d") == []


async def test_the_next_mount_shows_no_old_name_that_it_may_not_delete_either(rig: Rig) -> None:
    """Regression: both names were there again."""
    await rig.save(b"one", via=".f.1")
    await rig.save(b"two", via=".f.2")
    for _ in range(2):
        rig.leave()
        rig.mount = Mounted(Faulty(rig.store, rig.rights), journal=rig.folder)
        await rig.mount.fs.recover()
        assert await rig.mount.names() == ["f"]
        assert await rig.mount.read("f") == b"two"
        assert rig.mount.fs.outstanding().renamed.under_way == 2
    await rig.mount.write(".f.1", b"anew")
    assert await rig.mount.names() == [".f.1", "f"]
    mount = await rig.next_mount()
    assert await mount.names() == await keys_of(rig.store) == [".f.1", "f"]
    assert not records(rig.folder)


async def partly_renamed(rig: Rig) -> None:
    """Directory `d` is `e` now, but for its marker and a file, which could not be deleted."""
    rig.rights.of = ("d/", "d/a")
    await rig.mount.mkdir("d")
    for name in ("a", "b"):
        await rig.mount.write(f"d/{name}", b"ours")
    await rig.mount.rename("d", "e")
    assert await keys_of(rig.store) == ["d/", "d/a", "e/", "e/a", "e/b", "f"]


async def test_what_others_put_where_a_renamed_directory_has_left_something_is_seen(rig: Rig) -> None:
    """Regression: nothing of it was, as long as the right to delete was missing; the next mount did not see it either."""
    await partly_renamed(rig)
    assert await rig.mount.names() == ["e", "f"]
    for number in range(3):
        await rig.store.put(Key(f"d/theirs{number}"), b"theirs")
        assert await rig.mount.names() == ["d", "e", "f"]
        assert await rig.mount.names("d") == [f"theirs{n}" for n in range(number + 1)]
        assert await rig.mount.read(f"d/theirs{number}") == b"theirs"
        with pytest.raises(NotEmpty):
            await rig.mount.rmdir("d")
        rig.leave()
        rig.mount = Mounted(Faulty(rig.store, rig.rights), journal=rig.folder)
        await rig.mount.fs.recover()
        assert rig.mount.fs.outstanding().renamed.under_way == 2
    assert await rig.mount.names("d") == ["theirs0", "theirs1", "theirs2"]
    mount = await rig.next_mount()
    assert await keys_of(rig.store) == ["d/theirs0", "d/theirs1", "d/theirs2", "e/", "e/a", "e/b", "f"]
    assert await mount.names("d") == ["theirs0", "theirs1", "theirs2"]


@pytest.mark.parametrize("former", [True, False], ids=["a former mount's", "its own"])
async def test_what_others_put_where_a_large_rename_has_left_something_is_seen(
    rig: Rig, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, *, former: bool
) -> None:
    """Regression: as above; only what lies there itself is not seen, once the rest has gone."""
    monkeypatch.setattr(resuming, "LARGE_KEYS", 1)
    monkeypatch.setattr(rename, "ANSWER_KEYS", 0)
    rig.rights.of = ("d/", "d/a")
    for key in ("d/", "d/a", "d/b", "d/c/d"):
        await rig.store.put(Key(key), b"" if key == "d/" else b"ours")
    await rig.mount.rename("d", "e")
    await until(lambda: len((left := rig.mount.fs.outstanding().renamed).first) == left.under_way == 2)
    async with AsyncExitStack() as stack:
        if former:
            rig.leave()
            rig.mount = Mounted(Faulty(rig.store, rig.rights), journal=rig.folder)
            await rig.mount.fs.recover()
            await stack.enter_async_context(rig.mount.at_work())
            await until(lambda: len((left := rig.mount.fs.outstanding().renamed).first) == left.under_way == 2)
        assert await rig.mount.names() == ["e", "f"]
        await rig.store.put(Key("d/theirs"), b"theirs")
        assert await rig.mount.names() == ["d", "e", "f"]
        assert await rig.mount.names("d") == ["theirs"]
        await rig.mount.write("d/a", b"anew")
        assert await rig.mount.names("d") == ["a", "theirs"]
        await rig.mount.rename("e", "g")
        assert await rig.mount.names("g") == ["a", "b", "c"]
    monkeypatch.setattr(resuming, "LARGE_KEYS", 256)
    mount = await rig.next_mount()
    assert await keys_of(rig.store) == ["d/a", "d/theirs", "f", "g/", "g/a", "g/b", "g/c/d"]
    assert await mount.names() == ["d", "f", "g"]
    assert await mount.names("d") == ["a", "theirs"]


async def test_a_directory_is_made_anew_where_a_renamed_one_has_left_its_marker(rig: Rig) -> None:
    await partly_renamed(rig)
    await rig.mount.mkdir("d", mode=0o700)
    assert (await rig.mount.stat("d")).mode & 0o777 == 0o700
    assert await rig.mount.names("d") == []
    await rig.mount.write("d/a", b"anew")
    assert await rig.mount.names("d") == ["a"]
    mount = await rig.next_mount()
    assert await mount.read("d/a") == b"anew"
    assert await keys_of(rig.store) == ["d/", "d/a", "e/", "e/a", "e/b", "f"]

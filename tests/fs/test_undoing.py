"""Copies of a rename that failed, which could not be taken back at once: never seen, and gone as soon as the store allows it."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from s3mount.errors import AccessDenied, NoEntry, OutcomeUnknown
from s3mount.fs.carry import Carrier, Way
from s3mount.fs.journal import Journal, Move, Record
from s3mount.fs.later import RETRY_MAX_S, RETRY_S
from s3mount.fs.rename import NOREPLACE
from s3mount.model import ETag, Key, Page
from s3mount.store.api import PAGE_KEYS, Commit
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op, Wrapper
from s3mount.store.wrap.faulty import Fault, Faulty, lost_reply
from tests.fs.mounted import Mounted
from tests.fs.test_carry import Rider, records
from tests.store.registry import keys_of, read

T = TypeVar("T")

COUNT = 5


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    """What fails is said in the log."""


@dataclass
class Rights:
    """To change anything: for *left* more requests, until they are given back. *lost*: the reply to the last one is, too."""

    left: int = 1000
    lost: bool = False
    refused: int = field(default=0)

    def __call__(self, op: Op) -> Fault:
        if not op.mutates:
            return Fault()
        self.left -= 1
        if self.left >= 0:
            return lost_reply() if self.lost and not self.left else Fault()
        self.refused += 1
        return Fault(before=AccessDenied("revoked"))


@dataclass
class Rig:
    """A bucket with some files in one/, whose rename to two/ has failed in the middle, as did taking back what was copied."""

    store: MemoryStore
    rights: Rights
    folder: Path
    mount: Mounted

    async def next_mount(self) -> Mounted:
        """After kill -9 of the one before."""
        moving = self.mount.fs._volume.moving
        assert moving is not None
        moving.leave()
        self.mount = Mounted(Faulty(self.store, self.rights), journal=self.folder)
        await self.mount.fs.recover()
        return self.mount

    @property
    def journal(self) -> list[Path]:
        return records(self.folder)


async def rigged(folder: Path, *, copies: int = 3, lost: bool = False, ids: bool = True) -> Rig:
    store, rights = MemoryStore(LIKE_S3), Rights()
    for number in range(COUNT):
        await store.put(Key(f"one/{number}"), b"%d" % number, Commit(commit_id=f"id {number}" if ids else ""))
    rig = Rig(store, rights, folder, Mounted(Faulty(store, rights), journal=folder))
    rights.left, rights.lost = copies, lost
    with pytest.raises((OutcomeUnknown, AccessDenied)):
        await rig.mount.rename("one", "two")
    assert len(await keys_of(store)) == COUNT + copies, "nothing could be taken back"
    return rig


class Paged(Wrapper):
    """Its pages are small."""

    def __init__(self, inner: MemoryStore, most: int) -> None:
        super().__init__(inner)
        self._most = most

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        return await self.inner.list(prefix, delimiter=delimiter, after=after, limit=min(limit, self._most))


def sources() -> list[str]:
    return [f"one/{number}" for number in range(COUNT)]


async def require_only_one(mount: Mounted) -> None:
    assert await mount.names() == ["one"]
    assert await mount.names("one") == [f"{number}" for number in range(COUNT)]
    with pytest.raises(NoEntry):
        await mount.stat("two")
    with pytest.raises(NoEntry):
        await mount.stat("two/0")


@pytest.mark.parametrize("lost", [False, True])
async def test_names_of_a_rename_that_failed_never_show_twice(tmp_path: Path, lost: bool) -> None:
    """Regression: rights revoked in the middle of `mv one two` left files under both names, in this mount and the next."""
    rig = await rigged(tmp_path, lost=lost)
    await require_only_one(rig.mount)
    await require_only_one(await rig.next_mount())
    await require_only_one(await rig.next_mount())
    assert len(rig.journal) == 1


@pytest.mark.parametrize("lost", [False, True])
async def test_the_next_mount_undoes_a_rename_that_failed(tmp_path: Path, lost: bool) -> None:
    """Regression: nothing told it, and its `mv one two` said that the directory is not empty."""
    rig = await rigged(tmp_path, lost=lost)
    rig.rights.left = 1000
    mount = await rig.next_mount()
    assert await keys_of(rig.store) == sources()
    assert not rig.journal
    await mount.rename("one", "two")
    assert await mount.names() == ["two"]
    assert len(await keys_of(rig.store)) == COUNT


async def test_the_same_rename_goes_once_rights_are_back(tmp_path: Path) -> None:
    rig = await rigged(tmp_path)
    with pytest.raises(AccessDenied):
        await rig.mount.rename("one", "two")
    rig.rights.left = 1000
    await rig.mount.rename("one", "two")
    assert await keys_of(rig.store) == [f"two/{number}" for number in range(COUNT)]
    assert not rig.journal


async def test_copies_are_taken_back_behind_everybodys_back_less_and_less_often(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    rig = await rigged(tmp_path)
    refused = rig.rights.refused
    async with rig.mount.at_work():
        await trio.sleep(3600)
        rounds = (rig.rights.refused - refused) / 3
        assert 5 < rounds < 10 + 3600 / RETRY_MAX_S
        assert len(await keys_of(rig.store)) == COUNT + 3
        rig.rights.left = 1000
        await trio.sleep(RETRY_MAX_S + RETRY_S)
        assert await keys_of(rig.store) == sources()
        assert not rig.journal
    await require_only_one(rig.mount)


async def test_who_puts_something_where_a_copy_lies_has_it_taken_back_first(tmp_path: Path) -> None:
    rig = await rigged(tmp_path)
    rig.rights.left = 1000
    await rig.mount.mkdir("two")
    await rig.mount.write("two/4", b"mine")
    assert await rig.mount.names("two") == ["4"]
    assert await read(rig.store, Key("two/4")) == b"mine"
    assert await rig.mount.names() == ["one", "two"]
    await rig.next_mount()
    assert await keys_of(rig.store) == [*sources(), "two/", "two/4"]


async def test_what_was_edited_or_removed_since_does_not_keep_its_copy(tmp_path: Path) -> None:
    """Regression: what had another version by then was taken for nobody's copy, and stayed under the new name."""
    rig = await rigged(tmp_path)
    rig.rights.left = 1000
    await rig.mount.write("one/4", b"edited")
    await rig.mount.unlink("one/3")
    assert [key for key in await keys_of(rig.store) if key.startswith("two/")] == ["two/2", "two/3", "two/4"]
    await rig.mount.rename("one", "two")
    assert await keys_of(rig.store) == [f"two/{number}" for number in (0, 1, 2, 4)]
    assert await read(rig.store, Key("two/4")) == b"edited"


async def test_what_others_made_of_a_copy_is_seen_and_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who has replaced it, and who has removed its source because the copy is there."""
    rig = await rigged(tmp_path)
    await rig.store.another().put(Key("two/4"), b"theirs")
    await rig.store.another().delete(Key("one/3"))
    rig.rights.left = 1000
    mount = await rig.next_mount()
    assert await mount.names("two") == ["3", "4"]
    assert await read(rig.store, Key("two/4")) == b"theirs"
    assert await read(rig.store, Key("two/3")) == b"3"
    assert "'two/3', which a rename that failed has left, stays" in caplog.text
    assert not rig.journal


async def test_a_file_whose_rename_failed_is_there_once_and_hides_nobody(tmp_path: Path) -> None:
    """`mv -n a b`, its reply lost and rights revoked: "bc" is seen, "b" is not."""
    store, rights = MemoryStore(LIKE_S3), Rights()
    for name in ("a", "bc"):
        await store.put(Key(name), name.encode(), Commit(commit_id=name))
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    rights.left, rights.lost = 1, True
    with pytest.raises(OutcomeUnknown):
        await mount.rename("a", "b", flags=NOREPLACE)
    assert await keys_of(store) == ["a", "b", "bc"]
    assert await mount.names() == ["a", "bc"]
    rights.left, rights.lost = 1000, False
    await mount.rename("a", "b", flags=NOREPLACE)
    assert await keys_of(store) == ["b", "bc"]


async def test_a_rename_cut_off_in_the_middle_leaves_no_copy(tmp_path: Path) -> None:
    """Regression: copies under way when it was cancelled were forgotten, and so was the whole rename."""
    store, reached = MemoryStore(LIKE_S3), trio.Event()
    moves = []
    for number in range(COUNT):
        source = await store.put(Key(f"one/{number}"), b"%d" % number, Commit(commit_id=f"id {number}"))
        moves.append(Move(source.key, Key(f"two/{number}"), source.etag))

    class Slow(Wrapper):
        async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
            result = await call()
            if op.verb == "copy":
                reached.set()
                await trio.sleep_forever()
            return result

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carried, Carrier(Slow(store), tmp_path), moves)
        await reached.wait()
        nursery.cancel_scope.cancel()
    assert await keys_of(store) == sources()
    assert not records(tmp_path)


async def carried(carrier: Carrier, moves: Sequence[Move]) -> None:
    await carrier.carry(moves, Way(source="one/", target="two/"), Rider())


async def test_killed_while_it_undoes_the_next_mount_does_the_rest(tmp_path: Path) -> None:
    """At each of its deletions."""
    for deletions in range(COUNT + 1):
        rig = await rigged(tmp_path / f"{deletions}", copies=COUNT - 1)
        rig.rights.left = deletions
        await rig.next_mount()
        await require_only_one(rig.mount)
        rig.rights.left = 1000
        await rig.next_mount()
        assert await keys_of(rig.store) == sources()
        assert not rig.journal


async def test_a_later_rename_from_where_a_copy_lay_is_nobodys_to_undo(tmp_path: Path) -> None:
    """Where the record of the later one is there as well, after a power cut."""
    store = MemoryStore(LIKE_S3)
    one = await store.put(Key("one"), b"1")
    two = await store.copy(one.key, Key("two"))
    failed = Journal(tmp_path).begin([Move(one.key, two.key, one.etag)])
    failed.copied(0, two.etag)
    failed.undo("two")
    failed.leave()
    Journal(tmp_path).begin([Move(two.key, Key("three"), two.etag)]).leave()
    await Carrier(store, tmp_path).recover()
    assert await keys_of(store) == ["one", "three"]
    assert not records(tmp_path)


async def test_the_next_mount_takes_back_the_copies_of_all_renames_of_a_tree_that_failed(tmp_path: Path) -> None:
    """Regression: those of all but the last one were seen, and stayed."""
    rig = await rigged(tmp_path)
    rig.rights.left = 2
    with pytest.raises(AccessDenied):
        await rig.mount.rename("one", "three")
    assert len(await keys_of(rig.store)) == COUNT + 5
    assert len(rig.journal) == 2
    await require_only_one(await rig.next_mount())
    assert await rig.mount.names() == ["one"]
    assert len(rig.journal) == 2
    rig.rights.left = 1000
    await rig.next_mount()
    assert await keys_of(rig.store) == sources()
    assert not rig.journal


# -- sources that cannot be deleted ---------------------------------------------------------


async def filled() -> tuple[MemoryStore, Rights]:
    store = MemoryStore(LIKE_S3)
    for number in range(COUNT):
        await store.put(Key(f"one/{number}"), b"%d" % number, Commit(commit_id=f"id {number}"))
    return store, Rights()


async def test_where_no_source_can_be_deleted_the_rename_has_not_happened(tmp_path: Path) -> None:
    """Regression: all was there under both names until the next mount. Whoever has a file open goes on with it."""
    store, rights = await filled()
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    fh = await mount.open("one/2")
    rights.left = COUNT
    with pytest.raises(AccessDenied):
        await mount.rename("one", "two")
    assert len(await keys_of(store)) == 2 * COUNT
    await require_only_one(mount)
    assert await mount.fs.read(fh, 0, 9) == b"2"
    rights.left = 1000
    await mount.fs.write(fh, 0, b"!")
    await mount.close(fh)
    assert await read(store, Key("one/2")) == b"!"
    await mount.rename("one", "two")
    assert await keys_of(store) == [f"two/{number}" for number in range(COUNT)]
    assert not records(tmp_path)


async def test_a_file_that_cannot_be_deleted_is_not_there_twice(tmp_path: Path) -> None:
    store, rights = await filled()
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    rights.left = 1
    with pytest.raises(AccessDenied):
        await mount.rename("one/1", "one/new")
    await require_only_one(mount)
    rights.left = 1000
    await mount.rename("one/1", "one/new")
    assert await mount.names("one") == ["0", "2", "3", "4", "new"]
    assert len(await keys_of(store)) == COUNT
    assert not records(tmp_path)


async def test_attributes_that_went_with_a_copy_are_saved_though_the_rename_fails(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    store, rights = await filled()
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    async with mount.at_work():
        await mount.chmod("one/2", 0o600)
        rights.left = COUNT
        with pytest.raises(AccessDenied):
            await mount.rename("one", "two")
        rights.left = 1000
        assert (await mount.stat("one/2")).mode & 0o777 == 0o600
        await mount.fs.sync()
    assert (await Mounted(store).stat("one/2")).mode & 0o777 == 0o600


async def test_where_some_sources_have_gone_the_rename_is_done_and_the_others_go_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Regression: half of it was there under both names, and its repetition said that the directory is not empty."""
    store, rights = await filled()
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    async with mount.at_work():
        rights.left = COUNT + 2
        await mount.rename("one", "two")
        assert len(await keys_of(store)) == 2 * COUNT - 2
        assert await mount.names() == ["two"]
        assert await mount.names("two") == [f"{number}" for number in range(COUNT)]
        with pytest.raises(AccessDenied):
            await mount.fs.sync()
        rights.left = 1000
        await trio.sleep(RETRY_S + 1)
        assert await keys_of(store) == [f"two/{number}" for number in range(COUNT)]
        assert not records(tmp_path)
    mount.fs.check()


async def test_a_source_whose_deletion_is_in_doubt_goes_later(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    store, rights = await filled()
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    async with mount.at_work():
        rights.left, rights.lost = 2, True
        await mount.rename("one/1", "one/new")
        rights.left, rights.lost = 1000, False
        assert await mount.names("one") == ["0", "2", "3", "4", "new"]
        await mount.fs.sync()
        assert not records(tmp_path)


async def test_killed_before_the_others_have_gone_the_next_mount_deletes_them(tmp_path: Path) -> None:
    store, rights = await filled()
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    async with mount.at_work():
        rights.left = COUNT + 2
        await mount.rename("one", "two")
    rights.left = 1000
    rig = Rig(store, rights, tmp_path, mount)
    assert await (await rig.next_mount()).names() == ["two"]
    assert await keys_of(store) == [f"two/{number}" for number in range(COUNT)]
    assert not rig.journal


async def test_a_source_that_has_left_two_copies_leaves_none_of_them_when_it_is_removed(tmp_path: Path) -> None:
    """Regression: the first one became a file that nobody had made."""
    store, rights = await filled()
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    for target in ("two", "three"):
        rights.left = COUNT
        with pytest.raises(AccessDenied):
            await mount.rename("one", target)
    rights.left = 1000
    await mount.unlink("one/3")
    moving = mount.fs._volume.moving
    assert moving is not None
    await moving.undoing.settle()
    assert await keys_of(store) == [key for key in sources() if key != "one/3"]
    assert await mount.names() == ["one"]
    assert not records(tmp_path)


async def test_what_others_put_where_a_copy_lay_stays_also_where_no_condition_is_heeded(tmp_path: Path) -> None:
    """Regression: it was deleted for the copy, in this mount and in the next."""
    for again in (False, True):
        store, rights = MemoryStore(replace(LIKE_S3, conditional_put=False)), Rights(left=3)
        for number in range(COUNT):
            await store.put(Key(f"one/{number}"), b"%d" % number, Commit(commit_id=f"id {number}"))
        rig = Rig(store, rights, tmp_path / f"{again}", Mounted(Faulty(store, rights), journal=tmp_path / f"{again}"))
        with pytest.raises(AccessDenied):
            await rig.mount.rename("one", "two")
        await store.another().put(Key("two/4"), b"theirs")
        rights.left = 1000
        mount = await rig.next_mount() if again else rig.mount
        moving = mount.fs._volume.moving
        assert moving is not None
        await moving.undoing.settle()
        assert await keys_of(store) == [*sources(), "two/4"]
        assert await read(store, Key("two/4")) == b"theirs"
        assert await mount.names("two") == ["4"]


async def test_killed_while_a_rename_that_failed_is_taken_back_the_next_mount_takes_back_the_rest(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Regression: the rest was renamed, and the tree lay in two halves."""
    store, reached, left = (await filled())[0], trio.Event(), tmp_path / "left"

    class Dying(Wrapper):
        async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
            if (op.verb, op.key) == ("copy", "two/4"):
                raise AccessDenied("revoked")
            if op.verb == "delete" and op.key != "two/0":
                reached.set()
                await trio.sleep_forever()
            return await call()

    async def refused(carrier: Carrier, moves: Sequence[Move]) -> None:
        with pytest.raises(AccessDenied):
            await carried(carrier, moves)

    moves = [Move(Key(f"one/{number}"), Key(f"two/{number}"), (await store.head(Key(f"one/{number}"))).etag) for number in range(COUNT)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, Carrier(Dying(store), tmp_path / "journal"), moves)
        await reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert "two/0" not in await keys_of(store)
        shutil.copytree(tmp_path / "journal", left)
        nursery.cancel_scope.cancel()
    await Carrier(store, left).recover()
    assert await keys_of(store) == sources()
    assert not records(left)


async def test_what_others_put_where_a_source_could_not_be_deleted_stays_also_where_no_condition_is_heeded(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Regression: it was deleted for what had been there."""
    store, rights = MemoryStore(replace(LIKE_S3, conditional_put=False)), Rights()
    for number in range(COUNT):
        await store.put(Key(f"one/{number}"), b"%d" % number, Commit(commit_id=f"id {number}"))
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    async with mount.at_work():
        rights.left = COUNT + 2
        await mount.rename("one", "two")
        kept = Key(next(key for key in await keys_of(store) if key.startswith("one/")))
        await store.another().put(kept, b"theirs")
        rights.left = 1000
        await trio.sleep(RETRY_S + 1)
        assert await keys_of(store) == [kept, *(f"two/{number}" for number in range(COUNT))]
        assert await read(store, kept) == b"theirs"
        assert await mount.names() == ["one", "two"]
    mount.fs.check()


def test_a_record_says_that_it_is_to_be_undone(tmp_path: Path) -> None:
    record: Record = Journal(tmp_path).begin([Move(Key("a/x"), Key("b/x"), ETag("one"))])
    record.copied(0, ETag("two"))
    record.undo("b/")
    record.copied(0, ETag(""))
    record.leave()
    (left,) = Journal(tmp_path).left_over()
    assert (left.undone_below, left.copies) == ("b/", {0: ""})
    left.leave()


async def test_a_source_that_can_never_be_deleted_is_tried_ever_more_seldom_and_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: each was tried every five seconds for ever, with a line in the log each time."""
    store, rights = await filled()
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    async with mount.at_work():
        rights.left = COUNT + 2
        await mount.rename("one", "two")
        refused = rights.refused
        await trio.sleep(3600)
        assert rights.refused - refused < (COUNT - 2) * (10 + 3600 / RETRY_MAX_S)
        lines = [record.message for record in caplog.records if record.name == "s3mount.fs.later"]
        assert len(lines) == 1
        renamed = mount.fs.outstanding().renamed
        assert (renamed.under_way, renamed.stuck) == (COUNT - 2, COUNT - 2)
        keys = [stuck.key for stuck in renamed.first]
        assert sorted(keys) == [key for key in await keys_of(store) if key.startswith("one/")]
        assert {stuck.reason for stuck in renamed.first} >= {
            f"{keys[0]!r} is renamed to {keys[0].replace('one', 'two')!r}, and cannot be deleted under its old name yet: revoked"
        }
        assert await mount.fs.retry(keys[:1]) == {keys[0]: "revoked"}
        rights.left = 1000
        assert await mount.fs.retry(keys[:1]) == {}
        await trio.testing.wait_all_tasks_blocked()
        assert await keys_of(store) == [f"two/{number}" for number in range(COUNT)]
        assert mount.fs.outstanding().renamed.stuck == 0
    mount.fs.check()


async def test_copies_that_cannot_be_taken_back_are_told_and_taken_back_on_demand(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    rig = await rigged(tmp_path)
    async with rig.mount.at_work():
        keys = sorted(stuck.key for stuck in rig.mount.fs.outstanding().renamed.first)
        assert keys == [key for key in await keys_of(rig.store) if key.startswith("two/")]
        rig.rights.left = 1000
        assert await rig.mount.fs.retry(keys) == {}
        assert await keys_of(rig.store) == sources()
        assert rig.mount.fs.outstanding().renamed.stuck == 0


# -- a file over another --------------------------------------------------------------------


async def test_a_file_renamed_over_another_that_cannot_be_deleted_is_there_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: `mv` failed, and both names had the new content until the next mount."""
    store, rights = await filled()
    mount = Mounted(Faulty(store, rights), journal=tmp_path)
    async with mount.at_work():
        rights.left = 1
        await mount.rename("one/1", "one/2")
        assert await mount.names("one") == ["0", "2", "3", "4"]
        assert await mount.read("one/2") == b"1"
        assert [stuck.key for stuck in mount.fs.outstanding().renamed.first] == ["one/1"]
        with pytest.raises(AccessDenied):
            await mount.fs.sync()
        rights.left = 1000
        assert await mount.fs.retry(["one/1"]) == {}
        assert "one/1" not in await keys_of(store)
        assert not records(tmp_path)
    mount.fs.check()


async def test_what_has_arrived_can_be_changed_and_synced_though_its_old_name_cannot_be_deleted(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Regression: it could be neither written nor described nor synced until the old name was gone."""
    store, rights = await filled()
    mount = Mounted(Faulty(store, lambda op: rights(op) if op.verb == "delete" else Fault()), journal=tmp_path)
    async with mount.at_work():
        rights.left = 0
        await mount.rename("one/1", "one/2")
        await mount.write("one/2", b"anew")
        await mount.chmod("one/2", 0o600)
        fh = await mount.open("one/2")
        await mount.fs.write(fh, 4, b"!")
        await mount.fs.fsync(fh)
        await mount.close(fh)
        assert await read(store, Key("one/2")) == b"anew!"
        assert await mount.names("one") == ["0", "2", "3", "4"]
    rights.left = 1000
    rig = Rig(store, rights, tmp_path, mount)
    assert await (await rig.next_mount()).names("one") == ["0", "2", "3", "4"]
    assert await read(store, Key("one/2")) == b"anew!"
    assert not rig.journal


# -- what others put there ------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True], ids=["at once", "in the next mount"])
@pytest.mark.parametrize("name", ["two/theirs", "two/deep/theirs", "two/4", "two/"])
async def test_what_others_put_where_copies_lie_is_seen(tmp_path: Path, name: str, again: bool) -> None:
    """Regression: everything below the new name of a rename that failed was hidden until its copies could be taken back."""
    rig = await rigged(tmp_path)
    await require_only_one(rig.mount)
    theirs = await rig.store.another().put(Key(name), b"" if name.endswith("/") else b"theirs")
    mount = await rig.next_mount() if again else rig.mount
    assert await mount.names() == ["one", "two"]
    names = await mount.names("two")
    assert names == ([] if name == "two/" else [name.split("/")[1]])
    if names:
        assert await mount.read(name) == b"theirs"
    assert len(await mount.names("one")) == COUNT
    rig.rights.left = 1000
    moving = mount.fs._volume.moving
    assert moving is not None
    await moving.undoing.settle()
    assert await keys_of(rig.store) == sorted([*sources(), name])
    assert (await rig.store.head(Key(name))).etag == theirs.etag
    assert not rig.journal
    mount.fs.check()


async def test_copies_alone_are_no_directory_however_many_pages_they_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, rights = MemoryStore(LIKE_S3), Rights()
    for number in range(25):
        await store.put(Key(f"one/{number:02}"), b"")
    mount = Mounted(Faulty(Paged(store, 10), rights), journal=tmp_path)
    rights.left = 24
    with pytest.raises(AccessDenied):
        await mount.rename("one", "two")
    assert len(await keys_of(store)) == 49
    assert await mount.names() == ["one"]
    with pytest.raises(NoEntry):
        await mount.stat("two")
    await store.another().put(Key("two/zz"), b"theirs")
    assert await mount.names() == ["one", "two"]
    assert await mount.names("two") == ["zz"]

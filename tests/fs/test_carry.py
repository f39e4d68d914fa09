"""Renames on a store that cannot rename: nothing is lost, whatever happens in between, and the next mount finishes it."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from s3mount.cache.options import CacheOptions
from s3mount.cache.remember import Remembering
from s3mount.errors import AccessDenied, AlreadyExists, OutcomeUnknown, Unavailable
from s3mount.fs.carry import Carrier, Way
from s3mount.fs.copies import AT_ONCE, copy_to
from s3mount.fs.delivery import look
from s3mount.fs.journal import Journal, Move, Record, Step, decide
from s3mount.model import Absent, ETag, Key, ObjectInfo
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Kind, Op, Wrapper
from s3mount.store.wrap.faulty import Fault, Faulty, Script, lost_reply
from s3mount.store.wrap.limited import Limited, Limits
from tests.fs.mounted import Mounted
from tests.store.registry import keys_of, read
from tests.virtual_time import standing_still

T = TypeVar("T")

MOVE = Move(Key("a"), Key("b"), ETag("one"))


def info(etag: str) -> ObjectInfo:
    return ObjectInfo(Key("any"), 1, ETag(etag), 0)


# -- what is left ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "copied", "step"),
    [
        ("one", None, None, Step.COPY),
        ("one", "one", None, Step.DELETE_SOURCE),
        ("one", "two", "two", Step.DELETE_SOURCE),
        ("one", "two", None, Step.LEAVE_BOTH),
        ("one", "three", "two", Step.LEAVE_BOTH),
        ("one", None, "two", Step.LEAVE_BOTH),
        (None, "two", "two", Step.NOTHING),
        (None, None, None, Step.NOTHING),
        ("changed", None, None, Step.NOTHING),
        ("changed", "two", "two", Step.NOTHING),
    ],
)
def test_what_is_left_of_an_interrupted_move(source: str | None, target: str | None, copied: str | None, step: Step) -> None:
    now = {"source": source and info(source), "target": target and info(target)}
    assert decide(MOVE, **now, copied=ETag(copied) if copied else None) is step  # type: ignore[arg-type]


def test_what_was_made_anew_at_the_source_is_left_there_though_a_power_cut_took_the_note() -> None:
    """Regression: with nothing but its ETag to tell, it was taken for what had been moved, and deleted."""
    move = Move(Key("a"), Key("b"), ETag("one"), mtime_ns=10**18)
    source, target = replace(info("one"), mtime_ns=10**18), replace(info("one"), mtime_ns=10**18 + 60 * 10**9)
    assert decide(move, source=source, target=target, copied=None) is Step.DELETE_SOURCE
    assert decide(move, source=replace(source, mtime_ns=10**18 + 3 * 10**9), target=target, copied=None) is Step.DELETE_SOURCE
    assert decide(move, source=replace(source, mtime_ns=10**18 + 90 * 10**9), target=target, copied=None) is Step.NOTHING


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    record = Journal(tmp_path).begin([MOVE])
    record.leave()
    (path,) = tmp_path.glob("*.moves")
    path.write_bytes(path.read_bytes().replace(b', "one", 0]', b', "one"]'))
    (left,) = Journal(tmp_path).left_over()
    assert list(left.moves) == [MOVE]
    left.leave()


async def test_what_was_put_where_a_key_came_from_is_not_taken_for_it_by_whoever_finishes_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: its ETag tells of the content alone, and that was the same."""
    for begin in ("carry", "recover"):
        store = MemoryStore(LIKE_S3)
        etags = [(await store.put(Key(f"d/{number}"), b"x")).etag for number in range(3)]
        moves = [Move(Key(f"d/{number}"), Key(f"e/{number}"), etag) for number, etag in enumerate(etags)]
        away = lambda op: Fault(before=Unavailable("away")) if (op.verb, op.key) == ("delete", "d/1") else Fault()  # noqa: E731
        carrier = Carrier(Faulty(store, away), tmp_path)
        if begin == "carry":
            with pytest.raises(Unavailable):
                await carrier.carry(moves, Way(source="d/", target="e/"), Rider())
        else:
            Journal(tmp_path).begin(moves).leave()
            await carrier.recover()
        await store.put(Key("d/0"), b"x")
        store.bucket.keys["d/0"].etag = etags[0]
        await Carrier(store, tmp_path).recover()
        assert [key for key in await keys_of(store) if key != "d/2"] == ["d/0", "e/0", "e/1", "e/2"], begin
        assert not list(Journal(tmp_path).left_over())


# -- the journal ----------------------------------------------------------------------------


def test_a_record_says_what_was_planned_and_what_was_copied(tmp_path: Path) -> None:
    moves = [MOVE, Move(Key('odd "\n\ud7ff'), Key("é/"), ETag("two"))]
    record = Journal(tmp_path / "journal").begin(moves)
    record.copied(1, ETag("three"))
    record.leave()
    (left,) = Journal(tmp_path / "journal").left_over()
    assert (list(left.moves), left.copies) == (moves, {1: "three"})
    left.done()
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_note_that_a_full_disk_cut_short_costs_itself_and_the_next_one(tmp_path: Path) -> None:
    """Regression: nothing that was interrupted was finished any more."""
    record = Journal(tmp_path).begin([MOVE] * 4)
    record.copied(0, ETag("two"))
    with next(tmp_path.glob("*.moves")).open("ab") as file:
        file.write(b'[1, "tw')
    for number in (2, 3):
        record.copied(number, ETag("two"))
    record.leave()
    (left,) = Journal(tmp_path).left_over()
    assert left.copies == {0: "two", 3: "two"}
    left.leave()


def test_a_record_that_somebody_works_on_is_not_left_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    record = journal.begin([MOVE])
    assert list(journal.left_over()) == []
    record.leave()
    assert len(list(journal.left_over())) == 1


def test_a_line_cut_off_by_a_crash_is_no_copy(tmp_path: Path) -> None:
    record = Journal(tmp_path).begin([MOVE])
    record.copied(0, ETag("two"))
    record.leave()
    (path,) = tmp_path.glob("*.moves")
    path.write_bytes(path.read_bytes()[:-3])
    (left,) = Journal(tmp_path).left_over()
    assert left.copies == {}
    left.leave()


def test_what_is_no_record_is_told_by_name_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, text in (("v.moves", "2\n\n"), ("w.moves", "3"), ("x.moves", "1\n[1]\n\n"), ("y.moves", "1\n\n[]\n"), ("z.moves", "")):
        (tmp_path / name).write_text(text)
    assert [list(left.moves) for left in Journal(tmp_path).left_over()] == [[]]
    for name in ("v.moves", "w.moves", "x.moves", "z.moves"):
        assert f"{name} of a rename cannot be read" in caplog.text
    assert len(list(tmp_path.iterdir())) == 5


def records(folder: Path) -> list[Path]:
    return list(folder.glob("*.moves"))


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


async def nothing(move: Move, info: ObjectInfo) -> None:
    pass


class Rider:
    """Somebody who is told of copies, and does *then* something."""

    def __init__(self, then: Callable[[Move, ObjectInfo], Awaitable[None]] = nothing) -> None:
        self._then = then

    async def copied(self, move: Move, info: ObjectInfo) -> None:
        await self._then(move, info)

    async def back(self) -> None:
        raise AssertionError("nobody goes back here")


ALONG = Way(source="a/", target="b/")


# -- carrying -------------------------------------------------------------------------------


async def filled(store: ObjectStore, count: int) -> list[Move]:
    """Objects below a/, and the moves that bring them to b/, the marker last."""
    moves = []
    for name in ["", *(f"{number:03}" for number in range(count))]:
        source = await store.put(Key(f"a/{name}"), name.encode())
        moves.append(Move(source.key, Key(f"b/{name}"), source.etag))
    return moves[::-1]


async def test_all_keys_are_carried_over_many_at_a_time() -> None:
    store, script = MemoryStore(LIKE_S3), Script()
    until = trio.Event()
    script.add("copy", *[Fault(until=until)] * 100)
    limits = Limited(Faulty(store, script), Limits(change=4))
    moves = await filled(store, 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(Carrier(limits, None).carry, moves, ALONG, Rider()))
        await trio.testing.wait_all_tasks_blocked()
        assert limits.waiting(Kind.CHANGE) == AT_ONCE - 4
        until.set()
    assert await keys_of(store) == sorted(move.target for move in moves)
    assert await read(store, Key("b/042")) == b"042"


async def test_a_copy_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    store, script = MemoryStore(LIKE_S3), Script()
    moves = await filled(store, 50)
    script.add("copy", *[Fault()] * 40, Fault(before=AccessDenied("no")))
    with pytest.raises(AccessDenied):
        await Carrier(Faulty(store, script), tmp_path).carry(moves, ALONG, Rider())
    assert await keys_of(store) == sorted(move.source for move in moves)
    assert is_empty(tmp_path)


async def test_a_copy_whose_reply_was_lost_is_undone_like_the_others(tmp_path: Path) -> None:
    """Regression: it stayed under the new name, and the directory could not be renamed to that any more."""
    store, script = MemoryStore(LIKE_S3), Script()
    moves = await filled(store, 50)
    script.add("copy", *[Fault()] * 40, lost_reply())
    with pytest.raises(OutcomeUnknown):
        await Carrier(Faulty(store, script), tmp_path).carry(moves, ALONG, Rider())
    assert await keys_of(store) == sorted(move.source for move in moves)


async def test_what_could_not_be_undone_does_not_stand_in_the_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Regression: rights revoked in the middle of `mv one two`: its repetition said that the directory is not empty."""
    store, left = MemoryStore(LIKE_S3), [Fault()] * 40
    for number in range(50):
        await store.put(Key(f"one/{number}"), b"%d" % number, Commit(commit_id=f"id {number}"))

    def revoked(op: Op) -> Fault:
        return Fault() if not op.mutates else left.pop() if left else Fault(before=AccessDenied("revoked"))

    mount = Mounted(Faulty(store, revoked), journal=tmp_path)
    for _ in range(2):
        with pytest.raises(AccessDenied):
            await mount.rename("one", "two")
        assert len(await keys_of(store)) == 90
    left.extend([Fault()] * 1000)
    await mount.rename("one", "two")
    assert await keys_of(store) == sorted(f"two/{number}" for number in range(50))


async def test_a_deletion_that_fails_is_made_good_by_the_next_mount(tmp_path: Path) -> None:
    store, script = MemoryStore(LIKE_S3), Script()
    moves = await filled(store, 50)
    script.add("delete", *[Fault()] * 10, Fault(before=Unavailable("no")))
    with pytest.raises(Unavailable):
        await Carrier(Faulty(store, script), tmp_path).carry(moves, ALONG, Rider())
    keys = await keys_of(store)
    assert set(keys) >= {move.target for move in moves}
    await Carrier(store, tmp_path).recover()
    assert await keys_of(store) == sorted(move.target for move in moves)
    assert is_empty(tmp_path)


async def test_what_somebody_else_wrote_meanwhile_stays(tmp_path: Path) -> None:
    store = MemoryStore(LIKE_S3)
    moves = await filled(store, 3)

    async def interfere(move: Move, info: ObjectInfo) -> None:
        if move.source == "a/001":
            await store.another().put(move.source, b"theirs")

    await Carrier(store, tmp_path).carry(moves, ALONG, Rider(interfere))
    assert await keys_of(store) == ["a/001", *sorted(move.target for move in moves)]
    assert await read(store, Key("a/001")) == b"theirs"


class Killed(BaseException):
    """The process is gone."""


class Dying(Wrapper):
    """A store whose client is killed at one request, before or after it is carried out; *journal* is then as on the disk, in *kept*."""

    def __init__(self, inner: ObjectStore, *, at: int, after: bool, journal: Path, kept: Path) -> None:
        super().__init__(inner)
        self._left = at
        self._after = after
        self._folders = journal, kept

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        self._left -= 1
        if self._left > 0:
            return await call()
        if self._left == 0:
            if self._after:
                with trio.CancelScope(shield=True):
                    await call()
            journal, kept = self._folders
            if journal.exists():
                shutil.copytree(journal, kept)
        raise Killed


@pytest.mark.parametrize("after", [False, True])
async def test_killed_at_any_request_the_next_mount_finishes_it(tmp_path: Path, caplog: pytest.LogCaptureFixture, after: bool) -> None:
    for at in range(1, 100):
        store = MemoryStore(LIKE_S3)
        moves = await filled(store, 6)
        journal, kept = tmp_path / f"{at}", tmp_path / f"{at}-kept"
        dying = Dying(store, at=at, after=after, journal=journal, kept=kept)
        try:
            await Carrier(dying, journal).carry(moves, ALONG, Rider())
        except (Killed, BaseExceptionGroup):
            pass
        else:
            assert at > 2 * len(moves)
            return
        contents = {await read(store, Key(key)) for key in await keys_of(store)}
        assert contents >= {b"", *(b"%03d" % number for number in range(6))}
        await Carrier(store, kept).recover()
        doubtful = {move.source for move in moves} & set(await keys_of(store))
        assert len(doubtful) <= after, "this store gives a copy another tag: without a line in the journal nobody can tell whose it is"
        assert set(await keys_of(store)) - doubtful == {move.target for move in moves}, at
        assert await read(store, Key("b/003")) == b"003"
    raise AssertionError("it never ends")


async def test_one_record_that_cannot_be_read_does_not_keep_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Regression: nothing that was interrupted was finished any more."""
    store = MemoryStore(LIKE_S3)
    moves = await filled(store, 2)
    Journal(tmp_path).begin(moves).leave()
    nonsense = tmp_path / "99999.moves"
    nonsense.write_text("nonsense")
    await Carrier(store, tmp_path).recover()
    assert "99999.moves of a rename cannot be read" in caplog.text
    assert await keys_of(store) == sorted(move.target for move in moves)
    assert [path.name for path in records(tmp_path)] == [nonsense.name]


async def test_a_record_of_a_mount_that_lives_is_left_alone(tmp_path: Path) -> None:
    store = MemoryStore(LIKE_S3)
    moves = await filled(store, 2)
    record: Record = Journal(tmp_path).begin(moves)
    await Carrier(store, tmp_path).recover()
    assert await keys_of(store) == sorted(move.source for move in moves)
    record.leave()
    await Carrier(store, tmp_path).recover()
    assert await keys_of(store) == sorted(move.target for move in moves)


async def test_a_tree_is_not_copied_over_what_somebody_else_has_put_there(tmp_path: Path) -> None:
    store = MemoryStore(LIKE_S3)
    moves = await filled(store, 3)
    await store.another().put(Key("b/001"), b"theirs")
    with pytest.raises(AlreadyExists):
        await Carrier(store, tmp_path).carry(moves, ALONG, Rider())
    assert await keys_of(store) == [*sorted(move.source for move in moves), "b/001"]
    assert await read(store, Key("b/001")) == b"theirs"
    assert is_empty(tmp_path)


async def test_what_comes_between_is_not_copied_over_by_whoever_finishes_a_rename(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(LIKE_S3)
    moves = await filled(store, 3)
    Journal(tmp_path).begin(moves).leave()

    class Late(Wrapper):
        async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
            if op.verb == "copy" and op.key == "b/001":
                await store.another().put(Key("b/001"), b"theirs")
            return await call()

    await Carrier(Late(store), tmp_path).recover()
    assert await read(store, Key("b/001")) == b"theirs"
    assert await read(store, Key("a/001")) == b"001"
    assert "both are left" in caplog.text
    assert is_empty(tmp_path)


@pytest.fixture
def clock() -> Iterator[MockClock]:
    """Stands still while a thread works on a record."""
    with standing_still() as clock:
        yield clock


async def test_many_interrupted_renames_are_finished_many_at_a_time(tmp_path: Path, clock: MockClock) -> None:
    """Regression: a thousand of them, each of one file, kept the next mount from answering for two minutes."""
    store, journal = MemoryStore(LIKE_S3), Journal(tmp_path)
    for number in range(2 * AT_ONCE):
        etag = (await store.put(Key(f"a{number:02}"), b"%d" % number)).etag
        journal.begin([Move(Key(f"a{number:02}"), Key(f"b{number:02}"), etag)]).leave()
    began = trio.current_time()
    await Carrier(Faulty(store, lambda op: Fault(delay=1.0)), tmp_path).recover()
    assert trio.current_time() - began < 12, "two rounds of two looks, a copy and a removal each"
    assert await keys_of(store) == [f"b{number:02}" for number in range(2 * AT_ONCE)]
    assert is_empty(tmp_path)


async def test_renames_of_one_key_are_finished_one_by_one_among_many_others(tmp_path: Path) -> None:
    """The latest first, from where it took the key: what an earlier one would have brought there is not taken for it."""
    store, journal = MemoryStore(LIKE_S3), Journal(tmp_path)
    for number in range(4):
        one, two = [(await store.put(Key(f"{name}{number}"), b"%d" % number + name.encode())).etag for name in ("x", "y")]
        journal.begin([Move(Key(f"x{number}"), Key(f"y{number}"), one)]).leave()
        journal.begin([Move(Key(f"y{number}"), Key(f"z{number}"), two)]).leave()
    await Carrier(Faulty(store, lambda op: Fault(delay=0.001)), tmp_path).recover()
    for number in range(4):
        assert await read(store, Key(f"z{number}")) == b"%dy" % number
        assert await read(store, Key(f"y{number}")) == b"%dx" % number
    assert is_empty(tmp_path)


# -- what is told by a store that remembers ----------------------------------------------------


@pytest.mark.parametrize("secret", ["a", "b"])
async def test_a_copy_that_may_not_be_looked_at_now_is_not_taken_for_another_clients(
    secret: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: while credentials were revoked, a copy whose reply had been lost seemed to say nothing of itself; both names stayed."""
    memory, refused = MemoryStore(LIKE_S3), {secret}

    def plan(op: Op) -> Fault:
        return Fault(before=AccessDenied("No.")) if op.verb in ("head", "aspect") and op.key in refused else Fault()

    made = await memory.put(Key("a"), b"bytes", Commit(commit_id="ours"))
    await memory.copy(Key("a"), Key("b"), if_match=made.etag)
    async with aclosing(Remembering(Faulty(memory, plan), CacheOptions(attributes="full"))) as store:
        await store.list("", delimiter="/")
        move = Move(Key("a"), Key("b"), made.etag)
        with pytest.raises(AccessDenied):
            await copy_to(store, move, None, Absent())
        with pytest.raises(AccessDenied):
            await look(store, Key(secret), "ours")
        refused.clear()
        assert (await copy_to(store, move, None, Absent())).key == "b"
        assert await look(store, Key(secret), "ours") is not None
    assert "may not be read" in caplog.text
    caplog.clear()

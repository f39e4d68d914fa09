"""Removals in a row share a transaction of the index: nobody notices, whatever comes in between."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from s3mount.engine import index, linger
from s3mount.engine.engine import Engine
from s3mount.engine.index import Index
from s3mount.engine.segment import Position
from s3mount.errors import NoSpace, NotFound, OutcomeUnknown, PreconditionFailed
from s3mount.model import ETag
from tests.engine.disks import Crash, StoppingDisk, killed
from tests.engine.helpers import BUCKET, Clock, body_files, key, keys, read
from tests.engine.test_commit import FullDisk

NAMES = [f"{number:02}" for number in range(12)]
LARGE = b"large" * 8000


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends when somebody ends it: no clock decides in these tests."""
    monkeypatch.setattr(linger, "SECONDS", 3600.0)


@pytest.fixture
def filled(engine: Engine) -> Engine:
    fill(engine)
    return engine


def fill(engine: Engine) -> None:
    for name in NAMES:
        engine.put(BUCKET, key(name), LARGE + name.encode() if name < "06" else name.encode(), durable=False)


def remove(engine: Engine, *names: str) -> None:
    for name in names:
        engine.delete(BUCKET, key(name), durable=False, lingers=True)


def asked(engine: Engine, work: Callable[[], object]) -> list[str]:
    """The statements of the index's writing connection while *work* runs."""
    seen: list[str] = []
    engine.index.writer.set_trace_callback(lambda statement: seen.append(statement.split()[0]))
    try:
        work()
    finally:
        engine.index.writer.set_trace_callback(None)
    return seen


# -- what a run is ------------------------------------------------------------------------


def test_removals_in_a_row_share_one_transaction(filled: Engine) -> None:
    remove(filled, NAMES[0])
    seen = asked(filled, lambda: remove(filled, *NAMES[1:]))
    assert (seen.count("BEGIN"), seen.count("COMMIT"), seen.count("UPDATE")) == (1, 0, 0)
    assert asked(filled, lambda: keys(filled)) == ["UPDATE", "COMMIT"]
    assert keys(filled) == []


def test_a_removal_by_itself_is_committed_at_once(filled: Engine) -> None:
    assert asked(filled, lambda: remove(filled, "00"))[-1] == "COMMIT"
    assert not filled.lock.lingers


def test_a_durable_removal_ends_the_run(filled: Engine) -> None:
    remove(filled, "00", "01")
    assert filled.lock.lingers
    filled.delete(BUCKET, key("02"), durable=True, lingers=True)
    assert not filled.lock.lingers


def test_a_run_ends_after_so_many_removals(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linger, "MOST", 4)
    seen = asked(filled, lambda: remove(filled, *NAMES[:9]))
    assert (seen.count("BEGIN"), seen.count("COMMIT")) == (3, 3)


def test_a_run_that_nobody_ends_is_ended_in_time(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = threading.Event()
    remove(filled, "00")
    monkeypatch.setattr(linger, "SECONDS", 0.001)
    filled.index.writer.set_trace_callback(lambda statement: committed.set() if statement == "COMMIT" else None)
    filled.linger._until = 0.0
    monkeypatch.setattr(filled.linger, "is_over", lambda: False)
    monkeypatch.setattr(filled.linger, "may_begin", filled.linger._is_watched)
    remove(filled, "01")
    assert committed.wait(60)
    filled.index.writer.set_trace_callback(None)


def test_when_a_checkpoint_is_due_nothing_lingers(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "CHECKPOINT_BYTES", 0)
    remove(filled, "00", "01")
    assert not filled.lock.lingers


# -- who looks ----------------------------------------------------------------------------


def test_ones_own_looks_see_each_removal_at_once(filled: Engine) -> None:
    remove(filled, "00", "01")
    with pytest.raises(NotFound):
        filled.head(BUCKET, key("01"))
    remove(filled, "02")
    assert filled.find(BUCKET, "02").object is None
    remove(filled, "03")
    assert "03" not in keys(filled)
    remove(filled, "04")
    with pytest.raises(NotFound):
        filled.open_object(BUCKET, key("04"))


def test_others_who_have_the_folder_open_see_each_removal_at_once(filled: Engine) -> None:
    with Engine.open(filled.folder) as other:
        for name in NAMES:
            remove(filled, name)
            assert other.find(BUCKET, name).object is None
    remove(filled, *NAMES)


def test_who_opens_the_folder_in_the_midst_of_a_run_sees_all_of_it(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linger, "SECONDS", 0.05)
    remove(filled, *NAMES[:5])
    with Engine.open(filled.folder) as other:
        assert keys(other) == NAMES[5:]
        other.put(BUCKET, key("00"), b"theirs")
        remove(filled, *NAMES[5:])
        assert keys(filled) == keys(other) == ["00"]


def test_whoever_follows_is_told_of_no_removal_of_its_own(filled: Engine) -> None:
    follower = filled.follow(BUCKET)
    remove(filled, *NAMES)
    assert not follower.changed().keys


def test_threads_that_remove_and_look_at_once_agree(filled: Engine) -> None:
    def work(name: str) -> bool:
        remove(filled, name)
        return filled.find(BUCKET, name).object is None

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, NAMES))
    assert keys(filled) == []


# -- what comes in between ----------------------------------------------------------------


def test_a_name_removed_in_a_run_can_be_written_and_removed_again(filled: Engine) -> None:
    for content in (b"one", b"two"):
        remove(filled, "00", "01")
        filled.put(BUCKET, key("00"), content, durable=False)
        assert read(filled, "00") == content
    remove(filled, "02", "00", "00")
    assert keys(filled) == NAMES[3:]


def test_a_hard_link_keeps_the_content_whose_other_name_goes_in_a_run(filled: Engine) -> None:
    filled.link(BUCKET, key("00"), key("zz"), durable=False)
    remove(filled, "01", "00")
    assert read(filled, "zz") == LARGE + b"00"
    assert filled.head(BUCKET, key("zz")).links == 1
    remove(filled, "02", "zz")
    assert keys(filled) == NAMES[3:]


def test_content_shared_with_a_copy_stays(filled: Engine) -> None:
    filled.copy(BUCKET, key("00"), key("zz"), durable=False)
    remove(filled, "01", "00")
    assert read(filled, "zz") == LARGE + b"00"


def test_a_bucket_with_versions_keeps_what_goes_in_a_run(filled: Engine) -> None:
    filled.set_versioning(BUCKET, "enabled")
    remove(filled, *NAMES)
    page = filled.version_page(BUCKET, "")
    assert [(each.key, each.marker) for each in page.versions] == [(name, marker) for name in NAMES for marker in (True, False)]


def test_a_refused_removal_leaves_the_others_of_its_run(filled: Engine) -> None:
    remove(filled, "00", "01")
    with pytest.raises(PreconditionFailed):
        filled.delete(BUCKET, key("02"), if_match=ETag("another"), durable=False, lingers=True)
    remove(filled, "03")
    assert keys(filled) == ["02", *NAMES[4:]]


@pytest.mark.parametrize("upkeep", [Engine.compact, Engine.sync, Engine.sweep, Engine.scrub, Engine.check])
def test_upkeep_in_the_midst_of_a_run_finds_all_of_it(filled: Engine, upkeep: Callable[[Engine], object]) -> None:
    remove(filled, *NAMES[:4])
    upkeep(filled)
    remove(filled, *NAMES[4:8])
    filled.sync()
    assert filled.check() == []
    assert (keys(filled), body_files(filled)) == (NAMES[8:], [])


# -- crashes ------------------------------------------------------------------------------


def test_what_a_killed_process_removed_in_a_run_stays_removed(filled: Engine, tmp_path: Path) -> None:
    remove(filled, *NAMES[:7])
    assert filled.lock.lingers
    with Engine.open(killed(filled.folder, tmp_path / "copy")) as other:
        assert other.check() == []
        assert keys(other) == NAMES[7:]


@pytest.mark.parametrize("step", range(1, 6))
def test_a_run_that_is_stopped_at_any_step_did_what_it_acknowledged(tmp_path: Path, step: int) -> None:
    disk = StoppingDisk()
    engine = Engine.open(tmp_path / "data", disk=disk, clock_ns=Clock())
    engine.create_bucket(BUCKET)
    fill(engine)
    disk.at = disk.steps + step
    remove(engine, *NAMES[: step - 1])
    with pytest.raises(Crash):
        remove(engine, NAMES[step - 1])
    dead = killed(engine.folder, tmp_path / "copy")
    engine.close()
    with Engine.open(dead) as other:
        assert other.check() == []
        assert keys(other) == NAMES[step - 1 :]


def test_a_run_is_over_when_the_folder_is_closed(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "data") as engine:
        engine.create_bucket(BUCKET)
        fill(engine)
        remove(engine, *NAMES[:5])
        assert engine.lock.lingers
    with Engine.open(tmp_path / "data") as again:
        assert keys(again) == NAMES[5:]
        assert again.check() == []


# -- a full medium ------------------------------------------------------------------------


@pytest.fixture
def disk() -> FullDisk:
    return FullDisk()


@pytest.fixture
def on_disk(tmp_path: Path, disk: FullDisk) -> Iterator[Engine]:
    engine = Engine.open(tmp_path / "full", disk=disk, clock_ns=Clock())
    engine.create_bucket(BUCKET)
    fill(engine)
    yield engine
    assert engine.check() == []
    engine.close()


def test_a_removal_that_does_not_fit_into_the_log_leaves_the_others_of_its_run(on_disk: Engine, disk: FullDisk) -> None:
    on_disk.spare.give()
    remove(on_disk, "00", "01")
    disk.full = True
    with pytest.raises(NoSpace):
        remove(on_disk, "02")
    disk.full = False
    assert keys(on_disk) == NAMES[2:]
    remove(on_disk, "02")


def test_in_a_run_too_one_can_delete_on_a_full_disk(on_disk: Engine, disk: FullDisk) -> None:
    remove(on_disk, "00", "01")
    disk.full_while = on_disk.folder / "spare"
    remove(on_disk, "02", "03")
    assert keys(on_disk) == NAMES[4:]


def test_several_that_find_the_disk_full_at_once_all_have_room_made(
    on_disk: Engine, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: only who gave the spare room back made some; the others, who found it given, failed."""
    remove(on_disk, "00", "01")
    disk.full_while = on_disk.folder / "spare"
    both, sync_all, found_full = threading.Barrier(2), on_disk.syncing.all, threading.local()

    def all_at_once() -> None:
        try:
            sync_all()
        except NoSpace:
            if not hasattr(found_full, "once"):
                found_full.once = both.wait(10)
            raise

    monkeypatch.setattr(on_disk.syncing, "all", all_at_once)
    with ThreadPoolExecutor(2) as pool:
        for sync in [pool.submit(on_disk.sync) for _ in range(2)]:
            sync.result(20)


def test_several_removals_that_find_the_disk_full_at_once_all_have_room_made(
    on_disk: Engine, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: as with syncs, only who gave the spare room back tried again."""
    disk.full_while = on_disk.folder / "spare"
    both, tried, found_full = threading.Barrier(2), on_disk.commits._run, threading.local()

    def all_at_once(*args: Any, **options: Any) -> object:
        try:
            return tried(*args, **options)
        except NoSpace:
            if not hasattr(found_full, "once"):
                found_full.once = both.wait(10)
            raise

    monkeypatch.setattr(on_disk.commits, "_run", all_at_once)
    with ThreadPoolExecutor(2) as pool:
        for removal in [pool.submit(on_disk.delete, BUCKET, key(name), durable=False) for name in ("00", "01")]:
            removal.result(20)
    assert keys(on_disk) == NAMES[2:]


def refuse_positions(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The index cannot say the next *times* times where it stands: its medium is full."""
    left = [times]
    set_position = Index.set_position

    def refuse(db: sqlite3.Connection, at: Position) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise sqlite3.OperationalError("database or disk is full")
        set_position(db, at)

    monkeypatch.setattr(Index, "set_position", staticmethod(refuse))


def test_a_run_that_cannot_be_committed_is_made_good_before_anybody_looks(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    remove(filled, *NAMES[:5])
    refuse_positions(monkeypatch, 1)
    assert keys(filled) == NAMES[5:]
    assert filled.check() == []


def test_while_the_index_cannot_follow_nobody_is_shown_what_was_removed(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.spare.give()
    remove(filled, *NAMES[:5])
    refuse_positions(monkeypatch, 3)
    for _ in range(2):
        with pytest.raises(Exception, match="full"):
            keys(filled)
    assert keys(filled) == NAMES[5:]


def test_who_changes_something_behind_a_run_that_failed_follows_the_log_first(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    remove(filled, *NAMES[:5])
    refuse_positions(monkeypatch, 1)
    filled.put(BUCKET, key("00"), b"new", durable=False)
    assert keys(filled) == ["00", *NAMES[5:]]


def test_a_removal_that_the_index_refuses_takes_none_of_its_run_back(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    remove(filled, *NAMES[:5])

    def refuse(*_: object) -> bool:
        monkeypatch.undo()
        raise sqlite3.OperationalError("database or disk is full")

    filled.spare.give()
    monkeypatch.setattr("s3mount.engine.commit.apply", refuse)
    with pytest.raises(OutcomeUnknown):
        remove(filled, "05")
    assert keys(filled) == NAMES[6:]

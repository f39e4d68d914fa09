"""What a caller was told is so: also when a sync fails, when nothing had to be done, and when it was another process's doing."""

from __future__ import annotations

import errno
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3mount.engine import log as log_module
from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.errors import NoSpace, OutcomeUnknown, Unavailable
from s3mount.model import Content, Key, Staged
from tests.conftest import ExpectLogs
from tests.engine.disks import Crash, ShadowDisk, StoppingDisk, killed
from tests.engine.observe import BUCKET, content_of, leftovers, observe
from tests.engine.test_crash import File
from tests.engine.test_failing_medium import FailingDisk
from tests.engine.test_power_cut import spliced

LARGE = b"large" * 8000
BOOT = "before"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ShadowDisk]:
    disk = ShadowDisk(tmp_path / "data")
    yield disk
    disk.close()


def opened(folder: Path, disk: ShadowDisk | FailingDisk | StoppingDisk | None = None, boot_id: str = BOOT) -> Engine:
    return Engine.open(folder, disk=disk, boot_id=boot_id)


def after_cut(folder: Path) -> dict[str, bytes]:
    with opened(folder, boot_id="after") as engine:
        assert engine.check() == []
        return observe(engine).contents()


def test_a_durable_delete_that_could_not_be_synced_says_so(tmp_path: Path, expect_logs: ExpectLogs) -> None:
    """It is tried again with the room kept for deleting, finds nothing to do, and must not take that for done."""
    expect_logs("could not be synced")
    disk = FailingDisk(errno.EIO)
    with opened(tmp_path / "data", disk) as engine:
        engine.create_bucket(BUCKET)
        engine.put(BUCKET, Key("key"), LARGE)
        disk.named = "fsync"
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                engine.delete(BUCKET, Key("key"))


def test_a_durable_delete_of_what_is_absent_outlives_a_power_cut(tmp_path: Path, disk: ShadowDisk) -> None:
    with opened(tmp_path / "data", disk) as engine:
        engine.create_bucket(BUCKET)
        engine.put(BUCKET, Key("key"), LARGE)
        engine.delete(BUCKET, Key("key"), durable=False)
        engine.delete(BUCKET, Key("key"))
        assert after_cut(disk.cut(tmp_path / "cut")) == {}


def test_a_sync_of_one_object_covers_what_another_process_did_to_it(tmp_path: Path, disk: ShadowDisk) -> None:
    with opened(tmp_path / "data", disk) as engine, opened(tmp_path / "data", disk) as other:
        engine.create_bucket(BUCKET)
        other.put(BUCKET, Key("small"), b"small", durable=False)
        engine.sync(BUCKET, Key("small"))
        assert after_cut(disk.cut(tmp_path / "put")) == {"small": b"small"}
        other.put(BUCKET, Key("large"), LARGE, durable=False)
        engine.sync(BUCKET, Key("large"))
        other.delete(BUCKET, Key("small"), durable=False)
        engine.sync(BUCKET, Key("small"))
        assert after_cut(disk.cut(tmp_path / "deleted")) == {"large": LARGE}


def test_a_staged_file_stays_the_callers_when_the_log_refuses_its_record(tmp_path: Path) -> None:
    disk = FailingDisk(errno.ENOSPC)
    with opened(tmp_path / "data", disk) as engine:
        engine.create_bucket(BUCKET)
        source = File(engine.staging / "mine", LARGE)
        content = Content(len(LARGE), (Staged(0, len(LARGE), source, 0),))
        disk.named = "write"
        with pytest.raises(NoSpace):
            engine.adopt(BUCKET, Key("key"), content, How(), durable=False)
        disk.named = ""
        assert source.path.read_bytes() == LARGE
        assert leftovers(engine) == [f"staging/{engine.owner.id}/mine"]
        engine.adopt(BUCKET, Key("key"), content, How())
        assert content_of(engine, "key") == LARGE


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_claim_that_could_not_be_noted_is_no_claim(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as engine:
        engine.create_bucket(BUCKET)
        with no_file_grows_beyond((tmp_path / "data" / "index.db-wal").stat().st_size), pytest.raises(NoSpace):
            engine.reserve(BUCKET, Key("key"))
        engine.reserve(BUCKET, Key("key"))
        engine.put(BUCKET, Key("key"), b"committed", durable=False)
        assert engine.check() == []


def test_a_dead_body_that_cannot_be_deleted_does_not_fail_a_sync(tmp_path: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("cannot be deleted")
    disk = FailingDisk(errno.EIO)
    with opened(tmp_path / "data", disk) as engine:
        engine.create_bucket(BUCKET)
        engine.put(BUCKET, Key("key"), LARGE)
        engine.delete(BUCKET, Key("key"), durable=False)
        disk.named = "unlink"
        engine.sync()
        disk.named = ""
        engine.sync()
        assert leftovers(engine) == []


@pytest.mark.slow
def test_an_index_that_saw_a_void_record_never_comes_back(tmp_path: Path, disk: ShadowDisk, expect_logs: ExpectLogs) -> None:
    """Killed at any step of settling, the next open must not take an index for good that holds what was dropped."""
    expect_logs("After a power cut the unsynced changes", "The index cannot be used")
    with opened(tmp_path / "data", disk) as engine:
        engine.create_bucket(BUCKET)
        engine.put(BUCKET, Key("old"), LARGE)
        engine.put(BUCKET, Key("loose"), b"loose" * 8000, durable=False)
        engine.log.sync()
        cut = disk.cut(tmp_path / "cut")
        for name in ("index.db", "index.db-wal"):
            shutil.copy(tmp_path / "data" / name, cut / name)
    for at in range(1, 60):
        folder = killed(cut, tmp_path / f"{at}")
        died = False
        try:
            opened(folder, StoppingDisk(at), boot_id="after").close()
        except Crash:
            died = True
        assert after_cut(folder if not died else killed(folder, tmp_path / f"{at}-again")) == {"old": LARGE}
        if not died:
            return
    raise AssertionError("it never ended")


def test_a_failed_sync_is_not_hidden_by_a_call_that_changes_nothing(tmp_path: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("could not be synced")
    disk = FailingDisk(errno.EIO)
    with opened(tmp_path / "data", disk) as engine:
        engine.create_bucket(BUCKET)
        engine.put(BUCKET, Key("key"), LARGE, durable=False)
        disk.named = "fsync"
        with pytest.raises(Unavailable):
            engine.sync()
        disk.named = ""
        with pytest.raises(OutcomeUnknown):
            engine.delete(BUCKET, Key("absent"))


def test_a_mark_never_falls_where_another_process_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a boot after a power cut misses bodies that were deleted for good reason, and drops what was built on them."""
    monkeypatch.setattr(log_module.Log.__init__, "__kwdefaults__", {"segment_bytes": 1000})
    with opened(tmp_path / "data") as engine, opened(tmp_path / "data") as other:
        engine.create_bucket(BUCKET)
        first = engine.put(BUCKET, Key("edited"), LARGE)
        for half in (0, len(LARGE) // 2):
            base = engine.head(BUCKET, first.key)
            source = File(engine.staging / "half", b"new" * (len(LARGE) // 6) + b"n" * (len(LARGE) // 2 % 3))
            engine.adopt(BUCKET, base.key, spliced(base, half, source), How(file_id=base.file_id))
        expected = observe(engine).contents()
        engine.sync()
        for number in range(8):
            other.put(BUCKET, Key(f"other{number}"), b"o" * 500)
            expected[f"other{number}"] = b"o" * 500
        cut = killed(engine.folder, tmp_path / "cut")
    for path in cut.glob("index.*"):
        path.unlink()
    assert after_cut(cut) == expected


def test_a_callers_staged_file_that_could_not_be_synced_is_not_trusted_again(tmp_path: Path, expect_logs: ExpectLogs) -> None:
    """The kernel reports the loss once; a second sync of the same file would succeed without its bytes."""
    expect_logs("could not be synced")
    disk = FailingDisk(errno.EIO)
    with opened(tmp_path / "data", disk) as engine:
        engine.create_bucket(BUCKET)
        source = File(engine.staging / "mine", LARGE)
        content = Content(len(LARGE), (Staged(0, len(LARGE), source, 0),))
        disk.named = "fsync"
        with pytest.raises(Unavailable):
            engine.adopt(BUCKET, Key("key"), content, How())
        disk.named = ""
        with pytest.raises(Unavailable):
            engine.adopt(BUCKET, Key("key"), content, How())
        assert observe(engine).contents() == {}
        source.path.unlink()

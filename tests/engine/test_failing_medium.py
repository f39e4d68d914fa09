"""A medium that refuses one step, or all from one on: the caller is told, nothing half-done is seen, reading goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from s3mount.engine.disk import Disk
from s3mount.engine.engine import Engine
from s3mount.errors import NoSpace, OutcomeUnknown, StoreError, Unavailable
from s3mount.model import Key
from tests.conftest import ExpectLogs
from tests.engine.disks import killed
from tests.engine.observe import BUCKET, content_of, leftovers, observe
from tests.engine.test_crash import BOOT, LARGE, MAX_STEPS, OPERATIONS, OTHER, template

__all__ = ["template"]

QUICK = {"put a small object", "delete"}


class FailingDisk(Disk):
    """Refuses its step *at* (from 1; 0: none), or each step called *named*, with the error *code*."""

    def __init__(self, code: int = errno.ENOSPC) -> None:
        self.code = code
        self.at = 0
        self.named = ""
        self.steps = 0
        self.refused = ""

    def step(self, name: str) -> None:
        self.steps += 1
        if self.steps == self.at or name == self.named:
            self.refused = name
            raise OSError(self.code, os.strerror(self.code))


def opened(folder: Path, disk: Disk) -> Engine:
    return Engine.open(folder, disk=disk, boot_id=BOOT)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OPERATIONS])
def test_a_refused_step_leaves_the_operation_undone_or_its_outcome_open(
    template: Path,
    tmp_path: Path,
    expect_logs: ExpectLogs,
    name: str,
) -> None:
    expect_logs("could not be synced")
    for at in range(1, MAX_STEPS):
        disk = FailingDisk()
        folder = killed(template, tmp_path / f"{at}")
        with opened(folder, disk) as engine:
            before = observe(engine)
            disk.at, disk.steps = at, 0
            error = attempt(engine, name)
            disk.at = 0
            after = observe(engine)
            assert engine.check() == []
            if error is not None and not isinstance(error, OutcomeUnknown):
                assert isinstance(error, NoSpace)
                assert after == before
            if "fsync" not in disk.refused:
                engine.put(BUCKET, Key("afterwards"), LARGE + OTHER)
                after = observe(engine)
        with opened(folder, Disk()) as engine:
            assert observe(engine) == after
            engine.sweep(grace_seconds=0)
            assert leftovers(engine) == []
            assert engine.check() == []
        if not disk.refused:
            return
    raise AssertionError("it never ended")


def attempt(engine: Engine, name: str) -> StoreError | None:
    try:
        OPERATIONS[name](engine)
    except StoreError as error:
        return error
    return None


@pytest.mark.parametrize("step", ["fsync", "fsync_dir"])
def test_after_a_failed_sync_nothing_is_written_until_the_folder_is_opened_again(
    tmp_path: Path, expect_logs: ExpectLogs, step: str
) -> None:
    expect_logs("could not be synced")
    disk = FailingDisk(errno.EIO)
    with opened(tmp_path / "data", disk) as engine:
        engine.create_bucket(BUCKET)
        engine.put(BUCKET, Key("old"), LARGE)
        engine.put(BUCKET, Key("loose"), OTHER, durable=False)
        disk.named = step
        with pytest.raises(Unavailable, match="open it again"):
            engine.sync()
        disk.named = ""
        for _ in range(2):
            with pytest.raises(Unavailable, match="open it again"):
                engine.put(BUCKET, Key("new"), LARGE, durable=False)
            with pytest.raises(Unavailable, match="open it again"):
                engine.sync()
        assert content_of(engine, "old") == LARGE
    with opened(tmp_path / "data", Disk()) as engine:
        assert engine.check() == []
        engine.put(BUCKET, Key("new"), LARGE)
        engine.sync()


def test_a_sync_that_failed_is_not_forgotten_by_another_thread_that_waited_for_it(tmp_path: Path, expect_logs: ExpectLogs) -> None:
    """What was not synced is never reported as durable because somebody else was told already."""
    expect_logs("could not be synced")
    disk = FailingDisk(errno.EIO)
    with opened(tmp_path / "data", disk) as engine:
        engine.create_bucket(BUCKET)
        engine.put(BUCKET, Key("loose"), b"small", durable=False)
        disk.named = "fsync"
        for _ in range(3):
            with pytest.raises(Unavailable):
                engine.sync()
        disk.named = ""
        with pytest.raises(Unavailable):
            engine.sync()

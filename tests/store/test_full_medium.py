"""LocalStore on a full medium: what was removed makes room at once, with the help of the room kept for that."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.engine.disk import Disk
from s3mount.engine.engine import Engine
from s3mount.errors import NoSpace
from s3mount.model import Key, KiB
from s3mount.store.local import LocalStore
from tests.store.registry import pattern, read

LARGE = pattern(300 * KiB)


class FullDisk(Disk):
    """Once `full`, it takes nothing while the room kept for deleting is there, until a file is removed."""

    def __init__(self, folder: Path) -> None:
        self.full = False
        self._spare = folder / "spare"

    def step(self, name: str) -> None:
        if name == "unlink":
            self.full = False
        if name in ("write", "create") and self.full and self._spare.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def disk(tmp_path: Path) -> FullDisk:
    return FullDisk(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path, disk: FullDisk) -> Iterator[LocalStore]:
    with Engine.open(tmp_path / "data", disk=disk) as engine:
        engine.create_bucket("bucket")
        yield LocalStore(engine, "bucket")
        disk.full = False


@pytest.mark.parametrize("data", [b"small", LARGE])
async def test_a_commit_uses_the_room_of_what_was_just_removed(store: LocalStore, disk: FullDisk, data: bytes) -> None:
    await store.put(Key("old"), LARGE)
    await store.delete(Key("old"))
    disk.full = True
    await store.put(Key("new"), data)
    assert await read(store, Key("new")) == data
    assert not disk.full


async def test_a_commit_for_which_there_is_no_room_changes_nothing(
    store: LocalStore, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(Key("kept"), LARGE)
    disk.full = True
    monkeypatch.setattr("s3mount.engine.spare.Spare.give", lambda spare: False)
    for data in (b"small", LARGE[1:]):
        with pytest.raises(NoSpace):
            await store.put(Key("kept"), data)
    disk.full = False
    assert await read(store, Key("kept")) == LARGE

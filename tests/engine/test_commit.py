"""The write path when something fails in it, and when many write at once."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3mount.engine.codec import Buffer
from s3mount.engine.disk import Disk
from s3mount.engine.engine import Engine
from s3mount.engine.index import Index
from s3mount.engine.segment import Position
from s3mount.engine.values import How
from s3mount.errors import NoSpace, OutcomeUnknown, PreconditionFailed, Unavailable
from s3mount.model import Matches
from tests.engine.helpers import BUCKET, InFile, body_files, key, keys, read, whole

BIG = bytes(range(256)) * 100


class FullDisk(Disk):
    """Has no room for writes while `full`, or while the file `full_while` takes it, and does not rename while `stuck`."""

    full = False
    stuck = False
    full_while: Path | None = None

    def write_all(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        if self.full or (self.full_while is not None and self.full_while.exists()):
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_all(fd, buffers, offset)

    def rename(self, source: Path, target: Path) -> None:
        if self.stuck:
            raise OSError(errno.EIO, "Input/output error")
        super().rename(source, target)


@pytest.fixture
def disk() -> FullDisk:
    return FullDisk()


@pytest.fixture
def on_disk(tmp_path: Path, disk: FullDisk) -> Iterator[Engine]:
    engine = Engine.open(tmp_path / "data", disk=disk)
    engine.create_bucket(BUCKET)
    yield engine
    assert engine.check() == []
    engine.close()


@pytest.mark.parametrize("data", [b"small", BIG])
def test_a_full_disk_refuses_writes_and_nothing_has_happened(on_disk: Engine, disk: FullDisk, data: bytes) -> None:
    on_disk.put(BUCKET, key("a"), b"old")
    disk.full = True
    for durable in (True, False):
        with pytest.raises(NoSpace):
            on_disk.put(BUCKET, key("a"), data, durable=durable)
    with pytest.raises(NoSpace):
        on_disk.delete(BUCKET, key("a"))
    assert read(on_disk, "a") == b"old"
    disk.full = False
    on_disk.put(BUCKET, key("a"), data)
    assert read(on_disk, "a") == data


def test_a_record_that_cannot_be_written_leaves_no_body_behind(on_disk: Engine, disk: FullDisk) -> None:
    source = InFile(on_disk.staging, BIG)
    disk.full = True
    with pytest.raises(NoSpace):
        on_disk.adopt(BUCKET, key("a"), whole(source))
    assert body_files(on_disk) == []
    disk.full = False
    on_disk.adopt(BUCKET, key("a"), whole(source))
    source.close()
    assert read(on_disk, "a") == BIG


def test_a_body_that_cannot_be_published_is_no_commit(on_disk: Engine, disk: FullDisk) -> None:
    disk.stuck = True
    with pytest.raises(Unavailable):
        on_disk.put(BUCKET, key("a"), BIG)
    disk.stuck = False
    assert keys(on_disk) == []
    on_disk.put(BUCKET, key("a"), BIG)


def test_on_a_full_disk_one_can_still_delete(on_disk: Engine, disk: FullDisk) -> None:
    for name in ("a", "b", "c"):
        on_disk.put(BUCKET, key(name), BIG + name.encode())
    disk.full_while = on_disk.folder / "spare"
    with pytest.raises(NoSpace):
        on_disk.put(BUCKET, key("d"), b"more")
    on_disk.delete(BUCKET, key("a"))
    on_disk.delete_many(BUCKET, [key("b")])
    assert keys(on_disk) == ["c"]
    on_disk.sync()
    assert len(body_files(on_disk)) == 1
    assert disk.full_while.exists()


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next position cannot be stored: the process is where it would be after a crash between append and apply."""

    def set_position(db: sqlite3.Connection, at: Position) -> None:
        monkeypatch.undo()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Index, "set_position", staticmethod(set_position))


def test_what_is_in_the_log_but_not_in_the_index_has_happened(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_once(monkeypatch)
    with pytest.raises(OutcomeUnknown):
        engine.put(BUCKET, key("a"), b"first")
    assert keys(engine) == []
    engine.put(BUCKET, key("b"), b"second")
    assert (keys(engine), read(engine, "a")) == (["a", "b"], b"first")


def test_another_engine_applies_what_one_left_in_the_log(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.open(engine.folder) as other:
        fail_once(monkeypatch)
        with pytest.raises(OutcomeUnknown):
            engine.put(BUCKET, key("a"), BIG)
        other.put(BUCKET, key("b"), b"second")
        assert read(other, "a") == BIG
    assert keys(engine) == ["a", "b"]


def test_many_threads_lose_no_update(engine: Engine) -> None:
    engine.put(BUCKET, key("count"), b"0")

    def add_one(_: int) -> None:
        while True:
            info = engine.head(BUCKET, key("count"))
            value = int(read(engine, "count"))
            try:
                engine.put(BUCKET, key("count"), b"%d" % (value + 1), How(condition=Matches(info.etag)), durable=False)
                return
            except PreconditionFailed:
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_one, range(60)))
    assert read(engine, "count") == b"60"


def test_many_threads_on_two_engines_see_each_other(engine: Engine) -> None:
    with Engine.open(engine.folder) as other, ThreadPoolExecutor(4) as pool:
        engines = (engine, other)
        list(pool.map(lambda n: engines[n % 2].put(BUCKET, key(f"{n:02}"), b"%d" % n * 9000, durable=n % 3 == 0), range(40)))
        assert keys(engine) == keys(other) == [f"{n:02}" for n in range(40)]
        for number in range(40):
            assert read(engines[(number + 1) % 2], f"{number:02}") == b"%d" % number * 9000


def test_readers_are_not_held_up_by_a_writer(engine: Engine) -> None:
    engine.put(BUCKET, key("a"), b"1")
    with engine.lock, engine.index.write():
        assert engine.head(BUCKET, key("a")).size == 1
        assert keys(engine) == ["a"]
        reader = engine.open_object_nowait(BUCKET, key("a"))
        assert reader is not None
        reader.close()

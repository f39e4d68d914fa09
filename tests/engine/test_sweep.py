"""Sweeping takes what nobody needs, and nothing else."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from s3mount.engine import sweep
from s3mount.engine.codec import Buffer
from s3mount.engine.engine import Engine
from s3mount.errors import AlreadyExists
from s3mount.model import Key
from tests.engine.disks import Crash, StoppingDisk
from tests.engine.observe import BUCKET, body_files, leftovers, observe

LARGE = b"large" * 8000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data", boot_id="boot") as engine:
        engine.create_bucket(BUCKET)
        yield engine


def abandoned(engine: Engine, name: str = "0123456789abcdef") -> Path:
    """The staging folder of a process that was killed."""
    folder = engine.folder / "staging" / name
    folder.mkdir()
    (folder / "owner.lock").touch()
    (folder / "half written").write_bytes(LARGE)
    return folder


def orphan(engine: Engine) -> str:
    """A body that was published by a process that died before it logged it."""
    staged = engine.bodies.stage_bytes(LARGE)
    name = engine.bodies.new_name(engine.bodies.hash_file(staged))
    engine.bodies.publish(staged, name)
    return name


def test_a_dead_processs_staging_folder_goes_and_a_living_ones_stays(engine: Engine) -> None:
    (engine.staging / "mine").write_bytes(b"being written")
    with Engine.open(engine.folder, boot_id="boot") as other:
        (other.staging / "theirs").write_bytes(b"being written")
        gone = abandoned(engine)
        report = engine.sweep(grace_seconds=0)
        assert report.owners == 1
        assert report.bytes >= len(LARGE)
        assert not gone.exists()
        assert (engine.staging / "mine").exists()
        assert (other.staging / "theirs").exists()


def test_a_folder_is_gone_when_its_engine_was_closed_unless_something_is_in_it(engine: Engine) -> None:
    with Engine.open(engine.folder, boot_id="boot") as empty, Engine.open(engine.folder, boot_id="boot") as full:
        (full.staging / "left").write_bytes(b"left")
    assert not empty.staging.exists()
    assert full.staging.exists()
    engine.sweep(grace_seconds=0)
    assert not full.staging.exists()


def test_a_body_that_no_record_names_goes_after_the_grace_period(engine: Engine) -> None:
    name = orphan(engine)
    assert engine.sweep(grace_seconds=3600).bodies == 0
    assert body_files(engine.folder) == {name}
    assert engine.sweep(grace_seconds=0).bodies == 1
    assert body_files(engine.folder) == set()


def test_bodies_in_use_stay(engine: Engine) -> None:
    engine.put(BUCKET, Key("key"), LARGE)
    before = observe(engine)
    assert engine.sweep(grace_seconds=0).bodies == 0
    assert observe(engine) == before


def test_bodies_of_deleted_objects_go_with_the_next_sync(engine: Engine) -> None:
    engine.put(BUCKET, Key("key"), LARGE)
    engine.delete(BUCKET, Key("key"))
    assert len(body_files(engine.folder)) == 1
    engine.sync()
    assert body_files(engine.folder) == set()


def test_a_reader_of_many_bodies_keeps_them_all(engine: Engine) -> None:
    upload = engine.create_upload(BUCKET, Key("parts"))
    parts = [engine.put_part(BUCKET, upload, number, bytes([number]) * 20_000, durable=False) for number in range(1, 51)]
    engine.complete_upload(BUCKET, upload, parts)
    reader = engine.open_object(BUCKET, Key("parts"))
    engine.delete(BUCKET, Key("parts"))
    engine.sync()
    engine.sweep(grace_seconds=0)
    buffer = bytearray(reader.info.size)
    reader.read_into(0, memoryview(buffer))
    assert buffer == b"".join(bytes([number]) * 20_000 for number in range(1, 51))
    reader.close()
    engine.sweep(grace_seconds=0)
    assert leftovers(engine) == []


def test_a_body_whose_record_came_while_the_sweeper_looked_stays(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.put(BUCKET, Key("key"), LARGE)
    looked: set[str] = set()

    def too_early(db: sqlite3.Connection, name: str) -> bool:
        first = name not in looked
        looked.add(name)
        return not first and is_known(db, name)

    is_known = sweep._is_known
    monkeypatch.setattr(sweep, "_is_known", too_early)
    before = observe(engine)
    assert engine.sweep(grace_seconds=0).bodies == 0
    assert observe(engine) == before


def test_a_body_whose_process_died_before_the_index_knew_it_stays(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    class DiesBehindAppend(StoppingDisk):
        def write_all(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
            super().write_all(fd, buffers, offset)
            if os.readlink(f"/proc/self/fd/{fd}").endswith(".log"):
                raise Crash("behind the append")

    victim = Engine.open(engine.folder, boot_id="boot", disk=DiesBehindAppend())
    files = engine.bodies.files

    def meanwhile() -> Iterator[Path]:
        with pytest.raises(Crash):
            victim.put(BUCKET, Key("late"), LARGE)
        return files()

    monkeypatch.setattr(engine.bodies, "files", meanwhile)
    assert engine.sweep(grace_seconds=-60).bodies == 0
    assert observe(engine).contents() == {"late": LARGE}
    victim.close()


def test_leases_and_reservations_of_a_dead_process_end(engine: Engine) -> None:
    bucket = engine.require_bucket(BUCKET).id
    with engine.lock, engine.index.write() as db:
        db.execute("INSERT INTO lease (owner, reader, name) VALUES ('0123456789abcdef', 1, 'body')")
        db.execute("INSERT INTO reservation (bucket, key, owner) VALUES (?, ?, '0123456789abcdef')", (bucket, b"key"))
    engine.reserve(BUCKET, Key("mine"))
    engine.sweep(grace_seconds=0)
    with engine.index.read() as db:
        assert db.execute("SELECT count(*) FROM lease").fetchone() == (0,)
        assert db.execute("SELECT key FROM reservation").fetchall() == [(b"mine",)]
    with pytest.raises(AlreadyExists):
        engine.reserve(BUCKET, Key("mine"))


def test_files_written_aside_go(engine: Engine) -> None:
    for name in ("format.1234", "log/voids.1234", "log/7.abcd.snapshot"):
        (engine.folder / name).write_bytes(b"half")
    assert engine.sweep(grace_seconds=3600).asides == 0
    assert engine.sweep(grace_seconds=0).asides == 3
    assert leftovers(engine) == []


def test_sweeping_twice_finds_nothing(engine: Engine) -> None:
    abandoned(engine)
    orphan(engine)
    engine.sweep(grace_seconds=0)
    again = engine.sweep(grace_seconds=0)
    assert (again.owners, again.bodies, again.asides, again.bytes) == (0, 0, 0, 0)

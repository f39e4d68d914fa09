"""The data folder beside others: who may read it, what else may lie in it, several processes that come and go."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from s3mount.engine.disk import Disk
from s3mount.engine.engine import Engine
from s3mount.engine.layout import prepare
from s3mount.engine.lock import OWNER_LOCK, Owner, is_alive
from s3mount.model import Key
from tests.engine.observe import BUCKET

LARGE = b"large" * 8000


def readable_by_others(folder: Path) -> list[str]:
    return [path.name for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]


def test_nobody_else_may_read_anything(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Engine.open(tmp_path / "data") as engine:
            engine.create_bucket(BUCKET)
            engine.put(BUCKET, Key("large"), LARGE)
            engine.put(BUCKET, Key("small"), b"small")
            engine.compact()
            assert readable_by_others(engine.folder) == []
        Engine.rebuild(tmp_path / "data")
        Engine.open(tmp_path / "data").close()
        assert readable_by_others(tmp_path / "data") == []
    finally:
        os.umask(before)


def test_what_somebody_left_in_the_folder_disturbs_nobody_and_no_link_is_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "photo").write_bytes(b"photo")
    with Engine.open(tmp_path / "data") as engine:
        engine.create_bucket(BUCKET)
        (engine.folder / "bodies" / "abc").write_bytes(b"odd")
        (engine.folder / "bodies" / "away").symlink_to(precious)
        (engine.folder / "staging" / "stray").write_bytes(b"stray")
        (engine.folder / "staging" / "link").symlink_to(precious)
        (engine.folder / "staging" / "ended").mkdir()
        (engine.folder / "staging" / "ended" / "link").symlink_to(precious)
        engine.sweep(grace_seconds=0)
        assert os.listdir(engine.folder / "staging") == [engine.owner.id]
    Engine.open(tmp_path / "data").close()
    assert (precious / "photo").read_bytes() == b"photo"


def test_who_asks_whether_an_owner_lives_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / OWNER_LOCK).touch()
    answers: list[bool] = []

    def flock(fd: int, how: int) -> None:
        real(fd, how)
        monkeypatch.setattr(fcntl, "flock", real)
        answers.append(is_alive(tmp_path))

    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    assert [is_alive(tmp_path), *answers] == [False, False]


def test_an_owner_whose_folder_was_swept_in_the_moment_of_its_end_ends_well(tmp_path: Path) -> None:
    owner = Owner(tmp_path, Disk())
    (owner.folder / OWNER_LOCK).unlink()
    owner.folder.rmdir()
    owner.close()
    owner.close()


def test_a_hurry_within_a_hurry_leaves_the_outer_one_on(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "data") as engine:
        with engine.lock.in_a_hurry():
            with pytest.raises(ZeroDivisionError), engine.lock.in_a_hurry():
                raise ZeroDivisionError
            assert engine.lock.hurried
        assert not engine.lock.hurried


def test_closing_needs_no_note_of_how_the_index_looked(tmp_path: Path) -> None:
    engine = Engine.open(tmp_path / "data")
    engine.create_bucket(BUCKET)
    (tmp_path / "data" / "index.clean").mkdir()
    engine.close()
    with Engine.open(tmp_path / "data") as engine:
        assert engine.check() == []


def test_a_folder_that_another_process_makes_at_the_same_time_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Engine.open(tmp_path / "data").close()
    answers = iter([False, True, True])
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: next(answers) if path.name == "format" else real(path))
    prepare(tmp_path / "data", Disk(), create=True)


def test_a_folder_is_durable_with_all_folders_made_for_it(tmp_path: Path) -> None:
    synced: list[Path] = []

    class Noting(Disk):
        def fsync_dir(self, path: Path) -> None:
            super().fsync_dir(path)
            synced.append(path)

    Engine.open(tmp_path / "a" / "b" / "data", disk=Noting()).close()
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(synced)

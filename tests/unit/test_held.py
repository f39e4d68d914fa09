"""Small files that their process holds."""

from __future__ import annotations

import os
from pathlib import Path

from s3mount import held
from tests.conftest import ExpectLogs


def test_what_is_made_is_there_whole_and_ours(tmp_path: Path) -> None:
    ours = held.make(tmp_path / "folder", "a.note", b"one\n", synced=True)
    ours.add(b"two\n")
    assert os.listdir(tmp_path / "folder") == ["a.note"]
    assert ours.path.read_bytes() == b"one\ntwo\n"
    assert ours.path.stat().st_mode & 0o777 == 0o600
    assert held.hold(ours.path) is None
    ours.leave()


def test_what_nobody_holds_is_held_and_removed_once(tmp_path: Path) -> None:
    held.make(tmp_path, "a.note", b"one\n", synced=False).leave()
    ours = held.hold(tmp_path / "a.note")
    assert ours is not None
    ours.remove()
    assert held.hold(ours.path) is None
    other = held.make(tmp_path, "a.note", b"another's\n", synced=False)
    ours.remove()
    assert other.path.read_bytes() == b"another's\n"
    other.remove()


def test_what_cannot_be_removed_is_said(tmp_path: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("cannot be removed")
    ours = held.make(tmp_path, "a.note", b"", synced=False)
    ours.path.unlink()
    ours.path.mkdir()
    ours.remove()

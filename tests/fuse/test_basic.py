"""The first things anybody does with a mount."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest

from s3mount.fuse.mountpoint import mounted_at
from tests.fuse.conftest import NewMount
from tests.fuse.mounting import Mount

pytestmark = pytest.mark.fuse


def test_the_mount_table_names_the_source_and_the_type(mounted: Mount) -> None:
    line = mounted_at(mounted.path)
    assert line is not None
    assert (line.source, line.fstype, line.owner) == ("local://bucket", "fuse.s3mount", os.geteuid())


def test_what_was_written_is_read_back(here: Path) -> None:
    (here / "file").write_bytes(b"content")
    assert (here / "file").read_bytes() == b"content"
    assert (here / "file").stat().st_size == 7


def test_an_empty_file_is_there(here: Path) -> None:
    (here / "empty").touch()
    assert (here / "empty").read_bytes() == b""
    assert os.listdir(here) == ["empty"]


def test_a_name_that_was_missing_appears_when_it_is_made(here: Path) -> None:
    assert not (here / "name").exists()
    (here / "name").write_text("now")
    assert (here / "name").exists()
    (here / "name").unlink()
    assert not (here / "name").exists()


def test_directories_nest_and_go_when_empty(here: Path) -> None:
    (here / "a/b/c").mkdir(parents=True)
    assert [os.path.relpath(path, here) for path, _, _ in os.walk(here)] == [".", "a", "a/b", "a/b/c"]
    with pytest.raises(OSError, match="not empty"):
        (here / "a/b").rmdir()
    (here / "a/b/c").rmdir()
    (here / "a/b").rmdir()
    assert os.listdir(here / "a") == []


def test_a_listing_has_dot_and_dot_dot(here: Path) -> None:
    (here / "x").touch()
    assert subprocess.run(["ls", "-a", here], capture_output=True, text=True).stdout.split() == [".", "..", "x"]


def test_a_file_is_renamed_and_removed(here: Path) -> None:
    (here / "old").write_text("text")
    (here / "old").rename(here / "new")
    assert os.listdir(here) == ["new"]
    assert (here / "new").read_text() == "text"
    (here / "new").unlink()
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda here: os.stat(here / "missing"), errno.ENOENT),
        (lambda here: os.mkdir(here / "file"), errno.EEXIST),
        (lambda here: os.rmdir(here / "file"), errno.ENOTDIR),
        (lambda here: os.unlink(here / "folder"), errno.EISDIR),
        (lambda here: os.open(here / "folder", os.O_WRONLY), errno.EISDIR),
        (lambda here: os.stat(here / "file" / "below"), errno.ENOTDIR),
        (lambda here: os.readlink(here / "file"), errno.EINVAL),
        (lambda here: os.rename(here / "file", here / "folder"), errno.EISDIR),
        (lambda here: os.rename(here / "folder", here / "file"), errno.ENOTDIR),
    ],
)
def test_refusals_are_those_of_a_local_disk(here: Path, call: object, number: int) -> None:
    (here / "file").touch()
    (here / "folder").mkdir()
    with pytest.raises(OSError, check=lambda error: error.errno == number):
        call(here)  # type: ignore[operator]


def test_statfs_is_plausible(mounted: Mount) -> None:
    space = os.statvfs(mounted.path)
    assert space.f_namemax == 255
    assert 0 < space.f_bavail <= space.f_blocks
    assert space.f_ffree > 0


def test_times_of_a_new_file_are_now(here: Path) -> None:
    before = time.time() - 1
    (here / "file").write_text("x")
    status = (here / "file").stat()
    assert before <= status.st_mtime <= time.time() + 1
    assert before <= status.st_ctime <= time.time() + 1


def test_a_large_file_comes_back_whole(here: Path) -> None:
    data = os.urandom(1 << 20) * 20
    (here / "large").write_bytes(data)
    assert (here / "large").read_bytes() == data


def test_everything_is_there_after_a_remount(new_mount: NewMount) -> None:
    mount = new_mount()
    (mount.path / "a/b").mkdir(parents=True)
    (mount.path / "a/b/file").write_text("text")
    (mount.path / "a/empty").mkdir()
    mount.again()
    assert sorted(str(path.relative_to(mount.path)) for path in mount.path.rglob("*")) == ["a", "a/b", "a/b/file", "a/empty"]
    assert (mount.path / "a/b/file").read_text() == "text"


def test_a_read_only_mount_refuses_every_change(new_mount: NewMount) -> None:
    mount = new_mount()
    (mount.path / "file").write_text("text")
    mount.stop()
    mount.options = ("--read-only",)
    mount.start()
    assert (mount.path / "file").read_text() == "text"
    for change in (lambda: (mount.path / "file").write_text("no"), lambda: (mount.path / "d").mkdir(), (mount.path / "file").unlink):
        with pytest.raises(OSError, match="Read-only"):
            change()

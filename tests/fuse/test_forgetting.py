"""More directories than the mount cares to remember: the kernel forgets the cold ones, and nobody notices."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from s3mount.fuse import mountpoint
from s3mount.fuse.occupied import occupied
from tests.fuse.conftest import AS_ROOT, NewMount
from tests.fuse.mounting import REPOSITORY

pytestmark = pytest.mark.fuse

SMALL = REPOSITORY / "tests/fuse/small.py"
DIRECTORIES = 400


def fill(path: Path) -> None:
    for number in range(DIRECTORIES):
        (path / f"d{number:03}/sub").mkdir(parents=True, exist_ok=True)


def walk(path: Path) -> None:
    for _ in range(2):
        assert subprocess.run(["find", path, "-type", "d"], capture_output=True, check=True).stdout.count(b"/sub\n") == DIRECTORIES


def test_a_walk_over_many_directories_leaves_those_alone_that_somebody_is_in(new_mount: NewMount) -> None:
    forgetful = new_mount(program=[SMALL]).path
    fill(forgetful)
    asked = f"cd {forgetful}/d007/sub; echo there; read go; /bin/pwd -P; ls ..; touch file; ls {forgetful}/d007/sub"
    with subprocess.Popen(["sh", "-c", asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdout.readline()
        walk(forgetful)
        with open(forgetful / "d009/sub/open", "w") as file:
            walk(forgetful)
            file.write("text")
        assert (forgetful / "d009/sub/open").read_text() == "text"
        answers, _ = shell.communicate("\n")
    assert answers.split() == [f"{forgetful}/d007/sub", "sub", "file"]


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount something else in it")
def test_a_walk_over_many_directories_takes_no_mount_off_that_is_in_one(new_mount: NewMount) -> None:
    forgetful = new_mount(program=[SMALL]).path
    within = forgetful / "d007/sub"
    within.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "s3mount-test", within], check=True)
    try:
        (within / "file").touch()
        fill(forgetful)
        walk(forgetful)
        assert mountpoint.mounted_at(within) is not None
        assert os.listdir(within) == ["file"]
    finally:
        mountpoint.detach(within)


def test_who_is_in_a_mount_is_read_from_proc(tmp_path: Path) -> None:
    proc, table = tmp_path / "proc", tmp_path / "mountinfo"
    for process, cwd in (("1", "/"), ("20", "/mnt/a/b"), ("21", "/mnt"), ("22", "/mntx/c")):
        (proc / process).mkdir(parents=True)
        (proc / process / "cwd").symlink_to(cwd)
        (proc / process / "root").symlink_to("/")
    (proc / "self").mkdir()
    table.write_bytes(b"37 25 0:53 / /mnt/with\\040space rw - tmpfs tmpfs rw\n38 25 0:54 / /mnt rw - fuse.s3mount x rw\n")
    assert occupied(Path("/mnt"), shared=False, proc=proc, mountinfo=table) == frozenset({b"a/b", b"with space"})

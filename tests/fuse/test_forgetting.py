"""More than the mount cares to remember, or that nobody looks at any more: the kernel forgets it, and nobody notices."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
from pathlib import Path
from typing import IO

import pytest

from s3mount.fuse import mountpoint
from s3mount.fuse.occupied import occupied
from tests.fuse.conftest import AS_ROOT, NewMount
from tests.fuse.mounting import REPOSITORY, until
from tests.fuse.small import LIMIT

pytestmark = pytest.mark.fuse

SMALL = REPOSITORY / "tests/fuse/small.py"
SOON = REPOSITORY / "tests/fuse/soon.py"
DIRECTORIES = 400


def pages_of(file: IO[str]) -> int:
    """How many pages of *file* the kernel has."""
    size = os.fstat(file.fileno()).st_size
    there = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    address = ctypes.c_void_p(libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), ctypes.c_long(0)))
    assert libc.mincore(address, ctypes.c_size_t(size), there) == 0, os.strerror(ctypes.get_errno())
    assert libc.munmap(address, ctypes.c_size_t(size)) == 0
    return sum(one & 1 for one in there)


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


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount something else in it")
def test_a_walk_over_many_files_takes_no_mount_off_that_is_on_one(new_mount: NewMount) -> None:
    """As container runtimes put single files over others; it was gone once the table of inodes was full."""
    forgetful = new_mount(program=[SMALL]).path
    below, above = forgetful / "a-file", forgetful.parent / "above"
    below.touch()
    above.write_text("above")
    subprocess.run(["mount", "--bind", above, below], check=True)
    try:
        (forgetful / "many").mkdir()
        for number in range(4 * LIMIT):
            (forgetful / f"many/{number}").touch()
        for _ in range(2):
            subprocess.run(["ls", "-lR", forgetful], stdout=subprocess.DEVNULL, check=True)
        assert below.read_text() == "above"
    finally:
        mountpoint.detach(below)


def test_what_nobody_looks_at_any_more_is_forgotten_but_the_pages_of_what_was_read(new_mount: NewMount) -> None:
    mount = new_mount("--log-level=debug", program=[SOON])
    for number in range(100):
        (mount.path / f"{number}").write_text("text")
    mount = mount.again()
    (mount.path / "7").read_text()
    subprocess.run(["ls", "-l", mount.path], stdout=subprocess.DEVNULL, check=True)
    until(lambda: re.findall(r" (\d+) inodes are left", mount.log.read_text())[-1:] == ["2"])
    with open(mount.path / "7") as file, open(mount.path / "8") as other:
        assert pages_of(file) == 1
        assert pages_of(other) == 0


def test_who_is_in_a_mount_is_read_from_proc(tmp_path: Path) -> None:
    proc, table = tmp_path / "proc", tmp_path / "mountinfo"
    for process, cwd in (("1", "/"), ("20", "/mnt/a/b"), ("21", "/mnt"), ("22", "/mntx/c")):
        (proc / process).mkdir(parents=True)
        (proc / process / "cwd").symlink_to(cwd)
        (proc / process / "root").symlink_to("/")
    (proc / "self").mkdir()
    table.write_bytes(b"37 25 0:53 / /mnt/with\\040space rw - tmpfs tmpfs rw\n38 25 0:54 / /mnt rw - fuse.s3mount x rw\n")
    assert occupied(Path("/mnt"), shared=False, proc=proc, mountinfo=table) == frozenset({b"a/b", b"with space"})

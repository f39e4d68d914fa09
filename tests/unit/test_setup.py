"""scripts/setup.sh on machines that lack something: played with a PATH of stubs, nothing is installed.

Owns: what is asked of which package manager, and the one sentence where nobody may be asked.
Must not know: what the packages hold.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "scripts/setup.sh"
# What the script itself needs of a system.
BASICS = ("sh", "env", "cat", "cksum", "dirname", "head", "readlink", "sort", "tr")

APT_WITH_STALE_LISTS = """
echo "$1" >>"$BIN/asked"
case $1 in
    update) : >"$BIN/updated" ;;
    install) [ -e "$BIN/updated" ] && cp "$BIN/id" "$BIN/fusermount3" ;;
esac
"""

pytestmark = pytest.mark.skipif(
    not Path("/usr/include/stdlib.h").exists(), reason="the C library's headers are missing here, which no PATH can change"
)


class Machine:
    """A PATH in which only what a test puts there can be found."""

    def __init__(self, folder: Path, *, user: int) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in BASICS:
            (self.bin / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        (self.bin / "python3").symlink_to(sys.executable)
        self.stub("id", f"echo {user}")

    def stub(self, name: str, script: str = "exit 0") -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def setup(self) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "BIN": str(self.bin), "HOME": str(self.bin)}
        return subprocess.run(
            [str(self.bin / "sh"), str(SETUP), "packages"], env=environment, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.mark.slow
def test_with_everything_there_nobody_is_asked(tmp_path: Path) -> None:
    machine = Machine(tmp_path, user=1000)
    for name in ("fusermount3", "pkg-config", "cc"):
        machine.stub(name)
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == os.path.realpath(sys.executable)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt-get", "apt-get install fuse3 libfuse3-dev pkg-config"),
        ("dnf", "dnf install fuse3 fuse3-devel pkgconf-pkg-config"),
        ("apk", "apk add fuse3 fuse3-dev pkgconf"),
        ("pacman", "pacman -S fuse3 pkgconf"),
    ],
)
def test_an_ordinary_user_is_told_in_one_sentence_what_root_must_install(tmp_path: Path, manager: str, command: str) -> None:
    machine = Machine(tmp_path, user=1000)
    machine.stub("cc")
    machine.stub(manager, "echo must not be called >&2; exit 9")
    done = machine.setup()
    assert done.returncode == 1
    assert done.stderr == f"setup: some system packages are missing; as root run '{command}', then try again.\n"


@pytest.mark.slow
def test_root_installs_what_is_missing_through_apt(tmp_path: Path) -> None:
    machine = Machine(tmp_path, user=0)
    machine.stub("pkg-config")
    machine.stub("apt-get", 'echo "$@" >>"$BIN/asked"; for name in fusermount3 cc; do ln -s "$BIN/id" "$BIN/$name"; done')
    (machine.bin / "ln").symlink_to(shutil.which("ln") or "/bin/ln")
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert (machine.bin / "asked").read_text() == "install -y -q --no-install-recommends fuse3 gcc libc6-dev\n"


@pytest.mark.slow
def test_a_sudo_that_asks_for_no_password_will_do_and_lists_are_fetched_when_they_are_stale(tmp_path: Path) -> None:
    machine = Machine(tmp_path, user=1000)
    machine.stub("pkg-config")
    machine.stub("cc")
    machine.stub("sudo", 'shift; "$@"')
    machine.stub("true")
    machine.stub("apt-get", APT_WITH_STALE_LISTS)
    (machine.bin / "cp").symlink_to(shutil.which("cp") or "/bin/cp")
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert (machine.bin / "asked").read_text().split() == ["install", "update", "install"]


def test_an_old_python_is_said_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path, user=0)
    (machine.bin / "python3").unlink()
    machine.stub("python3", "exit 1")
    done = machine.setup()
    assert done.returncode == 1
    assert done.stderr.startswith("setup: s3mount needs Python 3.11 or newer")
    assert len(done.stderr.splitlines()) == 1

"""`make install` puts a whole installation in place, and `make uninstall` takes all of it away.

Owns: what lies where afterwards, with PREFIX, DESTDIR and HELPERDIR; the systemd unit; uninstalling.
Must not know: what a mount does (test_mount8.py mounts with the installed helpers).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.install.conftest import INSTALL_SECONDS, Installation, make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_SECONDS + 60)]

HELPERS = {"mount.s3mount", "umount.s3mount", "mount.fuse.s3mount", "umount.fuse.s3mount"}


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_everything_lies_where_it_belongs(installation: Installation) -> None:
    prefix = installation.prefix
    assert os.readlink(prefix / "bin/s3mount") == f"{prefix}/lib/s3mount/bin/s3mount"
    assert {path.name for path in (prefix / "sbin").iterdir()} == HELPERS
    assert {path.name for path in installation.helpers.iterdir()} == HELPERS
    assert all(os.access(path, os.X_OK) for path in (prefix / "sbin").iterdir())


def test_no_file_names_the_folder_it_was_staged_in(installation: Installation) -> None:
    scripts = [path for path in (installation.prefix / "lib/s3mount/bin").iterdir() if path.is_file() and not path.is_symlink()]
    assert scripts
    for path in [*scripts, installation.prefix / "lib/s3mount/pyvenv.cfg", installation.unit]:
        assert str(installation.staged_in) not in path.read_text(), path
        assert "s3mount.new" not in path.read_text(), path


def test_the_installed_program_runs_from_anywhere_and_without_the_clone(installation: Installation, tmp_path: Path) -> None:
    said = installation.run("s3mount", "--version", folder=tmp_path)
    assert "0.1" in said
    installation.run("s3mount", "mb", "local://here", "--data", str(tmp_path / "data"), folder=tmp_path)
    assert "here" in installation.run("s3mount", "ls", "local://", "--data", str(tmp_path / "data"), folder=tmp_path)


def test_systemd_accepts_the_unit(installation: Installation) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    units = [str(installation.unit), str(installation.unit.with_name("s3mount-serve.service"))]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in done.stderr.splitlines() if "s3mount" in line]
    assert done.returncode == 0, done.stderr
    assert not complaints
    assert f"ExecStart={installation.prefix}/bin/s3mount mount -f" in installation.unit.read_text()


def test_uninstalling_leaves_nothing_behind_but_what_was_there(installation: Installation, tmp_path: Path) -> None:
    """A copy of the installation, which says of itself that it was made where it now lies."""
    prefix, helpers = tmp_path / "usr", tmp_path / "helpers"
    shutil.copytree(installation.prefix, prefix, symlinks=True)
    shutil.copytree(installation.helpers, helpers, symlinks=True)
    listed = (prefix / "lib/s3mount/installed").read_text().replace(str(installation.staged_in), "")
    moved = listed.replace(str(installation.prefix), str(prefix)).replace(str(installation.helpers), str(helpers))
    (prefix / "lib/s3mount/installed").write_text(moved)
    (prefix / "bin/other").write_text("somebody else's")
    make("uninstall", prefix=prefix, helpers=helpers)
    assert files_of(tmp_path) == {"usr", "usr/bin", "usr/bin/other"}


def test_what_is_not_ours_is_neither_overwritten_nor_removed(tmp_path: Path) -> None:
    prefix = tmp_path / "usr"
    (prefix / "lib/s3mount").mkdir(parents=True)
    for target in ("install", "uninstall"):
        with pytest.raises(subprocess.CalledProcessError):
            make(target, prefix=prefix, helpers=prefix / "sbin")
    assert files_of(prefix) == {"lib", "lib/s3mount"}

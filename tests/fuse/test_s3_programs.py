"""Programs that people use every day, on mounts of s3:// over three servers; after each a new mount that finds the same.

The servers are ours, moto and rclone's.
"""

from __future__ import annotations

import os
import random
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.model import MiB
from tests.fuse.mounting import Mount
from tests.fuse.programs import assert_edited, assert_same, build, build_again, edit_with_vim, fill_database, needs, rows_in, run
from tests.fuse.remote import bucket_name, remote_mount
from tests.s3.services import SERVICES, Service

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture(scope="module", params=("ours", "moto", "rclone"))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    with SERVICES[request.param](tmp_path_factory.mktemp("served")) as service:
        yield request.param, service


@pytest.fixture
def mount(served: tuple[str, Service], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A bucket of its own, mounted with the caches that one gets by default."""
    _, service = served
    unconditional = () if service.conditions else ("--last-writer-wins",)
    with remote_mount(tmp_path / "mounted", service.url, bucket_name(request), *unconditional) as mount:
        yield mount


def test_cp_keeps_a_tree(mount: Mount, tree: Path, tmp_path: Path) -> None:
    run("cp", "-a", tree, mount.path, cwd=mount.path)
    assert_same(tree, mount.path / "tree")
    mount.again()
    assert_same(tree, mount.path / "tree")
    assert (mount.path / "tree/private").stat().st_mtime_ns == 987_654_321_012_345_678
    run("cp", "-a", mount.path / "tree", tmp_path / "out", cwd=tmp_path)
    assert_same(tree, tmp_path / "out")
    run("rm", "-r", mount.path / "tree", cwd=tmp_path)
    assert os.listdir(mount.path) == []


def test_tar_packs_and_unpacks(mount: Mount, tree: Path) -> None:
    run("tar", "--format=posix", "-cf", mount.path / "a.tar", "-C", tree.parent, "tree", cwd=mount.path)
    run("tar", "xpf", "a.tar", cwd=mount.path)
    mount.again()
    run("tar", "df", "a.tar", cwd=mount.path)
    assert_same(tree, mount.path / "tree")


@needs("rsync")
def test_rsync_finds_nothing_to_do_the_second_time(mount: Mount, tree: Path) -> None:
    run("rsync", "-a", f"{tree}/", mount.path / "copy", cwd=mount.path)
    assert run("rsync", "-ai", f"{tree}/", mount.path / "copy", cwd=mount.path) == ""
    mount.again()
    assert run("rsync", "-ai", f"{tree}/", mount.path / "copy", cwd=mount.path) == ""
    assert_same(tree, mount.path / "copy")


@needs("rsync")
def test_rsync_edits_in_place(mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source, copy = tmp_path / "source/file", mount.path / "copy/file"
    source.write_bytes(random.Random(1).randbytes(12 * MiB))
    run("rsync", "-a", f"{tmp_path}/source/", "copy/", cwd=mount.path)
    with source.open("r+b") as file:
        file.seek(7 * MiB - 3)
        file.write(b"edited")
        file.truncate(11 * MiB)
    run("rsync", "-a", "--inplace", "--no-whole-file", f"{tmp_path}/source/", "copy/", cwd=mount.path)
    mount.again()
    run("cmp", source, copy, cwd=mount.path)


@needs("git")
def test_git_clones_commits_and_packs(mount: Mount, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    run("git", "init", "-q", "-b", "main", cwd=origin)
    for number in range(20):
        (origin / f"file{number}").write_text(f"{number}\n" * 100)
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    run("git", "add", "-A", cwd=origin)
    run("git", *who, "commit", "-qm", "one", cwd=origin)
    run("git", "clone", "-q", origin, "clone", cwd=mount.path)
    clone = mount.path / "clone"
    (clone / "file3").write_text("changed\n")
    run("git", "mv", "file4", "moved", cwd=clone)
    run("git", *who, "commit", "-qam", "two", cwd=clone)
    run("git", "gc", "-q", cwd=clone)
    mount.again()
    assert run("git", "status", "--porcelain", cwd=clone) == ""
    run("git", "fsck", "--strict", cwd=clone)
    assert run("git", "log", "--format=%s", cwd=clone).split() == ["two", "one"]
    run("git", "checkout", "-q", "HEAD~", cwd=clone)
    assert (clone / "file4").read_text() == "4\n" * 100


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite_keeps_what_it_committed(mount: Mount, journal: str) -> None:
    rows = fill_database(mount.path / "base.db", journal)
    mount.again()
    assert rows_in(mount.path / "base.db") == rows


@needs("vim")
@pytest.mark.parametrize("backup", ["yes", "no", "auto"])
def test_vim_saves(mount: Mount, backup: str) -> None:
    edit_with_vim(mount.path, "backup", "backupskip=", f"backupcopy={backup}")
    mount.again()
    assert sorted(os.listdir(mount.path)) == ["file", "file~"]
    assert_edited(mount.path)
    assert (mount.path / "file~").read_text() == "one\n"


def test_nano_saves(mount: Mount) -> None:
    """nano copies the old file to a backup, times and all, then writes over the file in place; then another program replaces it whole."""
    file = mount.path / "file"
    file.write_text("old and long\n")
    with open(file, "rb") as old, open(mount.path / "file~", "wb") as backup:
        backup.write(old.read())
        backup.flush()
        os.utime(backup.fileno(), ns=(10**18, 10**18))
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as edited:
        edited.write("new\n")
        edited.flush()
        os.fsync(edited.fileno())
    mount.again()
    assert (file.read_text(), (mount.path / "file~").read_text()) == ("new\n", "old and long\n")
    assert (mount.path / "file~").stat().st_mtime_ns == 10**18
    with open(mount.path / ".file.tmp", "w") as replacement:
        replacement.write("replaced\n")
    os.replace(mount.path / ".file.tmp", file)
    mount.again()
    assert sorted(os.listdir(mount.path)) == ["file", "file~"]
    assert file.read_text() == "replaced\n"


def make_wheel(folder: Path) -> Path:
    """A package with a module, data and a script, as pip installs it."""
    wheel = folder / "sample-1.0-py3-none-any.whl"
    files = {f"sample/part{number}.py": f"VALUE = {number}\n" for number in range(30)}
    files |= {"sample/__init__.py": "def main():\n    print('it works')\n", "sample/data.bin": "x" * 300_000}
    info = {
        "METADATA": "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": "[console_scripts]\nsample = sample:main\n",
    }
    files |= {f"sample-1.0.dist-info/{name}": text for name, text in info.items()}
    files["sample-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in [*files, "sample-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def test_pip_installs_into_an_environment_in_the_mount(mount: Mount, tmp_path: Path) -> None:
    environment = mount.path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=mount.path)
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin/python", "--disable-pip-version-check", "--no-cache-dir")
    run(*pip, "install", "-q", "--no-index", "--no-deps", make_wheel(tmp_path), cwd=mount.path)
    assert run(environment / "bin/sample", cwd=tmp_path) == "it works\n"
    mount.again()
    assert run(environment / "bin/sample", cwd=tmp_path) == "it works\n"
    assert "sample @ " in run(*pip, "freeze", cwd=mount.path)
    run(*pip, "uninstall", "-q", "-y", "sample", cwd=mount.path)
    assert [path for path in environment.rglob("*sample*") if path.name != "__pycache__"] == []


@needs("make", "cc", "ar")
def test_a_program_is_built_and_run(mount: Mount) -> None:
    build(mount.path)
    mount.again()
    build_again(mount.path)


def test_shells_redirect_and_edit(mount: Mount) -> None:
    script = "echo a > f; echo b >> f; cat f f > g; sort -r < g > h; : > empty; sed -i s/b/c/ h; dd if=/dev/zero of=f bs=1 seek=9 count=1"
    run("sh", "-c", script, cwd=mount.path)
    mount.again()
    found = {path.name: path.read_text() for path in mount.path.iterdir()}
    assert found == {"f": "a\nb\n" + "\0" * 6, "g": "a\nb\na\nb\n", "h": "c\nc\na\na\n", "empty": ""}

"""Programs that people use every day, on a mount as on a disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.fuse.conftest import NewMount
from tests.fuse.programs import assert_edited, assert_same, build, build_again, edit_with_vim, fill_database, make_tree, needs, rows_in, run

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree with everything in it that archivers keep."""
    top = make_tree(tmp_path_factory.mktemp("tree") / "tree")
    (top / "hard").hardlink_to(top / "script")
    return top


def test_cp_keeps_everything(here: Path, tree: Path, tmp_path: Path) -> None:
    run("cp", "-a", tree, here / "in", cwd=here)
    assert_same(tree, here / "in")
    run("cp", "-a", here / "in", tmp_path / "out", cwd=here)
    assert_same(tree, tmp_path / "out")
    assert (here / "in/private").stat().st_mtime_ns == 987_654_321_012_345_678


def test_tar_unpacks_and_packs(here: Path, tree: Path, tmp_path: Path) -> None:
    run("tar", "--format=posix", "-cf", tmp_path / "in.tar", "-C", tree, ".", cwd=here)
    (here / "x").mkdir()
    run("tar", "xpf", tmp_path / "in.tar", "-C", here / "x", cwd=here)
    assert_same(tree, here / "x")
    run("tar", "--format=posix", "-cf", here / "out.tar", "-C", here / "x", ".", cwd=here)
    run("tar", "df", here / "out.tar", "-C", tree, cwd=here)


@needs("rsync")
def test_a_second_rsync_has_nothing_to_do(here: Path, tree: Path) -> None:
    run("rsync", "-aH", f"{tree}/", "copy/", cwd=here)
    assert_same(tree, here / "copy")
    assert run("rsync", "-aHi", f"{tree}/", "copy/", cwd=here) == ""


@needs("rsync")
def test_rsync_replaces_what_changed(here: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(b"a" * 100_000)
    run("rsync", "-a", f"{tmp_path}/source/", "copy/", cwd=here)
    (tmp_path / "source/file").write_bytes(b"a" * 50_000 + b"b" + b"a" * 50_000)
    run("rsync", "-a", "--inplace", "--no-whole-file", f"{tmp_path}/source/", "copy/", cwd=here)
    assert (here / "copy/file").read_bytes() == (tmp_path / "source/file").read_bytes()


CHANGED = "content/sub1 ü+%/file 1"


@needs("git")
def test_git_works_in_a_mount(here: Path, tree: Path, tmp_path: Path) -> None:
    run("git", "init", "-q", "repo", cwd=here)
    repo = here / "repo"
    shutil.copytree(tree / "folder 1", repo / "content")
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    run("git", "add", ".", cwd=repo)
    run("git", *identity, "commit", "-qm", "one", cwd=repo)
    assert run("git", "status", "--porcelain", cwd=repo) == ""
    (repo / CHANGED).write_text("changed")
    run("git", *identity, "commit", "-qam", "two", cwd=repo)
    run("git", "gc", "-q", cwd=repo)
    run("git", "clone", "-q", repo, tmp_path / "clone", cwd=here)
    run("git", "clone", "-q", tmp_path / "clone", here / "back", cwd=here)
    run("git", "fsck", "--strict", cwd=here / "back")
    assert (here / "back" / CHANGED).read_text() == "changed"
    run("git", "checkout", "-q", "HEAD~", cwd=repo)
    assert run("git", "log", "--format=%s", "--all", cwd=repo).split() == ["two", "one"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_keeps_its_data_in_both_journal_modes(new_mount: NewMount, mode: str) -> None:
    mount = new_mount()
    rows = fill_database(mount.path / "data.db", mode)
    mount.again()
    assert rows_in(mount.path / "data.db") == rows


def test_sqlite_rolls_back_after_the_mount_was_killed(new_mount: NewMount) -> None:
    mount = new_mount()
    base = sqlite3.connect(mount.path / "data.db", isolation_level=None)
    base.execute("CREATE TABLE t (n)")
    base.execute("INSERT INTO t VALUES (1)")
    base.execute("BEGIN")
    base.execute("INSERT INTO t VALUES (2)")
    mount.kill()
    try:
        base.close()
    except sqlite3.Error:
        pass
    mount.start()
    base = sqlite3.connect(mount.path / "data.db")
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert base.execute("SELECT n FROM t").fetchall() == [(1,)]
    base.close()


def test_sed_edits_in_place(here: Path) -> None:
    (here / "file").write_text("one\ntwo\n")
    run("sed", "-i", "s/two/three/", "file", cwd=here)
    assert (here / "file").read_text() == "one\nthree\n"
    assert os.listdir(here) == ["file"]


@needs("vim")
@pytest.mark.parametrize("backup", ["yes", "no", "auto"])
def test_vim_saves(here: Path, backup: str) -> None:
    edit_with_vim(here, f"backupcopy={backup}")
    assert_edited(here)


def test_a_save_by_temporary_file_and_rename(here: Path) -> None:
    (here / "file").write_text("old")
    with open(here / ".file.tmp", "w") as file:
        file.write("new")
        file.flush()
        os.fsync(file.fileno())
    os.replace(here / ".file.tmp", here / "file")
    assert os.listdir(here) == ["file"]
    assert (here / "file").read_text() == "new"


def test_a_save_by_truncating(here: Path) -> None:
    (here / "file").write_text("old and long\n")
    with open(here / "file", "w") as file:
        file.write("new\n")
    assert (here / "file").read_text() == "new\n"


@needs("make", "cc", "ar")
def test_a_program_is_built_and_run(here: Path) -> None:
    build(here)
    build_again(here)


def test_shell_redirections(here: Path) -> None:
    script = "echo a > f; echo b >> f; cat f f > g; sort -r < g > h; : > empty; cat h; wc -c < empty"
    assert run("sh", "-c", script, cwd=here) == "b\nb\na\na\n0\n"


def test_dd_writes_and_reads_at_offsets(here: Path) -> None:
    run("dd", "if=/dev/zero", "of=file", "bs=64k", "count=10", cwd=here)
    run("sh", "-c", "printf edited | dd of=file bs=1 seek=100000 conv=notrunc", cwd=here)
    assert run("dd", "if=file", "bs=1", "skip=100000", "count=6", cwd=here) == "edited"
    assert (here / "file").stat().st_size == 655_360


def test_python_imports_from_a_mount_and_leaves_its_bytecode(here: Path) -> None:
    (here / "package").mkdir()
    (here / "package/__init__.py").write_text("VALUE = 42\n")
    assert run("python3", "-c", "import package; print(package.VALUE)", cwd=here) == "42\n"
    assert (here / "package/__pycache__").is_dir()
    shutil.rmtree(here / "package")
    assert os.listdir(here) == []

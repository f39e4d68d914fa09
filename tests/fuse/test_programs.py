"""Programs that people use every day, on a mount as on a disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fuse.conftest import NewMount
from tests.fuse.mounting import environment

pytestmark = pytest.mark.fuse


# No settings of this machine; no maintenance in the background, which newer versions begin after a commit and which keeps the mount busy.
GIT_ALONE = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "maintenance.auto",
    "GIT_CONFIG_VALUE_0": "false",
}


def run(*command: str | Path, cwd: Path) -> str:
    """What *command* printed; it must succeed."""
    quiet = environment(HOME=str(cwd), PYTHONDONTWRITEBYTECODE="", **GIT_ALONE)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, env=quiet)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree with everything in it that archivers keep."""
    top = tmp_path_factory.mktemp("tree") / "tree"
    for n in range(60):
        folder = top / f"folder {n % 6}" / f"sub{n % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {n}").write_bytes(os.urandom(n * 700))
        os.utime(folder / f"file {n}", ns=(n * 10**9 + 1, n * 10**9 + 123_456_789))
    (top / "link").symlink_to("folder 1/sub1")
    (top / "hard").hardlink_to(top / "folder 0/sub0/file 0")
    (top / "script").write_text("#!/bin/sh\n")
    (top / "script").chmod(0o755)
    (top / "private").mkdir(mode=0o700)
    (top / "private/empty").touch(mode=0o600)
    os.mkfifo(top / "fifo")
    for name in ("fifo", "link"):  # rsync takes two times of one second for the same
        os.utime(top / name, ns=(1, 987_654_321_012_345_678), follow_symlinks=False)
    os.utime(top / "private", ns=(1, 987_654_321_012_345_678))
    return top


def listing(top: Path) -> Sequence[str]:
    return run("find", ".", "-printf", "%P %y %m %s %n %l %T@\\n", cwd=top).splitlines()


def assert_same(one: Path, other: Path) -> None:
    """Names, types, modes, sizes, link counts, targets and times; then every byte."""
    lines = [sorted(line for line in listing(top) if " d " not in line) for top in (one, other)]
    assert lines[0] == lines[1]
    run("diff", "-r", "--no-dereference", one / "private", other / "private", cwd=one)
    for n in range(6):
        run("diff", "-r", one / f"folder {n}", other / f"folder {n}", cwd=one)


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


@needs("git")
def test_git_works_in_a_mount(here: Path, tree: Path, tmp_path: Path) -> None:
    run("git", "init", "-q", "repo", cwd=here)
    repo = here / "repo"
    shutil.copytree(tree / "folder 1", repo / "content")
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    run("git", "add", ".", cwd=repo)
    run("git", *identity, "commit", "-qm", "one", cwd=repo)
    assert run("git", "status", "--porcelain", cwd=repo) == ""
    (repo / "content/sub1/file 1").write_text("changed")
    run("git", *identity, "commit", "-qam", "two", cwd=repo)
    run("git", "gc", "-q", cwd=repo)
    run("git", "clone", "-q", repo, tmp_path / "clone", cwd=here)
    run("git", "clone", "-q", tmp_path / "clone", here / "back", cwd=here)
    run("git", "fsck", "--strict", cwd=here / "back")
    assert (here / "back/content/sub1/file 1").read_text() == "changed"
    run("git", "checkout", "-q", "HEAD~", cwd=repo)
    assert run("git", "log", "--format=%s", "--all", cwd=repo).split() == ["two", "one"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_keeps_its_data_in_both_journal_modes(new_mount: NewMount, mode: str) -> None:
    mount = new_mount()
    file = mount.path / "data.db"
    with sqlite3.connect(file) as base:
        assert base.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
        base.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
        for n in range(20):
            with base:
                base.executemany("INSERT INTO t(text) VALUES (?)", [(f"row {n} {m}" * 20,) for m in range(50)])
        base.execute("DELETE FROM t WHERE n % 3 = 0")
        base.commit()
        base.execute("VACUUM")
    base.close()
    mount.again()
    base = sqlite3.connect(file)
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert base.execute("SELECT count(*) FROM t").fetchone() == (667,)
    base.close()


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
    (here / "file").write_text("one\n")
    (here / "file").chmod(0o640)
    run("vim", "-u", "NONE", "-es", "-c", f"set backup backupcopy={backup}", "-c", "normal otwo", "-c", "wq", "file", cwd=here)
    assert (here / "file").read_text() == "one\ntwo\n"
    assert (here / "file").stat().st_mode & 0o777 == 0o640


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


@needs("make", "cc")
def test_a_program_is_built_and_run(here: Path) -> None:
    for n in range(4):
        (here / f"part{n}.c").write_text(f'#include "all.h"\nint part{n}(void) {{ return {n}; }}\n')
    (here / "all.h").write_text("\n".join(f"int part{n}(void);" for n in range(4)) + "\n")
    (here / "main.c").write_text(
        '#include <stdio.h>\n#include "all.h"\nint main(void) { printf("%d\\n", part0() + part1() + part2() + part3()); return 0; }\n'
    )
    objects = " ".join(["main.o", *(f"part{n}.o" for n in range(4))])
    (here / "Makefile").write_text(f"prog: {objects}\n\tcc -o $@ $^\nlib.a: {objects}\n\tar rcs $@ $^\n%.o: %.c all.h\n\tcc -c -o $@ $<\n")
    run("make", "-j3", "prog", "lib.a", cwd=here)
    assert run(here / "prog", cwd=here) == "6\n"
    assert "up to date" in run("make", "prog", cwd=here)
    (here / "part2.c").write_text('#include "all.h"\nint part2(void) { return 40; }\n')
    run("make", "prog", cwd=here)
    assert run(here / "prog", cwd=here) == "44\n"


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

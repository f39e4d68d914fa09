"""What people's programs do in a mount, whatever lies behind it: a tree to copy, a database, an editor, a build.

Owns: running a program with nothing of this machine's settings; the material, and the look at what became of it.
Must not know: which store is mounted, nor when it is mounted anew.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from s3mount.model import MiB
from tests.fuse.mounting import environment

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
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, env=quiet)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


# -- a tree ---------------------------------------------------------------------------------

FOLDERS = 6


def make_tree(top: Path) -> Path:
    """Everything that S3 can keep of a tree, and so no hard links; `large` needs more than one part of an upload."""
    for n in range(8 * FOLDERS):
        folder = top / f"folder {n % FOLDERS}" / f"sub{n % 3} ü+%"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {n}").write_bytes(random.Random(n).randbytes(n * 700))
        os.utime(folder / f"file {n}", ns=(n * 10**9 + 1, n * 10**9 + 123_456_789))
    (top / "large").write_bytes(random.Random("large").randbytes(18 * MiB + 5))
    (top / "link").symlink_to("folder 1")
    (top / "script").write_text("#!/bin/sh\n")
    (top / "script").chmod(0o755)
    (top / "private").mkdir(mode=0o700)
    (top / "private/empty").touch(mode=0o600)
    os.mkfifo(top / "fifo")
    for name in ("fifo", "link", "private"):  # rsync takes two times of one second for the same
        os.utime(top / name, ns=(1, 987_654_321_012_345_678), follow_symlinks=False)
    return top


def listing(top: Path) -> Sequence[str]:
    return run("find", ".", "-printf", "%P %y %m %s %n %l %T@\\n", cwd=top).splitlines()


def assert_same(one: Path, other: Path) -> None:
    """Names, types, modes, sizes, link counts, targets and times; then every byte."""
    lines = [sorted(line for line in listing(top) if " d " not in line) for top in (one, other)]
    assert lines[0] == lines[1]
    for path in one.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.read_bytes() == (other / path.relative_to(one)).read_bytes(), path
    assert os.readlink(one / "link") == os.readlink(other / "link")


# -- a database -----------------------------------------------------------------------------

BATCHES, BATCH = 10, 50


def fill_database(file: Path, journal: str) -> int:
    """In a journal mode of SQLite; how many rows are left in it."""
    base = sqlite3.connect(file)
    assert base.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
    base.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
    for n in range(BATCHES):
        with base:
            base.executemany("INSERT INTO t(text) VALUES (?)", [(f"row {n} {m}" * 20,) for m in range(BATCH)])
    with base:
        base.execute("DELETE FROM t WHERE n % 3 = 0")
    base.execute("VACUUM")
    base.close()
    return BATCHES * BATCH - BATCHES * BATCH // 3


def rows_in(file: Path) -> int:
    """Of a database that is in order."""
    base = sqlite3.connect(file)
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (count,) = base.execute("SELECT count(*) FROM t").fetchone()
    base.close()
    return int(count)


# -- an editor ------------------------------------------------------------------------------


def edit_with_vim(folder: Path, *settings: str) -> None:
    """`file` gets a second line, and keeps a mode that is not the usual one."""
    (folder / "file").write_text("one\n")
    (folder / "file").chmod(0o640)
    run("vim", "-u", "NONE", "-es", "-c", f"set {' '.join(settings)}", "-c", "normal otwo", "-c", "wq", "file", cwd=folder)


def assert_edited(folder: Path) -> None:
    assert (folder / "file").read_text() == "one\ntwo\n"
    assert (folder / "file").stat().st_mode & 0o777 == 0o640


# -- a build --------------------------------------------------------------------------------

OBJECTS = ["main.o", *(f"part{n}.o" for n in range(4))]


def build(here: Path) -> None:
    """A program and a library of its objects."""
    for n in range(4):
        (here / f"part{n}.c").write_text(f'#include "all.h"\nint part{n}(void) {{ return {n}; }}\n')
    (here / "all.h").write_text("\n".join(f"int part{n}(void);" for n in range(4)) + "\n")
    (here / "main.c").write_text(
        '#include <stdio.h>\n#include "all.h"\nint main(void) { printf("%d\\n", part0() + part1() + part2() + part3()); return 0; }\n'
    )
    objects = " ".join(OBJECTS)
    (here / "Makefile").write_text(f"prog: {objects}\n\tcc -o $@ $^\nlib.a: {objects}\n\tar rcs $@ $^\n%.o: %.c all.h\n\tcc -c -o $@ $<\n")
    run("make", "-j3", "prog", "lib.a", cwd=here)
    assert run(here / "prog", cwd=here) == "6\n"


def build_again(here: Path) -> None:
    """There is nothing to do, until a source changes."""
    assert "up to date" in run("make", "prog", cwd=here)
    (here / "part2.c").write_text('#include "all.h"\nint part2(void) { return 40; }\n')
    run("make", "prog", cwd=here)
    assert run(here / "prog", cwd=here) == "44\n"
    assert run("ar", "t", "lib.a", cwd=here).split() == OBJECTS

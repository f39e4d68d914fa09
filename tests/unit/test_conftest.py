"""The rules that tests/conftest.py lays on every test, tried on a small test file of its own.

Owns: proof that a warning nobody announced fails a test, that nobody overlooks that nothing could be mounted, that nothing hangs for good.
Must not know: any part of s3mount.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import leftovers

ROOT = Path(__file__).parents[2]
CONFTEST = ROOT / "tests/conftest.py"
TESTS = """
import logging

def burn():
    logging.getLogger("s3mount").warning("the disk is on fire")

def test_silent():
    burn()

def test_looks_itself(caplog):
    burn()

def test_announced(expect_logs):
    expect_logs("on f.re")
    burn()

def test_announced_another(expect_logs):
    expect_logs("flood")
    burn()

def test_calm():
    logging.getLogger("s3mount").info("the disk is warm")
"""


MOUNTING = """
import pytest

@pytest.mark.fuse
def test_mounts():
    pass

@pytest.mark.fuse
def test_mounts_again():
    pass

def test_calm():
    pass
"""


def tried(folder: Path, tests: str, *options: str, **environment: str) -> str:
    """What pytest printed of *tests* under our rules."""
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = fuse: mounts")
    (folder / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *options, str(folder)]
    own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, env=own)
    return done.stdout


def outcomes(printed: str, outcome: str) -> set[str]:
    return {line.split("::")[1].split(" ")[0] for line in printed.splitlines() if line.startswith(f"{outcome} ")}


@pytest.mark.slow
def test_a_warning_in_the_log_fails_the_test_unless_it_was_announced(tmp_path: Path) -> None:
    printed = tried(tmp_path, TESTS)
    failed = outcomes(printed, "FAILED")
    assert failed == {"test_silent", "test_announced_another"}, printed
    assert printed.count("unexpected in the log") >= len(failed)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_where_nothing_can_be_mounted_one_line_says_so_and_ci_fails(tmp_path: Path, workers: str) -> None:
    without = {"PATH": str(tmp_path)}
    printed = tried(tmp_path, MOUNTING, "-n", workers, **without, CI="")
    assert "2 mount tests skipped: " in printed
    assert outcomes(printed, "PASSED") == {"test_calm"}
    printed = tried(tmp_path, MOUNTING, "-n", workers, **without, CI="true")
    assert "CI=true, and nothing can be mounted: " in printed
    assert outcomes(printed, "ERROR") == {"test_mounts", "test_mounts_again"}
    assert outcomes(printed, "PASSED") == {"test_calm"}


class Hanging:
    def __init__(self) -> None:
        self.ended = threading.Event()

    def clean_up(self) -> None:
        self.ended.set()


def test_what_hangs_is_ended_before_the_test_has_used_up_its_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SHARE_OF_TIME", 1e-4)
    one = Hanging()
    leftovers.hanging.add(one)
    with leftovers.ended_in_time(request.node):
        assert one.ended.wait(30)


def test_what_mounts_of_a_test_left_in_the_runtime_folder_goes_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"a": f'{{"mountpoint": "{tmp_path}/mnt"}}', "a.sock": "", "b.log": f"mounted on {tmp_path}/mnt"}
    theirs = {"c": f'{{"mountpoint": "{tmp_path}x/mnt"}}', "c.log": "", "d.log": "mounted on /mnt"}
    for name, text in {**ours, **theirs}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(leftovers, "folders", lambda uid: [tmp_path, tmp_path / "absent"])
    leftovers.forget_mounts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(theirs)

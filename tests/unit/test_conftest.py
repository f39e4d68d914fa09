"""The rules that tests/conftest.py lays on every test, tried on a small test file of its own.

Owns: proof that a warning nobody announced fails a test.
Must not know: any part of s3mount.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
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


@pytest.mark.slow
def test_a_warning_in_the_log_fails_the_test_unless_it_was_announced(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    failed = {line.split("::")[1].split(" ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == {"test_silent", "test_announced_another"}, done.stdout
    assert done.stdout.count("unexpected in the log") >= len(failed)

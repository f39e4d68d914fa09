"""`make demo`, as a newcomer runs it.

Owns: that it ends well, says what comes next, and leaves nothing behind, whichever way it ends.
Must not know: how long anything takes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from s3mount.fuse.runtime import folders

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.fuse,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not Path(sys.executable).with_name("s3mount").exists(), reason="s3mount is not installed beside this Python"),
]


def demo(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "scripts/demo.py")]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def named_in_runtime_folders(path: Path) -> str:
    """The files there that tell of *path*. grep does not mind what other mounts take away meanwhile."""
    command = ["grep", "-rlsF", str(path), *(str(folder) for folder in folders(os.getuid()))]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def test_the_demo_ends_with_the_two_lines_to_type_next_and_leaves_nothing(tmp_path: Path) -> None:
    output, errors = demo(tmp_path).communicate(timeout=360)
    *shown, first, second = output.splitlines()
    assert errors == ""
    assert first.split() == ["mkdir", "-p", "~/bucket"]
    assert second.split()[1:] == ["mount", "--create", "local://mine", "~/bucket"]
    assert sum("no difference" in line for line in shown) == 3
    assert not list(tmp_path.iterdir())
    assert not named_in_runtime_folders(tmp_path)


def test_a_demo_that_is_stopped_cleans_up_after_itself(tmp_path: Path) -> None:
    process = demo(tmp_path)
    assert process.stdout is not None
    while "mounted" not in process.stdout.readline().split():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()

"""The measurement of remote mounts works: a small one runs through, judges its rows, and leaves nothing behind.

Owns: a smoke test of the last part of `make bench`.
Must not know: any figure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.remote_rows import ROWS
from tests.leftovers import FOLDERS

ROOT = Path(__file__).parents[2]
TITLES = ("sequential read", "cp -r of small files", "ls -l, flat", "cp -r of small files in", "cp -r of small files in, --write-back")


@pytest.mark.slow
@pytest.mark.fuse
def test_a_small_measurement_judges_its_rows(tmp_path: Path) -> None:
    assert set(TITLES) <= {row.title for row in ROWS}
    wanted = "|".join(f"^{title}$" for title in TITLES)
    environment = {**os.environ, "BENCH_SCALE": "0.01", "BENCH_MOUNTS": "s3mount", "BENCH_ROWS": wanted, "BENCH_FOLDER": str(tmp_path)}
    environment |= {name: str(tmp_path / name) for name in FOLDERS}
    command = [sys.executable, "-m", "tests.bench.bench_remote"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    judged = [line for line in done.stdout.splitlines() if line.startswith("    -> ")]
    assert len(judged) == len(TITLES), done.stdout
    assert all("(reach " in line and "reached)" in line for line in judged), done.stdout
    assert not list(tmp_path.iterdir())

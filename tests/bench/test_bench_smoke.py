"""The measurement itself works: a small one runs through, prints every line, and leaves nothing behind.

Owns: a smoke test of `make bench`.
Must not know: any figure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.bench_mount import TITLE_COLUMNS
from tests.bench.contenders import Mounted
from tests.bench.loads import LOADS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.fuse
def test_a_small_measurement_prints_every_line_with_a_figure_of_ours(tmp_path: Path) -> None:
    environment = {**os.environ, "BENCH_SCALE": "0.002", "BENCH_ROUNDS": "1", "BENCH_FOLDER": str(tmp_path)}
    command = [sys.executable, "-m", "tests.bench.bench_mount"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{Mounted.name}: '" not in done.stdout, done.stdout
    column = next(line for line in done.stdout.splitlines() if line.lstrip().startswith("unit")).split().index(Mounted.name)
    for load in LOADS:
        line = next(line for line in done.stdout.splitlines() if line.startswith(load.title))
        assert line[TITLE_COLUMNS:].replace(load.unit, load.unit.replace(" ", "")).split()[column] != "-", line
    assert not list(tmp_path.iterdir())

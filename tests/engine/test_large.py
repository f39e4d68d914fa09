"""Objects larger than memory is allowed to be: both ways they stream."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Runs in a process of its own, whose peak of memory is then that of this work alone.
WORK = """
import sys
from pathlib import Path
from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.model import Content, GiB, Hole, Key, MiB, Staged

class Sparse:
    def __init__(self, path, length):
        self.path, self.length = path, length
        with path.open("wb") as file:
            file.truncate(length)
            for at in (0, 3 * GiB, length - 5):
                file.seek(at)
                file.write(b"mark!")
    def read_into(self, position, buffer):
        with self.path.open("rb", buffering=0) as file:
            file.seek(position)
            assert file.readinto(buffer) == len(buffer)

size = 6 * GiB
with Engine.open(Path(sys.argv[1])) as engine:
    engine.create_bucket("bucket")
    staged = Sparse(engine.staging / "sparse", size)
    engine.adopt("bucket", Key("adopted"), Content(size, (Staged(0, size, staged, 0),)), How())
    small = Sparse(engine.staging / "small", 4 * GiB)
    pieces = (Staged(0, MiB, small, 3 * GiB), Hole(MiB, size - 2 * MiB), Staged(size - MiB, MiB, small, 0))
    engine.adopt("bucket", Key("pieced"), Content(size, pieces), How())
    window = memoryview(bytearray(8 * MiB))
    marks = {}
    for key in ("adopted", "pieced"):
        with_marks = engine.open_object("bucket", Key(key))
        found = []
        for at in range(0, size, len(window)):
            with_marks.read_into(at, window)
            found += [at + inside for inside in (0, len(window) - MiB, len(window) - 5) if bytes(window[inside:inside + 5]) == b"mark!"]
        with_marks.close()
        marks[key] = found
    assert marks == {"adopted": [0, 3 * GiB, size - 5], "pieced": [0, size - MiB]}, marks
    assert engine.check() == []
status = Path("/proc/self/status").read_text()
print(next(line for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_an_object_of_6_gib_goes_in_and_out_in_the_memory_of_a_window(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(tmp_path / "data")], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    peak_kib = int(done.stdout.split()[1])
    assert peak_kib < 150 * 1024

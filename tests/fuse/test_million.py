"""A walk over a million files: the mount's memory does not grow with what was ever seen."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.engine.values import PLAIN, How
from s3mount.model import Key
from tests.fuse.mounting import Mount

pytestmark = [pytest.mark.fuse, pytest.mark.soak, pytest.mark.timeout(1800)]

FLAT, NESTED, PER_FOLDER = 500_000, 500_000, 1000


def million() -> Iterator[tuple[Key, bytes, How]]:
    for number in range(FLAT):
        yield Key(f"flat/file-{number:07}"), b"", PLAIN
    for number in range(NESTED):
        yield Key(f"nested/{number // PER_FOLDER:04}/file-{number:07}"), b"x", PLAIN


def peak_kib(mount: Mount) -> int:
    status = Path(f"/proc/{mount.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found
    return int(found[1])


def test_a_walk_over_a_million_files_stays_under_300_mib(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "mount")
    with Engine.open(mount.data) as engine:
        engine.create_bucket("bucket")
        engine.put_many("bucket", million(), durable=False)
    with mount.running():
        found = subprocess.run(["find", str(mount.path), "-type", "f", "-size", "-2k"], capture_output=True, timeout=1500, check=True)
        assert found.stdout.count(b"\n") == FLAT + NESTED
        assert peak_kib(mount) < 300 * 1024

"""What a mount of s3:// takes of memory while many large files are written at once.

SOAK_FILE_MIB says how large each is. The files lie in the staging folder and in the server's at the same time: twice their size of disk.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3mount.model import MiB
from tests.fuse.mounting import Mount
from tests.fuse.remote import remote_mount
from tests.s3.services import ours

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.soak]

FILES = 8
FILE_MIB = int(os.environ.get("SOAK_FILE_MIB", 1024))
MEMORY_LIMIT = 256 * MiB
# Interpreter, libraries, the kernel's requests in flight, what the allocator keeps.
BESIDE = 150 * MiB


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    (tmp_path / "server").mkdir()
    with (
        ours(tmp_path / "server") as service,
        remote_mount(tmp_path / "mounted", service.url, "large", "--memory-limit", str(MEMORY_LIMIT)) as mount,
    ):
        yield mount


def block(file: int, number: int, base: bytes) -> bytes:
    """1 MiB that no other block of any file is."""
    return file.to_bytes(8, "big") + number.to_bytes(8, "big") + base[16:]


def write(path: Path, file: int) -> str:
    base, digest = random.Random(file).randbytes(MiB), hashlib.blake2b()
    with path.open("wb", buffering=0) as target:
        for number in range(FILE_MIB):
            data = block(file, number, base)
            target.write(data)
            digest.update(data)
    return digest.hexdigest()


def read(path: Path) -> str:
    with path.open("rb", buffering=0) as source:
        return hashlib.file_digest(source, "blake2b").hexdigest()


def memory(mount: Mount) -> int:
    """The most that the mount's process had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{mount.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_many_large_files_written_at_once_stay_within_the_memory_limit(mount: Mount, capfd: pytest.CaptureFixture[str]) -> None:
    paths = [mount.path / str(number) for number in range(FILES)]
    with ThreadPoolExecutor(FILES) as pool:
        written = list(pool.map(write, paths, range(FILES)))
    peak = memory(mount)
    with capfd.disabled():
        print(f"\n{FILES} files of {FILE_MIB} MiB at once: {peak / MiB:.0f} MiB of memory at most, limit {MEMORY_LIMIT // MiB} MiB")  # noqa: T201
    assert peak <= MEMORY_LIMIT + BESIDE
    mount.again()
    assert [read(path) for path in paths] == written

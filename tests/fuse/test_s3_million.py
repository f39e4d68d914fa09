"""A walk over a million keys of s3://: pages come as they are read, memory does not grow with what was ever seen."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.engine.values import PLAIN, How
from s3mount.fs.cooling import QUIET_S, STEP, STEP_S
from s3mount.fs.options import FsOptions
from s3mount.fuse.giving_back import PERIOD_S
from s3mount.model import Key
from tests.fuse.mounting import Mount
from tests.fuse.remote import remote_mount
from tests.server.serving import served
from tests.wire.front import Front

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MiB = 1 << 20
PER_FOLDER = 1000
PAGE = 1000
# What a mount's process may take at any time, and by how much it may have grown from one walk to a longer one.
MOST = 300 * MiB
NOISE = 8 * MiB
# Seconds after which what nobody comes back to is forgotten for sure, by the kernel too, and given back: see cooling. A machine is busy.
FORGOTTEN_AFTER_S = 3 * QUIET_S + 2 * FsOptions().inode_limit / STEP * STEP_S + 3 * PERIOD_S
# Pages listed again while a slow machine goes through a hundred thousand names: all of them every twenty seconds, and what lies above.
AGAIN_PER_SECOND = 12


def keys(few: int, many: int) -> Iterator[tuple[Key, bytes, How]]:
    """The same tree in two sizes: *few* and *many* keys in one directory, and as many in directories of a thousand."""
    for top, count in (("few", few), ("many", many)):
        for number in range(count):
            yield Key(f"{top}/flat/file-{number:07}"), b"", PLAIN
        for number in range(count):
            yield Key(f"{top}/nested/{number // PER_FOLDER // 100:03}/{number // PER_FOLDER % 100:02}/file-{number:07}"), b"x", PLAIN


@dataclass
class Walked:
    mount: Mount
    front: Front
    seconds: float

    def find(self, folder: str) -> int:
        """How many files lie below *folder*, and their sizes were asked for."""
        command = ["find", str(self.mount.path / folder), "-type", "f", "-size", "-2k"]
        said = subprocess.run(command, capture_output=True, timeout=self.seconds, check=False)
        told = f"{said.stderr.decode()[:4000]}{self.mount.log.read_text()[-4000:]}"
        assert (said.returncode, said.stderr) == (0, b""), told
        return said.stdout.count(b"\n")

    def memory(self, name: str) -> int:
        """VmRSS or VmHWM (the peak) of the mount, in bytes."""
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self.mount.process.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    def settled(self) -> int:
        """Resident bytes, once what can be given back to the system has been."""
        time.sleep(FORGOTTEN_AFTER_S)
        return self.memory("VmRSS")


@contextmanager
def bucket_of(folder: Path, few: int, many: int, *, seconds: float) -> Iterator[Walked]:
    with Engine.open(folder / "data", create=True) as engine:
        engine.create_bucket("bucket")
        engine.put_many("bucket", keys(few, many), durable=False)
    with (
        served(folder, "--auth") as server,
        Front(server.url) as front,
        remote_mount(folder, front.url, "bucket", "--read-only") as mount,
    ):
        yield Walked(mount, front, seconds)


def first_name_of_a_flat_directory_costs_its_first_page(walked: Walked) -> None:
    walked.front.reset()
    with os.scandir(walked.mount.path / "many/flat") as entries:  # (`ls | head` asks for as much as it can before head is heard of)
        assert next(entries).name == "file-0000000"
    assert walked.front.counts().total <= 4  # the way to it, and a page or two of it


def a_walk_costs_its_pages(walked: Walked, top: str, count: int) -> None:
    """find reads a hundred thousand names, sorts them, and then asks for the first one's size: what is too old by then is listed again."""
    walked.front.reset()
    began = time.monotonic()
    for folder in ("flat", "nested"):
        assert walked.find(f"{top}/{folder}") == count
    counts = walked.front.counts()
    assert set(counts) == {"LIST", "all"}
    assert counts.total <= 2 * (count / PAGE) * 1.05 + 10 + AGAIN_PER_SECOND * (time.monotonic() - began)


def test_twenty_thousand_files_flat_and_nested_cost_their_pages(tmp_path: Path) -> None:
    with bucket_of(tmp_path, 2000, 20_000, seconds=60) as walked:
        first_name_of_a_flat_directory_costs_its_first_page(walked)
        a_walk_costs_its_pages(walked, "few", 2000)
        a_walk_costs_its_pages(walked, "many", 20_000)
        assert walked.memory("VmHWM") < MOST


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_files_flat_and_nested_leave_no_more_behind_than_a_hundred_thousand(tmp_path: Path) -> None:
    with bucket_of(tmp_path, 100_000, 1_000_000, seconds=1200) as walked:
        first_name_of_a_flat_directory_costs_its_first_page(walked)
        a_walk_costs_its_pages(walked, "few", 100_000)
        at_once, after_few = walked.memory("VmRSS"), walked.settled()
        a_walk_costs_its_pages(walked, "many", 1_000_000)
        at_end, kept, most = walked.memory("VmRSS"), walked.settled(), walked.memory("VmHWM")
        said = (
            f"{after_few // MiB} MiB after 200,000 ({at_once // MiB} at once), "
            f"{kept // MiB} after 2,200,000 ({at_end // MiB} at once), {most // MiB} at most"
        )
        print(said)  # noqa: T201 (what it is for)
        assert most < MOST, said
        assert kept <= after_few + NOISE, said

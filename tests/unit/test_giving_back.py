"""What was freed is given back to the system."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from s3mount.fuse.giving_back import trimmer

MiB = 1 << 20


def resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def test_what_lies_freed_below_something_in_use_is_given_back() -> None:
    trim = trimmer()
    if trim is None:
        pytest.skip("this C library gives memory back by itself, or never")
    pieces = [b"x" * (60 * 1024 + number) for number in range(1000)]
    pinned = pieces[-1]
    full = resident()
    del pieces
    trim()
    assert len(pinned) > 0
    assert resident() < full - 40 * MiB

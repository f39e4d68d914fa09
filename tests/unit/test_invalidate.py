"""The thread that tells the kernel to forget."""

from __future__ import annotations

import threading

import pytest

from s3mount.fuse.invalidate import Invalidator


def test_nothing_is_told_after_the_end_even_if_nothing_was_told_before(caplog: pytest.LogCaptureFixture) -> None:
    """Without a session libfuse answers EINVAL, and the mount complained of it while it ended."""
    invalidator = Invalidator(lambda: None, lambda: ())
    assert invalidator.close(patience_s=1)
    invalidator.entry(1, b"name")
    invalidator.inode(2)
    for thread in threading.enumerate():
        if thread.name == "s3mount-invalidate":
            thread.join(1)
    assert not caplog.records

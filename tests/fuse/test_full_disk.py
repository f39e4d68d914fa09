"""A disk that is nearly full: what was removed makes room at once, and what does not fit is refused without harm.

Owns: a small file system of the test's own, for which it must be root.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.fuse import mountpoint
from s3mount.model import MiB
from tests.fuse.conftest import AS_ROOT
from tests.fuse.mounting import Mount, abandon, s3mount

pytestmark = [pytest.mark.fuse, pytest.mark.skipif(not AS_ROOT, reason="only root can mount a small disk")]

DISK = 64 * MiB


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A mount whose data folder lies on a disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "s3mount-test", disk], check=True)
    mount = Mount(tmp_path)
    mount.data = disk / "data"
    try:
        with mount.running():
            yield mount
    finally:
        mountpoint.detach(disk)


def fits(mount: Mount, share: float) -> bytes:
    """Bytes for *share* of what is free."""
    room = os.statvfs(mount.path)
    return os.urandom(int(room.f_bavail * room.f_frsize * share))


def test_a_file_that_needs_the_room_of_one_just_removed_can_be_written_at_once(mount: Mount) -> None:
    data = fits(mount, 0.8)
    for name in ("first", "second", "third"):
        (mount.path / name).write_bytes(data)
        assert (mount.path / name).read_bytes() == data
        (mount.path / name).unlink()


def test_a_copy_in_the_bucket_needs_no_room_and_its_removal_frees_none(mount: Mount) -> None:
    data = fits(mount, 0.6)
    (mount.path / "kept").write_bytes(data)
    os.link(mount.path / "kept", mount.path / "other")
    (mount.path / "kept").unlink()
    with pytest.raises(OSError) as refused:
        (mount.path / "more").write_bytes(data)
    assert refused.value.errno == errno.ENOSPC
    (mount.path / "more").unlink()  # what lacks bytes stays uncommitted, and is told of, until it goes or is written anew
    assert (mount.path / "other").read_bytes() == data
    mount.expected = ["No space|full"]


def test_many_small_files_take_the_room_of_a_large_one_just_removed(mount: Mount) -> None:
    (mount.path / "large").write_bytes(fits(mount, 0.9))
    (mount.path / "large").unlink()
    small = os.urandom(100_000)
    for number in range(200):
        (mount.path / f"small{number}").write_bytes(small)
    assert {(mount.path / f"small{number}").read_bytes() for number in range(200)} == {small}


def outgrow(mount: Mount) -> None:
    """A file that does not fit, removed again: the kernel's own memory of that outlasts it."""
    mount.expected = ["No space|full"]
    with pytest.raises(OSError) as refused:
        (mount.path / "large").write_bytes(fits(mount, 2.0))
    assert refused.value.errno == errno.ENOSPC
    (mount.path / "large").unlink()


def test_flush_tells_nothing_of_what_was_refused_and_removed_before(mount: Mount) -> None:
    """Regression: syncfs(2) says once more that some write failed at some time."""
    outgrow(mount)
    (mount.path / "small").write_bytes(b"fits")
    done = s3mount("flush", mount.path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mount_in_use_ends_well_though_a_write_was_refused_before(mount: Mount) -> None:
    """Regression: the same of syncfs(2) ended it in the middle of unmounting."""
    outgrow(mount)
    fd = os.open(mount.path / "small", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"in use")
    mount.process.send_signal(signal.SIGTERM)
    mount.wait(0)
    abandon(fd)
    mount.judge()
    mount.start()
    assert (mount.path / "small").read_bytes() == b"in use"

"""What a mount tells of itself while it lives, and while somebody waits for it. Real mounts, over a front that takes its time."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from s3mount.cli.main import run
from s3mount.fuse import control, mountpoint, runtime
from tests.fuse.conftest import NewMount
from tests.fuse.mounting import SERVE, Mount, until
from tests.fuse.test_failed_commit import BUCKET, bucket, client, command, front, mount, said, server, write_refused
from tests.wire.faults import Rule
from tests.wire.front import Front

__all__ = ["bucket", "client", "front", "mount", "server"]  # fixtures

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

LATE = Rule("late", kinds=("PUT",), key="slow", seconds=5)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def slow(front: Front, mount: Mount) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who has written a file of 2 MB into the mount, and closes it on a word; that takes seconds."""
    front.spoil(LATE)
    script = "import sys; file = open(sys.argv[1], 'wb'); file.write(bytes(2_000_000)); file.flush(); print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", script, mount.path / "slow"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process:
        process.stdout.readline()
        yield process
        process.communicate(b"\n")


def status_of(path: Path) -> dict[str, Any]:
    answer = control.ask(path, owner=os.getuid(), do="status")
    assert answer is not None
    return answer


def test_status_tells_what_is_mounted_how_and_what_was_asked_of_the_store(mount: Mount) -> None:
    (mount.path / "a").mkdir()
    (mount.path / "a/file").write_bytes(b"x" * 1000)
    until(lambda: status_of(mount.path)["open"] == 0)
    with open(mount.path / "a/file", "rb"):
        record = command("status", "--json", mount.path / "a")
        assert record.status == 0
        told = json.loads(record.out)
    assert (told["source"], told["mountpoint"], told["pid"]) == (f"s3://{BUCKET}", str(mount.path), mount.process.pid)
    assert (told["open"], told["changed"], told["waiting"], told["kept"]) == (1, 0, [], 0)
    assert told["store"]["requests"]["put"] == 2
    assert told["store"]["memory_limit"] > 0
    assert 0 < told["uptime_s"] < 3600
    until(lambda: status_of(mount.path)["open"] == 0)  # the kernel tells of a close when it likes
    text = said("status", mount.path)
    assert re.search(r"^files +0 open, 0 not stored yet", text, re.MULTILINE)
    assert "put 2" in text


def test_status_tells_what_waits_and_why_and_flush_says_the_same(mount: Mount, front: Front) -> None:
    write_refused(mount, front)
    text = said("status", mount.path)
    # It is tried again by the release behind close, which comes when the kernel likes, and in the background.
    assert re.search(r"^(waiting|sending) +precious.txt, 8B: .*AccessDenied", text, re.MULTILINE)
    assert re.search(r"^failures +NotAllowed [1-9]", text, re.MULTILINE)
    told = said("flush", mount.path, status=1)
    assert re.search(r"could not be flushed: .*precious.txt.*AccessDenied", told)
    said("discard", f"s3://{BUCKET}/precious.txt")


def test_flush_says_what_it_waits_for(mount: Mount, slow: object) -> None:
    told = command("flush", mount.path)
    assert (told.status, told.err) == (0, "Waiting until 1 file (1.9MB) is stored.\n")


def test_flush_shows_a_bar_on_a_terminal(mount: Mount, slow: object) -> None:
    terminal = Terminal()
    with redirect_stderr(terminal):
        assert run(["flush", str(mount.path)]) == 0
    assert "Storing" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_umount_says_what_it_waits_for_when_the_kernel_has_let_go_already(mount: Mount, slow: subprocess.Popen[bytes]) -> None:
    mountpoint.detach(mount.path)
    assert slow.stdin is not None
    slow.stdin.write(b"\n")
    slow.stdin.flush()
    told = command("umount", mount.path)
    assert (told.status, told.err) == (0, "Waiting until 1 file (1.9MB) is stored.\n")
    mount.wait()


def test_a_mount_that_is_killed_answers_nobody_and_its_successor_does(new_mount: NewMount) -> None:
    mount = new_mount(program=[SERVE])
    assert status_of(mount.path)["pid"] == mount.process.pid
    mount.kill()
    assert control.ask(mount.path, owner=os.getuid(), do="status") is None
    assert "is not in an s3mount" in said("status", mount.path, status=2)
    mount.start()
    assert status_of(mount.path)["pid"] == mount.process.pid
    mount.stop()
    assert not any(control.path_in(folder, mount.path).exists() for folder in runtime.folders(os.getuid()))


def test_what_makes_no_sense_is_refused_and_the_mount_lives_on(new_mount: NewMount) -> None:
    mount = new_mount()
    with pytest.raises(Exception, match="does not understand"):
        control.ask(mount.path, owner=os.getuid(), do="format")
    with control._connected(control.path_in(next(iter(_places(mount.path))), mount.path)) as channel:
        channel.sendall(b"\xff{\n")
        assert b"does not understand" in channel.recv(1000)
    assert status_of(mount.path)["mountpoint"] == str(mount.path)
    (mount.path / "fine").write_bytes(b"fine")


def _places(path: Path) -> Iterator[Path]:
    return (folder for folder in runtime.folders(os.getuid()) if control.path_in(folder, path).exists())

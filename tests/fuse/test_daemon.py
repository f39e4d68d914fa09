"""The mount's process: into the background, its errors, its signals, its end."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from s3mount.fuse import control, mountpoint, runtime
from s3mount.model import Key
from tests.fuse.conftest import NewMount
from tests.fuse.late_writer import write_late
from tests.fuse.mounting import PATIENCE_S, SERVE, URL, Mount, abandon, environment, s3mount, until

pytestmark = pytest.mark.fuse


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A mount point that is free again afterwards."""
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    if mountpoint.mounted_at(path):
        mountpoint.detach(path)


def mount_in_background(place: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    return s3mount("mount", URL, place, "--data", place.parent / "data", "--log-file", place.parent / "log", *options)


# -- into the background --------------------------------------------------------------------


def test_mount_returns_when_the_mount_answers_and_umount_when_all_is_committed(place: Path) -> None:
    assert (done := mount_in_background(place, "--create")).returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    (place / "file").write_text("text")
    assert (done := s3mount("umount", place)).returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    assert os.listdir(place) == []
    log = (place.parent / "log").read_text()
    assert "WARNING" not in log
    assert "ERROR" not in log
    assert s3mount("cat", f"{URL}/file", "--data", place.parent / "data").stdout == "text"


def test_the_background_process_holds_nothing_of_the_terminal(place: Path) -> None:
    assert mount_in_background(place, "--create").returncode == 0
    record = runtime.watch(place, owner=os.getuid())
    assert record is not None
    pid = record.outcome().pid
    record.close()
    assert os.getsid(pid) == os.getpgid(pid) != os.getsid(0)
    assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)] == ["/dev/null"] * 3
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert s3mount("umount", place).returncode == 0


def refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """One sentence, that has *words*, and the exit status."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_a_missing_bucket_is_said_with_the_command_that_makes_it(place: Path) -> None:
    refused(mount_in_background(place), 1, "bucket", "s3mount mb local://bucket")


def test_bad_mount_points_are_said_in_one_sentence(place: Path) -> None:
    refused(mount_in_background(place / "missing"), 2, "does not exist", "mkdir")
    (place / "file").touch()
    refused(mount_in_background(place / "file"), 2, "not a directory")
    refused(mount_in_background(place), 2, "not empty", "--nonempty")


def test_a_mount_over_a_directory_that_is_not_empty_hides_it(place: Path) -> None:
    (place / "hidden").touch()
    assert mount_in_background(place, "--create", "--nonempty").returncode == 0
    assert os.listdir(place) == []
    assert s3mount("umount", place).returncode == 0
    assert os.listdir(place) == ["hidden"]


def test_a_place_that_is_mounted_already_is_refused(place: Path) -> None:
    assert mount_in_background(place, "--create").returncode == 0
    refused(mount_in_background(place), 1, "mounted already", "s3mount umount")
    assert s3mount("umount", place).returncode == 0


class Automount:
    """What systemd lays over a mount point: whoever goes there waits until it is mounted, our own process group excepted."""

    # include/uapi/linux/auto_fs.h: AUTOFS_IOC_READY; where a packet has its token.
    READY = 0x9360
    TOKEN = slice(8, 12)

    def __init__(self, place: Path) -> None:
        self._place = place
        self._asked, asks = os.pipe()
        options = f"fd={asks},pgrp={os.getpgrp()},direct,minproto=5,maxproto=5"
        subprocess.run(["mount", "-i", "-t", "autofs", "-o", options, "systemd-1", str(place)], check=True, pass_fds=[asks])
        os.close(asks)
        self._root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)

    def wait_asked(self) -> int:
        return int.from_bytes(os.read(self._asked, 4096)[self.TOKEN], sys.byteorder)

    def mounted(self, token: int) -> None:
        fcntl.ioctl(self._root, self.READY, token)

    def close(self) -> None:
        os.close(self._root)
        subprocess.run(["umount", "-i", "-l", str(self._place)], check=True)
        os.close(self._asked)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lays an automount")
def test_whoever_waits_at_an_automount_gets_the_mount(place: Path) -> None:
    if "autofs" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no autofs")
    with closing(Automount(place)) as automount:
        visitor = subprocess.Popen(["ls", "-a", str(place)], stdout=subprocess.PIPE, text=True, start_new_session=True)
        token = automount.wait_asked()
        done = mount_in_background(place, "--create")
        automount.mounted(token)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        assert visitor.communicate(timeout=60)[0].split() == [".", ".."]
        assert s3mount("umount", place).returncode == 0


def test_bad_options_are_usage_errors(place: Path) -> None:
    refused(s3mount("mount", "ftp://bucket", place), 2, "ftp://bucket")
    refused(mount_in_background(place, "--umask", "9"), 2, "octal")
    refused(mount_in_background(place, "--metadata-ttl", "soon"), 2, "duration")
    refused(mount_in_background(place, "-o", "nonsense"), 2, "nonsense")


def test_a_log_file_that_cannot_be_written_is_said(place: Path) -> None:
    refused(s3mount("mount", URL, place, "--log-file", "/nowhere/log"), 1, "/nowhere/log")


def test_options_may_come_as_mount_writes_them(place: Path) -> None:
    assert (done := mount_in_background(place, "-o", "create,ro,noexec,metadata_ttl=5")).returncode == 0, done.stderr
    with pytest.raises(OSError, match="Read-only"):
        (place / "file").touch()
    with open("/proc/self/mountinfo") as table:
        assert any(f" {place} ro," in line and "noexec" in line for line in table)
    assert s3mount("umount", place).returncode == 0


# -- umount and flush -----------------------------------------------------------------------


def test_umount_of_what_is_not_mounted_is_refused(place: Path) -> None:
    refused(s3mount("umount", place), 2, "Nothing is mounted")


def test_umount_of_another_file_system_is_refused() -> None:
    refused(s3mount("umount", "/proc"), 2, "no s3mount file system")


def test_umount_of_a_busy_mount_is_refused_and_lazy_is_not(new_mount: NewMount) -> None:
    mount = new_mount()
    with open(mount.path / "file", "w") as file:
        refused(s3mount("umount", mount.path), 1, "in use")
        assert s3mount("umount", "--lazy", mount.path).returncode == 0
        file.write("text")
    mount.wait()
    mount.judge()
    mount.start()
    assert (mount.path / "file").read_text() == "text"


@pytest.mark.slow
def test_umount_waits_for_a_slow_commit_and_says_so(new_mount: NewMount) -> None:
    mount = new_mount(program=[SERVE])
    write_after_the_last_close(mount, "slower/file", b"late")
    done = s3mount("umount", mount.path)
    assert done.returncode == 0
    assert "Waiting until" in done.stderr
    mount.wait()
    mount.start()
    assert (mount.path / "slower/file").read_bytes() == b"late"


def test_umount_says_what_could_not_be_committed(new_mount: NewMount) -> None:
    mount = new_mount(program=[SERVE])
    write_after_the_last_close(mount, "refused/file", b"lost")
    refused(s3mount("umount", mount.path), 1, "not everything was committed", "takes nothing below refused/")
    mount.wait(1)


def write_after_the_last_close(mount: Mount, name: str, data: bytes) -> None:
    (mount.path / name).parent.mkdir()
    write_late(str(mount.path / name), data)


def test_flush_returns_when_everything_is_in_the_store(new_mount: NewMount) -> None:
    mount = new_mount()
    with open(mount.path / "file", "wb", buffering=0) as file:
        file.write(b"flushed")
        (mount.path / "folder").mkdir()
        assert (done := s3mount("flush", mount.path / "folder")).returncode == 0, done.stderr
        info = mount.elsewhere(lambda store: store.head(Key("file")))
        assert info.size == 7


def test_flush_of_what_is_no_mount_is_refused(tmp_path: Path) -> None:
    refused(s3mount("flush", tmp_path), 2, "not in an s3mount file system")


def test_flush_says_what_could_not_be_committed(new_mount: NewMount) -> None:
    mount = new_mount(program=[SERVE])
    mount.expected = ["takes nothing below refused/"]
    (mount.path / "refused").mkdir()
    with open(mount.path / "refused/file", "wb", buffering=0) as file:
        file.write(b"x")
        refused(s3mount("flush", mount.path), 1, "could not be flushed")
        (mount.path / "refused/file").unlink()


def test_umount_tells_of_a_mount_whose_process_died_and_takes_it_off(new_mount: NewMount) -> None:
    mount = new_mount()
    mount.process.kill()
    mount.process.wait()
    refused(s3mount("umount", mount.path), 1, "had died")
    assert mountpoint.mounted_at(mount.path) is None


def test_a_mount_takes_the_place_of_one_whose_process_died_even_if_somebody_works_in_it(place: Path) -> None:
    for text in ("first", "second"):
        assert mount_in_background(place, "--create").returncode == 0
        (place / "file").write_text(text)
        busy = os.open(place, os.O_RDONLY)
        kill_the_mount(place)
        assert (done := mount_in_background(place)).returncode == 0, done.stderr
        assert (place / "file").read_text() == text
        assert s3mount("umount", place).returncode == 0
        abandon(busy)
    assert mountpoint.mounted_at(place) is None
    assert (place.parent / "log").read_text().count("whose process was gone has been taken off") == 2


def kill_the_mount(place: Path) -> None:
    record = runtime.watch(place, owner=os.getuid())
    assert record is not None
    os.kill(record.outcome().pid, signal.SIGKILL)
    record.wait()
    record.close()


def test_a_mount_may_follow_an_unmount_at_once(new_mount: NewMount) -> None:
    mount = new_mount()
    for n in range(3):
        (mount.path / f"file{n}").write_text("x")
        mountpoint.unmount(mount.path)
        mount.start()
    assert len(os.listdir(mount.path)) == 3


# -- signals ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_commits_what_is_open_unmounts_and_exits_0(new_mount: NewMount, number: int) -> None:
    mount = new_mount()
    fd = os.open(mount.path / "open", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"open when the signal came")
    mount.process.send_signal(number)
    mount.wait(0)
    with pytest.raises(OSError, match="not connected"):
        os.fsync(fd)
    abandon(fd)
    assert mountpoint.mounted_at(mount.path) is None
    mount.judge()
    mount.start()
    assert (mount.path / "open").read_bytes() == b"open when the signal came"


def test_a_signal_to_a_mount_that_nobody_uses_ends_it_without_a_word(new_mount: NewMount) -> None:
    mount = new_mount()
    (mount.path / "file").write_text("text")
    mount.process.send_signal(signal.SIGTERM)
    mount.wait(0)
    mount.judge()
    assert mountpoint.mounted_at(mount.path) is None


def test_a_commit_that_takes_too_long_is_given_up(new_mount: NewMount) -> None:
    mount = new_mount("--commit-timeout=1s", program=[SERVE])
    mount.expected = ["longer than its deadline", "hung"]
    (mount.path / "hung").mkdir()
    fd = os.open(mount.path / "hung/file", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x")
    with pytest.raises(TimeoutError):
        os.fsync(fd)
    (mount.path / "hung/file").unlink()
    abandon(fd)
    assert os.listdir(mount.path) == ["hung"]


def test_a_second_signal_stops_at_once(new_mount: NewMount) -> None:
    mount = new_mount(program=[SERVE])
    (mount.path / "hung").mkdir()
    closer = subprocess.Popen(["sh", "-c", "echo x > hung/file"], cwd=mount.path, stderr=subprocess.DEVNULL)
    until(lambda: being_committed(mount) == 1)
    mount.process.send_signal(signal.SIGTERM)
    until(lambda: "SIGTERM" in mount.log.read_text())
    mount.process.send_signal(signal.SIGTERM)
    mount.wait(1)
    assert "second signal" in mount.stderr.read_text()
    closer.wait(PATIENCE_S)
    assert mountpoint.mounted_at(mount.path) is None


def being_committed(mount: Mount) -> int:
    """How many files; asked for without the kernel."""
    status = control.ask(mount.path, owner=os.getuid(), do="status")
    return sum(one["sending"] for one in status["waiting"]) if status else 0


# -- many at once ---------------------------------------------------------------------------


@pytest.mark.slow
def test_ls_and_stat_answer_while_300_slow_closes_are_under_way(new_mount: NewMount) -> None:
    mount = new_mount(program=[SERVE])
    (mount.path / "hung").mkdir()
    (mount.path / "quick").mkdir()
    (mount.path / "quick/file").write_bytes(b"here")
    fds = [os.open(mount.path / f"hung/{n}", os.O_CREAT | os.O_WRONLY) for n in range(300)]
    for fd in fds:
        os.write(fd, b"x")
    closers = [threading.Thread(target=abandon, args=(fd,)) for fd in fds]
    for closer in closers:
        closer.start()
    until(lambda: being_committed(mount) == 300)
    assert os.listdir(mount.path / "quick") == ["file"]
    os.stat(mount.path / "quick/file")
    assert (mount.path / "quick/file").read_bytes() == b"here"
    assert len(os.listdir(mount.path / "hung")) == 300
    assert all(closer.is_alive() for closer in closers)
    mount.kill()
    for closer in closers:
        closer.join()


# -- others -------------------------------------------------------------------------------


def test_the_log_level_decides_what_is_logged(new_mount: NewMount) -> None:
    mount = new_mount("--log-level=error")
    mount.stop()
    assert mount.log.read_text() == ""


def test_a_foreground_mount_logs_to_stderr(tmp_path: Path, place: Path) -> None:
    command = [sys.executable, "-m", "s3mount", "mount", "-f", URL, str(place), "--create", "--data", str(tmp_path / "data")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stderr is not None
            assert "is mounted on" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()

"""The shell's parts without a mount."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyfuse3
import pytest
import trio
import trio.testing

from s3mount.errors import AccessDenied, Busy, NoEntry, Unavailable, UsageError
from s3mount.fs.options import FsOptions
from s3mount.fuse import runtime, session
from s3mount.fuse.attributes import to_entry, to_statvfs
from s3mount.fuse.daemon import Ready, in_background
from s3mount.fuse.deadline import Bounded, strictly_within, within
from s3mount.fuse.mountpoint import mounted_at, require_fit
from s3mount.fuse.notify import notify
from s3mount.fuse.operations import Refusals
from s3mount.fuse.session import MountOptions, kernel_options
from s3mount.fuse.tuning import raise_limits
from s3mount.model import Attr, Space
from tests.fuse.mounting import environment

# -- attributes ---------------------------------------------------------------------------


def test_attributes_are_told_to_the_nanosecond() -> None:
    attr = Attr(
        ino=2**62 + 7,
        mode=0o104755,
        nlink=3,
        uid=2**31,
        gid=5,
        rdev=os.makedev(259, 300_000),
        size=1025,
        atime_ns=-1_500_000_000,
        mtime_ns=2**33 * 10**9 + 1,
        ctime_ns=999_999_999,
    )
    entry = to_entry(attr, ttl_s=0.25)
    told = (entry.st_ino, entry.st_mode, entry.st_nlink, entry.st_uid, entry.st_gid, entry.st_rdev, entry.st_size)
    assert told == (attr.ino, attr.mode, 3, 2**31, 5, attr.rdev, 1025)
    assert (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns) == (attr.atime_ns, attr.mtime_ns, attr.ctime_ns)
    assert entry.st_blocks == 3
    assert (entry.attr_timeout, entry.entry_timeout) == (0.25, 0.25)
    lasting = to_entry(replace(attr, lasting=True), ttl_s=0.25)
    assert (lasting.attr_timeout, lasting.entry_timeout) == (300.0, 300.0)
    assert to_entry(replace(attr, lasting=True), ttl_s=3600.0).entry_timeout == 3600.0


def test_space_is_told_in_blocks() -> None:
    told = to_statvfs(Space(total=1 << 30, free=1 << 20))
    assert (told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize, told.f_namemax) == (1 << 30, 1 << 20, 255)


# -- deadlines ------------------------------------------------------------------------------


async def hang() -> None:
    await trio.Event().wait()


@pytest.mark.parametrize("limit", [within, strictly_within])
async def test_work_that_waits_too_long_is_given_up(
    autojump_clock: trio.testing.MockClock, limit: Callable[..., Awaitable[object]]
) -> None:
    with pytest.raises(trio.TooSlowError):
        await limit(5, hang())
    assert trio.current_time() == pytest.approx(5)


async def test_work_within_its_deadline_returns_and_raises_as_ever(autojump_clock: trio.testing.MockClock) -> None:
    async def work(answer: object) -> object:
        await trio.sleep(1)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await within(5, work("done")) == "done"
    with pytest.raises(NoEntry):
        await within(5, work(NoEntry("none")))


async def test_work_that_does_not_wait_needs_no_scope() -> None:
    async def work() -> int:
        return 3

    assert await within(0, work()) == 3


async def test_scopes_that_are_open_when_the_work_first_waits_stay_in_order(autojump_clock: trio.testing.MockClock) -> None:
    async def work() -> str:
        with trio.move_on_after(2) as scope:
            await trio.sleep(10)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
        return "done"

    assert await within(100, work()) == "done"


async def test_work_that_waits_first_in_a_scope_of_its_own_is_given_up_behind_it(autojump_clock: trio.testing.MockClock) -> None:
    async def work() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(30)
        await hang()

    with pytest.raises(trio.TooSlowError):
        await within(5, work())
    assert trio.current_time() == pytest.approx(35)


async def test_what_is_thrown_into_a_scope_of_its_own_reaches_the_work(autojump_clock: trio.testing.MockClock) -> None:
    async def work() -> str:
        with pytest.raises(trio.Cancelled), trio.CancelScope():
            await hang()
        return "told"

    with trio.move_on_after(3):
        assert await within(5, work()) == "told"
    assert trio.current_time() == pytest.approx(3)


async def test_work_can_be_cancelled_from_outside(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await within(100, hang())
    assert scope.cancelled_caught


@pytest.mark.parametrize("how", ["strictly", "within"])
async def test_an_end_that_is_told_meanwhile_holds_for_work_under_way_and_for_what_begins_later(
    autojump_clock: trio.testing.MockClock, how: str
) -> None:
    bounded = Bounded(1000)
    limit = getattr(bounded, how)

    async def given_up() -> None:
        with pytest.raises(trio.TooSlowError):
            await limit(hang())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(given_up)
        await trio.sleep(10)
        bounded.end_by(trio.current_time() + 5)
        nursery.start_soon(given_up)
    assert trio.current_time() == pytest.approx(15)
    await given_up()
    assert trio.current_time() == pytest.approx(15)


# -- refusals -----------------------------------------------------------------------------


def test_posix_answers_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="s3mount")
    assert Refusals().errno_for("lookup", NoEntry("none")) == errno.ENOENT
    assert caplog.records == []


def test_a_store_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    numbers = [refusals.errno_for("flush", ExceptionGroup("", [Unavailable("The store is away.")])) for _ in range(3)]
    assert numbers == [errno.EIO] * 3
    assert [record.getMessage() for record in caplog.records] == ["flush failed: The store is away."]


def test_several_failures_at_once_are_none_but_failures(caplog: pytest.LogCaptureFixture) -> None:
    """Regression: fsync of a directory in which two files could not be stored was told as a defect, with its traceback."""
    failures = ExceptionGroup("", [AccessDenied("Not one."), Unavailable("Nor two.")])
    assert Refusals().errno_for("fsyncdir", failures) == errno.EACCES
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [
        ("fsyncdir failed: Not one.", None),
        ("fsyncdir failed: Nor two.", None),
    ]


def test_a_defect_is_logged_once_for_each_place_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def one() -> None:
        raise KeyError(1)

    def another() -> None:
        raise KeyError(1)

    refusals = Refusals()
    for call in (one, one, another):
        with pytest.raises(KeyError) as raised:
            call()
        assert refusals.errno_for("read", raised.value) == errno.EIO
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all(record.exc_info for record in caplog.records)


# -- mount points -----------------------------------------------------------------------------


def test_mount_tables_are_read_with_their_escapes(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"36 25 0:52 / /mnt/a\\040b\\134 rw,nosuid shared:7 - fuse.s3mount local://b/\\011 rw,user_id=1000,group_id=0\n"
        b"37 25 0:53 / /mnt/a\\040b\\134 rw - tmpfs tmpfs rw\n"
        b"38 25 0:54 / /mnt/plain rw - ext4 /dev/sda rw\n"
    )
    topmost = mounted_at(Path("/mnt/a b\\"), mountinfo=table)
    assert topmost is not None
    assert (topmost.fstype, topmost.device, topmost.is_ours) == ("tmpfs", "0:53", False)
    table.write_bytes(table.read_bytes().splitlines(keepends=True)[0])
    only = mounted_at(Path("/mnt/a b\\"), mountinfo=table)
    assert only is not None
    assert (only.source, only.owner, only.is_ours) == ("local://b/\t", 1000, True)
    assert mounted_at(Path("/mnt"), mountinfo=table) is None


def test_a_mount_point_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert require_fit(tmp_path / "link", nonempty=False) == tmp_path.resolve() / "real"


def test_a_living_mount_is_refused_without_a_look_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unanswered(path: object) -> object:
        raise TimeoutError(errno.ETIMEDOUT, "its service is away")

    monkeypatch.setattr(os, "scandir", unanswered)
    with pytest.raises(Busy, match="/proc is mounted already"):
        require_fit(Path("/proc"), nonempty=False)


def test_the_kernel_is_told_the_source_as_it_was_given() -> None:
    options = MountOptions(source="local://b/a, ü\\", mountpoint=Path("/mnt"), fs=FsOptions(read_only=True), kernel=("noexec",))
    assert kernel_options(options) == {
        "default_permissions",
        "subtype=s3mount",
        "noexec",
        "ro",
        "fsname=local://b/a\\, %C3%BC%5C",
    }


def test_limits_that_cannot_be_raised_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="s3mount")
    (tmp_path / "class/bdi/0:42").mkdir(parents=True)
    (tmp_path / "class/bdi/0:42/read_ahead_kb").write_text("128")
    raise_limits("0:42", sysfs=tmp_path)
    assert int((tmp_path / "class/bdi/0:42/read_ahead_kb").read_text()) >= 1024
    assert len(caplog.records) == 1
    assert "max_background" in caplog.text


@pytest.mark.parametrize(("number", "is_failure"), [(errno.ECONNABORTED, False), (errno.EIO, True)])
async def test_a_mount_taken_off_in_the_middle_of_a_request_has_ended(
    monkeypatch: pytest.MonkeyPatch, number: int, is_failure: bool
) -> None:
    async def main(**limits: int) -> None:
        async with trio.open_nursery():
            raise OSError(number, "fuse_session_receive_buf failed")

    monkeypatch.setattr(pyfuse3, "main", main)
    with pytest.raises(ExceptionGroup) if is_failure else nullcontext():
        await session._main_loop()


# -- the service manager ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["\0s3mount-test", "socket"])
def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"{name}-{os.getpid()}" if name.startswith("\0") else name
    spelled = f"@{address[1:]}" if name.startswith("\0") else f"/proc/self/cwd/{address}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        assert notify({"NOTIFY_SOCKET": spelled}, READY="1", STATUS="well")
        assert manager.recv(100) == b"READY=1\nSTATUS=well"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere", "@nobody-listens"])
def test_nobody_to_tell_is_no_failure(address: str) -> None:
    assert not notify({"NOTIFY_SOCKET": address}, READY="1")


# -- runtime records ----------------------------------------------------------------------------


@pytest.fixture
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runtime"
    monkeypatch.setattr(runtime, "folders", lambda uid: [folder])
    return folder


def test_a_record_tells_how_it_ended_even_after_it_is_gone(runtime_folder: Path) -> None:
    record = runtime.claim(Path("/mnt"))
    record.describe(source="local://b", mountpoint=Path("/mnt"))
    watch = runtime.watch(Path("/mnt"), owner=0)
    assert watch is not None
    assert watch.outcome() == runtime.Outcome(pid=os.getpid(), finished=False, error=None)
    record.finish(None)
    record.finish("too late")
    assert watch.wait() == runtime.Outcome(pid=os.getpid(), finished=True, error=None)
    watch.close()
    assert runtime.watch(Path("/mnt"), owner=0) is None
    assert list(runtime_folder.iterdir()) == []


def test_a_record_with_an_error_stays_until_the_next_mount(runtime_folder: Path) -> None:
    record = runtime.claim(Path("/mnt"))
    record.finish("it went wrong")
    watch = runtime.watch(Path("/mnt"), owner=0)
    assert watch is not None
    assert not watch.is_alive()
    assert watch.outcome().error == "it went wrong"
    watch.close()
    runtime.claim(Path("/mnt")).finish(None)
    assert list(runtime_folder.iterdir()) == []


HOLDER = """if 1:
    import sys
    from pathlib import Path
    from s3mount.fuse import runtime, session
    runtime.folders = lambda uid: [Path(sys.argv[1])]
    record = runtime.claim(Path("/mnt"))
    record.describe(source="local://b", mountpoint=Path("/mnt"))
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_process_that_was_killed_leaves_its_outcome_open(runtime_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "PREDECESSOR_S", 0.0)
    command = [sys.executable, "-c", HOLDER, str(runtime_folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"claimed\n"
        watch = runtime.watch(Path("/mnt"), owner=0)
        assert watch is not None
        assert watch.is_alive()
        with pytest.raises(Busy):
            runtime.claim(Path("/mnt"))
        holder.kill()
    assert watch.wait() == runtime.Outcome(pid=holder.pid, finished=False, error=None)
    watch.close()


# -- the log ------------------------------------------------------------------------------

LOGGING = """if 1:
    import logging, sys
    from pathlib import Path
    from s3mount.fuse import logs
    logs.SYSTEM_LOG = Path(sys.argv[1], "missing")
    logs.log_to(None, level="info", foreground=False, fallback=Path(sys.argv[1], "fallback"))
    logging.getLogger("s3mount.x").info("said")
    import warnings
    warnings.warn("careful")
"""


def test_without_a_system_log_lines_go_to_a_file_and_nothing_is_printed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOGGING, str(tmp_path)], capture_output=True, text=True, env=environment())
    assert done.stdout + done.stderr == ""
    assert "INFO s3mount.x" in (tmp_path / "fallback").read_text()
    assert "careful" in (tmp_path / "fallback").read_text()


# -- into the background ------------------------------------------------------------------------


def explain(error: BaseException) -> tuple[int, str]:
    return 2 if isinstance(error, UsageError) else 1, str(error)


def test_the_caller_returns_when_the_work_says_ready(tmp_path: Path) -> None:
    def work(ready: Ready) -> None:
        ready()
        with open(tmp_path / "result", "w") as result:
            result.write(f"{os.getppid()} {os.getcwd()}")
        os.rename(tmp_path / "result", tmp_path / "done")

    in_background(work, explain=explain)
    while not (tmp_path / "done").exists():
        pass
    parent, folder = (tmp_path / "done").read_text().split()
    assert int(parent) != os.getpid()
    assert folder == "/"


@pytest.mark.parametrize(("error", "kind"), [(UsageError("Say it otherwise."), UsageError), (Unavailable("Not\nnow."), Unavailable)])
def test_the_reason_for_a_failure_reaches_the_caller(error: Exception, kind: type[Exception]) -> None:
    def work(ready: Callable[[], None]) -> None:
        raise error

    with pytest.raises(kind, match=" ".join(str(error).split())):
        in_background(work, explain=explain)


def test_a_process_that_dies_without_a_word_is_noticed() -> None:
    with pytest.raises(Unavailable, match="ended before"):
        in_background(lambda ready: os._exit(3), explain=explain)

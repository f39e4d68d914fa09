"""A real mount in a process of its own, for the tests in this folder.

Owns: how a mount is started, awaited without sleeping (the service manager's socket), taken off, killed, and judged by its log; how a test
waits for what others do.

What somebody else changes in the store shows in a living mount within its time-to-live, and not at once: whoever looks for it says so, with
`Mount.seen` or `until`. Nothing else may be taken for granted, even in a test that looks there for the first time: another one may have
had the directory listed a moment ago, and which tests share a mount, in what order, is another matter on each run.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import trio

from s3mount.cli.open_store import open_store
from s3mount.cli.store_options import Choice
from s3mount.config import parse_url
from s3mount.errors import S3MountError
from s3mount.fuse import mountpoint
from s3mount.store.api import ObjectStore
from tests.leftovers import hanging

REPOSITORY = Path(__file__).resolve().parents[2]
SERVE = REPOSITORY / "tests/fuse/serve.py"
URL = "local://bucket"

# For a command, for a mount's process to end, for what others do to show; a busy machine takes its time.
PATIENCE_S = 60.0
POLL_S = 0.02
# Of names and bytes that are on their way.
NOT_YET = (errno.ENOENT, errno.ESTALE)

# libfuse's words for a mount that is taken off in the middle of its read(2) of a request: an end like any other.
TAKEN_OFF_WHILE_READING = "fuse: reading device: Software caused connection abort"

T = TypeVar("T")
_numbers = itertools.count(1)


def environment(**more: str) -> dict[str, str]:
    """That of a user who has this repository installed."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C.UTF-8", **more}


def s3mount(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; its exit status and what it printed."""
    command = [sys.executable, "-m", "s3mount", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment(**more))


class Mount:
    """`path` is mounted from `data` after `start`; `stop` proves that it ended well, and `log` holds what it said."""

    def __init__(self, folder: Path, *options: str, program: Sequence[str | Path] = ()) -> None:
        self.path = folder / "mnt"
        self.data = folder / "data"
        self.log = folder / "log"
        self.stderr = folder / "stderr"
        self.url = URL
        self.options = options
        self.expected: list[str] = []
        self._program = program or ("-m", "s3mount")
        self._process: subprocess.Popen[bytes] | None = None
        self.path.mkdir(parents=True)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def start(self) -> Mount:
        """Return once the mount answers; fails with what the process said otherwise."""
        former = self._process
        hanging.add(self)
        with _notify_socket() as (channel, name), open(self.stderr, "wb") as stderr:
            command = [sys.executable, *map(str, self._program), "mount", "-f", self.url, str(self.path), "--create"]
            command += ["--data", str(self.data), "--log-file", str(self.log), *self.options]
            own = environment(NOTIFY_SOCKET=name)
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, env=own)
            while b"READY=1" not in _received(channel):
                if self._process.poll() is not None:
                    raise AssertionError(f"no mount, status {self._process.returncode}: {self.stderr.read_text()}")
        if former is not None:
            former.wait(PATIENCE_S)
        return self

    def stop(self) -> None:
        """Unmount; the process must then end by itself, content, and have nothing to complain of."""
        mountpoint.unmount(self.path)
        self.wait()
        self.judge()

    def wait(self, status: int = 0) -> None:
        if (ended := self.process.wait(PATIENCE_S)) != status:
            raise AssertionError(f"the mount ended with {ended}: {self.stderr.read_text()}{self.log.read_text()}")

    def judge(self) -> None:
        """Nothing on stderr; no warning, error or traceback in the log but `expected` ones."""
        complaints = [line for line in self.stderr.read_text().splitlines() if line != TAKEN_OFF_WHILE_READING]
        complaints += re.findall(r"^.*(?: WARNING | ERROR |Traceback)(?:.|\n(?! *\d{4}-))*", self.log.read_text(), re.MULTILINE)
        left = [line for line in complaints if not any(re.search(pattern, line) for pattern in self.expected)]
        if left:
            raise AssertionError("the mount complained:\n" + "\n".join(left))

    @contextmanager
    def running(self) -> Iterator[Mount]:
        """Started; at the end it must go without a complaint, unless the test saw it end. Nothing of it is left in any case."""
        try:
            yield self.start()
            if self.process.returncode is None:
                self._end()
        finally:
            self.clean_up()

    def _end(self) -> None:
        """What the test had unmounted, or what died by itself, is judged as well."""
        if self.process.poll() is None:
            mountpoint.unmount(self.path)
        self.wait()
        self.judge()

    def again(self) -> Mount:
        """Unmount, and mount the same data."""
        self.stop()
        return self.start()

    def kill(self) -> None:
        """As kill -9 does, and take the dead mount off."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self.clean_up()

    def clean_up(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
        if mountpoint.mounted_at(self.path) is not None:
            try:
                mountpoint.detach(self.path)
            except S3MountError:
                pass

    def seen(self, name: str) -> Path:
        """The path of *name*, which somebody else has put into the store, once the mount shows it."""
        until((self.path / name).exists)
        return self.path / name

    def elsewhere(self, act: Callable[[ObjectStore], Awaitable[T]]) -> T:
        """What *act* returns for the bucket, opened by this process: another client."""

        async def client() -> T:
            async with open_store(parse_url(URL), Choice(self.data)) as store:
                return await act(store)

        return trio.run(client)


def until(wanted: Callable[[], bool]) -> None:
    """Return once *wanted*; what is not there yet, or is another version by now, is looked for again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if wanted():
                return
        except OSError as error:
            if error.errno not in NOT_YET:
                raise
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(POLL_S)


def error_of(act: Callable[[], object]) -> int | None:
    """The errno with which *act* fails; None if it does not."""
    try:
        act()
    except OSError as error:
        return error.errno
    return None


def abandon(fd: int) -> None:
    """Close a descriptor of a mount that is no more."""
    try:
        os.close(fd)
    except OSError:
        pass


@contextmanager
def _notify_socket() -> Iterator[tuple[socket.socket, str]]:
    name = f"s3mount-test-{os.getpid()}-{next(_numbers)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0{name}")
        channel.settimeout(0.1)
        yield channel, f"@{name}"


def _received(channel: socket.socket) -> bytes:
    try:
        return channel.recv(4096)
    except TimeoutError:
        return b""

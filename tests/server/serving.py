"""A real server in a process of its own, on a port that the system chose, and requests to it as bytes.

Owns: starting, waiting for its first line, ending it; what it logged. Nothing that a test asserts.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CLONE = Path(__file__).parents[2]
PATIENCE_S = 60

ACCESS_KEY, SECRET_KEY = "tester", "a-secret-for-tests"


def environment(**more: str) -> dict[str, str]:
    """Of this process, without what a developer's own S3 settings would change."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3MOUNT_", "RCLONE_"))}
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": "us-east-1"}
    none = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
    return {**kept, **keys, **none, "PYTHONPATH": str(CLONE), **more}


def s3mount(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A whole run of the program."""
    command = [sys.executable, "-m", "s3mount", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment(**more), check=False)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """S3's code in an error document."""
        return self.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


class Server:
    """`s3mount serve` on *data*, until `stop` or `kill`."""

    def __init__(self, data: Path, *options: str | Path, log: Path) -> None:
        self.data = data
        self._log = log
        command = [sys.executable, "-m", "s3mount", "serve", "--data", data, "--listen", "127.0.0.1:0", *options]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(), start_new_session=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " on http" in line, f"{line!r}; {log.read_text()}"
        self.url = line.split(" on ")[1].strip()
        self.host, self.port = "127.0.0.1", urlsplit(self.url).port or 0

    def request(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own; *target* goes out as it is."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, target, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=PATIENCE_S)

    def say(self, raw: bytes) -> bytes:
        """Send *raw*, and return whatever comes until the server closes."""
        with self.connect() as channel:
            return exchange(channel, raw)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far, in whole lines."""
        return [json.loads(line) for line in self._log.read_text().rpartition("\n")[0].splitlines()]

    def stop(self) -> int:
        """End it as a service manager does; its exit status. Idempotent."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """Nothing of it is left. Idempotent."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def exchange(channel: socket.socket, raw: bytes) -> bytes:
    """Send *raw* and read to the end; a reset is an end."""
    received = b""
    try:
        channel.sendall(raw)
        while more := channel.recv(65536):
            received += more
    except (ConnectionResetError, BrokenPipeError):
        pass
    return received


@contextmanager
def served(folder: Path, *options: str | Path) -> Iterator[Server]:
    """A server on a data folder in *folder*; a defect that it logged fails the test."""
    server = Server(folder / "data", *options, log=folder / "serve.log")
    try:
        yield server
        assert server.stop() == 0
        defects = [line for line in server.lines() if line["level"] == "error"]
        assert not defects, defects
    finally:
        server.kill()

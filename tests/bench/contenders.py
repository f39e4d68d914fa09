"""What is measured: a plain directory, pyfuse3's passthrough example over one, and a mount of the embedded store.

Owns: how each is started, mounted anew (which empties its page cache and its names in the kernel) and taken away.
Must not know: what is done in them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

# A mount that takes longer does not come any more.
MOUNT_SECONDS = 60
CACHE = Path(__file__).parents[2] / ".bench"


class Contender(Protocol):
    """A directory to work in. `fresh` empties the caches in front of it, where there are any."""

    name: str
    directory: Path

    def start(self) -> None: ...
    def fresh(self) -> None: ...
    def stop(self) -> None: ...


class Plain:
    """The bare directory: nothing in front of it, hence nothing to empty."""

    name = "directory"

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "plain"

    def start(self) -> None:
        self.directory.mkdir(parents=True)

    def fresh(self) -> None: ...

    def stop(self) -> None: ...


class Passthrough:
    """pyfuse3's example, as it is published with the version installed here; its fsync reaches no disk, for it has no such handler."""

    name = "passthrough"

    def __init__(self, folder: Path, program: Path) -> None:
        self._program = program
        self._folder = folder / "passthrough"
        self._source = self._folder / "source"
        self.directory = self._folder / "mount"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._source.mkdir(parents=True)
        self.directory.mkdir()
        self._mount()

    def fresh(self) -> None:
        self.stop()
        self._mount()

    def _mount(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(self._program), str(self._source), str(self.directory)], stdout=log, stderr=log
            )
        wait_for_mount(self.directory)

    def stop(self) -> None:
        if self._process is not None:
            subprocess.run(["fusermount3", "-u", "-z", "-q", str(self.directory)], check=False)
            self._process.wait(MOUNT_SECONDS)
            self._process = None


class Mounted:
    """s3mount on the embedded store, as a user starts it."""

    name = "s3mount"

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self.directory = folder / "bucket"

    def start(self) -> None:
        self.directory.mkdir(parents=True)
        self._command("mount", "--create", "local://bench", str(self.directory))

    def fresh(self) -> None:
        self.stop()
        self._command("mount", "local://bench", str(self.directory))

    def stop(self) -> None:
        if os.path.ismount(self.directory):
            self._command("umount", str(self.directory))

    def _command(self, *arguments: str) -> None:
        environment = {**os.environ, "S3MOUNT_DATA": str(self._data)}
        subprocess.run([sys.executable, "-m", "s3mount", *arguments], env=environment, check=True, cwd=CACHE.parent)


def wait_for_mount(directory: Path) -> None:
    limit = time.monotonic() + MOUNT_SECONDS
    while not os.path.ismount(directory):
        if time.monotonic() > limit:
            raise TimeoutError(f"{directory} is not mounted after {MOUNT_SECONDS} s")
        time.sleep(0.02)


def passthrough_program() -> Path | None:
    """The example out of pyfuse3's source archive, of the version installed here; None where it cannot be had."""
    release = version("pyfuse3")
    folder = CACHE / f"pyfuse3-{release}"
    program = folder / "passthroughfs.py"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            "pyfuse3",
            "-d",
            str(folder),
            f"pyfuse3=={release}",
        ]
        if subprocess.run([*command, "--disable-pip-version-check"], check=False, capture_output=True).returncode != 0:
            return None
        extract(next(folder.glob("*.tar.gz")), program)
    return program


def extract(archive: Path, program: Path) -> None:
    with tarfile.open(archive) as packed:
        member = next(item for item in packed.getmembers() if item.name.endswith("/examples/passthroughfs.py"))
        content = packed.extractfile(member)
        assert content is not None
        program.write_bytes(content.read())

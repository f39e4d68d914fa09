"""One installation for all tests of this folder: staged under a DESTDIR, then moved to its place, as a package would be.

Owns: `installation`.
Must not know: what the tests look at. Nothing outside pytest's temporary folder is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# pip builds and unpacks some twenty packages; pyfuse3 is compiled where pip has no wheel of it from before.
INSTALL_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Installation:
    """What `make install` made: PREFIX and HELPERDIR, and the DESTDIR that they were first made in."""

    prefix: Path
    helpers: Path
    staged_in: Path

    @property
    def unit(self) -> Path:
        return self.prefix / "lib/systemd/system/s3mount@.service"

    def run(self, command: str, *arguments: str, folder: Path) -> str:
        """What the installed *command* prints, started as a user would start it."""
        environment = {"PATH": f"{self.prefix}/bin:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        line = [str(self.prefix / "bin" / command), *arguments]
        return subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def make(target: str, *, prefix: Path, helpers: Path, staging: str = "") -> None:
    command = ["make", "-s", target, f"PREFIX={prefix}", f"HELPERDIR={helpers}", f"DESTDIR={staging}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Readable by everybody, as an installation is."""
    folder = tmp_path_factory.mktemp("install")
    made = Installation(folder / "usr", folder / "helpers", folder / "staged")
    make("install", prefix=made.prefix, helpers=made.helpers, staging=str(made.staged_in))
    for place in (made.prefix, made.helpers):
        shutil.move(f"{made.staged_in}{place}", place)
    return made

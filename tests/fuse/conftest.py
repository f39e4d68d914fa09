"""Mounts for the tests: one per module that tests share, and as many of their own as they want."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuse.mounting import Mount

NewMount = Callable[..., Mount]

AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount that the tests of one module share; at the end it must go without a complaint."""
    mount = Mount(tmp_path_factory.mktemp("shared"))
    try:
        mount.start()
        yield mount
        mount.stop()
    finally:
        mount.clean_up()


@pytest.fixture
def here(mounted: Mount, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of the test's own in the shared mount."""
    folder = mounted.path / re.sub(r"\W", "_", request.node.name)
    with mounted.guarded():
        folder.mkdir()
        yield folder


@pytest.fixture
def new_mount(tmp_path: Path) -> Iterator[NewMount]:
    """Makes mounts of the test's own, started; those that are left in the end must go without a complaint."""
    made: list[Mount] = []

    def make(*options: str, **more: object) -> Mount:
        mount = Mount(tmp_path / f"mount{len(made)}", *options, **more)  # type: ignore[arg-type]
        made.append(mount)
        return mount.start()

    try:
        yield make
        for mount in made:
            if mount.process.poll() is None:
                mount.stop()
    finally:
        for mount in made:
            mount.clean_up()

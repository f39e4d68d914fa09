"""Mounts for the tests: one per module that tests share, and as many of their own as they want."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fuse.mounting import Mount
from tests.fuse.programs import make_tree
from tests.fuse.remote import isolate

NewMount = Callable[..., Mount]

AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount that the tests of one module share; at the end it must go without a complaint."""
    with Mount(tmp_path_factory.mktemp("shared")).running() as mount:
        yield mount


@pytest.fixture
def here(mounted: Mount, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own in the shared mount."""
    folder = mounted.path / re.sub(r"\W", "_", request.node.name)
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree to copy; nobody changes it."""
    return make_tree(tmp_path_factory.mktemp("tree") / "tree")


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has nothing set up but the tests' keys."""
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def new_mount(tmp_path: Path) -> Iterator[NewMount]:
    """Makes mounts of the test's own, started, on *data* if told; those that are left in the end must go without a complaint."""
    numbers = itertools.count()

    def make(*options: str, data: Path | None = None, **more: object) -> Mount:
        mount = Mount(tmp_path / f"mount{next(numbers)}", *options, **more)  # type: ignore[arg-type]
        mount.data = data or mount.data
        return made.enter_context(mount.running())

    with ExitStack() as made:
        yield make

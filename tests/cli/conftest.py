"""The command line as a function: words in; status, output and errors out."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s3mount.cli.main import run
from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.model import Key

KEYS = ["a", "a-", "a/b", "a/c/d", "empty/.", "z"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.lines]


Command = Callable[..., Outcome]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An embedded store's folder that nobody has made yet, and that every command of the test means."""
    folder = tmp_path / "data"
    monkeypatch.setenv("S3MOUNT_DATA", str(folder))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory for files."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def s3mount(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run the command line in this process, through the same way in and out as the program."""

    def command(*words: str | Path, stdin: bytes = b"", terminal: bool = False) -> Outcome:
        out, err = io.BytesIO(), io.StringIO()
        if terminal:
            err.isatty = lambda: True  # type: ignore[method-assign]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="utf-8", errors="surrogateescape", write_through=True))
            patch.setattr(sys, "stderr", err)
            status = run([str(word) for word in words])
            sys.stdout.flush()
            return Outcome(status, out.getvalue(), err.getvalue())

    logger = logging.getLogger("s3mount")
    before, level = list(logger.handlers), logger.level
    yield command
    logger.handlers, logger.level = before, level


@pytest.fixture(scope="session")
def with_bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with an empty bucket, to be copied: that is quicker than to make one for each test."""
    folder = tmp_path_factory.mktemp("with-bucket") / "data"
    engine = Engine.open(folder)
    engine.create_bucket("bucket")
    engine.close()
    return folder


@pytest.fixture(scope="session")
def with_keys(with_bucket: Path) -> Path:
    """The same with KEYS in the bucket, each key's content being the key."""
    folder = with_bucket.with_name("with-keys")
    shutil.copytree(with_bucket, folder)
    engine = Engine.open(folder)
    for key in KEYS:
        engine.put("bucket", Key(key), key.encode(), How())
    engine.close()
    return folder


@pytest.fixture
def bucket(s3mount: Command, with_bucket: Path, data: Path) -> str:
    """The URL of a bucket that is there."""
    shutil.copytree(with_bucket, data)
    return "local://bucket"


@pytest.fixture
def filled(s3mount: Command, with_keys: Path, data: Path) -> str:
    """The URL of a bucket with KEYS."""
    shutil.copytree(with_keys, data)
    return "local://bucket"

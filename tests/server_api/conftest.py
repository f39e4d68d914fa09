"""Fixtures: a server that verifies signatures, a client of it, a bucket; a server without authentication."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from s3mount.model import Key
from s3mount.server.access import KeyPair, Keyring
from tests.server_api.serving import ACCESS_KEY, SECRET, Served

NUMBERS = count(1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("data"), Keyring([KeyPair(ACCESS_KEY, SECRET)]))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3(served: Served) -> Any:
    return served.client()


@pytest.fixture
def bucket(s3: Any) -> str:
    """A fresh bucket."""
    name = f"bucket-{next(NUMBERS)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "data")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def open_server_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """As `open_server`, with a bucket and an object."""
    server = Served(tmp_path_factory.mktemp("open"))
    server.engine.create_bucket("box")
    server.engine.put("box", Key("key"), b"as it was")
    yield server
    server.stop()

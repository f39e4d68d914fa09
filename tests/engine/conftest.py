"""An engine with one bucket, whose invariants hold when the test is over; what engines that "died" in a test leave open is closed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.engine import index
from s3mount.engine.engine import Engine
from tests.engine.helpers import BUCKET, Clock


@pytest.fixture(autouse=True)
def no_connection_outlives_its_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that is killed has its files closed by the kernel; an engine that a test drops has nobody, and Python 3.13 complains."""
    connect, made = index._connect, list[sqlite3.Connection]()

    def connected(path: Path, cache_kib: int) -> sqlite3.Connection:
        made.append(connect(path, cache_kib))
        return made[-1]

    monkeypatch.setattr(index, "_connect", connected)
    yield
    for connection in made:
        connection.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine.open(tmp_path / "data", clock_ns=Clock())
    engine.create_bucket(BUCKET)
    yield engine
    assert engine.check() == []
    engine.close()

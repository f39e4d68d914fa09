"""An engine with one bucket, whose invariants hold when the test is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from tests.engine.helpers import BUCKET, Clock


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine.open(tmp_path / "data", clock_ns=Clock())
    engine.create_bucket(BUCKET)
    yield engine
    assert engine.check() == []
    engine.close()

"""What an operation costs, counted in statements: seconds differ between machines, statements do not."""

from __future__ import annotations

from collections.abc import Callable

from s3mount.engine.engine import Engine
from s3mount.model import Key
from tests.engine.helpers import BUCKET

FILE = Key("folder/file")


def statements(engine: Engine, work: Callable[[], object]) -> list[str]:
    """What the index's writing connection is asked while *work* runs."""
    seen: list[str] = []
    engine.index.writer.set_trace_callback(seen.append)
    try:
        work()
    finally:
        engine.index.writer.set_trace_callback(None)
    return [statement.split()[0] for statement in seen]


def test_a_removal_takes_eleven_statements(engine: Engine) -> None:
    engine.put(BUCKET, FILE, b"text", durable=False)
    asked = statements(engine, lambda: engine.delete(BUCKET, FILE, durable=False))
    assert len(asked) <= 11, asked


def test_a_small_put_takes_twelve_statements(engine: Engine) -> None:
    engine.put(BUCKET, Key("folder/other"), b"text", durable=False)
    asked = statements(engine, lambda: engine.put(BUCKET, FILE, b"another text", durable=False))
    assert len(asked) <= 12, asked


def test_a_commit_behind_somebody_elses_follows_it_first(engine: Engine) -> None:
    engine.put(BUCKET, FILE, b"text", durable=False)
    with Engine.open(engine.folder) as other:
        other.put(BUCKET, FILE, b"theirs", durable=False)
        other.delete(BUCKET, FILE, durable=False)
    info = engine.put(BUCKET, Key("folder/other"), b"ours", durable=False)
    assert engine.find(BUCKET, FILE).object is None
    assert engine.find(BUCKET, info.key).object == info

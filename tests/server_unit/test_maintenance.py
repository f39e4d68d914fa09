"""The upkeep of a served folder: what is done when, within bounds, and never after the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.model import Key
from s3mount.server.figures import Board
from s3mount.server.maintenance import Bounds, Maintenance, Rebuilder, Stopped
from tests.conftest import ExpectLogs

DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now

    def ns(self) -> int:
        return int(self.now * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path, clock: Clock) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data", clock_ns=clock.ns) as engine:
        engine.create_bucket("box")
        yield engine


def upkeep(engine: Engine, clock: Clock, board: Board, *, rate: int = 1 << 30) -> Maintenance:
    return Maintenance(engine, Bounds(3600, 7 * DAY, 30 * DAY, rate), board.row(0), clock=clock)


def test_an_upload_that_nobody_goes_on_with_is_aborted(engine: Engine, clock: Clock) -> None:
    board = Board(1)
    engine.create_upload("box", Key("old"))
    continued = engine.create_upload("box", Key("continued"))
    clock.now += 5 * DAY
    engine.put_part("box", continued, 1, b"part")
    engine.create_upload("box", Key("new"))
    clock.now += 3 * DAY
    upkeep(engine, clock, board).abort_abandoned()
    assert {upload.key for upload in engine.uploads("box")} == {"continued", "new"}
    assert board.total("aborted_uploads_total") == 1


def test_a_scrub_reports_damage_and_is_remembered(engine: Engine, clock: Clock, expect_logs: ExpectLogs) -> None:
    expect_logs("The scrub found damage")
    board = Board(1)
    engine.put("box", Key("a"), os.urandom(100_000))
    (body,) = [path for path in engine.layout.bodies.rglob("*") if path.is_file()]
    body.chmod(0o600)
    body.write_bytes(bytes(100_000))
    upkeep(engine, clock, board).scrub()
    assert board.total("scrubbed_bytes_total") == 100_000
    assert board.total("damages_total") == 1
    assert (engine.folder / "scrubbed").exists()


def test_a_slow_scrub_ends_with_the_server(engine: Engine, clock: Clock) -> None:
    engine.put("box", Key("one large body"), os.urandom(9_000_000))
    board = Board(1)
    maintenance = upkeep(engine, clock, board, rate=4096)
    threading.Timer(0.05, maintenance.stop).start()
    with pytest.raises(Stopped):
        maintenance.scrub()
    assert board.total("scrubbed_bytes_total") < 9_000_000


def test_what_runs_in_its_thread_ends_when_told(engine: Engine, clock: Clock) -> None:
    maintenance = upkeep(engine, clock, Board(1))
    maintenance.start()
    maintenance.stop()
    maintenance.stop()


def test_only_one_index_is_made_anew_at_a_time(engine: Engine) -> None:
    gate, entered = threading.Event(), threading.Event()

    class Slow:
        folder = engine.folder

        def rebuild_index(self) -> int:
            entered.set()
            gate.wait()
            return engine.rebuild_index()

    first, second = Rebuilder(Slow()), Rebuilder(engine)  # type: ignore[arg-type]
    assert first.begin()
    entered.wait()
    assert not second.begin()
    gate.set()
    first.join()
    assert second.begin()
    second.join()

"""Scrub reads every byte, tells what does not match, moves it aside and deletes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.errors import Corrupt
from s3mount.model import Key
from tests.engine.observe import BUCKET, content_of

LARGE = 50_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data", boot_id="boot") as engine:
        engine.create_bucket(BUCKET)
        for number in range(6):
            put(engine, f"large{number}", b"%d" % number * LARGE)
            put(engine, f"small{number}", b"%d" % number * 100)
        yield engine


def put(engine: Engine, key: str, data: bytes) -> None:
    engine.put(BUCKET, Key(key), data, durable=False)


def body_of(engine: Engine, key: str) -> Path:
    with engine.index.read() as db:
        ((name,),) = db.execute(
            "SELECT b.name FROM name n JOIN extent e ON e.file = n.file JOIN body b ON b.id = e.body WHERE n.key = ?", (key.encode(),)
        )
    return engine.bodies.path(name)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_a_sound_store_is_read_whole_and_nothing_is_said(engine: Engine) -> None:
    seen: list[tuple[int, int]] = []
    report = engine.scrub(lambda done, total: seen.append((done, total)))
    assert (report.bodies, report.bytes, report.quarantined, report.damaged) == (12, 6 * LARGE + 600, 0, ())
    assert seen[-1] == (report.bytes, report.bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_body_with_one_bit_changed_goes_to_quarantine_and_its_objects_are_named(engine: Engine) -> None:
    engine.copy(BUCKET, Key("large2"), Key("copy"))
    path = body_of(engine, "large2")
    flip(path, LARGE - 1)
    report = engine.scrub()
    assert report.quarantined == 1
    (sentence,) = report.damaged
    assert f"The body {path.name} does not match its hash and went to quarantine" in sentence
    assert "'bucket/large2'" in sentence
    assert "'bucket/copy'" in sentence
    assert (engine.folder / "quarantine" / path.name).stat().st_size == LARGE
    with pytest.raises(Corrupt):
        engine.open_object(BUCKET, Key("large2"))
    assert content_of(engine, "large3") == b"3" * LARGE


def test_a_body_cut_short_goes_to_quarantine(engine: Engine) -> None:
    os.truncate(body_of(engine, "large0"), 7)
    report = engine.scrub()
    assert report.quarantined == 1
    assert "has 7 bytes instead of 50000" in report.damaged[0]


def test_a_missing_body_is_reported_each_time(engine: Engine) -> None:
    body_of(engine, "large0").unlink()
    for _ in range(2):
        report = engine.scrub()
        assert report.quarantined == 0
        assert "is missing; it belongs to 'bucket/large0'" in report.damaged[0]


def test_damaged_bytes_in_the_log_are_reported_and_stay(engine: Engine) -> None:
    with engine.index.read() as db:
        ((segment, offset),) = db.execute("SELECT segment, offset FROM body WHERE size = 100 ORDER BY id LIMIT 1")
    flip(engine.layout.segment(segment), offset + 50)
    report = engine.scrub()
    assert report.quarantined == 0
    assert any("does not match its hash; it belongs to 'bucket/small0'" in sentence for sentence in report.damaged)
    assert any("The log is damaged" in sentence for sentence in report.damaged)


def test_a_reader_goes_on_reading_what_was_quarantined_meanwhile(engine: Engine) -> None:
    reader = engine.open_object(BUCKET, Key("large1"))
    flip(body_of(engine, "large1"), LARGE - 1)
    assert engine.scrub().quarantined == 1
    buffer = bytearray(100)
    reader.read_into(0, memoryview(buffer))
    assert buffer == b"1" * 100
    reader.close()


def test_bytes_put_again_after_their_body_was_quarantined_are_whole(engine: Engine) -> None:
    flip(body_of(engine, "large1"), 0)
    assert engine.scrub().quarantined == 1
    put(engine, "large1", b"1" * LARGE)
    assert content_of(engine, "large1") == b"1" * LARGE
    assert engine.scrub().damaged == ()


def test_what_dies_while_the_scrub_runs_is_no_damage(engine: Engine) -> None:
    def progress(done: int, total: int) -> None:
        for number in range(6):
            engine.delete(BUCKET, Key(f"large{number}"))
        engine.sync()

    assert engine.scrub(progress).damaged == ()

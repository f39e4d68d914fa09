"""One JSON object per line, in files that are put aside, kept and compressed as told, by one process or several."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest

from s3mount.server.logs import JsonLine, RotatedFile


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "s3mount.server", "levelname": "INFO", "levelno": logging.INFO, "msg": message})
    made.fields = fields
    return made


def handler(path: Path, *, size: int = 4096, count: int = 3, compress: bool = True) -> RotatedFile:
    made = RotatedFile(path, size=size, count=count, compress=compress)
    made.setFormatter(JsonLine())
    return made


def events(folder: Path) -> list[str]:
    found = []
    for path in folder.iterdir():
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        found += [json.loads(line)["event"] for line in text.splitlines()]
    return found


def test_a_line_is_one_object_with_its_fields() -> None:
    line = JsonLine().format(record("request", method="GET", path="/b/a\nb", status=200))
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["event"] == "request"
    assert (parsed["method"], parsed["path"], parsed["status"]) == ("GET", "/b/a\nb", 200)
    assert parsed["time"].endswith("Z")


def test_a_full_file_is_put_aside_and_older_ones_are_compressed(tmp_path: Path) -> None:
    log = handler(tmp_path / "log")
    for number in range(150):
        log.emit(record(f"{number:04}" + "x" * 100))
    log.close()
    assert {path.name for path in tmp_path.iterdir()} == {"log", "log.1", "log.2.gz", "log.3.gz"}
    kept = sorted(events(tmp_path))
    assert kept == [f"{number:04}" + "x" * 100 for number in range(150 - len(kept), 150)]


def test_without_compression_nothing_is_compressed(tmp_path: Path) -> None:
    log = handler(tmp_path / "log", count=2, compress=False)
    for _ in range(150):
        log.emit(record("x" * 100))
    log.close()
    assert {path.name for path in tmp_path.iterdir()} == {"log", "log.1", "log.2"}


def test_nothing_is_kept_where_the_count_is_zero(tmp_path: Path) -> None:
    log = handler(tmp_path / "log", count=0)
    for _ in range(150):
        log.emit(record("x" * 100))
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_several_on_one_file_lose_no_line(tmp_path: Path) -> None:
    logs = [handler(tmp_path / "log", count=100) for _ in range(3)]
    for number in range(300):
        logs[number % 3].emit(record(f"{number:04}" + "x" * 100))
    for log in logs:
        log.close()
    assert sorted(events(tmp_path)) == [f"{number:04}" + "x" * 100 for number in range(300)]


def test_a_file_that_somebody_removed_is_made_anew(tmp_path: Path) -> None:
    log = handler(tmp_path / "log")
    log.emit(record("before"))
    (tmp_path / "log").unlink()
    log.emit(record("after"))
    log.close()
    assert events(tmp_path) == ["after"]


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        handler(tmp_path / "missing" / "log")

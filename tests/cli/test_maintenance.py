"""store check, sweep, scrub, rebuild."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.cli.conftest import Command

CONTENT = random.Random(2).randbytes(100_000)


@pytest.fixture
def filled(s3mount: Command, bucket: str) -> str:
    s3mount("cp", "-", f"{bucket}/large", stdin=CONTENT)
    s3mount("cp", "-", f"{bucket}/small", stdin=b"small")
    return bucket


def bodies(data: Path) -> list[Path]:
    return [path for path in (data / "bodies").rglob("*") if path.is_file()]


@pytest.mark.parametrize("action", ["check", "sweep", "scrub", "rebuild"])
def test_a_healthy_folder_is_clean(s3mount: Command, filled: str, data: Path, action: str) -> None:
    outcome = s3mount("store", action)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.text.startswith(f"{data}: clean")
    assert s3mount("cat", f"{filled}/large").out == CONTENT


@pytest.mark.parametrize("action", ["check", "sweep", "scrub", "rebuild"])
def test_programs_get_one_record(s3mount: Command, filled: str, data: Path, action: str) -> None:
    (record,) = s3mount("store", action, "--json").records
    assert (record["kind"], record["folder"], record["clean"]) == (action, str(data), True)


@pytest.mark.parametrize("action", ["check", "sweep", "scrub", "rebuild"])
def test_a_folder_that_is_not_there_is_named(s3mount: Command, data: Path, action: str) -> None:
    outcome = s3mount("store", action)
    assert outcome.status == 1
    assert str(data) in outcome.err
    assert outcome.err.count("\n") == 1
    assert not data.exists()


def test_scrub_finds_damage_and_keeps_it(s3mount: Command, filled: str, data: Path, expect_logs: Command) -> None:
    expect_logs("")
    (body,) = bodies(data)
    body.chmod(0o600)
    with body.open("r+b") as file:
        file.seek(5000)
        file.write(b"\0\0\0\0")
    outcome = s3mount("store", "scrub")
    assert outcome.status == 1
    assert "1 problem" in outcome.lines[-1]
    assert list((data / "quarantine").iterdir()), "never deleted"
    assert s3mount("store", "check", "--json").records[0]["clean"] is False
    assert s3mount("cat", f"{filled}/large").status == 1


def test_a_lost_index_is_rebuilt(s3mount: Command, filled: str, data: Path) -> None:
    for path in data.glob("index.db*"):
        path.unlink()
    (record,) = s3mount("store", "rebuild", "--json").records
    assert record["clean"]
    assert s3mount("cat", f"{filled}/small").out == b"small"


def test_damage_in_the_middle_of_the_log_is_said_and_salvaged_on_request(
    s3mount: Command, filled: str, data: Path, expect_logs: Command
) -> None:
    expect_logs("")
    for path in data.glob("index.db*"):
        path.unlink()
    (segment,) = data.glob("log/*.log")
    size = segment.stat().st_size
    with segment.open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(64))
    refused = s3mount("ls", filled)
    assert refused.status == 1
    assert "Traceback" not in refused.err
    assert "s3mount store rebuild --salvage" in refused.err
    salvaged = s3mount("store", "rebuild", "--salvage")
    assert salvaged.status == 1
    assert "problem" in salvaged.lines[-1]
    assert s3mount("ls").status == 0
    assert s3mount("store", "check").status == 0


def test_sweep_leaves_what_is_young(s3mount: Command, filled: str, data: Path) -> None:
    orphan = data / "bodies" / "ab" / "ab" / ("ab" * 32 + "-orphan")
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"x")
    assert s3mount("store", "sweep", "--json").records[0]["bodies"] == 0
    assert orphan.exists()
    assert s3mount("store", "sweep", "--grace", "0", "--json").records[0]["bodies"] == 1
    assert not orphan.exists()
    assert s3mount("cat", f"{filled}/large").out == CONTENT

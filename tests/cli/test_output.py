"""Sizes, times and names as they are printed."""

from __future__ import annotations

import json

import pytest

from s3mount.cli import output
from s3mount.model import ETag, Key, ObjectInfo


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (1536, "1.5K"),
        (10 * 1024, "10K"),
        (1023 * 1024 + 900, "1.0M"),
        (1024**2, "1.0M"),
        (5 * 1024**4, "5.0T"),
        (10187, "9.9K"),
        (10190, "10K"),
    ],
)
def test_a_size_for_people_has_two_or_three_digits(size: int, text: str) -> None:
    assert output.size_text(size, human=True) == text
    assert output.size_text(size) == str(size)


def test_a_time_for_programs_is_in_utc() -> None:
    assert output.time_json(0) == "1970-01-01T00:00:00.000000Z"
    assert output.time_json(1_500_000_000_123_456_789) == "2017-07-14T02:40:00.123456Z"


def test_control_characters_are_no_commands_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a\x1b[2Jb\nc\u202eé"
    assert output.shown(name) == name, "a pipe gets the name as it is"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert output.shown(name) == "a\\x1b[2Jb\\nc\\u202eé"


def test_a_record_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    info = ObjectInfo(Key("a\nb"), 3, ETag("x"), 1, metadata={"mode": "33188"})
    output.print_json(output.object_json(info, "local://bucket/a"))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed)["key"] == "a\nb"
    assert json.loads(printed)["metadata"] == {"mode": "33188"}


def test_a_bar_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress_bar("Copying", 10) as progress:
        progress(10)
    assert capsys.readouterr() == ("", "")


def test_a_bar_counts_to_its_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with output.progress_bar("Copying", 10) as progress:
        progress(5)
        progress(5)
    assert "Copying" in capsys.readouterr().err

"""`s3mount versions` and `restore -r`, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.model import Key
from tests.cli.conftest import Command

B = "bucket"


@pytest.fixture
def kept(data: Path) -> Path:
    """`a` was replaced and removed, `a/b` replaced; `z` is older than the keeping of versions."""
    with Engine.open(data) as engine:
        engine.create_bucket(B)
        engine.put(B, Key("z"), b"1")
        engine.set_versioning(B, "enabled")
        for content in (b"1", b"22"):
            engine.put(B, Key("a"), content)
            engine.put(B, Key("a/b"), content)
        engine.delete(B, Key("a"))
    return data


def test_versions_are_listed_the_newest_first_and_deletions_too(kept: Path, s3mount: Command) -> None:
    records = s3mount("versions", "local://bucket", "--json").records
    assert [(record["key"], record["kind"], record.get("size"), record["latest"]) for record in records] == [
        ("a", "delete-marker", None, True),
        ("a", "version", 2, False),
        ("a", "version", 1, False),
        ("a/b", "version", 2, True),
        ("a/b", "version", 1, False),
        ("z", "version", 1, True),
    ]
    assert records[-1]["version_id"] == "null"
    assert len({record["version_id"] for record in records}) == 6


def test_a_url_means_the_object_and_only_without_one_what_lies_below(kept: Path, s3mount: Command) -> None:
    def keys(url: str) -> list[str]:
        return [record["key"] for record in s3mount("versions", url, "--json").records]

    assert keys("local://bucket/a") == ["a", "a", "a"]
    assert keys("local://bucket/a/") == ["a/b", "a/b"]
    assert keys("local://bucket/z") == ["z"]
    outcome = s3mount("versions", "local://bucket/none")
    assert outcome.status == 1
    assert "no version of it" in outcome.err


def test_lines_for_people_mark_what_is_read_now(kept: Path, s3mount: Command) -> None:
    lines = s3mount("versions", "local://bucket/a").lines
    assert [line[0] for line in lines] == ["*", " ", " "]
    assert "deleted" in lines[0]
    assert all(line.endswith("  a") for line in lines)

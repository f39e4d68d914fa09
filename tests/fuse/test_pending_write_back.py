"""What a mount with --write-back has promised and not sent: shown, retried, discarded, exported, with the mount and after it."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.mounting import Mount, until
from tests.fuse.remote import boto
from tests.fuse.test_failed_commit import BUCKET, body, bucket, client, command, front, keys, listed, mount, said, server
from tests.wire.faults import Rule
from tests.wire.front import Front

__all__ = ["bucket", "client", "front", "mount", "server"]  # fixtures

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

DOWN = Rule("answer", kinds=("PUT", "CreateUpload", "UploadPart"), status=503, code="SlowDown")


@pytest.fixture
def late(mount: Mount) -> Mount:
    """The mount, with --write-back."""
    mount.options = (*mount.options, "--write-back", "--flush-timeout", "1s")
    mount.expected = [".*"]
    return mount.again()


def until_listed(*states: str) -> list[dict[str, Any]]:
    """What is pending, once it has these states."""
    found = list[dict[str, Any]]()

    def have_them() -> bool:
        found[:] = listed()
        return [item["state"] for item in found] == list(states)

    until(have_them)
    return found


def told(path: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(said("status", "--json", path))
    return status


def test_status_shows_how_much_waits_how_old_and_with_what_error(late: Mount, front: Front, bucket: Any) -> None:
    front.spoil(DOWN)
    for number in range(3):
        (late.path / f"file{number}").write_bytes(b"x" * 1000)
    items = until_listed("queued", "queued", "queued")
    assert {item["mountpoint"] for item in items} == {str(late.path)}
    assert all(item["size"] == 1000 for item in items)
    until(lambda: bool(told(late.path)["store"]["write_back"]["error"]))
    behind = told(late.path)["store"]["write_back"]
    assert (behind["pending"], behind["pending_bytes"], behind["refused"]) == (3, 3000, 0)
    text = said("status", late.path)
    assert re.search(r"^write-back +3 to send \(2.9KB\), the oldest \d+ s old, .*last failure: ", text, re.MULTILINE)
    assert "sends it by itself" in said("retry", items[0]["id"], status=1)
    assert "remove the file there" in said("discard", items[0]["url"], status=1)
    assert said("discard", "--all", f"s3://{BUCKET}") == ""
    front.spoil()
    said("flush", late.path)
    until_listed()  # the journal forgets what has arrived a moment later
    assert sorted(keys(bucket)) == ["file0", "file1", "file2"]
    assert told(late.path)["store"]["write_back"]["sent"] == 3


def test_what_is_left_after_the_mount_is_sent_without_one(late: Mount, front: Front, bucket: Any, tmp_path: Path) -> None:
    front.spoil(DOWN)
    for number in range(3):
        (late.path / f"file{number}").write_bytes(b"%d" % number * 200_000)
    (late.path / "file2").unlink()
    late.kill()
    items = until_listed("queued", "queued", "queued")
    assert [(item["key"], item["removal"], item["mountpoint"]) for item in items] == [
        ("file0", False, None),
        ("file1", False, None),
        ("file2", True, None),
    ]
    said("export", items[0]["id"], tmp_path / "exported")
    assert (tmp_path / "exported").read_bytes() == b"0" * 200_000
    assert command("retry", "--all", f"s3://{BUCKET}").status == 1
    front.spoil()
    assert said("retry", "--all", f"s3://{BUCKET}").splitlines() == [f"s3://{BUCKET}/file{number}: stored" for number in range(2)]
    assert listed() == []
    assert sorted(keys(bucket)) == ["file0", "file1"]
    assert body(bucket, "file1") == b"1" * 200_000


def overtaken(mount: Mount, front: Front, bucket: Any, *names: str) -> dict[str, dict[str, Any]]:
    """Edits of objects that somebody else replaces before they are sent; what is pending of them, by key."""
    for name in names:
        bucket.put_object(Bucket=BUCKET, Key=name, Body=b"base")
    for name in names:
        assert mount.seen(name).read_bytes() == b"base"
    front.spoil(DOWN)
    for name in names:
        with open(mount.path / name, "r+b") as file:
            file.write(b"ours")
    with closing(boto(front.upstream)) as somebody:
        for name in names:
            somebody.put_object(Bucket=BUCKET, Key=name, Body=b"theirs")
    front.spoil()
    return {item["key"]: item for item in until_listed(*["failed"] * len(names))}


def test_what_the_bucket_refused_is_dealt_with_by_the_mount_that_has_it(late: Mount, front: Front, bucket: Any) -> None:
    items = overtaken(late, front, bucket, "a", "b")
    assert {item["mountpoint"] for item in items.values()} == {str(late.path)}
    assert told(late.path)["store"]["write_back"]["refused"] == 2
    said("retry", items["a"]["id"], status=1)
    assert body(bucket, "a") == b"theirs"
    assert said("retry", "--overwrite", items["a"]["id"]) == f"{items['a']['url']}: stored\n"
    said("discard", items["b"]["url"])
    until_listed()
    assert (body(bucket, "a"), body(bucket, "b")) == (b"ours", b"theirs")
    assert told(late.path)["store"]["write_back"]["refused"] == 0


def test_what_the_bucket_refused_is_dealt_with_after_the_mount(late: Mount, front: Front, bucket: Any, tmp_path: Path) -> None:
    items = overtaken(late, front, bucket, "a", "b", "c")
    command("umount", late.path)
    late.process.wait()
    said("retry", items["a"]["id"], status=1)
    said("retry", "--overwrite", items["a"]["id"])
    said("discard", items["b"]["id"])
    said("export", items["c"]["id"], tmp_path)
    assert (tmp_path / "c").read_bytes() == b"ours"
    said("discard", "--all", f"s3://{BUCKET}")
    assert listed() == []
    assert [body(bucket, key) for key in keys(bucket)] == [b"ours", b"theirs", b"theirs"]

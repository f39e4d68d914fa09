"""What a mount could not store: who is told, and that nothing of it is lost until they say so. Real mounts of a bucket that refuses."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s3mount.cli.main import run
from tests.fuse.mounting import Mount, error_of, until
from tests.fuse.remote import boto, remote_mount
from tests.server.serving import served
from tests.wire.faults import Rule
from tests.wire.front import Front

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

BUCKET = "failing"
REFUSED = Rule("answer", kinds=("PUT", "CreateUpload", "UploadPart"), key="precious", status=403, code="AccessDenied")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with served(tmp_path_factory.mktemp("served")) as server, Front(f"{server.host}:{server.port}") as front:
        yield front


@pytest.fixture
def front(server: Front) -> Iterator[Front]:
    yield server
    server.spoil()


@pytest.fixture(scope="module")
def client(server: Front) -> Iterator[Any]:
    client = boto(server.url)
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


@pytest.fixture
def bucket(client: Any) -> Any:
    """Emptied."""
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    return client


@pytest.fixture
def mount(front: Front, bucket: Any, tmp_path: Path) -> Iterator[Mount]:
    with remote_mount(tmp_path / "mounted", front.url, BUCKET, "--retry-for", "1") as mount:
        mount.expected = ["Access Denied|precious|AccessDenied"]
        yield mount


def shown(path: Path) -> bytes:
    """What is read, whatever close has to say."""
    fd = os.open(path, os.O_RDONLY)
    data = os.pread(fd, 1 << 20, 0)
    error_of(lambda: os.close(fd))
    return data


def body(bucket: Any, key: str) -> bytes:
    found: bytes = bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return found


def keys(bucket: Any) -> list[str]:
    return [entry["Key"] for entry in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    out: str
    err: str


def command(*words: str | Path) -> Done:
    """One command line, run in this process: most of what it would take in its own is importing."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run([str(word) for word in words])
    return Done(status, out.getvalue(), err.getvalue())


def listed(*words: str | Path) -> list[dict[str, Any]]:
    """What `s3mount pending` lists of our bucket."""
    done = command("pending", "--json", *(words or (f"s3://{BUCKET}",)))
    assert (done.status, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


def said(*words: str | Path, status: int = 0) -> str:
    """Standard output, or standard error where the command failed as it should."""
    done = command(*words)
    assert done.status == status, done
    return done.err if status else done.out


def write_refused(mount: Mount, front: Front, name: str = "precious.txt", data: bytes = b"precious") -> bytes:
    front.spoil(REFUSED)
    fd = os.open(mount.path / name, os.O_CREAT | os.O_WRONLY, 0o640)
    os.write(fd, data)
    os.utime(fd, ns=(10**18, 10**18 + 7))
    assert error_of(lambda: os.close(fd)) == errno.EACCES
    return data


def test_what_close_could_not_store_waits_in_the_mount_and_is_stored_on_demand(mount: Mount, front: Front, bucket: Any) -> None:
    data = write_refused(mount, front)
    until(lambda: [item["state"] for item in listed(mount.path)] == ["waiting"])  # it is tried again now and then
    (item,) = listed(mount.path)
    assert (item["key"], item["size"], item["mountpoint"]) == ("precious.txt", len(data), str(mount.path))
    assert "precious.txt" in item["reason"] or "denied" in item["reason"].lower()
    assert listed(f"s3://{BUCKET}/other") == []
    assert "precious.txt" in said("pending", mount.path)
    assert item["reason"].rstrip(".") in said("retry", item["url"], status=1)
    assert shown(mount.path / "precious.txt") == data
    front.spoil()
    told = command("retry", item["url"])
    assert told.out == f"{item['url']}: stored\n" or "Nothing is pending" in told.err  # the mount may have been faster
    assert body(bucket, "precious.txt") == data
    assert listed(mount.path) == []


def test_what_a_mount_could_not_store_by_its_end_is_kept_and_told(mount: Mount, front: Front, bucket: Any, tmp_path: Path) -> None:
    """Tags and headers of the object whose place it takes go with it: they were dropped by `retry`."""
    had = {"Metadata": {"mode": str(0o100640)}, "Tagging": "kept=yes", "CacheControl": "max-age=60"}
    bucket.put_object(Bucket=BUCKET, Key="precious.txt", Body=b"before", **had)
    mount.seen("precious.txt")
    data = write_refused(mount, front, data=random.Random(1).randbytes(300_000))
    told = said("umount", mount.path, status=1)
    assert "1 file could not be stored" in told
    assert "s3mount pending" in told
    mount.wait(status=1)
    (item,) = listed()
    assert (item["state"], item["size"], item["mountpoint"]) == ("kept", len(data), None)
    mount.start()
    assert f"1 file of earlier mounts could not be stored: s3mount pending s3://{BUCKET} lists what" in mount.log.read_text()
    mount.expected.append("earlier mounts")
    assert [item["state"] for item in listed()] == ["kept"]
    mount.stop()
    assert item["id"] in said("pending")
    assert item["reason"].rstrip(".") in said("retry", item["id"], status=1)
    assert listed()[0]["tries"] == 1
    said("export", item["id"], tmp_path / "exported")
    exported = tmp_path / "exported"
    assert exported.read_bytes() == data
    assert (exported.stat().st_mode & 0o777, exported.stat().st_mtime_ns) == (0o640, 10**18 + 7)
    assert "exists" in said("export", item["id"], exported, status=1)
    front.spoil()
    assert said("retry", "--all", f"s3://{BUCKET}") == f"{item['url']}: stored\n"
    assert body(bucket, "precious.txt") == data
    metadata = (head := bucket.head_object(Bucket=BUCKET, Key="precious.txt"))["Metadata"]
    assert head["CacheControl"] == "max-age=60"
    assert bucket.get_object_tagging(Bucket=BUCKET, Key="precious.txt")["TagSet"] == [{"Key": "kept", "Value": "yes"}]
    assert (int(metadata["mode"]) & 0o777, metadata["mtime"]) == (0o640, "1000000000.000000007")
    assert listed() == []


def test_what_is_discarded_is_gone_and_the_bucket_stays_as_it_is(mount: Mount, front: Front, bucket: Any) -> None:
    bucket.put_object(Bucket=BUCKET, Key="precious.txt", Body=b"before")
    mount.seen("precious.txt")
    write_refused(mount, front)
    said("discard", f"s3://{BUCKET}/precious.txt")
    assert listed() == []
    assert (mount.path / "precious.txt").read_bytes() == b"before"
    write_refused(mount, front, "precious.two")
    said("umount", mount.path, status=1)
    mount.wait(status=1)
    assert said("discard", f"s3://{BUCKET}/precious.two") == f"s3://{BUCKET}/precious.two: discarded\n"
    assert "Nothing is pending" in said("discard", f"s3://{BUCKET}/precious.two", status=1)
    assert listed() == []
    assert keys(bucket) == ["precious.txt"]


def test_an_edit_of_what_somebody_replaced_is_kept_and_undoes_nobodys_work(mount: Mount, front: Front, bucket: Any, tmp_path: Path) -> None:
    base = random.Random(2).randbytes(3_000_000)
    bucket.put_object(Bucket=BUCKET, Key="edited", Body=base)
    fd = os.open(mount.seen("edited"), os.O_RDWR)
    assert os.pread(fd, len(base), 0) == base
    os.pwrite(fd, b"edit", 1_000_000)
    bucket.put_object(Bucket=BUCKET, Key="edited", Body=b"theirs")
    mount.expected = ["edited"]
    assert error_of(lambda: os.close(fd)) == errno.ESTALE
    until(lambda: [item["state"] for item in listed(mount.path)] == ["kept"])
    (item,) = listed(mount.path)
    assert "edited" in said("retry", item["id"], status=1)
    assert body(bucket, "edited") == b"theirs"
    said("export", item["id"], tmp_path)
    assert (tmp_path / "edited").read_bytes() == base[:1_000_000] + b"edit" + base[1_000_004:]
    told = command("umount", mount.path)
    assert (told.status, "1 file could not be stored" in told.err) == (0, True)
    mount.wait()
    said("retry", "--overwrite", item["id"])
    assert body(bucket, "edited") == (tmp_path / "edited").read_bytes()
    assert listed() == []


def test_the_rest_of_an_edit_is_fetched_from_its_base_or_said_to_be_gone(mount: Mount, front: Front, bucket: Any, tmp_path: Path) -> None:
    base = random.Random(3).randbytes(3_000_000)
    bucket.put_object(Bucket=BUCKET, Key="precious.edit", Body=base)
    front.spoil(REFUSED)
    fd = os.open(mount.seen("precious.edit"), os.O_RDWR)
    os.pwrite(fd, b"edit", 1_000_000)
    assert error_of(lambda: os.close(fd)) == errno.EACCES
    said("umount", mount.path, status=1)
    mount.wait(status=1)
    (item,) = listed()
    wanted = base[:1_000_000] + b"edit" + base[1_000_004:]
    said("export", item["url"], tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == wanted
    front.spoil()
    bucket.put_object(Bucket=BUCKET, Key="precious.edit", Body=b"theirs")
    told = said("export", item["url"], tmp_path / "torn", status=1)
    assert f" of its {len(base)} bytes were those of a version that is gone" in told
    assert not (tmp_path / "torn").exists()
    said("export", "--partial", item["url"], tmp_path / "torn")
    torn = (tmp_path / "torn").read_bytes()
    assert (len(torn), torn[1_000_000:1_000_004], torn[:900_000], torn[1_100_000:]) == (
        len(base),
        b"edit",
        bytes(900_000),
        bytes(len(base) - 1_100_000),
    )
    assert "export it" in said("retry", "--overwrite", item["url"], status=1)
    assert body(bucket, "precious.edit") == b"theirs"
    bucket.put_object(Bucket=BUCKET, Key="precious.edit", Body=base)
    said("retry", item["url"])
    assert body(bucket, "precious.edit") == wanted


def test_a_mount_that_is_told_to_stop_twice_keeps_what_was_not_committed(mount: Mount, front: Front, bucket: Any) -> None:
    front.spoil(Rule("silence", kinds=("PUT",), key="hanging", seconds=100))
    mount.expected = ["again: stopping now", "hanging", "ended with"]
    writing = subprocess.Popen(["dd", f"of={mount.path}/hanging", "conv=fsync"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert writing.stdin is not None
    writing.stdin.write(b"open")
    writing.stdin.close()
    until(lambda: [item["state"] for item in listed(mount.path)] == ["sending"])
    mount.process.send_signal(signal.SIGTERM)
    until(lambda: "SIGTERM" in mount.log.read_text())
    mount.process.send_signal(signal.SIGTERM)
    mount.wait(status=1)
    assert writing.wait() != 0
    front.spoil()
    (item,) = listed()
    assert (item["key"], item["state"], item["size"]) == ("hanging", "kept", 4)
    said("retry", "--all", f"s3://{BUCKET}")
    assert body(bucket, "hanging") == b"open"


# -- renames --------------------------------------------------------------------------------


def test_a_name_that_a_rename_cannot_delete_is_not_shown_but_told_and_gone_on_demand(mount: Mount, front: Front, bucket: Any) -> None:
    (mount.path / "old").write_bytes(b"old")
    (mount.path / "precious.txt").write_bytes(b"new")
    front.spoil(Rule("answer", kinds=("DELETE",), key="precious", status=403, code="AccessDenied"))
    os.rename(mount.path / "precious.txt", mount.path / "old")
    assert os.listdir(mount.path) == ["old"]
    assert (mount.path / "old").read_bytes() == b"new"
    assert keys(bucket) == ["old", "precious.txt"]
    until(lambda: len(listed(mount.path)) == 1)
    (item,) = listed(mount.path)
    assert (item["key"], item["state"], item["size"]) == ("precious.txt", "renaming", 3)
    assert "is renamed to 'old', and cannot be deleted under its old name yet" in item["reason"]
    assert re.search(r"^renames +1 keys on their way, 1 objects that it may not", said("status", mount.path), re.MULTILINE)
    assert "a rename has the object" in said("discard", item["url"], status=1)
    assert "AccessDenied" in said("retry", item["url"], status=1)
    (mount.path / "old").write_bytes(b"newer")
    front.spoil()
    told = command("retry", item["url"])
    assert told.out == f"{item['url']}: renamed\n" or "Nothing is pending" in told.err  # the mount may have been faster
    assert (keys(bucket), listed(mount.path)) == (["old"], [])
    assert body(bucket, "old") == b"newer"


@pytest.mark.slow
def test_who_may_not_delete_saves_a_file_again_and_again(mount: Mount, front: Front, bucket: Any) -> None:
    """Regression: the second time the other name could not be written, or the file not be replaced."""
    file = mount.path / "f"
    file.write_bytes(b"first")
    front.spoil(Rule("answer", kinds=("DELETE",), key="tmp", status=403, code="AccessDenied"))
    for number, other in enumerate(("tmp", "tmp", "1.tmp", "2.tmp")):
        (mount.path / other).write_bytes(b"%d" % number)
        os.rename(mount.path / other, file)
        assert os.listdir(mount.path) == ["f"]
        assert file.read_bytes() == body(bucket, "f") == b"%d" % number
    until(lambda: len(listed(mount.path)) == 3)
    items = listed(mount.path)
    assert sorted(item["key"] for item in items) == ["1.tmp", "2.tmp", "tmp"]
    front.spoil()
    for item in items:
        command("retry", item["url"])
    assert (keys(bucket), listed(mount.path)) == (["f"], [])

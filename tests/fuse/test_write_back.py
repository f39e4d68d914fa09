"""A mount of s3:// with --write-back: what is said to be safe is safe, and arrives."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.writeback.sender import GATHER_S, SETTLE_S
from tests.fuse.mounting import PATIENCE_S, Mount, s3mount, until
from tests.fuse.remote import boto, bucket_name, remote, remote_mount
from tests.server.serving import served
from tests.wire.faults import Rule
from tests.wire.front import Front

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MiB = 1024 * 1024
FILES = 30
# The store takes nothing for now.
DOWN = Rule("answer", ("PUT", "CreateUpload"))


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with served(tmp_path_factory.mktemp("served")) as server, Front(f"{server.host}:{server.port}") as front:
        yield front


class Bucket:
    """Another client of one bucket."""

    def __init__(self, front: Front, name: str) -> None:
        self.name = name
        self._client = boto(front.url)
        self._client.create_bucket(Bucket=name)

    def close(self) -> None:
        self._client.close()

    def keys(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def get(self, key: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def put(self, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=body)

    def wait(self, keys: list[str]) -> None:
        """Until the bucket holds *keys* and nothing else."""
        until(lambda: self.keys() == sorted(keys))


@pytest.fixture
def bucket(front: Front, request: pytest.FixtureRequest) -> Iterator[Bucket]:
    front.spoil()
    front.set(latency_s=0.0)
    bucket = Bucket(front, bucket_name(request))
    yield bucket
    front.spoil()
    bucket.close()


@pytest.fixture
def mount(front: Front, bucket: Bucket, tmp_path: Path) -> Iterator[Mount]:
    with remote_mount(tmp_path, front.url, bucket.name, "--write-back") as mount:
        yield mount


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(FILES):
        (top / f"file{number:02}").write_bytes(random.Random(number).randbytes(30_000))
    return top


def test_what_is_closed_is_in_the_bucket_after_unmounting(mount: Mount, bucket: Bucket, tree: Path) -> None:
    shutil.copytree(tree, mount.path / "copy")
    (mount.path / "large").write_bytes(random.Random(1).randbytes(20 * MiB))
    mount.stop()
    assert bucket.keys() == ["copy/", *(f"copy/file{number:02}" for number in range(FILES)), "large"]
    assert all(bucket.get(f"copy/{path.name}") == path.read_bytes() for path in tree.iterdir())
    assert bucket.get("large") == random.Random(1).randbytes(20 * MiB)


def test_close_does_not_wait_for_the_store_and_fsync_does(mount: Mount, bucket: Bucket, front: Front) -> None:
    front.spoil(DOWN)
    (mount.path / "closed").write_bytes(b"safe")
    assert (mount.path / "closed").read_bytes() == b"safe"
    assert bucket.keys() == []
    front.spoil()
    with (mount.path / "synced").open("wb") as file:
        file.write(b"there")
        file.flush()
        os.fsync(file.fileno())
        assert bucket.get("synced") == b"there"


def test_after_kill_9_every_closed_file_arrives_as_it_was_closed(mount: Mount, bucket: Bucket, front: Front, tree: Path) -> None:
    front.spoil(DOWN)
    shutil.copytree(tree, mount.path / "copy")
    big = random.Random(2).randbytes(9 * MiB)
    (mount.path / "big").write_bytes(big)
    (mount.path / "copy/file03").unlink()
    os.rename(mount.path / "copy/file04", mount.path / "copy/renamed")
    mount.kill()
    assert bucket.keys() == []
    mount.start()
    assert (mount.path / "big").read_bytes() == big
    assert not (mount.path / "copy/file04").exists()
    assert (mount.path / "copy/renamed").read_bytes() == (tree / "file04").read_bytes()
    front.spoil()
    mount.stop()
    names = {f"copy/file{number:02}" for number in range(FILES)} - {"copy/file03", "copy/file04"} | {"copy/renamed"}
    assert bucket.keys() == sorted({"copy/", "big"} | names)
    assert bucket.get("big") == big
    assert bucket.get("copy/renamed") == (tree / "file04").read_bytes()
    assert bucket.get("copy/file05") == (tree / "file05").read_bytes()


def gathered_meanwhile(began: float) -> int:
    """How many more requests a machine so slow may have sent removals in, while the last ones were to come."""
    return int((time.monotonic() - began) / GATHER_S)


def test_many_removals_are_few_requests(mount: Mount, bucket: Bucket, front: Front, tree: Path) -> None:
    shutil.copytree(tree, mount.path / "copy")
    mount.again()
    began = time.monotonic()
    front.reset()
    shutil.rmtree(mount.path / "copy")
    assert os.listdir(mount.path) == []
    mount.again()
    counts = front.counts()
    assert counts["DELETE"].requests + counts["DeleteObjects"].requests <= 3 + gathered_meanwhile(began), counts
    assert bucket.keys() == []


def test_a_file_that_is_renamed_after_its_close_is_sent_once(mount: Mount, bucket: Bucket, front: Front) -> None:
    """In how many requests the former names are removed depends on how many there are when the sender looks."""
    began, late = time.monotonic(), 0
    front.reset()
    for number in range(10):
        closed = time.monotonic()
        (mount.path / f".tmp{number}").write_bytes(b"x" * 1000)
        os.chmod(mount.path / f".tmp{number}", 0o600)
        os.utime(mount.path / f".tmp{number}", (1, 1))
        os.rename(mount.path / f".tmp{number}", mount.path / f"final{number}")
        late += time.monotonic() - closed > SETTLE_S  # this machine is too slow: it may have been sent by then
    mount.stop()
    counts = front.counts()
    assert bucket.keys() == [f"final{number}" for number in range(10)]
    assert counts["PUT"].requests <= 10 + 3 * late, counts
    assert counts["COPY"].requests <= 3 * late, counts
    assert counts["DELETE"].requests + counts["DeleteObjects"].requests <= 5 + late + gathered_meanwhile(began), counts


def rename(source: Path, target: Path) -> None:
    """On a machine so slow that a change is under way by then, the rename waits for it, and is refused like it."""

    def renamed() -> bool:
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        return True

    until(renamed)


def test_names_and_attributes_of_what_is_in_the_bucket_change_while_it_is_away(mount: Mount, bucket: Bucket, front: Front) -> None:
    (mount.path / "d").mkdir()
    for number in range(10):
        (mount.path / f"d/file{number}").write_bytes(b"%d" % number)
    mount.again()
    front.spoil(Rule("answer", ("PUT", "COPY", "DELETE", "DeleteObjects")))
    for number in range(10):
        os.chmod(mount.path / f"d/file{number}", 0o640)
    rename(mount.path / "d", mount.path / "e")
    rename(mount.path / "e/file3", mount.path / "e/renamed")
    os.utime(mount.path / "e/renamed", (5, 5))
    mount.kill()
    front.spoil()
    mount.start()
    found = {path.name: (path.read_bytes(), path.stat().st_mode & 0o777) for path in (mount.path / "e").iterdir()}
    assert found == {"renamed" if n == 3 else f"file{n}": (b"%d" % n, 0o640) for n in range(10)}
    assert (mount.path / "e/renamed").stat().st_mtime == 5
    mount.stop()
    assert bucket.keys() == sorted({"e/", *(f"e/{name}" for name in found)})


def test_an_edit_of_a_file_that_is_still_waiting_is_one_upload(mount: Mount, bucket: Bucket, front: Front) -> None:
    data = bytearray(random.Random(3).randbytes(9 * MiB))
    front.spoil(DOWN)
    (mount.path / "big").write_bytes(data)
    for offset in (5, 4 * MiB, 9 * MiB - 3):
        with (mount.path / "big").open("r+b") as file:
            file.seek(offset)
            file.write(b"new")
        data[offset : offset + 3] = b"new"
    assert (mount.path / "big").read_bytes() == data
    front.spoil()
    mount.again()
    assert (mount.path / "big").read_bytes() == data
    assert bucket.get("big") == data


def test_an_edit_of_what_is_in_the_bucket_uploads_what_it_changes(mount: Mount, bucket: Bucket, front: Front) -> None:
    data = bytearray(random.Random(4).randbytes(40 * MiB))
    (mount.path / "big").write_bytes(data)
    mount.again()
    front.reset()
    with (mount.path / "big").open("r+b") as file:
        file.seek(20 * MiB)
        file.write(b"changed")
    data[20 * MiB : 20 * MiB + 7] = b"changed"
    assert (mount.path / "big").read_bytes() == data
    os.sync()
    mount.stop()
    assert bucket.get("big") == data
    assert front.counts()["all"].received <= 16 * MiB + 1 * MiB


def test_what_the_store_refuses_is_told_by_fsync_and_kept(mount: Mount, bucket: Bucket, front: Front) -> None:
    (mount.path / "a").write_bytes(b"first")
    fd = os.open(mount.path / "a", os.O_RDWR)
    os.fsync(fd)
    bucket.put("a", b"somebody else's")
    os.pwrite(fd, b"F", 0)
    with pytest.raises(OSError, match="Stale"):
        os.fsync(fd)
    os.close(fd)
    mount.expected = ["could not be stored", "another version by now"]
    assert bucket.get("a") == b"somebody else's"
    subprocess.run(["fusermount3", "-u", mount.path], check=True)
    mount.process.wait(PATIENCE_S)
    mount.judge()


def test_a_second_mount_of_the_bucket_does_without_write_back(mount: Mount, bucket: Bucket, front: Front, tmp_path: Path) -> None:
    other = remote(tmp_path / "other", front.url, bucket.name, "--write-back")
    other.expected = ["Another mount of .* has --write-back already"]
    with other.running():
        (other.path / "b").write_bytes(b"at once")
        assert bucket.get("b") == b"at once"
        (mount.path / "a").write_bytes(b"later")
    mount.stop()
    assert bucket.keys() == ["a", "b"]


def test_unmounting_waits_no_longer_than_it_was_told(front: Front, bucket: Bucket, mount: Mount) -> None:
    mount.stop()
    mount.options = (*mount.options, "--flush-timeout", "1s")
    mount.start()
    front.spoil(DOWN)
    (mount.path / "a").write_bytes(b"safe")
    subprocess.run(["fusermount3", "-u", mount.path], check=True)
    mount.expected = ["not all is in the bucket"]
    assert mount.process.wait(PATIENCE_S) == 1
    assert "the next mount with --write-back sends it" in mount.stderr.read_text()
    front.spoil()
    mount.start()
    bucket.wait(["a"])
    assert (mount.path / "a").read_bytes() == b"safe"


def test_who_waits_for_room_while_the_mount_ends_is_told_in_time(front: Front, bucket: Bucket, mount: Mount) -> None:
    """Regression: with the store away the close of what found no room, and with it the mount, hung for six hours after SIGTERM."""
    mount.stop()
    mount.options = (*mount.options, "--flush-timeout", "2s", "--spool-size", "1MiB")
    mount.start()
    front.spoil(DOWN)
    (mount.path / "a").write_bytes(bytes(MiB))
    with subprocess.Popen(["cp", "/dev/stdin", mount.path / "b"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as cp:
        assert cp.stdin is not None
        cp.stdin.write(b"written" * 1000)
        cp.stdin.close()
        until(lambda: any(file["sending"] for file in json.loads(s3mount("status", "--json", mount.path).stdout)["waiting"]))
        mount.process.terminate()
        assert mount.process.wait(PATIENCE_S) == 1
        assert cp.wait(PATIENCE_S) != 0
        assert cp.stderr is not None
        assert b"timed out" in cp.stderr.read()
    mount.expected = [
        "(flush|release) was given up: it took longer than its deadline",
        "After 2 s (there is no room for all that is to be stored|not all is in the bucket)",
        "'b' could not be stored and is kept aside",
        "'a' and what else waits is not in the bucket yet",
    ]
    mount.judge()
    kept = [json.loads(line) for line in s3mount("pending", "--json", f"s3://{bucket.name}").stdout.splitlines()]
    assert {(item["key"], item["size"]) for item in kept} == {("a", MiB), ("b", 7000)}
    front.spoil()

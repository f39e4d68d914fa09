"""What writing through a mount of s3:// costs in requests, and what stands in the bucket after it."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from s3mount.engine.engine import Engine
from s3mount.engine.values import PLAIN
from s3mount.fs.deferred import WAIT_S
from s3mount.fs.moving import ANSWER_KEYS
from s3mount.fuse.mountpoint import sync_all
from s3mount.model import Key
from tests.fuse.mounting import Mount, until
from tests.fuse.remote import boto, remote_mount
from tests.server.serving import served
from tests.wire.faults import Rule
from tests.wire.front import Counted, Front

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MiB = 1024 * 1024
BUCKET = "written"
FILES = 30

# Objects that others tagged.
TAGS = [{"Key": "team", "Value": "blue+green =1"}, {"Key": "x", "Value": "1"}]
SIZES = (1000, 12 * MiB)
CHANGES = ("edit", "overwrite", "twice", "rename")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with served(tmp_path_factory.mktemp("served")) as server, Front(f"{server.host}:{server.port}") as front:
        yield front


@pytest.fixture(scope="module")
def bucket(front: Front) -> Iterator[Any]:
    client = boto(front.url)
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="known.txt", Body=b"x", ContentType="image/x-own")
    for how, size in product(CHANGES, SIZES):
        what = {"Bucket": BUCKET, "Key": f"tagged-{how}-{size}"}
        client.put_object(**what, Body=b"x" * size, CacheControl="max-age=7", ContentDisposition="inline", ContentType="a/b")
        client.put_object_tagging(**what, Tagging={"TagSet": TAGS})
    yield client
    client.close()


@pytest.fixture(scope="module")
def mount(front: Front, bucket: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """For tests that count: what was listed lives longer than the slowest of them. Nobody else changes what they look at."""
    with remote_mount(tmp_path_factory.mktemp("mounted"), front.url, BUCKET, "--metadata-ttl=10m") as mount:
        yield mount


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of 30 KB with modes and times of their own."""
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(FILES):
        path = top / f"file{number:02}"
        path.write_bytes(random.Random(number).randbytes(30_000))
        path.chmod(0o600 + number % 8)
        os.utime(path, ns=(10**18, 10**18 + number))
    return top


def assert_kept(copy: Path, tree: Path) -> None:
    for path in tree.iterdir():
        there = copy / path.name
        assert there.read_bytes() == path.read_bytes()
        assert (there.stat().st_mode, there.stat().st_mtime_ns) == (path.stat().st_mode, path.stat().st_mtime_ns)


def body(bucket: Any, key: str) -> bytes:
    found: bytes = bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return found


def saved_meanwhile(began: float) -> int:
    """How often a machine so slow may have saved attributes that had waited long enough, while more of them was to come."""
    return int((time.monotonic() - began) / WAIT_S)


def test_cp_and_tar_put_each_file_once(mount: Mount, front: Front, tree: Path) -> None:
    """Beside the files: a marker, its times, and a few listings, whatever the number of files."""
    for name, command in {
        "cp": f"cp -a {tree} {mount.path}/cp",
        "tar": f"mkdir {mount.path}/tar && tar c --format=posix -C {tree} . | tar xp -C {mount.path}/tar",
    }.items():
        began = time.monotonic()
        front.reset()
        subprocess.run(command, shell=True, check=True)
        seen = front.counts()
        assert seen["PUT"].requests == FILES + 1, name
        assert seen["COPY"].requests <= 8 + saved_meanwhile(began), name
        assert seen["HEAD"].requests <= 10, name
        assert_kept(mount.path / name, tree)


def test_rsync_of_an_unchanged_tree_changes_and_asks_nothing_of_the_files(mount: Mount, front: Front, tree: Path) -> None:
    command = ["rsync", "-a", f"{tree}/", f"{mount.path}/rsync"]
    subprocess.run(command, check=True)
    sync_all(mount.path)
    front.reset()
    told = subprocess.run([*command, "-i"], check=True, capture_output=True, text=True).stdout
    seen = front.counts()
    assert told == ""
    assert (seen["PUT"].requests, seen["COPY"].requests, seen["HEAD"].requests) == (0, 0, 0)
    assert_kept(mount.path / "rsync", tree)


def test_rsync_puts_copies_and_deletes_each_file_once(mount: Mount, front: Front, bucket: Any, tree: Path) -> None:
    """The time and the mode that it sets after closing ride with the copy of its rename."""
    began = time.monotonic()
    front.reset()
    subprocess.run(["rsync", "-a", f"{tree}/", f"{mount.path}/anew"], check=True)
    sync_all(mount.path)
    seen = front.counts()
    assert (seen["PUT"].requests, seen["DELETE"].requests) == (FILES + 1, FILES), seen
    assert seen["COPY"].requests <= FILES + 4 + saved_meanwhile(began), seen
    assert seen["HEAD"].requests <= 10, seen
    assert_kept(mount.path / "anew", tree)
    metadata = synced_metadata(mount, bucket, "anew/file07")
    assert (metadata["mtime"], int(metadata["mode"]) & 0o7777) == ("1000000000.000000007", 0o607)


def synced_metadata(mount: Mount, bucket: Any, key: str) -> dict[str, str]:
    """What another client sees, once this mount has synced."""
    fd = os.open(mount.path / key, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return dict(bucket.head_object(Bucket=BUCKET, Key=key)["Metadata"])


def test_chmod_and_touch_of_a_file_are_one_copy_that_fsync_waits_for(mount: Mount, front: Front, bucket: Any) -> None:
    path = mount.path / "described"
    path.write_bytes(b"x" * 1000)
    began = time.monotonic()
    front.reset()
    path.chmod(0o604)
    os.utime(path, ns=(10**18, 10**18 + 9))
    os.setxattr(path, "user.colour", b"blue")
    assert (path.stat().st_mode & 0o7777, path.stat().st_mtime_ns) == (0o604, 10**18 + 9)
    metadata = synced_metadata(mount, bucket, "described")
    assert 1 <= front.counts()["COPY"].requests <= 1 + saved_meanwhile(began)
    assert (metadata["mtime"], int(metadata["mode"]) & 0o7777) == ("1000000000.000000009", 0o604)
    assert path.read_bytes() == b"x" * 1000


def test_what_waits_to_be_saved_is_saved_by_umount(mount: Mount, front: Front) -> None:
    for number in range(20):
        (mount.path / f"late{number}").write_bytes(b"x")
    for number in range(20):
        (mount.path / f"late{number}").chmod(0o640)
    mount.again()
    assert {(mount.path / f"late{number}").stat().st_mode & 0o7777 for number in range(20)} == {0o640}


def test_a_large_file_is_sent_while_it_is_written(mount: Mount, front: Front, bucket: Any) -> None:
    block = random.Random(7).randbytes(MiB)
    front.reset()
    with open(mount.path / "large", "wb", buffering=0) as file:
        for number in range(72):
            file.write(number.to_bytes(8, "big") + block[8:])
    seen = front.counts()
    assert (seen["CreateUpload"].requests, seen["Complete"].requests) == (1, 1)
    assert seen["COPY"].requests == 0
    assert 9 <= seen["UploadPart"].requests <= 18
    assert body(bucket, "large") == b"".join(number.to_bytes(8, "big") + block[8:] for number in range(72))
    assert "Uploads" not in bucket.list_multipart_uploads(Bucket=BUCKET)


def test_what_is_appended_to_a_large_object_is_sent_while_it_is_written(front: Front, bucket: Any, tmp_path: Path) -> None:
    """Five parts behind 20 MiB: the last one, and the 4 MiB of the base that go with the first, wait for the close."""
    base, more = (random.Random(seed).randbytes(size * MiB) for seed, size in ((10, 20), (11, 40)))
    bucket.put_object(Bucket=BUCKET, Key="appended", Body=base, CacheControl="max-age=7")
    with remote_mount(tmp_path, front.url, BUCKET) as mount:
        front.reset()
        fd = os.open(mount.seen("appended"), os.O_WRONLY | os.O_APPEND | os.O_DIRECT)  # else the kernel keeps it for half a minute
        with mmap.mmap(-1, MiB) as page:
            for at in range(0, len(more), MiB):
                page[:] = more[at : at + MiB]
                assert os.write(fd, page) == MiB
        until(lambda: front.counts()["UploadPart"].requests == 4)
        assert front.counts()["UploadPartCopy"].requests == 0
        assert _total(front.counts(), "sent") < MiB
        os.close(fd)
    seen = front.counts()
    kinds = ("CreateUpload", "UploadPart", "UploadPartCopy", "Complete", "COPY")
    assert [seen[kind].requests for kind in kinds] == [1, 6, 2, 1, 0]
    assert _total(seen, "sent") < 5 * MiB
    assert _total(seen, "received") < 45 * MiB
    assert body(bucket, "appended") == base + more
    assert bucket.head_object(Bucket=BUCKET, Key="appended")["CacheControl"] == "max-age=7"
    assert "Uploads" not in bucket.list_multipart_uploads(Bucket=BUCKET)


def test_mode_and_times_set_before_the_close_of_a_large_file_are_kept(mount: Mount, front: Front, bucket: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(8).randbytes(48 * MiB))
    source.chmod(0o640)
    os.utime(source, ns=(10**18, 10**18 + 7))
    subprocess.run(["cp", "-a", source, mount.path / "kept"], check=True)
    metadata = bucket.head_object(Bucket=BUCKET, Key="kept")["Metadata"]
    assert (int(metadata["mode"]) & 0o7777, metadata["mtime"]) == (0o640, "1000000000.000000007")
    assert body(bucket, "kept") == source.read_bytes()


def test_a_small_change_of_a_large_file_sends_and_fetches_no_more_than_a_part(front: Front, bucket: Any, tmp_path: Path) -> None:
    data = bytearray(random.Random(9).randbytes(64 * MiB))
    bucket.put_object(Bucket=BUCKET, Key="edited", Body=bytes(data))
    with remote_mount(tmp_path, front.url, BUCKET) as mount:
        front.reset()
        fd = os.open(mount.seen("edited"), os.O_RDWR)
        os.pwrite(fd, b"!" * 4096, 32 * MiB)
        os.close(fd)
    data[32 * MiB : 32 * MiB + 4096] = b"!" * 4096
    seen = front.counts()
    assert _total(seen, "received") <= 16 * MiB
    assert _total(seen, "sent") <= 9 * MiB
    assert body(bucket, "edited") == data


def test_a_large_file_that_is_removed_while_it_is_written_leaves_nothing(mount: Mount, bucket: Any) -> None:
    fd = os.open(mount.path / "gone", os.O_RDWR | os.O_CREAT)
    for number in range(48):
        os.pwrite(fd, bytes(MiB), number * MiB)
    os.unlink(mount.path / "gone")
    os.pwrite(fd, b"on", 48 * MiB)
    assert os.pread(fd, 2, 48 * MiB) == b"on"
    os.close(fd)
    mount.again()
    assert "Uploads" not in bucket.list_multipart_uploads(Bucket=BUCKET)
    assert not os.path.exists(mount.path / "gone")


def test_a_renamed_file_that_is_still_written_arrives_under_its_new_name(mount: Mount, bucket: Any) -> None:
    with open(mount.path / "before", "wb", buffering=0) as file:
        for _ in range(48):
            file.write(b"1" * MiB)
        os.rename(mount.path / "before", mount.path / "after")
        file.write(b"2")
    assert body(bucket, "after") == b"1" * 48 * MiB + b"2"
    until(lambda: "Uploads" not in bucket.list_multipart_uploads(Bucket=BUCKET))  # nobody waits for an abort
    assert not os.path.exists(mount.path / "before")


def test_new_files_say_what_they_are(mount: Mount, bucket: Any) -> None:
    (mount.path / "page.html").write_text("<p>")
    (mount.path / "plain").write_text("?")
    kinds = {key: bucket.head_object(Bucket=BUCKET, Key=key)["ContentType"] for key in ("page.html", "plain")}
    assert kinds == {"page.html": "text/html", "plain": "application/octet-stream"}
    with open(mount.path / "known.txt", "ab") as file:
        file.write(b"y")
    assert body(bucket, "known.txt") == b"xy"
    assert bucket.head_object(Bucket=BUCKET, Key="known.txt")["ContentType"] == "image/x-own"


@pytest.mark.parametrize("size", SIZES, ids=["small", "large"])
@pytest.mark.parametrize("how", CHANGES)
def test_tags_and_headers_outlive_a_change_of_the_content(mount: Mount, bucket: Any, size: int, how: str) -> None:
    key = f"tagged-{how}-{size}"
    for _ in range(2 if how == "twice" else 1):
        with open(mount.path / key, "wb" if how == "overwrite" else "r+b") as file:
            file.write(b"y")
    if how == "rename":
        (mount.path / key).chmod(0o600)
        os.rename(mount.path / key, mount.path / f"{key}-moved")
        key += "-moved"
    found = bucket.head_object(Bucket=BUCKET, Key=key)
    assert (found["CacheControl"], found["ContentDisposition"], found["ContentType"]) == ("max-age=7", "inline", "a/b")
    assert sorted(bucket.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"], key=str) == sorted(TAGS, key=str)
    assert found["ContentLength"] == (1 if how == "overwrite" else size)


def test_what_this_mount_tagged_keeps_its_tags(mount: Mount, bucket: Any) -> None:
    path = mount.path / "tagged here"
    path.write_bytes(b"x")
    os.setxattr(path, "user.s3.tags", b"a=1")
    path.write_bytes(b"y")
    assert bucket.get_object_tagging(Bucket=BUCKET, Key="tagged here")["TagSet"] == [{"Key": "a", "Value": "1"}]
    assert os.getxattr(path, "user.s3.tags") == b"a=1"


def _total(seen: dict[str, Counted], what: str) -> int:
    total: int = getattr(seen["all"], what)
    return total


# More than are renamed before rename(2) is answered.
MANY = ANSWER_KEYS + 20


def test_a_large_directory_is_renamed_at_once_and_a_kill_in_between_is_made_good(tmp_path: Path) -> None:
    """A copy is answered half a second late, so that all of them take longer than anybody looks."""
    with Engine.open(tmp_path / "data", create=True) as engine:
        engine.create_bucket(BUCKET)
        engine.put_many(BUCKET, ((Key(f"big/{number:04}"), b"%04d" % number, PLAIN) for number in range(MANY)), durable=False)
    with served(tmp_path) as server, Front(server.url) as front, remote_mount(tmp_path / "mounted", front.url, BUCKET) as mount:
        front.spoil(Rule("late", kinds=("COPY",), seconds=0.5))
        os.rename(mount.path / "big", mount.path / "huge")
        assert front.counts()["COPY"].requests < MANY
        assert sorted(os.listdir(mount.path / "huge"))[::1000] == ["0000", "1000"]
        assert (mount.path / "huge/0001").read_bytes() == b"0001"
        assert not (mount.path / "big").exists()
        (mount.path / "huge/0002").write_bytes(b"new")
        assert front.counts()["COPY"].requests < MANY, "else this was too slow to show anything"
        mount.kill()
        front.spoil()
        mount.start()
        assert len(os.listdir(mount.path / "huge")) == MANY
        assert (mount.path / "huge/0002").read_bytes() == b"new"
        assert not (mount.path / "big").exists()
        mount.stop()
        with closing(boto(server.url)) as client:
            assert client.list_objects_v2(Bucket=BUCKET, Prefix="big/")["KeyCount"] == 0

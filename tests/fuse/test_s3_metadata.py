"""What a mount of s3:// knows of its objects, when somebody else changes them and when this mount does; over our own server."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.mounting import Mount, error_of
from tests.fuse.remote import boto, bucket_name, remote
from tests.s3.services import Service, ours
from tests.wire.front import Front

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MiB = 1 << 20

Mounted = Callable[..., Mount]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with ours(tmp_path_factory.mktemp("served")) as service:
        yield service


@pytest.fixture(scope="module")
def front(service: Service) -> Iterator[Front]:
    """Counts what the mounts ask."""
    with Front(service.url) as front:
        yield front


class Bucket:
    """A bucket as another program sees it."""

    def __init__(self, service: Service, name: str) -> None:
        self.name = name
        self.s3 = boto(service.url)

    def put(self, key: str, body: bytes, **more: Any) -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=body, **more)

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def head(self, key: str) -> dict[str, Any]:
        return dict(self.s3.head_object(Bucket=self.name, Key=key))


@pytest.fixture
def bucket(service: Service, request: pytest.FixtureRequest) -> Bucket:
    bucket = Bucket(service, bucket_name(request))
    bucket.s3.create_bucket(Bucket=bucket.name)
    return bucket


@pytest.fixture
def mounted(front: Front, bucket: Bucket, isolated: None, tmp_path: Path) -> Iterator[Mounted]:
    """Mounts the bucket with some options; any number of times side by side."""
    numbers = itertools.count()
    with ExitStack() as made:
        yield lambda *options: made.enter_context(remote(tmp_path / f"mount{next(numbers)}", front.url, bucket.name, *options).running())


def only_this_is_read(fd: int) -> None:
    """Nothing of the file is asked for in the background, where it would meet another version at any time."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)


def test_after_a_read_that_met_another_version_the_new_one_is_opened_at_once(mounted: Mounted, bucket: Bucket) -> None:
    bucket.put("file", b"a" * (48 * MiB))
    top = mounted("--metadata-ttl", "forever").path
    with open(top / "file", "rb", buffering=0) as old:
        only_this_is_read(old.fileno())
        assert old.read(4096) == b"a" * 4096
        bucket.put("file", b"new")
        assert (top / "file").stat().st_size == 48 * MiB  # forever
        assert error_of(lambda: os.pread(old.fileno(), 4096, 40 * MiB)) == errno.ESTALE
        assert (top / "file").read_bytes() == b"new"
        assert (top / "file").stat().st_size == 3


def test_an_object_that_was_removed_is_gone_after_a_read_that_missed_it(mounted: Mounted, bucket: Bucket) -> None:
    bucket.put("d/file", b"a" * (48 * MiB))
    bucket.put("d/other", b"b")
    top = mounted("--metadata-ttl", "forever").path
    assert sorted(os.listdir(top / "d")) == ["file", "other"]
    with open(top / "d/file", "rb", buffering=0) as old:
        only_this_is_read(old.fileno())
        assert old.read(4096) == b"a" * 4096
        bucket.s3.delete_object(Bucket=bucket.name, Key="d/file")
        assert error_of(lambda: os.pread(old.fileno(), 4096, 40 * MiB)) == errno.ESTALE
        assert error_of(lambda: open(top / "d/file", "rb").close()) == errno.ENOENT
        assert os.listdir(top / "d") == ["other"]


def modes_in(folder: Path) -> dict[str, int]:
    return {entry.name: entry.stat().st_mode & 0o777 for entry in os.scandir(folder)}


def test_two_mounts_share_what_they_remember_of_attributes(mounted: Mounted, bucket: Bucket, front: Front, tmp_path: Path) -> None:
    """Each asks for what the other has not recorded yet; nothing is lost, nothing waits, and the next mount asks for nothing."""
    wanted = {f"file{n:04}": 0o600 + n % 64 for n in range(1200)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: bucket.put(f"d/{name}", b"", Metadata={"mode": str(stat.S_IFREG | wanted[name])}), wanted))
    tops = [mounted("--cache-dir", tmp_path / "shared", "--metadata-ttl", "60s") for _ in range(2)]
    tops[1].expected.append("uses .*, so this mount")
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda mount: modes_in(mount.path / "d"), tops))
    assert found == [wanted, wanted]
    (tops[0].path / "d/by one").write_text("1")
    (tops[1].path / "d/by two").write_text("2")
    for mount in tops:
        mount.stop()
    front.reset()
    again = mounted("--cache-dir", tmp_path / "shared", "--metadata-ttl", "60s")
    assert len(modes_in(again.path / "d")) == len(wanted) + 2
    assert front.counts()["HEAD"].requests <= 1  # `d` itself, looked up beside its listing


FOREIGN = {"colour": "blue", "mode": str(stat.S_IFREG | 0o640), "uid": "1234"}


@pytest.mark.parametrize("change", ["chmod", "utime", "xattr", "truncate", "append", "overwrite", "replace"])
def test_with_attributes_of_listings_a_change_keeps_what_the_object_says(
    mounted: Mounted, bucket: Bucket, front: Front, change: str
) -> None:
    """One HEAD for it, and none for whoever looks or reads."""
    bucket.put("d/file", b"content", ContentType="text/x-mine", Metadata=FOREIGN)
    bucket.put("d/other", b"other", ContentType="text/x-mine", Metadata=FOREIGN)
    mount = mounted("--attributes", "list", "--metadata-ttl", "60s")
    path = mount.path / "d/file"
    front.reset()
    assert {name: (mount.path / "d" / name).stat().st_size for name in os.listdir(mount.path / "d")} == {"file": 7, "other": 5}
    assert (mount.path / "d/other").read_bytes() == b"other"
    assert front.counts()["HEAD"].requests == 0
    if change == "chmod":
        path.chmod(0o600)
    elif change == "utime":
        os.utime(path, (5, 5))
    elif change == "xattr":
        os.setxattr(path, "user.mine", b"1")
    elif change == "truncate":
        os.truncate(path, 3)
    elif change == "append":
        with path.open("ab") as file:
            file.write(b" and more")
    elif change == "overwrite":
        path.write_bytes(b"new")
    else:
        (mount.path / "d/new").write_bytes(b"whole")
        os.replace(mount.path / "d/new", path)
    os.sync()
    mount.stop()
    head = bucket.head("d/file")
    if change == "replace":
        assert "colour" not in head["Metadata"]
        return
    assert head["ContentType"] == "text/x-mine"
    assert head["Metadata"]["colour"] == "blue"
    assert head["Metadata"]["uid"] == "1234"
    assert int(head["Metadata"]["mode"]) & 0o777 == (0o600 if change == "chmod" else 0o640)
    assert ("xattr" in head["Metadata"]) == (change == "xattr")
    assert front.counts()["HEAD"].requests <= 2  # ours, and the store's own before it copies an object onto itself
    assert bucket.get("d/file") == {"truncate": b"con", "append": b"content and more", "overwrite": b"new"}.get(change, b"content")


def test_with_attributes_of_listings_a_directory_keeps_what_its_marker_says(mounted: Mounted, bucket: Bucket) -> None:
    bucket.put("d/", b"", Metadata={"colour": "blue", "uid": "1234", "mode": str(stat.S_IFDIR | 0o750)})
    mount = mounted("--attributes", "list")
    os.setxattr(mount.path / "d", "user.mine", b"1")
    mount.stop()
    assert bucket.head("d/")["Metadata"]["colour"] == "blue"
    assert "xattr" in bucket.head("d/")["Metadata"]

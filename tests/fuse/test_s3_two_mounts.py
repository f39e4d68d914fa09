"""Two mounts and a foreign client on one bucket of s3://: what is promised of consistency, line by line.

`one` and `other` are mounts with nothing in common but the bucket, `direct` is boto3.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s3mount.model import MiB
from tests.fuse.mounting import Mount, error_of, until
from tests.fuse.remote import boto, remote_mount
from tests.server.serving import served
from tests.wire.front import Front

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

BUCKET = "shared"
TTL_S = 0.5
OLD, NEW = (random.Random(seed).randbytes(20 * MiB) for seed in (1, 2))


@dataclass
class Shared:
    front: Front
    direct: Any
    one: Mount
    other: Mount
    eager: Mount
    """With a time-to-live of 0."""

    def put(self, key: str, body: bytes) -> str:
        etag: str = self.direct.put_object(Bucket=BUCKET, Key=key, Body=body)["ETag"]
        return etag

    def body(self, key: str) -> bytes:
        found: bytes = self.direct.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    with served(folder) as server, Front(server.url) as front, closing(boto(server.url)) as direct, ExitStack() as mounts:
        direct.create_bucket(Bucket=BUCKET)

        def mounted(name: str, ttl: float) -> Mount:
            mount = mounts.enter_context(remote_mount(folder / name, front.url, BUCKET, f"--metadata-ttl={ttl}"))
            # What somebody replaced is refused, and told in the log.
            mount.expected = [r"\A(?!(?:.|\n)*Traceback)"]
            return mount

        yield Shared(front, direct, mounted("one", TTL_S), mounted("other", TTL_S), mounted("eager", 0))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name of the test's own, at the top of the bucket."""
    return str(request.node.name)


def pieces(fd: int, size: int) -> bytes | int:
    """The bytes of an open file, or the errno with which they cannot be had; never both."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    found = b""
    try:
        while len(found) < size and (piece := os.pread(fd, MiB, len(found))):
            found += piece
    except OSError as error:
        return error.errno or 0
    return found


# -- close-to-open ------------------------------------------------------------------------------


def test_what_was_closed_here_is_opened_there_after_the_time_to_live(shared: Shared, name: str) -> None:
    for content in (b"first", b"second, longer", b"3rd"):
        (shared.one.path / name).write_bytes(content)
        assert shared.body(name) == content
        until(lambda content=content: (shared.other.path / name).read_bytes() == content)  # type: ignore[misc]
    assert (shared.other.path / name).stat().st_size == 3


def test_names_made_moved_and_removed_here_show_there(shared: Shared, name: str) -> None:
    here, there = shared.one.path / name, shared.other.path / name
    here.mkdir()
    (here / "a").write_text("a")
    until(lambda: os.listdir(there) == ["a"])
    (here / "a").rename(here / "b")
    until(lambda: os.listdir(there) == ["b"])
    assert (there / "b").read_text() == "a"
    (there / "b").unlink()
    until(lambda: os.listdir(here) == [])
    here.rmdir()
    until(lambda: not there.exists())


def test_what_a_foreign_client_puts_replaces_and_deletes_shows(shared: Shared, name: str) -> None:
    path = shared.one.path / name
    assert not path.exists()
    shared.put(f"{name}/deep/file", b"foreign")
    until(lambda: (path / "deep/file").read_bytes() == b"foreign")
    shared.put(f"{name}/deep/file", b"replaced")
    until(lambda: (path / "deep/file").read_bytes() == b"replaced")
    shared.direct.delete_object(Bucket=BUCKET, Key=f"{name}/deep/file")
    until(lambda: not (path / "deep/file").exists())


def test_with_a_time_to_live_of_0_the_next_open_sees_the_new_object_at_once(shared: Shared, name: str) -> None:
    for content in (b"one", b"two, longer", b"3"):
        shared.put(name, content)
        assert (shared.eager.path / name).read_bytes() == content
        assert (shared.eager.path / name).stat().st_size == len(content)


def test_modes_and_times_set_here_show_there(shared: Shared, name: str) -> None:
    path = shared.one.path / name
    path.write_text("x")
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18 + 7))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    until(lambda: (shared.other.path / name).stat().st_mtime_ns == 10**18 + 7)
    assert (shared.other.path / name).stat().st_mode & 0o7777 == 0o640


# -- one version from first byte to last --------------------------------------------------------


@pytest.mark.parametrize("how", ["a foreign client", "the other mount", "a rename over it"])
def test_an_open_file_is_one_version_or_stale_and_never_a_mixture(shared: Shared, name: str, how: str) -> None:
    key = name.translate(str.maketrans("[] ", "---"))
    shared.put(key, OLD)
    for mount in (shared.one, shared.other):
        until(lambda mount=mount: (mount.path / key).stat().st_size == len(OLD))  # type: ignore[misc]
    with (shared.one.path / key).open("rb", buffering=0) as file:
        assert file.read(MiB) == OLD[:MiB]
        if how == "a foreign client":
            shared.put(key, NEW)
        elif how == "the other mount":
            (shared.other.path / key).write_bytes(NEW)
        else:
            (shared.other.path / f"{key}.new").write_bytes(NEW)
            os.replace(shared.other.path / f"{key}.new", shared.other.path / key)
        found = pieces(file.fileno(), len(OLD))
        assert found == OLD or found == errno.ESTALE
        until(lambda: (shared.one.path / key).read_bytes() == NEW)
        again = pieces(file.fileno(), len(OLD))
        assert again == OLD or again == errno.ESTALE


def test_a_file_that_is_read_while_it_is_replaced_many_times_is_always_one_of_its_versions(shared: Shared, name: str) -> None:
    versions = [bytes([65 + number]) * (3 * MiB + number) for number in range(8)]
    shared.put(name, versions[0])
    until(lambda: (shared.one.path / name).exists())
    for number, content in enumerate(versions):
        shared.put(name, content)
        for _ in range(3):
            found: list[bytes] = []
            refused = error_of(lambda found=found: found.append((shared.one.path / name).read_bytes()))  # type: ignore[misc]
            assert refused == errno.ESTALE or found[0] in versions[: number + 1]
    until(lambda: (shared.one.path / name).read_bytes() == versions[-1])


# -- two writers --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 12 * MiB])
@pytest.mark.parametrize("call", ["close", "fsync"])
def test_an_edit_of_what_somebody_replaced_fails_and_undoes_nothing(shared: Shared, name: str, size: int, call: str) -> None:
    key = name.translate(str.maketrans("[] ", "---"))
    shared.put(key, b"o" * size)
    until(lambda: (shared.one.path / key).stat().st_size == size)
    fd = os.open(shared.one.path / key, os.O_RDWR)
    os.pwrite(fd, b"EDIT", 10)
    shared.put(key, b"theirs" * size)
    if call == "fsync":
        assert error_of(lambda: os.fsync(fd)) == errno.ESTALE
    assert error_of(lambda: os.close(fd)) == errno.ESTALE
    assert shared.body(key) == b"theirs" * size
    until(lambda: (shared.one.path / key).read_bytes() == b"theirs" * size)


def test_of_two_mounts_that_edit_one_version_the_first_wins_and_the_second_is_told(shared: Shared, name: str) -> None:
    (shared.one.path / name).write_bytes(b"." * 1000)
    until(lambda: (shared.other.path / name).stat().st_size == 1000)
    fds = [os.open(mount.path / name, os.O_RDWR) for mount in (shared.one, shared.other)]
    os.pwrite(fds[0], b"one", 0)
    os.pwrite(fds[1], b"other", 500)
    assert error_of(lambda: os.close(fds[0])) is None
    assert error_of(lambda: os.close(fds[1])) == errno.ESTALE
    assert shared.body(name) == b"one" + b"." * 997


def test_a_full_overwrite_wins(shared: Shared, name: str) -> None:
    shared.put(name, b"old")
    until(lambda: (shared.one.path / name).exists())
    with (shared.one.path / name).open("wb") as file:
        file.write(b"ours")
        shared.put(name, b"theirs")
    assert shared.body(name) == b"ours"


def test_a_file_created_exclusively_on_both_is_refused_to_the_second(shared: Shared, name: str) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    fds = [os.open(mount.path / name, flags) for mount in (shared.one, shared.other)]
    for number, fd in enumerate(fds):
        os.write(fd, bytes([49 + number]))
    assert error_of(lambda: os.close(fds[0])) is None
    assert error_of(lambda: os.close(fds[1])) == errno.EEXIST
    assert shared.body(name) == b"1"


def test_a_file_of_a_directory_that_others_filled_keeps_it_from_being_removed(shared: Shared, name: str) -> None:
    (shared.one.path / name).mkdir()
    assert os.listdir(shared.one.path / name) == []
    shared.put(f"{name}/theirs", b"x")
    assert error_of(lambda: os.rmdir(shared.one.path / name)) == errno.ENOTEMPTY
    assert shared.body(f"{name}/theirs") == b"x"


# -- the page cache -----------------------------------------------------------------------------


def test_the_page_cache_is_kept_while_the_object_is_the_same_and_dropped_when_it_is_not(shared: Shared, name: str) -> None:
    shared.put(name, OLD)
    path = shared.one.path / name
    until(lambda: path.stat().st_size == len(OLD))
    assert path.read_bytes() == OLD
    time.sleep(2 * TTL_S)
    with shared.front.counting() as counts:
        assert path.read_bytes() == OLD
    assert (counts["GET"].requests, counts["GET-range"].requests) == (0, 0)
    shared.put(name, NEW)
    until(lambda: path.read_bytes() == NEW)


# -- versions -----------------------------------------------------------------------------------


def test_in_a_bucket_with_versions_commits_renames_and_unlinks_make_versions_and_markers(shared: Shared, tmp_path: Path) -> None:
    bucket = "versioned"
    shared.direct.create_bucket(Bucket=bucket)
    shared.direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with remote_mount(tmp_path, shared.front.url, bucket) as mount:
        (mount.path / "file").write_bytes(b"1")
        (mount.path / "file").write_bytes(b"2")
        with (mount.path / "file").open("rb", buffering=0) as held:
            (mount.path / "file").rename(mount.path / "moved")
            (mount.path / "moved").unlink()
            assert held.read() == b"2"
    kept = shared.direct.list_object_versions(Bucket=bucket)
    assert [entry["Key"] for entry in kept["Versions"]] == ["file", "file", "moved"]
    assert sorted(entry["Key"] for entry in kept["DeleteMarkers"] if entry["IsLatest"]) == ["file", "moved"]

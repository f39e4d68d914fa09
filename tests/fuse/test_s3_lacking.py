"""Mounts of a service that lacks what others have: `rclone serve s3` copies no parts, takes none twice, and has no markers."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.cli.pending_places import describe, place_of
from s3mount.cli.store_options import Choice
from s3mount.config import parse_url
from s3mount.model import Key, MiB
from s3mount.store.s3.lacks import Lack
from s3mount.store.s3.markers import NAME
from s3mount.writeback.journal import Enter, Journal
from s3mount.writeback.records import Op, Record
from tests.fuse.mounting import Mount, s3mount
from tests.fuse.remote import boto, bucket_name, isolate, remote_mount
from tests.s3.services import Service, rclone

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with rclone(tmp_path_factory.mktemp("served")) as service:
        yield service


@pytest.fixture(params=[(), ("--write-back",)], ids=["synchronous", "write-back"])
def mount(service: Service, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    with remote_mount(tmp_path / "mounted", service.url, bucket_name(request), "--last-writer-wins", *request.param) as mount:
        yield mount


def test_a_large_object_is_edited_and_everything_of_it_is_there(mount: Mount, service: Service, request: pytest.FixtureRequest) -> None:
    """Regression: UploadPartCopy makes a part without bytes there; the edit failed for good."""
    body = bytearray(random.Random(1).randbytes(20 * MiB))
    path = mount.path / "large"
    path.write_bytes(body)
    for at in (10 * MiB, 3):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"edited")
            os.fsync(file.fileno())
        body[at : at + 6] = b"edited"
    with path.open("ab") as file:
        file.write(b"more")
    path.rename(mount.path / "renamed")
    (mount.path / "renamed").chmod(0o640)
    told = json.loads(s3mount("status", mount.path, "--json").stdout)
    assert {Lack.PART_COPY.value, Lack.LASTING_ETAGS.value} <= set(told["store"]["lacks"])
    mount.again()
    assert (mount.path / "renamed").read_bytes() == body + b"more"
    assert boto(service.url).get_object(Bucket=bucket_name(request), Key="renamed")["Body"].read() == body + b"more"


@pytest.mark.parametrize("mount", [()], ids=["synchronous"], indirect=True)
def test_a_part_that_changes_after_it_was_sent_is_in_the_object(mount: Mount) -> None:
    body = bytearray(random.Random(2).randbytes(48 * MiB))
    with (mount.path / "large").open("wb", buffering=0) as file:
        file.write(body)
        os.pwrite(file.fileno(), b"changed", 5)
    body[5:12] = b"changed"
    mount.again()
    assert (mount.path / "large").read_bytes() == body


def test_directories_are_kept_with_what_is_set_of_them(mount: Mount, service: Service, request: pytest.FixtureRequest) -> None:
    """Regression: a marker `d/` is a file `d` there, and nothing could be written below it."""
    (mount.path / "d/e").mkdir(parents=True)
    (mount.path / "d/file").write_bytes(b"data")
    (mount.path / "d/e").chmod(0o711)
    (mount.path / "d").rename(mount.path / "moved")
    mount.again()
    assert (os.listdir(mount.path), sorted(os.listdir(mount.path / "moved"))) == (["moved"], ["e", "file"])
    assert (mount.path / "moved/e").stat().st_mode & 0o777 == 0o711
    keys = [entry["Key"] for entry in boto(service.url).list_objects_v2(Bucket=bucket_name(request))["Contents"]]
    assert sorted(keys) == [f"moved/{NAME}", f"moved/e/{NAME}", "moved/file"]
    (mount.path / "moved/file").unlink()
    (mount.path / "moved/e").rmdir()
    (mount.path / "moved").rmdir()
    assert s3mount("flush", mount.path).returncode == 0  # a file cannot be where there is still a directory
    (mount.path / "moved").write_bytes(b"a file")
    mount.again()
    assert (mount.path / "moved").read_bytes() == b"a file"


def test_directories_that_a_mount_left_behind_are_kept_by_retry(
    service: Service, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: `s3mount retry` made a file of the marker of a directory, and what was to be below it could not be stored."""
    isolate(monkeypatch, tmp_path)
    client, bucket = boto(service.url), bucket_name(request)
    client.create_bucket(Bucket=bucket)
    place = place_of(parse_url(f"s3://{bucket}"), Choice(None, service.options))
    describe(place)
    with Journal.open(place.write_back) as journal:
        journal.apply([Enter(Record(key=Key(key), op=Op.PUT, commit_id=f"{number:032}")) for number, key in enumerate(("d/", "d/e/"))])
    told = s3mount("retry", "--all", f"s3://{bucket}")  # other tests have mounts of theirs
    assert (told.returncode, told.stderr) == (0, "")
    assert sorted(entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]) == [f"d/{NAME}", f"d/e/{NAME}"]

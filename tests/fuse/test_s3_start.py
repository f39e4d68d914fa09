"""How a mount of s3:// begins: it clears away what a killed one left behind, and asks whether the service is fit to be written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3mount.fuse.mountpoint import push_pages
from tests.fuse.mounting import Mount, abandon, s3mount, until
from tests.fuse.remote import boto, remote_mount
from tests.s3.services import rclone
from tests.server.serving import served

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MiB = 1024 * 1024
BUCKET = "killed"


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "served").mkdir()
    with served(tmp_path / "served") as server:
        client = boto(server.url)
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()


@pytest.fixture
def mount(bucket: Any, tmp_path: Path) -> Iterator[Mount]:
    with remote_mount(tmp_path, bucket.meta.endpoint_url, BUCKET) as mount:
        yield mount


def uploads(bucket: Any) -> list[str]:
    return [entry["Key"] for entry in bucket.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]


def test_a_mount_that_was_killed_while_it_wrote_leaves_no_upload_to_the_next_one(mount: Mount, bucket: Any) -> None:
    foreign = bucket.create_multipart_upload(Bucket=BUCKET, Key="large")["UploadId"]
    bucket.upload_part(Bucket=BUCKET, Key="large", UploadId=foreign, PartNumber=1, Body=b"theirs")
    fd = os.open(mount.path / "large", os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(48):
            os.write(fd, bytes(MiB))
        # The parts go in the background, after the kernel has handed the bytes over.
        push_pages(fd)
        until(lambda: len(uploads(bucket)) == 2)
        mount.kill()
    finally:
        abandon(fd)
    assert uploads(bucket) == ["large", "large"]
    mount.start()
    assert uploads(bucket) == ["large"]
    assert os.listdir(mount.path) == []
    left = bucket.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [entry["UploadId"] for entry in left] == [foreign]
    assert "Aborted 1 uploads" in mount.log.read_text()


def test_a_service_that_heeds_no_conditions_is_mounted_only_by_who_says_so(isolated: None, tmp_path: Path) -> None:
    with rclone(tmp_path) as service:
        where = ["--endpoint-url", service.url]
        assert s3mount("mb", "s3://bucket", *where).returncode == 0
        point = tmp_path / "point"
        point.mkdir()
        refused = s3mount("mount", "s3://bucket", point, *where)
        assert refused.returncode != 0
        assert "--last-writer-wins" in refused.stderr
        assert s3mount("ls", "s3://bucket", *where).stdout == ""
        for way in ("--last-writer-wins", "--read-only"):
            told = s3mount("mount", "s3://bucket", point, *where, way)
            assert told.returncode == 0, told.stderr
            assert s3mount("umount", point).returncode == 0

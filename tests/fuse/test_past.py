"""Mounts of a bucket as it was, beside one as it is: over our own server as over the embedded store."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import pytest

from s3mount.engine.engine import Engine
from s3mount.fuse.mountpoint import sync_all
from tests.fuse.mounting import Mount, error_of, s3mount
from tests.server.serving import served

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def next_second() -> str:
    """A time between what was done and what will be; services tell times to the second."""
    now = datetime.now(UTC).replace(microsecond=0)
    while datetime.now(UTC).replace(microsecond=0) == now:
        time.sleep(0.05)
    return now.isoformat()


@pytest.fixture(params=["local", "s3"])
def mount(request: pytest.FixtureRequest, isolated: None, tmp_path: Path) -> Iterator[Mount]:
    """A bucket that keeps versions, mounted; `again` mounts it with other options."""
    data = tmp_path / "data"
    with Engine.open(data) as engine:
        engine.create_bucket("bucket")
        engine.set_versioning("bucket", "enabled")
    with served(tmp_path, "--auth") as server:
        mount = Mount(tmp_path, *(["--endpoint-url", server.url] if request.param == "s3" else []))
        mount.url = f"{request.param}://bucket"
        with mount.running():
            yield mount


def test_a_bucket_is_mounted_as_it_was(mount: Mount) -> None:
    top, options = mount.path, mount.options
    (top / "folder/deep").mkdir(parents=True)
    (top / "folder/deep/file").write_text("old")
    (top / "folder/kept").write_text("kept")
    (top / "script").write_text("#!/bin/sh\n")
    (top / "script").chmod(0o750)
    (top / "link").symlink_to("folder")
    sync_all(top)
    then = next_second()
    (top / "folder/deep/file").write_text("new and longer")
    (top / "script").unlink()
    (top / "later").write_text("x")
    (top / "folder/kept").unlink()
    mount.stop()
    mount.options = (*options, "--versions-at", then)
    mount.start()
    assert sorted(os.listdir(top)) == ["folder", "link", "script"]
    assert (top / "folder/deep/file").read_text() == "old"
    assert (top / "link/kept").read_text() == "kept"
    assert (top / "script").stat().st_mode & 0o777 == 0o750
    assert error_of(lambda: (top / "later").stat()) == errno.ENOENT
    assert error_of(lambda: (top / "script").write_text("x")) == errno.EROFS
    mount.stop()
    mount.options = options
    mount.start()
    assert sorted(os.listdir(top)) == ["folder", "later", "link"]
    assert (top / "folder/deep/file").read_text() == "new and longer"


def test_a_file_as_it_was_has_the_attributes_of_that_version_and_a_url_for_it(mount: Mount) -> None:
    top, options = mount.path, mount.options
    (top / "file").write_text("old")
    (top / "gone").write_text("old too")
    sync_all(top)
    etag = os.getxattr(top / "file", "user.s3.etag")
    then = next_second()
    (top / "file").write_text("new and longer")
    (top / "gone").unlink()
    mount.stop()
    mount.options = (*options, "--versions-at", then)
    mount.start()
    assert os.getxattr(top / "file", "user.s3.etag") == etag
    assert os.getxattr(top / "gone", "user.s3.size") == b"7"
    if mount.url.startswith("s3:"):
        for name in ("file", "gone"):
            with urlopen(os.getxattr(top / name, "user.s3.presigned-url").decode()) as answer:
                assert answer.read().decode() == (top / name).read_text()


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    refused = s3mount("mount", "local://bucket", tmp_path, "--versions-at", "yesterday")
    assert refused.returncode == 2
    assert "is no time" in refused.stderr

"""What objects say of themselves, on real mounts: over our own server, moto and the embedded store."""

from __future__ import annotations

import errno
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.conftest import NewMount
from tests.fuse.mounting import Mount, error_of
from tests.fuse.programs import needs, run
from tests.fuse.remote import boto, bucket_name, remote_mount
from tests.s3.services import SERVICES, Service

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture(scope="module", params=["ours", "moto"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with SERVICES[request.param](tmp_path_factory.mktemp("served")) as service:
        yield service


@pytest.fixture
def mount(service: Service, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    with remote_mount(tmp_path, service.url, bucket_name(request)) as mount:
        yield mount


class Bucket:
    """The mount's bucket, as another program sees it."""

    def __init__(self, service: Service, mount: Mount) -> None:
        self.name = mount.url.removeprefix("s3://")
        self.s3 = boto(service.url)

    def head(self, key: str) -> dict[str, object]:
        return dict(self.s3.head_object(Bucket=self.name, Key=key))

    def tags(self, key: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.s3.get_object_tagging(Bucket=self.name, Key=key)["TagSet"]}


@pytest.fixture
def bucket(service: Service, mount: Mount) -> Bucket:
    return Bucket(service, mount)


def told(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.s3.{name}").decode()


def test_an_object_of_another_program_says_what_it_is(mount: Mount, bucket: Bucket) -> None:
    bucket.s3.put_object(Bucket=bucket.name, Key="a/photo é", Body=b"pixels", ContentType="image/png", Tagging="of=us&year=2026")
    path = mount.seen("a/photo é")
    assert f'"{told(path, "etag")}"' == bucket.head("a/photo é")["ETag"]
    assert told(path, "size") == "6"
    assert told(path, "content-type") == "image/png"
    assert told(path, "storage-class") == "STANDARD"
    assert told(path, "url") == f"{mount.url}/a/photo é"
    assert told(path, "tags") == "of=us&year=2026"
    assert error_of(lambda: told(path, "version-id")) == errno.ENODATA
    assert told(mount.path / "a", "url") == f"{mount.url}/a/"
    assert os.listxattr(path) == []


def test_anybody_may_read_by_the_presigned_url(mount: Mount) -> None:
    (mount.path / "for you +").write_text("a present")
    url = told(mount.path / "for you +", "presigned-url")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.read() == b"a present"


def test_type_class_and_tags_are_set_and_the_rest_stays(mount: Mount, bucket: Bucket) -> None:
    bucket.s3.put_object(Bucket=bucket.name, Key="page", Body=b"<p>", CacheControl="no-cache", Metadata={"colour": "blue"}, Tagging="of=us")
    path = mount.seen("page")
    with open(path, "rb") as opened:
        os.setxattr(path, "user.s3.content-type", b"text/html")
        assert opened.read() == b"<p>"
    os.setxattr(path, "user.s3.storage-class", b"STANDARD_IA")
    head = bucket.head("page")
    assert (head["ContentType"], head["StorageClass"], head["CacheControl"]) == ("text/html", "STANDARD_IA", "no-cache")
    assert head["Metadata"]["colour"] == "blue"  # type: ignore[index]
    assert bucket.tags("page") == {"of": "us"}
    os.setxattr(path, "user.s3.tags", b"a=1&b=two%20words")
    assert bucket.tags("page") == {"a": "1", "b": "two words"}
    assert told(path, "tags") == "a=1&b=two%20words"
    os.removexattr(path, "user.s3.tags")
    assert bucket.tags("page") == {}
    assert (told(path, "content-type"), told(path, "storage-class")) == ("text/html", "STANDARD_IA")
    assert path.read_bytes() == b"<p>"


def test_what_cannot_be_set_is_refused(mount: Mount) -> None:
    path = mount.path / "file"
    path.write_text("x")
    assert error_of(lambda: os.setxattr(path, "user.s3.etag", b"x")) == errno.EPERM
    assert error_of(lambda: os.setxattr(path, "user.s3.mine", b"x")) == errno.EPERM
    assert error_of(lambda: os.removexattr(path, "user.s3.content-type")) == errno.EPERM
    assert error_of(lambda: os.setxattr(path, "user.s3.storage-class", b"CHEAP")) == errno.EINVAL
    assert error_of(lambda: os.setxattr(path, "user.s3.tags", b"no tags")) == errno.EINVAL
    assert error_of(lambda: os.setxattr(mount.path, "user.s3.tags", b"a=1")) == errno.EOPNOTSUPP


def test_versions_have_ids(mount: Mount, bucket: Bucket) -> None:
    bucket.s3.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    path = mount.path / "file"
    path.write_text("one")
    assert told(path, "version-id") == bucket.head("file")["VersionId"]


@needs("rsync")
def test_copies_with_all_attributes_do_not_stumble_over_them(mount: Mount, tmp_path: Path) -> None:
    folder = mount.path / "from"
    folder.mkdir()
    (folder / "file").write_text("text")
    os.setxattr(folder / "file", "user.own", b"kept")
    os.setxattr(folder / "file", "user.s3.content-type", b"text/plain")
    run("cp", "-a", folder, mount.path / "to", cwd=mount.path)
    run("rsync", "-aX", f"{folder}/", mount.path / "again", cwd=mount.path)
    for copy in ("to", "again"):
        assert os.getxattr(mount.path / copy / "file", "user.own") == b"kept"
        assert os.listxattr(mount.path / copy / "file") == ["user.own"]


def test_the_embedded_store_says_as_much(new_mount: NewMount) -> None:
    mount = new_mount()
    path = mount.path / "file"
    path.write_text("text")
    assert told(path, "url") == "local://bucket/file"
    assert told(path, "size") == "4"
    assert len(told(path, "etag")) >= 16
    assert error_of(lambda: told(path, "presigned-url")) == errno.ENODATA
    ino = path.stat().st_ino
    os.setxattr(path, "user.s3.content-type", b"text/html")
    os.setxattr(path, "user.s3.storage-class", b"GLACIER_IR")
    os.setxattr(path, "user.s3.tags", b"a=1")
    os.link(path, mount.path / "second")
    path.write_text("other")
    mount.again()
    for name in (path, mount.path / "second"):
        assert (told(name, "content-type"), told(name, "storage-class"), told(name, "tags")) == ("text/html", "GLACIER_IR", "a=1")
        assert name.read_text() == "other"
        assert name.stat().st_ino == ino
    assert os.listxattr(path) == []

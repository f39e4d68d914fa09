"""Mounts of s3:// for tests, and the client that looks behind them.

Owns: the settings of a user who has nothing set up but the tests' keys; how a mount of a bucket is made; names for buckets; boto3 on one.
Must not know: what a test asserts, or which service it asks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.fuse.mounting import Mount
from tests.server.serving import ACCESS_KEY, SECRET_KEY, environment


def isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Give this process and its children the tests' keys, and caches and state below *folder*."""
    for name, value in environment(XDG_CACHE_HOME=str(folder / "cache"), XDG_STATE_HOME=str(folder / "state")).items():
        if name.startswith(("AWS_", "XDG_")):
            patch.setenv(name, value)


def remote(folder: Path, endpoint: str, bucket: str, *options: str | Path, program: tuple[str | Path, ...] = ()) -> Mount:
    """A mount of *bucket*, not yet started; `isolate` comes before."""
    mount = Mount(folder, "--endpoint-url", endpoint, *map(str, options), program=program)
    mount.url = f"s3://{bucket}"
    return mount


@contextmanager
def remote_mount(folder: Path, endpoint: str, bucket: str, *options: str | Path) -> Iterator[Mount]:
    """A mount of *bucket* by such a user, with everything of it below *folder*: started, and judged at the end."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        with remote(folder, endpoint, bucket, *options).running() as mount:
            yield mount


def bucket_name(request: pytest.FixtureRequest) -> str:
    """A name for a bucket of the test's own; tests whose names begin alike get different ones."""
    name = str(request.node.name)
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-")
    return f"{words}-{hashlib.sha1(name.encode()).hexdigest()[:8]}"


def boto(endpoint: str, **config: Any) -> Any:
    """boto3 on *endpoint* in path style, with more of botocore's settings."""
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"}, **config), **keys)

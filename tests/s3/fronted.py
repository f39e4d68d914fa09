"""A bucket behind a faulty front, and the material that tells right bytes from wrong ones.

Owns: the server, the front, the bucket with one large and many small objects, the patience that tests can afford.
Must not know: which fault a test wants.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from s3mount.store.s3.options import S3Options
from s3mount.store.wrap.retrying import Policy
from tests.server.serving import ACCESS_KEY, SECRET_KEY, served
from tests.wire.certificate import make_certificate
from tests.wire.front import Front

BUCKET = "fronted"
KIB = 1024
LARGE = random.Random(1).randbytes(3 * 1024 * KIB)
SMALL = {f"small/{number:03}": random.Random(number).randbytes(2000 + number) for number in range(40)}

# What a user would wait for minutes, a test waits for in seconds: so many that a busy machine answers in time.
IMPATIENT = {"connect_s": 5.0, "first_byte_s": 2.0, "stall_s": 2.0}
POLICY = Policy(base=0.02, cap=0.2, budget=15.0)
GIVING_UP = Policy(base=0.02, cap=0.1, budget=0.5)


@dataclass(frozen=True, slots=True)
class Fronted:
    """*direct* is boto3 past the front."""

    front: Front
    direct: Any
    authority: Path | None = None

    @property
    def options(self) -> S3Options:
        return S3Options(endpoint=self.front.url, region="us-east-1", ca_bundle=self.authority, **IMPATIENT)  # type: ignore[arg-type]

    def body(self, key: str) -> bytes:
        found: bytes = self.direct.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found

    def well(self) -> None:
        """No faults, no limits, counters at nought, nothing that a test wrote."""
        self.front.spoil()
        self.front.back()
        self.front.set(latency_s=0, rate=0)
        for entry in self.direct.list_objects_v2(Bucket=BUCKET, Prefix="new/").get("Contents", ()):
            self.direct.delete_object(Bucket=BUCKET, Key=entry["Key"])
        self.front.reset()


@contextmanager
def fronted(folder: Path, *, tls: bool = False) -> Iterator[Fronted]:
    """The server asks for no signatures: a fault that changes a signed header must not fail for that. With *tls* the front speaks it."""
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
    pair = make_certificate(folder) if tls else None
    with served(folder) as server, Front(f"{server.host}:{server.port}", tls=pair) as front:
        direct = boto3.client("s3", endpoint_url=server.url, config=Config(s3={"addressing_style": "path"}), **keys)
        direct.create_bucket(Bucket=BUCKET)
        for key, body in {"large": LARGE, **SMALL}.items():
            direct.put_object(Bucket=BUCKET, Key=key, Body=body)
        yield Fronted(front, direct, pair and pair[0])
        direct.close()

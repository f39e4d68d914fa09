"""Checksums of bodies: sent with them, and compared when they come back.

Owns: which algorithm this service takes, found out once.
Must not know: requests.

CRC-64/NVME first: S3's own default, and parts' values make the whole's. A service that refuses it is asked with CRC-32C, then with none.
What is sent is a header over bytes in memory, so nothing needs the trailing form that many services do not read.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from awscrt import checksums

from s3mount.errors import Corrupt, StoreError, Unsupported

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A checksum: its name in S3, its parameter in botocore, its header in answers."""

    name: str
    of: Callable[[Buffer], str]

    @property
    def parameter(self) -> str:
        return f"Checksum{self.name}"

    @property
    def header(self) -> str:
        return f"x-amz-checksum-{self.name.lower()}"


def _text(value: int, size: int) -> str:
    return _encoded(value.to_bytes(size, "big"))


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


CRC64NVME = Algorithm("CRC64NVME", lambda data: _text(checksums.crc64nvme(data), 8))
CRC32C = Algorithm("CRC32C", lambda data: _text(checksums.crc32c(data), 4))
CRC32 = Algorithm("CRC32", lambda data: _text(zlib.crc32(data), 4))
SHA1 = Algorithm("SHA1", lambda data: _encoded(hashlib.sha1(data, usedforsecurity=False).digest()))
SHA256 = Algorithm("SHA256", lambda data: _encoded(hashlib.sha256(data).digest()))
# What others may have sent along with an object, the cheapest first: SHA takes half a millisecond for each MiB, and few objects that are
# read in one request are larger. Younger kinds are nobody's default.
COMPARED = (CRC64NVME, CRC32C, CRC32, SHA1, SHA256)
LADDER: tuple[Algorithm | None, ...] = (CRC64NVME, CRC32C, None)


T = TypeVar("T")


def of_body(algorithm: Algorithm | None, data: Buffer) -> dict[str, Any]:
    """The parameters that carry the checksum of *data*."""
    return {algorithm.parameter: algorithm.of(data)} if algorithm else {}


def of_upload(algorithm: Algorithm | None) -> dict[str, Any]:
    """The parameters that announce checksums of the parts: their values make the whole's, however they were cut."""
    return {"ChecksumAlgorithm": algorithm.name, "ChecksumType": "FULL_OBJECT"} if algorithm else {}


class Checksums:
    """What this service takes. Starts hopeful, and only ever steps down."""

    def __init__(self) -> None:
        self._step = 0

    async def choose(self, request: Callable[[Algorithm | None], Awaitable[T]]) -> T:
        """*request* with the best algorithm that the service takes. A refusal that has other reasons is raised as it first came."""
        first: StoreError | None = None
        for step in range(self._step, len(LADDER)):
            try:
                result = await request(LADDER[step])
            except StoreError as error:
                if not _may_mean_checksums(error):
                    raise
                first = first or error
            else:
                self._step = step
                return result
        assert first is not None
        raise first


def _may_mean_checksums(error: StoreError) -> bool:
    return type(error) is StoreError or isinstance(error, Unsupported)


def verify(headers: Mapping[str, str], data: Buffer, *, of: str) -> None:
    """Compare *data*, a whole object, with what the answer says of it. Raises Corrupt; *of* names the object in the sentence."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return
    for algorithm in COMPARED:
        said = headers.get(algorithm.header, "")
        if said and "-" not in said and said != algorithm.of(data):
            raise Corrupt(f"{of!r} did not arrive as it was stored: its {algorithm.name} checksum differs.")

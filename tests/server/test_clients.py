"""Further clients that nobody here wrote: pyarrow's S3 file system (AWS' C++ SDK), and the AWS Common Runtime's S3 client."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.fs as pafs  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from awscrt import s3 as crt
from awscrt.auth import AwsCredentialsProvider
from awscrt.http import HttpHeaders, HttpRequest
from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup

from tests.server.serving import ACCESS_KEY, SECRET_KEY, Server, environment, served

pytestmark = pytest.mark.slow

MiB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("clients"), "--auth") as server:
        yield server


# -- pyarrow ---------------------------------------------------------------------------------


@pytest.fixture
def arrow(server: Server, monkeypatch: pytest.MonkeyPatch) -> pafs.S3FileSystem:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return pafs.S3FileSystem(
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        endpoint_override=server.url.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )


def test_pyarrow_writes_reads_lists_copies_and_removes(arrow: pafs.S3FileSystem) -> None:
    data = os.urandom(23 * MiB)
    arrow.create_dir("arrow/sub")
    with arrow.open_output_stream("arrow/sub/big") as target:
        target.write(data)
    with arrow.open_output_stream("arrow/sub/small", metadata={"Content-Type": "text/plain"}) as target:
        target.write(b"small")
    with arrow.open_input_file("arrow/sub/big") as source:
        assert source.size() == len(data)
        assert source.read_at(100, 5) == data[5:105]
        assert source.read() == data
    found = arrow.get_file_info(pafs.FileSelector("arrow", recursive=True))
    assert sorted(each.path for each in found) == ["arrow/sub", "arrow/sub/big", "arrow/sub/small"]
    arrow.copy_file("arrow/sub/big", "arrow/copy")
    arrow.move("arrow/copy", "arrow/moved")
    assert arrow.get_file_info("arrow/moved").size == len(data)
    arrow.delete_dir("arrow/sub")
    arrow.delete_file("arrow/moved")
    arrow.delete_dir("arrow")
    assert arrow.get_file_info("arrow").type is pafs.FileType.NotFound


def test_pyarrow_keeps_tables(arrow: pafs.S3FileSystem) -> None:
    table = pa.table({"number": list(range(100_000))})
    arrow.create_dir("tables")
    pq.write_table(table, "tables/a/t.parquet", filesystem=arrow)
    assert pq.read_table("tables/a/", filesystem=arrow).equals(table)


# -- awscrt ----------------------------------------------------------------------------------


class Crt:
    """The runtime's S3 client, which splits what is large into parts and ranges of 5 MiB."""

    def __init__(self, server: Server) -> None:
        group = EventLoopGroup(1)
        credentials = AwsCredentialsProvider.new_static(ACCESS_KEY, SECRET_KEY)
        self._host = f"127.0.0.1:{server.port}"
        self._client = crt.S3Client(
            bootstrap=ClientBootstrap(group, DefaultHostResolver(group)),
            region="us-east-1",
            signing_config=crt.create_default_s3_signing_config(region="us-east-1", credential_provider=credentials),
            tls_mode=crt.S3RequestTlsMode.DISABLED,
            part_size=5 * MiB,
            multipart_upload_threshold=5 * MiB,
        )

    def request(self, kind: crt.S3RequestType, method: str, path: str, body: bytes | None = None, **options: Any) -> bytes:
        headers, got = HttpHeaders([("Host", self._host)]), bytearray()
        if body is not None:
            headers.add("Content-Length", str(len(body)))
        under_way = self._client.make_request(
            type=kind,
            request=HttpRequest(method, path, headers, None if body is None else io.BytesIO(body)),
            on_body=lambda chunk, offset, **_: got.extend(chunk),
            **options,
        )
        under_way.finished_future.result(60)
        return bytes(got)


@pytest.mark.parametrize("size", [0, 1000, 17 * MiB])
@pytest.mark.parametrize("name", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_awscrt_puts_with_trailing_checksums_and_gets_in_parallel_ranges(server: Server, name: str, size: int) -> None:
    box = f"crt-{name.lower()}-{size}"
    client, data = Crt(server), os.urandom(size)
    make = {"operation_name": "CreateBucket"}
    client.request(crt.S3RequestType.DEFAULT, "PUT", f"/{box}", b"", **make)
    trailing = crt.S3ChecksumConfig(algorithm=crt.S3ChecksumAlgorithm[name], location=crt.S3ChecksumLocation.TRAILER)
    client.request(crt.S3RequestType.PUT_OBJECT, "PUT", f"/{box}/key", data, checksum_config=trailing)
    verified = crt.S3ChecksumConfig(validate_response=True)
    assert client.request(crt.S3RequestType.GET_OBJECT, "GET", f"/{box}/key", checksum_config=verified) == data

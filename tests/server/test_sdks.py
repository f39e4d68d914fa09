"""SDKs that nobody here wrote, against a real server that requires signatures."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.httpxsession import HttpxSession
from aiobotocore.session import get_session
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from minio import Minio
from minio.commonconfig import CopySource
from minio.error import S3Error

from tests.server.serving import ACCESS_KEY, SECRET_KEY, Server, served

pytestmark = pytest.mark.slow

MiB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("sdks"), "--auth") as server:
        yield server


def boto(server: Server, **config: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"max_attempts": 1}, **config),
    )


@pytest.fixture(scope="module")
def s3(server: Server) -> Iterator[Any]:
    client = boto(server)
    yield client
    client.close()


@pytest.fixture
def box(s3: Any, server: Server, request: pytest.FixtureRequest) -> str:
    name = hashlib.sha1(request.node.name.encode()).hexdigest()[:20]
    s3.create_bucket(Bucket=name)
    return name


def error_of(function: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        function(**arguments)
    return str(caught.value.response["Error"]["Code"])


# -- boto3 -----------------------------------------------------------------------------------


def test_boto3_puts_and_gets_everything_about_an_object(s3: Any, box: str) -> None:
    put = s3.put_object(
        Bucket=box,
        Key="a/ü +%.txt",
        Body=b"hello world",
        ContentType="text/plain",
        ContentEncoding="x-none",
        CacheControl="no-cache",
        Metadata={"colour": "blue"},
        Tagging="team=a&level=1",
        ChecksumAlgorithm="SHA256",
    )
    assert put["ETag"] == f'"{hashlib.md5(b"hello world").hexdigest()}"'
    got = s3.get_object(Bucket=box, Key="a/ü +%.txt", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"hello world"
    assert (got["ContentType"], got["ContentEncoding"], got["CacheControl"]) == ("text/plain", "x-none", "no-cache")
    assert got["Metadata"] == {"colour": "blue"}
    assert got["ChecksumSHA256"] == put["ChecksumSHA256"]
    assert got["TagCount"] == 2
    assert s3.get_object(Bucket=box, Key="a/ü +%.txt", Range="bytes=-5")["Body"].read() == b"world"
    assert {tag["Key"] for tag in s3.get_object_tagging(Bucket=box, Key="a/ü +%.txt")["TagSet"]} == {"team", "level"}
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=box)["Contents"]] == ["a/ü +%.txt"]
    s3.delete_object(Bucket=box, Key="a/ü +%.txt")
    assert error_of(s3.get_object, Bucket=box, Key="a/ü +%.txt") == "NoSuchKey"


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_boto3_streams_with_every_checksum_as_a_trailer(s3: Any, box: str, algorithm: str) -> None:
    body = os.urandom(3 * MiB + 7)
    put = s3.put_object(Bucket=box, Key=algorithm, Body=io.BytesIO(body), ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=box, Key=algorithm, ChecksumMode="ENABLED")
    assert got["Body"].read() == body
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]


def test_boto3_transfers_in_parts(s3: Any, box: str) -> None:
    body = os.urandom(17 * MiB)
    config = TransferConfig(multipart_threshold=5 * MiB, multipart_chunksize=5 * MiB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(body), box, "big", Config=config)
    head = s3.head_object(Bucket=box, Key="big")
    assert head["ContentLength"] == len(body)
    assert head["ETag"].endswith('-4"')
    assert s3.head_object(Bucket=box, Key="big", PartNumber=2)["ContentLength"] == 5 * MiB
    s3.copy({"Bucket": box, "Key": "big"}, box, "copy", Config=config)
    received = io.BytesIO()
    s3.download_fileobj(box, "copy", received, Config=config)
    assert received.getvalue() == body


def test_boto3_lists_page_by_page(s3: Any, box: str) -> None:
    for number in range(25):
        s3.put_object(Bucket=box, Key=f"{number // 10}/{number:02}", Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=box, PaginationConfig={"PageSize": 7})
    assert [each["Key"] for page in pages for each in page["Contents"]] == [f"{n // 10}/{n:02}" for n in range(25)]
    top = s3.list_objects(Bucket=box, Delimiter="/")
    assert [each["Prefix"] for each in top["CommonPrefixes"]] == ["0/", "1/", "2/"]
    gone = s3.delete_objects(Bucket=box, Delete={"Objects": [{"Key": f"0/{n:02}"} for n in range(10)]})
    assert len(gone["Deleted"]) == 10
    assert error_of(s3.delete_bucket, Bucket=box) == "BucketNotEmpty"


def test_boto3_keeps_versions(s3: Any, box: str) -> None:
    s3.put_bucket_versioning(Bucket=box, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=box, Key="a", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket=box, Key="a", Body=b"2")["VersionId"]
    marker = s3.delete_object(Bucket=box, Key="a")
    assert marker["DeleteMarker"]
    assert error_of(s3.get_object, Bucket=box, Key="a") == "NoSuchKey"
    assert s3.get_object(Bucket=box, Key="a", VersionId=first)["Body"].read() == b"1"
    listed = s3.list_object_versions(Bucket=box)
    assert [each["VersionId"] for each in listed["Versions"]] == [second, first]
    assert [each["VersionId"] for each in listed["DeleteMarkers"]] == [marker["VersionId"]]
    s3.delete_object(Bucket=box, Key="a", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=box, Key="a")["Body"].read() == b"2"


def test_boto3_conditions_hold(s3: Any, box: str) -> None:
    etag = s3.put_object(Bucket=box, Key="a", Body=b"1", IfNoneMatch="*")["ETag"]
    assert error_of(s3.put_object, Bucket=box, Key="a", Body=b"2", IfNoneMatch="*") == "PreconditionFailed"
    assert error_of(s3.put_object, Bucket=box, Key="a", Body=b"2", IfMatch='"other"') == "PreconditionFailed"
    s3.put_object(Bucket=box, Key="a", Body=b"2", IfMatch=etag)
    assert error_of(s3.get_object, Bucket=box, Key="a", IfMatch=etag) == "PreconditionFailed"


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_boto3_presigned_urls_are_good_for_any_client(server: Server, s3: Any, box: str, version: str) -> None:
    client = boto(server, signature_version=version)
    put = client.generate_presigned_url("put_object", Params={"Bucket": box, "Key": "a b"}, ExpiresIn=60)
    with urlopen(Request(put, data=b"presigned", method="PUT", headers={"Content-Type": ""})) as answer:
        assert answer.status == 200
    get = client.generate_presigned_url("get_object", Params={"Bucket": box, "Key": "a b"}, ExpiresIn=60)
    with urlopen(get) as answer:
        assert answer.read() == b"presigned"
    client.close()


def test_boto3_with_a_wrong_secret_is_refused(server: Server, box: str) -> None:
    client = boto3.client(
        "s3", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id=ACCESS_KEY, aws_secret_access_key="not the secret"
    )
    assert error_of(client.list_objects_v2, Bucket=box) == "SignatureDoesNotMatch"
    client.close()


# -- minio -----------------------------------------------------------------------------------


def test_minio_works(server: Server, box: str) -> None:
    client = Minio(server.url.removeprefix("http://"), access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False, region="us-east-1")
    body = os.urandom(11 * MiB)
    client.put_object(box, "a/b", io.BytesIO(body), len(body), part_size=5 * MiB, metadata={"colour": "blue"})
    client.put_object(box, "unknown length", io.BytesIO(body), -1, part_size=5 * MiB)
    found = client.stat_object(box, "a/b")
    assert found.size == len(body)
    assert (found.metadata or {})["x-amz-meta-colour"] == "blue"
    answer = client.get_object(box, "a/b", offset=5, length=10)
    assert answer.read() == body[5:15]
    answer.close()
    answer.release_conn()
    client.copy_object(box, "copy", CopySource(box, "a/b"))
    assert {each.object_name for each in client.list_objects(box, recursive=True)} == {"a/b", "copy", "unknown length"}
    client.remove_object(box, "copy")
    with pytest.raises(S3Error, match="NoSuchKey"):
        client.stat_object(box, "copy")
    client._http.clear()


# -- aiobotocore on trio -----------------------------------------------------------------------


async def test_aiobotocore_on_trio_works(server: Server, box: str) -> None:
    body = os.urandom(2 * MiB)
    async with get_session().create_client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=AioConfig(http_session_cls=HttpxSession),
    ) as client:
        await client.put_object(Bucket=box, Key="a", Body=body)
        answer = await client.get_object(Bucket=box, Key="a", Range="bytes=10-19")
        assert await answer["Body"].read() == body[10:20]
        assert (await client.list_objects_v2(Bucket=box))["KeyCount"] == 1

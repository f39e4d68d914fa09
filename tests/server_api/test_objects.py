"""Objects through boto3: put, get, head, list, delete; ranges, conditions, metadata, checksums."""

from __future__ import annotations

import hashlib
import random
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import trio
from botocore.exceptions import ClientError

from s3mount.model import Key, KiB, MiB
from s3mount.server.calls import LOGGED
from s3mount.store.api import Commit
from s3mount.store.local import LocalStore

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    return error.value.response["Error"]["Code"], error.value.response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("size", [0, 1, 10 * KiB, 200 * KiB, 3 * MiB])
def test_what_was_put_is_got(s3: Any, bucket: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    put = s3.put_object(Bucket=bucket, Key="a b/ü+%", Body=data)
    got = s3.get_object(Bucket=bucket, Key="a b/ü+%", ChecksumMode="ENABLED")
    assert put["ETag"] == got["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert got["Body"].read() == data
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]
    head = s3.head_object(Bucket=bucket, Key="a b/ü+%")
    assert head["ContentLength"] == size
    assert "ServerSideEncryption" not in head


def test_a_small_body_lies_in_the_log_and_has_no_file_of_its_own(served: Any, s3: Any, bucket: str) -> None:
    there = set(served.engine.bodies.files())
    bodies = [random.Random(size).randbytes(size) for size in (30_000, LOGGED, LOGGED + 1)]
    for data in bodies:
        s3.put_object(Bucket=bucket, Key=f"{len(data)}", Body=data)
    (made,) = set(served.engine.bodies.files()) - there
    assert made.stat().st_size == LOGGED + 1
    assert [s3.get_object(Bucket=bucket, Key=f"{len(data)}")["Body"].read() for data in bodies] == bodies


def test_a_key_that_is_not_there_is_no_such_key(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=bucket, Key="absent")
    assert code_of(error) == ("NoSuchKey", 404)
    with pytest.raises(ClientError) as error:
        s3.head_object(Bucket=bucket, Key="absent")
    assert code_of(error) == ("404", 404)
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="no-such-bucket", Key="absent")
    assert code_of(error) == ("NoSuchBucket", 404)


def test_what_was_deleted_is_gone_and_can_be_deleted_again(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="a")
    s3.delete_object(Bucket=bucket, Key="a")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize(
    ("asked", "want", "said"),
    [("bytes=2-4", slice(2, 5), "bytes 2-4/10"), ("bytes=7-", slice(7, 10), "bytes 7-9/10"), ("bytes=-3", slice(7, 10), "bytes 7-9/10")],
)
def test_a_range_is_answered_with_its_bytes_alone(s3: Any, bucket: str, asked: str, want: slice, said: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="a", Range=asked, ChecksumMode="ENABLED")
    assert (got["Body"].read(), got["ContentRange"]) == (b"0123456789"[want], said)
    assert "ChecksumCRC32" not in got


def test_a_range_behind_the_end_cannot_be_satisfied(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"0123456789")
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=bucket, Key="a", Range="bytes=10-")
    assert code_of(error) == ("InvalidRange", 416)


def test_a_large_range_comes_from_the_middle_of_a_body(s3: Any, bucket: str) -> None:
    data = random.Random(7).randbytes(2 * MiB)
    s3.put_object(Bucket=bucket, Key="a", Body=data)
    got = s3.get_object(Bucket=bucket, Key="a", Range=f"bytes=1000-{MiB}")
    assert got["Body"].read() == data[1000 : MiB + 1]


def test_metadata_and_content_headers_come_back(s3: Any, bucket: str) -> None:
    given = {"CacheControl": "no-cache", "ContentDisposition": "inline", "ContentEncoding": "gzip", "ContentLanguage": "de"}
    s3.put_object(Bucket=bucket, Key="a", Body=b"x", ContentType="text/x", Metadata={"name": "value"}, Tagging="a=1&b=2", **given)
    got = s3.head_object(Bucket=bucket, Key="a")
    assert {name: got[name] for name in given} == given
    assert (got["ContentType"], got["Metadata"], got["TagCount"]) == ("text/x", {"name": "value"}, 2)


def test_conditional_reads(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"x")["ETag"]
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=bucket, Key="a", IfNoneMatch=etag)
    assert code_of(error) == ("304", 304)
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=bucket, Key="a", IfMatch='"other"')
    assert code_of(error) == ("PreconditionFailed", 412)


def test_conditional_writes(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"x", IfNoneMatch="*")["ETag"]
    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"other"'}):
        with pytest.raises(ClientError) as error:
            s3.put_object(Bucket=bucket, Key="a", Body=b"y", **condition)
        assert code_of(error) == ("PreconditionFailed", 412)
    s3.put_object(Bucket=bucket, Key="a", Body=b"z", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"z"
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=bucket, Key="b", Body=b"z", IfMatch=etag)
    assert code_of(error) == ("NoSuchKey", 404)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_each_checksum_is_verified_kept_and_returned(s3: Any, bucket: str, algorithm: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="a", Body=b"hello", ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"hello"
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert got["ChecksumType"] == "FULL_OBJECT"
    attributes = s3.get_object_attributes(Bucket=bucket, Key="a", ObjectAttributes=["ETag", "Checksum", "ObjectSize", "StorageClass"])
    assert attributes["Checksum"][f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert (attributes["ObjectSize"], attributes["StorageClass"]) == (5, "STANDARD")


def test_a_wrong_digest_stores_nothing(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=bucket, Key="a", Body=b"hello", ChecksumCRC32="AAAAAA==")
    assert code_of(error) == ("BadDigest", 400)
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=bucket, Key="a", Body=b"hello", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")
    assert code_of(error) == ("BadDigest", 400)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_copy_has_the_bytes_and_what_the_directives_say(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"hello", Metadata={"one": "1"}, Tagging="x=y")
    s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})
    s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "a"}, Metadata={"two": "2"}, MetadataDirective="REPLACE")
    b, c = (s3.get_object(Bucket=bucket, Key=key) for key in "bc")
    assert (b["Body"].read(), b["Metadata"], b["TagCount"]) == (b"hello", {"one": "1"}, 1)
    assert (c["Body"].read(), c["Metadata"]) == (b"hello", {"two": "2"})
    with pytest.raises(ClientError) as error:
        s3.copy_object(Bucket=bucket, Key="a", CopySource={"Bucket": bucket, "Key": "a"})
    assert code_of(error) == ("InvalidRequest", 400)
    s3.copy_object(Bucket=bucket, Key="a", CopySource={"Bucket": bucket, "Key": "a"}, Metadata={}, MetadataDirective="REPLACE")
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"hello"


def test_a_copy_of_an_object_made_of_parts_is_one_piece_with_an_md5(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="a", ChecksumAlgorithm="SHA256")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="a", UploadId=upload, PartNumber=1, Body=b"hello", ChecksumAlgorithm="SHA256")
    named = {"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}
    s3.complete_multipart_upload(Bucket=bucket, Key="a", UploadId=upload, MultipartUpload={"Parts": [named]})
    copied = s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})["CopyObjectResult"]
    assert copied["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert (copied["ChecksumType"], copied["ChecksumSHA256"]) == ("FULL_OBJECT", part["ChecksumSHA256"])
    head = s3.head_object(Bucket=bucket, Key="b", PartNumber=1)
    assert (head["ETag"], "PartsCount" in head) == (copied["ETag"], False)


def test_what_a_mount_writes_anew_keeps_headers_and_tags_but_no_old_checksum(served: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"old", CacheControl="no-cache", ContentEncoding="x-none", Tagging="x=y")
    base = served.engine.head(bucket, "a")

    async def write() -> None:
        await LocalStore(served.engine, bucket).put(Key("a"), b"news", Commit(file_id=base.file_id))

    trio.run(write)
    got = s3.get_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")
    assert (got["Body"].read(), got["CacheControl"], got["ContentEncoding"], got["TagCount"]) == (b"news", "no-cache", "x-none", 1)
    assert not any(name.startswith("Checksum") for name in got)
    copied = s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})["CopyObjectResult"]
    assert (copied["ETag"], copied["ChecksumType"]) == (f'"{hashlib.md5(b"news").hexdigest()}"', "FULL_OBJECT")


def test_tags_are_replaced_and_removed(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    tags = [{"Key": "b", "Value": "2"}, {"Key": "a", "Value": "1"}]
    s3.put_object_tagging(Bucket=bucket, Key="a", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"] == tags
    s3.delete_object_tagging(Bucket=bucket, Key="a")
    assert s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"] == []


def test_many_objects_are_deleted_at_once(s3: Any, bucket: str) -> None:
    keys = [f"key-{number}" for number in range(5)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in [*keys[:4], "absent"]]})
    assert [each["Key"] for each in answer["Deleted"]] == [*keys[:4], "absent"]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": keys[4]}], "Quiet": True})
    assert "Deleted" not in answer
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_presigned_urls_work_in_both_versions(served: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b", Body=b"hello")
    for version in ("s3v4", "s3"):
        url = served.client(signature_version=version).generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a b"})
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"hello"


def test_what_is_not_implemented_says_so(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    asks: tuple[Callable[[], Any], ...] = (
        lambda: s3.get_bucket_acl(Bucket=bucket),
        lambda: s3.get_bucket_lifecycle_configuration(Bucket=bucket),
        lambda: s3.put_object_acl(Bucket=bucket, Key="a", ACL="private"),
        lambda: s3.get_object_torrent(Bucket=bucket, Key="a"),
    )
    for ask in asks:
        with pytest.raises(ClientError) as error:
            ask()
        assert code_of(error) == ("NotImplemented", 501)
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"x"


def test_a_wrong_secret_and_an_unknown_key_are_refused(served: Any) -> None:
    with pytest.raises(ClientError) as error:
        served.client(secret="wrong").list_buckets()
    assert code_of(error) == ("SignatureDoesNotMatch", 403)
    with pytest.raises(ClientError) as error:
        served.client(access_key="nobody").list_buckets()
    assert code_of(error) == ("InvalidAccessKeyId", 403)

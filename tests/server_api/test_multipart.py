"""Multipart uploads through boto3."""

from __future__ import annotations

import hashlib
import io
import random
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from s3mount.model import MiB
from tests.server_api.test_objects import code_of

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow

DATA = random.Random(3).randbytes(11 * MiB)
PARTS = [DATA[: 5 * MiB], DATA[5 * MiB : 10 * MiB], DATA[10 * MiB :]]


def begun(s3: Any, bucket: str, **options: Any) -> dict[str, Any]:
    made = s3.create_multipart_upload(Bucket=bucket, Key="a", **options)
    return {"Bucket": bucket, "Key": "a", "UploadId": made["UploadId"]}


def sent(s3: Any, upload: dict[str, Any], order: tuple[int, ...] = (3, 1, 2), **options: Any) -> list[dict[str, Any]]:
    answers = {number: s3.upload_part(**upload, PartNumber=number, Body=PARTS[number - 1], **options) for number in order}
    kept = ("ETag", *(f"Checksum{options[name]}" for name in ("ChecksumAlgorithm",) if name in options))
    return [{"PartNumber": number, **{name: answers[number][name] for name in kept}} for number in sorted(answers)]


def test_parts_in_any_order_become_the_object(s3: Any, bucket: str) -> None:
    upload = begun(s3, bucket, ContentType="text/x", Metadata={"a": "b"})
    parts = sent(s3, upload)
    assert [part["Size"] for part in s3.list_parts(**upload)["Parts"]] == [5 * MiB, 5 * MiB, MiB]
    made = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    digests = b"".join(hashlib.md5(part).digest() for part in PARTS)
    assert made["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"'
    got = s3.get_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")
    assert got["Body"].read() == DATA
    assert (got["ContentType"], got["Metadata"], got["ChecksumType"]) == ("text/x", {"a": "b"}, made["ChecksumType"])
    again = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert again["ETag"] == made["ETag"]


@pytest.mark.parametrize(("algorithm", "kind"), [("SHA256", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("CRC32C", "COMPOSITE")])
def test_checksums_of_parts_make_that_of_the_whole(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    upload = begun(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    parts = sent(s3, upload, ChecksumAlgorithm=algorithm)
    made = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert made["ChecksumType"] == kind
    assert made[f"Checksum{algorithm}"].endswith("-3") is (kind == "COMPOSITE")
    assert s3.head_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")[f"Checksum{algorithm}"] == made[f"Checksum{algorithm}"]
    page = s3.get_object_attributes(Bucket=bucket, Key="a", ObjectAttributes=["ObjectParts"], MaxParts=2)["ObjectParts"]
    assert (page["TotalPartsCount"], page["IsTruncated"], [part["PartNumber"] for part in page["Parts"]]) == (3, True, [1, 2])


def test_one_part_can_be_read(s3: Any, bucket: str) -> None:
    upload = begun(s3, bucket)
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent(s3, upload)})
    got = s3.get_object(Bucket=bucket, Key="a", PartNumber=2)
    assert (got["PartsCount"], got["Body"].read()) == (3, PARTS[1])
    with pytest.raises(ClientError) as error:
        s3.head_object(Bucket=bucket, Key="a", PartNumber=4)
    assert code_of(error) == ("416", 416)


def test_a_completion_that_is_not_right_is_refused(s3: Any, bucket: str) -> None:
    upload = begun(s3, bucket)
    parts = sent(s3, upload)
    small = s3.upload_part(**upload, PartNumber=4, Body=b"x")
    last = {"PartNumber": 5, "ETag": s3.upload_part(**upload, PartNumber=5, Body=b"y")["ETag"]}
    for named, code in (
        (parts[::-1], "InvalidPartOrder"),
        ([{**parts[0], "ETag": '"0"'}], "InvalidPart"),
        ([{"PartNumber": 9, "ETag": parts[0]["ETag"]}], "InvalidPart"),
        ([{"PartNumber": 4, "ETag": small["ETag"]}, last], "EntityTooSmall"),
        ([], "MalformedXML"),
    ):
        with pytest.raises(ClientError) as error:
            s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": named})
        assert code_of(error) == (code, 400)
    with pytest.raises(ClientError) as error:
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, MpuObjectSize=5)
    assert code_of(error) == ("InvalidRequest", 400)


def test_an_aborted_upload_is_gone(s3: Any, bucket: str) -> None:
    upload = begun(s3, bucket)
    assert [each["Key"] for each in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["a"]
    s3.abort_multipart_upload(**upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    with pytest.raises(ClientError) as error:
        s3.upload_part(**upload, PartNumber=1, Body=b"x")
    assert code_of(error) == ("NoSuchUpload", 404)


def test_parts_are_copied_from_objects(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=DATA)
    upload = begun(s3, bucket)
    source = {"Bucket": bucket, "Key": "source"}
    spans = (f"bytes={5 * MiB}-{10 * MiB - 1}", f"bytes=0-{MiB - 1}")
    etags = [
        s3.upload_part_copy(**upload, PartNumber=number, CopySource=source, CopySourceRange=span)["CopyPartResult"]["ETag"]
        for number, span in enumerate(spans, start=1)
    ]
    assert etags[0] == f'"{hashlib.md5(PARTS[1]).hexdigest()}"'
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == PARTS[1] + DATA[:MiB]
    with pytest.raises(ClientError) as error:
        s3.upload_part_copy(**begun(s3, bucket), PartNumber=1, CopySource=source, CopySourceRange=f"bytes=0-{len(DATA)}")
    assert code_of(error) == ("InvalidArgument", 400)


def test_the_transfer_manager_sends_and_fetches_in_parallel(s3: Any, bucket: str) -> None:
    config = TransferConfig(multipart_threshold=5 * MiB, multipart_chunksize=5 * MiB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(DATA), bucket, "b", Config=config)
    target = io.BytesIO()
    s3.download_fileobj(bucket, "b", target, Config=config)
    assert target.getvalue() == DATA


def test_uploads_are_listed_page_by_page(s3: Any, bucket: str) -> None:
    made = [(key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]) for key in ("a", "b", "b", "c/1", "c/2")]
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [(each["Key"], each["UploadId"]) for page in pages for each in page["Uploads"]] == made
    rolled = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [each["Prefix"] for each in rolled["CommonPrefixes"]] == ["c/"]

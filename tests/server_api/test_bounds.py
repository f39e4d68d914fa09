"""At S3's bounds: ten thousand parts, and an object far beyond 5 GiB. Its bytes are holes, so it costs neither disk nor time."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from botocore.exceptions import ClientError

from s3mount.model import Content, GiB, Hole, Key, MiB
from s3mount.server.checksums import DEFAULT, Kind, checksum, encode
from s3mount.server.kept import Kept, Sum, pack
from tests.server_api.serving import Served
from tests.server_api.test_objects import code_of

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow

PARTS = 10_000
SIZE = 5 * MiB


@pytest.fixture(scope="module")
def giant(served: Served, s3: Any) -> str:
    """A bucket with the object `giant`: 9999 parts of zeros, which the engine was given as holes, and a last one by HTTP."""
    s3.create_bucket(Bucket="bounds")
    upload_id = s3.create_multipart_upload(Bucket="bounds", Key="giant")["UploadId"]
    upload = served.engine.upload_info("bounds", Key("giant"), upload_id).upload
    zeros = bytes(SIZE)
    tag = hashlib.md5(zeros).hexdigest()
    extra = pack(Kept(sums=(Sum(DEFAULT, Kind.FULL_OBJECT, encode(checksum(DEFAULT, zeros))),)))
    for number in range(1, PARTS):
        hole = Content(SIZE, (Hole(0, SIZE),))
        served.engine.put_part("bounds", upload, number, hole, etag=tag, extra=extra, durable=number == PARTS - 1)
    last = s3.upload_part(Bucket="bounds", Key="giant", UploadId=upload_id, PartNumber=PARTS, Body=b"the end")["ETag"]
    assert len(list_parts(s3, upload_id)) == PARTS
    named = [{"PartNumber": number, "ETag": f'"{tag}"'} for number in range(1, PARTS)] + [{"PartNumber": PARTS, "ETag": last}]
    done = s3.complete_multipart_upload(Bucket="bounds", Key="giant", UploadId=upload_id, MultipartUpload={"Parts": named})
    assert done["ETag"].endswith(f'-{PARTS}"')
    assert done["ChecksumType"] == "FULL_OBJECT"
    return "bounds"


def list_parts(s3: Any, upload_id: str) -> list[Any]:
    pages = s3.get_paginator("list_parts").paginate(Bucket="bounds", Key="giant", UploadId=upload_id)
    return [part for page in pages for part in page["Parts"]]


def test_ten_thousand_parts_make_one_object(s3: Any, giant: str) -> None:
    head = s3.head_object(Bucket=giant, Key="giant")
    assert head["ContentLength"] == (PARTS - 1) * SIZE + 7
    last = s3.get_object(Bucket=giant, Key="giant", PartNumber=PARTS)
    assert (last["Body"].read(), last["PartsCount"]) == (b"the end", PARTS)
    told = s3.get_object_attributes(
        Bucket=giant, Key="giant", ObjectAttributes=["ObjectParts", "ObjectSize"], MaxParts=3, PartNumberMarker=PARTS - 3
    )
    assert (told["ObjectSize"], told["ObjectParts"]["TotalPartsCount"]) == (head["ContentLength"], PARTS)
    assert [part["PartNumber"] for part in told["ObjectParts"]["Parts"]] == [PARTS - 2, PARTS - 1, PARTS]


def test_ranges_far_behind_five_gib_are_right(s3: Any, giant: str) -> None:
    size = (PARTS - 1) * SIZE + 7
    assert s3.get_object(Bucket=giant, Key="giant", Range="bytes=-10")["Body"].read() == b"\0\0\0the end"
    got = s3.get_object(Bucket=giant, Key="giant", Range=f"bytes={6 * GiB}-{6 * GiB + MiB - 1}")
    assert (got["Body"].read(), got["ContentRange"]) == (bytes(MiB), f"bytes {6 * GiB}-{6 * GiB + MiB - 1}/{size}")


def test_a_copy_of_more_than_five_gib_takes_parts(s3: Any, giant: str) -> None:
    source = {"Bucket": giant, "Key": "giant"}
    with pytest.raises(ClientError) as error:
        s3.copy_object(Bucket=giant, Key="copy", CopySource=source)
    assert code_of(error) == ("InvalidRequest", 400)
    upload = s3.create_multipart_upload(Bucket=giant, Key="copy")["UploadId"]
    size = (PARTS - 1) * SIZE + 7
    part = s3.upload_part_copy(
        Bucket=giant, Key="copy", UploadId=upload, PartNumber=1, CopySource=source, CopySourceRange=f"bytes={size - 10}-{size - 1}"
    )["CopyPartResult"]["ETag"]
    assert part == f'"{hashlib.md5(bytes(3) + b"the end").hexdigest()}"'
    named = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    s3.complete_multipart_upload(Bucket=giant, Key="copy", UploadId=upload, MultipartUpload=named)
    assert s3.get_object(Bucket=giant, Key="copy")["Body"].read() == bytes(3) + b"the end"


def test_there_is_no_part_beyond_the_last(s3: Any, giant: str) -> None:
    upload = s3.create_multipart_upload(Bucket=giant, Key="more")["UploadId"]
    for number in (0, PARTS + 1):
        with pytest.raises(ClientError) as error:
            s3.upload_part(Bucket=giant, Key="more", UploadId=upload, PartNumber=number, Body=b"x")
        assert code_of(error) == ("InvalidArgument", 400)

"""Versioned buckets through boto3."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.server_api.test_objects import code_of

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow


@pytest.fixture
def versioned(s3: Any, bucket: str) -> str:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def test_a_bucket_says_whether_it_keeps_versions(s3: Any, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    for status in ("Enabled", "Suspended"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status


def test_each_version_is_read_and_deleted_by_its_id(s3: Any, versioned: str) -> None:
    one, two = (s3.put_object(Bucket=versioned, Key="a", Body=body)["VersionId"] for body in (b"one", b"two"))
    assert s3.get_object(Bucket=versioned, Key="a", VersionId=one)["Body"].read() == b"one"
    assert s3.head_object(Bucket=versioned, Key="a")["VersionId"] == two
    s3.delete_object(Bucket=versioned, Key="a", VersionId=two)
    assert s3.get_object(Bucket=versioned, Key="a")["Body"].read() == b"one"
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=versioned, Key="a", VersionId=two)
    assert code_of(error) == ("NoSuchVersion", 404)


def test_a_delete_leaves_a_marker_that_can_be_deleted(s3: Any, versioned: str) -> None:
    s3.put_object(Bucket=versioned, Key="a", Body=b"one")
    gone = s3.delete_object(Bucket=versioned, Key="a")
    assert gone["DeleteMarker"]
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=versioned, Key="a")
    assert code_of(error) == ("NoSuchKey", 404)
    headers = error.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert (headers["x-amz-delete-marker"], headers["x-amz-version-id"]) == ("true", gone["VersionId"])
    with pytest.raises(ClientError) as error:
        s3.head_object(Bucket=versioned, Key="a", VersionId=gone["VersionId"])
    assert code_of(error) == ("405", 405)
    back = s3.delete_object(Bucket=versioned, Key="a", VersionId=gone["VersionId"])
    assert (back["DeleteMarker"], back["VersionId"]) == (True, gone["VersionId"])
    assert s3.get_object(Bucket=versioned, Key="a")["Body"].read() == b"one"


def test_a_delete_of_nothing_leaves_a_marker_too(s3: Any, versioned: str) -> None:
    assert s3.delete_object(Bucket=versioned, Key="never")["DeleteMarker"]
    assert len(s3.list_object_versions(Bucket=versioned)["DeleteMarkers"]) == 1


def test_many_versions_are_deleted_at_once(s3: Any, versioned: str) -> None:
    ids = [s3.put_object(Bucket=versioned, Key="a", Body=b"x")["VersionId"] for _ in range(3)]
    marker = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "a"}]})["Deleted"][0]
    assert marker["DeleteMarker"]
    doomed = [{"Key": "a", "VersionId": each} for each in (*ids, marker["DeleteMarkerVersionId"])]
    assert len(s3.delete_objects(Bucket=versioned, Delete={"Objects": doomed})["Deleted"]) == 4
    s3.delete_bucket(Bucket=versioned)


def test_the_null_version_is_replaced_while_suspended(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"null")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="a", Body=b"one")
    assert s3.get_object(Bucket=bucket, Key="a", VersionId="null")["Body"].read() == b"null"
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=bucket, Key="a", Body=b"null again")
    assert s3.get_object(Bucket=bucket, Key="a", VersionId="null")["Body"].read() == b"null again"
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 2


def test_a_version_is_copied_and_tagged_by_its_id(s3: Any, versioned: str) -> None:
    one = s3.put_object(Bucket=versioned, Key="a", Body=b"one")["VersionId"]
    s3.put_object(Bucket=versioned, Key="a", Body=b"two")
    copied = s3.copy_object(Bucket=versioned, Key="a", CopySource={"Bucket": versioned, "Key": "a", "VersionId": one})
    assert copied["CopySourceVersionId"] == one
    assert s3.get_object(Bucket=versioned, Key="a")["Body"].read() == b"one"
    s3.put_object_tagging(Bucket=versioned, Key="a", VersionId=one, Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    assert s3.get_object_tagging(Bucket=versioned, Key="a", VersionId=one)["TagSet"]
    assert not s3.get_object_tagging(Bucket=versioned, Key="a")["TagSet"]


def test_conditional_writes_and_deletes_look_at_the_current_version(s3: Any, versioned: str) -> None:
    etag = s3.put_object(Bucket=versioned, Key="a", Body=b"one")["ETag"]
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=versioned, Key="a", Body=b"two", IfNoneMatch="*")
    assert code_of(error) == ("PreconditionFailed", 412)
    with pytest.raises(ClientError) as error:
        s3.delete_object(Bucket=versioned, Key="a", IfMatch='"other"')
    assert code_of(error) == ("PreconditionFailed", 412)
    s3.delete_object(Bucket=versioned, Key="a", IfMatch=etag)
    s3.put_object(Bucket=versioned, Key="a", Body=b"two", IfNoneMatch="*")

"""Listings through boto3, both versions."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow

KEYS = ["a", "b/1", "b/2", "c d", "d%", "é", "ünder/x"]


@pytest.fixture
def filled(s3: Any, bucket: str) -> str:
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    return bucket


def test_both_versions_list_all_keys_in_order(s3: Any, filled: str) -> None:
    assert [each["Key"] for each in s3.list_objects(Bucket=filled)["Contents"]] == sorted(KEYS, key=str.encode)
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=filled)["Contents"]] == sorted(KEYS, key=str.encode)


def test_a_delimiter_rolls_up_and_truncation_is_exact(s3: Any, filled: str) -> None:
    answer = s3.list_objects_v2(Bucket=filled, Delimiter="/", MaxKeys=6)
    assert [each["Prefix"] for each in answer["CommonPrefixes"]] == ["b/", "ünder/"]
    assert [each["Key"] for each in answer["Contents"]] == ["a", "c d", "d%", "é"]
    assert not answer["IsTruncated"]


@pytest.mark.parametrize("name", ["list_objects", "list_objects_v2"])
def test_pages_join_to_the_whole(s3: Any, filled: str, name: str) -> None:
    pages = s3.get_paginator(name).paginate(Bucket=filled, Delimiter="/", PaginationConfig={"PageSize": 1})
    found = [each.get("Key") or each["Prefix"] for page in pages for each in (*page.get("Contents", ()), *page.get("CommonPrefixes", ()))]
    assert found == ["a", "b/", "c d", "d%", "é", "ünder/"]


def test_what_was_asked_is_echoed(s3: Any, filled: str) -> None:
    answer = s3.list_objects_v2(Bucket=filled, Prefix="b/", StartAfter="b/1", MaxKeys=7, FetchOwner=True)
    assert (answer["Prefix"], answer["StartAfter"], answer["MaxKeys"], answer["KeyCount"]) == ("b/", "b/1", 7, 1)
    (row,) = answer["Contents"]
    assert (row["Key"], row["Size"], row["StorageClass"], row["ChecksumAlgorithm"]) == ("b/2", 1, "STANDARD", ["CRC32"])
    assert "DisplayName" not in row["Owner"]


def test_max_keys_may_be_zero_and_must_be_a_number(s3: Any, filled: str) -> None:
    answer = s3.list_objects_v2(Bucket=filled, MaxKeys=0)
    assert (answer["KeyCount"], answer["IsTruncated"]) == (0, False)
    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.list_objects_v2(Bucket=filled, MaxKeys=-1)


def test_versions_are_listed_page_by_page(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made = [(key, s3.put_object(Bucket=bucket, Key=key, Body=b"x")["VersionId"]) for key in ("a", "b", "b", "b", "c/1", "c/2")]
    s3.delete_object(Bucket=bucket, Key="a")
    pages = list(s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}))
    found = [(each["Key"], each["VersionId"]) for page in pages for each in page.get("Versions", ())]
    assert found == [made[0], made[3], made[2], made[1], made[4], made[5]]
    assert [each["IsLatest"] for page in pages for each in page.get("DeleteMarkers", ())] == [True]
    rolled = s3.list_object_versions(Bucket=bucket, Delimiter="/", MaxKeys=6)
    assert [each["Prefix"] for each in rolled["CommonPrefixes"]] == ["c/"]
    assert not rolled["IsTruncated"]

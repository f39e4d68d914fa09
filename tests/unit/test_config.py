"""URLs, sizes and durations: text in, values or one sentence out."""

import pytest

from s3mount.config import StoreUrl, parse_duration, parse_size, parse_url
from s3mount.errors import InvalidName, UsageError

URLS = {
    "local://photos": StoreUrl("local", "photos"),
    "local://photos/": StoreUrl("local", "photos"),
    "local://photos/2024/": StoreUrl("local", "photos", "2024/"),
    "local://photos//odd//key": StoreUrl("local", "photos", "/odd//key"),
    "local://photos/a b?c#d%20": StoreUrl("local", "photos", "a b?c#d%20"),
    "local://photos/x://y": StoreUrl("local", "photos", "x://y"),
    "LOCAL://photos/Ä/😀": StoreUrl("local", "photos", "Ä/😀"),
    "local://": StoreUrl("local", ""),
    "s3://my.bucket-1/k": StoreUrl("s3", "my.bucket-1", "k"),
    "local://b/" + "k" * 4096: StoreUrl("local", "b", "k" * 4096),
}

SIZES = {
    "0": 0,
    "1536": 1536,
    "1b": 1,
    "64K": 64 * 1024,
    "64k": 64 * 1024,
    "64KiB": 64 * 1024,
    "64kb": 64_000,
    "20MB": 20_000_000,
    "1.5G": 3 * 2**29,
    "5TiB": 5 * 2**40,
    " 8M ": 8 * 2**20,
}

DURATIONS = {
    "0": 0.0,
    "2": 2.0,
    "0.5": 0.5,
    "500ms": 0.5,
    "1s": 1.0,
    "1.5s": 1.5,
    "5m": 300.0,
    "1h30m": 5400.0,
    "7d": 604800.0,
    " 1s ": 1.0,
}


@pytest.mark.parametrize(("text", "url"), URLS.items())
def test_a_url_is_taken_apart(text: str, url: StoreUrl) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize("text", ["local://b", "s3://b/k", "local://b/k/", "local://"])
def test_a_url_is_put_together_again(text: str) -> None:
    assert str(parse_url(text)) == text


@pytest.mark.parametrize("text", ["", "photos", "/photos", "gs://photos", "local:/photos", "local:photos", "://b", "file://\udcff"])
def test_what_is_no_url_says_how_one_begins(text: str) -> None:
    with pytest.raises(UsageError, match="is no URL of a store: begin with local:// or s3://") as caught:
        parse_url(text)
    str(caught.value).encode()


def test_a_key_without_a_bucket_is_refused() -> None:
    with pytest.raises(UsageError, match="names no bucket: write local://BUCKET/key"):
        parse_url("local:///key")


@pytest.mark.parametrize("text", ["local://b/" + "k" * 4097, "local://b/" + "ä" * 2049, "local://b/\udcff", "local://\udcff/k"])
def test_a_key_that_no_store_can_hold_is_an_invalid_name(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_url(text)
    str(caught.value).encode()


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_a_size_is_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1 M", "1e3", "64X", "64MiBs", "0x10", "inf", "٣"])
def test_what_is_no_size_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match="as in 64M"):
        parse_size(text)


def test_a_part_of_a_byte_is_refused() -> None:
    with pytest.raises(UsageError, match="no whole number of bytes"):
        parse_size("0.3K")


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 s", "5min", "1S", "1h30", "inf", "nan"])
def test_what_is_no_duration_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match="as in 5m"):
        parse_duration(text)

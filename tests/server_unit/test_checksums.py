"""Checksums against the published check values, against whole computation, and as requests state them."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.server import checksums
from s3mount.server.checksums import Algorithm, Claimed, Kind
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import S3Request, parse_request

CRCS = [Algorithm.CRC32, Algorithm.CRC32C, Algorithm.CRC64NVME]
# Of "123456789", as the catalogue of CRCs and the standards of the hashes give them.
CHECK = {
    Algorithm.CRC32: "cbf43926",
    Algorithm.CRC32C: "e3069283",
    Algorithm.CRC64NVME: "ae8b14860a799888",
    Algorithm.SHA1: "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    Algorithm.SHA256: "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
}


def bitwise(data: bytes, polynomial: int, bits: int) -> int:
    """A reflected CRC by its definition, one bit at a time."""
    ones = (1 << bits) - 1
    value = ones
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
    return value ^ ones


POLYNOMIALS = {Algorithm.CRC32: 0xEDB88320, Algorithm.CRC32C: 0x82F63B78, Algorithm.CRC64NVME: 0x9A6C9329AC4BC9B5}


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_check_value_comes_out_in_any_pieces(algorithm: Algorithm) -> None:
    one = checksums.hasher(algorithm)
    for piece in (b"123", bytearray(b"45"), b"", memoryview(b"x6789")[1:]):
        one.update(piece)
    assert one.digest().hex() == CHECK[algorithm]
    assert len(one.digest()) == algorithm.size


@pytest.mark.parametrize("algorithm", CRCS)
@given(data=st.binary(max_size=200))
def test_a_crc_is_what_its_definition_gives(algorithm: Algorithm, data: bytes) -> None:
    assert int.from_bytes(checksums.checksum(algorithm, data), "big") == bitwise(data, POLYNOMIALS[algorithm], 8 * algorithm.size)


@pytest.mark.parametrize("algorithm", CRCS)
@given(parts=st.lists(st.binary(max_size=200), max_size=8))
def test_combined_parts_are_the_whole(algorithm: Algorithm, parts: list[bytes]) -> None:
    whole = checksums.checksum(algorithm, b"".join(parts))
    assert checksums.combine(algorithm, [(checksums.checksum(algorithm, part), len(part)) for part in parts]) == whole


@pytest.mark.parametrize("algorithm", CRCS)
def test_parts_of_many_gibibytes_combine_at_once(algorithm: Algorithm) -> None:
    """Zeros may be joined in any grouping."""
    kibi = (checksums.checksum(algorithm, bytes(1024)), 1024)
    length, digest = 1024, kibi[0]
    for _ in range(30):
        digest = checksums.combine(algorithm, [(digest, length), (digest, length)])
        length *= 2
    again = checksums.combine(algorithm, [(digest, length), kibi])
    assert again == checksums.combine(algorithm, [kibi, (digest, length)])


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.SHA256])
def test_hashes_cannot_be_combined(algorithm: Algorithm) -> None:
    with pytest.raises(ValueError):
        checksums.combine(algorithm, [])


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_composite_is_the_checksum_of_the_checksums(algorithm: Algorithm) -> None:
    digests = [checksums.checksum(algorithm, part) for part in (b"one", b"two", b"three")]
    text = checksums.composite(algorithm, digests)
    assert text == base64.b64encode(checksums.checksum(algorithm, b"".join(digests))).decode() + "-3"


def test_the_etag_of_an_upload_is_the_md5_of_md5s() -> None:
    parts = [hashlib.md5(text).digest() for text in (b"a", b"b")]
    assert checksums.upload_etag(parts) == hashlib.md5(parts[0] + parts[1]).hexdigest() + "-2"
    one = checksums.md5()
    one.update(b"a")
    assert one.digest() == parts[0]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_digest_survives_its_text(algorithm: Algorithm) -> None:
    digest = bytes.fromhex(CHECK[algorithm])
    assert checksums.decode(algorithm, checksums.encode(digest)) == digest


@pytest.mark.parametrize("text", ["", "x", "????", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AAAAAA==-2"])
def test_what_is_no_digest_is_an_invalid_request(text: str) -> None:
    with pytest.raises(S3Error, match="InvalidRequest"):
        checksums.decode(Algorithm.CRC32, text)


@pytest.mark.parametrize("text", ["", "YWJyYWNhZGFicmE=", "no base64", "rL0Y20zC+Fzt72VPzMSk2A"])
def test_what_is_no_md5_is_an_invalid_digest(text: str) -> None:
    with pytest.raises(S3Error, match="InvalidDigest"):
        checksums.decode_md5(text)
    assert checksums.decode_md5("rL0Y20zC+Fzt72VPzMSk2A==").hex() == "acbd18db4cc2f85cedef654fccc4a4d8"


# -- requests ----------------------------------------------------------------------------------


def request(*headers: tuple[str, str]) -> S3Request:
    return parse_request("PUT", "/b/k", [(name.encode(), value.encode()) for name, value in headers])


CRC32 = ("x-amz-checksum-crc32", "AAAAAA==")
SDK = ("x-amz-sdk-checksum-algorithm", "CRC32")


@pytest.mark.parametrize(
    ("headers", "trailers", "expected"),
    [
        ([], [], None),
        ([("x-amz-checksum-mode", "ENABLED"), ("x-amz-checksum-algorithm", "SHA256"), ("x-amz-checksum-type", "COMPOSITE")], [], None),
        ([CRC32], [], Claimed(Algorithm.CRC32, bytes(4))),
        ([CRC32, SDK], [], Claimed(Algorithm.CRC32, bytes(4))),
        ([SDK], ["x-amz-checksum-crc32"], Claimed(Algorithm.CRC32, None)),
        ([], ["x-amz-checksum-crc64nvme", "x-other"], Claimed(Algorithm.CRC64NVME, None)),
        ([SDK], [], "InvalidRequest"),
        ([CRC32, ("x-amz-checksum-sha1", "AAAA")], [], "InvalidRequest"),
        ([CRC32, CRC32], [], "InvalidRequest"),
        ([CRC32], ["x-amz-checksum-crc32"], "InvalidRequest"),
        ([("x-amz-checksum-sha1", "AAAA")], [], "InvalidRequest"),
        ([CRC32, ("x-amz-sdk-checksum-algorithm", "SHA1")], [], "InvalidRequest"),
        ([("x-amz-sdk-checksum-algorithm", "CRC16")], [], "InvalidRequest"),
        ([("x-amz-checksum-sha512", "AAAA")], [], "NotImplemented"),
        ([], ["x-amz-checksum-xxhash3"], "NotImplemented"),
    ],
)
def test_a_request_states_one_checksum_at_most(headers: list[tuple[str, str]], trailers: list[str], expected: Claimed | str | None) -> None:
    if isinstance(expected, str):
        with pytest.raises(S3Error, match=expected):
            checksums.claimed(request(*headers), trailers)
    else:
        assert checksums.claimed(request(*headers), trailers) == expected


@pytest.mark.parametrize(("mode", "wanted"), [(None, False), ("ENABLED", True), ("enabled", True), ("disabled", False)])
def test_checksums_are_answered_when_asked_in_any_case(mode: str | None, wanted: bool) -> None:
    assert checksums.wants_checksums(request(*([] if mode is None else [("x-amz-checksum-mode", mode)]))) is wanted


@pytest.mark.parametrize(
    ("said", "hash_"), [(None, None), ("UNSIGNED-PAYLOAD", None), ("A" * 64, "a" * 64), ("a" * 63, None), ("g" * 64, None)]
)
def test_a_payload_hash_is_a_promise_only_where_it_is_a_hash(said: str | None, hash_: str | None) -> None:
    assert checksums.payload_sha256(request(*([] if said is None else [("x-amz-content-sha256", said)]))) == hash_


C, F = Kind.COMPOSITE, Kind.FULL_OBJECT


@pytest.mark.parametrize(
    ("algorithm", "asked", "kind"),
    [
        (Algorithm.CRC32, None, C),
        (Algorithm.CRC32C, "composite", C),
        (Algorithm.CRC32C, "FULL_OBJECT", F),
        (Algorithm.CRC64NVME, None, F),
        (Algorithm.CRC64NVME, "FULL_OBJECT", F),
        (Algorithm.CRC64NVME, "COMPOSITE", "InvalidRequest"),
        (Algorithm.SHA1, None, C),
        (Algorithm.SHA256, "FULL_OBJECT", "InvalidRequest"),
        (Algorithm.SHA256, "HALF", "InvalidArgument"),
    ],
)
def test_the_kind_of_an_uploads_checksum(algorithm: Algorithm, asked: str | None, kind: Kind | str) -> None:
    if isinstance(kind, str):
        with pytest.raises(S3Error, match=kind):
            checksums.kind_for(algorithm, asked)
    else:
        assert checksums.kind_for(algorithm, asked) is kind


def test_a_completion_may_state_the_whole_in_either_form() -> None:
    assert checksums.claimed_whole(request(("x-amz-checksum-sha256", "abc-3"))) == (Algorithm.SHA256, "abc-3")
    assert checksums.claimed_whole(request(("x-amz-checksum-type", "COMPOSITE"))) is None


def test_a_wrong_body_is_named_by_what_it_was_checked_with() -> None:
    assert [checksums.bad_digest(one).message.split()[1] for one in (None, Algorithm.SHA1)] == ["Content-MD5", "SHA1"]
    assert checksums.parse_algorithm("crc32c") is Algorithm.CRC32C

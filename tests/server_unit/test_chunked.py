"""The aws-chunked decoder: whole, byte by byte, in random pieces, with every malformation named."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import zlib
from collections.abc import Iterable, Sequence

import pytest
from botocore.httpchecksum import (
    AwsChunkedWrapper,
    BaseChecksum,
    Crc32Checksum,
    CrtCrc32cChecksum,
    CrtCrc64NvmeChecksum,
    Sha256Checksum,
)
from hypothesis import given
from hypothesis import strategies as st

from s3mount.server import checksums, sigv4
from s3mount.server.chunked import LINE_BYTES, ChunkDecoder, Form, declared_trailers, decoded_length, form_of
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import S3Request, parse_request
from tests.server_unit.signing import SECRET

SEED = "0" * 64
NAME = "x-amz-checksum-crc32"


def chain() -> sigv4.SignatureChain:
    return sigv4.SignatureChain(
        sigv4.signing_key(SECRET, "20130524", "us-east-1"), "20130524T000000Z", "20130524/us-east-1/s3/aws4_request", SEED
    )


def encoded(chunks: Sequence[bytes], form: Form, *, name: str = NAME, value: str | None = None) -> bytes:
    """*chunks* as a client with our key sends them."""
    signer, out = chain(), bytearray()
    for chunk in [*chunks, b""]:
        signature = f";chunk-signature={signer.next(hashlib.sha256(chunk).hexdigest())}" if form.signed else ""
        out += f"{len(chunk):x}{signature}\r\n".encode() + (chunk + b"\r\n" if chunk else b"")
    if form.trailing:
        text = value if value is not None else base64.b64encode(zlib.crc32(b"".join(chunks)).to_bytes(4, "big")).decode()
        out += f"{name}:{text}\r\n".encode()
        if form.signed:
            out += f"x-amz-trailer-signature:{signer.trailer([(name, text)])}\r\n".encode()
    return bytes(out + b"\r\n")


def decoder(form: Form, expected: int | None = None) -> ChunkDecoder:
    return ChunkDecoder(form, chain=chain(), expected=expected, declared={NAME} if form.trailing else ())


def decoded(one: ChunkDecoder, pieces: Iterable[bytes]) -> bytes:
    out = b"".join(bytes(view) for piece in pieces for view in one.feed(piece))
    one.finish()
    return out


FORMS = [Form.UNSIGNED_TRAILER, Form.SIGNED, Form.SIGNED_TRAILER]
CHUNKS = [[], [b"a"], [b"hello", b" ", b"world"], [b"\r\n", b"0\r\n\r\n", b"x" * 300], [b"z" * 70000, b"y"]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunks", CHUNKS)
def test_payload_comes_out_whole_and_byte_by_byte(form: Form, chunks: list[bytes]) -> None:
    body = encoded(chunks, form)
    steps = [1, len(body)] if len(body) < 5000 else [1021, len(body)]
    for step in steps:
        one = decoder(form, expected=sum(map(len, chunks)))
        assert decoded(one, (body[at : at + step] for at in range(0, len(body), step))) == b"".join(chunks)
        assert one.done
        assert set(one.trailers) == ({NAME} if form.trailing else set())


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.sampled_from(FORMS), st.data())
def test_boundaries_of_what_is_fed_mean_nothing(chunks: list[bytes], form: Form, data: st.DataObject) -> None:
    body = encoded(chunks, form)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert decoded(decoder(form, sum(map(len, chunks))), pieces) == b"".join(chunks)


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=4), st.sampled_from([Form.SIGNED, Form.SIGNED_TRAILER]), st.data())
def test_a_flipped_bit_never_passes_a_signed_body(chunks: list[bytes], form: Form, data: st.DataObject) -> None:
    body = bytearray(encoded(chunks, form))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.sampled_from([1, 2, 64]))
    try:
        out = decoded(decoder(form, sum(map(len, chunks))), [bytes(body)])
    except S3Error:
        return
    assert out == b"".join(chunks), "only what is not signed (the case of a digit) may differ"


@given(st.binary(max_size=200), st.sampled_from(FORMS))
def test_rubbish_is_refused_by_name_or_decoded(rubbish: bytes, form: Form) -> None:
    try:
        decoded(decoder(form), [rubbish])
    except S3Error:
        return
    assert form is Form.UNSIGNED_TRAILER or not rubbish, "what nobody signed"


@given(st.data(), st.sampled_from(FORMS))
def test_a_body_cut_short_is_incomplete(data: st.DataObject, form: Form) -> None:
    body = encoded([b"hello", b"world"], form)
    short = body[: data.draw(st.integers(0, len(body) - 1))]
    with pytest.raises(S3Error, match="IncompleteBody"):
        decoded(decoder(form, 10), [short])


@pytest.mark.parametrize("checksum", [Crc32Checksum, CrtCrc32cChecksum, CrtCrc64NvmeChecksum, Sha256Checksum])
@pytest.mark.parametrize("size", [0, 1, 10_000, 100_000])
def test_what_boto3_encodes_over_tls_comes_out_with_its_checksum(checksum: type[BaseChecksum], size: int) -> None:
    data = random.Random(size).randbytes(size)
    name = f"x-amz-checksum-{checksum.__name__.removeprefix('Crt').removesuffix('Checksum').lower()}"
    body = AwsChunkedWrapper(io.BytesIO(data), checksum_cls=checksum, checksum_name=name, chunk_size=4096).read()
    one = ChunkDecoder(U, expected=size, declared=[name])
    assert decoded(one, [body[at : at + 1000] for at in range(0, len(body), 1000)]) == data
    assert one.trailers == {name: checksums.encode(checksums.checksum(checksums.BY_HEADER[name], data))}


def test_payload_is_handed_out_without_a_copy() -> None:
    body = encoded([b"x" * 1000], Form.UNSIGNED_TRAILER)
    (view,) = decoder(Form.UNSIGNED_TRAILER).feed(body)
    assert view.obj is body


def test_a_view_is_decoded_as_well() -> None:
    body = b"junk" + encoded([b"hello"], Form.UNSIGNED_TRAILER)
    one = decoder(Form.UNSIGNED_TRAILER)
    assert [bytes(view) for view in one.feed(memoryview(body)[4:])] == [b"hello"]
    one.finish()


def test_signatures_are_only_parsed_where_no_key_is_known() -> None:
    one = ChunkDecoder(Form.SIGNED_TRAILER, expected=5, declared=[NAME])
    assert decoded(one, [encoded([b"hello"], Form.SIGNED_TRAILER).replace(b"signature=", b"signature=00")]) == b"hello"


U, S, T = Form.UNSIGNED_TRAILER, Form.SIGNED, Form.SIGNED_TRAILER
SIGNED_HELLO = encoded([b"hello"], S)
TRAILED_HELLO = encoded([b"hello"], T)
MALFORMED = [
    (U, b"\r\n", "InvalidRequest"),
    (U, b"zz\r\n", "InvalidRequest"),
    (U, b"-5\r\nhello\r\n", "InvalidRequest"),
    (U, b"0x5\r\nhello\r\n", "InvalidRequest"),
    (U, b"5_0\r\n", "InvalidRequest"),
    (U, b"f" * 16 + b"\r\n", "InvalidRequest"),
    (U, b"5\nhello\r\n0\r\n\r\n", "InvalidRequest"),
    (U, b"5\r\nhello!\r\n0\r\n\r\n", "InvalidRequest"),
    (U, b"4\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
    (U, b"6\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
    (U, b"5;" + b"x" * LINE_BYTES, "InvalidRequest"),
    (U, b"5" * (LINE_BYTES + 10), "InvalidRequest"),
    (U, b"0\r\nx-amz-checksum-crc32 AAAA\r\n\r\n", "MalformedTrailerError"),
    (U, b"0\r\nx-amz-checksum-sha1:AAAA\r\n\r\n", "MalformedTrailerError"),
    (U, b"0\r\nx-amz-checksum-crc32:A\r\nx-amz-checksum-crc32:B\r\n\r\n", "MalformedTrailerError"),
    (U, b"0\r\n\r\n", "MalformedTrailerError"),
    (U, b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\nmore\r\n", "InvalidRequest"),
    (U, b"0\r\nx-amz-checksum-crc32:" + b"A" * LINE_BYTES, "InvalidRequest"),
    (S, b"5\r\nhello\r\n", "InvalidRequest"),
    (S, b"5;chunk-signature=00\r\nhello\r\n", "SignatureDoesNotMatch"),
    (S, b"0;chunk-signature=\r\n\r\n", "SignatureDoesNotMatch"),
    (S, SIGNED_HELLO.replace(b"hello", b"jello"), "SignatureDoesNotMatch"),
    (S, b"0;chunk-signature=" + chain().next(hashlib.sha256(b"").hexdigest()).encode() + b"\r\na:b\r\n\r\n", "MalformedTrailerError"),
    (T, TRAILED_HELLO.replace(b"crc32:", b"crc32:A"), "SignatureDoesNotMatch"),
    (T, TRAILED_HELLO.replace(b"trailer-signature:", b"trailer-signature:0"), "SignatureDoesNotMatch"),
    (T, TRAILED_HELLO.partition(b"x-amz-trailer")[0] + b"\r\n", "IncompleteBody"),
]


@pytest.mark.parametrize(("form", "body", "code"), MALFORMED)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_each_malformation_has_its_name(form: Form, body: bytes, code: str, step: int) -> None:
    with pytest.raises(S3Error) as caught:
        decoded(decoder(form), (body[at : at + step] for at in range(0, len(body), step)))
    assert caught.value.code == code


@pytest.mark.parametrize(("expected", "code"), [(4, "IncompleteBody"), (6, "IncompleteBody"), (5, None)])
def test_the_decoded_length_must_be_what_was_announced(expected: int, code: str | None) -> None:
    body = encoded([b"hel", b"lo"], U)
    if code is None:
        assert decoded(decoder(U, expected), [body]) == b"hello"
        return
    with pytest.raises(S3Error, match=code):
        decoded(decoder(U, expected), [body])


def test_a_chunk_that_is_too_long_is_refused_before_its_payload() -> None:
    with pytest.raises(S3Error, match="IncompleteBody"):
        decoder(U, 5).feed(b"100000000\r\n")


def test_more_trailers_than_anybody_sends_are_refused() -> None:
    names = [f"x-amz-{number}" for number in range(20)]
    one = ChunkDecoder(U, declared=names)
    with pytest.raises(S3Error, match="MalformedTrailerError"):
        one.feed(b"0\r\n" + b"".join(f"{name}:1\r\n".encode() for name in names))


@pytest.mark.parametrize(
    "body",
    [
        encoded([b"hello"], T).replace(b"\r\nx-amz-trailer", b"\n\r\nx-amz-trailer"),
        encoded([b"hello"], T) + b"\r\n",
        encoded([b"hello"], T).replace(b"\r\nx-amz-trailer", b"\nx-amz-trailer"),
    ],
)
def test_trailers_may_end_their_lines_as_the_first_examples_did(body: bytes) -> None:
    assert decoded(decoder(T, 5), [body]) == b"hello"


def test_names_of_trailers_have_no_case_and_blanks_around_values_do_not_count() -> None:
    one = decoder(U)
    decoded(one, [b"0\r\nX-Amz-Checksum-CRC32:  AAAAAA== \r\n\r\n"])
    assert one.trailers == {NAME: "AAAAAA=="}


def test_a_chunk_may_have_an_extension_that_nobody_asked_for() -> None:
    assert decoded(ChunkDecoder(U), [b"5;a=b\r\nhello\r\n0;chunk-signature=00\r\n\r\n"]) == b"hello"


# -- which form ------------------------------------------------------------------------------


def request(**headers: str) -> S3Request:
    return parse_request("PUT", "/b/k", [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])


@pytest.mark.parametrize(
    ("headers", "form"),
    [
        ({}, Form.PLAIN),
        ({"x_amz_content_sha256": "UNSIGNED-PAYLOAD"}, Form.PLAIN),
        ({"x_amz_content_sha256": "0" * 64, "content_encoding": "aws-chunked"}, Form.PLAIN),
        ({"x_amz_content_sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}, U),
        ({"x_amz_content_sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, S),
        ({"x_amz_content_sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"}, T),
        ({"content_encoding": "gzip,aws-chunked", "x_amz_decoded_content_length": "1"}, U),
        ({"content_encoding": "aws-chunked"}, Form.PLAIN),
    ],
)
def test_the_form_of_a_body_is_what_its_hash_says(headers: dict[str, str], form: Form) -> None:
    assert form_of(request(**headers)) is form


def test_elliptic_signatures_are_not_implemented() -> None:
    with pytest.raises(S3Error, match="NotImplemented"):
        form_of(request(x_amz_content_sha256="STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"))


@pytest.mark.parametrize(
    ("text", "code"), [(None, "MissingContentLength"), ("-1", "InvalidArgument"), ("x", "InvalidArgument"), ("9" * 30, "InvalidArgument")]
)
def test_a_decoded_length_must_be_a_number(text: str | None, code: str) -> None:
    with pytest.raises(S3Error, match=code):
        decoded_length(request(**({} if text is None else {"x_amz_decoded_content_length": text})))


def test_the_announced_trailers_are_those_of_every_header() -> None:
    sent = parse_request("PUT", "/b/k", [(b"X-Amz-Trailer", b"X-Amz-Checksum-CRC32, a"), (b"x-amz-trailer", b"b")])
    assert declared_trailers(sent) == {NAME, "a", "b"}
    assert decoded_length(request(x_amz_decoded_content_length="12")) == 12

"""HTTP/1.1 as bytes: what is understood, and all that is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.store.s3.lean.wire import HEAD_BYTES, HEAD_FIELDS, Chunks, Garbled, content_range, find_head, number, parse_head, request


def head(status: str = "200 OK", *fields: str, version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{version} {status}", *fields, "", ""]).encode("latin-1")


def test_a_request_is_its_line_and_its_fields() -> None:
    raw = request("GET", "/a%20b?x=1", [("Host", "h"), ("X-Ü", "ä")])
    assert raw == "GET /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nX-Ü: ä\r\n\r\n".encode("latin-1")


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("/a b", ("A", "b")),
        ("/a\r\nX: y", ("A", "b")),
        ("/ü", ("A", "b")),
        ("/a", ("A", "b\r\nX: y")),
        ("/a", ("A\n", "b")),
        ("/a", ("A", "\0")),
    ],
)
def test_nothing_smuggles_a_line_into_a_request(target: str, field: tuple[str, str]) -> None:
    with pytest.raises(ValueError):
        request("GET", target, [field])


def test_a_head_is_found_where_it_ends() -> None:
    raw = head("200 OK", "A: b")
    assert find_head(raw + b"body") == len(raw)
    assert [find_head(raw[:cut]) for cut in range(len(raw))] == [0] * len(raw)


def test_a_head_that_does_not_end_within_its_bound_is_refused() -> None:
    assert find_head(b"x" * (HEAD_BYTES - 1)) == 0
    with pytest.raises(Garbled):
        find_head(b"x" * HEAD_BYTES)


def test_fields_have_lower_case_names_and_repeated_ones_are_joined() -> None:
    parsed = parse_head(head("206 Partial Content", 'ETag:  "x" ', "X-A: 1", "x-a: 2", "Empty:", "Content-Length: 5"))
    assert (parsed.status, parsed.length, parsed.chunked, parsed.keep) == (206, 5, False, True)
    assert parsed.fields == {"etag": '"x"', "x-a": "1, 2", "empty": "", "content-length": "5"}


@pytest.mark.parametrize(
    ("raw", "length", "chunked", "keep"),
    [
        (head("200 OK", "Content-Length: 0"), 0, False, True),
        (head("200 OK", "Content-Length: 7", "Content-Length: 7"), 7, False, True),
        (head("200 OK", "Content-Length: 7", "Connection: close"), 7, False, False),
        (head("200 OK", "Content-Length: 7", "Connection: Keep-Alive, Close"), 7, False, False),
        (head("200 OK", "Content-Length: 7", version="HTTP/1.0"), 7, False, False),
        (head("200 OK", "Transfer-Encoding: Chunked"), None, True, True),
        (head("200 OK"), None, False, False),
        (head("204 No Content"), 0, False, True),
        (head("304 Not Modified", "Content-Length: 9"), 0, False, True),
        (head("100 Continue"), 0, False, True),
        (head("200", "Content-Length: 1"), 1, False, True),
        (head("200 ", "Content-Length: 1"), 1, False, True),
    ],
)
def test_how_a_body_ends_and_whether_the_connection_may_stay(raw: bytes, length: int | None, chunked: bool, keep: bool) -> None:
    parsed = parse_head(raw)
    assert (parsed.length, parsed.chunked, parsed.keep) == (length, chunked, keep)


def test_the_answer_to_a_head_has_no_body_whatever_it_says() -> None:
    for fields in (["Content-Length: 7"], ["Transfer-Encoding: chunked"], []):
        parsed = parse_head(head("404 Not Found", *fields), bodiless=True)
        assert (parsed.length, parsed.chunked, parsed.keep) == (0, False, True)


@pytest.mark.parametrize(
    "raw",
    [
        head("200 OK", "Content-Length: 7", "Content-Length: 8"),
        head("200 OK", "Content-Length: 7, 7"),
        head("200 OK", "Content-Length: -7"),
        head("200 OK", "Content-Length: +7"),
        head("200 OK", "Content-Length: 0x7"),
        head("200 OK", "Content-Length: 7_0"),
        head("200 OK", "Content-Length: "),
        head("200 OK", "Content-Length: \xb2"),
        head("200 OK", "Content-Length: " + "9" * 20),
        head("200 OK", "Content-Length: 7", "Transfer-Encoding: chunked"),
        head("200 OK", "Transfer-Encoding: gzip, chunked"),
        head("200 OK", "Transfer-Encoding: identity"),
        head("200 OK", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        head("200 OK", "no colon"),
        head("200 OK", ": nameless"),
        head("200 OK", "A : b"),
        head("200 OK", " folded: line"),
        head("200 OK", "A: b\nB: c"),
        head("200 OK", "A: b\0"),
        head("200 OK", *(f"X-{n}: y" for n in range(HEAD_FIELDS + 1))),
        head("099 Low"),
        head("20 Short"),
        head("2000 Long"),
        head("2x0 Odd"),
        head("200 OK", version="HTTP/2"),
        head("200 OK", version="http/1.1"),
        head("200 OK", version="ICY"),
        b"\r\n\r\n",
    ],
)
def test_a_head_that_breaks_the_grammar_is_refused(raw: bytes) -> None:
    with pytest.raises(Garbled):
        parse_head(raw)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_head_parser_fail_otherwise(raw: bytes) -> None:
    try:
        parse_head(b"HTTP/1.1 200 OK\r\n" + raw + b"\r\n\r\n")
    except Garbled:
        pass


def test_a_range_says_where_it_begins_ends_and_how_much_there_is() -> None:
    assert content_range("bytes 0-0/1") == (0, 1, 1)
    assert content_range("Bytes 100-299/1000") == (100, 300, 1000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes */100",
        "bytes 0-9/*",
        "bytes 9-0/100",
        "bytes 0-100/100",
        "items 0-9/10",
        "bytes -9/10",
        "bytes 0-9",
        "bytes a-b/c",
    ],
)
def test_an_impossible_range_is_refused(text: str) -> None:
    with pytest.raises(Garbled):
        content_range(text)


def test_numbers_are_plain() -> None:
    assert number("0042") == 42
    with pytest.raises(Garbled):
        number("٤٢")


# -- chunks -----------------------------------------------------------------------------------


def encoded(chunks: list[bytes], trailers: bytes = b"") -> bytes:
    return b"".join(b"%X;name=value\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 17), st.binary(max_size=5))
def test_chunks_are_the_same_in_portions_of_any_size(chunks: list[bytes], size: int, behind: bytes) -> None:
    raw = encoded(chunks, b"X-Trailer: 1\r\n")
    decoder, body = Chunks(), b""
    for at in range(0, len(raw), size):
        assert not decoder.done
        body += decoder.feed(raw[at : at + size])
    assert decoder.feed(behind) == b""
    assert (body, decoder.done, decoder.rest) == (b"".join(chunks), True, behind)


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b"F" * 16 + b"\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc--",
        b"1" * 5000,
        b"1;" + b"x" * 5000,
        b"0\r\n" + b"X: y\r\n" * 1000,
    ],
)
def test_chunks_that_break_the_grammar_are_refused(raw: bytes) -> None:
    with pytest.raises(Garbled):
        Chunks().feed(raw + b"\r\n" if raw.endswith(b"-") else raw)


@given(st.binary(max_size=60))
def test_no_bytes_make_the_chunk_parser_fail_otherwise(raw: bytes) -> None:
    try:
        Chunks().feed(raw)
    except Garbled:
        pass

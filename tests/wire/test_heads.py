"""Kinds of requests and ends of bodies, in tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.wire.faults import SLOW_DOWN, Rule, Rules
from tests.wire.heads import CHUNKED, UNTIL_CLOSED, Request, answer_length, keeps_alive, parse, request_length, request_of, with_field


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode()


@pytest.mark.parametrize(
    ("line", "fields", "kind"),
    [
        ("GET /b/k HTTP/1.1", (), "GET"),
        ("GET /b/k HTTP/1.1", ("Range: bytes=0-1",), "GET-range"),
        ("GET http://host:1/b/k?x-id=GetObject HTTP/1.1", ("range: bytes=0-1",), "GET-range"),
        ("GET /b/k?tagging HTTP/1.1", (), "other"),
        ("GET /b?list-type=2&prefix=a HTTP/1.1", (), "LIST"),
        ("GET /b/?prefix=&delimiter=/ HTTP/1.1", (), "LIST"),
        ("GET /b?versions HTTP/1.1", (), "LIST-versions"),
        ("GET /b?uploads HTTP/1.1", (), "LIST-uploads"),
        ("GET /b?location HTTP/1.1", (), "other"),
        ("GET / HTTP/1.1", (), "other"),
        ("HEAD /b/k HTTP/1.1", (), "HEAD"),
        ("HEAD /b HTTP/1.1", (), "HEAD-bucket"),
        ("PUT /b/d/ HTTP/1.1", (), "PUT"),
        ("PUT /b HTTP/1.1", (), "other"),
        ("PUT /b/k HTTP/1.1", ("x-amz-copy-source: /b/o",), "COPY"),
        ("PUT /b/k?partNumber=1&uploadId=u HTTP/1.1", (), "UploadPart"),
        ("PUT /b/k?partNumber=1&uploadId=u HTTP/1.1", ("x-amz-copy-source: /b/o",), "UploadPartCopy"),
        ("POST /b/k?uploads= HTTP/1.1", (), "CreateUpload"),
        ("POST /b/k?uploadId=u HTTP/1.1", (), "Complete"),
        ("POST /b?delete HTTP/1.1", (), "DeleteObjects"),
        ("DELETE /b/k HTTP/1.1", (), "DELETE"),
        ("DELETE /b/k?uploadId=u HTTP/1.1", (), "Abort"),
        ("DELETE /b HTTP/1.1", (), "other"),
    ],
)
def test_each_request_is_counted_as_what_it_is(line: str, fields: tuple[str, ...], kind: str) -> None:
    assert request_of(parse(head(line, *fields))).kind == kind


def test_a_request_names_its_key_or_the_prefix_it_lists() -> None:
    assert request_of(parse(head("GET /b/a%20b/%C3%A9 HTTP/1.1"))).key == "a b/é"
    assert request_of(parse(head("GET /b?list-type=2&prefix=a%2Fb/ HTTP/1.1"))).key == "a/b/"


@pytest.mark.parametrize(
    ("method", "line", "fields", "length"),
    [
        ("GET", "HTTP/1.1 200 OK", ("Content-Length: 7",), 7),
        ("HEAD", "HTTP/1.1 200 OK", ("Content-Length: 7",), 0),
        ("GET", "HTTP/1.1 304 Not Modified", ("Content-Length: 7",), 0),
        ("GET", "HTTP/1.1 200 OK", ("Transfer-Encoding: chunked",), CHUNKED),
        ("GET", "HTTP/1.0 200 OK", (), UNTIL_CLOSED),
        ("PUT", "HTTP/1.1 100 Continue", (), 0),
    ],
)
def test_an_answer_tells_where_it_ends(method: str, line: str, fields: tuple[str, ...], length: int) -> None:
    assert answer_length(parse(head(line, *fields)), method) == length


def test_a_request_tells_where_it_ends() -> None:
    assert request_length(parse(head("PUT /b/k HTTP/1.1", "content-length: 12"))) == 12
    assert request_length(parse(head("PUT /b/k HTTP/1.1", "transfer-encoding: Chunked"))) == CHUNKED
    assert request_length(parse(head("GET /b/k HTTP/1.1"))) == 0


def test_a_connection_ends_when_either_version_says_so() -> None:
    assert keeps_alive(parse(head("HTTP/1.1 200 OK")))
    assert not keeps_alive(parse(head("HTTP/1.1 200 OK", "Connection: close")))
    assert not keeps_alive(parse(head("HTTP/1.0 200 OK")))


def test_a_field_is_replaced_and_the_others_stay_as_they_were() -> None:
    before = parse(head("HTTP/1.1 200 OK", "Content-LENGTH: 7", "ETag: x"))
    assert with_field(before, b"content-length", b"5").raw == head("HTTP/1.1 200 OK", "ETag: x", "content-length: 5")
    assert with_field(before, b"content-length", None).raw == head("HTTP/1.1 200 OK", "ETag: x")


# -- rules ------------------------------------------------------------------------------------


def get(span: str) -> Request:
    return Request("GET-range", "GET", "/b/k", span)


def test_chance_does_not_depend_on_the_order_of_requests() -> None:
    rule = replace(SLOW_DOWN, chance=0.5, seed=7)
    spans = [f"bytes={number}-" for number in range(64)]
    forwards, backwards = Rules([rule]), Rules([rule])
    hit = {span for span in spans if forwards.choose(get(span))}
    assert hit == {span for span in reversed(spans) if backwards.choose(get(span))}
    assert 16 < len(hit) < 48


def test_a_repeated_request_draws_again() -> None:
    rules = Rules([replace(SLOW_DOWN, chance=0.5, seed=1)])
    assert {rules.choose(get("")) is None for _ in range(20)} == {True, False}


def test_a_rule_spares_the_first_and_ends_after_its_times() -> None:
    rules = Rules([Rule("reset", skip=2, times=3)])
    assert [rules.choose(get("")) is not None for _ in range(8)] == [False, False, True, True, True, False, False, False]


def test_a_rule_concerns_its_kinds_and_keys_only() -> None:
    rules = Rules([Rule("reset", kinds=("GET-range",), key="^k$")])
    assert rules.choose(get("")) is not None
    assert rules.choose(Request("GET", "GET", "/b/k", "")) is None
    assert rules.choose(Request("GET-range", "GET", "/b/other", "")) is None


def test_a_fault_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError):
        Rule("earthquake")

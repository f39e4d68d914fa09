"""Cross-origin rules: who may, what the headers say."""

from __future__ import annotations

import pytest

from s3mount.server import cors
from s3mount.server.cors import CorsRule
from s3mount.server.s3errors import S3Error

RULES = (
    CorsRule(("http://one.example.com", "https://*.example.com"), ("GET", "PUT"), ("x-amz-*", "Content-Type"), ("ETag", "x-amz-id"), 600),
    CorsRule(("http://two.example.com",), ("DELETE",)),
    CorsRule(("*",), ("GET",), ("*",)),
)


def allowed(origin: str, method: str, headers: str | None = None) -> dict[str, str]:
    return dict(cors.preflight(RULES, origin, method, headers))


@pytest.mark.parametrize(
    ("origin", "method", "headers", "answer"),
    [
        ("http://one.example.com", "PUT", None, "http://one.example.com"),
        ("https://a.b.example.com", "PUT", "X-Amz-Date, content-type", "https://a.b.example.com"),
        ("https://.example.com", "PUT", "", "https://.example.com"),
        ("http://two.example.com", "DELETE", None, "http://two.example.com"),
        ("http://three.example.com", "GET", "anything", "*"),
        ("http://one.example.com", "GET", "authorization", "*"),
    ],
)
def test_the_first_rule_that_fits_answers(origin: str, method: str, headers: str | None, answer: str) -> None:
    assert allowed(origin, method, headers)["Access-Control-Allow-Origin"] == answer


@pytest.mark.parametrize(
    ("origin", "method", "headers"),
    [
        ("http://three.example.com", "PUT", None),
        ("http://example.com", "PUT", None),
        ("https://example.com", "PUT", None),
        ("http://one.example.com", "PUT", "authorization"),
        ("http://two.example.com", "DELETE", "x-amz-date"),
        ("http://one.example.com", "HEAD", None),
    ],
)
def test_what_no_rule_allows_is_forbidden(origin: str, method: str, headers: str | None) -> None:
    with pytest.raises(S3Error) as caught:
        allowed(origin, method, headers)
    assert (caught.value.code, caught.value.status) == ("AccessForbidden", 403)


def test_a_preflights_answer_names_all_that_is_allowed() -> None:
    assert allowed("http://one.example.com", "PUT", "X-Amz-Date,Content-Type") == {
        "Access-Control-Allow-Origin": "http://one.example.com",
        "Access-Control-Allow-Methods": "GET, PUT",
        "Access-Control-Allow-Headers": "x-amz-date, content-type",
        "Access-Control-Expose-Headers": "ETag, x-amz-id",
        "Access-Control-Max-Age": "600",
        "Access-Control-Allow-Credentials": "true",
        "Vary": cors.VARY,
    }


def test_anybody_gets_no_credentials() -> None:
    assert "Access-Control-Allow-Credentials" not in allowed("http://three.example.com", "GET")


@pytest.mark.parametrize(("origin", "method"), [(None, "GET"), ("", "GET"), ("http://a", None), ("http://a", "PATCH"), (None, None)])
def test_a_preflight_that_says_too_little_is_a_bad_request(origin: str | None, method: str | None) -> None:
    with pytest.raises(S3Error) as caught:
        cors.preflight(RULES, origin, method, None)
    assert (caught.value.code, caught.value.status) == ("BadRequest", 400)


def test_a_bucket_without_rules_forbids() -> None:
    with pytest.raises(S3Error, match="not enabled") as caught:
        cors.preflight(None, "http://a", "GET", None)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("origin", "method", "answer"),
    [
        (None, "GET", None),
        ("http://three.example.com", "PUT", None),
        ("http://one.example.com", "PUT", "http://one.example.com"),
        ("x", "GET", "*"),
    ],
)
def test_a_real_request_gets_headers_where_a_rule_fits(origin: str | None, method: str, answer: str | None) -> None:
    assert dict(cors.actual(RULES, origin, method)).get("Access-Control-Allow-Origin") == answer


def test_a_pattern_does_not_count_a_letter_twice() -> None:
    rule = CorsRule(("ab*ba",), ("GET",))
    assert cors.actual([rule], "aba", "GET") == []
    assert cors.actual([rule], "abba", "GET")

"""Cross-origin rules of a bucket: which request of a browser they allow, and with which headers that is said.

Owns: `CorsRule`, matching, the headers of answers.
Must not know: where rules are kept, HTTP.

The first rule that allows origin and method (and, in a preflight, every header asked for) decides. A pattern may hold one `*`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from s3mount.server.s3errors import S3Error

METHODS = ("GET", "PUT", "HEAD", "POST", "DELETE")
# S3's limit for one bucket.
RULES = 100
VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class CorsRule:
    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: int | None = None
    id: str = ""


def require_rules(rules: Sequence[CorsRule]) -> None:
    """Raises MalformedXML, InvalidRequest: what S3 refuses to store."""
    if not 1 <= len(rules) <= RULES:
        raise S3Error("MalformedXML")
    for rule in rules:
        _require_rule(rule)


def _require_rule(rule: CorsRule) -> None:
    if not rule.origins or not rule.methods or len(rule.id) > 255 or (rule.max_age is not None and rule.max_age < 0):
        raise S3Error("MalformedXML")
    for method in rule.methods:
        if method not in METHODS:
            raise S3Error("InvalidRequest", f"Found unsupported HTTP method in CORS config. Unsupported method is {method[:64]}")
    for name, patterns in (("AllowedOrigin", rule.origins), ("AllowedHeader", rule.headers)):
        for pattern in patterns:
            if pattern.count("*") > 1:
                raise S3Error("InvalidRequest", f'{name} "{pattern[:256]}" can not have more than one wildcard.')
    for pattern in rule.expose:
        if "*" in pattern:
            raise S3Error("InvalidRequest", f'ExposeHeader "{pattern[:256]}" contains wildcard. We currently do not support wildcard.')


def preflight(rules: Sequence[CorsRule] | None, origin: str | None, method: str | None, headers: str | None) -> Headers:
    """The headers of the answer to OPTIONS; *rules* None: the bucket has none. Raises BadRequest (400), AccessForbidden (403)."""
    if not origin:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    if method not in METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method[:64] if method else 'null'}")
    if rules is None:
        raise S3Error("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.", Method=method, ResourceType="BUCKET")
    asked = tuple(name.strip().lower() for name in (headers or "").split(",") if name.strip())
    for rule in rules:
        if _allows(rule, origin, method) and all(_matches_any(rule.headers, name) for name in asked):
            return _answer(rule, origin, asked)
    raise S3Error(
        "AccessForbidden",
        "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / "
        "Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.",
        Method=method,
        ResourceType="OBJECT",
    )


def actual(rules: Sequence[CorsRule], origin: str | None, method: str) -> Headers:
    """The headers that the answer to a real request gets; none where no rule allows it (the request itself is done all the same).

    *method* is what Access-Control-Request-Method says, where a real request has that header, else the request's own.
    """
    if not origin:
        return []
    for rule in rules:
        if _allows(rule, origin, method):
            return _answer(rule, origin, ())
    return []


def _answer(rule: CorsRule, origin: str, asked: Sequence[str]) -> Headers:
    anybody = next(pattern for pattern in rule.origins if _matches(pattern, origin)) == "*"
    answer = [("Access-Control-Allow-Origin", "*" if anybody else origin), ("Access-Control-Allow-Methods", ", ".join(rule.methods))]
    if asked:
        answer.append(("Access-Control-Allow-Headers", ", ".join(asked)))
    if rule.expose:
        answer.append(("Access-Control-Expose-Headers", ", ".join(rule.expose)))
    if rule.max_age is not None:
        answer.append(("Access-Control-Max-Age", str(rule.max_age)))
    if not anybody:
        answer.append(("Access-Control-Allow-Credentials", "true"))
    return [*answer, ("Vary", VARY)]


def _allows(rule: CorsRule, origin: str, method: str) -> bool:
    return method in rule.methods and any(_matches(pattern, origin) for pattern in rule.origins)


def _matches_any(patterns: Sequence[str], name: str) -> bool:
    return any(_matches(pattern.lower(), name) for pattern in patterns)


def _matches(pattern: str, text: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)


def parse_max_age(text: str) -> int:
    """Raises MalformedXML."""
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII):
        raise S3Error("MalformedXML")
    return int(text)

"""Which request goes wrong, and how: rules, decided without regard to the order in which threads come.

Owns: the kinds of faults, the rules, the error documents.
Must not know: sockets, threads, time.

Chance is drawn from (seed, request, how often it came before), so that the same requests meet the same faults on each run, however many
connections carry them and in whatever order they arrive.

What a fault does (`at` is a fraction of the answer's body, `seconds` a time, both of the rule):
    answer          the server is not asked; the answer is `status` with S3's `code`. SLOW_DOWN, EXPIRED ... below are made of it
    reset           the connection is reset after `at` of the answer's body
    truncate        closed in good order after `at` of the body: fewer bytes than Content-Length says
    stall           silence for `seconds` after `at` of the body, then a reset
    silence         the server is asked, but nothing of its answer comes for `seconds`; then a reset
    late            the answer comes `seconds` late
    short_length    Content-Length says `at` of the true length, and that is what comes; Content-Range is what it was
    long_length     Content-Length says 1000 bytes more than come before the connection is closed
    flip            one bit of the body is wrong; its length is right
    ignore_range    the server never sees the Range header: 200 and the whole object
    lost_reply      the server carries the request out; the connection is reset before a byte of its answer
    lost_request    the connection is reset before the server hears of it
    reset_upload    reset after `at` of the request's body; the server sees a broken request
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.wire.heads import Request

IN_BODY = frozenset({"reset", "truncate", "stall", "short_length", "long_length", "flip"})
FAULTS = IN_BODY | {"answer", "silence", "late", "ignore_range", "lost_reply", "lost_request", "reset_upload"}


@dataclass(frozen=True, slots=True)
class Rule:
    """`fault` befalls requests of `kinds` (none: of every kind) whose key or listed prefix matches `key` (a regular expression, searched).

    The first `skip` that match are spared, then each is hit with `chance`, `times` of them at most (None: without end).
    """

    fault: str
    kinds: Sequence[str] = ()
    key: str = ""
    chance: float = 1.0
    skip: int = 0
    times: int | None = None
    at: float = 0.5
    seconds: float = 0.0
    status: int = 503
    code: str = "SlowDown"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fault not in FAULTS:
            raise ValueError(f"no such fault: {self.fault}")

    def concerns(self, request: Request) -> bool:
        return (not self.kinds or request.kind in self.kinds) and (not self.key or re.search(self.key, request.key) is not None)


SLOW_DOWN = Rule("answer", status=503, code="SlowDown")
INTERNAL_ERROR = Rule("answer", status=500, code="InternalError")
EXPIRED = Rule("answer", status=400, code="ExpiredToken")
DENIED = Rule("answer", status=403, code="AccessDenied")
SKEWED = Rule("answer", status=403, code="RequestTimeTooSkewed")


@dataclass(slots=True)
class Rules:
    """The rules in force; the first that hits decides. Not thread-safe: the caller holds a lock."""

    rules: list[Rule] = field(default_factory=list)
    _matched: Counter[int] = field(default_factory=Counter)
    _hit: Counter[int] = field(default_factory=Counter)
    _seen: Counter[Request] = field(default_factory=Counter)

    def choose(self, request: Request) -> Rule | None:
        if not self.rules:
            return None
        self._seen[request] += 1
        for number, rule in enumerate(self.rules):
            if rule.concerns(request) and self._hits(number, rule, request):
                self._hit[number] += 1
                return rule
        return None

    def _hits(self, number: int, rule: Rule, request: Request) -> bool:
        self._matched[number] += 1
        if self._matched[number] <= rule.skip or (rule.times is not None and self._hit[number] >= rule.times):
            return False
        drawn = random.Random(f"{rule.seed} {request.kind} {request.target} {request.span} {self._seen[request]}")
        return drawn.random() < rule.chance


def document(rule: Rule, request: Request) -> bytes:
    """The whole answer, head and body, of an `answer`."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{rule.code}</Code><Message>Injected: {rule.code}.</Message>'
        "<RequestId>0123456789ABCDEF</RequestId></Error>"
    ).encode()
    fields = f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\nx-amz-request-id: 0123456789ABCDEF"
    head = f"HTTP/1.1 {rule.status} {rule.code}\r\n{fields}\r\n\r\n"
    return head.encode() + (b"" if request.method == "HEAD" else body)

"""A service that reads over the conditions of writes is not written to by a mount that counts on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from s3mount.errors import AlreadyExists, UsageError
from s3mount.model import Absent, Key
from s3mount.store.api import Commit
from s3mount.store.s3.conditions import is_known, require_judged
from s3mount.store.s3.options import S3Options
from s3mount.store.s3.store import open_s3
from s3mount.store.wrap.retrying import Policy
from tests.s3.canned import Reply, Request, canned, refusal
from tests.server.serving import ACCESS_KEY, SECRET_KEY

pytestmark = pytest.mark.slow

HEADERS = {"ETag": '"e"', "Last-Modified": "Sat, 21 Nov 2026 03:00:00 GMT", "Date": "Sat, 21 Nov 2026 03:00:00 GMT"}
TAKEN, ABSENT, DIFFERS = Reply(200, b"", HEADERS), refusal(404, "NoSuchKey"), refusal(412, "PreconditionFailed")


class Service:
    """Answers PUTs by *judge*, which hears the condition and whether the key is there."""

    def __init__(self, judge: Callable[[str, bool], Reply]) -> None:
        self._judge = judge
        self.keys: set[str] = set()
        self.requests: list[Request] = []

    def answer(self, request: Request) -> Reply:
        if request.method == "DELETE":
            self.keys.discard(request.target)
            return Reply(204)
        condition = "If-Match" if "if-match" in request.headers else "If-None-Match"
        reply = self._judge(condition, request.target in self.keys)
        if reply.status == 200:
            self.keys.add(request.target)
        return reply


JUDGES: dict[str, Callable[[str, bool], Reply]] = {
    "as Amazon does": lambda condition, there: ABSENT if not there else DIFFERS,
    "as most others do": lambda condition, there: DIFFERS,
    "what exists only": lambda condition, there: DIFFERS if there else TAKEN,
}
OTHERS: dict[str, Callable[[str, bool], Reply]] = {
    "nothing": lambda condition, there: TAKEN,
    "creations only": lambda condition, there: DIFFERS if condition == "If-None-Match" and there else TAKEN,
    "replacements only": lambda condition, there: DIFFERS if condition == "If-Match" and there else TAKEN,
    "not at all, and says so": lambda condition, there: refusal(501, "NotImplemented"),
}
UNCLEAR: dict[str, Callable[[str, bool], Reply]] = {
    "no permission": lambda condition, there: refusal(403, "AccessDenied"),
    "no answer": lambda condition, there: refusal(503, "SlowDown"),
}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


async def asked(judge: Callable[[str, bool], Reply]) -> Service:
    """A service that judges by *judge*, after it was asked."""
    service = Service(judge)
    with canned(service.answer) as (url, service.requests):
        store = await open_s3(S3Options(endpoint=url), "bucket", policy=Policy(base=0.001, budget=0.0))
        try:
            await require_judged(store, "a/", endpoint=url)
        finally:
            await store.aclose()
    return service


@pytest.mark.parametrize("judge", [*JUDGES.values(), *UNCLEAR.values()], ids=[*JUDGES, *UNCLEAR])
async def test_who_judges_or_cannot_be_asked_is_written_to_and_keeps_nothing_of_the_probe(judge: Callable[[str, bool], Reply]) -> None:
    service = await asked(judge)
    assert service.keys == set()
    assert all(request.target.startswith("/bucket/a/.s3mount-probe-") for request in service.requests)


async def test_a_good_service_is_asked_once() -> None:
    assert len((await asked(JUDGES["as Amazon does"])).requests) == 1


@pytest.mark.parametrize("judge", OTHERS.values(), ids=OTHERS)
async def test_who_does_not_judge_is_refused_with_the_way_out(judge: Callable[[str, bool], Reply]) -> None:
    service = Service(judge)
    with canned(service.answer) as (url, service.requests):
        store = await open_s3(S3Options(endpoint=url), "bucket", policy=Policy(base=0.001, budget=0.0))
        with pytest.raises(UsageError, match="--last-writer-wins"):
            await require_judged(store, "", endpoint=url)
        await store.aclose()
    assert service.keys == set()


class Copies:
    """A service that judges conditions of copies, or reads over them, or has no such thing."""

    def __init__(self, said: str) -> None:
        self.said = said
        self.keys = {"/bucket/a/source", "/bucket/a/taken"}
        self.requests: list[Request] = []

    def answer(self, request: Request) -> Reply:
        there = request.target in self.keys
        if request.method == "HEAD":
            return Reply(200, b"", HEADERS) if there else Reply(404)
        if request.method == "DELETE":
            self.keys.discard(request.target)
            return Reply(204)
        conditional = {"if-match", "if-none-match"} & set(request.headers)
        if conditional and self.said == "unsupported":
            return refusal(501, "NotImplemented")
        if conditional and self.said == "judged" and (there or "if-match" in request.headers):
            return DIFFERS
        self.keys.add(request.target)
        return Reply(200, b"<CopyObjectResult><ETag>&quot;c&quot;</ETag></CopyObjectResult>", HEADERS)

    @property
    def lines(self) -> list[str]:
        return [f"{request.method} {request.target.partition('.s3mount-probe')[0]}" for request in self.requests]


@pytest.mark.parametrize("said", ["judged", "read over", "unsupported"])
async def test_a_copy_comes_over_nothing_whether_or_not_the_service_judges_that(said: str) -> None:
    service = Copies(said)
    with canned(service.answer) as (url, service.requests):
        store = await open_s3(S3Options(endpoint=url), "bucket", policy=Policy(base=0.001, budget=0.0))
        try:
            with pytest.raises(AlreadyExists):
                await store.copy(Key("a/source"), Key("a/taken"), condition=Absent())
            await store.copy(Key("a/source"), Key("a/new"), condition=Absent())
            with pytest.raises(AlreadyExists):
                await store.copy(Key("a/source"), Key("a/taken"), commit=Commit(condition=Absent()))
        finally:
            await store.aclose()
    assert service.keys == {"/bucket/a/source", "/bucket/a/taken", "/bucket/a/new"}
    probes = [line for line in service.lines if line.endswith("/a/")]
    assert probes == ["PUT /bucket/a/", "DELETE /bucket/a/"][: 2 if said == "read over" else 1], "it is asked once"
    assert service.lines.count("PUT /bucket/a/taken") == (2 if said == "judged" else 0)


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("s3.eu-central-1.amazonaws.com", True),
        ("bucket.s3.cn-north-1.amazonaws.com.cn", True),
        ("127.0.0.1:9000", False),
        ("amazonaws.com.example", False),
        ("notamazonaws.com", False),
    ],
)
def test_amazon_need_not_be_asked(host: str, known: bool) -> None:
    assert is_known(f"https://{host}") == known

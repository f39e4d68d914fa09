"""The lane against a server that misbehaves as told: never wrong bytes, never a connection used twice that should not be."""

from __future__ import annotations

import base64
import socket
from typing import Any

import pytest
import trio
from awscrt import checksums

from s3mount.errors import (
    AccessDenied,
    Archived,
    Corrupt,
    Misdirected,
    NoSuchBucket,
    NotFound,
    PreconditionFailed,
    Throttled,
    TimedOut,
    Unavailable,
)
from s3mount.model import ByteRange, ETag, Key
from s3mount.store.s3.checksums import COMPARED, SHA1, SHA256, Algorithm
from s3mount.store.s3.lean.connection import Gone
from s3mount.store.s3.lean.lane import Lane
from s3mount.store.s3.lean.origin import Unfit
from s3mount.store.s3.lean.wire import HEAD_BYTES, Garbled
from s3mount.store.s3.options import S3Options
from tests.s3.lean.lanes import BUCKET, client_of, lane_to
from tests.s3.lean.scripted import CLOSE, HANG, RESET, Scripted, Step, answer, chunked, ok, refusal, scripted

K = Key("a/key")
TAG = ETag("tag")
BODY = bytes(range(200))


async def read(lane: Lane, count: int = len(BODY), start: int = 0, **more: Any) -> bytes:
    buffer = bytearray(count)
    await lane.get_into(K, ByteRange(start, start + count), memoryview(buffer), **more)
    return bytes(buffer)


async def refused(*steps: Step, kind: type[Exception] = Unavailable, options: S3Options | None = None) -> Scripted:
    """Read from a server that answers with *steps*; the read must fail as *kind*."""
    async with scripted() as server, lane_to(server.url, options=options) as lane:
        server.plan = [steps]
        with pytest.raises(kind) as caught:
            await read(lane)
        assert type(caught.value) is kind or kind is Unavailable
    return server


# -- what goes well -------------------------------------------------------------------------


async def test_a_range_is_asked_for_signed_and_pinned_to_its_version() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY, "x-amz-meta-mode: 420", start=100, total=1000)]]
        buffer = bytearray(200)
        info = await lane.get_into(Key("a b/ü"), ByteRange(100, 300), memoryview(buffer), if_match=TAG)
        assert buffer == BODY
        assert (info.key, info.size, info.etag, info.metadata) == ("a b/ü", 1000, "tag", {"mode": "420"})
        assert server.requests[0].startswith(f"GET /{BUCKET}/a%20b/%C3%BC HTTP/1.1\r\n".encode())
        fields = server.fields()
        assert (fields["range"], fields["if-match"], fields["host"]) == ("bytes=100-299", '"tag"', f"127.0.0.1:{server.port}")
        assert "range" in fields["authorization"]
        assert "x-amz-checksum-mode" not in fields


async def test_one_connection_carries_one_request_after_the_other() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY)], [ok(BODY)], [refusal("404 Not Found", "NoSuchKey")], [ok(BODY)]]
        assert await read(lane) == await read(lane) == BODY
        with pytest.raises(NotFound):
            await read(lane)
        assert await read(lane) == BODY
        assert server.connections == 1


async def test_a_lane_that_was_prepared_has_its_connection() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        await lane.prepare()
        await trio.testing.wait_all_tasks_blocked()
        assert server.connections == 1
        server.plan = [[ok(BODY)]]
        assert await read(lane) == BODY
        assert server.connections == 1


async def test_what_hinders_preparing_is_for_the_first_request_to_say() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        async with lane_to(f"http://127.0.0.1:{silent.getsockname()[1]}") as lane:
            await lane.prepare()
            with pytest.raises(Unavailable, match="Nothing listens"):
                await read(lane)


async def test_interim_answers_are_passed_over() -> None:
    noise = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[noise, ok(BODY)], [noise + ok(BODY)]]
        assert await read(lane) == await read(lane) == BODY
        assert server.connections == 1


@pytest.mark.parametrize("size", [1, 7, 199, 200])
async def test_a_body_in_chunks_is_taken(size: int) -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[chunked(BODY, size)], [ok(BODY)]]
        assert await read(lane) == await read(lane) == BODY
        assert server.connections == 1


async def test_a_body_that_ends_with_the_connection_is_taken_but_not_the_connection() -> None:
    unmeasured = ok(BODY).replace(b"Content-Length", b"X-Length")
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[unmeasured, CLOSE], [ok(BODY)]]
        assert await read(lane) == await read(lane) == BODY
        assert server.connections == 2


async def test_a_body_that_comes_byte_by_byte_is_heard_of_byte_by_byte() -> None:
    heard = [trio.Event() for _ in range(13)]
    whole = ok(BODY[:12])
    steps: list[Step] = [whole[:-12]]
    for at in range(12):
        steps += [heard[at], whole[len(whole) - 12 + at :][:1]]
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [steps]
        assert await read(lane, 12, arrived=lambda count: heard[count].set()) == BODY[:12]


async def test_what_has_arrived_is_said_in_order_and_is_there() -> None:
    body = bytes(range(256)) * 4096
    said: list[int] = []
    buffer = bytearray(len(body))

    def arrived(count: int) -> None:
        assert buffer[:count] == body[:count]
        said.append(count)

    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(body)]]
        await lane.get_into(K, ByteRange(0, len(body)), memoryview(buffer), arrived=arrived)
    assert said == sorted(said)
    assert said[-1] == len(body)


async def test_a_server_that_gives_the_whole_object_instead_of_its_first_bytes_is_believed_only_if_that_is_the_same() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[answer("200 OK", BODY)], [answer("200 OK", BODY)]]
        assert await read(lane) == BODY
        with pytest.raises(Unfit):
            await read(lane, 100)


# -- what goes wrong on the wire --------------------------------------------------------------


@pytest.mark.parametrize("cut", [10, 150, -100, -1])
@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_an_answer_that_breaks_off_is_no_data(cut: int, end: Step) -> None:
    server = await refused(ok(BODY)[:cut], end)
    assert len(server.requests) == 1


async def test_chunks_that_break_off_are_no_data() -> None:
    await refused(chunked(BODY, 50)[:-9], CLOSE)


async def test_an_answer_that_does_not_begin_times_out() -> None:
    await refused(HANG, kind=TimedOut, options=S3Options(first_byte_s=0.05))


async def test_a_head_that_does_not_end_times_out() -> None:
    await refused(ok(BODY)[:30], HANG, kind=TimedOut, options=S3Options(first_byte_s=0.05))


@pytest.mark.parametrize("whole", [ok(BODY), chunked(BODY, 50)])
async def test_a_body_that_stalls_times_out(whole: bytes) -> None:
    await refused(whole[:-20], HANG, kind=TimedOut, options=S3Options(stall_s=0.05))


async def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        async with lane_to(f"http://127.0.0.1:{silent.getsockname()[1]}") as lane:
            with pytest.raises(Unavailable, match="Nothing listens"):
                await read(lane)


@pytest.mark.parametrize(
    "head",
    [
        ok(BODY[:-1], total=1000),
        ok(BODY + b"x"),
        ok(BODY, start=1),
        answer("206 Partial Content", BODY),
        answer("206 Partial Content", BODY, "Content-Range: bytes 0-199/100"),
        answer("206 Partial Content", BODY, "Content-Range: bytes 0-199/*"),
        ok(BODY).replace(b"Content-Length: 200", b"Content-Length: 199"),
        ok(BODY).replace(b"Content-Length: 200", b"Content-Length: 200\r\nContent-Length: 2"),
        ok(BODY).replace(b"Content-Length: 200", b"Content-Length: 200\r\nTransfer-Encoding: chunked"),
        ok(BODY).replace(b"Content-Length: 200", b"Content-Length: +200"),
        ok(BODY, "X-Long: " + "x" * HEAD_BYTES),
        ok(BODY, "no field"),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"x" * (HEAD_BYTES + 4096),
        chunked(BODY + b"more", 50).replace(b"0-203/204", b"0-199/200"),
    ],
)
async def test_an_answer_that_does_not_fit_the_question_is_no_data(head: bytes) -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[head], [ok(BODY)]]
        with pytest.raises((Unavailable, Unfit)):
            await read(lane)
        assert await read(lane) == BODY
        assert server.connections == 2


async def test_a_connection_on_which_too_much_came_is_not_used_again() -> None:
    big = bytes(4096)
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(big) + b"HTTP/1.1 206 forged"], [ok(BODY)]]
        await read(lane, len(big))
        assert await read(lane) == BODY
        assert server.connections == 2


# -- connections ------------------------------------------------------------------------------


async def test_a_kept_connection_that_was_closed_is_replaced_without_a_word() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY), CLOSE], [ok(BODY)]]
        assert await read(lane) == await read(lane) == BODY
        assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_a_kept_connection_that_closes_upon_the_request_is_replaced_once(end: Step) -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY)], [end], [ok(BODY)], [end], [end]]
        assert await read(lane) == await read(lane) == BODY
        assert (server.connections, len(server.requests)) == (2, 3)
        with pytest.raises(Gone):
            await read(lane)
        assert len(server.requests) == 5


async def test_a_new_connection_that_closes_upon_the_request_is_not_replaced() -> None:
    server = await refused(CLOSE, kind=Gone)
    assert len(server.requests) == 1


async def test_a_kept_connection_that_breaks_within_its_answer_is_not_replaced() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY)], [b"HTTP/1.1", CLOSE]]
        await read(lane)
        with pytest.raises(Unavailable):
            await read(lane)
        assert len(server.requests) == 2


async def test_after_one_connection_went_silent_no_other_old_one_is_trusted() -> None:
    async with scripted() as server, lane_to(server.url, options=S3Options(first_byte_s=0.1)) as lane:
        together = trio.Event()
        server.plan = [[together, ok(BODY)], [together.set, ok(BODY)]]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, lane)
            nursery.start_soon(read, lane)
        server.plan = [[HANG], [ok(BODY)]]
        with pytest.raises(TimedOut):
            await read(lane)
        assert await read(lane) == BODY
        assert server.connections == 3


async def test_a_cancelled_read_costs_its_connection_and_leaves_the_buffer_alone() -> None:
    begun = trio.Event()
    buffer = bytearray(len(BODY))
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY)[:-100], HANG], [ok(BODY)]]
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await begun.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            await lane.get_into(K, ByteRange(0, len(BODY)), memoryview(buffer), arrived=lambda count: begun.set())
        kept = bytes(buffer)
        assert await read(lane) == BODY
        assert buffer == kept
        assert server.connections == 2


async def test_no_more_connections_are_opened_than_allowed_and_all_reads_end() -> None:
    async with scripted() as server, lane_to(server.url, options=S3Options(connections=3)) as lane:
        server.plan = [[ok(BODY)] for _ in range(20)]
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(read, lane)
        assert server.most <= 3
        assert server.connections <= 3
        assert len(server.requests) == 20


async def test_a_closed_lane_asks_nothing_and_closes_twice() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY)]]
        await read(lane)
        await lane.aclose()
        await lane.aclose()
        with pytest.raises(Unfit):
            await read(lane)


# -- what the store says ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("404 Not Found", "NoSuchKey", NotFound),
        ("404 Not Found", "NoSuchBucket", NoSuchBucket),
        ("403 Forbidden", "AccessDenied", AccessDenied),
        ("403 Forbidden", "ExpiredToken", AccessDenied),
        ("403 Forbidden", "RequestTimeTooSkewed", AccessDenied),
        ("403 Forbidden", "InvalidObjectState", Archived),
        ("412 Precondition Failed", "PreconditionFailed", PreconditionFailed),
        ("416 Range Not Satisfiable", "InvalidRange", ValueError),
        ("503 Slow Down", "SlowDown", Throttled),
        ("500 Internal Server Error", "InternalError", Unavailable),
        ("301 Moved Permanently", "PermanentRedirect", Misdirected),
    ],
)
async def test_a_refusal_becomes_its_error_and_the_connection_is_kept(status: str, code: str, kind: type[Exception]) -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY)], [refusal(status, code)]]
        await read(lane)
        with pytest.raises(kind):
            await read(lane)
        assert server.connections == 1


async def test_a_range_that_comes_as_status_200_is_one_and_the_objects_checksum_is_not_its() -> None:
    raw = ok(BODY, "x-amz-checksum-crc32: AAAAAA==", total=1000).replace(b"206 Partial Content", b"200 OK")
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[raw], [raw]]
        assert await read(lane) == BODY
        with pytest.raises(PreconditionFailed):
            await read(lane, start=900, if_match=ETag("another"))


async def test_a_range_beyond_the_end_is_the_callers_mistake() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY[:50], start=0, total=50)]]
        with pytest.raises(ValueError, match="lie inside"):
            await read(lane)


async def test_another_version_than_the_one_asked_for_is_refused_even_if_the_server_gives_it() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY)]]
        with pytest.raises(PreconditionFailed):
            await read(lane, if_match=ETag("another"))


async def test_a_version_is_asked_for_by_its_id() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[ok(BODY)]]
        await read(lane, version_id="3/L4kqt+x")
        assert server.requests[0].startswith(f"GET /{BUCKET}/a/key?versionId=3%2FL4kqt%2Bx HTTP/1.1".encode())


async def test_a_head_is_an_answer_without_a_body_and_the_connection_is_kept() -> None:
    bare = answer("200 OK", b"", "x-amz-meta-mode: 420").replace(b"Content-Length: 0", b"Content-Length: 12345")
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/xml\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[bare], [missing], [answer("412 Precondition Failed")], [ok(BODY)]]
        fields = await lane.head(K)
        assert (fields["content-length"], fields["etag"], fields["x-amz-meta-mode"]) == ("12345", '"tag"', "420")
        with pytest.raises(NotFound):
            await lane.head(K)
        with pytest.raises(PreconditionFailed):
            await lane.head(K, if_match=ETag("other"), version_id="v1")
        assert await read(lane) == BODY
        assert server.connections == 1
        assert server.requests[2].startswith(f"HEAD /{BUCKET}/a/key?versionId=v1 HTTP/1.1".encode())
        assert server.fields(2)["if-match"] == '"other"'


# -- checksums --------------------------------------------------------------------------------


def summed(body: bytes, of: bytes = BODY, *fields: str) -> bytes:
    value = base64.b64encode(checksums.crc64nvme(of).to_bytes(8, "big")).decode()
    return answer("200 OK", body, f"x-amz-checksum-crc64nvme: {value}", *fields)


async def test_a_whole_object_is_asked_with_its_checksum_and_verified() -> None:
    said: list[int] = []
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[summed(BODY)]]
        assert await read(lane, if_match=TAG, size=len(BODY), arrived=said.append) == BODY
        assert "range" not in server.fields()
        assert server.fields()["x-amz-checksum-mode"] == "ENABLED"
        assert said == [len(BODY)]


async def test_a_whole_object_that_is_said_to_be_shorter_than_its_version_is_no_data() -> None:
    """Regression: a length cut short on the way was the caller's mistake, and a read failed for good."""
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[answer("200 OK", BODY[:50])], [summed(BODY)]]
        with pytest.raises(Garbled):
            await read(lane, if_match=TAG, size=len(BODY))
        assert await read(lane, if_match=TAG, size=len(BODY)) == BODY


async def test_bytes_that_do_not_fit_their_checksum_are_asked_for_again_and_never_given() -> None:
    spoilt = summed(b"!" + BODY[1:])
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[spoilt], [summed(BODY)], [spoilt], [spoilt]]
        assert await read(lane, if_match=TAG, size=len(BODY)) == BODY
        with pytest.raises(Corrupt):
            await read(lane, if_match=TAG, size=len(BODY))
        assert len(server.requests) == 4


@pytest.mark.parametrize("algorithm", COMPARED, ids=lambda algorithm: algorithm.name)
async def test_every_usual_checksum_of_a_whole_object_is_verified(algorithm: Algorithm) -> None:
    field = f"{algorithm.header}: {algorithm.of(BODY)}"
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[answer("200 OK", b"!" + BODY[1:], field)], [answer("200 OK", BODY, field)]]
        assert await read(lane, if_match=TAG, size=len(BODY)) == BODY
        assert len(server.requests) == 2


def test_hashes_are_written_as_s3_writes_them() -> None:
    assert SHA256.of(b"") == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert SHA1.of(b"") == "2jmj7l5rSw0yVb/vlWAYkK/YBwk="


@pytest.mark.parametrize("field", ["x-amz-checksum-type: COMPOSITE", "x-amz-checksum-type: FULL_OBJECT"])
async def test_a_checksum_of_parts_is_not_taken_for_one_of_the_bytes(field: str) -> None:
    value = "AAAAAA==-3" if "FULL" in field else "AAAAAA=="
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[answer("200 OK", BODY, f"x-amz-checksum-crc32c: {value}", field)]]
        assert await read(lane, if_match=TAG, size=len(BODY)) == BODY


# -- credentials ------------------------------------------------------------------------------


class Renewing:
    """Credentials that were renewed each time they are asked for."""

    def __init__(self) -> None:
        self.asked = 0

    async def get_frozen_credentials(self) -> object:
        from botocore.credentials import ReadOnlyCredentials

        self.asked += 1
        return ReadOnlyCredentials(f"KEY{self.asked}", "secret", "token", None)


async def test_credentials_that_were_renewed_while_a_request_was_refused_get_a_second_chance() -> None:
    async with scripted() as server, client_of(server.url) as client:
        lane = Lane(client, BUCKET, Renewing(), S3Options())
        server.plan = [[refusal("403 Forbidden", "ExpiredToken")], [ok(BODY)]]
        assert await read(lane) == BODY
        assert ["KEY1" in server.fields(0)["authorization"], "KEY2" in server.fields(1)["authorization"]] == [True, True]
        await lane.aclose()


async def test_without_credentials_nothing_is_signed() -> None:
    async with scripted() as server, client_of(server.url, sign=False) as client:
        lane = Lane(client, BUCKET, None, S3Options(), extras={"RequestPayer": "requester"})
        server.plan = [[ok(BODY)]]
        assert await read(lane) == BODY
        assert "authorization" not in server.fields()
        assert server.fields()["x-amz-request-payer"] == "requester"
        await lane.aclose()


async def test_a_proxy_makes_the_lane_unfit_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    async with scripted() as server, lane_to(server.url) as lane:
        with pytest.raises(Unfit, match="proxy"):
            await read(lane)
        assert not lane.fit


# -- listings ---------------------------------------------------------------------------------


def page(*keys: str, token: str = "", extra: str = "") -> bytes:
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-21T02:40:00.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>3</Size></Contents>"
        for key in keys
    )
    more = (
        f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        if token
        else "<IsTruncated>false</IsTruncated>"
    )
    return answer("200 OK", f"{extra}<ListBucketResult><EncodingType>url</EncodingType>{more}{rows}</ListBucketResult>".encode())


async def test_a_listing_goes_on_with_the_servers_token_and_without_it_behind_the_last_key() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[page("a%20b", "b", token="to+ken")], [page("c")], [page("c")]]
        first = await lane.list("", delimiter="/", limit=2)
        assert ([info.key for info in first.objects], first.next) == (["a b", "b"], "b")
        second = await lane.list("", delimiter="/", after="b", limit=2)
        assert ([info.key for info in second.objects], second.next) == (["c"], None)
        await lane.list("", delimiter="/", after="b", limit=2)
        targets = [request.split(b" ")[1].decode() for request in server.requests]
        assert targets[0] == f"/{BUCKET}?delimiter=%2F&encoding-type=url&list-type=2&max-keys=2"
        assert "continuation-token=to%2Bken" in targets[1]
        assert "start-after=b" in targets[2]


@pytest.mark.parametrize(
    "document",
    [
        page("a", extra="<!DOCTYPE x [<!ENTITY e 'eeee'>]>"),
        answer("200 OK", b"<ListBucketResult><Contents><Key>"),
        answer("200 OK", b"<html><body>Sign in</body></html>"),
        answer("200 OK", b""),
        answer("200 OK", b"x" * (5 * 1024 * 1024)),
    ],
)
async def test_a_listing_that_is_none_is_refused(document: bytes) -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[document]]
        with pytest.raises(Garbled):
            await lane.list()


async def test_pages_without_an_entry_are_passed_over() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[page(token="1")], [page(token="2")], [page("a")]]
        assert [info.key for info in (await lane.list()).objects] == ["a"]
        assert b"continuation-token=2" in server.requests[2]


async def test_a_listing_of_no_bucket_says_so() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[refusal("404 Not Found", "NoSuchBucket")]]
        with pytest.raises(NoSuchBucket):
            await lane.list()

"""Mutations by the lane, against a server that misbehaves as told: what is sent, and what a failure says of whether it happened."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import trio

from s3mount.errors import AccessDenied, AlreadyExists, OutcomeUnknown, PreconditionFailed, Throttled, TimedOut, Unavailable
from s3mount.model import ByteRange, Key
from s3mount.store.s3.answers import Asked
from s3mount.store.s3.body import Body
from s3mount.store.s3.lean.lane import Lane
from s3mount.store.s3.lean.origin import Unfit
from s3mount.store.s3.options import S3Options
from tests.s3.lean.lanes import BUCKET, SESSION, client_of, lane_to
from tests.s3.lean.scripted import CLOSE, HANG, RESET, Scripted, Step, answer, ok, refusal, scripted

KEY = "a/../key +ü"
TARGET = f"/{BUCKET}/a/../key%20%2B%C3%BC".encode()
BODY = b"some bytes"
# More than all buffers between two sockets of one machine.
LARGE = bytes(32 * 1024 * 1024)

COPIED = answer(
    "200 OK", b"<CopyObjectResult><ETag>&quot;c&quot;</ETag><LastModified>2026-11-21T02:40:00.000Z</LastModified></CopyObjectResult>"
)
GONE = answer("204 No Content").replace(b"Content-Length: 0\r\n", b"")

SOURCE = {"Bucket": BUCKET, "Key": "from/../+ü"}
MUTATIONS: dict[str, dict[str, Any]] = {
    "put_object": {"Body": BODY},
    "upload_part": {"Body": BODY, "PartNumber": 7, "UploadId": "u/+ 1"},
    "copy_object": {"CopySource": SOURCE},
    "upload_part_copy": {"CopySource": SOURCE, "PartNumber": 7, "UploadId": "u"},
    "delete_object": {},
}


async def change(lane: Lane, operation: str, *, absent: bool = False, **more: Any) -> Any:
    given = {"Bucket": BUCKET, "Key": KEY, **MUTATIONS[operation], **more}
    if "Body" in given:
        given["Body"] = Body(given["Body"])
    return await lane.change(operation, Asked(bucket=BUCKET, key=KEY, mutates=True, absent=absent), given)


async def failed(operation: str, *steps: Step, kind: type[Exception], options: S3Options | None = None, **more: Any) -> Scripted:
    """Change something at a server that answers with *steps*; it must fail as *kind*, and be sent once."""
    async with scripted() as server, lane_to(server.url, options=options) as lane:
        server.plan = [steps]
        with pytest.raises(kind):
            await change(lane, operation, **more)
    assert len(server.requests) == 1
    return server


# -- what is sent ---------------------------------------------------------------------------


async def test_a_body_behind_a_long_answer_on_one_connection_does_not_wait_in_vain() -> None:
    """What was received last had the socket wake us for much only: the answer to what is sent next is short."""
    first, rest = bytes(100_000), bytes(300_000)
    async with scripted() as server, lane_to(server.url) as lane:
        come, buffer = trio.Event(), bytearray(len(first) + len(rest))
        server.plan = [[ok(first + rest)[: -len(rest)], come, rest], [answer("200 OK")]]
        span = ByteRange(0, len(buffer))
        await lane.get_into(Key(KEY), span, memoryview(buffer), arrived=lambda count: come.set() if count >= len(first) else None)
        with trio.fail_after(10):
            await change(lane, "put_object", Body=LARGE)
    assert server.connections == 1


async def test_a_put_is_sent_whole_with_its_fields_signed() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[answer("200 OK")]]
        said = await change(lane, "put_object", ContentType="text/x", IfNoneMatch="*", Metadata={"mode": "33188"}, StorageClass="GLACIER")
    assert server.requests[0].startswith(b"PUT " + TARGET + b" HTTP/1.1\r\n")
    assert server.bodies == [BODY]
    fields = server.fields()
    assert (fields["content-type"], fields["if-none-match"], fields["x-amz-meta-mode"]) == ("text/x", "*", "33188")
    assert (fields["x-amz-storage-class"], fields["content-length"]) == ("GLACIER", str(len(BODY)))
    assert "content-type;host;if-none-match;x-amz-content-sha256;x-amz-date;x-amz-meta-mode;x-amz-storage-class" in fields["authorization"]
    assert (said["ETag"], said["ResponseMetadata"]["HTTPHeaders"]["etag"]) == ('"tag"', '"tag"')


async def test_a_part_says_which_it_is() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[answer("200 OK")]]
        await change(lane, "upload_part")
    assert server.requests[0].startswith(b"PUT " + TARGET + b"?partNumber=7&uploadId=u%2F%2B%201 HTTP/1.1\r\n")


async def test_a_copy_names_its_source_and_tells_what_it_made() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [
            [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body] for body in (b"\n \n" + COPIED.partition(b"\r\n\r\n")[2],)
        ]
        said = await change(lane, "copy_object", CopySourceIfMatch='"e"', MetadataDirective="REPLACE")
    fields = server.fields()
    assert fields["x-amz-copy-source"] == f"{BUCKET}/from/../%2B%C3%BC"
    assert (fields["x-amz-copy-source-if-match"], fields["x-amz-metadata-directive"], fields["content-length"]) == ('"e"', "REPLACE", "0")
    assert said["CopyObjectResult"] == {"ETag": '"c"', "LastModified": "2026-11-21T02:40:00.000Z"}


async def test_a_delete_has_no_body() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[GONE], [answer("200 OK")]]
        await change(lane, "delete_object")
        await change(lane, "put_object")
        assert server.connections == 1
    assert server.requests[0].startswith(b"DELETE " + TARGET + b" HTTP/1.1\r\n")
    assert "content-length" not in server.fields(0)


async def test_a_body_goes_unhashed_where_nobody_can_change_it_and_hashed_where_the_user_says_so() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[answer("200 OK")]]
        await change(lane, "put_object")
        assert server.fields()["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    async with scripted() as server, client_of(server.url, s3={"payload_signing_enabled": True}) as client:
        lane = Lane(client, BUCKET, await SESSION.get_credentials(), S3Options())
        server.plan = [[answer("200 OK")], [answer("200 OK")]]
        await change(lane, "put_object")
        assert server.fields()["x-amz-content-sha256"] == hashlib.sha256(BODY).hexdigest()
        await change(lane, "put_object", Body=LARGE[: 2**21])
        assert server.fields()["x-amz-content-sha256"] == hashlib.sha256(LARGE[: 2**21]).hexdigest()
        await lane.aclose()


async def test_a_service_that_wants_bodies_hashed_gets_them_hashed_from_then_on() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[refusal("400 Bad Request", "XAmzContentSHA256Mismatch")], [answer("200 OK")], [answer("200 OK")]]
        await change(lane, "put_object")
        await change(lane, "put_object")
    said = [server.fields(number)["x-amz-content-sha256"] for number in range(3)]
    assert said == ["UNSIGNED-PAYLOAD", *[hashlib.sha256(BODY).hexdigest()] * 2]


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("put_object", {"ContentType": "text/ü"}),
        ("put_object", {"ContentType": " x"}),
        ("put_object", {"Metadata": {"name": "ü"}}),
        ("put_object", {"GrantRead": "x\r\ny"}),
        ("put_object", {"Whatever": "x"}),
        ("copy_object", {"CopySource": {"Bucket": "arn:aws:s3:eu-west-1:1:accesspoint/x", "Key": "k"}}),
        ("copy_object", {"CopySource": {"Bucket": "b", "Key": "k", "VersionId": "v"}}),
    ],
)
async def test_what_is_not_plain_is_left_to_the_client_and_not_sent(operation: str, more: dict[str, Any]) -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        with pytest.raises(Unfit):
            await change(lane, operation, **more)
        with pytest.raises(Unfit):
            await lane.change("put_object_acl", Asked(bucket=BUCKET), {"Bucket": BUCKET})
        assert lane.fit
        assert server.requests == []


# -- whether it happened ----------------------------------------------------------------------

ANSWERS: dict[str, tuple[Step, type[Exception]]] = {
    "500": (refusal("500 Internal Server Error", "InternalError"), OutcomeUnknown),
    "503": (refusal("503 Service Unavailable", "SlowDown"), Throttled),
    "403": (refusal("403 Forbidden", "AccessDenied"), AccessDenied),
    "412": (refusal("412 Precondition Failed", "PreconditionFailed"), PreconditionFailed),
    "closed": (CLOSE, OutcomeUnknown),
    "reset": (RESET, OutcomeUnknown),
    "garbage": (b"nothing like it\r\n\r\n", OutcomeUnknown),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", OutcomeUnknown),
}


@pytest.mark.parametrize("operation", MUTATIONS)
@pytest.mark.parametrize("name", ANSWERS)
async def test_what_left_wholly_and_got_no_good_answer_may_have_happened(operation: str, name: str) -> None:
    step, kind = ANSWERS[name]
    await failed(operation, step, CLOSE, kind=kind)


async def test_a_creation_that_met_an_object_says_so() -> None:
    await failed("put_object", refusal("412 Precondition Failed", "PreconditionFailed"), kind=AlreadyExists, absent=True)


async def test_an_answer_that_does_not_come_in_time_leaves_it_open() -> None:
    await failed("put_object", HANG, kind=TimedOut, options=S3Options(first_byte_s=0.05))


@pytest.mark.parametrize(
    "body",
    [b"<Error><Code>InternalError</Code></Error>", b"<html>", b"not xml", b"<!DOCTYPE x><CopyObjectResult/>"],
)
async def test_a_copy_whose_success_is_none_may_have_happened(body: bytes) -> None:
    await failed("copy_object", answer("200 OK", body), kind=OutcomeUnknown)


async def test_a_copy_that_is_refused_in_its_success_is_refused() -> None:
    await failed("copy_object", answer("200 OK", b"<?xml version='1.0'?>\n<Error><Code>SlowDown</Code></Error>"), kind=Throttled)


async def test_a_body_that_could_not_leave_did_not_happen() -> None:
    """The server takes a little, then closes the connection, or takes nothing more."""
    for step, options in ((RESET, None), (HANG, S3Options(stall_s=0.1))):
        async with scripted() as server, lane_to(server.url, options=options) as lane:
            server.hears = 1
            server.plan = [[step]]
            with pytest.raises(Unavailable):
                await change(lane, "put_object", Body=LARGE)


@pytest.mark.parametrize("last", [CLOSE, HANG])
async def test_a_refusal_counts_that_comes_before_the_body_has_left(last: Step) -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.hears = 1
        server.plan = [[refusal("403 Forbidden", "AccessDenied"), last]]
        with pytest.raises(AccessDenied), trio.fail_after(60):
            await change(lane, "put_object", Body=LARGE)
        server.hears = len(BODY)
        server.plan = [[answer("200 OK")]]
        await change(lane, "put_object")
        assert server.connections == 2


async def test_a_kept_connection_that_was_closed_is_replaced_for_what_is_harmless_only() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        server.plan = [[answer("200 OK")], [CLOSE], [answer("200 OK")]]
        await change(lane, "upload_part")
        await change(lane, "upload_part")
        assert len(server.requests) == 3
        server.plan = [[CLOSE]]
        with pytest.raises(OutcomeUnknown):
            await change(lane, "put_object")
        assert len(server.requests) == 4


class Refreshed:
    """Credentials that are others from the second time on."""

    def __init__(self) -> None:
        self._asked = 0

    async def get_frozen_credentials(self) -> Any:
        self._asked += 1
        frozen = await (await SESSION.get_credentials()).get_frozen_credentials()
        return frozen._replace(token=f"token-{min(self._asked, 2)}")


async def test_what_was_refused_while_the_credentials_were_refreshed_is_sent_again() -> None:
    async with scripted() as server, client_of(server.url) as client:
        lane = Lane(client, BUCKET, Refreshed(), S3Options())
        server.plan = [[refusal("400 Bad Request", "ExpiredToken")], [answer("200 OK")]]
        await change(lane, "put_object")
        assert [server.fields(number)["x-amz-security-token"] for number in range(2)] == ["token-1", "token-2"]
        assert server.bodies == [BODY, BODY]
        await lane.aclose()


async def test_cancelled_changes_cost_their_connection() -> None:
    async with scripted() as server, lane_to(server.url) as lane:
        with trio.CancelScope() as scope:
            server.plan = [[scope.cancel, HANG], [answer("200 OK")]]
            await change(lane, "put_object")
        await change(lane, "put_object")
        assert server.connections == 2

"""What S3Store sends, request by request: nothing twice, what the options ask for, checksums, and no look that it can do without."""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from awscrt import checksums

from s3mount.errors import AlreadyExists, Archived, InvalidPart, OutcomeUnknown, PreconditionFailed, StoreError, Unavailable, Unsupported
from s3mount.model import Absent, ByteRange, Content, ETag, Hole, Key, Matches, MiB, ObjectInfo, Part, Upload
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.s3.lacks import Lack
from s3mount.store.s3.options import S3Options
from s3mount.store.s3.store import S3Store, open_s3
from s3mount.store.wrap.retrying import Policy
from tests.s3.canned import Reply, Request, Script, canned, refusal
from tests.server.serving import ACCESS_KEY, SECRET_KEY
from tests.store.registry import InMemory, edited, whole

# A client opens in a tenth of a second, seventy times.
pytestmark = pytest.mark.slow

K = Key("key")
# What a service is asked to find out what it is like.
PROBE = ".s3mount-probe-"
AT = "2026-11-21T03:00:00.000Z"
HEADERS = {"ETag": '"e"', "Last-Modified": "Sat, 21 Nov 2026 03:00:00 GMT", "Date": "Sat, 21 Nov 2026 03:00:00 GMT"}


class Wire:
    """One answer to everything, or one by one as a script says."""

    def __init__(self) -> None:
        self.script: Script = ok
        self.requests: list[Request] = []
        self.url = ""

    def answer(self, request: Request) -> Reply:
        return self.script(request)

    @property
    def lines(self) -> list[str]:
        return [f"{request.method} {request.target.partition('/bucket')[2]}" for request in self.requests]


def ok(request: Request) -> Reply:
    """An answer that any request can live with."""
    if "x-amz-copy-source" in request.headers:
        tag = "CopyPartResult" if "partNumber" in request.target else "CopyObjectResult"
        return Reply(200, f"<{tag}><ETag>&quot;c&quot;</ETag><LastModified>{AT}</LastModified></{tag}>".encode(), HEADERS)
    if request.target.endswith("?uploads"):
        return Reply(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>", HEADERS)
    if request.method == "POST" and PROBE in request.target:
        return refusal(412, "PreconditionFailed")
    if request.method == "POST" and "uploadId" in request.target:
        return Reply(200, b"<CompleteMultipartUploadResult><ETag>m</ETag></CompleteMultipartUploadResult>", HEADERS)
    return Reply(200, b"", HEADERS)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    wire = Wire()
    with canned(wire.answer) as (url, requests):
        wire.url, wire.requests = url, requests
        yield wire


@asynccontextmanager
async def opened(wire: Wire, **options: object) -> AsyncIterator[S3Store]:
    """A store without patience."""
    store = await open_s3(replace(S3Options(endpoint=wire.url), **options), "bucket", policy=Policy(base=0.001, budget=0.0))  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.aclose()


Ask = Callable[[ObjectStore], Awaitable[object]]
UPLOAD = Upload(K, "u", 0)

EVERY_VERB: dict[str, Ask] = {
    "head": lambda store: store.head(K),
    "list": lambda store: store.list(),
    "get_into": lambda store: store.get_into(K, ByteRange(0, 1), memoryview(bytearray(1))),
    "put": lambda store: store.put(K, b"data"),
    "adopt": lambda store: store.adopt(K, whole(InMemory(b"data")), Commit()),
    "update": lambda store: store.update(K, {}),
    "copy": lambda store: store.copy(K, Key("target")),
    "delete": lambda store: store.delete(K),
    "delete_many": lambda store: store.delete_many([K]),
    "create_upload": lambda store: store.create_upload(K),
    "put_part": lambda store: store.put_part(UPLOAD, 1, b"data"),
    "complete_upload": lambda store: store.complete_upload(UPLOAD, [Part(1, 4, ETag("e"))]),
    "abort_upload": lambda store: store.abort_upload(UPLOAD),
    "list_uploads": lambda store: store.list_uploads(),
}


REFUSALS = [refusal(500, "InternalError"), refusal(503, "SlowDown"), refusal(301, "PermanentRedirect")]


@pytest.mark.parametrize("verb", EVERY_VERB)
@pytest.mark.parametrize("reply", REFUSALS, ids=lambda reply: str(reply.status))
async def test_nothing_is_sent_twice(wire: Wire, verb: str, reply: Reply) -> None:
    wire.script = lambda _: replace(reply, headers={"x-amz-bucket-region": "xy"})
    async with opened(wire) as store:
        with pytest.raises(StoreError):
            await EVERY_VERB[verb](store)
    assert len(wire.requests) == 1, wire.lines


@pytest.mark.parametrize("verb", ["put", "update", "delete", "create_upload", "put_part", "complete_upload"])
async def test_a_mutation_that_failed_inside_the_service_may_have_happened(wire: Wire, verb: str) -> None:
    wire.script = lambda request: refusal(500, "InternalError") if request.method != "HEAD" else Reply(200, b"", HEADERS)
    async with opened(wire) as store:
        with pytest.raises(OutcomeUnknown):
            await EVERY_VERB[verb](store)


async def test_a_request_that_was_never_sent_did_not_happen(wire: Wire) -> None:
    async with opened(wire, endpoint="http://127.0.0.1:1") as store:
        with pytest.raises(Unavailable):
            await store.put(K, b"data")


async def test_the_options_go_with_every_request_that_knows_them(wire: Wire) -> None:
    async with opened(wire, requester_pays=True, bucket_owner="123456789012", sse="aws:kms", sse_kms_key_id="k") as store:
        await store.put(K, b"data")
        await store.head(K)
        await store.copy(K, Key("target"))
        await store.delete(K)
    for request in wire.requests:
        assert request.headers["x-amz-request-payer"] == "requester"
        assert request.headers["x-amz-expected-bucket-owner"] == "123456789012"
    put, _, _, copy, _ = wire.requests
    for request in (put, copy):
        assert request.headers["x-amz-server-side-encryption"] == "aws:kms"
        assert request.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "k"
    assert copy.headers["x-amz-source-expected-bucket-owner"] == "123456789012"


async def test_anonymous_requests_carry_no_signature(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with opened(wire, no_sign=True) as store:
        await store.head(K)
    assert "authorization" not in wire.requests[0].headers


async def test_the_bucket_goes_into_the_path_unless_it_is_to_go_into_the_host(wire: Wire) -> None:
    async with opened(wire) as store:
        await store.head(K)
    assert wire.requests[0].target.endswith("/bucket/key")
    async with opened(wire, endpoint="http://localhost:1", addressing="virtual") as store:
        url = await store.client.client.generate_presigned_url("head_object", Params={"Bucket": "bucket", "Key": "key"})
    assert url.startswith("http://bucket.localhost:1/key")


async def test_what_is_sent_carries_its_checksum_and_its_conditions(wire: Wire) -> None:
    async with opened(wire) as store:
        await store.put(K, b"data", Commit(condition=Absent(), commit_id="id", content_type="text/x", storage_class="STANDARD_IA"))
    (put,) = wire.requests
    assert put.headers["x-amz-checksum-crc64nvme"] == base64.b64encode(checksums.crc64nvme(b"data").to_bytes(8, "big")).decode()
    assert put.headers["if-none-match"] == "*"
    assert put.headers["x-amz-meta-s3mount-commit"] == "id"
    assert (put.headers["content-type"], put.headers["x-amz-storage-class"]) == ("text/x", "STANDARD_IA")
    assert "expect" not in put.headers


async def test_without_conditions_none_is_sent(wire: Wire) -> None:
    async with opened(wire, last_writer_wins=True) as store:
        assert not store.capabilities.conditional_put
        await store.put(K, b"data", Commit(condition=Absent()))
    assert "if-none-match" not in wire.requests[0].headers


async def test_a_service_without_checksums_is_asked_once_and_then_no_more(wire: Wire) -> None:
    def plain(request: Request) -> Reply:
        return refusal(400, "InvalidArgument") if "x-amz-checksum-crc64nvme" in request.headers else ok(request)

    wire.script = plain
    async with opened(wire) as store:
        await store.put(K, b"data")
        await store.put(K, b"data")
    _, second, third = wire.requests
    assert "x-amz-checksum-crc32c" in second.headers
    assert "x-amz-checksum-crc32c" in third.headers


async def test_a_refusal_for_other_reasons_leaves_the_checksums_on(wire: Wire) -> None:
    wire.script = lambda _: refusal(400, "InvalidArgument", "something else")
    async with opened(wire) as store:
        with pytest.raises(StoreError, match="something else"):
            await store.put(K, b"data")
        wire.script = ok
        await store.put(K, b"data")
    assert "x-amz-checksum-crc64nvme" in wire.requests[-1].headers


async def test_parts_are_announced_and_sent_with_checksums(wire: Wire) -> None:
    async with opened(wire) as store:
        await store.adopt(K, Content(17 * MiB, (Hole(0, 17 * MiB),)), Commit(condition=Absent()))
    create, *parts, complete, _ = [request for request in wire.requests if PROBE not in request.target]
    assert (create.headers["x-amz-checksum-algorithm"], create.headers["x-amz-checksum-type"]) == ("CRC64NVME", "FULL_OBJECT")
    assert len(parts) == 3
    assert all("x-amz-checksum-crc64nvme" in part.headers for part in parts)
    assert complete.headers["if-none-match"] == "*"


async def test_a_kept_range_is_copied_under_its_etag(wire: Wire) -> None:
    base = ObjectInfo(K, 40 * MiB, ETag("base"), 0)
    async with opened(wire) as store:
        await store.adopt(K, edited(base, 40 * MiB, InMemory(b"more")), Commit())
    (copy,) = [request for request in wire.requests if "x-amz-copy-source" in request.headers]
    assert copy.headers["x-amz-copy-source-if-match"] == '"base"'
    assert copy.headers["x-amz-copy-source-range"] == f"bytes=0-{40 * MiB - 1}"


def bytes_from(request: Request) -> Reply:
    """As `ok`, of an object that has as many bytes as one may ask for."""
    if request.method != "GET":
        return ok(request)
    start, stop = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
    return Reply(206, bytes(stop + 1 - start), {**HEADERS, "ETag": '"base"', "Content-Range": f"bytes {start}-{stop}/{20 * MiB}"})


@pytest.mark.parametrize("answer", [Reply(200, b"", HEADERS), refusal(501, "NotImplemented"), refusal(400, "InvalidArgument")], ids=str)
async def test_where_no_parts_are_copied_an_edited_object_is_sent_anew_whole(wire: Wire, answer: Reply) -> None:
    """Regression: `rclone serve s3` takes a copy of a part for a part without bytes, and each edit of a large object failed."""
    uploads = itertools.count(1)

    def script(request: Request) -> Reply:
        if request.target.endswith("?uploads"):
            begun = f"<InitiateMultipartUploadResult><UploadId>u{next(uploads)}</UploadId></InitiateMultipartUploadResult>"
            return Reply(200, begun.encode(), HEADERS)
        return answer if "x-amz-copy-source" in request.headers else bytes_from(request)

    wire.script = script
    base = ObjectInfo(K, 20 * MiB, ETag("base"), 0)
    async with opened(wire) as store:
        info = await store.adopt(K, edited(base, 20 * MiB, InMemory(b"more")), Commit())
        assert info.size == 20 * MiB + 4
        assert [line for line in wire.lines if line.startswith("DELETE")] == ["DELETE /key?uploadId=u1"]
        anew = [request for request in wire.requests if request.method == "PUT" and "uploadId=u2" in request.target]
        assert sum(int(request.headers["content-length"]) for request in anew) == info.size
        refused = answer.status == 400  # this copy, perhaps not every one
        assert (store.capabilities.part_copy, len(store.statistics()["lacks"])) == (refused, 0 if refused else 1)  # type: ignore[arg-type]
        asked = len(wire.requests)
        await store.adopt(K, edited(base, 20 * MiB, InMemory(b"more")), Commit())
    assert sum("x-amz-copy-source" in request.headers for request in wire.requests[asked:]) == refused


async def test_a_copy_of_a_part_without_an_answer_is_no_proof_that_there_are_none(wire: Wire) -> None:
    """What has taken it for a part says what that is called; an answer that breaks off says nothing, and it is asked for again."""
    wire.script = lambda request: Reply(200, b" ", {"Date": HEADERS["Date"]})
    async with opened(wire) as store:
        with pytest.raises(OutcomeUnknown):
            await store.copy_part(UPLOAD, 1, source=ObjectInfo(K, 20 * MiB, ETag("base"), 0), span=ByteRange(0, 8 * MiB))
        assert store.capabilities.part_copy


async def test_a_copy_that_is_not_one_is_refused(wire: Wire) -> None:
    """A service that takes it for a PUT without a body must not have its source deleted afterwards."""
    wire.script = lambda request: Reply(200, b"", HEADERS)
    async with opened(wire) as store:
        await store.put(K, b"data")
        with pytest.raises(Unsupported, match="0 bytes"):
            await store.copy(K, Key("target"), if_match=ETag("e"))


def named_by_its_bytes(size: int, commit_id: str = "mine") -> Reply:
    headers = {**HEADERS, "ETag": '"bytes"', "Content-Length": str(size), "x-amz-meta-s3mount-commit": commit_id}
    return Reply(200, b"", headers)


async def test_where_completions_read_over_conditions_the_object_is_looked_at_before(wire: Wire) -> None:
    there = False

    def careless(request: Request) -> Reply:
        if request.method == "HEAD" and not there:
            return Reply(404)
        if request.method == "POST" and "uploadId" in request.target:
            return Reply(200, b"<CompleteMultipartUploadResult><ETag>m</ETag></CompleteMultipartUploadResult>", HEADERS)
        return ok(request)

    wire.script = careless
    content = Content(17 * MiB, (Hole(0, 17 * MiB),))
    async with opened(wire) as store:
        await store.adopt(K, content, Commit(condition=Absent()))
        assert [request.method for request in wire.requests if PROBE in request.target][-1] == "DELETE"
        assert store.statistics() == {"lacks": [Lack.COMPLETION_CONDITIONS.value]}
        there, asked = True, len(wire.requests)
        with pytest.raises(AlreadyExists):
            await store.adopt(K, content, Commit(condition=Absent()))
        with pytest.raises(PreconditionFailed):
            await store.adopt(K, content, Commit(condition=Matches(ETag("another"))))
        await store.adopt(K, content, Commit(condition=Matches(ETag("e"))))
    assert not any(PROBE in request.target for request in wire.requests[asked:])


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_who_is_cancelled_while_he_finds_out_leaves_nothing_behind(wire: Wire, method: str) -> None:
    """Regression: a probe's upload stayed, which nobody had written down."""
    token, scope = trio.lowlevel.current_trio_token(), trio.CancelScope()

    def cancelling(request: Request) -> Reply:
        if request.method == method and PROBE in request.target and "uploadId" in request.target:
            trio.from_thread.run_sync(scope.cancel, trio_token=token)
        return ok(request)

    wire.script = cancelling
    async with opened(wire) as store:
        with scope:
            await store.adopt(K, Content(17 * MiB, (Hole(0, 17 * MiB),)), Commit(condition=Absent()))
    assert scope.cancelled_caught
    tidied = [line.partition(PROBE)[2][16:] for line in wire.lines if line.startswith(f"DELETE /{PROBE}")]
    assert tidied == ["?uploadId=u", ""]


async def test_an_object_is_called_as_it_is_from_then_on_not_as_its_completion_says(wire: Wire) -> None:
    """Regression: behind `rclone serve s3` a mount took what it had uploaded for somebody else's."""
    wire.script = lambda request: named_by_its_bytes(17 * MiB) if request.method == "HEAD" else ok(request)
    async with opened(wire) as store:
        for _ in range(2):
            info = await store.adopt(K, Content(17 * MiB, (Hole(0, 17 * MiB),)), Commit(commit_id="mine"))
            assert (info.etag, wire.requests[-1].method) == ("bytes", "HEAD")
        wire.script = lambda request: named_by_its_bytes(MiB) if request.method == "HEAD" else ok(request)
        with pytest.raises(InvalidPart, match="were sent"):
            await store.adopt(K, Content(17 * MiB, (Hole(0, 17 * MiB),)), Commit(commit_id="mine"))
        wire.script = lambda request: named_by_its_bytes(MiB, "another's") if request.method == "HEAD" else ok(request)
        assert (await store.adopt(K, Content(17 * MiB, (Hole(0, 17 * MiB),)), Commit(commit_id="mine"))).etag == "m"


async def test_a_look_at_an_object_that_was_completed_is_repeated_where_names_are_known_to_differ(wire: Wire) -> None:
    """Regression: one answer that was late, and the mount took what it had just uploaded for somebody else's."""
    looks = iter([named_by_its_bytes(17 * MiB), refusal(503, "SlowDown"), named_by_its_bytes(17 * MiB)])
    wire.script = lambda request: next(looks) if request.method == "HEAD" else ok(request)
    store = await open_s3(S3Options(endpoint=wire.url), "bucket", policy=Policy(base=0.001, budget=60.0))
    for _ in range(2):
        info = await store.adopt(K, Content(17 * MiB, (Hole(0, 17 * MiB),)), Commit(commit_id="mine"))
        assert info.etag == "bytes"
    assert sum(line.endswith("?uploads") for line in wire.lines) == 2
    await store.aclose()


async def test_a_service_that_calls_objects_alike_is_looked_at_once(wire: Wire) -> None:
    same = replace(named_by_its_bytes(17 * MiB), headers={**named_by_its_bytes(17 * MiB).headers, "ETag": '"m"'})
    wire.script = lambda request: same if request.method == "HEAD" else ok(request)
    async with opened(wire) as store:
        for _ in range(2):
            await store.adopt(K, Content(17 * MiB, (Hole(0, 17 * MiB),)), Commit(commit_id="mine"))
        assert store.statistics() == {"lacks": []}
    assert sum(request.method == "HEAD" for request in wire.requests) == 1


async def test_an_upload_that_fails_is_aborted(wire: Wire) -> None:
    wire.script = lambda request: refusal(403, "AccessDenied") if "partNumber" in request.target else ok(request)
    async with opened(wire) as store:
        with pytest.raises(StoreError):
            await store.adopt(K, Content(17 * MiB, (Hole(0, 17 * MiB),)), Commit())
    assert sum(line.startswith("DELETE /key?uploadId=u") for line in wire.lines) == 1


async def test_a_conflict_at_completion_begins_another_upload(wire: Wire) -> None:
    conflicts = iter([refusal(409, "ConditionalRequestConflict")])

    def once(request: Request) -> Reply:
        return next(conflicts, ok(request)) if request.method == "POST" and "uploadId" in request.target else ok(request)

    wire.script = once
    async with opened(wire) as store:
        await store.adopt(K, Content(17 * MiB, (Hole(0, 17 * MiB),)), Commit(condition=Absent()))
    assert sum(line.endswith("?uploads") for line in wire.lines) == 2


async def test_what_was_made_here_is_renamed_and_changed_without_a_look(wire: Wire) -> None:
    async with opened(wire) as store:
        info = await store.put(K, b"data")
        info = await store.update(K, {"mode": "33188"}, if_match=info.etag)
        info = await store.copy(K, Key("target"), if_match=info.etag)
        await store.update(Key("target"), {"mode": "33152"}, if_match=info.etag)
    assert [line.split()[0] for line in wire.lines] == ["PUT"] * 4


async def test_what_others_made_keeps_its_headers_when_its_metadata_changes(wire: Wire) -> None:
    extra = {"Cache-Control": "max-age=1", "Content-Disposition": "inline", "x-amz-storage-class": "STANDARD_IA", "Content-Type": "text/x"}
    wire.script = lambda request: Reply(200, b"", {**HEADERS, **extra}) if request.method == "HEAD" else ok(request)
    async with opened(wire) as store:
        await store.update(K, {"a": "b"}, if_match=ETag("e"))
    assert [line.split()[0] for line in wire.lines] == ["HEAD", "PUT"]
    copy = wire.requests[-1].headers
    assert (copy["cache-control"], copy["content-disposition"]) == ("max-age=1", "inline")
    assert (copy["x-amz-storage-class"], copy["content-type"]) == ("STANDARD_IA", "text/x")
    assert copy["x-amz-metadata-directive"] == "REPLACE"
    assert copy["x-amz-copy-source-if-match"] == '"e"'


async def test_a_pin_of_a_known_version_sends_nothing(wire: Wire) -> None:
    async with opened(wire) as store:
        pin = await store.pin(K, known=ObjectInfo(K, 4, ETag("e"), 0))
        assert not pin.get_into_nowait(0, memoryview(bytearray(1)))
        await pin.aclose()
    assert wire.requests == []


async def test_a_service_that_cannot_delete_many_gets_one_request_each(wire: Wire) -> None:
    wire.script = lambda request: refusal(501, "NotImplemented") if "?delete" in request.target else Reply(204)
    async with opened(wire) as store:
        assert list(await store.delete_many([Key("a"), Key("b")])) == []
        assert list(await store.delete_many([Key("c")])) == []
    assert [line.split()[0] for line in wire.lines] == ["POST", "DELETE", "DELETE", "DELETE"]


async def test_keys_that_xml_cannot_carry_are_deleted_one_by_one(wire: Wire) -> None:
    async with opened(wire) as store:
        await store.delete_many([Key("a\x01"), Key("b\n")])
    assert sorted(wire.lines) == ["DELETE /a%01", "DELETE /b%0A"]


async def test_an_archived_object_says_how_to_get_it_back(wire: Wire) -> None:
    wire.script = lambda _: refusal(403, "InvalidObjectState", "The operation is not valid for the object's storage class")
    async with opened(wire) as store:
        with pytest.raises(Archived, match="s3mount restore s3://bucket/key"):
            await store.get_into(K, ByteRange(0, 1), memoryview(bytearray(1)))


async def test_a_lack_of_conditions_names_the_option_that_does_without(wire: Wire) -> None:
    wire.script = lambda _: refusal(501, "NotImplemented")
    async with opened(wire) as store:
        with pytest.raises(Unsupported, match="--last-writer-wins"):
            await store.put(K, b"", Commit(condition=Absent()))


async def test_an_object_in_the_way_of_a_creation_is_named(wire: Wire) -> None:
    wire.script = lambda _: refusal(412, "PreconditionFailed")
    async with opened(wire) as store:
        with pytest.raises(AlreadyExists, match="'key'"):
            await store.put(K, b"", Commit(condition=Absent()))

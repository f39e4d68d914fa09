"""What clients send that boto3 does not: request lines, chunked bodies, expectations, forms, browsers. Authentication is off."""

from __future__ import annotations

import base64
import os
import random
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from s3mount.model import Key, KiB, MiB
from s3mount.server.front import Answer, Connection
from s3mount.server.lanes import Room
from tests.server_api.serving import PATIENCE_S, Served

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("data"), domains=["s3.example.com"])
    server.engine.create_bucket("bucket")
    yield server
    server.stop()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_absolute_request_line_and_a_virtual_host_name_the_bucket(server: Served) -> None:
    server.ask("PUT", "/bucket/key", b"hello")
    absolute = server.raw(b"GET http://any.example.com/bucket/key HTTP/1.1\r\nHost: any.example.com\r\nConnection: close\r\n\r\n")
    virtual = server.raw(b"GET /key HTTP/1.1\r\nHost: bucket.s3.example.com:80\r\nConnection: close\r\n\r\n")
    assert absolute.endswith(b"\r\n\r\nhello")
    assert virtual.endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("path", ["/bucket/../x", "/bucket//double//", "/bucket/%2e%2e/y", "/bucket/a+b", "/bucket/a%00b"])
def test_strange_keys_are_just_keys(server: Served, path: str) -> None:
    assert server.ask("PUT", path, b"hello")[0] == 200
    assert server.ask("GET", path)[2] == b"hello"


def test_an_expectation_is_met_only_after_the_early_checks(server: Served) -> None:
    head = b"PUT %s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    assert server.raw(head % b"/bucket/key", whole=False).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    refused = server.raw(head % b"/no-such-bucket/key", whole=False)
    assert refused.startswith(b"HTTP/1.1 404 ")
    assert b"onnection: close" in refused


def test_a_connection_goes_on_after_an_error_with_a_small_body(server: Served) -> None:
    wrong = b"PUT /no-such-bucket/key HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    answer = server.raw(wrong + b"GET /bucket/absent HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 404 ") == 2
    assert b"<Code>NoSuchBucket</Code>" in answer
    assert b"<Code>NoSuchKey</Code>" in answer


def chunked(data: bytes, pieces: int = 7) -> bytes:
    """As HTTP's own chunks, of sizes that match nothing."""
    step = max(1, len(data) // pieces)
    parts = (data[at : at + step] for at in range(0, len(data), step))
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_aws_chunks_inside_http_chunks_without_a_length(server: Served) -> None:
    data = bytes(range(256)) * 4000
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big"))
    half = len(data) // 2
    body = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n" % (half, data[:half], half, data[half:], crc)
    head = (
        b"PUT /bucket/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nContent-Encoding: aws-chunked,gzip\r\n"
        b"x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-trailer: x-amz-checksum-crc32\r\n"
        b"x-amz-decoded-content-length: " + str(len(data)).encode() + b"\r\n\r\n"
    )
    assert server.raw(head % b"chunked" + chunked(body)).startswith(b"HTTP/1.1 200 ")
    status, headers, got = server.ask("GET", "/bucket/chunked", x_amz_checksum_mode="ENABLED")
    assert (status, got, headers["content-encoding"]) == (200, data, "gzip")
    assert headers["x-amz-checksum-crc32"] == crc.decode()
    wrong = server.raw(head % b"wrong" + chunked(body.replace(crc, b"AAAAAA==")))
    assert b"<Code>BadDigest</Code>" in wrong
    assert server.ask("HEAD", "/bucket/wrong")[0] == 404


def test_a_body_without_a_length_is_refused(server: Served) -> None:
    answer = server.raw(b"PUT /bucket/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello"))
    assert answer.startswith(b"HTTP/1.1 411 ")


def test_a_client_that_dies_leaves_nothing(server: Served) -> None:
    server.abandon(b"PUT /bucket/dead HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (8 * MiB, bytes(MiB)))
    assert server.ask("HEAD", "/bucket/dead")[0] == 404
    wait_until(lambda: not any(path.suffix == "" and len(path.name) == 24 for path in Path(server.engine.staging).iterdir()))


def test_an_error_names_its_request_and_a_head_has_no_body(server: Served) -> None:
    status, headers, body = server.ask("GET", "/bucket/absent")
    assert (status, headers["content-type"]) == (404, "application/xml")
    assert f"<RequestId>{headers['x-amz-request-id']}</RequestId>".encode() in body
    assert server.ask("HEAD", "/bucket/absent")[::2] == (404, b"")


def test_a_document_that_is_too_long_or_has_entities_is_refused(server: Served) -> None:
    digest = {"content_md5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    status, _, body = server.ask("POST", "/bucket?delete", b"<Delete>" + b" " * (5 * MiB) + b"</Delete>", **digest)
    assert (status, b"MaxMessageLengthExceeded" in body) == (400, True)
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><VersioningConfiguration><Status>&a;</Status></VersioningConfiguration>'
    assert b"<Code>MalformedXML</Code>" in server.ask("PUT", "/bucket?versioning", bomb)[2]


CORS = (
    b"<CORSConfiguration><CORSRule><AllowedOrigin>https://*.example.com</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
    b"<AllowedHeader>x-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader></CORSRule></CORSConfiguration>"
)


def test_cors_rules_decide_about_preflights_and_answers(server: Served) -> None:
    assert server.ask("GET", "/bucket?cors")[0] == 404
    assert server.ask("PUT", "/bucket?cors", CORS)[0] == 200
    assert b"<AllowedMethod>GET</AllowedMethod>" in server.ask("GET", "/bucket?cors")[2]
    origin = "https://a.example.com"
    status, headers, _ = server.ask("OPTIONS", "/bucket/key", origin=origin, access_control_request_method="GET")
    assert (status, headers["access-control-allow-origin"]) == (200, origin)
    assert server.ask("OPTIONS", "/bucket/key", origin="https://b.localhost", access_control_request_method="GET")[0] == 403
    assert server.ask("OPTIONS", "/bucket/key")[0] == 400
    assert server.ask("GET", "/bucket/absent", origin=origin)[1]["access-control-expose-headers"] == "ETag"
    assert server.ask("DELETE", "/bucket?cors")[0] == 204


def form(fields: dict[str, str], data: bytes) -> bytes:
    parts = [f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    file = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="x.txt"\r\nContent-Type: text/x\r\n\r\n' + data + b"\r\n"
    return b"".join(parts) + file + b"--edge--\r\n"


def test_a_form_uploads_a_file(server: Served) -> None:
    fields = {"key": "up/${filename}", "Content-Type": "text/plain", "x-amz-meta-a": "b", "success_action_status": "201"}
    status, _, body = server.ask("POST", "/bucket", form(fields, b"hello"), content_type="multipart/form-data; boundary=edge")
    assert (status, b"<Key>up/x.txt</Key>" in body) == (201, True)
    status, headers, got = server.ask("GET", "/bucket/up/x.txt")
    assert (status, got, headers["content-type"], headers["x-amz-meta-a"]) == (200, b"hello", "text/plain", "b")


def test_a_form_without_a_file_or_key_is_refused(server: Served) -> None:
    for body in (form({}, b"hello"), b"--edge--\r\n", b"no form at all"):
        assert server.ask("POST", "/bucket", body, content_type="multipart/form-data; boundary=edge")[0] == 400


def test_a_bucket_name_that_is_none_is_refused(server: Served) -> None:
    for name in ("192.168.1.1", "a..b", "under_score", "UPPER", "a", "dash-"):
        status, _, body = server.ask("PUT", f"/{name}")
        assert (status, b"<Code>InvalidBucketName</Code>" in body) == (400, True)


def test_an_unknown_method_and_a_wrong_one_are_told_apart(server: Served) -> None:
    assert server.ask("DELETE", "/")[0] == 405
    assert server.ask("POST", "/bucket/key?tagging", b"")[0] == 405
    assert server.ask("PUT", "/bucket/key?retention", b"")[0] == 501


def test_requests_sent_at_once_are_answered_in_order(server: Served) -> None:
    put = b"PUT /bucket/wire HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none"
    get = b"GET /bucket/wire HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = server.raw(put + get)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answer.endswith(b"\r\n\r\none")
    assert b"\r\nConnection: close\r\n" in answer.partition(b"HTTP/1.1")[2].partition(b"HTTP/1.1")[2]


@pytest.mark.parametrize(("asked", "told"), [(b"", b"close"), (b"Connection: keep-alive\r\n", b"keep-alive")])
def test_an_old_client_is_told_whether_its_connection_stays(server: Served, asked: bytes, told: bytes) -> None:
    answer = server.raw(b"GET /bucket HTTP/1.0\r\nHost: x\r\n" + asked + b"\r\n", whole=False)
    assert b"\r\nConnection: " + told in answer


def test_an_answer_to_head_has_the_length_and_no_body(server: Served) -> None:
    server.engine.put("bucket", Key("wire"), b"12345")
    answer = server.raw(b"HEAD /bucket/wire HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"\r\nContent-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_content_that_memory_does_not_hold_is_fetched_first(open_server: Served) -> None:
    open_server.engine.create_bucket("box")
    data = random.Random(5).randbytes(9 * MiB + 5)
    open_server.ask("PUT", "/box/a", data)
    (body,) = open_server.engine.bodies.files()
    with body.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert open_server.ask("GET", "/box/a")[2] == data
    assert open_server.ask("GET", "/box/a", Range="bytes=100000-9000000")[2] == data[100_000:9_000_001]


def put(key: bytes, body: bytes, *headers: bytes) -> bytes:
    fields = b"".join(header + b"\r\n" for header in headers)
    return b"PUT /bucket/%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (key, fields, len(body), body)


GET = b"GET /bucket/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("size", [256 * KiB + 1, 600 * KiB, 3 * MiB + 77])
def test_what_follows_a_long_body_on_its_connection_is_the_next_request(server: Served, size: int) -> None:
    one, other = random.Random(size).randbytes(size), random.Random(-size).randbytes(size)
    answer = server.raw(put(b"one", one) + put(b"other", other) + put(b"small", b"12345") + GET % b"other")
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.endswith(b"\r\n\r\n" + other)
    assert server.ask("GET", "/bucket/one")[2] == one
    assert server.ask("GET", "/bucket/small")[2] == b"12345"


CHUNKED = (b"x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER", b"x-amz-decoded-content-length: 900000")


@pytest.mark.parametrize("bad", [b"no size\r\n" + bytes(900_000), b"100000\r\n" + bytes(900_000), b"5\r\n" + bytes(900_000)])
def test_a_body_that_is_refused_in_the_middle_is_received_to_its_end(server: Served, bad: bytes) -> None:
    answer = server.raw(put(b"refused", bad, *CHUNKED) + put(b"behind", b"12345") + GET % b"behind")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n12345")
    assert server.ask("GET", "/bucket/refused")[0] == 404


def test_with_an_aiohttp_of_other_insides_long_bodies_come_through_it(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(connection: Connection) -> None:
        raise TypeError("unexpected keyword argument")

    monkeypatch.setattr(Connection, "_new_parser", other)
    data = random.Random(3).randbytes(3 * MiB)
    answer = server.raw(put(b"through", data) + GET % b"through")
    assert answer.endswith(b"\r\n\r\n" + data)


def test_a_client_that_hangs_up_in_a_long_body_leaves_nothing(server: Served) -> None:
    whole = put(b"broken-off", bytes(3 * MiB))
    there = set(server.engine.staging.iterdir())
    for length in (300 * KiB, 2 * MiB, len(whole) - 1):
        server.abandon(whole[:length])
    wait_until(lambda: set(server.engine.staging.iterdir()) <= there)
    assert server.ask("GET", "/bucket/broken-off")[0] == 404


def test_a_client_that_is_gone_when_its_long_body_begins_leaves_the_room_to_others(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[Room] = []
    enter = Room.enter

    def seen(room: Room) -> None:
        rooms.append(room)
        enter(room)

    def gone(connection: Connection, *where: object) -> None:
        raise ConnectionResetError("the client is gone")

    monkeypatch.setattr(Room, "enter", seen)
    monkeypatch.setattr(Connection, "divert", gone)
    assert b"<Code>IncompleteBody</Code>" in server.raw(put(b"gone", bytes(300 * KiB), b"Connection: close"))
    wait_until(lambda: not rooms[0]._bodies)


def test_an_answer_with_a_line_break_in_a_header_is_never_sent() -> None:
    answer = Answer(200, [("x-amz-meta-a", "b\r\nSet-Cookie: c")])
    with pytest.raises(ValueError, match="line break"):
        answer._head(make_mocked_request("GET", "/"))

"""The front itself, before a real server: what it passes on is right, what it counts is exact, what it spoils is spoiled as announced."""

from __future__ import annotations

import http.client
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.server.serving import ACCESS_KEY, SECRET_KEY, Server, served
from tests.wire.certificate import make_certificate
from tests.wire.faults import EXPIRED, SLOW_DOWN, Rule
from tests.wire.front import Front

pytestmark = pytest.mark.slow

KIB = 1024
BODY = random.Random(1).randbytes(300 * KIB)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("wire"), "--auth") as running:
        yield running


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[Front]:
    with Front(f"{server.host}:{server.port}") as running:
        client(running).create_bucket(Bucket="wire")
        client(running).put_object(Bucket="wire", Key="body", Body=BODY)
        yield running


@pytest.fixture
def front(shared: Front) -> Iterator[Front]:
    shared.reset()
    yield shared
    shared.spoil()
    shared.set(latency_s=0, rate=0)


def client(front: Front) -> Any:
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}, read_timeout=20)
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=front.url, config=config, **keys)


def signed(front: Front, method: str = "get_object", **more: Any) -> str:
    """Path and query of a presigned request: what a plain HTTP client needs."""
    url: str = client(front).generate_presigned_url(method, Params={"Bucket": "wire", "Key": "body", **more})
    return url.removeprefix(front.url)


Plain = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def plain(front: Front) -> Iterator[Plain]:
    """GET of the one object with a connection of its own, which the test need not close; threads may use it."""
    opened: list[http.client.HTTPConnection] = []

    def get(**headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=20)
        opened.append(connection)
        connection.request("GET", signed(front), headers=headers)
        answer = connection.getresponse()
        cleanup.callback(answer.close)
        return answer

    with ExitStack() as cleanup:
        yield get
        for connection in opened:
            connection.close()


def test_signed_requests_of_every_kind_go_through_and_are_counted(front: Front) -> None:
    s3 = client(front)
    s3.put_object(Bucket="wire", Key="a", Body=BODY)
    assert s3.get_object(Bucket="wire", Key="a")["Body"].read() == BODY
    assert s3.get_object(Bucket="wire", Key="a", Range="bytes=5-104")["Body"].read() == BODY[5:105]
    s3.copy_object(Bucket="wire", Key="b", CopySource={"Bucket": "wire", "Key": "a"})
    upload = s3.create_multipart_upload(Bucket="wire", Key="c")["UploadId"]
    part = s3.upload_part(Bucket="wire", Key="c", UploadId=upload, PartNumber=1, Body=BODY)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket="wire", Key="c", UploadId=upload, MultipartUpload=parts)
    assert len(s3.list_objects_v2(Bucket="wire")["Contents"]) == 4
    s3.head_object(Bucket="wire", Key="c")
    s3.delete_objects(Bucket="wire", Delete={"Objects": [{"Key": "b"}, {"Key": "c"}]})
    s3.delete_object(Bucket="wire", Key="a")
    counts = front.counts()
    once = ["PUT", "GET", "GET-range", "COPY", "CreateUpload", "UploadPart", "Complete", "LIST", "HEAD", "DeleteObjects", "DELETE"]
    assert {kind: counts[kind].requests for kind in counts if kind != "all"} == dict.fromkeys(once, 1)
    assert counts.total == len(once)
    assert counts["GET-range"].sent == 100
    assert counts["PUT"].received == counts["GET"].sent == len(BODY)


def test_an_answer_waits_for_the_latency(front: Front) -> None:
    front.set(latency_s=0.1)
    client(front).head_object(Bucket="wire", Key="body")
    (entry,) = front.entries()
    assert entry.first - entry.asked >= 0.1


def test_a_body_takes_the_time_that_its_connection_needs(front: Front) -> None:
    front.set(rate=1e6)
    client(front).get_object(Bucket="wire", Key="body")["Body"].read()
    client(front).put_object(Bucket="wire", Key="up", Body=BODY)
    down, up = front.entries()
    assert down.ended - down.first >= 0.25
    assert up.asked - up.began >= 0.25


def test_requests_at_once_are_counted_as_such(front: Front, plain: Plain) -> None:
    front.set(latency_s=1.0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: plain().read(), range(4)))
    assert front.counts()["GET"].peak == 4


def test_counting_begins_and_ends_with_its_block(front: Front) -> None:
    s3 = client(front)
    s3.head_object(Bucket="wire", Key="body")
    with front.counting() as counts:
        s3.head_object(Bucket="wire", Key="body")
    s3.head_object(Bucket="wire", Key="body")
    assert str(counts) == "HEAD 1"


# -- faults -------------------------------------------------------------------------------------


def test_an_injected_answer_never_reaches_the_server(front: Front) -> None:
    front.spoil(replace(SLOW_DOWN, kinds=("GET",), times=1), EXPIRED)
    s3 = client(front)
    with pytest.raises(s3.exceptions.ClientError, match="SlowDown"):
        s3.get_object(Bucket="wire", Key="body")
    with pytest.raises(s3.exceptions.ClientError, match="ExpiredToken"):
        s3.put_object(Bucket="wire", Key="never", Body=BODY)
    front.spoil()
    with pytest.raises(s3.exceptions.ClientError, match="404"):
        s3.head_object(Bucket="wire", Key="never")
    assert front.counts()["PUT"].faults == {"ExpiredToken": 1}


@pytest.mark.parametrize(("fault", "error"), [("reset", ConnectionResetError), ("truncate", http.client.IncompleteRead)])
def test_a_body_ends_in_its_middle(front: Front, plain: Plain, fault: str, error: type[Exception]) -> None:
    front.spoil(Rule(fault, at=0.25))
    answer = plain()
    assert answer.length == len(BODY)
    with pytest.raises(error):
        answer.read()


def test_a_stalled_body_goes_no_further_and_is_reset_in_the_end(front: Front, plain: Plain) -> None:
    front.spoil(Rule("stall", at=0.5, seconds=0.3))
    answer = plain()
    assert answer.read(len(BODY) // 2) == BODY[: len(BODY) // 2]
    began = time.monotonic()
    with pytest.raises(ConnectionResetError):
        answer.read()
    assert time.monotonic() - began > 0.25


def test_nothing_of_a_silent_answer_comes(front: Front, plain: Plain) -> None:
    front.spoil(Rule("silence", seconds=0.2))
    with pytest.raises(ConnectionResetError):
        plain()


def test_the_length_may_be_a_lie_either_way(front: Front, plain: Plain) -> None:
    front.spoil(Rule("short_length", at=0.5))
    answer = plain(Range="bytes=0-999")
    assert (answer.headers["Content-Range"], answer.read()) == (f"bytes 0-999/{len(BODY)}", BODY[:500])
    front.spoil(Rule("long_length"))
    answer = plain(Range="bytes=0-999")
    with pytest.raises(http.client.IncompleteRead):
        answer.read()


def test_one_bit_is_wrong(front: Front, plain: Plain) -> None:
    front.spoil(Rule("flip"))
    came = plain().read()
    assert sum(one != other for one, other in zip(came, BODY, strict=True)) == 1


def test_a_range_is_ignored(front: Front, plain: Plain) -> None:
    front.spoil(Rule("ignore_range"))
    answer = plain(Range="bytes=0-9")
    assert (answer.status, answer.read()) == (200, BODY)


@pytest.mark.parametrize(("fault", "happened"), [("lost_reply", True), ("lost_request", False), ("reset_upload", False)])
def test_a_reply_is_lost_after_or_before_it_happened(front: Front, fault: str, happened: bool) -> None:
    front.spoil(Rule(fault, kinds=("PUT",)))
    s3 = client(front)
    with pytest.raises(Exception, match="Connection"):
        s3.put_object(Bucket="wire", Key=fault, Body=BODY)
    assert ("Contents" in s3.list_objects_v2(Bucket="wire", Prefix=fault)) == happened


def test_an_endpoint_goes_away_and_comes_back_on_the_same_port(front: Front, plain: Plain) -> None:
    with socket.create_connection(("127.0.0.1", front.port), timeout=20) as idle:
        idle.send(b"HEAD / HTTP/1.1\r\n\r\n")
        assert idle.recv(1) == b"H"
        front.away()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", front.port), timeout=5)
        while idle.recv(1 << 16):
            pass
    front.back()
    assert plain().read() == BODY


def test_a_client_may_speak_tls_to_the_front(server: Server, shared: Front, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with Front(f"{server.host}:{server.port}", tls=(certificate, key)) as front:
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
        s3 = boto3.client("s3", endpoint_url=front.url, verify=str(certificate), **keys)
        assert s3.get_object(Bucket="wire", Key="body")["Body"].read() == BODY
        assert front.counts()["GET"].sent == len(BODY)

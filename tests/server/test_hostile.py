"""Clients that mean harm, or are ill: the server answers or closes, stays small, and touches nothing outside its folder."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.serving import Server, exchange, served
from tests.server.test_operation import wait_until

pytestmark = pytest.mark.slow

MiB = 1024 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    config = folder / "config.yaml"
    config.write_text("limits:\n  silence: 1s\n")
    with served(folder, "--config", config) as server:
        yield server


def memory(server: Server) -> int:
    """Bytes that the server's process has in memory."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def is_well(server: Server) -> bool:
    return server.request("GET", "/-/health").status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbroken header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PUT /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
    ],
)
def test_what_is_no_request_is_refused_or_cut_off(server: Server, raw: bytes) -> None:
    answer = server.say(raw)
    assert not answer or answer.startswith(b"HTTP/1.")
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert not answer or b"\r\nContent-Type: application/xml\r\n" in answer
    assert is_well(server)


def test_what_is_no_request_gets_a_document_and_a_line_in_the_log(server: Server) -> None:
    answer = server.say(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    number = body.partition(b"<RequestId>")[2].partition(b"</RequestId>")[0].decode()
    assert body.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>BadRequest</Code>')
    assert f"x-amz-request-id: {number}".encode() in head
    assert b"\r\nConnection: close" in head
    wait_until(lambda: any(line.get("request_id") == number and line["status"] == 400 for line in server.lines()), "its line")


def test_a_client_that_expects_100_hears_it_or_loses_its_connection(server: Server, bucket: str) -> None:
    ask = "PUT /{}/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
    with server.connect() as channel:
        channel.sendall(ask.format(bucket).encode())
        assert channel.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    refused = server.say(ask.format("no-such-bucket").encode())
    assert refused.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nConnection: close\r\n" in refused


@pytest.mark.parametrize(
    "key",
    ["..", "../../x", "a/../../../x", "%2e%2e/%2e%2e/x", "%00", "a%00b", "%c0%ae%c0%ae/x", "%ff%fe", "%", "%zz", "/", "//x", ".", "%0a"],
)
def test_odd_keys_are_kept_or_refused_and_stay_inside(server: Server, bucket: str, folder: Path, key: str) -> None:
    before = sorted(path.name for path in folder.iterdir())
    answer = server.request("PUT", f"/{bucket}/{key}", b"body")
    assert answer.status in (200, 400), answer
    assert server.request("GET", f"/{bucket}/{key}").status in (200, 400)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert answer.status == 400 or server.request("DELETE", f"/{bucket}/{key}").status == 204


def test_a_key_that_is_too_long_is_refused(server: Server, bucket: str) -> None:
    assert server.request("PUT", f"/{bucket}/" + "a" * 1024, b"").status == 200
    assert server.request("PUT", f"/{bucket}/" + "a" * 1025, b"").code == "KeyTooLongError"


@pytest.mark.parametrize(
    "document",
    [
        b'<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>',
        b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&x;</Key></Object></Delete>',
        b"<Delete>" * 5000,
        b"<Delete><Object></Delete>",
        b"\x00\xff\xfe",
        b"",
    ],
)
def test_harmful_documents_are_malformed(server: Server, bucket: str, document: bytes) -> None:
    digest = base64.b64encode(hashlib.md5(document).digest()).decode()
    answer = server.request("POST", f"/{bucket}?delete", document, {"Content-MD5": digest})
    assert (answer.status, answer.code) == (400, "MalformedXML") or (not document and answer.code == "MissingRequestBodyError")
    assert b"root:" not in answer.body


def test_a_document_of_a_hundred_megabytes_is_not_taken_into_memory(server: Server, bucket: str) -> None:
    before = memory(server)
    head = f"POST /{bucket}?delete HTTP/1.1\r\nHost: x\r\nContent-Length: {100 * MiB}\r\n\r\n".encode()
    answer = server.say(head + b"<Delete>" + b" " * (100 * MiB - 8))
    assert not answer or answer.startswith(b"HTTP/1.1 400")
    assert memory(server) - before < 32 * MiB
    assert is_well(server)


def test_a_body_that_ends_early_leaves_nothing(server: Server, bucket: str) -> None:
    for size in (100, 3 * MiB):
        with server.connect() as channel:
            channel.sendall(f"PUT /{bucket}/half HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * size}\r\n\r\n".encode() + bytes(size))
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert server.request("GET", f"/{bucket}/half").status == 404
    wait_until(lambda: b"in_flight 1\n" in server.request("GET", "/-/metrics").body, "the uploads to be given up")
    assert [path for path in server.data.glob("staging/*/*") if path.stat().st_size] == []


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"PUT /bucket/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123"],
)
def test_who_says_nothing_more_is_disconnected(server: Server, said: bytes) -> None:
    with server.connect() as channel:
        exchange(channel, said)  # returns when the server closes
    assert is_well(server)


def test_ten_thousand_connections_that_ask_nothing_keep_nobody_out(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, (hard if hard != resource.RLIM_INFINITY else 20_000) - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 400), hard))
    try:
        with served(tmp_path) as server, contextlib.ExitStack() as open_ones:
            before = memory(server)
            for _ in range(count):
                open_ones.enter_context(server.connect())
            assert is_well(server)
            assert memory(server) - before < 150 * MiB
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clients_that_hang_up_in_mid_answer_are_no_defects(server: Server, bucket: str) -> None:
    """A defect that is logged fails the module's last test, as `served` looks for them."""
    assert server.request("PUT", f"/{bucket}/big", os.urandom(24 * MiB)).status == 200
    for read in (10, MiB, 7 * MiB, 8 * MiB, 9 * MiB):
        with server.connect() as channel:
            channel.sendall(f"GET /{bucket}/big HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = 0
            while received < read:
                received += len(channel.recv(min(65536, read - received)))
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    wait_until(lambda: b"in_flight 1\n" in server.request("GET", "/-/metrics").body, "the answers to be given up")
    assert not [line for line in server.lines() if line["level"] == "error"]


def test_a_client_that_does_not_read_does_not_fill_memory(server: Server, bucket: str) -> None:
    body = os.urandom(64 * MiB)
    assert server.request("PUT", f"/{bucket}/big", body).status == 200
    before = memory(server)
    with contextlib.ExitStack() as open_ones:
        for _ in range(20):
            channel = open_ones.enter_context(server.connect())
            channel.sendall(f"GET /{bucket}/big HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert channel.recv(10)
        assert is_well(server)
        assert memory(server) - before < 64 * MiB

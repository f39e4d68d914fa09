"""The least that a client can do: ranged GETs of 8 MiB, or parts as large, on a few connections, with buffers that are used again.

python -m tests.bench.bare_loop read|write PORT TARGET SIZE CONNECTIONS      prints seconds, and seconds of CPU
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection

RANGE = 8 * 1024 * 1024

Span = tuple[int, int]


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def head_of(connection: socket.socket, status: bytes) -> tuple[bytes, bytes]:
    """An answer's head, and what came along of its body."""
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(4096)
        assert received, "the server closed before it answered"
        head += received
    head, _, body = head.partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == status, head
    return head, body


def fetch(port: int, target: str, spans: list[Span]) -> None:
    buffer = memoryview(bytearray(RANGE))
    with connect(port) as connection:
        for start, end in spans:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nRange: bytes={start}-{end - 1}\r\n\r\n".encode())
            filled = len(head_of(connection, b"206")[1])
            while filled < end - start:
                received = connection.recv_into(buffer[filled : end - start])
                assert received, "the server closed in mid-body"
                filled += received


def send(port: int, target: str, spans: list[Span], etags: dict[int, str]) -> None:
    """Part after part, each of other bytes; *target* ends with its part number's parameter."""
    buffer = memoryview(bytearray(os.urandom(RANGE)))
    with connect(port) as connection:
        for start, end in spans:
            number = start // RANGE + 1
            buffer[:8] = start.to_bytes(8, "big")
            length = end - start
            connection.sendall(f"PUT {target}{number} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\n\r\n".encode())
            connection.sendall(buffer[:length])
            etags[number] = re.findall(r"(?im)^etag: *(\S+)", head_of(connection, b"200")[0].decode())[0]


def ask(port: int, target: str, body: str = "") -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", target, body)
        answer = connection.getresponse()
        said = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 200, said
    return said


def at_once(shares: list[list[Span]], work: Callable[[list[Span]], None]) -> None:
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def read(port: int, target: str, shares: list[list[Span]]) -> None:
    at_once(shares, lambda share: fetch(port, target, share))


def write(port: int, target: str, shares: list[list[Span]]) -> None:
    upload = re.findall(r"<UploadId>([^<]+)<", ask(port, f"{target}?uploads"))[0]
    etags: dict[int, str] = {}
    at_once(shares, lambda share: send(port, f"{target}?uploadId={upload}&partNumber=", share, etags))
    parts = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in sorted(etags.items()))
    said = ask(port, f"{target}?uploadId={upload}", f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
    assert "<ETag>" in said, said


def main(verb: str, port: int, target: str, size: int, connections: int) -> None:
    spans = [(start, min(start + RANGE, size)) for start in range(0, size, RANGE)]
    shares = [spans[number::connections] for number in range(connections)]
    began, used = time.perf_counter(), time.process_time()
    {"read": read, "write": write}[verb](port, target, shares)
    sys.stdout.write(f"{time.perf_counter() - began} {time.process_time() - used}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))

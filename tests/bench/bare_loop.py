"""The least that a client can do: ranged GETs of 8 MiB on a few connections, received into buffers that are used again.

python -m tests.bench.bare_loop PORT TARGET SIZE CONNECTIONS      prints seconds, and seconds of CPU
"""

from __future__ import annotations

import socket
import sys
import threading
import time

RANGE = 8 * 1024 * 1024


def fetch(port: int, target: str, spans: list[tuple[int, int]]) -> None:
    buffer = memoryview(bytearray(RANGE))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in spans:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nRange: bytes={start}-{end - 1}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            head, _, body = head.partition(b"\r\n\r\n")
            assert head.split(b" ", 2)[1] == b"206", head
            filled = len(body)
            while filled < end - start:
                received = connection.recv_into(buffer[filled : end - start])
                assert received, "the server closed in mid-body"
                filled += received


def main(port: int, target: str, size: int, connections: int) -> None:
    spans = [(start, min(start + RANGE, size)) for start in range(0, size, RANGE)]
    threads = [threading.Thread(target=fetch, args=(port, target, spans[number::connections])) for number in range(connections)]
    began, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{time.perf_counter() - began} {time.process_time() - used}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

"""Figures of `s3mount serve` beside `rclone serve s3` and moto's server, on the same disk, over loopback: prints, asserts nothing.

python tests/bench/bench_server.py [folder, default a temporary one]        BENCH_SCALE=0.05 for a taste, BENCH_SERVERS="s3mount moto"
s3mount-2 is `serve --workers 2`; of several processes the memory at peak is the sum.

The client is a socket and a prepared request, so that the server is measured; it runs on the same processors all the same. Only s3mount
syncs before it answers. No signature is verified (moto wants to see one).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCALE = float(os.environ.get("BENCH_SCALE", "1"))
MiB = 1024 * 1024
LARGE = max(64 * MiB, int(1024 * MiB * SCALE) // MiB * MiB)
PART = 16 * MiB if SCALE < 0.25 else 64 * MiB
SMALL = os.urandom(10 * 1024)
REQUESTS = max(100, int(2000 * SCALE))
KEYS = max(1000, int(10_000 * SCALE))
UPLOADS, UPLOAD_BYTES = max(10, int(100 * SCALE)), 64 * MiB
BLOCK = os.urandom(4 * MiB)
START_SECONDS = 60


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret"}


@dataclass(frozen=True, slots=True)
class Contender:
    """`command` is told the folder and the port."""

    name: str
    command: Callable[[Path, int], list[str]]


def contenders() -> list[Contender]:
    python = sys.executable

    def serve(workers: int) -> Callable[[Path, int], list[str]]:
        options = ["--workers", f"{workers}"]
        return lambda folder, port: [python, "-m", "s3mount", "serve", "--data", f"{folder}", "--listen", f"127.0.0.1:{port}", *options]

    found = [Contender("s3mount", serve(1)), Contender("s3mount-2", serve(2))]
    near = f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if rclone := shutil.which("rclone", path=near):
        found.append(Contender("rclone", lambda folder, port: [rclone, "serve", "s3", f"{folder}", "--addr", f"127.0.0.1:{port}"]))
    if moto := shutil.which("moto_server", path=near):
        found.append(Contender("moto", lambda folder, port: [moto, "-H", "127.0.0.1", "-p", str(port)]))
    return found


class Connection:
    """HTTP/1.1, kept alive, with no more understanding of it than is needed here."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._buffer = memoryview(bytearray(MiB))
        self._open()

    def _open(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def put(self, target: str, size: int, blocks: Sequence[bytes]) -> tuple[int, bytes, bytes]:
        self._socket.sendall(self._head("PUT", target, size) + (blocks[0] if size <= len(SMALL) else b""))
        if size > len(SMALL):
            for at in range(0, size, len(blocks[0])):
                self._socket.sendall(memoryview(blocks[0])[: min(len(blocks[0]), size - at)])
        return self._answer()

    def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes, bytes]:
        self._socket.sendall(self._head(method, target, len(body)) + body)
        return self._answer()

    def _head(self, method: str, target: str, size: int) -> bytes:
        named = f"Host: 127.0.0.1:{self._port}\r\nAuthorization: AWS bench:bench\r\n"
        return f"{method} {target} HTTP/1.1\r\n{named}Content-Length: {size}\r\n\r\n".encode()

    def _answer(self) -> tuple[int, bytes, bytes]:
        answer = self._receive()
        if b"\r\nconnection: close" in answer[1].lower():
            self._socket.close()
            self._open()
        return answer

    def _receive(self) -> tuple[int, bytes, bytes]:
        """Status, head, body; of a body over a MiB only the beginning."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        status, lower = int(head.split(b" ", 2)[1]), head.lower()
        if b"transfer-encoding: chunked" in lower:
            while not body.endswith(b"0\r\n\r\n"):
                body += self._more()
            return status, head, body
        length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        left = length - len(body)
        while left > 0:
            count = self._socket.recv_into(self._buffer, min(left, len(self._buffer)))
            if not count:
                raise ConnectionError("the server closed in mid-answer")
            if length <= MiB:
                body += self._buffer[:count]
            left -= count
        return status, head, body

    def _more(self) -> bytes:
        more = self._socket.recv(65536)
        if not more:
            raise ConnectionError("the server closed")
        return more


class Bench:
    """All rows of one contender."""

    def __init__(self, port: int, pid: int) -> None:
        self._port = port
        self._pid = pid
        self.rows: dict[str, str] = {}

    def run(self) -> None:
        first = Connection(self._port)
        status, _, _ = first.ask("PUT", "/bench")
        assert status == 200, status
        self._large(first)
        self._multipart(first)
        for clients in (1, 32):
            self._small(clients)
        self._list(first)
        self._uploads()
        first.close()

    def _large(self, connection: Connection) -> None:
        seconds = timed(lambda: expect(connection.put("/bench/large", LARGE, [BLOCK])))
        self.rows[f"PUT {LARGE // MiB} MiB, MB/s"] = f"{LARGE / seconds / 1e6:,.0f}"
        seconds = timed(lambda: expect(connection.ask("GET", "/bench/large")))
        self.rows[f"GET {LARGE // MiB} MiB, MB/s"] = f"{LARGE / seconds / 1e6:,.0f}"

    def _multipart(self, connection: Connection) -> None:
        def whole() -> None:
            _, _, body = connection.ask("POST", "/bench/parts?uploads")
            upload = body.partition(b"<UploadId>")[2].partition(b"</UploadId>")[0].decode()
            tags: dict[int, str] = {}

            def send(number: int) -> None:
                own = Connection(self._port)
                _, head, _ = expect(own.put(f"/bench/parts?partNumber={number}&uploadId={upload}", PART, [BLOCK]))
                tags[number] = head.lower().partition(b"\r\netag:")[2].partition(b"\r\n")[0].strip().decode()
                own.close()

            together(4, send, range(1, LARGE // PART + 1))
            parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{tags[n]}</ETag></Part>" for n in sorted(tags))
            document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
            expect(connection.ask("POST", f"/bench/parts?uploadId={upload}", document))

        self.rows[f"PUT {LARGE // MiB} MiB in parts, MB/s"] = f"{LARGE / timed(whole) / 1e6:,.0f}"

    def _small(self, clients: int) -> None:
        for method in ("PUT", "GET"):
            times: list[float] = []

            def client(number: int, method: str = method, times: list[float] = times) -> None:
                own = Connection(self._port)
                for count in range(REQUESTS // clients):
                    target = f"/bench/small/{clients}/{number}/{count}"
                    begun = time.perf_counter()
                    expect(own.put(target, len(SMALL), [SMALL]) if method == "PUT" else own.ask("GET", target))
                    times.append(time.perf_counter() - begun)
                own.close()

            seconds = timed(lambda client=client: together(clients, client, range(clients)))  # type: ignore[misc]
            p50, p99 = statistics.median(times) * 1000, sorted(times)[int(len(times) * 0.99)] * 1000
            self.rows[f"{method} 10 KiB, {clients} clients, p50 / p99 ms (per s)"] = f"{p50:.1f} / {p99:.1f} ({len(times) / seconds:,.0f})"

    def _list(self, connection: Connection) -> None:
        def fill(number: int) -> None:
            own = Connection(self._port)
            for count in range(number, KEYS, 16):
                expect(own.put(f"/bench/list/{count:06}", 1, [b"x"]))
            own.close()

        together(16, fill, range(16))

        def walk() -> int:
            after, found = "", 0
            while True:
                _, _, body = expect(connection.ask("GET", f"/bench?list-type=2&prefix=list/&start-after={after}"))
                keys = body.split(b"<Key>")[1:]
                found += len(keys)
                if b"<IsTruncated>true" not in body or not keys:
                    return found
                after = keys[-1].partition(b"<")[0].decode()

        begun = time.perf_counter()
        found = walk()
        seconds = time.perf_counter() - begun
        self.rows[f"list {KEYS:,} keys, ms"] = f"{seconds * 1000:,.0f}" + (f" (found {found:,})" if found != KEYS else "")

    def _uploads(self) -> None:
        def send(number: int) -> None:
            own = Connection(self._port)
            expect(own.put(f"/bench/upload/{number}", UPLOAD_BYTES, [BLOCK]))
            own.close()

        seconds = timed(lambda: together(UPLOADS, send, range(UPLOADS)))
        self.rows[f"{UPLOADS} uploads of 64 MiB at once, MB/s"] = f"{UPLOADS * UPLOAD_BYTES / seconds / 1e6:,.0f}"
        self.rows["memory at peak, MiB"] = f"{sum(map(peak_kib, family(self._pid))) / 1024:,.0f}"


def family(pid: int) -> list[int]:
    """A process and those that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def peak_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0])


def expect(answer: tuple[int, bytes, bytes]) -> tuple[int, bytes, bytes]:
    assert answer[0] == 200, answer
    return answer


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def together(threads: int, work: Callable[[int], None], numbers: Sequence[int]) -> None:
    """Each of *numbers* once, in *threads*; the first failure is raised."""
    waiting = list(reversed(numbers))
    failures: list[Exception] = []

    def run() -> None:
        while not failures:
            try:
                number = waiting.pop()
            except IndexError:
                return
            try:
                work(number)
            except Exception as error:
                failures.append(error)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def measure(contender: Contender, folder: Path) -> dict[str, str]:
    port = free_port()
    folder.mkdir(parents=True)
    with (folder.parent / f"{contender.name}.log").open("wb") as said:
        process = subprocess.Popen(contender.command(folder, port), stdout=said, stderr=said, env=environment())
    try:
        wait_for(port)
        bench = Bench(port, process.pid)
        try:
            bench.run()
        except (AssertionError, OSError) as error:
            bench.rows["gave up"] = f"{type(error).__name__}: {error}"[:60]
        return bench.rows
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def main(folder: Path) -> None:
    wanted = os.environ.get("BENCH_SERVERS", "s3mount s3mount-2 rclone moto").split()
    table = {each.name: measure(each, folder / each.name) for each in contenders() if each.name in wanted}
    names = dict.fromkeys(row for rows in table.values() for row in rows)
    sys.stdout.write(f"{'':<48}" + "".join(f"{name:>24}" for name in table) + "\n")
    for row in names:
        sys.stdout.write(f"{row:<48}" + "".join(f"{rows.get(row, '-'):>24}" for rows in table.values()) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="s3mount-bench-", dir=ROOT) as temporary:
            main(Path(temporary))

"""The lean lane beside aiobotocore and beside a bare loop of recv_into, over `s3mount serve`: prints, asserts nothing.

python tests/bench/bench_lane.py        BENCH_SCALE=0.25 for a taste, BENCH_TLS=0 without TLS

Ranges of 8 MiB on 8 connections, each way in this one process, whose CPU time is counted; the server runs on the same processors. CPU
seconds per GiB are what to compare: seconds are noise where others work. Each figure is the best of `ROUNDS`.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from aiobotocore.config import AioConfig
from aiobotocore.httpxsession import HttpxSession
from aiobotocore.session import AioSession

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from s3mount.model import ByteRange, Key, MiB  # noqa: E402
from s3mount.store.s3.lean.lane import Lane  # noqa: E402
from s3mount.store.s3.lean.listing import parse_listing  # noqa: E402
from s3mount.store.s3.options import S3Options  # noqa: E402

SCALE = float(os.environ.get("BENCH_SCALE", "1"))
SPAN, TASKS, ROUNDS = 8 * MiB, 8, 3
LARGE = max(64 * MiB, int(512 * MiB * SCALE) // SPAN * SPAN)
SMALL, SMALLS = 30_000, max(50, int(1000 * SCALE))
KEYS = 1000
KEY = Key("large.bin")

Fetch = Callable[[ByteRange, memoryview], Awaitable[object]]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def note(what: str, seconds: float, cpu: float, size: int) -> None:
    gib = size / (1024 * MiB)
    say(f"  {what:<44} {gib * 1.0737 / seconds:6.2f} GB/s  {cpu / gib:6.2f} CPU s per GiB")


async def ranges(fetch: Fetch) -> tuple[float, float]:
    """Seconds and CPU seconds for the large object."""
    starts = iter(range(0, LARGE, SPAN))
    buffers = [memoryview(bytearray(SPAN)) for _ in range(TASKS)]

    async def work(buffer: memoryview) -> None:
        for start in starts:
            await fetch(ByteRange(start, start + SPAN), buffer)

    began, used = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for buffer in buffers:
            nursery.start_soon(work, buffer)
    return time.perf_counter() - began, time.process_time() - used


async def best(fetch: Fetch) -> tuple[float, float]:
    found = [await ranges(fetch) for _ in range(ROUNDS)]
    return min(seconds for seconds, _ in found), min(cpu for _, cpu in found)


class Bare:
    """Requests made beforehand, on connections that are kept, straight into the buffer: what no client can beat."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self._port, self._tls = port, tls
        self._idle: list[socket.socket] = []

    async def __call__(self, span: ByteRange, buffer: memoryview) -> None:
        channel = self._idle.pop() if self._idle else self._connect()
        asked = f"GET /bench/{KEY} HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes={span.start}-{span.stop - 1}\r\n\r\n"
        channel.send(asked.encode())
        head = bytearray()
        while b"\r\n\r\n" not in head:
            await trio.lowlevel.wait_readable(channel)
            head += self._some(channel)
        early = bytes(head).partition(b"\r\n\r\n")[2]
        buffer[: len(early)] = early
        done = len(early)
        while done < len(buffer):
            try:
                done += channel.recv_into(buffer[done:])
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(channel)
        self._idle.append(channel)

    def _some(self, channel: socket.socket) -> bytes:
        try:
            return channel.recv(2048)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""

    def _connect(self) -> socket.socket:
        channel = socket.create_connection(("127.0.0.1", self._port))
        if self._tls is not None:
            channel = self._tls.wrap_socket(channel, server_hostname="127.0.0.1")
        channel.setblocking(False)
        return channel

    def close(self) -> None:
        for channel in self._idle:
            channel.close()


def through(client: Any) -> Fetch:
    """aiobotocore, as a program would use it."""

    async def fetch(span: ByteRange, buffer: memoryview) -> None:
        answer = await client.get_object(Bucket="bench", Key=KEY, Range=f"bytes={span.start}-{span.stop - 1}")
        done = 0
        async with answer["Body"] as body:
            async for portion in body.iter_chunks(1024 * 1024):
                buffer[done : done + len(portion)] = portion
                done += len(portion)

    return fetch


@asynccontextmanager
async def serving(folder: Path, *, tls: bool) -> AsyncIterator[tuple[int, Path | None]]:
    """The port of a server in a process of its own, and its certificate."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    options: list[str] = []
    if tls:
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
        await trio.run_process([*make, *named], capture_stdout=True, capture_stderr=True)
        options = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    command = [sys.executable, "-m", "s3mount", "serve", "--data", str(folder / "data"), "--listen", "127.0.0.1:0", *options]
    process = start(command)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().decode().rpartition(":")[2].strip(" /\n")), certificate if tls else None
    finally:
        process.terminate()
        process.wait()


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})


async def fill(client: Any) -> None:
    await client.create_bucket(Bucket="bench")
    await client.put_object(Bucket="bench", Key=KEY, Body=os.urandom(SPAN) * (LARGE // SPAN))
    body = os.urandom(SMALL)
    for number in range(KEYS):
        await client.put_object(Bucket="bench", Key=f"small/{number:05d}-einst+weilen", Body=body if number < SMALLS else b"")


async def smalls(lane: Lane, client: Any) -> None:
    """One object of 30 KB after the other, eight at a time."""
    buffers = [memoryview(bytearray(SMALL)) for _ in range(TASKS)]

    async def lean(number: int, buffer: memoryview) -> None:
        await lane.get_into(Key(f"small/{number:05d}-einst+weilen"), ByteRange(0, SMALL), buffer)

    async def usual(number: int, buffer: memoryview) -> None:
        answer = await client.get_object(Bucket="bench", Key=f"small/{number:05d}-einst+weilen", Range=f"bytes=0-{SMALL - 1}")
        async with answer["Body"] as body:
            buffer[:] = await body.read()

    for what, fetch in (("lean lane", lean), ("aiobotocore", usual)):
        numbers = iter(range(SMALLS))

        async def work(buffer: memoryview, fetch: Any = fetch, numbers: Any = numbers) -> None:
            for number in numbers:
                await fetch(number, buffer)

        began, used = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for buffer in buffers:
                nursery.start_soon(work, buffer)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        say(f"  {f'{SMALL // 1000} KB objects, {what}':<44} {SMALLS / seconds:6.0f} per second  {cpu / SMALLS * 1e3:6.2f} CPU ms each")


async def cpu_ms(times: int, ask: Callable[[], Awaitable[object]]) -> float:
    """Of the cheapest of *times*, in milliseconds."""
    used = []
    for _ in range(times):
        before = time.process_time()
        await ask()
        used.append(time.process_time() - before)
    return min(used) * 1e3


async def looks(lane: Lane, client: Any, document: bytes) -> None:
    """HEADs and pages."""
    where = {"Bucket": "bench", "Prefix": "small/", "Delimiter": "/", "MaxKeys": KEYS}

    async def parse() -> None:
        parse_listing(document)

    for what, times, ask in (
        ("HEAD, lean lane", 200, lambda: lane.head(KEY)),
        ("HEAD, aiobotocore", 200, lambda: client.head_object(Bucket="bench", Key=KEY)),
        (f"page of {KEYS} keys, lean lane", 20, lambda: lane.list("small/", delimiter="/")),
        (f"page of {KEYS} keys, aiobotocore", 10, lambda: client.list_objects_v2(**where)),
        ("of which the lane parses", 20, parse),
    ):
        say(f"  {what:<44} {await cpu_ms(times, ask):6.2f} CPU ms")


async def document(port: int, tls: ssl.SSLContext | None) -> bytes:
    """A page as the server writes it."""
    import http.client

    def ask() -> bytes:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls) if tls else http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/bench?list-type=2&encoding-type=url&prefix=small%2F&delimiter=%2F")
            return connection.getresponse().read()
        finally:
            connection.close()

    return await trio.to_thread.run_sync(ask)


async def measure(folder: Path, *, tls: bool) -> None:
    async with serving(folder, tls=tls) as (port, certificate):
        scheme, authority = ("https" if tls else "http"), None if certificate is None else str(certificate)
        context = ssl.create_default_context(cafile=authority) if tls else None
        session = AioSession()
        session.set_credentials("bench", "bench-secret")
        config = AioConfig(http_session_cls=HttpxSession, retries={"max_attempts": 0, "mode": "standard"}, max_pool_connections=16)
        where = f"{scheme}://127.0.0.1:{port}"
        async with session.create_client("s3", endpoint_url=where, region_name="us-east-1", config=config, verify=authority) as client:
            await fill(client)
            lane = Lane(client, "bench", await session.get_credentials(), S3Options(), ca_bundle=authority)
            bare = Bare(port, context)
            say(f"{scheme}, {LARGE // MiB} MiB in ranges of {SPAN // MiB} MiB, {TASKS} at a time")
            for what, fetch in (
                ("bare loop of recv_into", bare),
                ("lean lane", lambda span, buffer: lane.get_into(KEY, span, buffer)),
                ("aiobotocore on trio", through(client)),
            ):
                note(what, *await best(fetch), LARGE)
            await smalls(lane, client)
            await looks(lane, client, await document(port, context))
            bare.close()
            await lane.aclose()


async def main() -> None:
    for tls in (False, True) if os.environ.get("BENCH_TLS", "1") == "1" else (False,):
        with tempfile.TemporaryDirectory(prefix="bench-lane-") as folder:
            await measure(Path(folder), tls=tls)


if __name__ == "__main__":
    trio.run(main)

"""A slow, counting, faulty front before a real S3 server: what a test or a measurement holds in its hand.

Owns: starting the front's process, telling it what to do, asking it what it saw.
Must not know: how it is done (tests/wire/proxy.py), which server stands behind.

    with Front("127.0.0.1:9000", latency_s=0.030, rate=90e6) as front:
        ... clients of front.url ...
        front.counts()["LIST"].requests

- Any S3 server may stand behind, any client before it, over HTTP/1.1, in path style. Host is passed on as the client sent it:
  signatures stay valid, and the server needs no setting for it. With `tls` (certificate and key file) clients speak TLS to the front; the
  server never.
- `latency_s`: seconds from a request's last byte to the first of its answer, at least (30 ms is a usual S3). `rate`: bytes per second of
  each connection, in each direction (90e6 is a usual S3). Both may be changed at any time by `set`. Without them the front passes more
  than the server can give, at a quarter second of CPU per GiB.
- `counts()`: by kind of request (tests/wire/heads.py names them: GET GET-range HEAD LIST PUT UploadPart UploadPartCopy CreateUpload
  Complete Abort COPY DELETE DeleteObjects HEAD-bucket other ...; "all" sums up): requests, bytes of bodies received and sent, the greatest
  number under way at once, statuses, faults. `entries()`: every request with its times. `reset()` begins both anew.
- `spoil(rule, ...)`: from now on these rules of tests/wire/faults.py hold, instead of those before; without any, all is well again.
- `away()`: connection refused, and open connections break; `back()`: it listens again, on the same port. `drop()`: connections break once.

`upstream` is the server's own URL, for whoever is to be quick and well all the same.
The process ends with `close()`, with the process that made it, and never survives either.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.wire.faults import Rule

CLONE = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Counted:
    """What came of one kind of request; `received` and `sent` are bytes of bodies, seen from the server's side."""

    requests: int = 0
    received: int = 0
    sent: int = 0
    under_way: int = 0
    peak: int = 0
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    faults: dict[str, int] = dataclasses.field(default_factory=dict)


class Counts(dict[str, Counted]):
    """By kind; a kind that never came counts nothing. `connections` is how many were accepted since the start."""

    connections = 0

    def __missing__(self, kind: str) -> Counted:
        return Counted()

    @property
    def total(self) -> int:
        return self["all"].requests

    def __str__(self) -> str:
        """As in `GET-range 128, LIST 3`."""
        kinds = sorted(((kind, counted.requests) for kind, counted in self.items() if kind != "all"), key=lambda item: -item[1])
        return ", ".join(f"{kind} {requests}" for kind, requests in kinds) or "none"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request. Times are of time.monotonic() in any process of this machine.

    `asked` is when the request was whole, `first` when the first byte of the answer went out; `span` is its Range header.
    """

    kind: str
    method: str
    target: str
    span: str
    connection: int
    began: float
    asked: float
    first: float
    ended: float
    received: int
    sent: int
    status: int
    fault: str


class Front:
    """A front before *upstream* ("host:port"), in a process of its own, from now until `close`."""

    def __init__(
        self, upstream: str, *, latency_s: float = 0.0, rate: float = 0.0, tls: tuple[Path, Path] | None = None, port: int = 0
    ) -> None:
        command = [sys.executable, "-m", "tests.wire.proxy", "--upstream", upstream.removeprefix("http://"), "--port", str(port)]
        command += ["--latency", str(latency_s), "--rate", str(rate)]
        if tls:
            command += ["--tls-cert", str(tls[0]), "--tls-key", str(tls[1])]
        self.process = subprocess.Popen(
            command, cwd=CLONE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.upstream = f"http://{upstream.removeprefix('http://')}"
        self._lock = threading.Lock()
        self.port = int(self._answer()["port"])
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.address}"

    def __enter__(self) -> Front:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the front is gone")
        return json.loads(line)

    def _do(self, command: str, **more: Any) -> Any:
        with self._lock:
            assert self.process.stdin
            self.process.stdin.write(json.dumps({"do": command, **more}) + "\n")
            self.process.stdin.flush()
            answer = self._answer()
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer["done"]

    def set(self, *, latency_s: float | None = None, rate: float | None = None) -> None:
        """Change either; None leaves it."""
        given = {"latency_s": latency_s, "rate": rate}
        self._do("set", **{name: value for name, value in given.items() if value is not None})

    def spoil(self, *rules: Rule) -> None:
        """These rules hold from the next request on, and none of those before."""
        self._do("rules", rules=[dataclasses.asdict(rule) for rule in rules])

    def counts(self) -> Counts:
        said = self._do("counts")
        connections = said.pop("connections")
        counts = Counts({kind: Counted(**value) for kind, value in said.items()})
        counts.connections = connections["accepted"]
        return counts

    def entries(self) -> list[Seen]:
        """In the order in which they began; the first 100 000 since the last reset."""
        return [Seen(**value) for value in self._do("entries")]

    def reset(self) -> None:
        """Count anew. What is under way belongs to the time before."""
        self._do("reset")

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """What the body of the `with` caused; the value fills at its end."""
        self.reset()
        counts = Counts()
        try:
            yield counts
        finally:
            seen = self.counts()
            counts.update(seen)
            counts.connections = seen.connections

    def away(self) -> None:
        self._do("away")

    def back(self) -> None:
        self._do("back")

    def drop(self) -> None:
        self._do("drop")

"""What the server counts: one row of numbers per worker, in memory that all workers share.

Owns: which numbers there are, where each lies, Prometheus' text.
Must not know: requests, when anything is counted.

Each worker writes its own row and nobody else's; whoever is asked adds the rows up. So any worker answers for all of them, and what a
worker that died had counted stays. Numbers are doubles: written in one store, exact for integers up to 2**53.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterator, Mapping

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "other")
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

# Seconds: from an answer out of memory to a body of gigabytes.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

COUNTERS: Mapping[str, str] = {
    "received_bytes_total": "Bytes received, headers included.",
    "sent_bytes_total": "Bytes of bodies sent.",
    "sweeps_total": "Sweeps of leftovers that ended.",
    "aborted_uploads_total": "Multipart uploads aborted because nobody went on with them.",
    "scrubbed_bytes_total": "Bytes whose hash was verified.",
    "damages_total": "Damages that scrubs found.",
}
GAUGES: Mapping[str, str] = {
    "requests_in_flight": "Requests under way.",
    "connections": "Connections that are open.",
}

PLACES: Mapping[str, int] = {
    name: place
    for place, name in enumerate(
        [
            *COUNTERS,
            *GAUGES,
            *(f"{method} {status}" for method in METHODS for status in CLASSES),
            *(f"bucket {bound}" for bound in BUCKETS),
            "requests",
            "seconds",
        ]
    )
}

# Each request is counted under the least bound that holds it; Prometheus' counts, of all below a bound, are made when somebody asks.
_BUCKET_NAMES = tuple(f"bucket {bound}" for bound in BUCKETS)

PREFIX = "s3mount_"


class Board:
    """Numbers of *workers* rows, shared with every process forked afterwards."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, workers * len(PLACES) * 8)
        self._numbers: memoryview[float] = memoryview(self._memory).cast("d")
        self._workers = workers

    def row(self, worker: int) -> Row:
        """The row of one worker, which may have died and come back: its gauges begin anew."""
        row = Row(self._numbers[worker * len(PLACES) : (worker + 1) * len(PLACES)])
        for name in GAUGES:
            row.set(name, 0)
        return row

    def total(self, name: str) -> float:
        return sum(self._numbers[PLACES[name] :: len(PLACES)])


class Row:
    """One worker's numbers; only its event loop's thread, or one thread per number, writes."""

    def __init__(self, numbers: memoryview[float]) -> None:
        self._numbers = numbers

    def add(self, name: str, amount: float = 1) -> None:
        self._numbers[PLACES[name]] += amount

    def set(self, name: str, value: float) -> None:
        self._numbers[PLACES[name]] = value

    def get(self, name: str) -> float:
        return float(self._numbers[PLACES[name]])

    def count_request(self, method: str, status: int, seconds: float) -> None:
        self.add(f"{method if method in METHODS else 'other'} {min(max(status // 100, 1), 5)}xx")
        self.add("requests")
        self.add("seconds", seconds)
        place = bisect_left(BUCKETS, seconds)
        if place < len(BUCKETS):
            self.add(_BUCKET_NAMES[place])


def exposition(board: Board, extra: Mapping[str, tuple[str, float]]) -> str:
    """Prometheus' text format, version 0.0.4. *extra*: further gauges, as name -> (help, value)."""
    return "".join(line + "\n" for line in _lines(board, extra))


def _lines(board: Board, extra: Mapping[str, tuple[str, float]]) -> Iterator[str]:
    yield from _head("requests_total", "counter", "Requests answered, by method and status.")
    for method in METHODS:
        for status in CLASSES:
            if value := board.total(f"{method} {status}"):
                yield f'{PREFIX}requests_total{{method="{method}",status="{status}"}} {_number(value)}'
    yield from _head("request_seconds", "histogram", "Time from a request's headers to the end of its answer.")
    below = 0.0
    for bound in BUCKETS:
        below += board.total(f"bucket {bound}")
        yield f'{PREFIX}request_seconds_bucket{{le="{bound}"}} {_number(below)}'
    yield f'{PREFIX}request_seconds_bucket{{le="+Inf"}} {_number(board.total("requests"))}'
    yield f"{PREFIX}request_seconds_sum {_number(board.total('seconds'))}"
    yield f"{PREFIX}request_seconds_count {_number(board.total('requests'))}"
    for names, kind in ((COUNTERS, "counter"), (GAUGES, "gauge")):
        for name, meaning in names.items():
            yield from _head(name, kind, meaning)
            yield f"{PREFIX}{name} {_number(board.total(name))}"
    for name, (meaning, value) in extra.items():
        yield from _head(name, "gauge", meaning)
        yield f"{PREFIX}{name} {_number(value)}"


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {meaning}"
    yield f"# TYPE {PREFIX}{name} {kind}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)

"""What went over the wire since the last reset: every request, how often each kind, how many at once.

Owns: the entries and the sums. Thread-safe.
Must not know: sockets, faults.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from tests.wire.heads import Request

# Entries kept one by one; sums go on beyond. A walk over 100 000 keys and a copy of 1000 files fit many times.
ENTRIES = 100_000


class Entry:
    """One request under way or done. Times are of time.monotonic(); bytes are those of bodies, as far as they came."""

    __slots__ = ("asked", "began", "connection", "ended", "fault", "first", "ledger", "received", "request", "sent", "status")

    def __init__(self, ledger: Ledger, request: Request, connection: int) -> None:
        self.ledger = ledger
        self.request = request
        self.connection = connection
        self.began = time.monotonic()
        self.asked = self.first = self.ended = 0.0
        self.received = self.sent = self.status = 0
        self.fault = ""

    def as_value(self) -> dict[str, Any]:
        said = {"kind": self.request.kind, "method": self.request.method, "target": self.request.target, "span": self.request.span}
        names = ("connection", "began", "asked", "first", "ended", "received", "sent", "status", "fault")
        return said | {name: getattr(self, name) for name in names}


class Sums:
    """Of one kind."""

    def __init__(self) -> None:
        self.requests = self.received = self.sent = self.under_way = self.peak = 0
        self.statuses: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def as_value(self) -> dict[str, Any]:
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}


class Ledger:
    """From one reset to the next; a request belongs to the one in which it began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, Sums] = {}
        self._entries: list[Entry] = []
        self._all = Sums()

    def begin(self, request: Request, connection: int) -> Entry:
        entry = Entry(self, request, connection)
        with self._lock:
            for sums in (self._sums.setdefault(request.kind, Sums()), self._all):
                sums.requests += 1
                sums.under_way += 1
                sums.peak = max(sums.peak, sums.under_way)
            if len(self._entries) < ENTRIES:
                self._entries.append(entry)
        return entry

    def end(self, entry: Entry) -> None:
        entry.ended = time.monotonic()
        with self._lock:
            for sums in (self._sums[entry.request.kind], self._all):
                sums.under_way -= 1
                sums.received += entry.received
                sums.sent += entry.sent
                sums.statuses[str(entry.status)] += 1
                if entry.fault:
                    sums.faults[entry.fault] += 1

    def counts(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            return {kind: sums.as_value() for kind, sums in [*sorted(self._sums.items()), ("all", self._all)]}

    def entries(self) -> list[dict[str, Any]]:
        with self._lock:
            return [entry.as_value() for entry in self._entries]

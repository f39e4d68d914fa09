"""Which records this process appended itself: who follows the log passes over them.

Owns: their numbers, as runs.
Must not know: what is in records, who follows.
"""

from __future__ import annotations

import threading

# Runs of records between which others appended something. Whoever follows asks often; beyond, our own pass for others'.
RUNS = 1000


class Own:
    """Thread-safe. Nothing is remembered until `begin`: mostly nobody follows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: list[tuple[int, int]] | None = None

    def begin(self) -> None:
        """From now on remember what `note` says. Idempotent."""
        with self._lock:
            self._runs = self._runs or []

    def note(self, seq: int) -> None:
        """This process appended the record *seq*, and the index has it. Under the write lock."""
        if self._runs is None:
            return
        with self._lock:
            if self._runs and self._runs[-1][1] == seq - 1:
                self._runs[-1] = (self._runs[-1][0], seq)
            else:
                self._runs.append((seq, seq))
                del self._runs[:-RUNS]

    def holds(self, first: int, last: int) -> bool:
        """Whether all records from *first* to *last* are known to be our own."""
        with self._lock:
            return any(begin <= first and last <= end for begin, end in reversed(self._runs or ()))

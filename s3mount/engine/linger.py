"""Removals in a row: their records go to the log one by one, their rows into the index in one transaction that stays open for a moment.

Owns: when a run of removals begins and when it is over, and that it ends in time.
Must not know: operations, what a removal does (`commit`).

A removal by itself costs more in the index's BEGIN and COMMIT than in everything else. In a run:

    none --a removal soon behind another, nobody else has the folder open--> open: lock kept, transaction open, each record in the log
      ^                                                                        |
      +--- COMMIT: `MOST` removals, `SECONDS`, or anybody of this process -----+
           looks into the index or needs the lock

R1  A removal is acknowledged when its record is in the log and its rows are changed in the open transaction: each is decided against all
    those before it. A process that is killed leaves what a crash between append and COMMIT leaves: the next holder of the lock catches up.
R2  While a run is open this process keeps the write lock of the folder, and no other process has the folder open: nobody can see what the
    run did not commit. One that opens the folder waits for the lock, `SECONDS` and `GRACE_SECONDS` at most; there are no runs while it
    stays.
R3  Whoever takes the lock in this process, or looks into the index, has the run committed first (`Index.hidden`). That waits for nobody
    else: the lock is ours already.
R4  A run that cannot be committed is rolled back, the log has it: the index stays `hidden`, and every look has it follow the log or fails.
R5  A durable change never lingers.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from s3mount.engine.lock import WriteLock

# Together they share BEGIN, COMMIT and most of the pages; with more of them next to nothing is gained.
MOST = 64

# How long a run may stay open; also how long somebody who opens the folder waits more than else.
SECONDS = 0.02

# So much later a thread ends the run, if nothing else did: removals that go on end it themselves, and the thread stays out of their way.
GRACE_SECONDS = 0.01


class Linger:
    """The runs of one engine. Under the write lock, but for `close`."""

    def __init__(self, lock: WriteLock, owner_folder: Path) -> None:
        self._lock = lock
        self._owners = owner_folder.parent
        self._until = 0.0
        self._count = 0
        self._last = float("-inf")
        self._begun = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def may_begin(self) -> bool:
        """Whether a removal now is one in a row, and nobody else has the folder open."""
        now = time.monotonic()
        follows, self._last = now < self._last + SECONDS, now
        return follows and len(os.listdir(self._owners)) == 1 and self._is_watched()

    def _is_watched(self) -> bool:
        if self._thread is None and not self._closed.is_set():
            thread = threading.Thread(target=self._end_what_is_left, name="linger", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False  # no more threads: it works without runs
            self._thread = thread
        return self._thread is not None

    def begin(self) -> None:
        self._count = 0
        self._until = time.monotonic() + SECONDS
        self._begun.set()

    def is_over(self) -> bool:
        """Whether the run ends with the removal that was just made."""
        self._count += 1
        self._last = time.monotonic()
        return self._count >= MOST or self._last >= self._until

    def close(self) -> None:
        """What lingers is committed, and nothing lingers any more. Idempotent; without the lock."""
        self._closed.set()
        self._begun.set()
        if self._thread is not None:
            self._thread.join()
        self._lock.settle()

    def _end_what_is_left(self) -> None:
        while not self._closed.is_set():
            self._begun.wait()
            self._begun.clear()
            while (left := self._until + GRACE_SECONDS - time.monotonic()) > 0 and not self._closed.wait(left):
                pass
            self._lock.settle()

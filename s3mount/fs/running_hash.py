"""The hash of a log, taken while its bytes are still hot in the caches.

Owns: the order in which pieces are hashed, and how many may wait for those before them.
Must not know: files, the event loop, who wants the hash.

A store that takes staged files over names them by their BLAKE3 hash. Reading a file back only for that took a third as long again as
writing it. Here each piece is hashed where it was written. Where threads write, whoever finds nobody at it hashes all that follows without
a gap, its neighbours' pieces too; BLAKE3 lets go of the interpreter meanwhile.

H1  `digest` is the hash of the bytes from 0 to the given length, or None where that is not known: it is never a guess.
"""

from __future__ import annotations

import threading

from blake3 import blake3

# Pieces (at most 1 MiB each) that may wait: more than there are threads writing at once. Beyond, the writer waits for the one who hashes.
AHEAD = 16


class RunningHash:
    """Thread-safe. Pieces come in any order; each byte once, and final."""

    def __init__(self) -> None:
        self._hash = blake3()
        self._done = 0
        self._ahead: dict[int, memoryview] = {}
        self._turn = threading.Lock()

    def add(self, position: int, data: memoryview) -> None:
        """The log has *data* from *position* on. What is not of bytes is copied: its owner may use it again."""
        if self._done < 0:
            return
        self._ahead[position] = data if isinstance(data.obj, bytes) else memoryview(bytes(data))
        if self._turn.acquire(blocking=len(self._ahead) > AHEAD):
            try:
                self._follow()
            finally:
                self._turn.release()

    def digest(self, length: int) -> bytes | None:
        """The hash of the first *length* bytes; None unless exactly those were added."""
        with self._turn:
            self._follow()
            return bytes(self._hash.digest()) if self._done == length else None

    def _follow(self) -> None:
        while (data := self._ahead.pop(self._done, None)) is not None:
            self._hash.update(data)
            self._done += len(data)
        if len(self._ahead) > AHEAD:  # a write failed, and what it should have written never comes
            self._done = -1
            self._ahead.clear()

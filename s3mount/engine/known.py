"""Contents with many extents: where their bytes lie is remembered, so that a file edited and read in turn is not walked anew each time.

Owns: which spans are remembered, and taking them from version to version.
Must not know: readers. Compaction may move what is remembered: whoever finds a file gone forgets it and looks again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable

from s3mount.engine import queries
from s3mount.engine.records import Piece
from s3mount.engine.spans import Spans

# Extents that are read in less time than a hop to a thread takes (100 us).
QUICK_SPANS = 64

# Files whose spans are remembered: those being edited in small pieces now. A hundred thousand spans take 20 MiB.
KNOWN_FILES = 8


class KnownSpans:
    """Spans by file and ETag. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._known: OrderedDict[int, tuple[str, Spans]] = OrderedDict()

    def get(self, file: int, etag: str) -> Spans | None:
        with self._mutex:
            known = self._known.get(file)
            return known[1] if known is not None and known[0] == etag else None

    def put(self, file: int, etag: str, spans: Spans) -> None:
        if len(spans) <= QUICK_SPANS:
            return
        with self._mutex:
            self._known[file] = (etag, spans)
            self._known.move_to_end(file)
            while len(self._known) > KNOWN_FILES:
                self._known.popitem(last=False)

    def edit(self, db: sqlite3.Connection, file: int, etags: tuple[str, str], pieces: Iterable[Piece], size: int) -> None:
        """*file* went from one ETag to the other, with *pieces* laid over it: the index knows where these lie."""
        known = self.get(file, etags[0])
        if known is not None:
            new = [span for piece in pieces for span in queries.spans_between(db, file, piece[0], piece[0] + piece[1])]
            self.put(file, etags[1], known.spliced(new, size))

    def forget(self, file: int) -> None:
        with self._mutex:
            self._known.pop(file, None)

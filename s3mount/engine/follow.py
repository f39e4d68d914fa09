"""The log as a feed: what others than this process changed in a bucket.

Owns: how far somebody has followed, and which keys and prefixes a record touches.
Must not know: who asks, what they remember. Takes no lock.

    asked --> the index stands where it stood, or only our own commits moved it:   nothing, for one statement
          --> others moved it: read their records                                  keys and prefixes
          --> their records are gone (compaction), or cannot be read:              lost, anything may have changed

W1  The index leads and not the log: what is told has been applied, so that who looks behind it sees it.
W2  All that others changed is told, once or several times. Of our own changes some may be told too.
W3  A content or metadata that is written under a file's id is told under the names that the file has by now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from s3mount.engine import queries, records
from s3mount.engine.index import Index
from s3mount.engine.log import Gap, Log
from s3mount.engine.records import (
    Complete,
    DropBucket,
    Exchange,
    Link,
    Op,
    Remove,
    RemoveVersion,
    Rename,
    RenamePrefix,
    SetMetadata,
    Write,
)
from s3mount.engine.segment import Position
from s3mount.model import Changed

log = logging.getLogger(__name__)

# More names are not told one by one: whoever remembers anything had better forget all of it.
TOLD_MOST = 20_000

# A record that a newer program wrote, or a log that cannot be opened now.
NOT_READ = (ValueError, TypeError, OSError)

NOTHING = Changed()
LOST = Changed(lost=True)


class Follower:
    """Follows what others do in one bucket, from when it was made. For one caller at a time. Raises NoSuchBucket."""

    def __init__(self, log: Log, index: Index, bucket: str) -> None:
        self._log = log
        self._index = index
        log.own.begin()
        with index.read() as db:
            self._bucket = queries.require_bucket(db, bucket).id
            self._at = Index.position(db)

    def is_behind(self) -> bool:
        """Whether anybody changed anything since `changed` was asked: one statement. Raises Unavailable, Corrupt."""
        return self._end().seq > self._at.seq

    def _end(self) -> Position:
        with self._index.read() as db:
            return Index.position(db)

    def changed(self) -> Changed:
        """What others changed since this was asked before. Raises Unavailable, Corrupt; then it is told the next time."""
        end = self._end()
        if end.seq <= self._at.seq:
            return NOTHING
        touched = Touched(self._bucket)
        try:
            whole = self._log.own.holds(self._at.seq + 1, end.seq) or self._read(end, touched)
        except NOT_READ as error:
            log.info("What others changed cannot be read: %s", error)
            whole = False
        self._at = end
        return touched.named(self._index) if whole else LOST

    def _read(self, end: Position, touched: Touched) -> bool:
        """Gather what the records up to *end* touch; False where they cannot be had."""
        at = self._at.seq
        for entry in self._log.walk(self._at):
            if isinstance(entry, Gap) or entry.position.seq > end.seq:
                break
            at = entry.position.seq
            if entry.payload and not self._log.own.holds(at, at):
                touched.gather(records.decode(entry.payload).ops)
            if at == end.seq:
                break
        return at == end.seq


class Touched:
    """What operations touch in the bucket *bucket*."""

    def __init__(self, bucket: int) -> None:
        self._bucket = bucket
        self._keys: set[bytes] = set()
        self._prefixes: set[bytes] = set()
        self._files: set[int] = set()
        self._all = False

    def gather(self, ops: tuple[Op, ...]) -> None:
        for op in ops:
            note = _NOTES.get(type(op))
            if note is not None and getattr(op, "bucket", self._bucket) == self._bucket:
                note(self, op)

    def named(self, index: Index) -> Changed:
        if self._all or len(self._keys) + len(self._files) > TOLD_MOST:
            return LOST
        with index.read() as db:
            for file in self._files:
                self._keys.update(
                    key for (key,) in db.execute("SELECT key FROM name WHERE file = ? AND bucket = ?", (file, self._bucket)).fetchall()
                )
        return Changed(frozenset(map(_text, self._keys)), frozenset(map(_text, self._prefixes)))

    def _write(self, op: Write | Complete) -> None:
        if op.key is not None:
            self._keys.add(op.key)
        self._files.add(op.file)

    def _set_metadata(self, op: SetMetadata) -> None:
        self._files.add(op.file)

    def _remove(self, op: Remove) -> None:
        self._keys.update(op.keys)

    def _remove_version(self, op: RemoveVersion) -> None:
        self._keys.add(op.key)

    def _rename(self, op: Rename) -> None:
        self._keys.update((op.source, op.target))

    def _rename_prefix(self, op: RenamePrefix) -> None:
        self._prefixes.update((op.source, op.target))

    def _exchange(self, op: Exchange) -> None:
        for name in (op.a, op.b):
            bare = name.rstrip(b"/")
            self._keys.add(bare)
            self._prefixes.add(bare + b"/")

    def _link(self, op: Link) -> None:
        self._keys.add(op.key)
        self._files.add(op.file)

    def _drop_bucket(self, op: DropBucket) -> None:
        self._all = True


def _text(key: bytes) -> str:
    return key.decode(errors="surrogatepass")


_NOTES: dict[type[Any], Callable[[Touched, Any], None]] = {
    Write: Touched._write,
    Complete: Touched._write,
    SetMetadata: Touched._set_metadata,
    Remove: Touched._remove,
    RemoveVersion: Touched._remove_version,
    Rename: Touched._rename,
    RenamePrefix: Touched._rename_prefix,
    Exchange: Touched._exchange,
    Link: Touched._link,
    DropBucket: Touched._drop_bucket,
}

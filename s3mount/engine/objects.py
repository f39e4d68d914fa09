"""Objects: put, adopt, update, delete, copy, head, find, list, open.

Owns: conditions, which file a commit writes, what an edit keeps of its base.
Must not know: how records reach the log and the index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from s3mount.engine import contents, queries
from s3mount.engine.codec import Buffer
from s3mount.engine.commit import Answer, Transaction
from s3mount.engine.contents import Fresh, Laid
from s3mount.engine.core import Core, changed, exists
from s3mount.engine.extra import lasting
from s3mount.engine.known import QUICK_SPANS
from s3mount.engine.lock import WouldWait
from s3mount.engine.merging import Merger
from s3mount.engine.names import key_bytes
from s3mount.engine.reader import Reader
from s3mount.engine.records import Piece, Remove, SetMetadata, Write, pack_metadata
from s3mount.engine.spans import Spans
from s3mount.engine.values import COMMIT_ID, DELETE_KEYS, INLINE_BYTES, PLAIN, Failed, How
from s3mount.errors import Corrupt, InvalidName, TooLarge
from s3mount.model import (
    OBJECT_BYTES,
    Absent,
    Condition,
    Content,
    ETag,
    Found,
    Kept,
    Key,
    Matches,
    Metadata,
    MiB,
    ObjectInfo,
    Page,
)

# How often a body may vanish between a look at the index and opening it before that is damage: each time somebody must have committed.
OPEN_ATTEMPTS = 20

# Pieces, those kept included, of an edit that is made in less than a millisecond.
QUICK_PIECES = 16

# Objects and bytes per record of put_many: they bound the memory that it takes.
MANY = 5000
MANY_BYTES = 16 * MiB

# Key, how, content, size.
Batch = list[tuple[bytes, How, Sequence[Laid], int]]


class Objects(Core):
    # -- looking ----------------------------------------------------------------------

    def head(self, bucket: str, key: Key) -> ObjectInfo:
        """Raises NotFound, NoSuchBucket."""
        with self.index.read() as db:
            return queries.head(db, bucket, key)

    def find(self, bucket: str, name: str) -> Found:
        """What stands under *name*: object, marker, keys below. Raises NoSuchBucket."""
        with self.index.read() as db:
            return queries.find(db, bucket, name)

    def list(self, bucket: str, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = 1000) -> Page:
        """One page, metadata included, of the keys that begin with *prefix* and come behind *after*.

        *after* is a key, a common prefix (all of it is then skipped) or a former page's `next`. With *delimiter*, keys that hold it behind
        the prefix are rolled up into common prefixes, each of which counts once against *limit*.
        Raises NoSuchBucket, ValueError when *limit* < 1.
        """
        if limit < 1:
            raise ValueError(f"a page of {limit} keys")
        with self.index.snapshot() as db:
            return queries.page(db, bucket, prefix, delimiter=delimiter, after=after, limit=limit)

    def open_object(self, bucket: str, key: Key, *, if_match: ETag | None = None) -> Reader:
        """The current version, kept readable until the reader is closed. Raises NotFound, NoSuchBucket, PreconditionFailed, Corrupt."""
        return self.opened(lambda db: self._look(db, bucket, key, if_match))

    def opened(self, look: Callable[[sqlite3.Connection], tuple[ObjectInfo, Spans]]) -> Reader:
        """A reader of what *look* finds; looks again when a body vanished in between."""
        for _ in range(OPEN_ATTEMPTS):
            with self.index.snapshot() as db:
                info, spans = look(db)
            try:
                return self.leases.leased_reader(look) if self.leases.needed(spans) else self.leases.reader(info, spans)
            except FileNotFoundError as error:
                self.known_spans.forget(info.file_id)
                missing = error
        raise Corrupt(f"A body of the object {info.key!r} is missing; run 's3mount store scrub'.") from missing

    def open_object_nowait(self, bucket: str, key: Key, *, if_match: ETag | None = None) -> Reader | None:
        """As `open_object` where that takes microseconds; None where it may have to wait for somebody, or has many extents to read."""
        with self.index.snapshot() as db:
            info, spans = self._look(db, bucket, key, if_match, limit=QUICK_SPANS + 1)
        if spans.size < info.size or self.leases.needed(spans):
            return None
        try:
            return self.leases.reader(info, spans)
        except FileNotFoundError:
            self.known_spans.forget(info.file_id)
            return None

    def _look(self, db: sqlite3.Connection, bucket: str, key: Key, if_match: ETag | None, limit: int = -1) -> tuple[ObjectInfo, Spans]:
        """An object and its spans, or the first *limit* of them. Raises NotFound, NoSuchBucket, PreconditionFailed."""
        info = queries.head(db, bucket, key)
        if if_match is not None and info.etag != if_match:
            raise changed(key)
        spans = self.known_spans.get(info.file_id, info.etag) or queries.spans(db, info.file_id, limit)
        if limit < 0:
            self.known_spans.put(info.file_id, info.etag, spans)
        return info, spans

    # -- committing -------------------------------------------------------------------

    def put(
        self,
        bucket: str,
        key: Key,
        data: Buffer,
        how: How = PLAIN,
        *,
        etag: str | None = None,
        durable: bool = True,
        inline: int = INLINE_BYTES,
    ) -> ObjectInfo:
        """Make *data* the object; up to *inline* bytes lie in the log record.

        Raises AlreadyExists (Absent), PreconditionFailed (Matches), InvalidName, NoSuchBucket, NoSpace.
        """
        raw = key_bytes(key)
        with self.os_errors():
            laid = contents.from_bytes(self.bodies, data, inline=inline)
        return self._commit_content(bucket, raw, Content(0, ()), laid, size=memoryview(data).nbytes, how=how, etag=etag, durable=durable)

    def adopt(
        self, bucket: str, key: Key, content: Content, how: How = PLAIN, *, etag: str | None = None, durable: bool = True
    ) -> ObjectInfo:
        """Make *content* the object; staged files are renamed in where they are mostly used, and stay the caller's where this fails.

        Raises as `put`, TooLarge, and PreconditionFailed when pieces are kept of a base that is not the current version of its file.
        """
        if content.size > OBJECT_BYTES:
            raise TooLarge(f"{key!r} would have {content.size} bytes; an object holds at most {OBJECT_BYTES}.")
        raw = key_bytes(key)
        with self.os_errors():
            laid = contents.from_content(self.bodies, self.disk, content)
        return self._commit_content(bucket, raw, content, laid, size=content.size, how=how, etag=etag, durable=durable)

    def _commit_content(
        self, bucket: str, key: bytes, content: Content, laid: Sequence[Laid], *, size: int, how: How, etag: str | None, durable: bool
    ) -> ObjectInfo:
        def decide(tx: Transaction) -> Answer[ObjectInfo]:
            found = queries.require_bucket(tx.db, bucket)
            where = found.id
            target, file = self.target(tx, where, key, how)
            base, base_etag, pieces = self._on_base(tx, where, key, content, laid, file)
            if self.lock.hurried and base and (base != file or found.versioning != "off"):
                raise WouldWait  # the extents are copied, however many there are
            tag = etag or self.new_etag()
            manner = self._carrying(tx, file, how) if how.carries else how
            tx.ops.append(_write(where, target, file, base, base_etag, size, tag, tx.time_ns, manner, pieces))
            tx.files.add(file)

            def answer(db: sqlite3.Connection) -> ObjectInfo:
                if base == file:
                    self.known_spans.edit(db, file, (base_etag, tag), pieces, size)
                return self.info(where, file, key)(db)

            return self.freeing(where, key, answer)

        return self.commit_laid(laid, decide, durable=durable)

    def _carrying(self, tx: Transaction, file: int, how: How) -> How:
        """*how*, with what the file's extra has beyond its bytes."""
        row = tx.db.execute("SELECT extra FROM file WHERE id = ?", (file,)).fetchone()
        return how if row is None or row[0] is None else replace(how, extra=lasting(row[0]))

    def commit_laid(self, laid: Sequence[Laid], decide: Callable[[Transaction], Answer[ObjectInfo]], *, durable: bool) -> ObjectInfo:
        """Commit content that was staged before; our own staged files are gone afterwards, whatever happens."""
        fresh = contents.bodies_of(laid)
        try:
            if durable:
                if self.lock.hurried and any(body.path is not None for body in fresh):
                    raise WouldWait
                self.sync_staged(fresh)
            return self.commits.run(decide, durable=durable)
        finally:
            contents.discard(fresh)

    def _on_base(
        self, tx: Transaction, bucket: int, key: bytes, content: Content, laid: Sequence[Laid], file: int
    ) -> tuple[int, str, tuple[Piece, ...]]:
        """The base file, its ETag and the pieces to lay over it; (0, "", everything) where nothing is kept. Raises PreconditionFailed."""
        if content.base is None or not contents.kept(content):
            return 0, "", tx.pieces(laid)
        base = content.base.file_id or self.named(tx, bucket, key)[0]
        row = tx.db.execute("SELECT etag FROM file WHERE id = ? AND bucket = ?", (base, bucket)).fetchone()
        if row is None or row[0] != content.base.etag:
            raise changed(content.base.key)
        return base, row[0], tx.pieces(Merger(tx.db, self.log, self.bodies, base, content.size, wait=not self.lock.hurried).merged(laid))

    def put_many(self, bucket: str, items: Iterable[tuple[Key, Buffer, How]], *, durable: bool = True) -> None:
        """Put many objects, a few thousand per transaction: each batch happens whole, an error leaves those before it. Raises as `put`."""
        pending = iter(items)
        while self._put_batch(bucket, pending, durable=durable):
            pass

    def _put_batch(self, bucket: str, items: Iterator[tuple[Key, Buffer, How]], *, durable: bool) -> bool:
        """One transaction's worth of *items*; False when there were none left."""
        batch: Batch = []
        try:
            with self.os_errors():
                self._fill(batch, items)
            if batch:
                self._commit_batch(bucket, batch, durable=durable)
        finally:
            contents.discard(_fresh(batch))
        return bool(batch)

    def _fill(self, batch: Batch, items: Iterator[tuple[Key, Buffer, How]]) -> None:
        size = 0
        while len(batch) < MANY and size < MANY_BYTES and (item := next(items, None)) is not None:
            key, data, how = item
            batch.append((key_bytes(key), how, contents.from_bytes(self.bodies, data), memoryview(data).nbytes))
            size += batch[-1][3]

    def _commit_batch(self, bucket: str, batch: Batch, *, durable: bool) -> None:
        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            for key, how, laid, size in batch:
                target, file = self.target(tx, where, key, how)
                tx.ops.append(_write(where, target, file, 0, "", size, self.new_etag(), tx.time_ns, how, tx.pieces(laid)))
                tx.files.add(file)

            def free_all(db: sqlite3.Connection) -> None:
                for key, *_ in batch:
                    self.free(db, where, key)

            return free_all

        if durable:
            self.sync_staged(_fresh(batch))
        self.commits.run(decide, durable=durable)

    def update(
        self, bucket: str, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0, durable: bool = True
    ) -> ObjectInfo:
        """Replace the metadata; ETag and last-modified stay. *file_id* finds the file by its id. Raises NotFound, PreconditionFailed."""
        raw = key_bytes(key)

        def decide(tx: Transaction) -> Answer[ObjectInfo]:
            where = queries.require_bucket(tx.db, bucket).id
            file, etag = self.living(tx, where, file_id) if file_id else self.named(tx, where, raw)
            if not file:
                raise queries.not_found(key)
            if if_match is not None and etag != if_match:
                raise changed(key)
            tx.ops.append(SetMetadata(file, pack_metadata(metadata)))
            tx.files.add(file)
            return self.info(where, file, raw)

        return self.commits.run(decide, durable=durable)

    def copy(
        self,
        bucket: str,
        source: Key,
        target: Key,
        *,
        target_bucket: str | None = None,
        version_id: str | None = None,
        if_match: ETag | None = None,
        how: How | None = None,
        condition: Condition = None,
        etag: str | None = None,
        durable: bool = True,
    ) -> ObjectInfo:
        """Make *target* a second object with the same content, without copying bytes.

        With *version_id* that version is copied. With *how* its metadata and type are replaced (its extra is copied where *how* carries),
        else they are copied, under *condition*.
        Raises NotFound, PreconditionFailed (*if_match* speaks of the source, the condition of the target), AlreadyExists.
        """
        raw = key_bytes(target)

        def decide(tx: Transaction) -> Answer[ObjectInfo]:
            found = queries.at_version(tx.db, bucket, source, version_id)
            if if_match is not None and found.etag != if_match:
                raise changed(source)
            where = queries.require_bucket(tx.db, target_bucket or bucket).id
            manner = (
                replace(_manner_of(found), condition=condition) if how is None else replace(how, extra=found.extra) if how.carries else how
            )
            name, file = self.target(tx, where, raw, manner)
            tag = etag or self.new_etag()
            tx.ops.append(_write(where, name, file, found.file_id, found.etag, found.size, tag, tx.time_ns, manner, ()))
            tx.files.add(file)
            return self.freeing(where, raw, self.info(where, file, raw))

        return self.commits.run(decide, durable=durable)

    # -- deleting ---------------------------------------------------------------------

    def delete(self, bucket: str, key: Key, *, if_match: ETag | None = None, durable: bool = True, lingers: bool = False) -> None:
        """Idempotent: an absent key is no error. What *lingers* is quicker among its like (`linger`), and the lock is kept a moment longer.

        Raises PreconditionFailed, NoSuchBucket.
        """
        raw = key_bytes(key)

        def decide(tx: Transaction) -> Answer[None]:
            where, file, etag = queries.named_in(tx.db, bucket, raw)
            if file and if_match is not None and etag != if_match:
                raise changed(key)
            if file:
                tx.ops.append(Remove(where, (raw,), tx.time_ns))
            return _nothing

        self.commits.run(decide, durable=durable, frees=True, lingers=lingers)

    def delete_many(self, bucket: str, keys: Sequence[Key], *, durable: bool = True) -> Sequence[Failed]:
        """Up to 1000 keys in one transaction; what is no valid key comes back with the reason. Raises NoSuchBucket, ValueError."""
        if len(keys) > DELETE_KEYS:
            raise ValueError(f"{len(keys)} keys in one delete; at most {DELETE_KEYS}")
        good, bad = _sorted_out(keys)

        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            there = tuple(raw for raw in good if self.named(tx, where, raw)[0])
            if there:
                tx.ops.append(Remove(where, there, tx.time_ns))
            return lambda db: None

        self.commits.run(decide, durable=durable, frees=True)
        return bad

    # -- which file -------------------------------------------------------------------

    def target(self, tx: Transaction, bucket: int, key: bytes, how: How) -> tuple[bytes | None, int]:
        """The key to bind (None: the file keeps its names) and the file to write. Raises AlreadyExists, PreconditionFailed."""
        if isinstance(how.condition, Matches):
            file, etag = self.living(tx, bucket, how.file_id) if how.file_id else self.named(tx, bucket, key)
            if not file or etag != how.condition.etag:
                raise changed(key.decode())
            return None, file
        if isinstance(how.condition, Absent) and (self.named(tx, bucket, key)[0] or self.reserved_by_other(tx.db, bucket, key)):
            raise exists(key.decode())
        return key, how.file_id or self.new_file_id()

    def named(self, tx: Transaction, bucket: int, key: bytes) -> tuple[int, str]:
        """File and ETag that *key* names; (0, "") for none."""
        row = tx.db.execute(
            "SELECT f.id, f.etag FROM name n JOIN file f ON f.id = n.file WHERE n.bucket = ? AND n.key = ?", (bucket, key)
        ).fetchone()
        return (0, "") if row is None else (row[0], row[1])

    def living(self, tx: Transaction, bucket: int, file: int) -> tuple[int, str]:
        """A file that has names, and its ETag; (0, "") if there is none with this id."""
        row = tx.db.execute("SELECT id, etag FROM file WHERE id = ? AND bucket = ? AND id > 0", (file, bucket)).fetchone()
        return (0, "") if row is None else (row[0], row[1])

    def info(self, bucket: int, file: int, key: bytes) -> Answer[ObjectInfo]:
        def answer(db: sqlite3.Connection) -> ObjectInfo:
            info = queries.by_file(db, bucket, file, key)
            assert info is not None
            return info

        return answer


def _nothing(db: sqlite3.Connection) -> None:
    """The answer to who asks for none."""


def is_quick_edit(content: Content) -> bool:
    """Whether *content* only lays a little over its base: then adopting it takes little time, however many extents the base has."""
    base, pieces = content.base, content.pieces
    if base is None or content.size < base.size or len(pieces) > QUICK_PIECES:
        return False
    return sum(piece.length for piece in pieces if not isinstance(piece, Kept)) <= INLINE_BYTES


def _fresh(batch: Batch) -> list[Fresh]:
    return contents.bodies_of(each for _, _, laid, _ in batch for each in laid)


def _write(
    bucket: int,
    key: bytes | None,
    file: int,
    base: int,
    base_etag: str,
    size: int,
    etag: str,
    time_ns: int,
    how: How,
    pieces: tuple[Piece, ...],
) -> Write:
    metadata = {**how.metadata, COMMIT_ID: how.commit_id} if how.commit_id else how.metadata
    return Write(
        bucket,
        key,
        file,
        base,
        base_etag,
        size,
        etag,
        time_ns,
        how.content_type,
        how.storage_class,
        pack_metadata(metadata),
        pieces,
        how.extra,
    )


def _manner_of(found: ObjectInfo) -> How:
    return How(metadata=found.metadata or {}, content_type=found.content_type, storage_class=found.storage_class, extra=found.extra)


def _sorted_out(keys: Sequence[Key]) -> tuple[Sequence[bytes], Sequence[Failed]]:
    """The valid keys, each once, and the others with the reason."""
    good: dict[bytes, None] = {}
    bad = []
    for key in keys:
        try:
            good[key_bytes(key)] = None
        except InvalidName as error:
            bad.append(Failed(key, error))
    return list(good), bad

"""Multipart uploads: parts arrive in any order and are joined without copying their bytes.

Owns: the life of an upload: begun -> parts (a number sent again replaces the former) -> completed or aborted.
Must not know: how records reach the log and the index.
"""

from __future__ import annotations

import itertools
import secrets
import sqlite3
from collections.abc import Iterator, Sequence

from s3mount.engine import contents, queries
from s3mount.engine.codec import Buffer
from s3mount.engine.commit import Answer, Transaction
from s3mount.engine.contents import Laid
from s3mount.engine.core import changed
from s3mount.engine.names import end_of, key_bytes, rolled_up, sought_bytes
from s3mount.engine.objects import Objects
from s3mount.engine.records import BeginUpload, Complete, EndUpload, Piece, PutPart, pack_metadata, unpack_metadata
from s3mount.engine.values import COMMIT_ID, PARTS, PLAIN, How, PartInfo, UploadInfo, UploadPage
from s3mount.errors import InvalidPart, NoSuchUpload, TooLarge
from s3mount.model import OBJECT_BYTES, Absent, ByteRange, Condition, Content, ETag, Key, Matches, ObjectInfo, Part, Upload

_UPLOAD = "SELECT key, id, started_ns, content_type, storage_class, metadata, extra FROM upload"

_PARTS = "SELECT number, size, etag, mtime_ns, extra FROM part WHERE upload = ? AND number > ? ORDER BY number LIMIT ?"

# Rows that a walk through the uploads fetches at once.
AT_ONCE = 256

# ETag (None: the engine's choice) and extra of a part.
Marks = tuple[str | None, bytes | None]


class Uploads(Objects):
    def create_upload(self, bucket: str, key: Key, how: How = PLAIN, *, durable: bool = True) -> Upload:
        """Begin; the condition is judged at completion. Raises InvalidName, NoSuchBucket."""
        raw, upload_id = key_bytes(key), secrets.token_hex(16)
        metadata = {**how.metadata, COMMIT_ID: how.commit_id} if how.commit_id else how.metadata

        def decide(tx: Transaction) -> Answer[Upload]:
            where = queries.require_bucket(tx.db, bucket).id
            condition, packed = _packed(how.condition), pack_metadata(metadata)
            given = (how.file_id, how.content_type, how.storage_class, packed, how.extra)
            tx.ops.append(BeginUpload(where, raw, upload_id, tx.time_ns, condition, *given))
            return lambda db: Upload(key, upload_id, tx.time_ns)

        return self.commits.run(decide, durable=durable)

    def put_part(
        self,
        bucket: str,
        upload: Upload,
        number: int,
        data: Buffer | Content,
        *,
        etag: str | None = None,
        extra: bytes | None = None,
        durable: bool = True,
    ) -> Part:
        """Any order, many at once; a number sent again replaces the former part. *data* as Content keeps nothing of a base.

        *extra* as in How.

        Raises NoSuchUpload, NoSpace, ValueError (number).
        """
        _require_number(number)
        with self.os_errors():
            if isinstance(data, Content):
                assert data.base is None, "a part keeps nothing: see copy_part"
                laid, size = contents.from_content(self.bodies, self.disk, data), data.size
            else:
                laid, size = contents.from_bytes(self.bodies, data), memoryview(data).nbytes
        return self._commit_part(bucket, upload, number, laid, size=size, marks=(etag, extra), durable=durable)

    def _commit_part(
        self, bucket: str, upload: Upload, number: int, laid: Sequence[Laid], *, size: int, marks: Marks, durable: bool
    ) -> Part:
        fresh = contents.bodies_of(laid)

        def decide(tx: Transaction) -> Answer[Part]:
            self._require_upload(tx, bucket, upload)
            return self._add_part(tx, upload, number, tx.pieces(laid), size, marks)

        try:
            if durable:
                self.sync_staged(fresh)
            return self.commits.run(decide, durable=durable)
        finally:
            contents.discard(fresh)

    def _add_part(self, tx: Transaction, upload: Upload, number: int, pieces: tuple[Piece, ...], size: int, marks: Marks) -> Answer[Part]:
        etag, extra = marks
        part = Part(number, size, ETag(etag) if etag else self.new_etag())
        tx.ops.append(PutPart(upload.upload_id, number, size, part.etag, tx.time_ns, pieces, extra))
        return lambda db: part

    def copy_part(
        self,
        bucket: str,
        upload: Upload,
        number: int,
        source: Key,
        *,
        source_bucket: str | None = None,
        version_id: str | None = None,
        span: ByteRange | None = None,
        if_match: ETag | None = None,
        etag: str | None = None,
        extra: bytes | None = None,
        durable: bool = True,
    ) -> Part:
        """A part with bytes that another object has (*span*: of these only), without copying them.

        Raises NotFound, NoSuchUpload, PreconditionFailed, ValueError (number, span).
        """
        _require_number(number)

        def decide(tx: Transaction) -> Answer[Part]:
            self._require_upload(tx, bucket, upload)
            info = queries.at_version(tx.db, source_bucket or bucket, source, version_id)
            if if_match is not None and info.etag != if_match:
                raise changed(source)
            start, stop = (0, info.size) if span is None else (span.start, span.stop)
            if stop > info.size:
                raise ValueError(f"bytes {start} to {stop} do not lie in {info.size}")
            tx.files.add(info.file_id)
            return self._add_part(tx, upload, number, _pieces_between(tx.db, info.file_id, start, stop), stop - start, (etag, extra))

        return self.commits.run(decide, durable=durable)

    def complete_upload(
        self,
        bucket: str,
        upload: Upload,
        parts: Sequence[Part],
        *,
        condition: Condition = None,
        etag: str | None = None,
        extra: bytes | None = None,
        durable: bool = True,
    ) -> ObjectInfo:
        """Make the named parts, in rising order, the object. *condition* and *extra* replace those given at the beginning.

        Raises InvalidPart (the upload lives on), NoSuchUpload, TooLarge, AlreadyExists, PreconditionFailed.
        """

        def decide(tx: Transaction) -> Answer[ObjectInfo]:
            where, key, kept, file_id = self._require_upload(tx, bucket, upload)
            self._require_parts(tx.db, upload, parts)
            target, file = self.target(tx, where, key, How(condition=condition or _unpacked(kept), file_id=file_id))
            numbers = tuple(part.number for part in parts)
            tx.ops.append(Complete(upload.upload_id, target, file, numbers, etag or self.new_etag(), tx.time_ns, extra))
            tx.files.add(file)
            return self.freeing(where, key, self.info(where, file, key))

        return self.commits.run(decide, durable=durable)

    def abort_upload(self, bucket: str, upload: Upload, *, durable: bool = True) -> None:
        """Forget it and its parts; idempotent. Raises NoSuchBucket."""

        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            if tx.db.execute("SELECT 1 FROM upload WHERE id = ? AND bucket = ?", (upload.upload_id, where)).fetchone() is not None:
                tx.ops.append(EndUpload(upload.upload_id))
            return lambda db: None

        self.commits.run(decide, durable=durable, frees=True)

    def uploads(self, bucket: str, prefix: str = "") -> Sequence[Upload]:
        """Those under way, by key, then by age. Raises NoSuchBucket."""
        first = sought_bytes(prefix)
        with self.index.snapshot() as db:
            where = queries.require_bucket(db, bucket).id
            rows = db.execute(
                "SELECT key, id, started_ns FROM upload WHERE bucket = ? AND key >= ? AND key < ? ORDER BY key, started_ns",
                (where, first, end_of(first)),
            )
            return [Upload(Key(key.decode()), upload, started_ns) for key, upload, started_ns in rows]

    def upload_info(self, bucket: str, key: Key, upload_id: str) -> UploadInfo:
        """Raises NoSuchUpload (also where it is another key's), NoSuchBucket."""
        with self.index.snapshot() as db:
            where = queries.require_bucket(db, bucket).id
            row = db.execute(f"{_UPLOAD} WHERE bucket = ? AND id = ? AND key = ?", (where, upload_id, sought_bytes(key))).fetchone()
        if row is None:
            raise NoSuchUpload(f"The upload of {key!r} is over.")
        return _upload_info(row)

    def upload_page(
        self, bucket: str, prefix: str = "", *, delimiter: str = "", after: tuple[str, str] = ("", ""), limit: int = 1000
    ) -> UploadPage:
        """As `uploads`, *limit* at a time, with all that is known of them, behind the (key, upload id) *after*.

        Without an upload id, or with one that is over, all uploads of that key are passed over, or all of a common prefix.
        Raises NoSuchBucket.
        """
        begin, split = sought_bytes(prefix), sought_bytes(delimiter)
        with self.index.snapshot() as db:
            where = queries.require_bucket(db, bucket).id
            found = _walk(db, where, begin, split, _behind(db, where, after, begin, split))
            entries = list(itertools.islice(found, limit + 1))
        shown = entries[:limit]
        infos = tuple(entry for entry in shown if isinstance(entry, UploadInfo))
        prefixes = tuple(entry for entry in shown if isinstance(entry, str))
        if len(entries) <= limit:
            return UploadPage(infos, prefixes, None)
        last = shown[-1]
        return UploadPage(infos, prefixes, (last, "") if isinstance(last, str) else (last.upload.key, last.upload.upload_id))

    def parts(self, bucket: str, upload: Upload) -> Sequence[Part]:
        """Those received so far, by number. Raises NoSuchUpload, NoSuchBucket."""
        return [info.part for info in self.part_infos(bucket, upload)]

    def part_infos(self, bucket: str, upload: Upload, *, after: int = 0, limit: int = PARTS) -> Sequence[PartInfo]:
        """As `parts`, with all that is known of them; at most *limit*, behind the number *after*."""
        with self.index.snapshot() as db:
            where = queries.require_bucket(db, bucket).id
            _require_row(db, where, upload)
            rows = db.execute(_PARTS, (upload.upload_id, after, limit))
            return [PartInfo(Part(number, size, ETag(etag)), mtime_ns, extra) for number, size, etag, mtime_ns, extra in rows]

    def _require_upload(self, tx: Transaction, bucket: str, upload: Upload) -> tuple[int, bytes, str, int]:
        """Bucket, key, condition and file of an upload under way."""
        where = queries.require_bucket(tx.db, bucket).id
        key, condition, file = _require_row(tx.db, where, upload)
        return where, key, condition, file

    def _require_parts(self, db: sqlite3.Connection, upload: Upload, parts: Sequence[Part]) -> None:
        numbers = [part.number for part in parts]
        if not parts or any(one >= other for one, other in itertools.pairwise(numbers)):
            raise InvalidPart(f"The parts of {upload.key!r} must be named in rising order, at least one.")
        rows = db.execute("SELECT number, etag, size FROM part WHERE upload = ?", (upload.upload_id,)).fetchall()
        there = {number: (etag, size) for number, etag, size in rows}
        for part in parts:
            if part.number not in there or there[part.number][0] != part.etag:
                raise InvalidPart(f"Part {part.number} of {upload.key!r} was not received so; send it again.")
        if sum(there[number][1] for number in numbers) > OBJECT_BYTES:
            raise TooLarge(f"{upload.key!r} would have more than {OBJECT_BYTES} bytes.")


# Where a walk goes on: behind this key, time and id.
_Place = tuple[bytes, int, str]
# Behind every time and id of a key.
_LATEST = (1 << 62, "")


def _behind(db: sqlite3.Connection, bucket: int, after: tuple[str, str], prefix: bytes, delimiter: bytes) -> _Place:
    key, upload = sought_bytes(after[0]), after[1]
    row = db.execute("SELECT started_ns FROM upload WHERE bucket = ? AND id = ? AND key = ?", (bucket, upload, key)).fetchone()
    if row is not None:
        return key, row[0], upload
    if key and key.startswith(prefix) and rolled_up(key, prefix, delimiter) == key:
        return end_of(key), -1, ""
    return (key, *_LATEST) if key else (b"", -1, "")


def _walk(db: sqlite3.Connection, bucket: int, prefix: bytes, delimiter: bytes, at: _Place) -> Iterator[UploadInfo | str]:
    """Uploads and common prefixes behind *at*, in order."""
    while True:
        rows = db.execute(
            f"{_UPLOAD} WHERE bucket = ? AND key >= ? AND key < ? AND key >= ? AND (key, started_ns, id) > (?, ?, ?) "
            "ORDER BY key, started_ns, id LIMIT ?",
            (bucket, prefix, end_of(prefix), at[0], *at, AT_ONCE),
        ).fetchall()
        for row in rows:
            group = rolled_up(row[0], prefix, delimiter)
            if group is not None:
                yield group.decode()
                at = end_of(group), -1, ""
                break
            yield _upload_info(row)
            at = row[0], row[2], row[1]
        else:
            if len(rows) < AT_ONCE:
                return


def _upload_info(row: queries.Row) -> UploadInfo:
    key, upload_id, started_ns, content_type, storage_class, metadata, extra = row
    upload = Upload(Key(key.decode()), upload_id, started_ns)
    return UploadInfo(upload, content_type, storage_class, unpack_metadata(metadata), extra)


def _require_number(number: int) -> None:
    if not 1 <= number <= PARTS:
        raise ValueError(f"part {number}: numbers run from 1 to {PARTS}")


def _require_row(db: sqlite3.Connection, bucket: int, upload: Upload) -> tuple[bytes, str, int]:
    row = db.execute("SELECT key, condition, file FROM upload WHERE id = ? AND bucket = ?", (upload.upload_id, bucket)).fetchone()
    if row is None:
        raise NoSuchUpload(f"The upload of {upload.key!r} is over.")
    return row[0], row[1], row[2]


def _pieces_between(db: sqlite3.Connection, file: int, start: int, stop: int) -> tuple[Piece, ...]:
    """The content between *start* and *stop*, as pieces that begin at 0."""
    rows = db.execute(
        "SELECT offset, length, body, body_offset FROM extent WHERE file = ? AND offset + length > ? AND offset < ? ORDER BY offset",
        (file, start, stop),
    )
    pieces = []
    for offset, length, body, body_offset in rows:
        left, right = max(offset, start), min(offset + length, stop)
        pieces.append((left - start, right - left, body, 0 if body is None else body_offset + left - offset))
    return tuple(pieces)


def _packed(condition: Condition) -> str:
    if isinstance(condition, Absent):
        return "absent"
    return f"etag:{condition.etag}" if isinstance(condition, Matches) else ""


def _unpacked(condition: str) -> Condition:
    if condition == "absent":
        return Absent()
    return Matches(ETag(condition.removeprefix("etag:"))) if condition else None

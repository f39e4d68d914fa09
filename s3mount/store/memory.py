"""MemoryStore: the whole protocol over a `Bucket` in memory, with any set of capabilities.

Owns: conditions, file identity, reservations, uploads, and what is refused where a capability is switched off.
Must not know: any other store. It is the reference that the others are compared with, and what the file system is tested on.

Each method passes one checkpoint, then does all its work in one go: a cancelled mutation has either not begun or is done (C1, C3).
`Capabilities(...)` makes it play a poorer store, S3 say: without `links` there are no file ids, without `versions` a pin reads by key and
ETag and never without waiting, without `listed_metadata` neither `list` nor `find` carries metadata.
`another()` is a second client of the same bucket.

File identity, where there are links:
- a commit under `Matches` writes the file found by `Commit.file_id` (else by the key), under whatever names it has by now;
- any other commit makes the key name the file `Commit.file_id` (0: a new file); the one it named before goes with its last key.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import trio

from s3mount.errors import InvalidPart, NoSuchUpload, TooLarge, Unsupported
from s3mount.model import (
    KEY_BYTES,
    OBJECT_BYTES,
    Absent,
    ByteRange,
    Condition,
    Content,
    ETag,
    Found,
    Kept,
    Key,
    Matches,
    Metadata,
    ObjectInfo,
    Page,
    Part,
    Space,
    Staged,
    TiB,
    Upload,
)
from s3mount.store.api import COMMIT_ID, EVERYTHING, PAGE_KEYS, Arrived, Capabilities, Commit, Failure
from s3mount.store.aspects import Plain
from s3mount.store.bucket import Blob, Bucket, File, Receiving
from s3mount.store.rules import DELETE_KEYS, PARTS, changed, exists, not_found, require_apart, require_key, require_metadata

# All that a store in this machine can do; nothing of it survives the process, so there is nothing to sync either.
# What a plain S3 bucket without versions can do.
LIKE_S3 = Capabilities(part_copy=True, early_parts=True)

# What statfs shows: plausible, and never full.
CAPACITY = TiB


class MemoryStore(Plain):
    """An object store in memory. *key_bytes*: the longest key it takes (S3: 1024)."""

    def __init__(
        self,
        capabilities: Capabilities = EVERYTHING,
        *,
        bucket: Bucket | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        key_bytes: int = KEY_BYTES,
        staging: Path | None = None,
    ) -> None:
        self.capabilities = capabilities
        self.staging = staging
        self.bucket = Bucket() if bucket is None else bucket
        self._clock_ns = clock_ns
        self._key_bytes = key_bytes

    def another(self) -> MemoryStore:
        """A second client of the same bucket: its reservations are its own."""
        return MemoryStore(self.capabilities, bucket=self.bucket, clock_ns=self._clock_ns, key_bytes=self._key_bytes, staging=self.staging)

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self.bucket.keys)} keys>"

    def check(self) -> None:
        self.bucket.check()

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        await trio.lowlevel.checkpoint()
        return self._info(key, self._file(key))

    async def find(self, name: str) -> Found:
        await trio.lowlevel.checkpoint()
        if not name:
            return Found(None, None, implied=True)
        return Found(self._listed(name), self._listed(f"{name}/"), implied=self.bucket.holds_below(f"{name}/"))

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        await trio.lowlevel.checkpoint()
        if limit < 1:
            raise ValueError(f"a page of {limit} keys")
        found = self.bucket.page(prefix, delimiter, after, min(limit, PAGE_KEYS))
        objects = tuple(self._info(key, file, listed=True) for key, file in found.files)
        return Page(objects, tuple(found.prefixes), found.next)

    # -- reading ----------------------------------------------------------------------

    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo:
        await trio.lowlevel.checkpoint()
        file = self._matching(key, if_match)
        if buffer.nbytes != span.length:
            raise ValueError(f"{span.length} bytes do not fill a buffer of {buffer.nbytes}")
        file.blob.read_into(span.start, buffer)
        return self._info(key, file)

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> MemoryPin:
        await trio.lowlevel.checkpoint()
        if known and not self.capabilities.versions:
            return MemoryPin(self, replace(known, key=key), None)
        file = self._matching(key, known.etag if known else if_match)
        return MemoryPin(self, self._info(key, file), file.blob if self.capabilities.versions else None)

    # -- committing -------------------------------------------------------------------

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        await trio.lowlevel.checkpoint()
        return self._commit(key, commit, lambda: Blob.of(data))

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        await trio.lowlevel.checkpoint()
        if content.size > OBJECT_BYTES:
            raise TooLarge(f"{key!r} would have {content.size} bytes; an object holds at most {OBJECT_BYTES}.")
        info = self._commit(key, commit, lambda: Blob.build(content, self._base(content)))
        if self.capabilities.adopt:
            for path in {piece.source.path for piece in content.pieces if isinstance(piece, Staged)} - {None}:
                assert path is not None
                path.unlink(missing_ok=True)
        return info

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        await trio.lowlevel.checkpoint()
        file = self.bucket.files.get(file_id) if file_id and self.capabilities.links else self.bucket.keys.get(key)
        if file is None:
            raise not_found(key)
        _require(key, file, if_match)
        require_metadata(metadata, self.capabilities.metadata_bytes)
        file.metadata = dict(metadata)
        return self._info(key, file)

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        await trio.lowlevel.checkpoint()
        if key in self.bucket.keys:
            self._matching(key, if_match)
            self.bucket.unbind(key)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        await trio.lowlevel.checkpoint()
        if len(keys) > DELETE_KEYS:
            raise ValueError(f"{len(keys)} keys in one delete; at most {DELETE_KEYS}")
        for key in keys:
            self.bucket.unbind(key)
        return []

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        await trio.lowlevel.checkpoint()
        file = self._matching(source, if_match)
        if commit is None:
            commit = Commit(condition=condition, metadata=file.metadata, content_type=file.content_type, storage_class=file.storage_class)
        return self._commit(target, commit, lambda: file.blob)

    # -- names ------------------------------------------------------------------------

    async def rename(self, source: Key, target: Key, *, replace: bool = True) -> None:
        await self._begin("atomic_rename")
        file = self._file(source)
        self._valid([target])
        if not replace:
            self._refuse_taken(target)
        if self.bucket.keys.get(target) is not file:
            self.bucket.move({source: target})
            self._free(target)

    async def rename_prefix(self, source: str, target: str, *, replace: bool = True) -> int:
        await self._begin("atomic_rename")
        require_apart(source, target)
        keys = self.bucket.under(source)
        if not keys:
            raise not_found(source)
        if self.bucket.holds_below(target) or (not replace and target in self.bucket.keys):
            raise exists(target)
        names = {key: target + key[len(source) :] for key in keys}
        self._valid(names.values())
        self.bucket.unbind(target)
        self.bucket.move(names)
        return len(keys)

    async def exchange(self, a: str, b: str) -> None:
        await self._begin("atomic_rename")
        if a == b:
            self._standing(a)
            return
        if a.endswith("/") or b.endswith("/"):
            require_apart(a.rstrip("/") + "/", b.rstrip("/") + "/")
        names = self._renamed(a, b) | self._renamed(b, a)
        self._valid(names.values())
        for target in names.values():
            if target in self.bucket.keys and target not in names:
                raise exists(target)
        self.bucket.move(names)

    async def link(self, source: Key, target: Key) -> ObjectInfo:
        await self._begin("links")
        file = self._file(source)
        self._valid([target])
        self._refuse_taken(target)
        self.bucket.bind(target, file)
        return self._info(target, file)

    async def reserve(self, key: Key) -> None:
        await self._begin("reserve")
        self._valid([key])
        self._refuse_taken(key)
        self.bucket.reserved[key] = self

    async def release(self, key: Key) -> None:
        await self._begin("reserve")
        self._free(key)

    # -- multipart --------------------------------------------------------------------

    async def create_upload(self, key: Key, commit: Commit = Commit()) -> Upload:  # noqa: B008 (frozen)
        await trio.lowlevel.checkpoint()
        self._valid([key])
        require_metadata(commit.metadata, self.capabilities.metadata_bytes)
        upload = Upload(key, secrets.token_hex(16), self._clock_ns())
        self.bucket.uploads[upload.upload_id] = Receiving(upload, commit)
        return upload

    async def put_part(self, upload: Upload, number: int, data: bytes | bytearray | memoryview) -> Part:
        await trio.lowlevel.checkpoint()
        if not 1 <= number <= PARTS:
            raise ValueError(f"part {number}: numbers run from 1 to {PARTS}")
        blob = Blob.of(data)
        part = Part(number, blob.size, _fresh_etag())
        self._receiving(upload).parts[number] = (part, blob)
        return part

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        await trio.lowlevel.checkpoint()
        receiving = self._receiving(upload)
        assert isinstance(receiving.how, Commit)
        _require_parts(receiving, parts)
        info = self._commit(upload.key, receiving.how, lambda: Blob.join([receiving.parts[part.number][1] for part in parts]))
        del self.bucket.uploads[upload.upload_id]
        return info

    async def abort_upload(self, upload: Upload) -> None:
        await trio.lowlevel.checkpoint()
        self.bucket.uploads.pop(upload.upload_id, None)

    async def list_uploads(self) -> Sequence[Upload]:
        await trio.lowlevel.checkpoint()
        uploads = [receiving.upload for receiving in self.bucket.uploads.values()]
        return sorted(uploads, key=lambda upload: (upload.key, upload.started_ns))

    # -- the medium -------------------------------------------------------------------

    async def sync(self, key: Key | None = None) -> None:
        await trio.lowlevel.checkpoint()

    async def space(self) -> Space:
        await trio.lowlevel.checkpoint()
        used = sum(file.blob.size for file in self.bucket.files.values())
        return Space(CAPACITY, max(0, CAPACITY - used))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        for key in [key for key, owner in self.bucket.reserved.items() if owner is self]:
            del self.bucket.reserved[key]

    # -- one commit -------------------------------------------------------------------

    def _commit(self, key: Key, commit: Commit, bytes_of: Callable[[], Blob]) -> ObjectInfo:
        """Judge the condition, then make the new version; *bytes_of* may still raise, and nothing has happened then."""
        self._valid([key])
        file = self._judged(key, commit)
        blob = bytes_of()
        metadata = {**commit.metadata, COMMIT_ID: commit.commit_id} if commit.commit_id else dict(commit.metadata)
        require_metadata(metadata, self.capabilities.metadata_bytes)
        fresh = File(self._file_id(commit), blob, _fresh_etag(), self._clock_ns(), commit.content_type, commit.storage_class, metadata)
        if file is None:
            file = self.bucket.files.get(fresh.id, fresh)
        if file is not fresh:
            file.become(fresh)
        if not isinstance(commit.condition, Matches):
            self.bucket.bind(key, file)
        self._free(key)
        return self._info(key, file)

    def _judged(self, key: Key, commit: Commit) -> File | None:
        """The file that the condition names (Matches), or None; raises when the condition does not hold."""
        condition = commit.condition
        if condition is not None and not self.capabilities.conditional_put:
            raise Unsupported("This store has no conditional writes.")
        if isinstance(condition, Absent):
            self._refuse_taken(key, owner=self)
        if not isinstance(condition, Matches):
            return None
        by_id = commit.file_id if self.capabilities.links else 0
        file = self.bucket.files.get(by_id) if by_id else self.bucket.keys.get(key)
        if file is None or file.etag != condition.etag:
            raise changed(key)
        return file

    def _base(self, content: Content) -> Blob | None:
        base = content.base
        if base is None or not any(isinstance(piece, Kept) for piece in content.pieces):
            return None
        file = self.bucket.files.get(base.file_id) if self.capabilities.links and base.file_id else self.bucket.keys.get(base.key)
        if file is None or file.etag != base.etag:
            raise changed(base.key)
        return file.blob

    def _file_id(self, commit: Commit) -> int:
        return (commit.file_id if self.capabilities.links else 0) or secrets.randbits(61) + 2

    # -- small questions --------------------------------------------------------------

    async def _begin(self, capability: str) -> None:
        await trio.lowlevel.checkpoint()
        if not getattr(self.capabilities, capability):
            raise Unsupported(f"This store cannot do that (no {capability}).")

    def _valid(self, keys: Iterable[str]) -> None:
        for key in keys:
            require_key(key, self._key_bytes)

    def _file(self, key: str) -> File:
        file = self.bucket.keys.get(key)
        if file is None:
            raise not_found(key)
        return file

    def _matching(self, key: str, etag: ETag | None) -> File:
        file = self._file(key)
        _require(key, file, etag)
        return file

    def _refuse_taken(self, key: str, owner: object = None) -> None:
        if key in self.bucket.keys or self.bucket.reserved.get(key, owner) is not owner:
            raise exists(key)

    def _free(self, key: str) -> None:
        if self.bucket.reserved.get(key) is self:
            del self.bucket.reserved[key]

    def _receiving(self, upload: Upload) -> Receiving:
        receiving = self.bucket.uploads.get(upload.upload_id)
        if receiving is None:
            raise NoSuchUpload(f"The upload of {upload.key!r} is over.")
        return receiving

    def _standing(self, name: str) -> Sequence[str]:
        keys = self.bucket.under(name) if name.endswith("/") else [name] if name in self.bucket.keys else []
        if not keys:
            raise not_found(name)
        return keys

    def _renamed(self, name: str, other: str) -> dict[str, str]:
        target = other.rstrip("/") + ("/" if name.endswith("/") else "")
        return {key: target + key[len(name) :] for key in self._standing(name)}

    def _listed(self, key: str) -> ObjectInfo | None:
        file = self.bucket.keys.get(key)
        return None if file is None else self._info(key, file, listed=True)

    def _info(self, key: str, file: File, *, listed: bool = False) -> ObjectInfo:
        links = self.capabilities.links
        return ObjectInfo(
            Key(key if key in file.keys or not file.keys else min(file.keys)),
            file.blob.size,
            file.etag,
            file.mtime_ns,
            file.content_type,
            file.storage_class,
            file.metadata if self.capabilities.listed_metadata or not listed else None,
            file.id if links else 0,
            len(file.keys) if links else 1,
        )


class MemoryPin:
    """A pinned version: its bytes where versions are kept (*blob*), else its key and ETag."""

    def __init__(self, store: MemoryStore, info: ObjectInfo, blob: Blob | None) -> None:
        self.info = info
        self._store = store
        self._blob = blob
        self._open = True

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        self._require_open()
        if self._blob is None:
            return False
        self._blob.read_into(offset, buffer)
        return True

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        return None

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        self._require_open()
        if self._blob is None:
            await self._store.get_into(self.info.key, ByteRange(offset, offset + buffer.nbytes), buffer, if_match=self.info.etag)
            return
        await trio.lowlevel.checkpoint()
        self._blob.read_into(offset, buffer)

    async def aclose(self) -> None:
        self._open = False

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError(f"the pin of {self.info.key!r} was released")


def _require(key: str, file: File, etag: ETag | None) -> None:
    if etag is not None and file.etag != etag:
        raise changed(key)


def _require_parts(receiving: Receiving, parts: Sequence[Part]) -> None:
    numbers = [part.number for part in parts]
    if not numbers or numbers != sorted(set(numbers)):
        raise InvalidPart(f"The upload of {receiving.upload.key!r} must name its parts in rising order.")
    for part in parts:
        received = receiving.parts.get(part.number)
        if received is None or received[0].etag != part.etag:
            raise InvalidPart(f"Part {part.number} of the upload of {receiving.upload.key!r} was not received so.")


def _fresh_etag() -> ETag:
    return ETag(f"{secrets.token_hex(16)}-m")

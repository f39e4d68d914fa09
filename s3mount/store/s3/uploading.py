"""Making a content an object: one PUT, or a multipart upload of sent and copied parts.

Owns: which of the two, the order of requests, the memory that parts under way may take, the end of an upload that failed.
Must not know: what conditions and metadata mean, how a request is made or repeated (it is handed the verbs).

    adopt -- up to PUT_BYTES --> gather -> put
          -- beyond ----------> create -> parts, PARTS_AT_ONCE at a time -> complete
                                    \\--- any failure, or a cancellation ---> abort (shielded, at most ABORT_S)
                                                 the service copies no parts ---> once more, all parts read and sent

U1  Bytes that are kept of the base come from that version or not at all: they are read, or copied by the service, under its ETag.
U2  All parts in memory, of all uploads together, take at most `Budget` bytes (one part that is larger goes alone).
U3  At most `COPIES_AT_ONCE` parts of all uploads here are being copied by the service (those begun early have their own limit: fs/early).
U4  An upload that is not completed is aborted. Where even that fails its parts stay behind, for the bucket's rule for
    incomplete uploads.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import trio

from s3mount.errors import NoSuchUpload, NotFound, StoreError, Unsupported
from s3mount.model import ByteRange, Content, Hole, Kept, Key, MiB, ObjectInfo, Part, Piece, Staged, Upload
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.rules import changed
from s3mount.store.s3.parts import Copied, Cut, cut, pieces_between
from s3mount.store.s3.together import together

# One PUT up to here: a second and third request (create, complete) cost more than what parts in parallel would win.
PUT_BYTES = 16 * MiB
# Parts of one upload at once: sixteen connections fill most lines. (A mount that sends while it is written judges how many are worth it,
# see fs/width; what goes from here is late by design, or an edit.)
PARTS_AT_ONCE = 16
# Parts that the service copies at once, of all uploads together: each takes it seconds, and a connection that whoever looks may need.
COPIES_AT_ONCE = 32
# Threads that read staged bytes at once; more only queue at the disk.
READERS = 8
# Parts and bodies in memory, all uploads together: sixteen parts of 8 MiB.
BUDGET_BYTES = 128 * MiB
# How long the abort of a failed upload may hold up the caller, who already waits for the error.
ABORT_S = 20.0

logger = logging.getLogger(__name__)


class PartCopy(Protocol):
    """Have the service make a part of a source's bytes; PreconditionFailed where the source is another version."""

    def __call__(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Awaitable[Part]: ...


class Budget:
    """Bytes that may be in memory at once. Who asks for more than there is altogether waits until nobody else has any."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._freed = trio.Condition()

    @asynccontextmanager
    async def holding(self, amount: int) -> AsyncIterator[None]:
        async with self._freed:
            while self._used and self._used + amount > self._size:
                await self._freed.wait()
            self._used += amount
        try:
            yield
        finally:
            self._used -= amount
            with trio.CancelScope(shield=True):
                async with self._freed:
                    self._freed.notify_all()


class Uploading:
    """Contents to objects, by way of *verbs*, a store that repeats what fails for a time."""

    def __init__(self, verbs: ObjectStore, copy_part: PartCopy, *, budget: int = BUDGET_BYTES) -> None:
        self._verbs = verbs
        self._copy_part = copy_part
        self._budget = Budget(budget)
        self._copies = trio.CapacityLimiter(COPIES_AT_ONCE)
        self._disk = trio.CapacityLimiter(READERS)

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        """Make *content* the object. Raises as `put`, and PreconditionFailed where what is kept is another version by now."""
        if content.size <= PUT_BYTES:
            async with self._budget.holding(content.size):
                return await self._verbs.put(key, await self._gather(content, 0, content.size), commit)
        return await self._in_parts(key, commit, content)

    async def copy(self, source: ObjectInfo, target: Key, commit: Commit) -> ObjectInfo:
        """Make *target* what *source* is, whatever its size. Raises PreconditionFailed where that is another version by now."""
        content = Content(source.size, (Kept(0, source.size),), source)
        return await self._in_parts(target, commit, content)

    async def _in_parts(self, key: Key, commit: Commit, content: Content) -> ObjectInfo:
        """Make *content* the object. A second upload follows where the first is ended by somebody else, or the service copies no parts."""
        copies = content.base is not None and self._verbs.capabilities.part_copy
        try:
            return await self._upload(key, commit, content, cut(content, copies=copies))
        except NoSuchUpload as error:
            logger.debug("The upload of %r begins once more: %s", key, error)
        except Unsupported as error:
            if not copies:
                raise
            logger.info("What is kept of %r is not copied, but read and sent: %s", key, error)
            copies = False
        return await self._upload(key, commit, content, cut(content, copies=copies))

    async def _upload(self, key: Key, commit: Commit, content: Content, pieces: Sequence[Cut]) -> ObjectInfo:
        upload = await self._verbs.create_upload(key, commit)
        try:
            jobs = [partial(self._part, content, piece, upload, number) for number, piece in enumerate(pieces, start=1)]
            parts = await together(jobs, at_once=PARTS_AT_ONCE)
            return await self._verbs.complete_upload(upload, parts)
        except BaseException:
            await self._abort(upload)
            raise

    async def _abort(self, upload: Upload) -> None:
        with trio.move_on_after(ABORT_S, shield=True):
            try:
                await self._verbs.abort_upload(upload)
            except StoreError as error:
                logger.warning("The upload of %r could not be aborted, its parts stay behind: %s", upload.key, error)

    async def _part(self, content: Content, piece: Cut, upload: Upload, number: int) -> Part:
        if isinstance(piece, Copied):
            assert content.base is not None
            async with self._copies:
                return await self._copy_part(upload, number, source=content.base, span=ByteRange(piece.start, piece.stop))
        async with self._budget.holding(piece.stop - piece.start):
            return await self._verbs.put_part(upload, number, await self._gather(content, piece.start, piece.stop))

    async def _gather(self, content: Content, start: int, stop: int) -> bytearray:
        """The bytes *start* to *stop* of *content*."""
        buffer = bytearray(stop - start)
        view = memoryview(buffer)
        jobs = [
            partial(self._fill, content.base, piece, view[piece.offset - start : piece.offset - start + piece.length])
            for piece in pieces_between(content, start, stop)
            if not isinstance(piece, Hole)
        ]
        await together(jobs, at_once=PARTS_AT_ONCE)
        return buffer

    async def _fill(self, base: ObjectInfo | None, piece: Piece, buffer: memoryview) -> None:
        if isinstance(piece, Staged):
            await trio.to_thread.run_sync(piece.source.read_into, piece.position, buffer, limiter=self._disk)
        elif isinstance(piece, Kept):
            assert base is not None
            await self._read_kept(base, piece, buffer)

    async def _read_kept(self, base: ObjectInfo, piece: Kept, buffer: memoryview) -> None:
        try:
            await self._verbs.get_into(base.key, ByteRange(piece.offset, piece.offset + piece.length), buffer, if_match=base.etag)
        except (NotFound, ValueError) as error:
            raise changed(base.key) from error

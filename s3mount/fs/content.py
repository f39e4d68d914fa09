"""One inode's bytes: what is kept of the base version, and what was written since.

Owns: the bytes, their size, and the commit that makes them an object.
Must not know: names, attributes, handles, the kernel.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from s3mount.errors import NotFound, PreconditionFailed, S3MountError, Stale
from s3mount.fs.buffers import BufferPool
from s3mount.fs.staging import StagingArea
from s3mount.model import Condition, Key, Matches, ObjectInfo
from s3mount.store.api import Commit, ObjectStore, Pin


@dataclass(frozen=True, slots=True)
class Target:
    """Where a commit goes, and everything about it but the bytes.

    The content replaces `commit.commit_id` by its own, and for an edit `commit.condition` by `Matches(base.etag)`;
    the condition given here (None, or Absent for O_EXCL) is for new and fully overwritten files.
    """

    key: Key
    commit: Commit


class FileContent:
    """Base version, staged bytes and size of one inode, shared by all its handles.

    Use: construct, `open`, any number of `read`, `write`, `truncate`, `commit` by any tasks, `aclose`.
    """

    def __init__(self, store: ObjectStore, staging: StagingArea, buffers: BufferPool, *, base: ObjectInfo | None) -> None:
        """*base* None: a new file, which is `changed` and `untouched` from the start."""
        self._store = store
        self._base = base
        self._committed = base
        self._pin: Pin | None = None
        self._data: bytearray | None = None if base else bytearray()
        self._pending = base is None
        self._untouched = base is None
        self._error: S3MountError | None = None
        self._lock = trio.Lock()
        self._key = base.key if base else None

    @property
    def size(self) -> int:
        """What stat must show now."""
        if self._data is not None:
            return len(self._data)
        assert self._base is not None
        return self._base.size

    @property
    def base(self) -> ObjectInfo | None:
        """The version this content is an edit of; None: new, or emptied (a full overwrite: the commit is unconditional)."""
        return self._base

    @property
    def committed(self) -> ObjectInfo | None:
        """The version that this mount last found or made under the key, whether or not it is still the base."""
        return self._committed

    @property
    def changed(self) -> bool:
        """Something is not committed yet (a new or emptied file counts, and so does what is being sent right now)."""
        return self._pending or self._lock.locked()

    @property
    def untouched(self) -> bool:
        """Created or emptied, and nothing written yet: commit only when the last handle goes."""
        return self._untouched

    @property
    def error(self) -> S3MountError | None:
        """Why the last commit failed; None once one succeeded."""
        return self._error

    async def open(self, key: Key | None = None) -> None:
        """Pin the base, now called *key*, unless it is pinned or not needed. Raises Stale when it was replaced or is gone."""
        self._key = key or self._key
        if self._base is None or self._pin is not None:
            return
        try:
            self._pin = await self._store.pin(self._key or self._base.key, if_match=self._base.etag)
        except (PreconditionFailed, NotFound) as error:
            raise Stale("The object was replaced by somebody else; open it again.") from error

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """The bytes from *offset*, fewer at the end of the file. Valid until the caller's next checkpoint. Raises Stale."""
        data = await self._load()
        return bytes(data[offset : offset + size])

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        """Raises NoSpace: then the file has its former bytes, except that some in *data*'s range may be new."""
        held = await self._load()
        if offset > len(held):
            held.extend(bytes(offset - len(held)))
        held[offset : offset + len(data)] = data
        self._pending, self._untouched = True, False

    async def truncate(self, size: int) -> None:
        """Cut, or grow by zeros. To 0: the base is dropped, the next commit is a full overwrite."""
        if size == 0 and self.size:
            self._data, self._base, self._untouched = bytearray(), None, True
        elif size != self.size:
            held = await self._load()
            held[size:] = bytes(max(0, size - len(held)))
            self._untouched = False
        else:
            return
        self._pending = True

    async def commit(self, target: Callable[[], Target]) -> ObjectInfo:
        """Make the content the object. *target* is called when the request is about to be sent, and may be called again for a retry.

        Waits for a commit under way and then does nothing if nothing changed since. Raises Stale when the base was replaced,
        AlreadyExists for an Absent condition, NoSpace, Unavailable ...; the bytes stay, the error stays in `error`, the next commit sends all.
        """
        async with self._lock:
            if not self._pending and self._committed is not None:
                return self._committed
            data = bytes(await self._load())
            self._pending = self._untouched = False
            try:
                info = await self._send(target(), data)
            except BaseException as error:
                self._pending = True
                if isinstance(error, S3MountError):
                    self._error = error
                raise
            self._base = self._committed = info
            self._error = None
            return info

    async def rebase(self, info: ObjectInfo) -> None:
        """This mount replaced the metadata of the version we stand on: the same bytes are now called *info*."""
        self._committed = info
        if self._base is not None:
            self._base = info

    def moved(self, key: Key) -> None:
        """The object is called *key* now."""
        self._key = key

    async def localise(self, limit: int) -> None:
        """The object is about to go: where the store cannot keep a replaced version, fetch what is needed of it, up to *limit* bytes."""
        if self.size <= limit:
            await self._load()

    async def aclose(self) -> None:
        """Release the pin and the staged bytes; what was not committed is lost. Idempotent."""
        pin, self._pin = self._pin, None
        if pin is not None:
            await pin.aclose()

    def check(self) -> None:
        """Assert the invariants."""

    async def _load(self) -> bytearray:
        if self._data is None:
            await self.open()
            assert self._pin is not None
            held = bytearray(self._pin.info.size)
            if held:
                await self._pin.get_into(0, memoryview(held))
            self._data = held
        return self._data

    async def _send(self, target: Target, data: bytes) -> ObjectInfo:
        condition: Condition = Matches(self._base.etag) if self._base else target.commit.condition
        commit = replace(target.commit, condition=condition, commit_id=secrets.token_hex(16))
        try:
            return await self._store.put(target.key, data, commit)
        except PreconditionFailed as error:
            raise Stale("The object was replaced by somebody else; open it again.") from error

"""Open files: handles, reading and writing, and the commits that make contents objects.

Owns: who holds which content, when it is committed, and what becomes of a failure.
Must not know: how bytes are staged (see content), how names change, the kernel.

A file is live while somebody holds it (a handle, or a request for its duration) or while it waits to be written again after a failure.
Committed is at flush what changed (but not what was created or emptied and not written since: `cmd > file` shall not publish an
empty object first); at fsync and sync, everything; at the last release, whatever is left.

A failure stays with the content and is told by every flush and fsync until a commit succeeds. When nobody holds the file any more, what
may still succeed is tried again (background, sync, aclose); what cannot (base replaced, name taken) is given up, with a log line.

Attributes of a changed content ride with its commit; otherwise they are written at once (see attributes). A large file whose parts went
while it was written has those of the upload's beginning: what was changed since is written after the commit, unless it is only the time of
the last write, which nobody set. A copy of gigabytes within the store is too much for that: the file then says when its sending began.
Commits pass the gate, so that none is under way on a key that is being renamed or removed.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from s3mount.errors import (
    AlreadyExists,
    BadHandle,
    InvalidName,
    IsADirectory,
    NotFound,
    PreconditionFailed,
    S3MountError,
    Stale,
    TooLarge,
)
from s3mount.fs.attrs import Attributes, decode, encode
from s3mount.fs.content import FileContent, Target
from s3mount.fs.inodes import FileInode, Inode, Standing
from s3mount.fs.live import Live
from s3mount.fs.namespace import Namespace, require_live, stale
from s3mount.fs.options import Opened
from s3mount.fs.volume import Volume
from s3mount.model import Absent, Caller, Condition, Key, Matches, Metadata, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit

log = logging.getLogger(__name__)

# Trying again cannot help: somebody else was faster, or the store does not take it.
FINAL = (Stale, PreconditionFailed, AlreadyExists, InvalidName, TooLarge)

# For giving a reservation back when the request was cancelled; it ends with this process in any case.
RELEASE_SECONDS = 5.0


class Files:
    """Handles and commits of one volume."""

    def __init__(self, volume: Volume, namespace: Namespace) -> None:
        self._volume = volume
        self._namespace = namespace
        self._store = volume.store
        self._handles: dict[int, FileInode] = {}
        self._privileged: set[int] = set()
        self._numbers = itertools.count(1)

    # -- holding ----------------------------------------------------------------------

    async def hold(self, inode: FileInode) -> Live:
        """Make *inode* live and hold it; `let_go` gives it back. Raises Stale when its object was replaced."""
        info = await self._namespace.current(inode)
        live = inode.live
        if live is None:
            if info is None:
                raise stale()
            live = self.enliven(inode, info)
        live.holders += 1
        try:
            await self._pin(inode, live)
        except BaseException as error:
            if isinstance(error, Stale):
                self._volume.inodes.displace(inode)
            await self.let_go(inode)
            raise
        return live

    async def _pin(self, inode: FileInode, live: Live) -> None:
        changes = self._volume.changes
        while True:
            key, then = inode.key, changes.now
            try:
                return await live.content.open(Key(key))
            except Stale:
                await self._volume.gate.wait_back(key)
                if inode.key == key and not changes.since(key, then):
                    raise

    def enliven(self, inode: FileInode, base: ObjectInfo) -> Live:
        attributes = self._volume.file_attributes(base)
        inode.live = live = Live(self.new_content(inode, base), attributes, base)
        live.since_ns = self._volume.clock_ns()
        self._volume.live.add(inode)
        return live

    def new_content(self, inode: FileInode, base: ObjectInfo | None) -> FileContent:
        volume = self._volume

        def target() -> Target | None:
            wanted = inode.live is not None and inode.standing is not Standing.UNLINKED
            return self._target(inode, inode.live) if wanted and inode.live is not None else None

        return FileContent(self._store, volume.staging, volume.buffers, base=base, uploads=volume.uploads, target=target)

    async def let_go(self, inode: FileInode) -> None:
        """One holder less; the last one retires what needs no commit any more."""
        live = require_live(inode)
        live.holders -= 1
        if not live.holders and not self._is_wanted(inode, live):
            await self._retire(inode, live)

    @asynccontextmanager
    async def held(self, inode: FileInode) -> AsyncIterator[Live]:
        live = await self.hold(inode)
        try:
            yield live
        finally:
            await self.let_go(inode)

    def _is_wanted(self, inode: FileInode, live: Live) -> bool:
        return inode.standing is not Standing.UNLINKED and (live.content.changed or live.unsaved)

    async def _retire(self, inode: FileInode, live: Live) -> None:
        inode.live = None
        volume = self._volume
        volume.live.discard(inode)
        if live.fresh and volume.fresh.get(inode.key) is inode:
            del volume.fresh[inode.key]
            volume.inodes.unname(inode.key, links_left=False)
        volume.inodes.drop_if_unused(inode)
        await live.content.aclose()
        await self.release_reservation(live)

    async def release_reservation(self, live: Live) -> None:
        if live.reserved is not None:
            key, live.reserved = live.reserved, None
            with trio.move_on_after(RELEASE_SECONDS, shield=True):
                await self._store.release(key)

    # -- handles ----------------------------------------------------------------------

    def handle(self, inode: FileInode, caller: Caller) -> int:
        """A number for one more holder, which has been counted already."""
        fh = next(self._numbers)
        self._handles[fh] = inode
        if caller.uid == 0:
            self._privileged.add(fh)
        return fh

    def inode_of(self, fh: int) -> FileInode:
        inode = self._handles.get(fh)
        if inode is None:
            raise BadHandle("The file is not open.")
        return inode

    def _live_of(self, fh: int) -> Live:
        inode = self._handles.get(fh)
        if inode is None or inode.live is None:
            raise BadHandle("The file is not open.")
        return inode.live

    async def open(self, inode: Inode, flags: int, caller: Caller) -> Opened:
        """Raises Stale when the object was replaced: the kernel then looks the name up again and finds the new inode."""
        if not isinstance(inode, FileInode):
            raise IsADirectory("That is a directory.")
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self._volume.require_writable()
        live = await self.hold(inode)
        try:
            if flags & os.O_TRUNC and live.content.size:
                await live.content.truncate(0)
                live.written(self._volume.clock_ns(), privileged=caller.uid == 0)
        except BaseException:
            await self.let_go(inode)
            raise
        return Opened(self.handle(inode, caller), keep_cache=True)

    async def read(self, fh: int, offset: int, size: int) -> memoryview | bytes:
        return await self._live_of(fh).content.read(offset, size)

    async def write(self, fh: int, offset: int, data: bytes | memoryview) -> int:
        live = self._live_of(fh)
        await live.content.write(offset, data)
        live.written(self._volume.clock_ns(), privileged=fh in self._privileged)
        return len(data)

    async def flush(self, fh: int) -> None:
        inode, live = self.inode_of(fh), self._live_of(fh)
        live.settled = True
        if self._is_wanted(inode, live) and not live.content.untouched:
            await self.save(inode)
            if self._volume.options.sync == "close":
                await self._sync(inode)

    async def fsync(self, fh: int) -> None:
        inode = self.inode_of(fh)
        if inode.standing is Standing.UNLINKED:
            return
        await self.save(inode)
        await self._sync(inode)

    async def release(self, fh: int) -> None:
        """The last one commits what is left. Raises as a commit does; the handle is gone in any case."""
        inode, live = self.inode_of(fh), self._live_of(fh)
        del self._handles[fh]
        self._privileged.discard(fh)
        try:
            if live.holders == 1 and self._is_wanted(inode, live):
                await self.save(inode)
                if self._volume.options.sync == "close":
                    await self._sync(inode)
        except FINAL as error:
            self._give_up(inode, live, error)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self.let_go(inode)

    def _give_up(self, inode: FileInode, live: Live, error: S3MountError) -> None:
        """What waits will never be committed: the file goes with its last holder."""
        if live.holders > 1:
            return
        log.error("%r is given up uncommitted: %s", inode.key, error)
        if live.fresh:
            self._volume.fresh.pop(inode.key, None)
            self._volume.inodes.unname(inode.key, links_left=False)
        else:
            self._volume.inodes.displace(inode)
        inode.standing = Standing.UNLINKED

    async def _sync(self, inode: FileInode) -> None:
        if not self._volume.can.durable and inode.standing is Standing.NAMED:
            await self._store.sync(Key(inode.key))

    # -- commits ----------------------------------------------------------------------

    async def save(self, inode: FileInode) -> None:
        """Commit the content if it changed, else write the attributes if they did. Raises as `FileContent.commit`.

        Does nothing for a file that nobody holds any more.
        """
        live = inode.live
        if live is None:
            return
        live.holders += 1
        try:
            if self._is_wanted(inode, live) and live.content.changed:
                await self._commit(inode, live)
            if self._is_wanted(inode, live) and not live.content.changed:
                await self._save_attributes(inode, live)
        finally:
            await self.let_go(inode)

    async def _commit(self, inode: FileInode, live: Live) -> None:
        sent = None
        key = await self._volume.gate.wait_free(lambda: inode.key)
        if inode.standing is Standing.UNLINKED:
            return

        def target() -> Target:
            nonlocal sent
            sent = live.attributes
            return self._target(inode, live)

        live.in_flight += 1
        try:
            with self._volume.gate.using(key):
                info = await live.content.commit(target)
                self._committed(inode, live, info)
        finally:
            live.in_flight -= 1
        if live.attributes is sent and sent is not None and info.metadata is not None:
            self._compare(live, sent, info.metadata)

    def _compare(self, live: Live, sent: Attributes, got: Metadata) -> None:
        """Whether an object that was to have *sent* has that; the metadata *got* may be those of the beginning of its upload."""
        has = {name: value for name, value in got.items() if name != COMMIT_ID}
        if has == encode(sent, live.foreign):
            live.unsaved = False
            return
        early = decode(got, directory=False, mtime_ns=sent.mtime_ns, defaults=self._volume.defaults)
        as_early = replace(sent, atime_ns=early.atime_ns, mtime_ns=early.mtime_ns, ctime_ns=early.ctime_ns)
        nobody_set_them = live.since_ns <= min(sent.mtime_ns, sent.atime_ns) and sent.mtime_ns <= self._volume.clock_ns()
        if nobody_set_them and has == encode(as_early, live.foreign):
            live.took(as_early)

    def _target(self, inode: FileInode, live: Live) -> Target:
        condition: Condition = Absent() if live.fresh and live.exclusive and self._volume.can.conditional_put else None
        if inode.standing is Standing.UNNAMED and live.content.committed is not None:
            condition = Matches(live.content.committed.etag)
        commit = Commit(
            condition=condition,
            metadata=encode(live.attributes, live.foreign),
            content_type=live.content_type,
            storage_class=live.storage_class,
            file_id=inode.file_id,
        )
        return Target(Key(inode.key), commit)

    def _committed(self, inode: FileInode, live: Live, info: ObjectInfo) -> None:
        volume = self._volume
        if live.fresh:
            volume.fresh.pop(inode.key, None)
            live.fresh = live.exclusive = False
            live.reserved = None if live.reserved == inode.key else live.reserved
        inode.saw(info)
        live.links = info.links
        inode.file_id = info.file_id or inode.file_id
        if inode.standing in (Standing.DISPLACED, Standing.UNNAMED):
            volume.inodes.name(inode, info.key)
        volume.mutated(inode.key)

    async def _save_attributes(self, inode: FileInode, live: Live) -> None:
        """Write the attributes alone; one request at a time, and again where they change meanwhile."""
        while live.saving is not None:
            await live.saving.wait()
        if not live.unsaved or live.content.changed or live.content.committed is None:
            return
        live.saving = trio.Event()
        try:
            await self._update(inode, live, live.content.committed)
        finally:
            live.saving.set()
            live.saving = None

    async def _update(self, inode: FileInode, live: Live, committed: ObjectInfo) -> None:
        volume = self._volume
        key = await volume.gate.wait_free(lambda: inode.key)
        if inode.standing not in (Standing.NAMED, Standing.UNNAMED):
            live.unsaved = False  # there is no object left that could have them
            return
        sent = live.attributes
        live.in_flight += 1
        try:
            with volume.gate.using(key):
                metadata = encode(sent, live.foreign)
                info = await self._store.update(Key(key), metadata, if_match=committed.etag, file_id=inode.file_id)
                inode.saw(info)
                await live.content.rebase(info, former=committed.etag)
                volume.mutated(key)
        except (PreconditionFailed, NotFound):
            if live.content.committed is not committed:
                return  # a commit of ours was faster, and took the attributes along
            volume.inodes.displace(inode)
            live.unsaved = False
            raise stale() from None
        finally:
            live.in_flight -= 1
        if live.attributes is sent:
            live.unsaved = False

    async def save_all(self, prefix: str = "") -> list[S3MountError]:
        """Commit everything below *prefix*, several at a time; the reasons of those that failed."""
        failures: list[S3MountError] = []
        slots = trio.CapacityLimiter(COMMITS_AT_ONCE)

        async def save_one(inode: FileInode) -> None:
            async with slots:
                failures.extend(await self._try_save(inode))

        async with trio.open_nursery() as nursery:
            for inode in list(self._volume.live):
                if inode.key.startswith(prefix) and inode.live is not None and self._is_wanted(inode, inode.live):
                    nursery.start_soon(save_one, inode)
        return failures

    async def _try_save(self, inode: FileInode) -> list[S3MountError]:
        live = inode.live
        if live is None:
            return []
        live.holders += 1
        failures: list[S3MountError] = []
        try:
            await self.save(inode)
        except S3MountError as error:
            failures.append(error)
            if isinstance(error, FINAL):
                self._give_up(inode, live, error)
        finally:
            with trio.CancelScope(shield=True):
                await self.let_go(inode)
        return failures

    async def retry_waiting(self) -> None:
        """Try again to commit what nobody holds any more."""
        for inode in [inode for inode in self._volume.live if inode.live is not None and not inode.live.holders]:
            await self._try_save(inode)

    async def aclose(self) -> None:
        """Drop every content; what is not committed is lost."""
        for inode in list(self._volume.live):
            if inode.live is not None:
                await self._retire(inode, inode.live)

    def check(self) -> None:
        holders: dict[FileInode, int] = {}
        for inode in self._handles.values():
            holders[inode] = holders.get(inode, 0) + 1
        for inode in self._volume.live:
            assert inode.live is not None
            assert inode.live.holders >= holders.pop(inode, 0)
            inode.live.content.check()
        assert not holders


# Commits that sync and aclose run at a time: enough to hide the store's latency.
COMMITS_AT_ONCE = 16

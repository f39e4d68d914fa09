"""Open files: handles, reading and writing, and the commits that make contents objects.

Owns: who holds which content, when it is committed, and what becomes of a failure.
Must not know: how bytes are staged (see content), how names change, the kernel.

A file is live while somebody holds it (a handle, or a request for its duration) or while it waits to be written again after a failure.
Committed is at flush what changed (but not what was created or emptied and not written since: `cmd > file` shall not publish an
empty object first); at fsync and sync, everything; at the last release, whatever is left.

A failure stays with the content and is told by every flush and fsync until a commit succeeds. When nobody holds the file any more, what
may still succeed is tried again (background, sync, aclose); what cannot (base replaced, name taken) is given up, with a log line.

Changed attributes of a file whose content is not are saved at once or before long (see deferred): such a file is live with nobody who
holds it. What goes to the store is told in `saving`.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractContextManager, asynccontextmanager

import trio

from s3mount.errors import (
    AlreadyExists,
    BadHandle,
    InvalidName,
    IsADirectory,
    PreconditionFailed,
    S3MountError,
    Stale,
    TooLarge,
)
from s3mount.fs.content import FileContent, Target
from s3mount.fs.deferred import Deferred
from s3mount.fs.inode import FileInode, Inode, Standing
from s3mount.fs.kept import Outstanding
from s3mount.fs.leftover import Leftover
from s3mount.fs.live import Live
from s3mount.fs.namespace import Namespace, require_live, stale
from s3mount.fs.options import Opened
from s3mount.fs.saving import Saving
from s3mount.fs.volume import Volume
from s3mount.model import Caller, Key, ObjectInfo
from s3mount.store.api import Commit
from s3mount.store.aspects import whole

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
        self._leftover = Leftover(volume)
        self._saving = Saving(volume)
        self.deferred = Deferred(self._save_deferred)

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
            if info is not None:
                await self.found(inode, live, info)
            await self._pin(inode, live)
        except BaseException as error:
            if isinstance(error, Stale):
                self._volume.inodes.displace(inode)
            await self.let_go(inode)
            raise
        return live

    async def enliven_idle(self, inode: FileInode) -> None:
        """Make *inode* live with nobody who holds it, unless it is; for a change that follows without a checkpoint. Raises Stale."""
        info = await self._namespace.current(inode)
        if inode.live is None and info is not None and inode.key == info.key:
            self.enliven(inode, info)

    async def complete(self, live: Live) -> None:
        """Before a change: know all that the object says, where only a listing told of it; the change would drop the rest."""
        base = live.content.committed
        if not live.whole and base is not None:
            info = await whole(self._store, base)
            live.is_whole(info, self._volume.file_attributes(info))

    async def settled(self, inode: FileInode) -> ObjectInfo | None:
        """The object of *inode*, while no change of its attributes is under way; None where there is none. Raises Stale."""
        while True:
            while inode.live is not None and inode.live.saving is not None:
                await inode.live.saving.wait()
            info = await self._namespace.current(inode)
            if info is not None or inode.live is None or inode.live.saving is None:
                return info

    async def change_later(self, inode: FileInode) -> None:
        """The attributes of *inode* have changed: have them saved before long; at once where nothing runs in the background."""
        if self.defers:
            await self.deferred.add(inode)
        else:
            await self.save(inode)

    @property
    def defers(self) -> bool:
        """Whether changes of attributes wait for company: where each is a request, and nobody nearer takes it."""
        return self.deferred.running and self._volume.can.durable and not self._volume.can.cheap_metadata

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
            return self._saving.target(inode, inode.live) if wanted and inode.live is not None else None

        return FileContent(self._store, volume.staging, volume.buffers, base=base, uploads=volume.uploads, target=target)

    async def let_go(self, inode: FileInode) -> None:
        """One holder less; the last one retires what needs no commit any more. Not cancellable: nor is anything that it waits for."""
        live = require_live(inode)
        live.holders -= 1
        if not live.holders and not self._is_wanted(inode, live):
            await self._retire(inode, live)

    async def retire_if_idle(self, inode: FileInode) -> None:
        """The file may have lost its name: nobody need write what waited."""
        live = inode.live
        if live is not None and not live.holders and not self._is_wanted(inode, live):
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
        inode.live, inode.was_live = None, True
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
            if flags & (os.O_ACCMODE | os.O_TRUNC):
                await self.complete(live)
            if flags & os.O_TRUNC and (live.content.size or live.content.incomplete):
                await live.content.truncate(0)
                live.written(self._volume.clock_ns(), privileged=caller.uid == 0)
        except BaseException:
            await self.let_go(inode)
            raise
        # The kernel may show bytes that it could not hand over.
        return Opened(self.handle(inode, caller), keep_cache=not live.content.incomplete)

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
            await self._save_content(inode, live)
            if self._volume.options.sync == "close":
                await self._sync(inode)

    async def fsync(self, fh: int) -> None:
        inode = self.inode_of(fh)
        if inode.standing is Standing.UNLINKED:
            return
        await self.save(inode)
        await self._volume.arrive(inode.key)
        await self._sync(inode)

    def has_to_commit(self, fh: int) -> bool:
        """Whether `release` of *fh* commits something."""
        inode = self._handles.get(fh)
        return inode is not None and inode.live is not None and inode.live.holders == 1 and self._is_wanted(inode, inode.live)

    async def release(self, fh: int) -> None:
        """The last one commits what is left. Raises as a commit does; the handle is gone in any case."""
        inode, live = self.inode_of(fh), self._live_of(fh)
        del self._handles[fh]
        self._privileged.discard(fh)
        try:
            if live.holders == 1 and self._is_wanted(inode, live):
                await self._save_content(inode, live)
                if self._volume.options.sync == "close":
                    await self._sync(inode)
        except FINAL as error:
            await self._give_up(inode, live, error)
            raise
        finally:
            await self.let_go(inode)

    async def _save_content(self, inode: FileInode, live: Live) -> None:
        """For close: commit the content. What else has changed goes with it, or goes on waiting: after fchmod(2) comes a close as well."""
        await (self.save(inode) if live.content.changed else self.change_later(inode))

    async def _give_up(self, inode: FileInode, live: Live, error: S3MountError) -> None:
        """What waits will never be committed: kept aside, it goes with its last holder; where it cannot be kept, it waits on."""
        if not live.content.changed:
            if not live.unsaved or live.holders <= 1:
                live.unsaved = False
                log.warning("The attributes of %r are given up: %s", inode.key, error)
            return
        if live.holders > 1:
            return
        kept = await self._leftover.keep(live, self._saving.target(inode, live), error, reachable=True)
        if kept and live.holders <= 1 and inode.standing is not Standing.UNLINKED:
            self._abandon(inode, live)

    def _abandon(self, inode: FileInode, live: Live) -> None:
        """Nothing of it is ever committed; whatever has its name is found there from now on."""
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
                await self._saving.commit(inode, live)
            if self._is_wanted(inode, live) and not live.content.changed:
                await self._saving.save_attributes(inode, live)
        finally:
            await self.let_go(inode)

    def renewing(self, inode: FileInode) -> AbstractContextManager[None]:
        """See `Saving.renewing`."""
        return self._saving.renewing(inode)

    async def found(self, inode: FileInode, live: Live, info: ObjectInfo) -> None:
        """See `Saving.found`."""
        await self._saving.found(inode, live, info)

    async def _save_deferred(self, inode: FileInode) -> None:
        live = inode.live
        if live is not None and not live.content.changed:
            for error in await self._try_save(inode):
                if live.unsaved:
                    log.warning("The attributes of %r are not saved yet: %s", inode.key, error)

    def described(self, inode: FileInode) -> Commit | None:
        """See `Saving.described`."""
        return self._saving.described(inode)

    async def carried(self, inode: FileInode, info: ObjectInfo) -> None:
        """The object of *inode* was copied, and the copy *info* goes on as it."""
        await self._saving.carried(inode, info)
        await self.retire_if_idle(inode)

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
                await self._give_up(inode, live, error)
        finally:
            await self.let_go(inode)
        return failures

    async def retry_waiting(self) -> None:
        """Try again to commit what nobody holds any more; what fails again and again, ever more seldom: each try may send gigabytes."""
        for inode in list(self._volume.live):
            live = inode.live
            if live is not None and not live.holders and trio.current_time() >= live.due_s:
                await self._try_save(inode)
                live.due_s = trio.current_time() + min(RETRY_S * 2 ** min(live.tries, RETRY_DOUBLINGS), RETRY_MAX_S)

    async def aclose(self) -> None:
        """Drop every content; what is not committed is kept aside, or lost."""
        for inode in list(self._volume.live):
            if (live := inode.live) is None:
                continue
            if live.content.changed and self._is_wanted(inode, live) and self._volume.options.keep is not None:
                await self._leftover.keep(live, self._saving.target(inode, live), live.content.error, reachable=False)
            await self._retire(inode, live)

    async def retry(self, keys: Collection[str]) -> dict[str, str]:
        """Try again now what failed before, of *keys*; the reasons of those that failed again."""
        waiting = [inode for inode in self._volume.live if inode.key in keys and inode.live is not None and inode.live.failed_ns]
        return {inode.key: str(failures[0]) for inode in waiting if (failures := await self._try_save(inode))}

    async def discard(self, keys: Collection[str]) -> list[str]:
        """Let go of what failed before, of *keys*, where nobody has the file open; which that was."""
        discarded: list[str] = []
        for inode in list(self._volume.live):
            live = inode.live
            if live is None or inode.key not in keys or live.holders or not live.failed_ns or not live.content.changed:
                continue
            discarded.append(inode.key)
            live.holders += 1
            self._abandon(inode, live)
            await self.let_go(inode)
        return discarded

    def outstanding(self) -> Outstanding:
        """What is not committed now."""
        uncommitted = [inode for inode in self._volume.live if inode.live is not None and self._is_wanted(inode, inode.live)]
        return self._leftover.outstanding(uncommitted, open_files=len(self._handles))

    def check(self) -> None:
        holders: dict[FileInode, int] = {}
        for inode in self._handles.values():
            holders[inode] = holders.get(inode, 0) + 1
        for inode in self._volume.live:
            assert inode.live is not None
            assert inode.live.holders >= holders.pop(inode, 0)
            inode.live.content.check()
        assert not holders


# How long a failed commit rests before the background tries it again: doubled each time, up to some minutes.
RETRY_S = 1.0
RETRY_DOUBLINGS = 10
RETRY_MAX_S = 300.0

# Commits that sync and aclose run at a time: enough to hide the store's latency.
COMMITS_AT_ONCE = 16

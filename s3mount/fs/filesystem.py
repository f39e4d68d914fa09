"""POSIX semantics over an object store: one method per operation, composed of the rooms around.

Owns: the way from numbers (inodes, handles) to what they stand for, and the background.
Must not know: the kernel, pyfuse3, any particular store.

    names, listing, attrs      pure: keys and names, pages to entries, attributes in metadata
    inodes, live, volume       who is known, who is held, what only this mount knows; nothing awaits
    gate                       keeps commits off names that move; tells late answers
    namespace                  looking: name -> object -> inode -> stat
    files, content             handles, bytes, commits
    entries, rename, metadata  changing names and attributes
    dirs                       reading directories
    following                  what others do, heard
    cooling                    what nobody looks at any more, forgotten

Permissions are the kernel's to check (default_permissions). Nothing that READ, WRITE, GETATTR or LOOKUP of other names needs is held across
a request to the store.
"""

from __future__ import annotations

import logging
import stat
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from math import inf

import trio

from s3mount.errors import Invalid, OutcomeUnknown, S3MountError, Throttled, TimedOut, Unavailable
from s3mount.fs.attrs import AttrChange
from s3mount.fs.cooling import Cooling
from s3mount.fs.dirs import Directories, Take
from s3mount.fs.entries import TARGET_BYTES, Entries
from s3mount.fs.files import Files
from s3mount.fs.following import Following
from s3mount.fs.inode import ROOT, DirInode, FileInode
from s3mount.fs.kept import Outstanding
from s3mount.fs.metadata import Metadata
from s3mount.fs.namespace import Namespace
from s3mount.fs.options import FsOptions, Invalidate, Opened
from s3mount.fs.rename import End, Renames
from s3mount.fs.volume import Volume
from s3mount.model import SOMEBODY, Attr, ByteRange, Caller, Key, Space
from s3mount.store.api import ObjectStore

# A power cut may cost what was closed in the last 5 s, as on a local disk; one second of them is for the syncing itself.
SYNC_SECONDS = 4.0

# How often failed commits are tried again, and for how long a directory must be quiet for its time to be written.
BACKGROUND_SECONDS = 5.0

# What may be otherwise in a moment.
TRANSIENT = (Unavailable, TimedOut, Throttled, OutcomeUnknown)

log = logging.getLogger(__name__)


# All may have arrived when nobody waits any more: so long it may take to find that out.
LAST_LOOK_S = 1.0

# What is still to be written into a journal on local disk is, however short the user wants to wait for the bucket.
AT_HAND_S = 2.0


class Filesystem:
    """A mounted bucket, or a prefix of one. All times are nanoseconds since 1970, errors as in `s3mount.errors`."""

    ROOT = ROOT

    def __init__(
        self,
        store: ObjectStore,
        options: FsOptions,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        invalidate: Invalidate | None = None,
    ) -> None:
        self._volume = volume = Volume(store, options, clock_ns=clock_ns, invalidate=invalidate)
        self._store = volume.store
        self._inodes = volume.inodes
        self._namespace = namespace = Namespace(volume)
        self._files = files = Files(volume, namespace)
        self._entries = entries = Entries(volume, namespace, files)
        self._metadata = metadata = Metadata(volume, namespace, files)
        self._renames = Renames(volume, namespace, files, entries, metadata)
        self._directories = Directories(volume, namespace)
        self._following = Following(volume, namespace)
        self._cooling = Cooling(volume, namespace)

    @property
    def is_near(self) -> bool:
        """Whether the store is of this machine, so that most requests are answered without waiting."""
        return self._volume.can.cheap_metadata

    @property
    def commits_here(self) -> bool:
        """Whether a close waits for this machine's disk alone, as a rule: the store gets it later."""
        return self._volume.can.deferred and self._volume.options.sync != "close"

    # -- names ------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes, caller: Caller | None = None) -> Attr:
        """One lookup more. Raises NoEntry."""
        return await self._namespace.lookup(self._directory(parent), name)

    def forget(self, ino: int, count: int) -> None:
        """The kernel gives *count* lookups back. While there are too many inodes, it is asked for the next ones: walks outrun it."""
        self._inodes.forget(ino, count)
        self._namespace.expel()

    async def create(self, parent: int, name: bytes, *, mode: int, flags: int, caller: Caller) -> tuple[int, Attr]:
        """A new file, or the one that is there (unless O_EXCL), opened: its handle, and its attributes, looked up once more."""
        return await self._entries.create(self._directory(parent), name, mode=mode, flags=flags, caller=caller)

    async def mknod(self, parent: int, name: bytes, *, mode: int, rdev: int, caller: Caller) -> Attr:
        """A regular file, fifo, socket or device. One lookup more, as for all that follow."""
        return await self._entries.mknod(self._directory(parent), name, mode=mode, rdev=rdev, caller=caller)

    async def mkdir(self, parent: int, name: bytes, *, mode: int, caller: Caller) -> Attr:
        return await self._entries.mkdir(self._directory(parent), name, mode=mode, caller=caller)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attr:
        return await self._entries.symlink(self._directory(parent), name, target, caller)

    async def link(self, ino: int, parent: int, name: bytes) -> Attr:
        return await self._entries.link(self._inodes.get(ino), self._directory(parent), name)

    async def unlink(self, parent: int, name: bytes) -> None:
        await self._entries.unlink(self._directory(parent), name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self._entries.rmdir(self._directory(parent), name)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, flags: int = 0) -> None:
        """*flags*: `rename.NOREPLACE` or `rename.EXCHANGE`."""
        source, target = End(self._directory(parent), name), End(self._directory(new_parent), new_name)
        await self._renames.rename(source, target, flags=flags)

    async def readlink(self, ino: int) -> bytes:
        inode = self._inodes.get(ino)
        info = await self._files.settled(inode) if isinstance(inode, FileInode) else None
        if info is None or not stat.S_ISLNK(self._volume.file_attributes(info).mode) or info.size > TARGET_BYTES:
            raise Invalid("That is not a symbolic link.")
        target = bytearray(info.size)
        if target:
            await self._store.get_into(Key(info.key), ByteRange(0, info.size), memoryview(target), if_match=info.etag)
        return bytes(target)

    def _directory(self, ino: int) -> DirInode:
        return self._namespace.directory(ino)

    # -- attributes -------------------------------------------------------------------

    async def getattr(self, ino: int) -> Attr:
        return await self._namespace.getattr(self._inodes.get(ino))

    async def setattr(self, ino: int, change: AttrChange, *, fh: int | None = None, caller: Caller) -> Attr:
        """Through a handle (*fh*) or not makes no difference: both mean the inode."""
        return await self._metadata.setattr(self._inodes.get(ino), change, caller)

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        return await self._metadata.getxattr(self._inodes.get(ino), name)

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        await self._metadata.setxattr(self._inodes.get(ino), name, value, flags)

    async def listxattr(self, ino: int) -> list[bytes]:
        return sorted(await self._metadata.xattrs(self._inodes.get(ino)))

    async def removexattr(self, ino: int, name: bytes) -> None:
        await self._metadata.removexattr(self._inodes.get(ino), name)

    # -- files ------------------------------------------------------------------------

    async def open(self, ino: int, flags: int, caller: Caller = SOMEBODY) -> Opened:
        """Raises Stale when the object was replaced by somebody else: its name then leads to a new inode."""
        return await self._files.open(self._inodes.get(ino), flags, caller)

    async def read(self, fh: int, offset: int, size: int) -> memoryview | bytes:
        """Short at the end of the file. Valid until the caller's next checkpoint."""
        return await self._files.read(fh, offset, size)

    async def write(self, fh: int, offset: int, data: bytes | memoryview) -> int:
        return await self._files.write(fh, offset, data)

    async def flush(self, fh: int) -> None:
        await self._files.flush(fh)

    async def fsync(self, fh: int, datasync: bool = False) -> None:
        """On return the file is in the store, safe from a power cut."""
        await self._files.fsync(fh)

    async def release(self, fh: int) -> None:
        await self._files.release(fh)

    def has_to_commit(self, fh: int) -> bool:
        """Whether `release` has something to commit, and may take as long as that does."""
        return self._files.has_to_commit(fh)

    # -- directories ------------------------------------------------------------------

    async def opendir(self, ino: int) -> int:
        return self._directories.open(self._directory(ino))

    async def readdir(self, fh: int, start_id: int, take: Take) -> None:
        """Offer *take* the entries behind *start_id* (0: from the beginning, seen anew), without "." and "..", until it refuses one.

        Those accepted have one lookup more. *take* gets name, attributes, and the id behind which reading goes on: 1 or more, below 2**62.
        """
        await self._directories.read(fh, start_id, take)

    async def releasedir(self, fh: int) -> None:
        self._directories.release(fh)

    async def fsyncdir(self, fh: int, datasync: bool = False) -> None:
        """On return everything below is in the store, safe from a power cut."""
        await self._save(self._directories.inode_of(fh).key)

    # -- the whole --------------------------------------------------------------------

    async def statfs(self) -> Space:
        return await self._store.space()

    async def sync(self) -> None:
        """On return everything so far is committed, and safe from a power cut. Raises the failures as one."""
        await self._save("")

    async def _save(self, prefix: str, *, sync: Callable[[], Awaitable[None]] | None = None, by: float | None = None) -> None:
        """*by*: no longer than until then, nor than `flush_timeout_s`, but for `AT_HAND_S`; None: as long as it takes."""
        failures: list[Exception] = []
        limit, now = self._volume.options.flush_timeout_s, trio.current_time()
        with trio.move_on_at(inf if by is None else max(min(by, now + limit), now + AT_HAND_S)) as saving:
            failures.extend(await self._files.save_all(prefix))
        if saving.cancelled_caught:
            failures.append(Unavailable(f"After {limit:g} s there is no room for all that is to be stored."))
        try:
            await self._volume.settle(prefix)
            await self._metadata.save_all_times(prefix)
            await (sync or self._store.sync)()
        except S3MountError as error:
            failures.append(error)
        raise_as_one(failures)

    async def recover(self) -> None:
        """Before anything else: finish what a former mount of the bucket left half done. Never fails."""
        await self._renames.recover()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The background, until cancelled: syncs what was committed, writes directories' times, tries failed commits again."""
        async with trio.open_nursery() as nursery:
            if not self._volume.can.deferred:
                nursery.start_soon(self._sync_soon)
            nursery.start_soon(self._tidy)
            nursery.start_soon(self._following.run)
            nursery.start_soon(self._cooling.run)
            await nursery.start(self._files.deferred.run)
            if self._volume.moving is not None:
                await nursery.start(self._volume.moving.run)
            if self._volume.uploads is not None:
                await nursery.start(self._volume.uploads.run)
            task_status.started()

    async def _sync_soon(self) -> None:
        while True:
            await self._volume.unsynced.wait()
            await trio.sleep(SYNC_SECONDS)
            self._volume.unsynced = trio.Event()
            try:
                await self._store.sync()
            except S3MountError:
                self._volume.unsynced.set()

    async def _tidy(self) -> None:
        while True:
            await trio.sleep(BACKGROUND_SECONDS)
            await self._files.retry_waiting()
            try:
                await self._metadata.save_quiet_times()
            except S3MountError:
                pass  # they stay with their directories until next time

    async def aclose(self, *, by: float = inf) -> None:
        """Commit what is open, sync, drop everything. What could not be committed is kept aside, and raised as one.

        *by*: when, by trio's clock, a store that gets commits later is not waited for any more; each step has `flush_timeout_s` at most.
        """
        try:
            if self._volume.can.deferred:
                await self._save("", sync=partial(self._sync_in_time, by), by=by)
            else:
                await self._save("")
        finally:
            with trio.CancelScope(shield=True):
                await self._files.aclose()

    async def _sync_in_time(self, by: float) -> None:
        """Until the store has got what is safe on local disk, however often that takes, but not longer than the user wants to wait."""
        limit, refusals = self._volume.options.flush_timeout_s, set[str]()
        now = trio.current_time()
        with trio.move_on_at(max(min(by, now + limit), now + min(limit, LAST_LOOK_S))):
            while True:
                try:
                    return await self._store.sync()
                except TRANSIENT as error:
                    log.info("Not everything is in the bucket yet: %s", error)
                except S3MountError as error:
                    if str(error) in refusals:
                        raise
                    refusals.add(str(error))  # the others may arrive all the same
                await trio.sleep(1)
        raise Unavailable(f"After {limit:g} s not all is in the bucket; the rest is safe, and the next mount with --write-back sends it.")

    async def retry(self, keys: Collection[str]) -> dict[str, str]:
        """Do now what could not be done before, of *keys*; why some of them still cannot be stored, copied or deleted."""
        moving = self._volume.moving
        return await self._files.retry(keys) | (await moving.retry(keys) if moving is not None else {})

    async def discard(self, keys: Collection[str]) -> list[str]:
        """Give up what could not be committed, of *keys*, where nobody has it open; which that was."""
        return await self._files.discard(keys)

    def outstanding(self) -> Outstanding:
        """What is not in the store yet, as far as this mount knows; asked at any time, waits for nothing."""
        moving, files = self._volume.moving, self._files.outstanding()
        return files if moving is None else replace(files, renamed=moving.outstanding())

    def check(self) -> None:
        """Assert the invariants; for tests."""
        self._inodes.check()
        self._volume.check()
        self._volume.gate.check()
        self._files.check()
        self._directories.check()


def raise_as_one(failures: list[Exception]) -> None:
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("Not everything could be committed.", failures)

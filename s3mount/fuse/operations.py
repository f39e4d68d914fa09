"""One handler per kernel request: translate in, call the file system, translate out.

Owns: the translation, the deadline of every request, and the only net: nothing but FUSEError may leave a handler (anything else
takes the mount down with it).
Must not know: objects, keys, commits.

- No INTERRUPT reaches us, so every handler has a deadline after which it is cancelled and answers ETIMEDOUT. At the end of a mount that of
  commits comes earlier (`commits`): nobody waits in a `close` for a store that is away when the mount itself no longer does.
- The buffer that `Filesystem.read` returns is valid until the next checkpoint: nothing here awaits between it and the reply.
- RELEASE is a background request for the kernel, like readahead and writeback, and only `max_background` of those run at once (12, unless
  raised). Nobody waits for its answer. So a few are served in place; beyond `RELEASES_IN_PLACE` they are answered first and go on in the
  nursery, and slow commits cannot hold up everybody's reads.
- Where the handshake could not spare us that, the kernel asks for `security.capability` before every write(2): answered at once. It, labels
  and access control lists are "not supported" rather than "not there": then `ls -l` asks once per mount and not once per file, which was
  half of its price. ENOSYS to any xattr request ends xattrs for the mount (`xattrs=False`).
- A file that is copied in (cp, Linux 6.18) costs LOOKUP, CREATE, GETXATTR, WRITE, SETATTR, FLUSH, RELEASE, and GETATTR of the directory
  before the next one. Eight, and none of them can be spared: the kernel looks a name up before it creates it unless it holds a
  negative entry; asks for `security.capability` once for each inode that is written; owns the times (writeback cache), hence hands them
  over; forgets a directory's attributes with each change in it, and needs them to check permissions. tar adds a SETATTR each for owner,
  mode and times, and another GETXATTR. So each has to be cheap: no cancel scope where nothing waits (see deadline; `_close`).
- ENOENT says that there is no such name, and goes straight to the user. A request that names an inode by its number (an open, too, and what
  makes an entry in a directory) cannot know that: it says ESTALE, upon which the kernel walks the path once more and believes nothing that
  it remembers. So nothing but `BY_NAME` answers ENOENT, whatever the reason was.
- `.` and `..` have the positions 1 and 2 in a listing; the file system's own follow, shifted by `DOTS`.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, SetattrFields, StatvfsData

from s3mount.errors import AlreadyExists, FsError, InvalidName, NoEntry, NotFound, TooLarge, Unsupported, errno_of
from s3mount.fs.filesystem import Filesystem
from s3mount.fuse.attributes import dot_entry, no_entry, to_change, to_entry, to_statvfs
from s3mount.fuse.deadline import Bounded, strictly_within, within
from s3mount.model import Attr, Caller

log = logging.getLogger(__name__)

# How many RELEASEs are served before they are answered: below the kernel's smallest max_background by a margin.
RELEASES_IN_PLACE = 4

DOTS = 2

# Refusals are logged once each; this many are remembered.
REFUSALS_REMEMBERED = 1000

# Requests about a name that must be there. (CREATE and its kind are about one that need not.)
BY_NAME = frozenset({"lookup", "unlink", "rmdir", "rename"})

# What the kernel, libacl and libselinux ask for: nothing of it is stored.
PROMISES = (b"security.", b"system.")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds after which a request is given up. They are the last net: stores have their own, shorter limits."""

    request_s: float = 120.0
    """Everything but the below. The kernel itself complains about tasks that hang for 120 s."""
    commit_s: float = 6 * 3600.0
    """flush, fsync, release, rename: they may have to move a whole file, or a tree. 5 TiB at 250 MB/s take 6 h."""


Args = ParamSpec("Args")
Answer = TypeVar("Answer")
Handler = Callable[Concatenate["Operations", Args], Coroutine[Any, Any, Answer]]


def reply_errno(handler: Handler[Args, Answer]) -> Handler[Args, Answer]:
    """Whatever *handler* raises becomes FUSEError, within the deadline for ordinary requests."""
    return _guarded(handler, lambda self, work: strictly_within(self.deadlines.request_s, work))


def reply_errno_at_once(handler: Handler[Args, Answer]) -> Handler[Args, Answer]:
    """As `reply_errno`, for requests that come by the ten thousand and mostly need not wait."""
    return _guarded(handler, lambda self, work: within(self.deadlines.request_s, work))


def reply_errno_of_commit(handler: Handler[Args, Answer]) -> Handler[Args, Answer]:
    """As `reply_errno`, within the deadline for commits."""
    return _guarded(handler, lambda self, work: self.commits.strictly(work))


def reply_errno_of_near_commit(handler: Handler[Args, Answer]) -> Handler[Args, Answer]:
    """As `reply_errno_of_commit`, which costs as much as a twelfth of a removal from a near store, and that mostly need not wait."""
    return _guarded(handler, lambda self, work: self.committing(work))


def reply_errno_of_close(handler: Handler[Args, Answer]) -> Handler[Args, Answer]:
    """As `reply_errno_of_near_commit`; nor need one that waits for this machine's disk alone have what costs more than that."""
    return _guarded(handler, lambda self, work: self.closing(work))


def _guarded(handler: Handler[Args, Answer], limited: Callable[[Operations, Any], Awaitable[Answer]]) -> Handler[Args, Answer]:
    name = handler.__name__.lstrip("_")

    @functools.wraps(handler)
    async def reply(self: Operations, /, *args: Args.args, **kwargs: Args.kwargs) -> Answer:
        try:
            return await limited(self, handler(self, *args, **kwargs))
        except FUSEError:
            raise
        except Exception as error:
            raise FUSEError(self.refusals.errno_for(name, error)) from None

    return reply


class Refusals:
    """What failed requests answer, and what of it goes to the log: each refusal and each defect once."""

    def __init__(self) -> None:
        self._seen: dict[tuple[object, ...], None] = {}

    def errno_for(self, request: str, error: Exception) -> int:
        """The errno to answer. POSIX answers are no news; failures of the store are warnings; the rest are defects."""
        if isinstance(error, ExceptionGroup):
            first, *_ = [self.errno_for(request, one) for one in error.exceptions]
            return first
        if isinstance(error, trio.TooSlowError):
            self._once(("slow", request), "%s was given up: it took longer than its deadline", request)
            return errno.ETIMEDOUT
        number = errno_of(error)
        if number is None:
            return self._defect(request, error)
        if not isinstance(error, FsError):
            self._once((request, str(error)), "%s failed: %s", request, error, level=_level(error))
        return errno.ESTALE if number == errno.ENOENT and request not in BY_NAME else number

    def _defect(self, request: str, error: Exception) -> int:
        site = error.__traceback__
        while site is not None and site.tb_next is not None:
            site = site.tb_next
        place = (site.tb_frame.f_code, site.tb_lineno) if site else ()
        if self._is_new((type(error), place)):
            log.error("%s failed unexpectedly, and answers EIO", request, exc_info=error)
        return errno.EIO

    def _once(self, what: tuple[object, ...], message: str, *args: object, level: int = logging.WARNING) -> None:
        if self._is_new(what):
            log.log(level, message, *args)

    def _is_new(self, what: tuple[object, ...]) -> bool:
        if what in self._seen:
            return False
        self._seen[what] = None
        if len(self._seen) > REFUSALS_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return True


def _level(error: Exception) -> int:
    """What the store refuses because of what was asked is the caller's business; the rest is the administrator's."""
    return logging.INFO if isinstance(error, TooLarge | InvalidName | Unsupported | AlreadyExists | NotFound) else logging.WARNING


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.pid, ctx.umask)


class Operations(pyfuse3.Operations):
    """The handlers. *nursery* outlives the main loop and holds the releases that were answered early."""

    supports_dot_lookup = False
    enable_writeback_cache = True
    enable_acl = False

    def __init__(self, fs: Filesystem, nursery: trio.Nursery, *, ttl_s: float, xattrs: bool, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self.commits = Bounded(deadlines.commit_s)
        self.committing = partial(within, deadlines.commit_s) if fs.is_near else self.commits.strictly
        self.closing = self.commits.within if fs.commits_here else self.committing
        self.refusals = Refusals()
        self._fs = fs
        self._nursery = nursery
        self._ttl_s = ttl_s
        self._xattrs = xattrs
        self._no_entry = no_entry(ttl_s=ttl_s)
        self._releasing = 0
        self._listed: dict[int, int] = {}

    # -- names --------------------------------------------------------------------------

    @reply_errno_at_once
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        try:
            attr = await self._fs.lookup(parent_inode, name, _caller(ctx))
        except NoEntry:
            if self._ttl_s > 0:
                return self._no_entry
            raise
        return to_entry(attr, ttl_s=self._ttl_s)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        try:
            for ino, count in inode_list:
                self._fs.forget(ino, count)
        except Exception as error:
            self.refusals.errno_for("forget", error)

    @reply_errno
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        attr = await self._fs.mknod(parent_inode, name, mode=mode, rdev=rdev, caller=_caller(ctx))
        return to_entry(attr, ttl_s=self._ttl_s)

    @reply_errno
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        attr = await self._fs.mkdir(parent_inode, name, mode=mode, caller=_caller(ctx))
        return to_entry(attr, ttl_s=self._ttl_s)

    @reply_errno
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        attr = await self._fs.symlink(parent_inode, name, target, caller=_caller(ctx))
        return to_entry(attr, ttl_s=self._ttl_s)

    @reply_errno
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        attr = await self._fs.link(inode, new_parent_inode, new_name)
        return to_entry(attr, ttl_s=self._ttl_s)

    @reply_errno_at_once
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return await self._fs.readlink(inode)

    @reply_errno_of_near_commit
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._fs.unlink(parent_inode, name)

    @reply_errno
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._fs.rmdir(parent_inode, name)

    @reply_errno_of_commit
    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: RequestContext
    ) -> None:
        await self._fs.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags=flags)

    # -- attributes -----------------------------------------------------------------------

    @reply_errno_at_once
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return to_entry(await self._fs.getattr(inode), ttl_s=self._ttl_s)

    @reply_errno_at_once
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        changed = await self._fs.setattr(inode, to_change(attr, fields), fh=fh, caller=_caller(ctx))
        return to_entry(changed, ttl_s=self._ttl_s)

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        self._require_xattr(name)
        return await self._getxattr(inode, name)

    @reply_errno_at_once
    async def _getxattr(self, inode: int, name: bytes) -> bytes:
        return await self._fs.getxattr(inode, name)

    @reply_errno
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        self._require_xattr(name)
        await self._fs.setxattr(inode, name, value, 0)

    @reply_errno
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        self._require_xattr()
        return await self._fs.listxattr(inode)

    @reply_errno
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        self._require_xattr(name)
        await self._fs.removexattr(inode, name)

    def _require_xattr(self, name: bytes = b"") -> None:
        if not self._xattrs:
            raise FUSEError(errno.ENOSYS)
        if name.startswith(PROMISES):
            raise FUSEError(errno.EOPNOTSUPP)

    @reply_errno_at_once
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return to_statvfs(await self._fs.statfs())

    # -- files --------------------------------------------------------------------------

    @reply_errno_at_once
    async def create(self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext) -> tuple[FileInfo, EntryAttributes]:
        fh, attr = await self._fs.create(parent_inode, name, mode=mode, flags=flags, caller=_caller(ctx))
        return FileInfo(fh=fh, keep_cache=True), to_entry(attr, ttl_s=self._ttl_s)

    @reply_errno_at_once
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        opened = await self._fs.open(inode, flags, Caller(ctx.uid, ctx.gid))
        return FileInfo(fh=opened.fh, keep_cache=opened.keep_cache)

    @reply_errno_at_once
    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]  # any buffer will do
        return await self._fs.read(fh, off, size)

    @reply_errno_at_once
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._fs.write(fh, off, buf)

    @reply_errno_of_close
    async def flush(self, fh: int) -> None:
        await self._fs.flush(fh)

    @reply_errno_of_commit
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._fs.fsync(fh, datasync)

    async def release(self, fh: int) -> None:
        """Never fails: the kernel has nobody to tell. The reason is in the log, and `Filesystem.aclose` tries again."""
        if self._releasing < RELEASES_IN_PLACE:
            await self._end(fh)
        else:
            self._nursery.start_soon(self._end, fh)

    async def _end(self, fh: int) -> None:
        self._releasing += 1
        try:
            await (self._release(fh) if self._fs.has_to_commit(fh) else self._close(fh))
        except FUSEError:
            pass
        finally:
            self._releasing -= 1

    @reply_errno_of_commit
    async def _release(self, fh: int) -> None:
        await self._fs.release(fh)

    @reply_errno_at_once
    async def _close(self, fh: int) -> None:
        await self._fs.release(fh)

    # -- directories ------------------------------------------------------------------------

    @reply_errno_at_once
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        fh = await self._fs.opendir(inode)
        self._listed[fh] = inode
        return fh

    @reply_errno_at_once
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        if not self._list_dots(fh, start_id, token):
            return
        ttl_s = self._ttl_s

        def take(name: bytes, attr: Attr, next_id: int) -> bool:
            return pyfuse3.readdir_reply(token, name, to_entry(attr, ttl_s=ttl_s), next_id + DOTS)

        await self._fs.readdir(fh, max(start_id - DOTS, 0), take)

    def _list_dots(self, fh: int, start_id: int, token: ReaddirToken) -> bool:
        entry = dot_entry(self._listed[fh])
        return all(pyfuse3.readdir_reply(token, name, entry, at) for name, at in ((b".", 1), (b"..", 2)) if at > start_id)

    @reply_errno_at_once
    async def releasedir(self, fh: int) -> None:
        self._listed.pop(fh, None)
        await self._fs.releasedir(fh)

    @reply_errno_of_commit
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._fs.fsyncdir(fh)

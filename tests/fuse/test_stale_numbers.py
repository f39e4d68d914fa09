"""What a request answers whose number means nothing any more: ESTALE, upon which the kernel walks the path anew; never ENOENT."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyfuse3
import pytest
import trio

from s3mount.errors import NoEntry, NotFound, Stale
from s3mount.fs.filesystem import Filesystem
from s3mount.fs.options import FsOptions
from s3mount.fuse.operations import BY_NAME, Deadlines, Operations, Refusals
from s3mount.model import Key
from s3mount.store.memory import MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty
from tests.fs.mounted import ME

HANDLERS = sorted(
    name
    for name in vars(pyfuse3.Operations)
    if not name.startswith(("_", "enable", "supports")) and name not in ("init", "forget", "stacktrace")
)


@pytest.mark.parametrize("reason", [NoEntry("none"), NotFound("none"), ExceptionGroup("", [NotFound("none")])])
def test_no_request_but_about_a_name_says_that_there_is_none(reason: Exception) -> None:
    told = {name: Refusals().errno_for(name, reason) for name in HANDLERS}
    assert {name for name, number in told.items() if number == errno.ENOENT} == BY_NAME
    assert set(told.values()) == {errno.ENOENT, errno.ESTALE}


@dataclass
class Caller:
    """As pyfuse3's RequestContext, which nobody else can make."""

    uid: int = ME.uid
    gid: int = ME.gid
    pid: int = ME.pid
    umask: int = 0


@dataclass
class Rig:
    """Handlers over a store in which *lacking* are not there, whatever is."""

    memory: MemoryStore
    fs: Filesystem
    handlers: Operations
    lacking: set[str]

    async def errno_of(self, work: Awaitable[object]) -> int:
        try:
            await work
        except pyfuse3.FUSEError as error:
            return int(error.errno)
        return 0

    async def number(self, *names: bytes) -> int:
        ino = Filesystem.ROOT
        for name in names:
            ino = (await self.fs.lookup(ino, name, ME)).ino
        return ino


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    memory, lacking = MemoryStore(), set[str]()

    def gone(op: Op) -> Fault:
        return Fault(before=NotFound("There is no such object.")) if op.key in lacking else NOTHING

    fs = Filesystem(Faulty(memory, gone), FsOptions(uid=ME.uid, gid=ME.gid, metadata_ttl_s=0.0))
    async with trio.open_nursery() as nursery:
        yield Rig(memory, fs, Operations(fs, nursery, ttl_s=0.0, xattrs=True, deadlines=Deadlines()), lacking)
        nursery.cancel_scope.cancel()
    with suppress(ExceptionGroup):
        await fs.aclose()


Request = Callable[[Operations, int, Any], Awaitable[object]]
# About a file, by its number.
OF_A_FILE: dict[str, Request] = {
    "getattr": lambda on, ino, ctx: on.getattr(ino, ctx),
    "open": lambda on, ino, ctx: on.open(ino, os.O_RDONLY, ctx),
    "open to empty it": lambda on, ino, ctx: on.open(ino, os.O_WRONLY | os.O_TRUNC, ctx),
    "readlink": lambda on, ino, ctx: on.readlink(ino, ctx),
    "getxattr": lambda on, ino, ctx: on.getxattr(ino, b"user.any", ctx),
    "listxattr": lambda on, ino, ctx: on.listxattr(ino, ctx),
    "setxattr": lambda on, ino, ctx: on.setxattr(ino, b"user.any", b"1", ctx),
    "removexattr": lambda on, ino, ctx: on.removexattr(ino, b"user.any", ctx),
}
LINK: dict[str, Request] = {"link": lambda on, ino, ctx: on.link(ino, Filesystem.ROOT, b"further", ctx)}
# Which make an entry in a directory that has the number.
IN_A_DIRECTORY: dict[str, Request] = {
    "create": lambda on, ino, ctx: on.create(ino, b"new", 0o644, os.O_WRONLY | os.O_CREAT, ctx),
    "mknod": lambda on, ino, ctx: on.mknod(ino, b"new", stat.S_IFIFO | 0o644, 0, ctx),
    "mkdir": lambda on, ino, ctx: on.mkdir(ino, b"new", 0o755, ctx),
    "symlink": lambda on, ino, ctx: on.symlink(ino, b"new", b"target", ctx),
    "setxattr": lambda on, ino, ctx: on.setxattr(ino, b"user.any", b"1", ctx),
}
ABOUT_A_NAME: dict[str, Request] = {
    "lookup": lambda on, ino, ctx: on.lookup(ino, b"any", ctx),
    "unlink": lambda on, ino, ctx: on.unlink(ino, b"any", ctx),
    "rmdir": lambda on, ino, ctx: on.rmdir(ino, b"any", ctx),
    "rename": lambda on, ino, ctx: on.rename(ino, b"any", ino, b"other", 0, ctx),
}


@pytest.mark.parametrize("name", OF_A_FILE | LINK)
async def test_a_file_that_somebody_else_removed_is_stale(rig: Rig, name: str) -> None:
    await rig.memory.put(Key("file"), b"bytes")
    ino = await rig.number(b"file")
    await rig.memory.delete(Key("file"))
    assert await rig.errno_of((OF_A_FILE | LINK)[name](rig.handlers, ino, Caller())) == errno.ESTALE


@pytest.mark.parametrize("name", OF_A_FILE)
async def test_a_file_that_the_store_does_not_find_for_now_is_stale(rig: Rig, name: str) -> None:
    await rig.memory.put(Key("file"), b"bytes")
    ino = await rig.number(b"file")
    rig.lacking.add("file")
    assert await rig.errno_of(OF_A_FILE[name](rig.handlers, ino, Caller())) == errno.ESTALE


@pytest.mark.parametrize("name", OF_A_FILE | LINK)
async def test_a_file_that_was_given_up_is_stale(rig: Rig, name: str, expect_logs: Callable[..., None]) -> None:
    expect_logs("given up uncommitted", "was replaced or removed by somebody else")
    await rig.memory.put(Key("file"), b"bytes")
    ino = await rig.number(b"file")
    fh = (await rig.fs.open(ino, os.O_WRONLY)).fh
    await rig.fs.write(fh, 0, b"ours")
    await rig.memory.put(Key("file"), b"theirs")
    with pytest.raises(Stale):
        await rig.fs.flush(fh)
    await rig.handlers.release(fh)
    await rig.memory.delete(Key("file"))
    assert await rig.errno_of((OF_A_FILE | LINK)[name](rig.handlers, ino, Caller())) == errno.ESTALE


async def directory_that_went(rig: Rig) -> int:
    """The number of a directory that somebody else has removed, as was noticed."""
    await rig.memory.put(Key("d/any"), b"bytes")
    ino = await rig.number(b"d")
    await rig.memory.delete(Key("d/any"))
    assert await rig.errno_of(rig.handlers.getattr(ino, Caller())) == errno.ESTALE  # type: ignore[arg-type]
    return ino


@pytest.mark.parametrize("name", IN_A_DIRECTORY)
async def test_nothing_is_made_in_a_directory_that_went_and_that_is_stale(rig: Rig, name: str) -> None:
    """Regression: open(2) with O_CREAT said ENOENT of a path that was all there, under another number."""
    ino = await directory_that_went(rig)
    await rig.memory.put(Key("d/any"), b"bytes")
    assert await rig.errno_of(IN_A_DIRECTORY[name](rig.handlers, ino, Caller())) == errno.ESTALE


@pytest.mark.parametrize("name", ABOUT_A_NAME)
async def test_a_directory_that_went_has_no_names(rig: Rig, name: str) -> None:
    ino = await directory_that_went(rig)
    assert await rig.errno_of(ABOUT_A_NAME[name](rig.handlers, ino, Caller())) == errno.ENOENT

"""A file system without FUSE: the calls that the kernel would make for a few system calls.

Owns: `Mounted`, which walks paths, keeps lookup counts and calls `Filesystem.check()` after every step.
Must not know: what is being tested.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from s3mount.fs.attrs import AttrChange
from s3mount.fs.filesystem import Filesystem
from s3mount.fs.options import FsOptions
from s3mount.model import Attr, Caller, Key
from s3mount.store.api import ObjectStore
from s3mount.store.memory import MemoryStore

ME = Caller(uid=1000, gid=1000, pid=1, umask=0o022)
SUPERUSER = Caller(uid=0, gid=0)
RW = os.O_RDWR


class DirEntry(NamedTuple):
    """One entry of a listing. Reading goes on behind it with `next_id`."""

    name: bytes
    attr: Attr
    next_id: int


async def accepted(fs: Filesystem, fh: int, start: int = 0, count: int | None = None) -> list[DirEntry]:
    """As one READDIR request of the kernel: it takes *count* entries (None: all) and gives the next one back. Each has one lookup more."""
    entries: list[DirEntry] = []

    def take(name: bytes, attr: Attr, next_id: int) -> bool:
        if len(entries) == count:
            return False
        entries.append(DirEntry(name, attr, next_id))
        return True

    await fs.readdir(fh, start, take)
    return entries


async def told(fs: Filesystem, fh: int, start: int = 0, count: int | None = None) -> list[DirEntry]:
    """As `accepted`, and nothing of it is looked up afterwards."""
    entries = await accepted(fs, fh, start, count)
    for entry in entries:
        fs.forget(entry.attr.ino, 1)
    return entries


class Mounted:
    """Paths are text with "/", from the mount's top, without a leading one."""

    def __init__(self, store: ObjectStore, **options: object) -> None:
        self.store = store
        self.fs = Filesystem(store, FsOptions(**{"uid": 1000, "gid": 1000, "metadata_ttl_s": 0.0, **options}))  # type: ignore[arg-type]

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """What runs behind a mount does so meanwhile."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.fs.run)
            yield
            nursery.cancel_scope.cancel()

    async def ino(self, path: str | bytes) -> int:
        """Look every component up. The counts are given back at once for all but the last."""
        ino = Filesystem.ROOT
        for name in os.fsencode(path).split(b"/") if path else []:
            parent = ino
            try:
                ino = (await self.fs.lookup(parent, name, ME)).ino
            finally:
                self.forget(parent)
        return ino

    @asynccontextmanager
    async def at(self, path: str | bytes) -> AsyncIterator[int]:
        ino = await self.ino(path)
        try:
            yield ino
        finally:
            self.forget(ino)
            self.fs.check()

    def forget(self, ino: int) -> None:
        if ino != Filesystem.ROOT:
            self.fs.forget(ino, 1)

    @staticmethod
    def split(path: str | bytes) -> tuple[bytes, bytes]:
        parent, _, name = os.fsencode(path).rpartition(b"/")
        return parent, name

    async def create(self, path: str | bytes, *, flags: int = RW, mode: int = 0o644) -> int:
        parent, name = self.split(path)
        async with self.at(parent) as ino:
            fh, attr = await self.fs.create(ino, name, mode=mode, flags=flags | os.O_CREAT, caller=ME)
            self.forget(attr.ino)
            return fh

    async def open(self, path: str | bytes, flags: int = RW) -> int:
        async with self.at(path) as ino:
            return (await self.fs.open(ino, flags)).fh

    async def close(self, fh: int) -> None:
        try:
            await self.fs.flush(fh)
        finally:
            await self.fs.release(fh)
            self.fs.check()

    async def write(self, path: str | bytes, data: bytes) -> None:
        """As `cat > path`."""
        fh = await self.create(path, flags=RW | os.O_TRUNC)
        if data:
            await self.fs.write(fh, 0, data)
        await self.close(fh)

    async def read(self, path: str | bytes) -> bytes:
        fh = await self.open(path, os.O_RDONLY)
        try:
            return bytes(await self.fs.read(fh, 0, 1 << 20))
        finally:
            await self.fs.release(fh)

    async def stat(self, path: str | bytes) -> Attr:
        async with self.at(path) as ino:
            return await self.fs.getattr(ino)

    async def entries(self, path: str | bytes = "") -> list[DirEntry]:
        async with self.at(path) as ino:
            fh = await self.fs.opendir(ino)
            found = await told(self.fs, fh)
            await self.fs.releasedir(fh)
            return found

    async def names(self, path: str | bytes = "") -> list[str]:
        return sorted(os.fsdecode(entry.name) for entry in await self.entries(path))

    async def mkdir(self, path: str | bytes, mode: int = 0o755) -> None:
        parent, name = self.split(path)
        async with self.at(parent) as ino:
            self.forget((await self.fs.mkdir(ino, name, mode=mode, caller=ME)).ino)

    async def symlink(self, path: str | bytes, target: bytes) -> None:
        parent, name = self.split(path)
        async with self.at(parent) as ino:
            self.forget((await self.fs.symlink(ino, name, target, ME)).ino)

    async def link(self, path: str | bytes, new: str | bytes) -> None:
        parent, name = self.split(new)
        async with self.at(path) as file, self.at(parent) as ino:
            self.forget((await self.fs.link(file, ino, name)).ino)

    async def unlink(self, path: str | bytes) -> None:
        parent, name = self.split(path)
        async with self.at(parent) as ino:
            await self.fs.unlink(ino, name)

    async def rmdir(self, path: str | bytes) -> None:
        parent, name = self.split(path)
        async with self.at(parent) as ino:
            await self.fs.rmdir(ino, name)

    async def rename(self, path: str | bytes, new: str | bytes, *, flags: int = 0) -> None:
        (parent, name), (new_parent, new_name) = self.split(path), self.split(new)
        async with self.at(parent) as source, self.at(new_parent) as target:
            await self.fs.rename(source, name, target, new_name, flags=flags)

    async def chmod(self, path: str | bytes, mode: int) -> Attr:
        return await self.setattr(path, AttrChange(mode=mode))

    async def truncate(self, path: str | bytes, size: int) -> Attr:
        return await self.setattr(path, AttrChange(size=size))

    async def setattr(self, path: str | bytes, change: AttrChange, caller: Caller = ME) -> Attr:
        async with self.at(path) as ino:
            return await self.fs.setattr(ino, change, caller=caller)

    async def remount(self, **options: object) -> Mounted:
        await self.fs.aclose()
        return Mounted(self.store, **options)


async def body(store: MemoryStore, key: str) -> bytes:
    """The bytes of an object, past the file system."""
    pin = await store.pin(Key(key))
    data = bytearray(pin.info.size)
    if data:
        await pin.get_into(0, memoryview(data))
    await pin.aclose()
    return bytes(data)

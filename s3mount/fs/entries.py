"""Making and removing names: create, mkdir, mknod, symlink, link, unlink, rmdir.

Owns: what is refused and why, what is written for a new entry, and what happens to an open file whose name goes.
Must not know: renames, attributes of what exists already.

A new regular file has no object until its first commit; O_EXCL reserves the key where the store can. Everything else (directories, links,
special files) is an object at once, made under the condition that there is none.

A file that is unlinked while held keeps its content: the store keeps what is pinned, or what is missing is fetched first (`LOCAL_BYTES`).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from s3mount.errors import (
    AlreadyExists,
    Exists,
    Invalid,
    IsADirectory,
    NoEntry,
    NotADirectory,
    NotEmpty,
    NotPermitted,
    PreconditionFailed,
    Stale,
    StoreError,
)
from s3mount.fs.attrs import PERMISSIONS, Attributes, encode
from s3mount.fs.content_types import content_type_of
from s3mount.fs.files import Files
from s3mount.fs.inode import NO_ETAG, DirInode, FileInode, fresh_number
from s3mount.fs.live import Live
from s3mount.fs.names import Kind, meaning
from s3mount.fs.namespace import Namespace, Sight, live_attr, require_live
from s3mount.fs.volume import Volume, attr_of, directory_attr
from s3mount.model import NO_METADATA, Attr, Caller, Key, MiB, ObjectInfo, Page, number_of
from s3mount.store.api import Commit

# What is fetched of an open file that is unlinked or replaced, where the store cannot keep the version: more would hold up everybody else.
LOCAL_BYTES = 64 * MiB

# symlink(2) on Linux: PATH_MAX without its NUL.
TARGET_BYTES = 4095


class Entries:
    """Changes of names that move nothing."""

    def __init__(self, volume: Volume, namespace: Namespace, files: Files) -> None:
        self._volume = volume
        self._namespace = namespace
        self._files = files
        self._store = volume.store

    # -- what a new entry needs -------------------------------------------------------

    def require_storable(self, sight: Sight, *, directory: bool) -> None:
        """Raise Exists, IsADirectory's like, or say why nothing can be made under this name."""
        if sight.exists:
            raise Exists("The name is taken.")
        if sight.kind is not Kind.PLAIN:
            raise Invalid("That name stands for something that can only be found here, not made.")
        if not directory and (not sight.key or sight.key.endswith("/")):
            raise NotPermitted("That name stands for the directory's own object.")
        self._volume.require_key(sight.key + "/" if directory else sight.key)

    def _attributes(self, directory: DirInode, mode: int, caller: Caller, *, rdev: int = 0) -> Attributes:
        now = self._volume.clock_ns()
        permissions = mode & PERMISSIONS & ~caller.umask
        gid = caller.gid
        if directory.attributes.mode & stat.S_ISGID:
            gid = directory.attributes.gid
            if stat.S_ISDIR(mode):
                permissions |= stat.S_ISGID
        return Attributes(stat.S_IFMT(mode) | permissions, caller.uid, gid, now, now, now, rdev)

    def _new_id(self) -> int:
        """For a new file: its number and file id; 0 where the store has none."""
        return self._volume.inodes.number(fresh_number()) if self._volume.can.links else 0

    # -- files ------------------------------------------------------------------------

    async def create(self, directory: DirInode, name: bytes, *, mode: int, flags: int, caller: Caller) -> tuple[int, Attr]:
        """Make or open a regular file: its handle and attributes, looked up once more."""
        self._volume.require_writable()
        while True:
            sight = self._namespace.found_absent(directory, name) or await self._namespace.see(directory, name)
            if sight.exists:
                try:
                    return await self._open_existing(directory, name, sight, flags, caller)
                except (Stale, NoEntry):
                    continue  # replaced or removed since it was seen
            self.require_storable(sight, directory=False)
            reserved = bool(flags & os.O_EXCL and self._volume.can.reserve)
            if reserved:
                await self._reserve(sight.key)
            if not self._is_free(directory, name, sight.key):
                if reserved:
                    await self._store.release(Key(sight.key))
                continue
            attributes = self._attributes(directory, stat.S_IFREG | mode & PERMISSIONS, caller)
            inode = self._create(directory, sight.key, attributes, flags, reserved)
            return self._files.handle(inode, caller), live_attr(inode, require_live(inode))

    async def _open_existing(self, directory: DirInode, name: bytes, sight: Sight, flags: int, caller: Caller) -> tuple[int, Attr]:
        if flags & os.O_EXCL:
            raise Exists("The name is taken.")
        if sight.directory:
            raise IsADirectory("That is a directory.")
        inode = await self._namespace.lookup_inode(directory, name)
        try:
            opened = await self._files.open(inode, flags, caller)
        except BaseException:
            self._volume.inodes.forget(inode.ino, 1)
            raise
        return opened.fh, await self._namespace.getattr(inode)

    async def _reserve(self, key: str) -> None:
        try:
            await self._store.reserve(Key(key))
        except AlreadyExists:
            raise Exists("The name is taken.") from None

    def _is_free(self, directory: DirInode, name: bytes, key: str) -> bool:
        """Whether nobody took the name within this mount since we looked."""
        return not directory.gone and meaning(directory.key, name).key == key and key not in self._volume.fresh

    def _create(self, directory: DirInode, key: str, attributes: Attributes, flags: int, reserved: bool) -> FileInode:
        volume = self._volume
        file_id = self._new_id()
        volume.inodes.displace_at(key)
        inode = FileInode(file_id or volume.inodes.number(number_of(key)), key, etag=NO_ETAG, file_id=file_id)
        live = inode.live = Live(self._files.new_content(inode, None), attributes, None)
        if volume.options.content_types:
            live.content_type = content_type_of(key)
        live.exclusive, live.reserved = bool(flags & os.O_EXCL) and not reserved, Key(key) if reserved else None
        live.holders = 1
        volume.inodes.add(inode)
        volume.inodes.remember(inode)
        volume.live.add(inode)
        volume.fresh[key] = inode
        volume.changes.note(key)
        volume.touch(directory)
        self._namespace.expel()
        return inode

    # -- objects at once --------------------------------------------------------------

    async def mknod(self, directory: DirInode, name: bytes, *, mode: int, rdev: int, caller: Caller) -> Attr:
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        attributes = self._attributes(
            directory, kind | mode & PERMISSIONS, caller, rdev=rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        )
        return await self._make(directory, name, b"", attributes)

    async def symlink(self, directory: DirInode, name: bytes, target: bytes, caller: Caller) -> Attr:
        if not 0 < len(target) <= TARGET_BYTES:
            raise Invalid(f"A symbolic link has 1 to {TARGET_BYTES} bytes, not {len(target)}.")
        return await self._make(directory, name, target, self._attributes(directory, stat.S_IFLNK | 0o777, Caller(caller.uid, caller.gid)))

    async def mkdir(self, directory: DirInode, name: bytes, *, mode: int, caller: Caller) -> Attr:
        return await self._make(directory, name, b"", self._attributes(directory, stat.S_IFDIR | mode & PERMISSIONS, caller))

    async def _make(self, directory: DirInode, name: bytes, body: bytes, attributes: Attributes) -> Attr:
        """Put an object that is complete at once. Raises Exists."""
        self._volume.require_writable()
        is_directory = stat.S_ISDIR(attributes.mode)
        await self._volume.gate.wait_free(lambda: self.key_of(directory, name))
        with self._volume.gate.using(self.key_of(directory, name)):
            sight = await self._namespace.see(directory, name)
            self.require_storable(sight, directory=is_directory)
            key = Key(sight.stem if is_directory else sight.key)
            commit = Commit(condition=self._volume.absent, metadata=encode(attributes, NO_METADATA), file_id=self._new_id())
            try:
                info = await self._store.put(key, body, commit)
            except AlreadyExists:
                self._volume.changes.note(sight.key)
                raise Exists("The name is taken.") from None
            self._volume.mutated(sight.key)
            self._volume.touch(directory)
            return self._seen(key, info, attributes)

    def _seen(self, key: Key, info: ObjectInfo, attributes: Attributes) -> Attr:
        inodes = self._volume.inodes
        if stat.S_ISDIR(attributes.mode):
            self._volume.kept.discard(key)
            inode = self._namespace.directory_inode(key, info)
            inodes.remember(inode)
            return directory_attr(inode)
        file = self._namespace.file_inode(key, info)
        inodes.remember(file)
        self._namespace.expel()
        return attr_of(file.ino, attributes, size=info.size, nlink=info.links)

    def key_of(self, directory: DirInode, name: bytes) -> str:
        """The key that a name means now. Raises NoEntry in a directory that is gone."""
        if directory.gone:
            raise NoEntry("The directory has been removed.")
        return meaning(directory.key, name).key

    async def link(self, inode: FileInode | DirInode, directory: DirInode, name: bytes) -> Attr:
        """A further name for a file. Raises NotPermitted for directories, and where the store has no links."""
        self._volume.require_writable()
        if isinstance(inode, DirInode) or not self._volume.can.links:
            raise NotPermitted("This store has no hard links." if isinstance(inode, FileInode) else "A directory has one name.")
        if inode.live is not None and inode.live.fresh:
            await self._files.save(inode)
        gate = self._volume.gate
        await gate.wait_all_free(lambda: self.key_of(directory, name), lambda: inode.key)
        with gate.using(self.key_of(directory, name), inode.key):
            sight = await self._namespace.see(directory, name)
            self.require_storable(sight, directory=False)
            if self._volume.inodes.file_at(inode.key) is not inode:
                raise NoEntry("The file has no name any more.")
            try:
                info = await self._store.link(Key(inode.key), Key(sight.key))
            except AlreadyExists:
                raise Exists("The name is taken.") from None
            self._volume.mutated(sight.key)
            self._volume.mutated(inode.key)
            self._volume.touch(directory)
        self._volume.inodes.name(inode, sight.key)
        self._volume.inodes.remember(inode)
        if inode.live is not None:
            inode.live.links = info.links
        return self._namespace.file_attr(inode, info)

    # -- removing ---------------------------------------------------------------------

    async def unlink(self, directory: DirInode, name: bytes) -> None:
        """Raises NoEntry, IsADirectory."""
        self._volume.require_writable()
        async with self._volume.gate.moving(lambda: (self.key_of(directory, name),)):
            with self._volume.kept.holding(directory.key):
                inode = self._namespace.sure_of(directory, name)
                if inode is None or not await self._remove_sure(inode):
                    await self._remove_seen(await self._namespace.see_moving(directory, name))
                self._volume.touch(directory)
                await self.keep(directory)

    async def _remove_seen(self, sight: Sight) -> None:
        if sight.directory:
            raise IsADirectory("That is a directory.")
        if not sight.exists:
            raise NoEntry("There is no such name.")
        await self.remove_file(sight)

    async def _remove_sure(self, inode: FileInode) -> bool:
        """Remove the version of *inode* that was seen; False where it is another one by now."""
        key = inode.key
        try:
            await self._store.delete(Key(key), if_match=inode.etag)
        except PreconditionFailed:
            return False
        self.unnamed(key, links_left=0)
        self._volume.mutated(key)
        return True

    async def remove_file(self, sight: Sight) -> None:
        """Take the name of a file away, in the store and here; whoever holds the file keeps its content."""
        key, volume = Key(sight.key), self._volume
        if sight.fresh is not None:
            del volume.fresh[key]
            volume.inodes.unname(key, links_left=False)
            if sight.fresh.live is not None:
                await self._files.release_reservation(sight.fresh.live)
        if sight.object is not None:
            inode = self._namespace.known_file(key, sight.object)
            await self.localise(inode)
            if key.endswith("/"):
                await self._store.put(key, b"", Commit(metadata=sight.object.metadata or NO_METADATA))  # its directory stays
            else:
                await self._store.delete(key)
            self.unnamed(key, links_left=sight.object.links - 1)
            if inode is not None:
                await self._files.retire_if_idle(inode)
        volume.mutated(key)

    async def localise(self, inode: FileInode | None) -> None:
        """The object of *inode* is about to go: see that whoever holds it keeps its content."""
        if inode is not None and inode.live is not None and inode.live.holders:
            await inode.live.content.localise(LOCAL_BYTES)

    def unnamed(self, key: str, *, links_left: int) -> None:
        """The store has removed *key*."""
        inode = self._volume.inodes.file_at(key)
        if inode is not None and inode.live is not None:
            inode.live.links = links_left
        self._volume.inodes.unname(key, links_left=links_left > 0)

    async def rmdir(self, directory: DirInode, name: bytes) -> None:
        """Raises NoEntry, NotADirectory; NotEmpty, asked of the store and not only of what we know."""
        self._volume.require_writable()
        async with self._volume.gate.moving(lambda: (self.key_of(directory, name) + "/",)):
            with self._volume.kept.holding(directory.key):
                sight = await self._namespace.see_moving(directory, name)
                await self._remove_directory(sight)
                self._volume.touch(directory)
                await self.keep(directory)

    async def _remove_directory(self, sight: Sight) -> None:
        if sight.is_file:
            raise NotADirectory("That is not a directory.")
        if not sight.exists:
            raise NoEntry("There is no such name.")
        if sight.kind is Kind.CONTINUED:
            raise NotEmpty("The directory holds the tails of long keys.")
        await self.require_empty(sight.stem)
        await self._store.delete(Key(sight.stem))
        self.removed_directory(sight.stem)

    async def require_empty(self, stem: str) -> None:
        page = await self._store.list(stem, limit=2)
        while page.next is not None and not _shows_entry(stem, page):  # what is not seen may have filled it
            page = await self._store.list(stem, after=page.next)
        if _shows_entry(stem, page) or any(self._volume.fresh_below(stem)):
            raise NotEmpty("The directory is not empty.")
        if any(kept != stem and kept.startswith(stem) for kept in self._volume.kept):
            raise NotEmpty("The directory is not empty.")

    def removed_directory(self, stem: str) -> None:
        inode = self._volume.inodes.directory_at(stem)
        self._volume.kept.discard(stem)
        self._volume.inodes.remove_directory(stem)
        if inode is not None:
            self._volume.touched.discard(inode)
        self._volume.mutated(stem[:-1])

    async def keep(self, directory: DirInode) -> None:
        """An entry went: where no key says any more that *directory* is there, this mount does; so too where the store does not answer.

        For whoever has held it since before the entry went (see implied).
        """
        stem, volume = directory.key, self._volume
        if directory is volume.root or directory.gone or volume.kept.lastingly(stem):
            return
        if directory.marked and (not volume.can.cheap_metadata or self._namespace.is_fresh(directory)):
            return
        if not stem.endswith("/"):
            return
        there = False
        with suppress(StoreError):
            there = (await self._store.find(stem[:-1])).is_directory
        if not there and not directory.gone:
            volume.kept.add(directory.key)


def _shows_entry(stem: str, page: Page) -> bool:
    """Whether *page* of what lies in *stem* has more than its marker."""
    return any(info.key != stem or info.size for info in page.objects)

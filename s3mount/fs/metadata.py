"""Changing what stat shows: setattr and extended attributes, of files, special files and directories.

Owns: where such a change goes: along with the next commit, into the object at once, or into a directory's marker.
Must not know: handles, names.

A file with uncommitted content takes the change with its commit. Any other object is updated under the ETag that was seen, so that nobody's
new version gets old attributes: at once where that is cheap, else before long (see deferred), together with what comes in between. A
directory without a marker gets one; the top of a bucket cannot have one, its attributes last as long as the mount.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from s3mount.errors import (
    AlreadyExists,
    Exists,
    Invalid,
    IsADirectory,
    NoAttribute,
    NoSpace,
    NotFound,
    NotSupported,
    PreconditionFailed,
    StoreError,
)
from s3mount.fs import virtual
from s3mount.fs.attrs import AttrChange, Attributes, changed, encode, write_xattrs
from s3mount.fs.described import Described
from s3mount.fs.files import Files
from s3mount.fs.inode import DirInode, FileInode, Inode, Standing
from s3mount.fs.live import Live
from s3mount.fs.namespace import Namespace, live_attr, stale
from s3mount.fs.patience import Patience
from s3mount.fs.turn import Turn
from s3mount.fs.volume import Volume, attr_of, directory_attr
from s3mount.model import NO_METADATA, Attr, Caller, Key, ObjectInfo
from s3mount.store.aspects import whole

Edit = Callable[[Attributes], Attributes]

# What is left of an object's metadata for the other attributes, the commit id and names: ours take some 250 bytes.
OTHER_BYTES = 512

# The kinds of names that mean nothing to the kernel or are kept for the administrator; system.* and security.* would be promises.
XATTR_KINDS = (b"user.", b"trusted.")


class Metadata:
    """Changes of attributes."""

    def __init__(self, volume: Volume, namespace: Namespace, files: Files) -> None:
        self._volume = volume
        self._namespace = namespace
        self._files = files
        self._described = Described(volume, namespace, files.renewing, files.found)
        self._turns: dict[DirInode, tuple[Turn, int]] = {}
        self._busy: dict[DirInode, int] = {}
        self._store = volume.store

    async def setattr(self, inode: Inode, change: AttrChange, caller: Caller) -> Attr:
        """Raises IsADirectory, Invalid for a size; Stale when the object was replaced."""
        self._volume.require_writable()
        now = self._volume.clock_ns()
        edit: Edit = lambda attributes: changed(attributes, change, now_ns=now, privileged=caller.uid == 0)  # noqa: E731
        if change.size is None:
            return await self.change(inode, edit)
        if isinstance(inode, DirInode):
            raise IsADirectory("That is a directory.")
        return await self._resize(inode, change.size, edit, told=change.mtime_ns is not None)

    async def _resize(self, inode: FileInode, size: int, edit: Edit, *, told: bool) -> Attr:
        """*told*: who asks says the new time as well."""
        async with self._files.held(inode) as live:
            await self._files.complete(live)
            if not stat.S_ISREG(live.attributes.mode):
                raise Invalid("Only a regular file has a size.")
            if size == live.content.size and not told:
                self._show_time_anew(inode)
            if size != live.content.size or live.content.incomplete:
                await live.content.truncate(size)
            live.attributes = edit(live.attributes)
            if live.holders == 1 or not live.content.changed:
                await self._files.save(inode)
            return live_attr(inode, live)

    def _show_time_anew(self, inode: FileInode) -> None:
        """The time of a file that is cut to the size that it has is now; the kernel believes its own until it has forgotten the file."""
        place = self._namespace.place_of(inode.key)
        if self._volume.invalidate is not None and place is not None:
            self._volume.invalidate.entry(*place)

    async def change(self, inode: Inode, edit: Edit) -> Attr:
        """Apply *edit* to the attributes of *inode*."""
        if isinstance(inode, DirInode):
            return await self._change_directory(inode, edit)
        patience = Patience()
        while True:
            if inode.live is not None:
                await self._files.complete(inode.live)
            if inode.live is not None:
                return await self._change_live(inode, inode.live, edit)
            if inode.standing is Standing.UNLINKED:
                return self._change_removed(inode, edit)
            if self._files.defers:
                await self._files.enliven_idle(inode)
            else:
                with self._files.renewing(inode):
                    attr = await self._change_cold(inode, edit)
                if attr is not None:
                    return attr
                await patience.refused(inode.key)

    def _change_removed(self, inode: FileInode, edit: Edit) -> Attr:
        """Nobody holds it, nothing is left of it; but the kernel still tells when it was removed, and would fail a syncfs(2) otherwise."""
        attributes = self._volume.file_attributes(ObjectInfo(Key(inode.key), 0, inode.etag, self._volume.clock_ns()))
        return attr_of(inode.ino, edit(attributes), size=0, nlink=0)

    async def _change_live(self, inode: FileInode, live: Live, edit: Edit) -> Attr:
        edited = edit(live.attributes)
        if self._is_nothing(live.attributes, edited):
            live.show(edited)
        else:
            live.attributes = edited
        attr = live_attr(inode, live)
        if live.unsaved and not live.content.changed and inode.standing is not Standing.UNLINKED:
            await self._files.change_later(inode)
            attr = live_attr(inode, live)
        await self._files.retire_if_idle(inode)
        return attr

    def _is_nothing(self, former: Attributes, edited: Attributes) -> bool:
        """Whether a change is not worth a copy of the object: it only says when it was made.

        So says a chmod to the mode that a file has, and so does the kernel after each rename.
        """
        return not self._volume.can.cheap_metadata and edited.at(edited.mtime_ns, former.ctime_ns) == former

    async def _change_cold(self, inode: FileInode, edit: Edit) -> Attr | None:
        """None where the inode became live meanwhile, or changed: look again."""
        info = await self._namespace.current(inode)
        await self._volume.gate.wait_free(lambda: inode.key)
        if info is None or inode.live is not None or inode.key != info.key:
            return None
        with self._volume.gate.using(inode.key):
            info = await whole(self._store, info)
            attributes = edit(self._volume.file_attributes(info))
            metadata = encode(attributes, info.metadata or NO_METADATA)
            former, inode.mtime = info.etag, None
            try:
                info = await self._store.update(info.key, metadata, if_match=former, file_id=inode.file_id)
            except (PreconditionFailed, NotFound):
                self._volume.changes.note(inode.key)
                return None
            inode.saw(info)
            self._volume.mutated(inode.key)
        if (live := inode.live) is not None:
            live.attributes = edit(live.attributes)
            live.unsaved = live.content.changed
            await live.content.rebase(info, former=former)
        return self._namespace.file_attr(inode, info)

    # -- directories ------------------------------------------------------------------

    async def _change_directory(self, inode: DirInode, edit: Edit) -> Attr:
        async with self._marker_held(inode) as marker:
            if inode.gone:
                raise stale()
            marker = await self._complete_marker(inode, marker)
            attributes = edit(replace_times(inode))
            await self._write_marker(inode, attributes, marker)
        return directory_attr(inode)

    async def _complete_marker(self, inode: DirInode, marker: ObjectInfo | None) -> ObjectInfo | None:
        """Where listings tell neither whether there is a marker nor what it says: all of that."""
        if self._volume.can.whole_metadata or not inode.key.endswith("/"):
            return marker
        try:
            marker = await whole(self._store, marker or await self._store.head(Key(inode.key)))
        except NotFound:
            return None
        inode.attributes = self._volume.directory_attributes(marker)
        return marker

    @asynccontextmanager
    async def _marker_held(self, inode: DirInode) -> AsyncIterator[ObjectInfo | None]:
        """One change of a marker at a time: each begins with what the one before made of it."""
        await self._volume.gate.wait_free(lambda: inode.key)
        with self._volume.gate.using(inode.key):
            turn, users = self._turns.get(inode, (Turn(), 0))
            self._turns[inode] = turn, users + 1
            try:
                async with turn:
                    yield await self._namespace.marker_of(inode)
            finally:
                turn, users = self._turns.pop(inode)
                if users > 1:
                    self._turns[inode] = turn, users - 1

    async def _write_marker(self, inode: DirInode, attributes: Attributes, marker: ObjectInfo | None) -> None:
        """Write *attributes* into the marker of *inode*, which is made if there is none."""
        if inode.key.endswith("/"):
            key = Key(inode.key)
            metadata = encode(attributes, NO_METADATA if marker is None else marker.metadata or NO_METADATA)
            if marker is None:
                try:
                    await self._store.put(key, b"", self._volume.marker_commit(inode, metadata))
                except AlreadyExists:
                    await self._store.update(key, metadata)  # there was one that no listing had told of
            else:
                await self._update_marker(key, metadata, marker)
            inode.marked = True
            self._volume.mutated(inode.key[:-1])
        inode.attributes, inode.touched_ns = attributes, 0
        self._volume.touched.discard(inode)

    async def _update_marker(self, key: Key, metadata: Mapping[str, str], marker: ObjectInfo) -> None:
        """The version that was seen costs a look less, where we made it; of a marker nothing is lost with another version."""
        try:
            await self._store.update(key, metadata, if_match=marker.etag)
        except PreconditionFailed:
            await self._store.update(key, metadata)

    async def save_times(self, inode: DirInode) -> None:
        """Write the time of the last change of entries into the marker, if there is one."""
        if not inode.touched_ns or inode.gone:
            inode.touched_ns = 0
            self._volume.touched.discard(inode)
            return
        async with self._marker_held(inode) as marker:
            if marker is not None:
                await self._write_marker(inode, replace_times(inode), marker)
            else:
                inode.attributes, inode.touched_ns = replace_times(inode), 0
                self._volume.touched.discard(inode)

    async def save_quiet_times(self) -> None:
        """As `save_times` for all directories in which nothing has come or gone since this was called last. Raises the last failure."""
        before, self._busy = self._busy, {inode: inode.touched_ns for inode in self._volume.touched}
        await self._save_times([inode for inode, touched_ns in self._busy.items() if before.get(inode) == touched_ns])

    async def save_all_times(self, prefix: str = "") -> None:
        """As `save_times` for all directories below *prefix*. Raises the last failure, when all have been tried."""
        await self._save_times([inode for inode in self._volume.touched if inode.key.startswith(prefix)])

    async def _save_times(self, inodes: Sequence[DirInode]) -> None:
        failure: StoreError | None = None
        for inode in inodes:
            try:
                await self.save_times(inode)
            except NotFound:
                self._volume.touched.discard(inode)
                inode.touched_ns = 0
            except StoreError as error:
                failure = error
            self._volume.inodes.drop_if_unused(inode)
        if failure is not None:
            raise failure

    # -- extended attributes ------------------------------------------------------------

    async def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """All that are listed."""
        self._require_xattrs()
        return virtual.without(await self._stored(inode))

    def _require_xattrs(self) -> None:
        if not self._volume.options.xattrs:
            raise NotSupported("Extended attributes are switched off.")

    async def _stored(self, inode: Inode) -> dict[bytes, bytes]:
        if isinstance(inode, DirInode):
            await self._namespace.marker_of(inode)
            return dict(inode.attributes.xattrs)
        if inode.live is None:
            info = await self._namespace.current(inode)
            if info is not None and inode.live is None:
                return dict(self._volume.file_attributes(info).xattrs)
        if inode.live is None:
            raise stale()
        return dict(inode.live.attributes.xattrs)

    async def getxattr(self, inode: Inode, name: bytes) -> bytes:
        self._require_xattrs()
        if virtual.is_virtual(name):
            return (await self._described.get(inode, virtual.aspect_of(name))).encode()
        value = (await self.xattrs(inode)).get(name) if name.startswith(XATTR_KINDS) else None
        if value is None:
            raise NoAttribute("There is no such attribute.")
        return value

    async def setxattr(self, inode: Inode, name: bytes, value: bytes, flags: int) -> None:
        """*flags*: 0, os.XATTR_CREATE or os.XATTR_REPLACE. Raises Exists, NoAttribute, NotSupported, Invalid, NoSpace."""
        self._volume.require_writable()
        if not name.startswith(XATTR_KINDS):
            raise NotSupported("Only user and trusted attributes are kept.")
        if name in XATTR_KINDS:
            raise Invalid("The attribute has no name.")
        if virtual.is_virtual(name):
            self._require_xattrs()
            await self._save_waiting(inode)
            await self._described.set(inode, virtual.settable(name), virtual.text_of(value))
            return
        present = name in await self.xattrs(inode)
        if present and flags & os.XATTR_CREATE:
            raise Exists("The attribute is there already.")
        if not present and flags & os.XATTR_REPLACE:
            raise NoAttribute("There is no such attribute.")
        await self._edit_xattrs(inode, lambda held: {**held, name: bytes(value)})

    async def removexattr(self, inode: Inode, name: bytes) -> None:
        self._volume.require_writable()
        if virtual.is_virtual(name):
            await self._save_waiting(inode)
            await self._described.remove(inode, virtual.settable(name))
            return
        await self.getxattr(inode, name)
        await self._edit_xattrs(inode, lambda held: {known: value for known, value in held.items() if known != name})

    async def _save_waiting(self, inode: Inode) -> None:
        """What objects say of themselves is changed behind what waits to be saved."""
        if isinstance(inode, FileInode) and inode.live is not None and not inode.live.content.changed:
            await self._files.save(inode)

    async def _edit_xattrs(self, inode: Inode, edit: Callable[[dict[bytes, bytes]], dict[bytes, bytes]]) -> None:
        now = self._volume.clock_ns()

        def edited(attributes: Attributes) -> Attributes:
            xattrs = edit(dict(attributes.xattrs))
            limit = self._store.capabilities.metadata_bytes - OTHER_BYTES
            if len(write_xattrs(xattrs)) > limit:
                raise NoSpace(f"The extended attributes of one file take at most {limit} bytes in this store, encoded.")
            return replace(attributes, xattrs=xattrs, ctime_ns=now)

        await self.change(inode, edited)


def replace_times(inode: DirInode) -> Attributes:
    """The attributes of a directory with the time of its last change of entries."""
    if not inode.touched_ns:
        return inode.attributes
    return inode.attributes.at(inode.touched_ns, inode.touched_ns)

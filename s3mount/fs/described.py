"""What the objects behind inodes say of themselves: asked of the store, changed in it.

Owns: which object an inode's words are about, and what a change of them means to an inode that is in use.
Must not know: names of extended attributes, handles.

A change makes the object anew where the store cannot do otherwise; the inode then stands on the new version, and its open files too.
One with content that is not committed yet is not changed: its commit would undo that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from s3mount.errors import Busy, Invalid, NoAttribute, NotFound, NotPermitted, NotSupported, PreconditionFailed, UsageError
from s3mount.fs.inode import DirInode, FileInode, Inode, Standing
from s3mount.fs.live import Live
from s3mount.fs.namespace import Namespace
from s3mount.fs.volume import Volume
from s3mount.model import NO_METADATA, Key, ObjectInfo
from s3mount.store.aspects import CONTENT_TYPE, ETAG, SIZE, STORAGE_CLASS, TAGS, URL, told_by

# What a listing tells truly; the rest only the object itself.
LISTED = frozenset({ETAG, SIZE, STORAGE_CLASS})


class Described:
    """Aspects of inodes."""

    def __init__(
        self,
        volume: Volume,
        namespace: Namespace,
        renewing: Callable[[FileInode], AbstractContextManager[None]],
        found: Callable[[FileInode, Live, ObjectInfo], Awaitable[None]],
    ) -> None:
        """*renewing*, *found*: see `saving`."""
        self._volume = volume
        self._namespace = namespace
        self._renewing = renewing
        self._found = found
        self._store = volume.store

    async def get(self, inode: Inode, name: str) -> str:
        """The aspect *name* of the object behind *inode*. Raises NoAttribute, Stale."""
        value = await self._told(inode, name)
        if value is None:
            raise NoAttribute(f"The object has no {name}.")
        return value

    async def _told(self, inode: Inode, name: str) -> str | None:
        info = await self._object(inode)
        if name == URL and (info is not None or isinstance(inode, DirInode)):
            return await self._store.aspect(Key(inode.key), URL)
        if info is None:
            return None
        if name in LISTED:
            return told_by(info, name)
        try:
            return await self._store.aspect(info.key, name)
        except NotFound:
            return None

    async def _object(self, inode: Inode) -> ObjectInfo | None:
        """The file's object or the directory's marker; None where there is none."""
        if isinstance(inode, DirInode):
            return await self._namespace.marker_of(inode)
        info = await self._namespace.current(inode)
        if info is None and inode.live is not None and inode.standing is Standing.NAMED:
            return inode.live.content.base
        return info

    async def set(self, inode: Inode, name: str, value: str) -> None:
        """Set an aspect that can be set. Raises NotSupported for a directory, Busy, Invalid, NoAttribute, Stale, StoreErrors."""
        if isinstance(inode, DirInode):
            raise NotSupported(f"The {name} of a directory cannot be set.")
        try:
            while not await self._set(inode, name, value):
                pass
        except UsageError as error:
            raise Invalid(str(error)) from error

    async def remove(self, inode: Inode, name: str) -> None:
        """Take all tags away; a type and a class cannot be taken away. Raises NotPermitted, and as `set`."""
        if name != TAGS:
            raise NotPermitted(f"An object always has a {name}.")
        await self.get(inode, name)
        await self.set(inode, name, "")

    async def _set(self, inode: FileInode, name: str, value: str) -> bool:
        """False where the object was another one by then: look again."""
        await self._volume.arrive(inode.key)
        info = await self._namespace.current(inode)
        if info is not None and inode.live is not None:
            await self._found(inode, inode.live, info)
        await self._volume.gate.wait_free(lambda: inode.key)
        if info is None and inode.live is None:
            raise NoAttribute("There is no object to change yet.")
        if inode.live is not None and (info is None or inode.live.content.changed):
            raise Busy(f"The file is being written: set its {name} when it is closed.")
        assert info is not None
        if inode.key != info.key:
            return False
        with self._renewing(inode):
            return await self._set_version(inode, info, name, value)

    async def _set_version(self, inode: FileInode, info: ObjectInfo, name: str, value: str) -> bool:
        live = inode.live
        if live is None:
            return await self._sent(inode, info, name, value)
        with live.renewing(info.metadata or NO_METADATA):
            return await self._sent(inode, info, name, value)

    async def _sent(self, inode: FileInode, info: ObjectInfo, name: str, value: str) -> bool:
        with self._volume.gate.using(inode.key):
            former, inode.mtime = info.etag, None
            try:
                info = await self._store.set_aspect(info.key, name, value, if_match=former, file_id=inode.file_id)
            except (PreconditionFailed, NotFound):
                self._volume.changes.note(inode.key)
                return False
            inode.saw(info)
            self._volume.mutated(inode.key)
            if (live := inode.live) is not None:
                live.content_type = value if name == CONTENT_TYPE else live.content_type
                live.storage_class = value if name == STORAGE_CLASS else live.storage_class
                await live.content.rebase(info, former=former)
        return True

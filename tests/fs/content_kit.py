"""A content on a store in memory, and a plain bytearray to compare it with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from s3mount.fs.buffers import BufferPool
from s3mount.fs.content import FileContent, Target
from s3mount.fs.early import Uploads
from s3mount.fs.staging import StagingArea
from s3mount.model import Condition, Key, ObjectInfo
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.memory import MemoryStore
from s3mount.store.wrap.faulty import Faulty, Script

KEY = Key("dir/file")
FILE_ID = 77


@dataclass
class Rig:
    """One mount's worth of things around contents."""

    memory: MemoryStore = field(default_factory=MemoryStore)
    folder: Path | None = None
    script: Script = field(default_factory=Script)
    key: Key = KEY
    condition: Condition = None
    file_id: int = FILE_ID
    early: bool = False
    store: ObjectStore = field(init=False)
    area: StagingArea = field(init=False)
    uploads: Uploads | None = field(init=False)

    def __post_init__(self) -> None:
        self.store = Faulty(self.memory, self.script)
        self.area = StagingArea(self.folder, patience_s=0)  # large writes go through threads
        self.uploads = Uploads(self.store) if self.early else None

    def target(self) -> Target:
        return Target(self.key, Commit(condition=self.condition, file_id=self.file_id))

    def content(self, base: ObjectInfo | None = None) -> FileContent:
        return FileContent(self.store, self.area, BufferPool(), base=base, uploads=self.uploads, target=self.target)

    async def stored(self, data: bytes) -> FileContent:
        """A content opened on an object that holds *data*."""
        content = self.content(await self.memory.put(KEY, data, Commit(file_id=FILE_ID)))
        await content.open()
        return content

    async def another_client_puts(self, data: bytes) -> ObjectInfo:
        return await self.memory.another().put(self.key, data, Commit(file_id=FILE_ID))

    async def object(self) -> bytes:
        """What the object holds now."""
        content = FileContent(self.memory, StagingArea(), BufferPool(), base=await self.memory.head(self.key))
        try:
            await content.open()
            return await bytes_of(content)
        finally:
            await content.aclose()

    async def leave(self, content: FileContent) -> None:
        """Close, and see that nothing of it is left."""
        content.check()
        await content.aclose()
        await content.aclose()
        assert self.area.memory == 0
        assert self.folder is None or not os.listdir(self.folder)


async def bytes_of(content: FileContent) -> bytes:
    return bytes(await content.read(0, content.size + 1))


def write_over(model: bytearray, offset: int, data: bytes) -> None:
    """What pwrite does."""
    model.extend(bytes(max(0, offset - len(model))))
    model[offset : offset + len(data)] = data


async def rewrite(content: FileContent, model: bytearray, offset: int, data: bytes) -> None:
    """The same write to both."""
    await content.write(offset, data)
    write_over(model, offset, data)


def resize(model: bytearray, size: int) -> None:
    """What ftruncate does."""
    del model[size:]
    model.extend(bytes(size - len(model)))

"""Blocks: a store whose pins read from memory, filled from the store inside, ahead of sequential readers.

Owns: the parts of the cache and how they are put together.
Must not know: which store is inside, what files are.

    read --> pin --> Streams (pure): what to fetch now, what ahead, what not any more
              |          |
              |       Version: what of it is not here and not on its way --> Fetcher --> store inside
              |          |                                                     |
              '<-- copy -'  as soon as the first bytes asked for are there     '-- memory from Arena, when its turn has come

A version is the key, the ETag and the size: whatever pins it, now or later, shares its blocks. A replaced object is another version; what
is cached of the former one goes on being read by those who pinned it.
A failure reaches those who wait for the block, and nobody else: it is not remembered. What was fetched ahead and failed is asked for again
when it is read. A reader that is cancelled, or whose pin is closed, takes back what was fetched ahead for it, unless others want it too.
"""

from __future__ import annotations

from s3mount.cache.arena import Arena
from s3mount.cache.budget import Budget, Line
from s3mount.cache.disk import Disk
from s3mount.cache.fetches import Fetcher
from s3mount.cache.file_walk import NoSiblings, Siblings
from s3mount.cache.neighbours import Neighbours
from s3mount.cache.options import CacheOptions
from s3mount.cache.pins import BlockPin, Parts
from s3mount.cache.streams import Shape
from s3mount.cache.tasks import Background
from s3mount.cache.versions import Versions
from s3mount.model import ETag, Key, ObjectInfo
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.wrap.base import Wrapper

# Of the memory limit: blocks; the rest is for tables, buffers of replies and the allocator.
BLOCKS_SHARE = 7, 8
# Of the blocks: fetched ahead and not read yet. The rest holds what is read now and what was read last.
AHEAD_SHARE = 3, 4
# Of the blocks: the files ahead of one walk.
WALK_PART = 4


class Blocks(Wrapper):
    """*inner*, with a cache of its bytes. `aclose` ends what runs in the background."""

    def __init__(
        self,
        inner: ObjectStore,
        options: CacheOptions = CacheOptions(),  # noqa: B008 (frozen)
        *,
        siblings: Siblings | None = None,
    ) -> None:
        """*siblings*: what listings know of a file's directory."""
        super().__init__(inner)
        self.arena = Arena(options.memory_limit * BLOCKS_SHARE[0] // BLOCKS_SHARE[1])
        self.versions = Versions()
        self._background = Background()
        self.disk = self._disk_of(options)
        line = Line()
        self.fetcher = Fetcher(inner, self.arena, self._background, line, self.disk)
        if self.disk is not None:
            self.disk.released = self.fetcher.pump
        budget = Budget(self.arena.limit * AHEAD_SHARE[0] // AHEAD_SHARE[1], line)
        shape = Shape(request=self.arena.region_bytes)
        self._neighbours = Neighbours(
            self.versions, self.fetcher, siblings or NoSiblings(), most=shape.first, room=self.arena.limit // WALK_PART
        )
        self._parts = Parts(self.versions, self.fetcher, budget, shape, self._neighbours)

    @property
    def siblings(self) -> Siblings:
        return self._neighbours.walks.siblings

    @siblings.setter
    def siblings(self, siblings: Siblings) -> None:
        self._neighbours.walks.siblings = siblings

    def check(self) -> None:
        self.arena.check()
        self.versions.check()
        self.fetcher.check()
        if self.disk is not None:
            self.disk.check()

    def statistics(self) -> dict[str, object]:
        """How much of the memory for blocks is used, in bytes."""
        return {"memory_used": self.arena.used, "memory_limit": self.arena.limit}

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> BlockPin:
        if self.disk is not None:
            self.disk.begin()
        pin = await self.inner.pin(key, if_match=if_match, known=known)
        return BlockPin(self._parts, pin)

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        info = await self.inner.put(key, data, commit)
        self._keep(info, memoryview(data))
        return info

    def _keep(self, info: ObjectInfo, data: memoryview) -> None:
        """What was just put is often read next: by a build, by whoever unpacks an archive."""
        if not 0 < info.size == data.nbytes <= self._parts.shape.first:
            return
        version = self.versions.of(info)
        if not len(version):
            block = version.add(0, info.size)
            slot = self.arena.take(info.size, block, spare_wanted=True)
            if slot is None:
                block.fail(None)
                return
            slot.view(0, info.size)[:] = data.cast("B")
            block.begin(slot)
            block.done()
            if self.disk is not None:
                self.disk.offer(block)

    def _disk_of(self, options: CacheOptions) -> Disk | None:
        if options.folder is None or not options.disk_limit:
            return None
        return Disk(options.folder, options.disk_limit, identity=options.identity, background=self._background)

    async def aclose(self) -> None:
        if self.disk is not None:
            await self.disk.aclose()
        await self._background.aclose()
        await self.inner.aclose()

"""The bytes of one file as they are now: a base version below, logs of what was written above it.

Owns: the table of extents, the logs of the generations, the pin of the base, and reading and writing through them.
Must not know: when and how a commit is sent, what failed before, names, the kernel.

    write --> | log of `generation` | <-- the only one that grows
              | logs of former ones | frozen; shown until the base has their bytes
    read  --> | pinned version      | the KEPT extents

`freeze` takes a copy of the table for a commit and begins the next generation; `thaw` ends that. All the while reads and writes go on.

Two versions are at work. `base` is what the next commit edits. The pinned one is what KEPT extents are read from; it may be an older one,
where the store keeps versions and the new one could not be pinned. Extents up to generation `settled` have the bytes that the base has,
wherever they are read from.

Invariants (`check`), besides those of extents:
L1  Every STAGED extent names a log in `files` that is not retired, and lies below its length.
L2  Generations run up to `generation`; the logs of former ones are frozen. settled < generation.
L3  KEPT and settled extents lie inside the base.
L4  The bytes of KEPT extents are the same in the base and in the pinned version.
L5  A log is retired once nothing shows it: neither the table nor the frozen copy of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import trio

from s3mount.errors import NotFound, PreconditionFailed, Stale, StoreError
from s3mount.fs.buffers import BufferPool, fill_zeros
from s3mount.fs.extents import Extent, Extents, Kind, kept
from s3mount.fs.pinned import Pinned
from s3mount.fs.renewals import Renewals
from s3mount.fs.staging import StagingArea, StagingFile
from s3mount.model import Content, ETag, Hole, Kept, Key, MiB, ObjectInfo, Piece, Staged
from s3mount.store.api import ObjectStore, Pin

# After a commit the new version need not be pinned while fewer logs than this, all in memory, are above the former one: a database commits
# some pages at a time, and pinning costs a quarter of such a commit. Until then dead bytes of the former version take room.
LAZY_LOGS = 16

# How much `fetch_kept` fetches at once.
FETCH_BYTES = 1 * MiB

# By which a store says that a version is not there any more.
GONE = (PreconditionFailed, NotFound)


@dataclass(frozen=True, slots=True, eq=False)
class FrozenLayers:
    """The table as a commit sends it, generations up to *generation*; *thawed* once that is over."""

    generation: int
    table: Extents
    thawed: trio.Event = field(default_factory=trio.Event)


class Layers:
    """What `FileContent` reads and writes through."""

    def __init__(self, store: ObjectStore, staging: StagingArea, buffers: BufferPool, *, base: ObjectInfo | None) -> None:
        self.base = base
        self.key = base.key if base else None
        self.table = Extents([kept(0, base.size)] if base and base.size else [])
        self.settled = 0
        self.files: dict[int, StagingFile] = {}
        self.renewals = Renewals(told=store.capabilities.whole_metadata)
        self._store = store
        self._staging = staging
        self._buffers = buffers
        self._generation = 1
        self._frozen: FrozenLayers | None = None
        self._copied: tuple[ETag, ETag] | None = None
        self._pinned: Pinned | None = None
        self._pinning = trio.Lock()

    def __repr__(self) -> str:
        return f"<Layers {self.table!r} over {self._pinned or 'nothing pinned'}, logs {sorted(self.files)}>"

    def check(self) -> None:
        self.table.check()
        for extent in self.table:
            if extent.kind is Kind.STAGED:
                file = self.files[extent.generation]
                assert not file.retired, f"L1 {extent}"
                assert extent.position + extent.stop - extent.start <= file.length, f"L1 {extent}"
            if extent.generation <= self.settled:
                assert self.base is not None, f"L3 {extent}"
                assert extent.stop <= self.base.size, f"L3 {extent}"
        assert self.settled < self._generation, "L2"
        assert all(file.frozen or number == self._generation for number, file in self.files.items()), "L2"
        assert not any(self._is_dead(number) for number in self.files), "L5"

    async def aclose(self) -> None:
        """Nobody may be reading or writing. Idempotent; the caller sees to it that nobody cancels it."""
        files, self.files = list(self.files.values()), {}
        for file in files:
            file.freeze()
            await file.wait_written()
            await file.retire()
        await self.drop_pin()

    def close_nowait(self) -> bool:
        """As `aclose`, if that waits for nothing; else False, and nothing is done."""
        if self._pinned is not None or not all(file.goes_at_once for file in self.files.values()):
            return False
        files, self.files = self.files, {}
        for file in files.values():
            file.retire_nowait()
        return True

    # -- the pin ------------------------------------------------------------------------

    @property
    def pinned(self) -> bool:
        return self._pinned is not None

    async def pin(self) -> None:
        """Pin the base unless it is pinned. Raises Stale, StoreError."""
        while self.base is not None and self._pinned is None:
            base = self.base
            try:
                await self._pin_base()
            except GONE as error:
                await self._require_renewed(base, error)

    async def repin(self) -> bool:
        """Pin the base as it is now instead of what is pinned. False if that cannot be done now; then what the store keeps stays pinned."""
        assert self.base is not None
        if not self._store.capabilities.versions:
            await self.drop_pin()
        try:
            async with self._pinning:
                former, self._pinned = self._pinned, Pinned(await self._store.pin(self.key or self.base.key, known=self.base))
        except StoreError:
            return False
        if former is not None:
            await former.retire()
        return True

    async def drop_pin(self) -> None:
        pinned, self._pinned = self._pinned, None
        if pinned is not None:
            await pinned.retire()

    def moved(self, key: Key) -> None:
        self.key = key
        if self.base is not None:
            self.base = replace(self.base, key=key)

    async def carried(self, copy: ObjectInfo, *, former: ETag) -> None:
        """Version *former*, if that is the base, goes: *copy* has its bytes."""
        if self.base is not None and self.base.etag == former:
            self.base, self.key, self._copied = copy, copy.key, (former, copy.etag)
            await self.drop_pin()

    def stands_on(self, etag: ETag) -> bool:
        """Whether the base is version *etag*, or the copy that was made of it."""
        return self.base is not None and (self.base.etag == etag or self._copied == (etag, self.base.etag))

    async def _pin_base(self) -> Pinned:
        """Raises PreconditionFailed or NotFound where the base is gone, StoreError."""
        async with self._pinning:
            while self._pinned is None:
                base = self.base
                assert base is not None
                pinned = Pinned(await self._store.pin(self.key or base.key, known=base))
                if self.base is base:
                    self._pinned = pinned
                else:
                    await pinned.retire()
            return self._pinned

    async def _require_renewed(self, base: ObjectInfo | None, refusal: StoreError) -> None:
        """Return if this mount itself replaced *base*, or does so just now (once that is over); else raise Stale."""
        if self._frozen is not None and self.base is base:
            await self._frozen.thawed.wait()
        if self.base is base:
            await self.renewals.over()
        if self.base is base:
            raise self.stale() from refusal

    def stale(self, key: str | None = None) -> Stale:
        """*key*: where it was to be stored, if not over what it was read from."""
        return Stale(f"{key or self.key!r} was replaced or removed by somebody else; open it again.")

    # -- reading ----------------------------------------------------------------------

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """As `FileContent.read`."""
        stop = min(offset + size, self.table.size)
        if stop <= offset:
            return b""
        if (view := self._view_nowait(offset, stop)) is not None:
            return view
        buffer = self._buffers.take(stop - offset)
        try:
            if not self._fill_nowait(offset, stop, buffer):
                stop = await self._fill_renewing(offset, stop, buffer)
            return buffer[: stop - offset]
        finally:
            self._buffers.give(buffer)

    async def fill(self, extents: Sequence[Extent], offset: int, buffer: memoryview) -> None:
        """Fill *buffer*, which stands for the file from *offset* on, with *extents*. Raises PreconditionFailed or NotFound, StoreError."""
        files = [self.files.get(extent.generation) for extent in extents]
        if not any(extent.kind is Kind.KEPT for extent in extents):
            await self._fill_from(extents, files, None, offset, buffer)
            return
        async with self._pinned or await self._pin_base() as pin:
            await self._fill_from(extents, files, pin, offset, buffer)

    async def fill_surely(self, extents: Sequence[Extent], offset: int, buffer: memoryview) -> None:
        """As `fill`, whether or not the base is copied meanwhile. Raises Stale where somebody else replaced it, StoreError."""
        while True:
            base = self.base
            try:
                return await self.fill(extents, offset, buffer)
            except GONE as error:
                if self.base is base:
                    raise self.stale() from error

    def _view_nowait(self, offset: int, stop: int) -> memoryview | None:
        """The bytes where the store has them in memory, without a copy."""
        if self._pinned is None:
            return None
        extents = self.table.slice(offset, stop)
        if len(extents) != 1 or extents[0].kind is not Kind.KEPT:
            return None
        return self._pinned.pin.view_nowait(offset, stop - offset)

    def _fill_nowait(self, offset: int, stop: int, buffer: memoryview) -> bool:
        pin = self._pinned.pin if self._pinned else None
        for extent in self.table.slice(offset, stop):
            part = buffer[extent.start - offset : extent.stop - offset]
            if not _fill_one_nowait(extent, self.files.get(extent.generation), pin, part):
                return False
        return True

    async def _fill_renewing(self, offset: int, stop: int, buffer: memoryview) -> int:
        """Fill *buffer* up to *stop*, or to the file's end where it was cut meanwhile, and say which."""
        while True:
            stop = max(offset, min(stop, self.table.size))
            base = self.base
            try:
                await self.fill(self.table.slice(offset, stop), offset, buffer)
                return stop
            except GONE as error:
                await self._require_renewed(base, error)

    @staticmethod
    async def _fill_from(
        extents: Sequence[Extent], files: Sequence[StagingFile | None], pin: Pin | None, offset: int, buffer: memoryview
    ) -> None:
        with ExitStack() as stack:
            for file in files:
                if file is not None:
                    stack.enter_context(file.held())
            for extent, file in zip(extents, files, strict=True):
                part = buffer[extent.start - offset : extent.stop - offset]
                if _fill_one_nowait(extent, file, pin, part):
                    continue
                if file is not None:
                    await file.read(extent.position, part)
                else:
                    assert pin is not None
                    await pin.get_into(extent.start, part)

    async def copy_out(self, extents: Sequence[Extent], offset: int, buffer: memoryview) -> None:
        """As `fill`, of STAGED extents and holes alone, in one thread: for a part of an upload. Raises Unavailable."""
        staged: list[tuple[StagingFile, int, memoryview]] = []
        with ExitStack() as stack:
            for extent in extents:
                part = buffer[extent.start - offset : extent.stop - offset]
                if extent.kind is Kind.HOLE:
                    fill_zeros(part)
                else:
                    staged.append((self.files[extent.generation], extent.position, part))
                    stack.enter_context(staged[-1][0].held())
            if staged:
                await self._staging.read_out(staged)

    # -- writing ----------------------------------------------------------------------

    async def write(self, offset: int, data: memoryview) -> None:
        """Stage *data* and show it, with no checkpoint after that. Raises NoSpace, Unavailable: then nothing of the table changed.

        What it left nothing of goes with `drop_overwritten`.
        """
        generation, file = self._log()
        places = self.table.places(offset, offset + len(data), generation=generation, end=file.length)
        await file.write([(place.position, data[place.start - offset : place.stop - offset]) for place in places])
        for place in places:
            self._show(place)

    async def resize(self, size: int) -> None:
        """Cut, or grow by a hole."""
        self.table.resize(size, self._generation)
        await self.drop_unreferenced()

    async def fetch(self, start: int, stop: int) -> None:
        """Move what is kept between *start* and *stop* into the log: no edit, only another place. Raises as `fill_surely` and `write`."""
        buffer = memoryview(bytearray(stop - start))
        await self.fill_surely([kept(start, stop)], start, buffer)
        generation, file = self._log()
        position = file.length
        await file.write([(position, buffer)])
        for extent in self.table.slice(start, stop):
            if extent.kind is Kind.KEPT:
                self.table.overwrite(extent.start, extent.stop, generation=generation, position=position + extent.start - start)
        await self.drop_unreferenced()

    async def fetch_kept(self, limit: int) -> None:
        """Fetch what is kept of the base, at most *limit* bytes of it. Raises as `fetch`; what has come by then stays fetched."""
        for extent in [extent for extent in self.table if extent.kind is Kind.KEPT]:
            stop = min(extent.stop, extent.start + limit)
            for start in range(extent.start, stop, FETCH_BYTES):
                await self.fetch(start, min(start + FETCH_BYTES, stop))
            limit -= max(0, stop - extent.start)

    def _log(self) -> tuple[int, StagingFile]:
        """The generation that is being written, and its log."""
        if self._generation not in self.files:
            self.files[self._generation] = self._staging.create()
        return self._generation, self.files[self._generation]

    def _show(self, place: Extent) -> None:
        """Enter freshly written bytes into the table, and into the copy of a commit that froze their generation meanwhile."""
        where = {"generation": place.generation, "position": place.position}
        self.table.overwrite(place.start, place.stop, **where, hole_generation=self._generation)
        if self._frozen is not None and place.generation <= self._frozen.generation:
            self._frozen.table.overwrite(place.start, place.stop, **where)

    # -- for a commit -------------------------------------------------------------------

    def freeze(self) -> FrozenLayers:
        """Take what a commit sends. Wait for `written` before using it; `thaw` it."""
        assert self._frozen is None
        self._frozen = FrozenLayers(self._generation, self.table.copy())
        for file in self.files.values():
            file.freeze()
        self._generation += 1
        return self._frozen

    async def written(self, frozen: FrozenLayers) -> None:
        """Until the writes that had begun before `freeze` are in *frozen*."""
        for file in [file for number, file in self.files.items() if number <= frozen.generation]:
            await file.wait_written()

    def content(self, frozen: FrozenLayers) -> Content:
        """What *frozen* is to a store, whatever of it the base has already; the logs are the staged bytes."""
        pieces = tuple(self._piece(extent) for extent in frozen.table.committed(self.settled))
        return Content(frozen.table.size, pieces, self.base if any(isinstance(piece, Kept) for piece in pieces) else None)

    def _piece(self, extent: Extent) -> Piece:
        length = extent.stop - extent.start
        match extent.kind:
            case Kind.KEPT:
                return Kept(extent.start, length)
            case Kind.HOLE:
                return Hole(extent.start, length)
            case Kind.STAGED:
                return Staged(extent.start, length, self.files[extent.generation], extent.position)

    def thaw(self) -> None:
        assert self._frozen is not None
        self._frozen.thawed.set()
        self._frozen = None

    def rest_on(self, base: ObjectInfo, generation: int) -> None:
        """*base* has everything up to *generation*."""
        self.base, self.key, self.settled = base, base.key, generation

    async def settle(self) -> None:
        """Read what is settled from the base from here on, unless it is little and what is pinned stays readable (`LAZY_LOGS`).

        If the base cannot be pinned, all stays where it is: the logs are as good.
        """
        generation = self.settled
        await self.drop_unreferenced()
        if self._is_little(generation):
            return
        if self.table.size and await self.repin():
            self.table.settle(generation)
            await self.drop_unreferenced()

    def _is_little(self, generation: int) -> bool:
        """Whether the logs up to *generation* may stay for now."""
        if self._pinned is None or not self._store.capabilities.versions:
            return False
        logs = [file.length for number, file in self.files.items() if number <= generation]
        return len(logs) < LAZY_LOGS and self._staging.may_hold(sum(logs), more=0)

    def in_one(self, frozen: FrozenLayers) -> bytearray | None:
        """All bytes of *frozen*, where one log in memory has just them, in their order: most files are written so. Not to be changed."""
        if len(frozen.table) != 1:
            return None
        extent = next(iter(frozen.table))
        at_once = extent.kind is Kind.STAGED and extent.generation == frozen.generation and not extent.position
        return self.files[extent.generation].whole(extent.stop) if at_once else None

    async def gather(self, data: bytearray) -> None:
        """*data* is the whole base: read what is settled from there from here on, where memory allows."""
        if (log := self.files.get(self.settled)) is not None and log.whole(len(data)) is data:
            await self.drop_unreferenced()
            await self.drop_pin()
            return
        if not data or not self._staging.may_hold(len(data), more=len(data)):
            await self.settle()
            return
        former = self.files.get(self.settled)
        self.files[self.settled] = self._staging.hold(data)
        self.table.gather(self.settled)
        await self.drop_unreferenced()
        if former is not None:
            await former.retire()
        await self.drop_pin()

    async def drop_overwritten(self) -> None:
        """As `drop_unreferenced`, after a write."""
        if len(self.files) > 1:
            await self.drop_unreferenced()

    async def drop_unreferenced(self) -> None:
        dead = [number for number in self.files if self._is_dead(number)]
        if self._generation in dead:
            self._generation += 1
        for file in [self.files.pop(number) for number in dead]:
            await file.retire()

    def _is_dead(self, number: int) -> bool:
        file = self.files[number]
        if file.writing or self.table.live(number):
            return False
        if self._frozen is not None and number <= self._frozen.generation:
            return False
        return number < self._generation or file.length > 0


def _fill_one_nowait(extent: Extent, file: StagingFile | None, pin: Pin | None, part: memoryview) -> bool:
    if extent.kind is Kind.HOLE:
        fill_zeros(part)
        return True
    if extent.kind is Kind.STAGED:
        assert file is not None
        return file.read_into_nowait(extent.position, part)
    return pin is not None and pin.get_into_nowait(extent.start, part)

"""Copies of renames that failed: taken back, at once or as soon as the store allows it, and not seen until then.

Owns: which copies those are, whether one may still be taken back, when that is tried again.
Must not know: how keys are copied, POSIX, inodes.

    a rename fails --> written down --> hidden --deleted--> gone
                                          |  `-- refused, or the store is away --> tried again: now and then, before somebody needs the
                                          |                                        key, by the next mount
                                          |-- something else is put there -------> written over (`write_over`)
                                          `-- somebody else's by now, or the last one of its bytes --> seen

U1  What this mount has never shown is deleted in exactly the version that it made; where a lost reply left that open, in one that is a
    copy. Whoever tries again looks at the version first: not every service heeds a condition.
U2  A copy that others may have seen stays where its source has gone, unless this mount took that away: its bytes may be nowhere else.
U3  A record goes when nothing of its copies is left to be taken back.
U4  That a rename failed is written down before any of its copies is taken back: after a crash the others are taken back as well.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from s3mount.errors import NotFound, PreconditionFailed, S3MountError
from s3mount.fs.copies import DOUBTFUL_OR_CANCELLED, copy_of, each
from s3mount.fs.journal import Move, Record
from s3mount.fs.later import About, Later
from s3mount.fs.overlay import Copies, Overlay
from s3mount.model import ETag, Key, ObjectInfo
from s3mount.store.api import ObjectStore

log = logging.getLogger(__name__)

# For undoing after a failure, before the caller gets his answer.
UNDO_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class Failed:
    """A rename that is being undone: its `copies`."""

    record: Record | None
    copies: Copies

    def over(self, number: int) -> None:
        """The copy *number* is none any more, or not ours."""
        if self.record is None:
            return
        if self.copies.left:
            self.record.copied(number, ETag(""))
        else:
            self.record.done()


@dataclass(slots=True, eq=False)
class Stray:
    """The copy that a move has made, or may have made (`etag` is None). `fresh`: its source was there just now; `parted`: we took it from
    there.
    """

    failed: Failed
    number: int
    move: Move
    etag: ETag | None
    fresh: bool
    parted: bool = False
    turn: trio.Lock = field(default_factory=trio.Lock)


class Undoing:
    """All of one mount. *store* is without *overlay*."""

    def __init__(self, store: ObjectStore, overlay: Overlay) -> None:
        self._store = store
        self._overlay = overlay
        self._strays: dict[str, Stray] = {}
        self._by_source: dict[str, list[Stray]] = {}
        self.later = Later(self._take_back, _about)

    def check(self) -> None:
        assert all(stray.failed.copies.left for stray in self._strays.values()), "U3"

    # -- beginning ----------------------------------------------------------------------

    async def undo(self, record: Record | None, moves: Sequence[Move], copies: Mapping[int, ETag | None], below: str) -> None:
        """Take back *copies* of *moves*, by number, which lie below *below* or under that key. Never fails, nor takes long."""
        if copies:
            await self._write_down(record, below)
        strays = self._begin(record, moves, copies, fresh=True)
        with trio.move_on_after(UNDO_SECONDS, shield=True):
            await each(strays, self._try)
        for stray in strays:
            stray.fresh = False
        if left := [stray for stray in strays if stray.move.target in self._strays]:
            log.warning("%d copies of a rename that failed lie below %r: they are taken back when the store allows it", len(left), below)
            self.later.put_off(left)

    async def take_up(self, record: Record, numbers: Iterable[int], parted: Collection[Key] = ()) -> None:
        """Go on with what a former mount has left; *numbers* are its moves that nobody has named since. Raises StoreErrors, and goes on.

        *parted*: what went elsewhere from there since, by our doing.
        """
        copies = {number: record.copies.get(number) for number in numbers}
        strays = self._begin(record, record.moves, copies, fresh=False)
        for stray in strays:
            stray.parted = stray.move.source in parted
        self.later.put_off(strays)
        await each(strays, self._take_back)

    def _begin(self, record: Record | None, moves: Sequence[Move], copies: Mapping[int, ETag | None], *, fresh: bool) -> Sequence[Stray]:
        if not copies:
            if record is not None:
                record.done()
            return ()
        failed = Failed(record, Copies({moves[number].target: etag for number, etag in copies.items()}))
        self._overlay.hide(failed.copies)
        strays = [Stray(failed, number, moves[number], etag, fresh) for number, etag in copies.items()]
        self._strays.update((stray.move.target, stray) for stray in strays)
        for stray in strays:
            self._by_source.setdefault(stray.move.source, []).append(stray)
        return strays

    async def _write_down(self, record: Record | None, below: str) -> None:
        if record is not None:
            try:
                await trio.to_thread.run_sync(record.undo, below)
            except OSError as error:
                log.error("The journal of renames cannot be written, and the next mount may go on with one that failed: %s", error.strerror)

    # -- taking back --------------------------------------------------------------------

    async def settle(self, prefix: str = "") -> None:
        """On return nothing below *prefix* is left. Raises the first reason why something is; another comes first the next time."""
        await each([stray for key, stray in self._strays.items() if key.startswith(prefix)], self._take_back)

    async def clear(self, *keys: str) -> None:
        """On return no copy that was not taken back lies under *keys*. Raises StoreErrors."""
        if self._strays and (found := [stray for key in keys if (stray := self._strays.get(key)) is not None]):
            await each(found, self._take_back)

    def lying(self, key: str) -> Stray | None:
        """The copy that was not taken back and lies under *key*."""
        return self._strays.get(key)

    async def write_over(self, stray: Stray, put: Callable[[], Awaitable[ObjectInfo]]) -> ObjectInfo | None:
        """Do *put*, which puts something else where *stray* lies; None, and nothing, where that was taken back meanwhile."""
        key = stray.move.target
        async with stray.turn:
            if self._strays.get(key) is not stray:
                return None
            try:
                info = await put()
            except DOUBTFUL_OR_CANCELLED:
                self._written_over(stray)
                raise
            self._written_over(stray)
            return info

    def _written_over(self, stray: Stray) -> None:
        """Or it may be: what is just like it by its ETag is not deleted in its place."""
        self.later.forget(stray)
        self._over(stray, seen=True)

    def removed(self, key: str) -> None:
        """This mount has removed what stood under *key*: who did so has not seen a copy."""
        for stray in self._by_source.get(key, ()):
            stray.parted = True

    def leave(self) -> None:
        """What is left is for the next mount."""
        for stray in self._strays.values():
            if stray.failed.record is not None:
                stray.failed.record.leave()

    async def _try(self, stray: Stray) -> None:
        with suppress(S3MountError):
            await self._take_back(stray)

    async def _take_back(self, stray: Stray) -> None:
        async with stray.turn:
            if self._strays.get(stray.move.target) is not stray:
                return
            try:
                seen = await self._delete(stray)
            except S3MountError as error:
                self.later.failed(stray, error, "undo")
                self._strays[stray.move.target] = self._strays.pop(stray.move.target)
                raise
            self._over(stray, seen=seen)

    async def _delete(self, stray: Stray) -> bool:
        """Whether something stays there: somebody else's, or what is needed."""
        move = stray.move
        if stray.etag is None:
            copy = await copy_of(self._store, move)
            if copy is None:
                return await self._found(move.target) is not None
            stray.etag = stray.failed.copies.etags[move.target] = copy.etag
        if not stray.fresh:
            there = await self._found(move.target)
            if there is None or there.etag != stray.etag:
                return there is not None
        if not (stray.fresh or stray.parted) and await self._found(move.source) is None:
            log.warning("%r is gone, and its copy %r, which a rename that failed has left, stays", move.source, move.target)
            return True
        try:
            await self._store.delete(move.target, if_match=stray.etag if self._store.capabilities.conditional_put else None)
        except PreconditionFailed:
            return True
        except NotFound:
            pass
        return False

    async def _found(self, key: Key) -> ObjectInfo | None:
        try:
            return await self._store.head(key)
        except NotFound:
            return None

    def _over(self, stray: Stray, *, seen: bool) -> None:
        move = stray.move
        del self._strays[move.target]
        self._by_source[move.source].remove(stray)
        if not self._by_source[move.source]:
            del self._by_source[move.source]
        self.later.over(stray)
        if seen:
            self._overlay.put(move.target)
        self._overlay.taken_back(stray.failed.copies)
        stray.failed.over(stray.number)


def _about(stray: Stray) -> About:
    move = stray.move
    return About(move.target, 0, f"{move.target!r}, which a rename of {move.source!r} that failed has left, cannot be deleted yet")

"""Renaming files and directories, over an existing target, without replacing, and exchanging two.

Owns: what POSIX allows, the order of steps, and what the table of inodes is called afterwards.
Must not know: handles, how a store carries a rename out.

    file without an object      commit it first; the old name never becomes an object of its own
    file                        one rename of the key; content that is being edited goes on, under the new key
    directory                   one rename of the prefix; new files below it have no object yet and simply go along
    target that is open         keeps its content for its handles, as with unlink
    attributes that wait to be  ride with the copy, where a rename is one
    saved

The gate holds commits below both names meanwhile, and waits for those under way. A store that commits later moves many keys at once
(`relocate`), each as a version of its own. Where the store can do neither, keys are carried over (see carry): none is ever lost, but others
see the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from s3mount.errors import (
    AlreadyExists,
    Exists,
    Invalid,
    InvalidName,
    IsADirectory,
    NameTooLong,
    NoEntry,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotSupported,
)
from s3mount.fs.carry import Carrier, Way
from s3mount.fs.copies import each
from s3mount.fs.entries import Entries
from s3mount.fs.files import Files
from s3mount.fs.inode import DirInode, FileInode
from s3mount.fs.journal import Move
from s3mount.fs.metadata import Metadata
from s3mount.fs.moving import ANSWER_KEYS
from s3mount.fs.names import Kind
from s3mount.fs.namespace import Namespace, Sight
from s3mount.fs.riders import Riders
from s3mount.fs.volume import Volume
from s3mount.model import ETag, Key, ObjectInfo
from s3mount.store.api import Commit, Relocation
from s3mount.store.aspects import whole

# renameat2(2)
NOREPLACE = 1
EXCHANGE = 2


@dataclass(frozen=True, slots=True)
class End:
    """One of the two names of a rename."""

    directory: DirInode
    name: bytes


class Renames:
    """Renames of one volume."""

    def __init__(self, volume: Volume, namespace: Namespace, files: Files, entries: Entries, metadata: Metadata) -> None:
        self._volume = volume
        self._namespace = namespace
        self._files = files
        self._entries = entries
        self._metadata = metadata
        self._store = volume.store
        self._carrier = Carrier(
            volume.store, volume.options.journal, lambda move: self.described(move.source, move.etag), behind=volume.moving
        )
        if volume.moving is not None:
            volume.moving.attend(self)

    async def recover(self) -> None:
        """Finish what a former mount could not."""
        if not self._volume.options.read_only:
            moving = self._volume.moving
            await (self._carrier.recover() if moving is None else self._carrier.recover(moving.take_up, moving.leave_over))

    async def rename(self, source: End, target: End, *, flags: int) -> None:
        """Raises NoEntry, Exists (NOREPLACE), NotEmpty, IsADirectory, NotADirectory, Invalid (into itself), NotSupported."""
        self._volume.require_writable()
        if flags & ~(NOREPLACE | EXCHANGE) or flags == NOREPLACE | EXCHANGE:
            raise Invalid("Unknown flags of a rename.")
        for end in (source, target) if flags & EXCHANGE else (source,):
            await self._make_object(end)
        if flags & EXCHANGE:
            await self._make_markers(source, target)
        async with self._volume.gate.moving(lambda: self._names(source, target)):
            with self._volume.kept.holding(source.directory.key):
                await self._rename(source, target, flags=flags)
                for directory in {source.directory, target.directory}:
                    self._volume.touch(directory)
                await self._entries.keep(source.directory)

    async def _rename(self, source: End, target: End, *, flags: int) -> None:
        await self._clear(source, target)
        before = await self._namespace.see_moving(source.directory, source.name)
        after = await self._namespace.see_moving(target.directory, target.name)
        self._require_possible(before, after)
        if flags & EXCHANGE:
            await self._exchange(before, after)
        elif before.directory:
            await self._move_directory(before, after, replace=not flags & NOREPLACE)
        else:
            await self._move_file(before, after, replace=not flags & NOREPLACE)

    def _names(self, source: End, target: End) -> tuple[str, ...]:
        keys = {self._entries.key_of(source.directory, source.name), self._entries.key_of(target.directory, target.name)}
        return tuple(sorted(keys | {key + "/" for key in keys}))

    async def _clear(self, *ends: End) -> None:
        """A file that is still on its way from a former rename arrives first; trees need not. What one that failed has left goes."""
        if self._volume.moving is not None:
            keys = [self._entries.key_of(end.directory, end.name) for end in ends]
            await self._volume.moving.clear(*keys, over=True)
            for key in keys:
                await self._volume.moving.undoing.settle(key + "/")

    async def _make_object(self, end: End) -> None:
        """A file that has no object yet gets one: it shall be there whole, under one of the two names, whatever happens next."""
        if self._entries.key_of(end.directory, end.name) in self._volume.fresh:
            inode = (await self._namespace.see(end.directory, end.name)).fresh
            if inode is not None and inode.live is not None:
                await self._files.save(inode)

    async def _make_markers(self, *ends: End) -> None:
        """Directories that this mount alone keeps get markers: the store can only exchange what it has."""
        for end in ends:
            sight = await self._namespace.see(end.directory, end.name)
            if sight.directory and sight.marker is None and sight.stem in self._volume.kept:
                inode = self._namespace.directory_inode(sight.stem, None)
                self._volume.inodes.remember(inode)
                try:
                    await self._metadata.change(inode, lambda attributes: attributes)
                finally:
                    self._volume.inodes.forget(inode.ino, 1)

    def _require_possible(self, before: Sight, after: Sight) -> None:
        if not before.exists:
            raise NoEntry("There is no such name.")
        if Kind.CONTINUED in (before.kind, after.kind):
            raise NotSupported("A directory that only holds the tails of long keys cannot be renamed.")
        if before.directory and after.stem.startswith(before.stem) and after.stem != before.stem:
            raise Invalid("A directory cannot become its own descendant.")

    # -- files ------------------------------------------------------------------------

    async def _move_file(self, before: Sight, after: Sight, *, replace: bool) -> None:
        if after.directory:
            raise IsADirectory("The target is a directory.")
        if after.exists and not replace:
            raise Exists("The name is taken.")
        if not after.exists:
            self._entries.require_storable(after, directory=False)
        if before.key == after.key:
            return
        if before.object is None:
            raise NoEntry("There is no such name.")
        if after.object is not None and after.object.file_id and after.object.file_id == before.object.file_id:
            return  # two names of one file: POSIX wants nothing done
        source, target = before.object.key, Key(after.key)
        self._namespace.known_file(source, before.object)
        replaced = await self._set_aside(after)
        await self._carry_file(before.object, target, after.object, replace=replace)
        self._renamed_file(source, target, replaced, after)
        if replaced is not None and replaced.live is not None:
            await self._files.release_reservation(replaced.live)
            await self._files.retire_if_idle(replaced)

    async def _set_aside(self, after: Sight) -> FileInode | None:
        """The file that is about to be replaced, if anybody knows it; its content is safe for those who hold it."""
        if after.fresh is not None:
            return after.fresh
        if after.object is None:
            return None
        inode = self._namespace.known_file(after.key, after.object)
        await self._entries.localise(inode)
        return inode

    async def _carry_file(self, info: ObjectInfo, target: Key, replaced: ObjectInfo | None, *, replace: bool) -> None:
        source = info.key
        try:
            if self._volume.can.atomic_rename:
                await self._store.rename(source, target, replace=replace)
            elif self._volume.can.relocate:
                await self._relocate({target: info}, replaced, replace=replace)
            else:
                move = Move(source, target, info.etag, info.mtime_ns)
                await self._carry([move], Way(source=source, target=target, replaces=replace, empty=replaced is None))
        except AlreadyExists:
            self._volume.changes.note(target)
            raise Exists("The name is taken.") from None
        except NotFound:
            self._volume.changes.note(source)
            raise NoEntry("There is no such name.") from None

    async def _carry(self, moves: Sequence[Move], way: Way) -> None:
        async with Riders(self._volume, self._files) as riders:
            await self._carrier.carry(moves, way, riders)

    async def _relocate(self, sources: Mapping[Key, ObjectInfo], replaced: ObjectInfo | None = None, *, replace: bool = False) -> None:
        """Have *sources* under these keys, all at once. Raises NotFound, PreconditionFailed."""
        known = dict(sources)

        async def know(target: Key) -> None:
            known[target] = await whole(self._store, sources[target])

        await each(list(sources), know)
        condition = None if replace else self._volume.absent
        moves = [
            Relocation(source=info, target=target, commit=self.described(info.key, info.etag), condition=condition, replaced=replaced)
            for target, info in known.items()
        ]
        for move, copy in zip(moves, await self._store.relocate(moves), strict=True):
            await self.arrived(move.source.key, move.source.etag, copy)

    def described(self, key: Key, etag: ETag) -> Commit | None:
        """What the copy of *key* is to say of itself, where the inode has attributes that its object lacks."""
        inode = self._volume.inodes.file_at(key)
        return None if inode is None or inode.etag != etag else self._files.described(inode)

    async def arrived(self, key: Key, former: ETag, copy: ObjectInfo) -> None:
        """What was seen under *key* as version *former* is *copy* from now on."""
        self._volume.changes.note(key)
        inode = self._volume.inodes.file_at(key)
        if inode is not None and inode.etag == former:
            await self._files.carried(inode, copy)

    def _renamed_file(self, source: Key, target: Key, replaced: FileInode | None, after: Sight) -> None:
        inodes, volume = self._volume.inodes, self._volume
        if replaced is not None and volume.fresh.get(target) is replaced:
            del volume.fresh[target]
        if inodes.file_at(target) is not None:
            self._entries.unnamed(target, links_left=0 if after.object is None else after.object.links - 1)
        self._move_inodes({source: target})
        volume.mutated(source)
        volume.mutated(target)

    def _move_inodes(self, names: Mapping[str, str]) -> None:
        """Objects are called otherwise now; those nobody knows are passed over."""
        inodes = self._volume.inodes
        for inode in inodes.move_files({old: new for old, new in names.items() if inodes.knows(old)}):
            if inode.live is not None:
                inode.live.content.moved(Key(inode.key))

    # -- directories ------------------------------------------------------------------

    async def _move_directory(self, before: Sight, after: Sight, *, replace: bool) -> None:
        if after.is_file:
            raise NotADirectory("The target is not a directory.")
        if after.exists and not replace:
            raise Exists("The name is taken.")
        if before.key == after.key and after.directory:
            return
        if after.exists:
            await self._entries.require_empty(after.stem)
        else:
            self._entries.require_storable(after, directory=True)
        known = await self._unfolded(before.stem)
        self._require_room(before.stem, after.stem)
        await self._carry_prefix(before.stem, after.stem, after, replace=replace)
        if after.exists:
            self._entries.removed_directory(after.stem)
        self._renamed_prefix({before.stem: after.stem})
        self._volume.kept.move({before.stem: after.stem})
        known.clear()

    async def _unfolded(self, stem: str) -> list[FileInode]:
        """The known files below *stem*: as long as the caller has them, all can be renamed at once without a long work."""
        known: list[FileInode] = []
        for some in self._volume.inodes.unfold_below(stem):
            known += some
            await trio.lowlevel.checkpoint()
        return known

    def _require_room(self, source: str, target: str) -> None:
        """Raise NameTooLong when a key that we know would become too long; the store judges the others."""
        for key in [*self._volume.inodes.below(source), *self._volume.fresh_below(source)]:
            self._volume.require_key(target + key[len(source) :])

    async def _carry_prefix(self, source: str, target: str, replaced: Sight, *, replace: bool) -> None:
        try:
            if self._volume.can.atomic_rename:
                await self._store.rename_prefix(source, target, replace=replace)
            else:
                await self._copy_prefix(source, target, replaced)
        except AlreadyExists:
            self._volume.changes.note_all()
            raise (NotEmpty("The target is not empty.") if replace else Exists("The name is taken.")) from None
        except InvalidName:
            raise NameTooLong("A path below would make a key longer than the store takes.") from None
        except NotFound:
            if source not in self._volume.kept:
                raise NoEntry("There is no such name.") from None

    async def _copy_prefix(self, source: str, target: str, replaced: Sight) -> None:
        """Carry all, the marker last; many in the background. The marker of an empty directory that is *replaced* goes first."""
        moving = self._volume.moving
        before = [] if moving is None else moving.overlay.legs(source)
        infos = await self._listed(source)
        behind = moving is not None and moving.running and len(infos) > ANSWER_KEYS
        if not behind and moving is not None and moving.overlay.legs(source):
            # What arrives is a version of its own, and is to be written down as that.
            await moving.clear(*(leg.target for leg in moving.overlay.legs(source)))
            infos = await self._listed(source)
        if not infos:
            raise NotFound("Nothing lies there.")
        for info in infos:
            self._volume.require_key(target + info.key[len(source) :])
        if replaced.marker is not None:
            self._volume.kept.add(target)  # until it is there again, by what is moved to it
            await self._store.delete(Key(target), if_match=replaced.marker.etag if self._volume.can.conditional_put else None)
        if moving is not None and behind:
            await moving.begin(source, target, infos, before)
            self._volume.kept.add(source[: source.rfind("/", 0, len(source) - 1) + 1])
        elif self._volume.can.relocate:
            await self._relocate({Key(target + info.key[len(source) :]): info for info in infos})
        else:
            moves = [Move(info.key, Key(target + info.key[len(source) :]), info.etag, info.mtime_ns) for info in reversed(infos)]
            await self._carry(moves, Way(source=source, target=target))

    async def _listed(self, source: str) -> list[ObjectInfo]:
        infos: list[ObjectInfo] = []
        after: str | None = ""
        while after is not None:
            page = await self._store.list(source, after=after)
            infos.extend(page.objects)
            after = page.next
        return infos

    def _renamed_prefix(self, names: Mapping[str, str]) -> None:
        """Stems *names* are called otherwise now, all at once."""
        inodes, volume = self._volume.inodes, self._volume
        files = {key: new + key[len(old) :] for old, new in names.items() for key in inodes.below(old)}
        self._move_inodes(files)
        volume.fresh = {files.get(key, key): inode for key, inode in volume.fresh.items()}
        stems = {inode.key: new + inode.key[len(old) :] for old, new in names.items() for inode in inodes.directories_below(old)}
        inodes.move_directories(stems)
        volume.changes.note_all()
        for new in names.values():
            volume.mutated(new[:-1])

    # -- exchange ---------------------------------------------------------------------

    async def _exchange(self, before: Sight, after: Sight) -> None:
        if not self._volume.can.atomic_rename:
            raise NotSupported("This store cannot exchange two names.")
        if not after.exists:
            raise NoEntry("There is no such name.")
        if after.directory and before.stem.startswith(after.stem) and after.stem != before.stem:
            raise Invalid("A directory cannot become its own descendant.")
        if before.key == after.key:
            return
        a, b = (sight.stem if sight.directory else sight.key for sight in (before, after))
        try:
            await self._store.exchange(a, b)
        except NotFound:
            self._volume.changes.note_all()
            raise NoEntry("There is no such name.") from None
        self._exchanged(before, after)

    def _exchanged(self, before: Sight, after: Sight) -> None:
        volume = self._volume
        files: dict[str, str] = {}
        stems: dict[str, str] = {}
        for one, other in ((before, after), (after, before)):
            if one.directory:
                stems[one.stem] = other.stem
            else:
                files[one.key] = other.key
        self._move_inodes(files)
        self._renamed_prefix(stems)
        volume.kept.move(stems)
        for key in (before.key, after.key):
            volume.mutated(key)

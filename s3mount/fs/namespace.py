"""Looking: what stands under a name, which inode it is, and what stat shows of it.

Owns: the way from (directory, name) to an inode, and the judgement whether an object is still the inode's.
Must not know: handles, how anything is changed, the kernel.

A directory goes before an object of the same name (which shows under its escape), and a new file of ours before an object that somebody
else put there meanwhile: its commit will replace it.

An answer of the store is worth nothing for a key that this mount changed after asking (`Changes`), or is just moving (`Gate.is_away`): it
is asked again.

An object is the inode's as long as file id and version are the ones this mount last saw or made. Otherwise somebody else replaced it, and
it becomes a new inode: with its natural number (file id, else a hash of the key) where that is free, else with a random one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import trio

from s3mount.errors import Invalid, NoEntry, NotADirectory, NotFound, Stale
from s3mount.fs.inode import DirInode, FileInode, Inode, Standing
from s3mount.fs.live import Live
from s3mount.fs.names import MARKER, Kind, Meaning, begun, meaning, name_in, place_of
from s3mount.fs.occupied import Occupied
from s3mount.fs.volume import Volume, attr_of, directory_attr
from s3mount.model import Attr, Found, Key, ObjectInfo, cheap_value, number_of

# Between the kernel's lookup of a name and the create that follows; other clients are not seen any later for it than by the kernel's cache.
ABSENT_SECONDS = 0.05

# In every name that is not its component as it is.
MARK = MARKER.encode()


@cheap_value
class Sight:
    """What stands under a name. At most one of `directory` and `is_file`; `stem` is the directory's, `key` the object's."""

    kind: Kind
    key: str
    directory: bool
    marker: ObjectInfo | None
    object: ObjectInfo | None
    fresh: FileInode | None

    @property
    def is_file(self) -> bool:
        return not self.directory and (self.fresh is not None or self.object is not None)

    @property
    def exists(self) -> bool:
        return self.directory or self.is_file

    @property
    def stem(self) -> str:
        return self.key if self.kind is Kind.CONTINUED else self.key + "/"


class Namespace:
    """Questions about names and inodes."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._store = volume.store
        self._inodes = volume.inodes
        self._absent: tuple[Sight | None, int, float] = (None, 0, 0.0)
        self._occupied = Occupied(volume.options.root, lambda: volume.invalidate.occupied() if volume.invalidate is not None else None)
        self._covered = Occupied(volume.options.root, lambda: volume.invalidate.covered() if volume.invalidate is not None else None)

    def directory(self, ino: int) -> DirInode:
        """Raises NotADirectory, Stale."""
        inode = self._inodes.get(ino)
        if isinstance(inode, FileInode):
            raise NotADirectory("That is not a directory.")
        return inode

    # -- names ------------------------------------------------------------------------

    async def see(self, directory: DirInode, name: bytes) -> Sight:
        """What stands under *name*. Raises NoEntry where the directory is gone, NameTooLong, Invalid for a name that nothing can have."""
        return await self._see(directory, name, moving=False)

    async def see_moving(self, directory: DirInode, name: bytes) -> Sight:
        """As `see`, for whoever has taken the name away."""
        return await self._see(directory, name, moving=True)

    async def _see(self, directory: DirInode, name: bytes, *, moving: bool) -> Sight:
        changes, gate = self._volume.changes, self._volume.gate
        while True:
            if directory.gone:
                raise NoEntry("The directory has been removed.")
            said = meaning(directory.key, name)
            self._volume.require_key(said.key)
            then = changes.now
            if said.kind is Kind.CONTINUED:
                return Sight(said.kind, said.key, await self._leads_on(said.key), None, None, None)
            found = await self._find(said.key)
            if not moving and gate.is_away(said.key):
                await gate.wait_back(said.key)
            elif not changes.since(said.key, then):
                return self._judge(said, found)

    async def _find(self, key: str) -> Found:
        if key:
            found = await self._store.find(key)
            return (
                found
                if self._volume.can.listed_metadata
                else Found(await self._whole(found.object), await self._whole(found.marker), found.implied)
            )
        page = await self._store.list("/", limit=2)  # the empty component at the top of a bucket, which `find` takes for the bucket
        markers = [info for info in page.objects if info.key == "/"]
        return Found(None, markers[0] if markers else None, implied=len(page.objects) > len(markers))

    def _judge(self, said: Meaning, found: Found) -> Sight:
        key, volume = said.key, self._volume
        directory = found.is_directory or key + "/" in volume.kept
        fresh = volume.fresh.get(key)
        info = found.object
        if info is None:
            self._vanished(key)
        if info is not None and not info.size and key.endswith("/"):
            info = None  # the marker of the directory in which we look
        if said.kind is Kind.SHADOWED:
            return Sight(said.kind, key, False, None, info, fresh)
        if directory:
            return Sight(said.kind, key, True, found.marker, None, None)
        return Sight(said.kind, key, False, None, info, fresh)

    def _vanished(self, key: str) -> None:
        """No object stands under *key*: the inode that had it is displaced, unless it is new."""
        inode = self._inodes.file_at(key)
        if inode is not None and (inode.live is None or not (inode.live.fresh or inode.live.may_have_made(None))):
            self._inodes.displace_at(key)

    async def _whole(self, info: ObjectInfo | None) -> ObjectInfo | None:
        """*info* with its metadata, which `find` of some stores does not carry."""
        return info if info is None or info.metadata is not None else await self._head(info.key)

    async def _leads_on(self, stem: str) -> bool:
        """Whether the pseudo-directory *stem* leads to anything."""
        after = ""
        while True:
            page = await self._store.list(stem, delimiter="/", after=after)
            keys = [*(info.key for info in page.objects), *(prefix[:-1] for prefix in page.prefixes), *self._volume.fresh_in(stem)]
            if any(name_in(stem, key, shadowed=shadowed) is not None for key in keys for shadowed in (False, True)):
                return True
            if page.next is None:
                return False
            after = page.next

    async def lookup(self, directory: DirInode, name: bytes) -> Attr:
        """What stat shows of *name*, looked up once more; a file for which that is all has no inode of its own. Raises NoEntry."""
        sight = await self._sighted(directory, name)
        if sight.fresh is None and not sight.directory and (info := sight.object) is not None:
            number, place = self._inodes.glance(sight.key, info)
            if number:
                lasting = info.links == 1 and self.lasts(directory, name)
                self._inodes.show(number, place, info, sure=lasting)
                self.expel()
                return self._volume.file_attr(number, info, lasting=lasting)
        return self._looked_up(directory, name, sight)[1]

    async def lookup_inode(self, directory: DirInode, name: bytes) -> Inode:
        """The inode under *name*, looked up once more. Raises NoEntry."""
        return self._looked_up(directory, name, await self._sighted(directory, name))[0]

    async def _sighted(self, directory: DirInode, name: bytes) -> Sight:
        try:
            return await self.see(directory, name)
        except Invalid as error:
            raise NoEntry(str(error)) from None

    def _looked_up(self, directory: DirInode, name: bytes, sight: Sight) -> tuple[Inode, Attr]:
        if sight.directory:
            inode = self.directory_inode(sight.stem, sight.marker)
            self._inodes.remember(inode)
            return inode, directory_attr(inode, lasting=self.lasts(directory, name))
        if sight.fresh is not None and sight.fresh.live is not None:
            self._inodes.remember(sight.fresh)
            return sight.fresh, live_attr(sight.fresh, sight.fresh.live)
        if sight.object is None:
            self._absent = sight, self._volume.changes.now, trio.current_time()
            raise NoEntry("There is no such name.")
        file = self.file_inode(sight.key, sight.object)
        self._inodes.remember(file)
        self.expel()
        return file, self.file_attr(file, sight.object, lasting=self.lasts(directory, name))

    def lasts(self, directory: DirInode, name: bytes) -> bool:
        """Whether the entry *name* holds until others' changes of it are heard: see `following`, F1."""
        return self._volume.following and MARK not in name and not begun(directory.key)

    def sure_of(self, directory: DirInode, name: bytes) -> FileInode | None:
        """The file under *name*, if one need not look: it stands there alone, nobody holds it, and no change by others was heard."""
        if not self.lasts(directory, name) or directory.gone:
            return None
        key = meaning(directory.key, name).key
        inode = self._inodes.file_at(key)
        if inode is None or not inode.sure or inode.live is not None or inode.others or self._inodes.directory_at(key + "/") is not None:
            return None
        return inode

    def found_absent(self, directory: DirInode, name: bytes) -> Sight | None:
        """What the last lookup saw, if it found nothing under this name just now: the kernel looks up what it then creates."""
        sight, then, moment = self._absent
        window = min(ABSENT_SECONDS, self._volume.options.metadata_ttl_s)
        if sight is None or then != self._volume.changes.now or trio.current_time() - moment >= window or directory.gone:
            return None
        said = meaning(directory.key, name)
        return sight if (said.kind, said.key) == (sight.kind, sight.key) else None

    def expel(self, count: int = 1) -> None:
        """*count* inodes came in: ask the kernel to forget twice as many cold ones when there are too many."""
        if self._volume.invalidate is not None and count:
            self.have_forgotten(self._inodes.cold(2 * count))

    def have_forgotten(self, inodes: Iterable[DirInode | str]) -> None:
        """Ask the kernel to forget *inodes* (those of files by key), where that takes nothing away from anybody."""
        invalidate = self._volume.invalidate
        if invalidate is None:
            return
        for inode in inodes:
            place = self._place_if_bare(inode) if isinstance(inode, str) else self._place_if_empty(inode)
            if place is not None:
                invalidate.entry(*place)

    def _place_if_bare(self, key: str) -> tuple[int, bytes] | None:
        """As `place_of`; None as well where something is mounted on the file."""
        return None if key + "/" in self._covered else self.place_of(key)

    def _place_if_empty(self, directory: DirInode) -> tuple[int, bytes] | None:
        """As `place_of`; None as well where somebody is in the directory: see `occupied`."""
        if not directory.key.endswith("/") or directory.key in self._occupied:
            return None
        stem, name = place_of(directory.key[:-1])
        parent = self._inodes.directory_at(stem)
        return None if parent is None else (parent.ino, name)

    def place_of(self, key: str) -> tuple[int, bytes] | None:
        """The number of the directory in which the file at *key* shows, and its name there; None where that is not known."""
        stem = key[: key.rfind("/") + 1]
        parent = self._inodes.directory_at(stem)
        shown = name_in(stem, key, shadowed=self._inodes.directory_at(key + "/") is not None)
        return (parent.ino, shown.name) if parent is not None and shown is not None and not shown.continued else None

    # -- inodes -----------------------------------------------------------------------

    def directory_inode(self, stem: str, marker: ObjectInfo | None) -> DirInode:
        """The inode of a directory that is there, with what *marker* says of it."""
        inode = self._inodes.directory_at(stem)
        if inode is None:
            inode = DirInode(self.directory_number(stem, marker), stem, self._volume.implied_attributes(), marked=False)
            self._inodes.add(inode)
            self.expel()
        self._saw(inode, marker)
        return inode

    def _saw(self, inode: DirInode, marker: ObjectInfo | None) -> None:
        """The store has just said that the directory is there, with *marker* or without one."""
        if marker is not None or inode.marked:
            inode.attributes, inode.marked = self._volume.directory_attributes(marker), marker is not None
        inode.seen_s = trio.current_time()

    def directory_number(self, stem: str, marker: ObjectInfo | None) -> int:
        """The number of a directory that is not in the table."""
        return self._inodes.number(marker.file_id if marker is not None and marker.file_id else number_of(stem))

    def file_inode(self, key: str, info: ObjectInfo) -> FileInode:
        """The inode of the object that stands under *key*: the one we know, or a new one."""
        inode = self.known_file(key, info)
        if inode is None:
            inode = FileInode(self.file_number(key, info), key, etag=info.etag, file_id=info.file_id)
            inode.saw(info)
            self._inodes.add(inode)
        return inode

    def file_number(self, key: str, info: ObjectInfo) -> int:
        """The number of an object that is not in the table. A directory's own object has not the directory's number."""
        if key.endswith("/"):
            return self._inodes.number(number_of(key + "\0"))
        return self._inodes.number(info.file_id or number_of(key))

    def known_file(self, key: str, info: ObjectInfo) -> FileInode | None:
        """The inode that *info* belongs to, if we know it; a name that it no longer has is taken from the one that had it."""
        inode = self._inodes.file_at(key)
        if inode is not None:
            if inode.is_version(info):
                return inode
            self._replaced(inode, key, info)
        other = self._inodes.find(info.file_id) if info.file_id else None
        if not isinstance(other, FileInode) or other.standing is Standing.UNLINKED or other.file_id != info.file_id:
            return None
        if not other.is_version(info):
            self._inodes.displace(other)
            return None
        self._inodes.name(other, key)
        return other

    def _replaced(self, inode: FileInode, key: str, info: ObjectInfo) -> None:
        if info.file_id == inode.file_id:
            self._inodes.displace(inode)
        else:
            self._inodes.displace_at(key)

    # -- attributes -------------------------------------------------------------------

    async def getattr(self, inode: Inode) -> Attr:
        """Raises Stale when the inode's object was replaced or removed by somebody else."""
        if isinstance(inode, DirInode):
            return await self._directory_getattr(inode)
        if inode.live is not None:
            return live_attr(inode, inode.live)
        info = await self.current(inode)
        if info is None:
            return live_attr(inode, require_live(inode))
        return self.file_attr(inode, info, lasting=self._volume.following)

    def file_attr(self, inode: FileInode, info: ObjectInfo, *, lasting: bool = False) -> Attr:
        if inode.live is not None:
            return live_attr(inode, inode.live)
        inode.sure = lasting = lasting and info.links == 1
        return self._volume.file_attr(inode.ino, info, lasting=lasting)

    async def current(self, inode: FileInode) -> ObjectInfo | None:
        """The object of *inode* as it is now, None where there is none to be compared: it is new, nameless and held, or being changed.

        Raises Stale.
        """
        changes = self._volume.changes
        while True:
            live = inode.live
            if live is not None and (live.fresh or live.may_have_made(None) or inode.standing is not Standing.NAMED):
                return None
            if inode.standing is not Standing.NAMED:
                raise stale()
            key, then = inode.key, changes.now
            info = await self._head(key)
            await self._volume.gate.wait_back(key)
            if inode.key != key or changes.since(key, then):
                continue
            if info is None:
                self._inodes.displace_at(key)
            elif inode.is_version(info):
                return info if inode.live is None or not inode.live.in_flight else None
            else:
                self._replaced(inode, key, info)
            if inode.standing is not Standing.NAMED:
                raise stale()

    async def _head(self, key: str) -> ObjectInfo | None:
        try:
            return await self._store.head(Key(key))
        except NotFound:
            return None

    async def _directory_getattr(self, inode: DirInode) -> Attr:
        """From memory while that is fresh: the kernel asks anew before each change of entries, because they change times."""
        if not inode.gone and not self.is_fresh(inode):
            await self.marker_of(inode)
            if inode.gone:
                raise stale()
        return directory_attr(inode, lasting=self._volume.following and not begun(inode.key))

    def is_fresh(self, inode: DirInode) -> bool:
        """Whether what was seen of *inode* last still holds: within the time-to-live, or until others' changes are heard."""
        age = trio.current_time() - inode.seen_s
        return age < (math.inf if self._volume.following else self._volume.options.metadata_ttl_s)

    async def marker_of(self, inode: DirInode) -> ObjectInfo | None:
        """The marker of a directory that is there; it is `gone` afterwards where nothing is left of it."""
        changes = self._volume.changes
        while not inode.gone and inode.key.endswith("/"):
            stem, then = inode.key, changes.now
            found = await self._find(stem[:-1])
            await self._volume.gate.wait_back(stem)
            if inode.key != stem or changes.since(stem[:-1], then):
                continue
            if not found.is_directory and stem not in self._volume.kept and inode is not self._volume.root:
                self.vanish(stem)
                return None
            self._saw(inode, found.marker)
            return found.marker
        return None

    def vanish(self, stem: str) -> None:
        """Somebody else removed the directory *stem*."""
        self._inodes.remove_directory(stem)


def live_attr(inode: FileInode, live: Live) -> Attr:
    return attr_of(inode.ino, live.attributes, size=live.content.size, nlink=links_of(inode, live))


def links_of(inode: FileInode, live: Live) -> int:
    return 0 if inode.standing in (Standing.UNLINKED, Standing.DISPLACED) else live.links


def require_live(inode: FileInode) -> Live:
    if inode.live is None:
        raise stale()
    return inode.live


def stale() -> Stale:
    return Stale("The object was replaced by somebody else; open it again.")

"""Sending to the store what one live file has for it: its content, or its attributes alone.

Owns: what a commit says beside the bytes, and what the inode and its `Live` are afterwards.
Must not know: who holds the file, when it is time to commit (see files), bytes (see content).

Every commit passes the gate, so that none is under way on a key that is being renamed or removed; and none is sent while the object is
copied onto itself (`renewing`): a service reads what it copies at the beginning, and puts it there at the end.

Attributes of a changed content ride with its commit; those of any other file are written by an update of the object, or by the copy that a
rename makes of it (`described`, `carried`). A large file whose parts went while it was written has those of the upload's beginning: what
was changed since is written after the commit, unless it is only the time of the last write, which nobody set. A copy of gigabytes within
the store is too much for that: the file then says when its sending began.

An update may make a version with an ETag of its own. After a lost reply the object tells that it has the same content (see renewals).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import trio

from s3mount.errors import NotFound, PreconditionFailed, S3MountError
from s3mount.fs.attrs import Attributes, decode, encode
from s3mount.fs.content import Target
from s3mount.fs.inode import FileInode, Standing
from s3mount.fs.live import Live
from s3mount.fs.namespace import stale
from s3mount.fs.patience import Patience
from s3mount.fs.volume import Volume
from s3mount.model import Absent, Condition, Key, Matches, Metadata, ObjectInfo
from s3mount.store.api import Commit
from s3mount.store.aspects import commit_id_of, surely_whole, without_commit_id


class Saving:
    """Commits and updates of one volume's files."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._store = volume.store
        self._renewed: Counter[FileInode] = Counter()
        self._over = trio.lowlevel.ParkingLot()

    @contextmanager
    def renewing(self, inode: FileInode) -> Iterator[None]:
        """For whoever has the object of *inode* copied onto itself: meanwhile no commit is sent, which the copy might undo."""
        self._renewed[inode] += 1
        try:
            yield
        finally:
            self._renewed[inode] -= 1
            if not self._renewed[inode]:
                del self._renewed[inode]
                self._over.unpark_all()

    async def _free(self, inode: FileInode) -> str:
        """The key, once nothing moves it and its object is not being renewed; no checkpoint where that is so."""
        while True:
            key = await self._volume.gate.wait_free(lambda: inode.key)
            if inode not in self._renewed:
                return key
            await self._over.park()

    async def commit(self, inode: FileInode, live: Live) -> None:
        sent: tuple[Attributes, Metadata] | None = None
        key = await self._free(inode)
        if inode.standing is Standing.UNLINKED:
            return

        def target() -> Target:
            nonlocal sent
            made = self.target(inode, live)
            sent = live.attributes, made.commit.metadata
            return made

        live.in_flight += 1
        try:
            with self._volume.gate.using(key):
                await self._find_what_failed(inode, live)
                info = await live.content.commit(target)
                self._committed(inode, live, info)
        except S3MountError:
            live.failed(self._volume.clock_ns())
            raise
        finally:
            live.in_flight -= 1
        if sent is not None and live.attributes is sent[0] and info.metadata is not None:
            self._compare(live, *sent, info.metadata)

    def _compare(self, live: Live, sent: Attributes, said: Metadata, got: Metadata) -> None:
        """Whether an object that was to have *sent*, in the words *said*, has that; the metadata *got* may be those of the beginning of its
        upload.
        """
        has = without_commit_id(got)
        if has == said:
            live.unsaved = False
            return
        early = decode(got, directory=False, mtime_ns=sent.mtime_ns, defaults=self._volume.defaults)
        as_early = replace(sent, atime_ns=early.atime_ns, mtime_ns=early.mtime_ns, ctime_ns=early.ctime_ns)
        nobody_set_them = live.since_ns <= sent.mtime_ns <= self._volume.clock_ns()
        nobody_set_them &= sent.atime_ns == early.atime_ns or sent.atime_ns >= live.since_ns
        if nobody_set_them and has == encode(as_early, live.foreign):
            live.took(as_early)

    def target(self, inode: FileInode, live: Live) -> Target:
        condition: Condition = Absent() if live.fresh and live.exclusive and self._volume.can.conditional_put else None
        if inode.standing is Standing.UNNAMED and live.content.committed is not None:
            condition = Matches(live.content.committed.etag)
        commit = Commit(
            condition=condition,
            metadata=encode(live.attributes, live.foreign),
            content_type=live.content_type,
            storage_class=live.storage_class,
            file_id=inode.file_id,
            former=live.content.committed,
        )
        return Target(Key(inode.key), commit)

    def _committed(self, inode: FileInode, live: Live, info: ObjectInfo) -> None:
        volume = self._volume
        if live.fresh:
            volume.fresh.pop(inode.key, None)
            live.fresh = live.exclusive = False
            live.reserved = None if live.reserved == inode.key else live.reserved
        inode.saw(info)
        live.succeeded()
        live.content.renewals.settled()
        live.links = info.links
        inode.file_id = info.file_id or inode.file_id
        if inode.standing in (Standing.DISPLACED, Standing.UNNAMED):
            volume.inodes.name(inode, info.key)
        volume.mutated(inode.key)

    async def save_attributes(self, inode: FileInode, live: Live) -> None:
        """Write the attributes alone; one request at a time, and again where they change meanwhile."""
        while live.saving is not None:
            await live.saving.wait()
        if not live.unsaved or live.content.changed or live.content.committed is None:
            return
        live.saving = trio.Event()
        patience = Patience()
        try:
            while live.unsaved and not live.content.changed:
                with self.renewing(inode):
                    refused = await self._update(inode, live)
                if refused:
                    await patience.refused(inode.key)
        finally:
            live.saving.set()
            live.saving = None

    async def _update(self, inode: FileInode, live: Live) -> bool:
        """Whether it was refused although the object is ours."""
        volume = self._volume
        await volume.arrive(inode.key)
        key = await volume.gate.wait_free(lambda: inode.key)
        if inode.standing not in (Standing.NAMED, Standing.UNNAMED):
            self._give_up(inode, live)
        sent, committed = live.attributes, live.content.committed
        if committed is None or not live.unsaved or live.content.changed:
            return False  # a rename or a commit took them along
        metadata = encode(sent, live.foreign)
        with volume.gate.using(key), live.renewing(metadata):
            try:
                info = await self._store.update(Key(key), metadata, if_match=committed.etag, file_id=inode.file_id)
                inode.saw(info)
                await live.content.rebase(info, former=committed.etag)
                volume.mutated(key)
            except (PreconditionFailed, NotFound):
                if live.content.committed is not committed or await self._goes_on(inode, live, committed):
                    return True  # a commit of ours was faster, or a copy whose reply was lost
                volume.inodes.displace(inode)
                self._give_up(inode, live)
        if live.attributes is sent:
            live.unsaved = False
        return False

    def _give_up(self, inode: FileInode, live: Live) -> None:
        """There is no object left that could have the attributes. Raises Stale where somebody else replaced or removed it."""
        live.unsaved = False
        if inode.standing is Standing.DISPLACED:
            raise stale() from None

    async def _goes_on(self, inode: FileInode, live: Live, former: ObjectInfo) -> bool:
        """Whether the object is still what the commit of *former* made, though it is another version: its attributes were changed."""
        try:
            info = await self._store.head(former.key)
        except NotFound:
            return False
        return await self._is_ours(inode, live, info, former)

    async def _is_ours(self, inode: FileInode, live: Live, info: ObjectInfo, former: ObjectInfo) -> bool:
        """Whether *info*, which a look has found, was made of *former*; then the file stands on it."""
        told = await surely_whole(self._store, info)
        if not stands_on(live, former) or not live.content.renewals.has_made(told, former):
            return False
        inode.saw(info)
        await live.content.rebase(told, former=former.etag)
        if info.etag != former.etag:
            live.content.renewals.settled()
        return True

    async def _find_what_failed(self, inode: FileInode, live: Live) -> None:
        """Before an edit is sent: an update without an answer may have made the version that it is an edit of anew."""
        committed = live.content.committed
        if live.content.renewals.open and live.content.base is not None and committed is not None:
            await self._goes_on(inode, live, committed)

    async def found(self, inode: FileInode, live: Live, info: ObjectInfo) -> None:
        """The object of *inode* is *info* by now: what was written of an update that failed may have been done. Raises Stale if not."""
        former = live.content.committed
        if former is None or info.etag == former.etag or not live.content.renewals.may_have_made(info, former):
            return
        if not await self._is_ours(inode, live, info, former) and stands_on(live, former):
            self._volume.inodes.displace(inode)
            raise stale()

    def described(self, inode: FileInode) -> Commit | None:
        """What the object of *inode* is to say where it is copied: None if it says so already, or will by the commit of its content."""
        live = inode.live
        if live is None or not live.unsaved or live.content.changed or live.content.committed is None:
            return None
        live.riding = live.attributes
        commit = self.target(inode, live).commit
        return replace(commit, condition=None, former=None, commit_id=commit_id_of(live.content.committed) or "")

    async def carried(self, inode: FileInode, info: ObjectInfo) -> None:
        """The object of *inode* was copied, and the copy *info* goes on as it."""
        former = inode.etag
        inode.saw(info)
        if (live := inode.live) is not None:
            await live.content.carried(info, former=former)
            if live.attributes is live.riding and not live.content.changed:
                live.unsaved = False
            live.riding = None


def stands_on(live: Live, version: ObjectInfo) -> bool:
    """Whether *version*, under its key, is still the last one of the file."""
    committed = live.content.committed
    return committed is not None and (committed.key, committed.etag) == (version.key, version.etag)

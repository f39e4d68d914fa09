"""Engine: an open data folder, all its operations under one name.

Owns: opening and closing, and who does the rest.
Must not know: how anything is done.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from s3mount.engine import queries, recovery
from s3mount.engine.bodies import Bodies
from s3mount.engine.buckets import Buckets
from s3mount.engine.commit import Debt
from s3mount.engine.disk import Disk
from s3mount.engine.follow import Follower
from s3mount.engine.layout import Layout, machine_boot_id, prepare
from s3mount.engine.lock import Owner, WriteLock
from s3mount.engine.maintenance import Maintenance
from s3mount.engine.parts import Parts
from s3mount.engine.renames import Renames
from s3mount.engine.spare import SPARE_NAME, Spare
from s3mount.engine.sweep import Sweeper
from s3mount.engine.sync import Sync
from s3mount.engine.uploads import Uploads
from s3mount.engine.versions import Versions
from s3mount.errors import FROM_OS, NoSpace, StoreError, Unavailable
from s3mount.model import Key, Space

log = logging.getLogger(__name__)


class Engine(Buckets, Renames, Uploads, Versions, Maintenance):
    """The embedded object store. Thread-safe; any number of engines, in any number of processes, may share a folder.

    With `durable` (the default) a mutation survives a power cut when it returns; without, it survives the end of the process at once, and
    a power cut after `sync`. Errors are StoreErrors; where one other than OutcomeUnknown is raised, nothing happened.
    """

    _open = True

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        create: bool = True,
        disk: Disk | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        boot_id: str | None = None,
    ) -> Engine:
        """Open *folder*, made if need be (*create*); whatever happened to it before, it is consistent then.

        *boot_id* tells the machine's boots apart (default: the kernel's). Raises NotFound, NewerFormat, Corrupt, AccessDenied, Busy.
        """
        boot = machine_boot_id() if boot_id is None else boot_id
        attempt = partial(cls._opened, folder, create=create, disk=disk or Disk(), clock_ns=clock_ns, boot_id=boot)
        try:
            engine = attempt()
        except NoSpace:
            if not Spare(folder / SPARE_NAME).give():
                raise
            engine = attempt()
        try:
            engine._tidy()
        except Exception:
            engine.close()
            raise
        return engine

    @classmethod
    def _opened(cls, folder: Path, *, create: bool, disk: Disk, clock_ns: Callable[[], int], boot_id: str) -> Engine:
        try:
            return cls(_parts(prepare(folder, disk, create=create), disk, boot_id), clock_ns)
        except OSError as error:
            raise FROM_OS.get(error.errno or 0, Unavailable)(f"The data folder {folder} cannot be opened: {error.strerror}.") from error

    def _tidy(self) -> None:
        """What processes that were killed left in staging goes; room for deleting is kept."""
        try:
            Sweeper(self._parts()).sweep_owners()
        except (StoreError, OSError) as error:
            log.info("Leftovers of ended processes stay for now: %s", error)
        self.spare.keep()

    def close(self) -> None:
        """Idempotent. Syncs nothing; nobody may be using the engine or its readers any more."""
        if not self._open:
            return
        self._open = False
        self.stop_compacting()
        self.linger.close()
        try:
            self._close_index()
        finally:
            self.owner.close()
            self.log.close()
            self.lock.close()

    def _close_index(self) -> None:
        with self.lock:
            try:
                with self.index.write() as db:
                    self.leases.forget_all(db)
            except StoreError as error:
                log.info("Leases and claims are left to the sweeper: %s", error)
            finally:
                self.index.close()
            recovery.note_clean(self.layout)
        self.spare.keep()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Engine {self.folder} {'open' if self._open else 'closed'}>"

    # -- the medium -------------------------------------------------------------------

    def sync(self, bucket: str | None = None, key: Key | None = None) -> None:
        """On return what was acknowledged before (of the object, or all) survives a power cut. Raises NoSpace, Unavailable: it may not.

        A sync of all also deletes the bodies of what was removed before: on a full medium, that is how room comes back at once.
        An object that is not there needs no sync of its own, but its removal does. Raises NoSuchBucket.
        """
        self.leases.forget_ended()
        if bucket is None or key is None:
            self._sync_all()
            self.spare.keep()
            self.compact_when_due()
            return
        with self.index.read() as db:
            found = queries.find(db, bucket, key).object
        self.syncing.file(0 if found is None else found.file_id)

    def _sync_all(self) -> None:
        try:
            self.syncing.all()
        except NoSpace:
            with self.spare.spent():
                self.syncing.all()

    def follow(self, bucket: str) -> Follower:
        """What others than this process change in *bucket* from now on. Raises NoSuchBucket."""
        return Follower(self.log, self.index, bucket)

    def settle(self, debts: Sequence[Debt]) -> None:
        """On return the durable commits that were made in a hurry (`lock.in_a_hurry`) and left *debts* are. Raises OutcomeUnknown."""
        self.commits.settle(debts)

    def space(self) -> Space:
        found = os.statvfs(self.folder)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def _parts(layout: Layout, disk: Disk, boot_id: str) -> Parts:
    with ExitStack() as undo:
        lock = WriteLock(layout.lock)
        undo.callback(lock.close)
        with lock, ExitStack() as undo_under_lock:
            journal, index = recovery.open_state(layout, disk, boot_id)
            undo_under_lock.callback(journal.close)
            undo_under_lock.callback(index.close)
            owner = Owner(layout.staging, disk)
            undo_under_lock.pop_all()
        undo.pop_all()
    bodies = Bodies(layout, disk, owner.folder)
    return Parts(layout, disk, lock, journal, index, owner, bodies, Sync(lock, journal, index, bodies))

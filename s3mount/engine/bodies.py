"""Bodies: immutable files that hold the bytes of objects, named by their hash.

Owns: their names, hashing, publishing, syncing, opening, removing, and this process's staging files.
Must not know: which object uses which body, or how often (the index does).

B1  A body's name is its BLAKE3 hash and a random id: the same bytes may be there twice, and a name is never used twice. The id begins with
    the body's folder: a process fills one folder after another, drawn by lot, so that few have to be made and synced.
B2  A published body never changes. It comes into bodies/ by one rename, whole, under the write lock, just before the record that names it.
B3  A body is durable when its bytes, its name and the fan-out folders above it are synced. Fan-out folders are never removed,
    so one that this process once synced stays so.
B4  An open descriptor keeps the bytes of a removed body (Linux); hence readers hold descriptors, not names.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from s3mount.engine.codec import Buffer
from s3mount.engine.disk import Disk
from s3mount.engine.layout import Layout
from s3mount.model import MiB

# BLAKE3 gains from several threads only when each gets this much.
PARALLEL_BYTES = 8 * MiB

# A file is hashed in windows: mapped whole, all of it would count as this process's memory.
WINDOW_BYTES = 4 * MiB

# Bodies that a process puts into one folder before it draws another: few folders to sync, and none of them large.
BODIES_PER_FOLDER = 1000


class Bodies:
    """The bodies of one folder. Thread-safe; `publish` and `delete` under the write lock.

    `device`: the medium (st_dev) that a file must lie on to be published.
    """

    def __init__(self, layout: Layout, disk: Disk, staging: Path) -> None:
        self._layout = layout
        self._disk = disk
        self._staging = staging
        self.device = layout.bodies.stat().st_dev
        self._synced_folders: set[Path] = set()
        self._folder = ""
        self._numbers = itertools.count()

    # -- making -----------------------------------------------------------------------

    def stage_path(self) -> Path:
        """A fresh name in this process's staging folder."""
        return self._staging / secrets.token_hex(12)

    def stage_bytes(self, data: Buffer) -> Path:
        """Write *data* aside, unsynced. Raises OSError; then nothing is left."""
        path = self.stage_path()
        fd = self._disk.create(path)
        try:
            self._disk.write_all(fd, [data], 0)
        except OSError:
            self._disk.unlink(path)
            raise
        finally:
            os.close(fd)
        return path

    def hash_bytes(self, data: Buffer) -> bytes:
        """The BLAKE3 hash of *data*."""
        threads = blake3.AUTO if len(data) >= PARALLEL_BYTES else 1
        return bytes(blake3(data, max_threads=threads).digest())

    def hash_file(self, path: Path, *, went_on: Callable[[int], None] = lambda count: None) -> bytes:
        """The BLAKE3 hash of a file's bytes, whatever its size, in constant memory; *went_on* is told the bytes of each step."""
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            digest = blake3(max_threads=blake3.AUTO if size >= PARALLEL_BYTES else 1)
            window = memoryview(bytearray(min(max(size, 1), WINDOW_BYTES)))
            while count := file.readinto(window):
                digest.update(window[:count])
                went_on(count)
        return bytes(digest.digest())

    def new_name(self, digest: bytes) -> str:
        """A name that no body has had (B1)."""
        if next(self._numbers) % BODIES_PER_FOLDER == 0:
            self._folder = secrets.token_hex(2)
        return f"{digest.hex()}-{self._folder}{secrets.token_hex(4)}"

    def publish(self, staged: Path, name: str) -> None:
        """Make *staged* the body *name* (B2); its bytes must be final. The caller syncs before (bytes) or after (`sync`)."""
        target = self.path(name)
        try:
            self._disk.rename(staged, target)
        except FileNotFoundError:
            self._disk.mkdir(target.parent.parent)
            self._disk.mkdir(target.parent)
            self._disk.rename(staged, target)

    def take_back(self, name: str, staged: Path) -> None:
        """Undo `publish`, if it happened; never fails: what stays is swept."""
        try:
            self._disk.rename(self.path(name), staged)
        except OSError:
            pass

    # -- durability -------------------------------------------------------------------

    def sync_file(self, path: Path) -> None:
        """The bytes of *path* survive a power cut. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._disk.fsync(fd)
        finally:
            os.close(fd)

    def sync_names(self, names: Iterable[str]) -> None:
        """The names of these bodies survive a power cut; their bytes are the caller's matter. Raises OSError."""
        for folder in {self.path(name).parent for name in names}:
            self._sync_folders_above(folder)
            self._disk.fsync_dir(folder)

    def _sync_folders_above(self, folder: Path) -> None:
        for made, parent in ((folder.parent, self._layout.bodies), (folder, folder.parent)):
            if made not in self._synced_folders:
                self._disk.fsync_dir(parent)
                self._synced_folders.add(made)

    def sync(self, name: str) -> None:
        """The body survives a power cut, bytes and name. A body that is gone is no error: its death was decided already. Raises OSError."""
        try:
            self.sync_file(self.path(name))
        except FileNotFoundError:
            return
        self.sync_names([name])

    # -- using ------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        return self._layout.body(name)

    def open(self, name: str) -> int:
        """A descriptor for reading; the caller closes it. Raises FileNotFoundError."""
        return os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)

    def is_whole(self, name: str, size: int) -> bool:
        """Whether the body is there with this size and the hash in its name. Reads all of it."""
        path = self.path(name)
        try:
            return path.stat().st_size == size and self.hash_file(path).hex() == digest_of(name)
        except FileNotFoundError:
            return False

    def files(self) -> Iterator[Path]:
        """Every file in bodies/, folder by folder."""
        for folder, _, names in os.walk(self._layout.bodies):
            yield from (Path(folder, name) for name in names)

    # -- removing ---------------------------------------------------------------------

    def delete(self, name: str) -> None:
        """Idempotent."""
        try:
            self._disk.unlink(self.path(name))
        except FileNotFoundError:
            pass

    def quarantine(self, name: str) -> Path | None:
        """Move a damaged body out of the way; where it went, None if it is not there."""
        target = self._layout.quarantine / name
        try:
            self._disk.rename(self.path(name), target)
        except FileNotFoundError:
            return None
        return target


def digest_of(name: str) -> str:
    """The hash in a body's name, in hex."""
    return name.partition("-")[0]

"""Where things lie in the data folder, and which format it has.

Owns: the names of files and folders, the format file, the boot id file.
Must not know: what the files hold, locks, the index.

    format               {"format": 1, "id": hex}; written once, when the folder is made
    lock                 the write lock (`lock.WriteLock`)
    compacting           the lock of whoever compacts the log
    boot                 boot id of the machine when the folder was last opened and found whole
    index.db             SQLite, derived from the log, expendable (with its -wal and -shm)
    log/<seq>.log        segments, named by the first record in them
    log/<seq>.snap       the state behind record <seq>: a replay may begin there
    log/voids            records that a power cut made unusable (`recovery`)
    bodies/xx/yy/<name>  immutable bodies; a name is <hash>-<xxyy and more digits>
    staging/<owner>/     files of one live process (`lock.Owner`)
    spare                room for deleting on a full medium (`spare`)
    index.clean          how the index looked when it was closed in order (`recovery`)
    quarantine/          what was damaged, kept for a human

No folder grows without bound: 65 536 body folders share the bodies, a segment has 64 MiB, staging and quarantine are swept or rare.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from s3mount.engine.disk import Disk
from s3mount.errors import AccessDenied, Corrupt, NewerFormat, NotFound

# The number in the format file that this program writes, and the highest it reads.
FORMAT = 1

# Digits of a record number in a file name: any 64-bit number, so that names sort as numbers do.
SEQ_DIGITS = 20

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one data folder."""

    folder: Path

    @property
    def format(self) -> Path:
        return self.folder / "format"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def compacting(self) -> Path:
        return self.folder / "compacting"

    @property
    def boot(self) -> Path:
        return self.folder / "boot"

    @property
    def index(self) -> Path:
        return self.folder / "index.db"

    @property
    def new_index(self) -> Path:
        """Where an index is made before it takes the other's place."""
        return self.folder / "index.new.db"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def voids(self) -> Path:
        return self.log / "voids"

    @property
    def bodies(self) -> Path:
        return self.folder / "bodies"

    @property
    def staging(self) -> Path:
        return self.folder / "staging"

    @property
    def quarantine(self) -> Path:
        return self.folder / "quarantine"

    def segment(self, first_seq: int) -> Path:
        return Path(f"{self.folder}/log/{first_seq:0{SEQ_DIGITS}d}.log")

    def snapshot(self, seq: int) -> Path:
        return self.log / f"{seq:0{SEQ_DIGITS}d}.snap"

    def body(self, name: str) -> Path:
        at = name.rindex("-") + 1
        return Path(f"{self.folder}/bodies/{name[at : at + 2]}/{name[at + 2 : at + 4]}/{name}")

    def segments(self) -> list[int]:
        """First record numbers of the segments that are there, rising."""
        return _numbers(self.log, ".log")

    def snapshots(self) -> list[int]:
        """Record numbers of the published snapshots, rising."""
        return _numbers(self.log, ".snap")

    @staticmethod
    def index_files(index: Path) -> list[Path]:
        """The files of an SQLite database, itself first."""
        return [Path(f"{index}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")]


def _numbers(folder: Path, suffix: str) -> list[int]:
    names = (name[: -len(suffix)] for name in os.listdir(folder) if name.endswith(suffix))
    return sorted(int(name) for name in names if len(name) == SEQ_DIGITS and name.isdigit())


def prepare(folder: Path, disk: Disk, *, create: bool) -> Layout:
    """The layout of *folder*, made if it is not there and *create* is set; idempotent, and safe to repeat after any interruption.

    Raises NotFound (nothing there, not *create*), NewerFormat, Corrupt (there is something else in it), AccessDenied.
    """
    layout = Layout(folder)
    try:
        if not layout.format.exists():
            _make(layout, disk, create=create)
        check_format(layout)
    except PermissionError as error:
        raise AccessDenied(f"The data folder {folder} cannot be written: {error.strerror}.") from error
    return layout


def check_format(layout: Layout) -> None:
    """Raises NewerFormat, or Corrupt where the format file makes no sense."""
    try:
        number = int(json.loads(layout.format.read_text())["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"The file {layout.format} is damaged; it should read {{'format': {FORMAT}}}.") from error
    if number > FORMAT:
        raise NewerFormat(f"The data folder {layout.folder} has format {number}, this program knows up to {FORMAT}: upgrade s3mount.")


def _make(layout: Layout, disk: Disk, *, create: bool) -> None:
    if not create:
        raise NotFound(f"There is no data folder at {layout.folder}.")
    if layout.folder.is_dir() and not _ours(layout):
        if layout.format.exists():
            return  # another process was quicker
        raise Corrupt(f"The folder {layout.folder} holds other files and is no data folder: choose an empty one.")
    missing = [folder for folder in layout.folder.parents if not folder.exists()]
    layout.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in (layout.log, layout.bodies, layout.staging, layout.quarantine):
        disk.mkdir(part)
    publish(layout.format, json.dumps({"format": FORMAT, "id": secrets.token_hex(16)}).encode(), disk)
    for folder in (layout.folder, *missing):
        try:
            disk.fsync_dir(folder.parent)
        except PermissionError:
            pass  # one may go through it and not read it: then its name is synced with whatever is next


def _ours(layout: Layout) -> bool:
    ours = {"log", "bodies", "staging", "quarantine", "lock", "format", "spare"}
    return all(name in ours or name.startswith("format.") for name in os.listdir(layout.folder))


def publish(path: Path, data: bytes, disk: Disk) -> None:
    """Make *data* the content of the small file *path*; on return it survives a power cut, and nobody ever sees half of it."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = disk.create(aside)
    try:
        disk.write_all(fd, [data], 0)
        disk.fsync(fd)
    finally:
        os.close(fd)
    disk.rename(aside, path)
    disk.fsync_dir(path.parent)


def machine_boot_id() -> str:
    """Changes with every boot of this machine; "" where the kernel does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def stored_boot_id(layout: Layout) -> str:
    """The boot id that the folder was last found whole under; "" if never."""
    try:
        return layout.boot.read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""

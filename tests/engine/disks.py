"""Media for tests: one that stops at a step, one that knows what a power cut would leave.

`StoppingDisk` raises `Crash` at its n-th operation and at every later one: the process is dead. What it wrote stands in the folder as
kill -9 would leave it; `killed` copies it away, so that no lock and no descriptor of the dead engine matters any more.

`ShadowDisk` remembers what is on the medium for sure: contents of files as of their last fsync, names in folders as of the last fsync of
the folder. Everything else may be there or not, whole or in part; `cut` builds a folder as a power cut might leave it.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from s3mount.engine.codec import Buffer
from s3mount.engine.disk import Disk

INDEX_FILES = ("index.db", "index.db-wal", "index.db-shm", "index.clean")


class Crash(BaseException):
    """The process died here."""


class StoppingDisk(Disk):
    """Dies at step *at* (from 1; 0: never). With *torn*, a write that is stopped writes its first half."""

    def __init__(self, at: int = 0, *, torn: bool = False) -> None:
        self.at = at
        self.torn = torn
        self.steps = 0
        self.dead = False

    def step(self, name: str) -> None:
        self.steps += 1
        if self.dead or self.steps == self.at:
            self.dead = True
            raise Crash(name)

    def write_all(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        if self.torn and not self.dead and self.steps + 1 == self.at:
            data = b"".join(bytes(buffer) for buffer in buffers)
            os.pwrite(fd, data[: len(data) // 2], offset)
        super().write_all(fd, buffers, offset)


def killed(folder: Path, target: Path) -> Path:
    """A copy of *folder* as its processes' sudden end leaves it."""
    return Path(shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*-shm")))


class ShadowDisk(Disk):
    """Remembers what is synced below *root*."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._held: dict[int, int] = {}

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self._note_contents(fd)

    def fsync_dir(self, path: Path) -> None:
        super().fsync_dir(path)
        if path == self._root.parent:
            return
        self._names[path.stat().st_ino] = {name: self._hold(path / name) for name in os.listdir(path)}

    def _note_contents(self, fd: int) -> None:
        self._contents[self._hold(Path(f"/proc/self/fd/{fd}"))] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def _hold(self, path: Path) -> int:
        """Its inode, kept from being used again while this test runs."""
        number = path.stat().st_ino
        if number not in self._held:
            self._held[number] = os.open(path, os.O_RDONLY)
        return number

    def adopt_all(self) -> None:
        """What stands there now is on the medium: the machine has just booted."""
        for folder, _, files in os.walk(self._root):
            self._names[Path(folder).stat().st_ino] = {name: self._hold(Path(folder, name)) for name in os.listdir(folder)}
            for name in files:
                self._contents[self._hold(Path(folder, name))] = Path(folder, name).read_bytes()

    def close(self) -> None:
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()

    # -- the cut ----------------------------------------------------------------------

    def cut(self, target: Path, chance: random.Random | None = None) -> Path:
        """Build what the medium holds: only what was synced, or, by *chance*, more or less of what was not. Without the index."""
        self._build(self._root.stat().st_ino, self._root, target, chance)
        return target

    def _build(self, number: int, now: Path | None, target: Path, chance: random.Random | None) -> None:
        """*now*: where it stands at present, if it does."""
        target.mkdir()
        entries = dict(self._names.get(number, {}))
        present = {name: self._hold(now / name) for name in os.listdir(now)} if now is not None else {}
        for name in sorted({*entries, *present}):
            if chance is not None and chance.random() < 0.5:
                if name in present:
                    entries[name] = present[name]
                else:
                    entries.pop(name, None)
        for name, entry in entries.items():
            if name in INDEX_FILES or name == "lock":
                continue
            here = now / name if now is not None and present.get(name) == entry else None
            if stat.S_ISDIR(os.fstat(self._held[entry]).st_mode):
                self._build(entry, here, target / name, chance)
            else:
                (target / name).write_bytes(self._content(entry, chance))

    def _content(self, number: int, chance: random.Random | None) -> bytes:
        synced = self._contents.get(number, b"")
        if chance is None:
            return synced
        return _mixed(synced, Path(f"/proc/self/fd/{self._held[number]}").read_bytes(), chance)


def _mixed(synced: bytes, present: bytes, chance: random.Random) -> bytes:
    """What may stand in a file: the synced bytes, more of the present ones, or room for them that was not filled."""
    least = min(len(synced), len(present))
    match chance.randrange(5):
        case 0:
            return synced
        case 1:
            return present
        case 2:
            return present[: chance.randint(least, len(present))]
        case 3:
            kept = chance.randint(least, len(present))
            return present[:kept] + bytes(len(present) - kept)
        case _:
            start, stop = sorted(chance.randint(least, len(present)) for _ in range(2))
            return present[:start] + bytes(stop - start) + present[stop:]

"""A random life of a few files: which operations, on what, in which order; drawn from a seed, before anything is done.

Owns: the operations, how likely each is, the names and sizes that they are about.
Must not know: any file system. Nothing here has an effect, so a plan is the same on every machine and may be shortened at will.

The names are few, so that operations meet: files named like directories, renames onto each other, links into nowhere. Descriptors and
mappings are slots; an operation on an empty slot does nothing, on either side. So any part of a plan is a plan.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

KiB, MiB = 1024, 1024 * 1024

DIRECTORIES = ("", "d", "d/e", "f")
LEAVES = ("a", "b", "c", "e")
SLOTS = 6
MAPPINGS = 3
ATTRIBUTES = ("user.one", "user.two")

# Times that were set are before this; what the clock says is after it.
SET_BEFORE_NS = 1_500_000_000 * 10**9


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of `sides.Side`, and what it is called with."""

    name: str
    arguments: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))})"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a plan may ask for. *reach*: the offsets used; *piece*: the longest single write; *links*: hard links and exchanged names;
    *remounts*: how many operations there are to a remount, about (0: none)."""

    reach: int = 300 * KiB
    piece: int = 40 * KiB
    links: bool = True
    remounts: int = 0


# S3 joins parts of 5 MiB and more: files that have several, which are edited, cut and prolonged at any offset.
LARGE = Scope(reach=40 * MiB, piece=6 * MiB, links=False, remounts=150)

ACCESS = (os.O_RDWR, os.O_RDWR, os.O_RDWR, os.O_WRONLY, os.O_RDONLY)
EXTRA = (0, 0, 0, os.O_TRUNC, os.O_APPEND, os.O_APPEND, os.O_DIRECT, os.O_EXCL, os.O_SYNC, os.O_TRUNC | os.O_APPEND, os.O_NOFOLLOW)


class Planner:
    """One method per kind of operation; `WEIGHTS` says how often."""

    def __init__(self, seed: int, scope: Scope) -> None:
        self.rng = random.Random(seed)
        self.scope = scope
        kinds = {name: weight for name, weight in WEIGHTS.items() if scope.links or name not in ("link", "exchange")}
        self._kinds, self._weights = list(kinds), list(kinds.values())

    def draw(self) -> Operation:
        if self.scope.remounts and self.rng.randrange(self.scope.remounts) == 0:
            return Operation("remount")
        (kind,) = self.rng.choices(self._kinds, self._weights)
        method: Callable[[], tuple[int | str, ...]] = getattr(self, f"_{kind}")
        return Operation(kind, method())

    # -- what operations are about ------------------------------------------------------

    def _path(self) -> str:
        return os.path.join(self.rng.choice(DIRECTORIES), self.rng.choice(LEAVES))

    def _any_path(self) -> str:
        """A directory now and then, of the names that begin as directories."""
        return self.rng.choice(DIRECTORIES[1:]) if self.rng.randrange(4) == 0 else self._path()

    def _slot(self) -> tuple[int | str, ...]:
        return (self.rng.randrange(SLOTS),)

    def _mapping(self) -> tuple[int | str, ...]:
        return (self.rng.randrange(MAPPINGS),)

    def _offset(self) -> int:
        """Anywhere, at the beginning, or near a page's edge."""
        offset = self.rng.choice((self.rng.randrange(self.scope.reach), self.rng.randrange(5000)))
        return max(0, offset // 4096 * 4096 + self.rng.randrange(-2, 3)) if self.rng.randrange(3) == 0 else offset

    def _size(self) -> int:
        """Mostly small: many edits of a file, not one."""
        return self.rng.choice((self.rng.randrange(1, 100), self.rng.randrange(1, 9000), 4096, self.rng.randrange(1, self.scope.piece)))

    def _bytes(self) -> tuple[int, int]:
        """How many, and the seed they are made of."""
        return self._size(), self.rng.randrange(1 << 30)

    # -- descriptors --------------------------------------------------------------------

    def _open(self) -> tuple[int | str, ...]:
        flags = self.rng.choice(ACCESS) | self.rng.choice(EXTRA)
        if self.rng.randrange(4) or flags & os.O_EXCL:
            flags |= os.O_CREAT
        return *self._slot(), self._path(), flags, self.rng.choice((0o644, 0o600, 0o755, 0o444))

    def _pwrite(self) -> tuple[int | str, ...]:
        return *self._slot(), self._offset(), *self._bytes()

    def _write(self) -> tuple[int | str, ...]:
        return *self._slot(), *self._bytes()

    def _pread(self) -> tuple[int | str, ...]:
        return *self._slot(), self._offset(), self._size()

    def _ftruncate(self) -> tuple[int | str, ...]:
        return *self._slot(), self.rng.choice((0, self._offset(), self._offset()))

    def _reserve(self) -> tuple[int | str, ...]:
        return *self._slot(), self._offset(), self._size()

    def _copy_range(self) -> tuple[int | str, ...]:
        return *self._slot(), *self._slot(), self._offset(), self._offset(), self._size()

    def _two_slots(self) -> tuple[int | str, ...]:
        return *self._slot(), *self._slot()

    _fsync = _fdatasync = _close = _drop_pages = _fstat = _slot
    _duplicate = _two_slots

    # -- mappings -----------------------------------------------------------------------

    def _map(self) -> tuple[int | str, ...]:
        return *self._mapping(), *self._slot(), self._offset() // 4096 * 4096, self._size() * 4

    def _map_write(self) -> tuple[int | str, ...]:
        return *self._mapping(), self._offset() % (4 * self.scope.piece), *self._bytes()

    def _map_read(self) -> tuple[int | str, ...]:
        return *self._mapping(), self._offset() % (4 * self.scope.piece), self._size()

    _map_sync = _unmap = _mapping

    # -- names --------------------------------------------------------------------------

    def _one_path(self) -> tuple[int | str, ...]:
        return (self._any_path(),)

    def _two_paths(self) -> tuple[int | str, ...]:
        return self._any_path(), self._any_path()

    def _truncate(self) -> tuple[int | str, ...]:
        return self._any_path(), self._offset()

    def _symlink(self) -> tuple[int | str, ...]:
        return self.rng.choice((*LEAVES, "../a", "d/e/b", "nowhere")), self._path()

    def _save(self) -> tuple[int | str, ...]:
        """As editors do: a temporary file, synced, renamed over the old."""
        return self._path(), *self._bytes()

    _rename = _rename_new = _exchange = _link = _two_paths
    _unlink = _mkdir = _rmdir = _listing = _stat = _cat = _readlink = _sync_directory = _one_path

    # -- attributes ---------------------------------------------------------------------

    def _chmod(self) -> tuple[int | str, ...]:
        return self._any_path(), self.rng.choice((0o644, 0o600, 0o755, 0o777, 0o400, 0o1755, 0o000))

    def _fchmod(self) -> tuple[int | str, ...]:
        return *self._slot(), self.rng.choice((0o644, 0o640, 0o700))

    def _chown(self) -> tuple[int | str, ...]:
        return self._any_path(), self.rng.randrange(3), self.rng.randrange(3)

    def _when(self) -> int:
        return self.rng.randrange(10**9, SET_BEFORE_NS)

    def _utime(self) -> tuple[int | str, ...]:
        return self._any_path(), self._when()

    def _futime(self) -> tuple[int | str, ...]:
        return *self._slot(), self._when()

    def _setxattr(self) -> tuple[int | str, ...]:
        return self._any_path(), self.rng.choice(ATTRIBUTES), self.rng.randrange(100), self.rng.randrange(1 << 30)

    def _removexattr(self) -> tuple[int | str, ...]:
        return self._any_path(), self.rng.choice(ATTRIBUTES)


WEIGHTS = {
    "open": 12,
    "pwrite": 14,
    "write": 8,
    "pread": 12,
    "ftruncate": 4,
    "reserve": 1,
    "copy_range": 2,
    "fsync": 2,
    "fdatasync": 1,
    "close": 7,
    "duplicate": 1,
    "drop_pages": 3,
    "fstat": 2,
    "map": 4,
    "map_write": 6,
    "map_read": 4,
    "map_sync": 1,
    "unmap": 3,
    "truncate": 3,
    "rename": 6,
    "rename_new": 1,
    "exchange": 1,
    "link": 2,
    "symlink": 1,
    "save": 3,
    "unlink": 5,
    "mkdir": 4,
    "rmdir": 2,
    "listing": 2,
    "stat": 3,
    "cat": 4,
    "readlink": 1,
    "sync_directory": 1,
    "chmod": 2,
    "fchmod": 1,
    "chown": 1,
    "utime": 2,
    "futime": 1,
    "setxattr": 2,
    "removexattr": 1,
}


def plan(seed: int, count: int, scope: Scope) -> Sequence[Operation]:
    """*count* operations; of the same seed and scope, a longer plan begins with the shorter one. It makes its directories first."""
    planner = Planner(seed, scope)
    return [Operation("mkdir", (directory,)) for directory in DIRECTORIES[1:]] + [planner.draw() for _ in range(count)]

"""Sweeping: what crashes and dead processes left behind goes.

Owns: which leftovers there are, and the proof for each that nobody needs it.
Must not know: how they came about.

    left over                                   proof that it is
    staging/<owner>/                            its owner's lock is free (taken under the write lock, under which owners are made)
    rows lease, reservation of an owner         the same
    bodies/ file without a row                  looked up again under the write lock: bodies are published and logged under one hold of it
    dead bodies                                 a synced mark behind their death, no lease (`sync`)
    files written aside (layout, snapshots)     older than the grace period, which is longer than any of them takes to be written
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from s3mount.engine.bodies import digest_of
from s3mount.engine.lock import is_alive
from s3mount.engine.parts import Parts
from s3mount.engine.replay import catch_up
from s3mount.engine.snapshot import ASIDE_SUFFIX

# Bodies looked up under one hold of the write lock.
BODIES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What went: folders of ended processes, files in bodies/ that nothing named, files written aside; and their bytes."""

    owners: int = 0
    bodies: int = 0
    asides: int = 0
    bytes: int = 0


class Sweeper:
    """Sweeps one folder. Safe beside any number of processes that use it."""

    def __init__(self, parts: Parts) -> None:
        self._layout = parts.layout
        self._disk = parts.disk
        self._lock = parts.lock
        self._log = parts.log
        self._index = parts.index
        self._bodies = parts.bodies
        self._sync = parts.sync
        self._bytes = 0

    def sweep(self, *, grace_seconds: float) -> SweepReport:
        """Idempotent. Files in bodies/ and files written aside go when nobody touched them for *grace_seconds*."""
        self._bytes = 0
        oldest_kept = time.time() - grace_seconds
        owners = self.sweep_owners()
        self._sync.all()
        bodies = sum(self._sweep_bodies(paths) for paths in _chunks(self._orphans(oldest_kept)))
        asides = sum(self._remove(path) for path in self._asides() if _is_older(path, oldest_kept))
        return SweepReport(owners=owners, bodies=bodies, asides=asides, bytes=self._bytes)

    # -- owners -----------------------------------------------------------------------

    def sweep_owners(self) -> int:
        """Remove folders and rows of ended processes; how many there were. A free lock is proof: no grace."""
        with self._lock, self._index.write() as db:
            ended = [name for name in os.listdir(self._layout.staging) if not is_alive(self._layout.staging / name)]
            living = set(os.listdir(self._layout.staging)) - set(ended)
            for table in ("lease", "reservation"):
                _drop_rows_of_the_ended(db, table, living)
        for name in ended:
            self._remove_tree(self._layout.staging / name)
        return len(ended)

    def _remove_tree(self, folder: Path) -> None:
        """Folders of owners are flat, but for what a user of `Engine.staging` made in its own. No link is followed."""
        if folder.is_symlink() or not folder.is_dir():
            self._remove(folder)
            return
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                self._disk.rmdir(path)
            else:
                self._remove(path)
        try:
            self._disk.rmdir(folder)
        except FileNotFoundError:
            pass

    def _remove(self, path: Path) -> int:
        """1 if it was there."""
        try:
            size = path.lstat().st_blocks * 512
            self._disk.unlink(path)
        except FileNotFoundError:
            return 0
        self._bytes += size
        return 1

    # -- bodies -----------------------------------------------------------------------

    def _orphans(self, oldest_kept: float) -> Iterator[Path]:
        """Candidates: looked up without the lock, so each may still be on its way into the log."""
        with self._index.read() as db:
            for path in self._bodies.files():
                if not _is_known(db, path.name) and _is_older(path, oldest_kept):
                    yield path

    def _sweep_bodies(self, paths: list[Path]) -> int:
        with self._lock, self._index.write() as db:
            catch_up(self._log, db)
            doomed = [path for path in paths if not _is_known(db, path.name)]
        return sum(self._remove(path) for path in doomed)

    # -- files written aside ----------------------------------------------------------

    def _asides(self) -> list[Path]:
        top = [path for path in self._layout.folder.iterdir() if path.name.startswith(("format.", "boot."))]
        logs = [path for path in self._layout.log.iterdir() if path.name.endswith(ASIDE_SUFFIX) or path.name.startswith("voids.")]
        return top + logs


def _drop_rows_of_the_ended(db: sqlite3.Connection, table: str, living: set[str]) -> None:
    owners = {owner for (owner,) in db.execute(f"SELECT DISTINCT owner FROM {table}").fetchall()}
    db.executemany(f"DELETE FROM {table} WHERE owner = ?", ((owner,) for owner in owners - living))


def _is_known(db: sqlite3.Connection, name: str) -> bool:
    """Whether a row accounts for the body *name* (by hash first: that is indexed)."""
    digest = _digest(name)
    row = db.execute("SELECT 1 FROM body WHERE digest = ? AND name = ? UNION ALL SELECT 1 FROM dead WHERE name = ?", (digest, name, name))
    return row.fetchone() is not None


def _digest(name: str) -> bytes:
    try:
        return bytes.fromhex(digest_of(name))
    except ValueError:
        return b""


def _is_older(path: Path, moment: float) -> bool:
    """By its change time, which no program can set: when it was renamed or written last."""
    try:
        return path.lstat().st_ctime <= moment
    except FileNotFoundError:
        return False


def _chunks(paths: Iterator[Path]) -> Iterator[list[Path]]:
    while chunk := list(islice(paths, BODIES_AT_ONCE)):
        yield chunk

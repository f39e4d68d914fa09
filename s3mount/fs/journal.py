"""Moves under way on a store that cannot rename, written down so that none is left half done.

Owns: the files of the journal: what they say, when they are safe, whose they are.
Must not know: how keys are moved, stores, the kernel. Everything here blocks.

A record is one file, locked by the process that works on it. It is complete when it is there under its own name (written aside, synced,
renamed); what was not copied by then was not begun. As copies are made, a line for each is added without a sync: kill -9 does not lose
it, and after a power cut the objects themselves have to tell (`decide`).

    begin --> [ moves ] --copied--> [ moves, copies ] --done--> removed
                  `--- the process ends anyhow ---' : the lock is free, and the next mount finishes it

Several records may name one key, when what is still on its way is renamed again: the latest is right. They are finished in that order,
and an earlier one is told at once, without a sync, that nothing is left to do for the key.

J1  A record under its own name holds all its moves.
J2  Only who holds a record's lock writes to it or removes it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from s3mount.model import ETag, Key, ObjectInfo

log = logging.getLogger(__name__)

SUFFIX = ".moves"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Move:
    """The object *source* of version *etag* shall be called *target*."""

    source: Key
    target: Key
    etag: ETag


class Step(Enum):
    """What is left to do for a move that was interrupted."""

    COPY = auto()
    DELETE_SOURCE = auto()
    NOTHING = auto()
    LEAVE_BOTH = auto()
    """Somebody else wrote the target since, or it cannot be told: both stay, and the user is told."""


def decide(move: Move, *, source: ObjectInfo | None, target: ObjectInfo | None, copied: ETag | None) -> Step:
    """What is left, from the objects as they are now; *copied* is the version of the copy, if the journal knows of one.

    Nothing of anybody else's is ever copied over or deleted.
    """
    if copied == "" or source is None or source.etag != move.etag:
        return Step.NOTHING
    if target is None:
        return Step.COPY if copied is None else Step.LEAVE_BOTH
    if target.etag == (copied or source.etag):
        return Step.DELETE_SOURCE
    return Step.LEAVE_BOTH


class Record:
    """One set of moves. `copied` and `done` are for the process that began it, or took it over."""

    def __init__(self, path: Path, fd: int, moves: Sequence[Move], copies: dict[int, ETag]) -> None:
        self.moves = moves
        self.copies = copies
        self._path = path
        self._fd = fd

    def copied(self, number: int, etag: ETag) -> None:
        """The move *number* has its copy, of version *etag*; "": nothing is left to do. Where that fails, the objects have to tell."""
        self.copies[number] = etag
        try:
            os.write(self._fd, _line([number, etag]))
        except OSError as error:
            log.warning("The journal of renames cannot be written: %s", error.strerror)

    def done(self) -> None:
        """Nothing is left to do."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.error("%s, of a rename that is over, cannot be removed: %s", self._path, error.strerror)
        self.leave()

    def leave(self) -> None:
        """Let the next mount finish it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Journal:
    """The records of one bucket in *folder*, which is made for its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, moves: Sequence[Move]) -> Record:
        """Write *moves* down; on return they are safe from a power cut. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self._folder / f".{secrets.token_hex(8)}"
        fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            text = b"".join([_line(FORMAT), *(_line([move.source, move.target, move.etag]) for move in moves), b"\n"])
            _write_all(fd, text)
            os.fsync(fd)
            path = self._folder / f"{time.time_ns():020}-{aside.name[1:]}{SUFFIX}"
            os.rename(aside, path)
            _sync_folder(self._folder)
        except BaseException:
            aside.unlink(missing_ok=True)
            os.close(fd)
            raise
        return Record(path, fd, moves, {})

    def left_over(self) -> Iterator[Record]:
        """Records that nobody works on any more, each locked for us, the latest first. Raises OSError, ValueError for what is no record."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}"), reverse=True):
            try:
                fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not path.exists():
                    raise BlockingIOError
            except BlockingIOError:
                os.close(fd)
                continue
            try:
                moves, copies = _parsed(path.read_bytes())
            except (ValueError, TypeError):
                os.close(fd)
                raise ValueError(f"{path} is not a journal of this version of s3mount; move it away to go on without it.") from None
            yield Record(path, fd, moves, copies)


def _parsed(text: bytes) -> tuple[list[Move], dict[int, ETag]]:
    head, found, tail = text.partition(b"\n\n")
    lines = head.split(b"\n")
    if not found or json.loads(lines[0]) != FORMAT:
        raise ValueError(text[:20])
    moves = [Move(Key(source), Key(target), ETag(etag)) for source, target, etag in map(json.loads, lines[1:])]
    return moves, dict(_notes(tail[: tail.rfind(b"\n") + 1]))


def _notes(tail: bytes) -> Iterator[tuple[int, ETag]]:
    """What became of moves; a line that a full disk cut short, and what was written behind it, is passed over."""
    for line in tail.splitlines():
        try:
            number, etag = json.loads(line)
        except ValueError:
            continue
        yield int(number), ETag(etag)


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

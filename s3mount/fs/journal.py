"""Moves under way on a store that cannot rename, written down so that none is left half done.

Owns: what the files of the journal say, in which order they are finished.
Must not know: how keys are moved, stores, the kernel, how files are held (`held`). Everything here blocks.

A record is one file, held by the process that works on it and safe once it is there: what was not copied by then was not begun. As copies
are made, a line for each is added without a sync: kill -9 does not lose it, and after a power cut the objects themselves have to tell
(`decide`): by their ETags, their commits, or their bytes whether one is a copy of the other, by their times whether a source is the one.

    begin --> [ moves ] --copied--> [ moves, copies ] --done-----------------------------> removed
                  |                    |          `--undo--> [ to be undone ] --taken back--'
                  `--------------------+--- the process ends anyhow ---' : the lock is free, and the next mount finishes it, or undoes it

A rename that has failed says so in its record, synced (`undo`), before its copies are taken back: from then on only they matter, those
with a line and those that were made without one.

Several records may name one key, when what is still on its way is renamed again: the latest is right. They are finished in that order,
and an earlier one is told at once, without a sync, that nothing is left to do for the key.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from s3mount import held
from s3mount.held import Held
from s3mount.model import ETag, Key, ObjectInfo

log = logging.getLogger(__name__)

SUFFIX = ".moves"
FORMAT = 1

# What the note of a rename that is to be undone begins with, where others have the number of a move.
UNDO = "undo"

# In place of the version of a copy: it was seen, and what became of it is its own affair. Its source is to be deleted in any case.
SUPERSEDED = ETag("*")

# By how much a version may seem to be made later than this mount took it to be: the answer to a write tells the time only by its Date.
LATER_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Move:
    """The object *source* of version *etag* shall be called *target*; *mtime_ns*: when that version was made (0: not known)."""

    source: Key
    target: Key
    etag: ETag
    mtime_ns: int = 0

    def is_of(self, source: ObjectInfo) -> bool:
        """Whether *source* is what shall be moved, as far as its ETag and its time tell: what is made anew may be just like it."""
        return source.etag == self.etag and (not self.mtime_ns or source.mtime_ns <= self.mtime_ns + LATER_NS)


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
    if copied == "" or source is None or not move.is_of(source):
        return Step.NOTHING
    if copied == SUPERSEDED:
        return Step.DELETE_SOURCE
    if target is None:
        return Step.COPY if copied is None else Step.LEAVE_BOTH
    if target.etag == (copied or source.etag):
        return Step.DELETE_SOURCE
    return Step.LEAVE_BOTH


class Record:
    """One set of moves. `copied`, `undo` and `done` are for the process that began it, or took it over.

    `undone_below`: it has failed, and its copies, all below this prefix (or of this key), are to be taken back; None: it goes on.
    """

    def __init__(self, held: Held, moves: Sequence[Move], copies: dict[int, ETag], undone_below: str | None = None) -> None:
        self.moves = moves
        self.copies = copies
        self.undone_below = undone_below
        self._held = held

    def copied(self, number: int, etag: ETag) -> None:
        """The move *number* has its copy, of version *etag* (or `SUPERSEDED`); "": nothing is left to do.

        Where that cannot be written, the objects have to tell.
        """
        self.copies[number] = etag
        try:
            self._held.add(_line([number, etag]))
        except OSError as error:
            log.warning("The journal of renames cannot be written: %s", error.strerror)

    def undo(self, below: str) -> None:
        """It has failed; its copies below *below* are to be taken back. On return that is safe from a power cut. Raises OSError."""
        self._held.add(_line([UNDO, below]))
        self._held.sync()
        self.undone_below = below

    def done(self) -> None:
        """Nothing is left to do."""
        self._held.remove()

    def leave(self) -> None:
        """Let the next mount finish it. Idempotent."""
        self._held.leave()


class Journal:
    """The records of one bucket in *folder*, which is made for its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, moves: Sequence[Move]) -> Record:
        """Write *moves* down; on return they are safe from a power cut. Raises OSError."""
        text = b"".join([_line(FORMAT), *(_line([move.source, move.target, move.etag, move.mtime_ns]) for move in moves), b"\n"])
        name = f"{time.time_ns():020}-{secrets.token_hex(8)}{SUFFIX}"
        return Record(held.make(self._folder, name, text, synced=True), moves, {})

    def left_over(self) -> Iterator[Record]:
        """Records that nobody works on any more, each locked for us, the latest first. What is no record is told in the log, and stays."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}"), reverse=True):
            try:
                if (ours := held.hold(path)) is not None:
                    yield _read(ours, path)
            except (OSError, ValueError, TypeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is none of this version of s3mount"
                log.error("The journal %s of a rename cannot be read (%s): what it tells of stays as it is", path, reason)


def _read(ours: Held, path: Path) -> Record:
    try:
        return _parsed(ours, path.read_bytes())
    except BaseException:
        ours.leave()
        raise


def _parsed(ours: Held, text: bytes) -> Record:
    head, found, tail = text.partition(b"\n\n")
    lines = head.split(b"\n")
    if not found or json.loads(lines[0]) != FORMAT:
        raise ValueError(text[:20])
    moves = [Move(Key(source), Key(target), ETag(etag), *times) for source, target, etag, *times in map(json.loads, lines[1:])]
    record = Record(ours, moves, {})
    for about, said in _notes(tail[: tail.rfind(b"\n") + 1]):
        if about == UNDO:
            record.undone_below = said
        else:
            record.copies[int(about)] = ETag(said)
    return record


def _notes(tail: bytes) -> Iterator[tuple[int | str, str]]:
    """What became of moves; a line that a full disk cut short, and what was written behind it, is passed over."""
    for line in tail.splitlines():
        try:
            about, said = json.loads(line)
        except (ValueError, TypeError):
            continue
        yield about, said


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"

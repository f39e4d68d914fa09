"""Keeps what a mount could not commit, in the journal of its bucket.

Owns: how an uncommitted content becomes a record there.
Must not know: why a commit failed, who deals with the record later.

The record holds what was staged (holes and what lies with the base take no room), under which condition it was to go, and the reason. It
waits there, whatever else is mounted, until somebody says what shall become of it.
"""

from __future__ import annotations

import secrets

import trio

from s3mount.cli.pending_places import PendingPlace, describe, place_of
from s3mount.cli.store_options import Choice
from s3mount.config import StoreUrl
from s3mount.errors import FROM_OS, StoreError, Unavailable
from s3mount.fs.kept import Keep, Uncommitted
from s3mount.model import Piece, Staged, StagedBytes
from s3mount.writeback.journal import Journal
from s3mount.writeback.records import Piece as RecordPiece
from s3mount.writeback.records import State, Stored

# In place of an error's name: bytes are lacking, and nobody may take it for the file that was written.
INCOMPLETE = "Incomplete"


class Keeper:
    """`fs.kept.Keep` for one bucket."""

    def __init__(self, place: PendingPlace) -> None:
        self._place = place

    async def __call__(self, uncommitted: Uncommitted) -> None:
        await trio.to_thread.run_sync(self.keep, uncommitted)

    def keep(self, uncommitted: Uncommitted) -> int:
        """The record's id; it is safe from a power cut. Raises NoSpace and its like."""
        try:
            describe(self._place)
        except OSError as error:
            raise FROM_OS.get(error.errno or 0, Unavailable)(f"{self._place.folder} cannot be used: {error.strerror}.") from error
        commit, content = uncommitted.commit, uncommitted.content
        bodies = _Bodies()
        pieces = [bodies.stored(piece) for piece in content.pieces]
        with Journal.visit(self._place.kept, create=True) as journal:
            return journal.keep(
                uncommitted.key,
                content.size,
                pieces,
                bodies.sources,
                reason=uncommitted.reason,
                error=INCOMPLETE if uncommitted.incomplete else type(uncommitted.error).__name__ if uncommitted.error else "",
                condition=commit.condition,
                base=content.base,
                metadata=commit.metadata,
                content_type=commit.content_type,
                storage_class=commit.storage_class,
                commit_id=commit.commit_id,
                former=commit.former.etag if commit.former is not None and commit.former.key == uncommitted.key else "",
            )


class _Bodies:
    """What was staged, by the names that it gets in the journal."""

    def __init__(self) -> None:
        self.sources: dict[str, StagedBytes] = {}
        self._names: dict[int, str] = {}

    def stored(self, piece: Piece) -> RecordPiece:
        if not isinstance(piece, Staged):
            return piece
        name = self._names.setdefault(id(piece.source), secrets.token_hex(12))
        self.sources[name] = piece.source
        return Stored(piece.offset, piece.length, name, piece.position)


def keeper_for(url: StoreUrl, choice: Choice) -> Keep:
    """Who keeps what a mount of *url* could not store."""
    return Keeper(place_of(url, choice))


def kept_in(place: PendingPlace) -> int:
    """How many contents wait in *place* that no mount could store."""
    try:
        with Journal.visit(place.kept) as journal:
            return len(journal.records())
    except StoreError:
        return 0


def left_behind(place: PendingPlace) -> int:
    """How many changes an earlier mount with --write-back has left in *place* that nobody sends now."""
    try:
        with Journal.visit(place.write_back) as journal:
            return 0 if journal.busy else sum(record.state is State.QUEUED for record in journal.records())
    except StoreError:
        return 0

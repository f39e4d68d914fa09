"""Sending a commit until it is certain whether it happened.

Owns: what a commit carries (`Sending`), what a lost reply means, and how often one tries.
Must not know: where the bytes are, POSIX.

A mutation whose reply was lost is never repeated blindly (contract C3 of the store). Each try of one delivery carries the same commit
id, and after a lost reply one looks whether the object carries it:

    send --reply--> done
      |  --refused (first try)--> refused: it did not happen
      `--lost--> look --its id--> done
                  |  --another id, or no object--> send again, at most ATTEMPTS times; refused then: look once more, another id: refused
                  `--no answer--> OutcomeUnknown: the caller keeps the id and looks (`look`) before it sends anything else
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from s3mount.errors import AlreadyExists, InvalidPart, NoSuchUpload, NotFound, OutcomeUnknown, PreconditionFailed, StoreError, TimedOut
from s3mount.fs.layers import FrozenLayers
from s3mount.model import Key, ObjectInfo
from s3mount.store.api import ObjectStore
from s3mount.store.aspects import commit_id_of, surely_whole

# Waiting between tries is the business of the store's retrying wrapper; this only bounds how often a lost reply is chased.
ATTEMPTS = 3

# Errors after which it is open whether the mutation happened, and those by which a store refuses a condition.
LOST = (OutcomeUnknown, TimedOut)
REFUSED = (PreconditionFailed, AlreadyExists, NotFound, NoSuchUpload, InvalidPart)


@dataclass(frozen=True, slots=True)
class Sending:
    """What a commit took with it."""

    layers: FrozenLayers
    edits: int
    overwrites: bool


@dataclass(frozen=True, slots=True)
class Doubt:
    """A commit of which nobody knows yet whether it happened."""

    commit_id: str
    generation: int
    edits: int


async def look(store: ObjectStore, key: Key, commit_id: str) -> ObjectInfo | None:
    """The object under *key* if the commit *commit_id* made it. Raises StoreError when the store does not say."""
    try:
        info = await store.head(key)
    except NotFound:
        return None
    return info if commit_id_of(await surely_whole(store, info)) == commit_id else None


async def deliver(store: ObjectStore, key: Key, commit_id: str, send: Callable[[], Awaitable[ObjectInfo]]) -> ObjectInfo:
    """Run *send*, which commits *commit_id* to *key*, until it is certain what became of it.

    Raises OutcomeUnknown when that stays open (so it does after a cancellation); after any other StoreError it did not happen.
    """
    lost: StoreError | None = None
    for _ in range(ATTEMPTS):
        try:
            return await send()
        except StoreError as error:
            if lost is None and not isinstance(error, LOST):
                raise
            lost = error
        found = await _look_or_doubt(store, key, commit_id)
        if found is not None:
            return found
        if isinstance(lost, REFUSED):
            raise lost
    raise _doubt(key) from lost


async def _look_or_doubt(store: ObjectStore, key: Key, commit_id: str) -> ObjectInfo | None:
    try:
        return await look(store, key, commit_id)
    except StoreError as error:
        raise _doubt(key) from error


def _doubt(key: Key) -> OutcomeUnknown:
    return OutcomeUnknown(f"The store did not say whether {key!r} was committed; the next flush looks and tries again.")

"""Copying one key within a store, telling whether one object is a copy of another, and doing many such things side by side.

Owns: what the answer to a copy means where it is a refusal or was lost; how many requests are under way at once.
Must not know: journals, the order of copies and deletions, what is seen meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import trio

from s3mount.errors import AlreadyExists, NotFound, OutcomeUnknown, PreconditionFailed, S3MountError, TimedOut
from s3mount.fs.journal import Move
from s3mount.model import Absent, ByteRange, Condition, ETag, Key, Matches, MiB, ObjectInfo
from s3mount.store.api import Commit, ObjectStore, Relocation
from s3mount.store.aspects import commit_id_of, surely_whole

T = TypeVar("T")

# After these a copy may have been made or not.
DOUBTFUL = (OutcomeUnknown, TimedOut)
DOUBTFUL_OR_CANCELLED = (*DOUBTFUL, trio.Cancelled)

# Copies and deletions under way at once: at 30 ms each a thousand keys take two seconds.
AT_ONCE = 32

# What is read to find out whether one object is a copy of the other, where nothing else tells: a copy gets an ETag of its own from some
# services, and one whose reply was lost is known by nothing else if somebody else made its source.
ALIKE_BYTES = 8 * MiB


def absent(store: ObjectStore) -> Condition:
    """That nothing is there yet, as far as *store* can judge it."""
    return Absent() if store.capabilities.conditional_put else None


async def is_there(store: ObjectStore, key: Key, etag: ETag) -> bool:
    """Whether the version *etag* is what stands under *key*."""
    try:
        return (await store.head(key)).etag == etag
    except NotFound:
        return False


async def sent(store: ObjectStore, source: ObjectInfo, target: Key, commit: Commit | None) -> ObjectInfo:
    """The copy of *source* under *target*, where nothing may be; a store that relocates has nothing left at its source then."""
    if not store.capabilities.relocate:
        return await copy_to(store, Move(source.key, target, source.etag), commit, absent(store))
    (copy,) = await store.relocate([Relocation(source=source, target=target, commit=commit, condition=absent(store))])
    return copy


async def copy_to(store: ObjectStore, move: Move, commit: Commit | None, condition: Condition) -> ObjectInfo:
    """Copy as *move* says, under *condition*; *commit*: what the copy says of itself. Raises as `ObjectStore.copy`.

    A refusal may be the echo of the copy's own success, whose reply was lost; what it says of itself may be older than *commit* then.
    """
    described = commit and replace(commit, condition=condition)
    try:
        return await store.copy(move.source, move.target, if_match=move.etag, commit=described, condition=condition)
    except AlreadyExists:
        if (copy := await copy_of(store, move)) is None:
            raise
        if commit is None:
            return copy
        return await store.copy(move.source, move.target, if_match=move.etag, commit=replace(commit, condition=Matches(copy.etag)))


async def copy_of(store: ObjectStore, move: Move) -> ObjectInfo | None:
    """The object under the target if it is a copy of the source: of the same commit, or, where that has no id, with the same bytes.

    Then nothing is lost with the source, whoever made the copy.
    """
    try:
        source, target = [await surely_whole(store, await store.head(key)) for key in (move.source, move.target)]
        if not move.is_of(source) or source.size != target.size:
            return None
        ids = [commit_id_of(info) for info in (source, target)]
        same = ids[0] == ids[1] and (ids[0] is not None or source.etag == target.etag or await _are_alike(store, source, target))
    except (NotFound, PreconditionFailed):
        return None
    return target if same else None


async def _are_alike(store: ObjectStore, one: ObjectInfo, other: ObjectInfo) -> bool:
    """Whether two objects of one size have the same bytes; False where they are too large to be read for that."""
    if one.size > ALIKE_BYTES:
        return False
    bodies = [bytearray(one.size), bytearray(one.size)]
    for info, body in zip((one, other), bodies, strict=True):
        if body:
            await store.get_into(info.key, ByteRange(0, info.size), memoryview(body), if_match=info.etag)
    return bodies[0] == bodies[1]


async def each(items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do *work* for each item, `AT_ONCE` at a time. After a failure none is begun; those under way are finished, and it is raised."""
    pending = iter(items)
    failures: list[S3MountError] = []

    async def worker() -> None:
        for item in pending:
            if failures:
                return
            try:
                await work(item)
            except S3MountError as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_ONCE, len(items))):
            nursery.start_soon(worker)
    if failures:
        raise failures[0]

"""What a set of renames makes of what is pending: records under the new names, removals of the old ones.

Owns: which record a move becomes, and when one has to wait for what is under way.
Must not know: how records are entered and sent, the protocol. Pure.

    the source is             the target becomes                              the source
    pending, unsent           the same content, of the same bodies            is removed, or never was
    pending, being sent       a second record over the same bodies            is removed behind that
    the same, an edit         (first the store must have it)
    in the store              a copy of that version (`Record.reads`)         is removed once that is made (see chains)

All of it is one transaction of the journal: whoever dies leaves every file under one of its two names.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from s3mount.model import Key, Matches, Metadata, ObjectInfo
from s3mount.store.api import Commit, Relocation
from s3mount.store.aspects import without_commit_id
from s3mount.store.rules import changed, not_found
from s3mount.writeback.chains import Entry, judge
from s3mount.writeback.pending import Pending, Step, over
from s3mount.writeback.records import Op, Record, is_local, whole_of


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps` to be entered together, and what each target is then. `before`: keys of which something must have arrived first."""

    steps: Sequence[Step]
    before: Sequence[Key]

    @property
    def infos(self) -> Sequence[ObjectInfo]:
        return [step.record.info for step in self.steps[::2] if step.record is not None]


def plan(pending: Pending, moves: Sequence[Relocation], stored: Mapping[Key, ObjectInfo], *, due: float, gone: float) -> Plan:
    """What becomes of *moves*; *stored*: sources that are in the store, as that calls them. Removals are *gone* when they are due.

    Raises NotFound, PreconditionFailed.
    """
    steps: list[Step] = []
    before: list[Key] = []
    targets = {move.target for move in moves}
    for move in moves:
        source = move.source.key
        newest = pending.chains.newest(source)
        record = _pending(newest, move) if newest is not None else _copy(stored[source], move) if source in stored else None
        if record is None or record.reads in targets or (record.reads and pending.chains.circular(move.target, record.reads)):
            before += [source, move.target]
            continue
        condition = Matches(newest.record.etag if newest is not None else stored[source].etag)
        steps += [_placed(pending, record, due), pending.removal(source, condition, due=gone)]
    return Plan(steps, before)


def _pending(newest: Entry, move: Relocation) -> Record | None:
    """What *newest* becomes; None where it has to arrive first."""
    former = newest.record
    if former.op is Op.DELETE:
        raise not_found(move.source.key)
    judge(move.source.key, newest, Matches(move.source.etag))
    if former.base is not None and (is_local(former.base.etag) or not newest.replaceable):
        return None
    commit = move.commit or Commit(metadata=former.metadata, content_type=former.content_type, storage_class=former.storage_class)
    return _record(move, commit, size=former.size, pieces=former.pieces, base=former.base)


def _copy(there: ObjectInfo, move: Relocation) -> Record:
    commit = move.commit or Commit(
        metadata=without_commit_id(there.metadata), content_type=there.content_type, storage_class=there.storage_class
    )
    return _record(move, commit, size=there.size, pieces=whole_of(there.size), base=there)


def _record(move: Relocation, commit: Commit, **content: object) -> Record:
    return Record(
        key=move.target,
        op=Op.PUT,
        condition=move.condition,
        commit_id=secrets.token_hex(16),
        metadata=without_commit_id(commit.metadata),
        content_type=commit.content_type,
        storage_class=commit.storage_class,
        former=move.replaced.etag if move.replaced is not None else "",
        **content,  # type: ignore[arg-type]
    )


def described(there: ObjectInfo, metadata: Metadata) -> Record:
    """What is *there*, with other metadata."""
    return Record(
        key=there.key,
        op=Op.PUT,
        condition=Matches(there.etag),
        commit_id=secrets.token_hex(16),
        size=there.size,
        pieces=whole_of(there.size),
        base=there,
        metadata=metadata,
        content_type=there.content_type,
        storage_class=there.storage_class,
        former=there.etag,
    )


def _placed(pending: Pending, record: Record, due: float) -> Step:
    after = pending.chains.newest(record.key)
    judge(record.key, after, record.condition)
    replaced = after if after is not None and after.replaceable else None
    record = pending.dated(record)
    return Step(record if replaced is None else over(record, replaced.record), replaced, due)


def require_apart(moves: Iterable[Relocation]) -> None:
    """Raise ValueError where a key is named twice."""
    seen: set[Key] = set()
    for move in moves:
        for key in (move.source.key, move.target):
            if key in seen:
                raise ValueError(f"{key!r} is moved twice at once")
            seen.add(key)


def require_version(info: ObjectInfo, wanted: ObjectInfo) -> ObjectInfo:
    """*info*, which the store says, if that is what is *wanted*."""
    if info.etag != wanted.etag:
        raise changed(wanted.key)
    return info

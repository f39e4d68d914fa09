"""Which change of a key is sent next, and what a further one makes of those that are pending.

Owns: the order of the changes of each key, when one may be replaced before it was sent, the condition that it then carries.
Must not know: the journal, stores, tasks. Pure: every method is atomic between checkpoints.

A key has a chain of at most two changes: one that is being sent (or may have been: `doubt`), and the newest.

    admitted --> WAITING --begin--> SENDING --arrived----------------> gone
                  |  ^                 |----refused for good--------> gone (FAILED in the journal; see `WriteBack`)
                  |  '--back-off-------'
                  `--hold--> HELD --replaced by a newer change--> gone

Each change is judged by what the user sees, which is the newest one. What the store is to judge is the condition of the first that has not
been sent: a change that replaces it takes that over.

    newest          a put comes                                      a removal comes
    none            its own condition                                a removal under its own condition
    put, unsent     the put's condition (of an overwrite: only       nothing, if it was to be new; else a removal under
                    that it be new)                                  the put's condition
    removal, unsent that of the removal                              the same
    sending         behind it: an edit of it matches what it makes   behind it

Invariants (`check`):
Q1  A chain has one or two entries; only the last may be HELD, only the first SENDING or in doubt.
Q2  Ids rise along a chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from s3mount.errors import StoreError
from s3mount.model import Absent, Condition, Matches
from s3mount.store.rules import changed, exists
from s3mount.writeback.records import Op, Record

# A file that is written again and again is sent now and then all the same.
LATEST_S = 5.0


class Phase(Enum):
    WAITING = "waiting"
    HELD = "held"
    SENDING = "sending"


@dataclass(slots=True, eq=False)
class Entry:
    """A record that is pending. `due`: not to be sent before; `latest`: not put off beyond that by a newer one that replaces it.
    `since`: the id of the first change that it stands for.

    `doubt`: it may have been sent. `hurried`: somebody waits for it. `error`: why the last try failed, which was the `failed`-th failure of
    all. `data`: bodies that are in memory.
    """

    record: Record
    due: float
    since: int
    latest: float = inf
    doubt: bool = False
    hurried: bool = False
    phase: Phase = Phase.WAITING
    error: StoreError | None = None
    failed: int = 0
    data: dict[str, bytes] = field(default_factory=dict)

    @property
    def replaceable(self) -> bool:
        return self.phase is Phase.WAITING and not self.doubt


class Chains:
    """All that is pending."""

    def __init__(self) -> None:
        self._by_key: dict[str, list[Entry]] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<Chains of {len(self._by_key)} keys>"

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return (entry for chain in list(self._by_key.values()) for entry in list(chain))

    def of(self, key: str) -> tuple[Entry, ...]:
        return tuple(self._by_key.get(key, ()))

    def newest(self, key: str) -> Entry | None:
        chain = self._by_key.get(key)
        return chain[-1] if chain else None

    def is_first(self, entry: Entry) -> bool:
        """Whether nothing of its key is to be sent before *entry*, which is pending."""
        chain = self._by_key.get(entry.record.key)
        return chain is not None and chain[0] is entry

    def successor(self, entry: Entry) -> Entry | None:
        chain = self._by_key.get(entry.record.key, [])
        return chain[1] if len(chain) > 1 and chain[0] is entry else None

    def admit(self, entry: Entry, *, replaces: Entry | None = None) -> None:
        """*entry* is the newest of its key now."""
        chain = self._by_key.setdefault(entry.record.key, [])
        if replaces is not None:
            chain.remove(replaces)
            entry.since = min(entry.since, replaces.since)
            entry.latest = replaces.latest
        entry.latest = min(entry.latest, entry.due + LATEST_S)
        entry.due = min(entry.due, entry.latest)
        chain.append(entry)
        self._count += replaces is None

    def remove(self, entry: Entry) -> None:
        chain = self._by_key[entry.record.key]
        chain.remove(entry)
        self._count -= 1
        if not chain:
            del self._by_key[entry.record.key]

    def vanishes(self, entry: Entry) -> bool:
        """Whether removing what *entry* would make leaves nothing to be done, as the store has nothing under the key before it."""
        if entry.record.op is not Op.PUT or not entry.replaceable:
            return False
        before = self._by_key[entry.record.key][0]
        if before is not entry:
            return before.record.op is Op.DELETE
        return isinstance(entry.record.condition, Absent)

    def check(self) -> None:
        assert self._count == sum(map(len, self._by_key.values())), "Q1"
        for key, chain in self._by_key.items():
            assert 1 <= len(chain) <= 2, f"Q1 {key}"
            assert all(entry.record.key == key for entry in chain), f"Q1 {key}"
            for entry in chain[1:]:
                assert entry.phase is not Phase.SENDING, f"Q1 {key}"
                assert chain[0].phase is not Phase.HELD, f"Q1 {key}"
            ids = [entry.record.id for entry in chain]
            assert ids == sorted(set(ids)), f"Q2 {key}"


def judge(key: str, newest: Entry | None, condition: Condition) -> None:
    """Raise AlreadyExists or PreconditionFailed where what is pending contradicts *condition*."""
    if newest is None:
        return
    there = newest.record.op is Op.PUT
    match condition:
        case Absent():
            if there:
                raise exists(key)
        case Matches(etag):
            if not there or etag != newest.record.etag:
                raise changed(key)
        case None:
            pass


def carried(replaced: Record, condition: Condition) -> Condition:
    """What the store shall judge of a put under *condition* (it holds) that replaces *replaced*, which was not sent."""
    if replaced.op is Op.DELETE:
        return replaced.condition
    if condition is None and not isinstance(replaced.condition, Absent):
        return None
    return replaced.condition

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

A copy of what lies under another key (`Record.reads`) is sent when that version is in the store, and before anything that replaces it:
the version decides, so nobody need remember which came first. A copy is not replaced by a new content but followed by it, where the chain
has room: it has what no content can say (tags). Nobody is let in who would wait for himself by way of others (`circular`).

Invariants (`check`):
Q1  A chain has one or two entries; only the last may be HELD, only the first SENDING or in doubt.
Q2  Ids rise along a chain.
Q3  `_readers` are the entries that read another key, by that key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    `doubt`: it may have been sent. `inherited`: a former mount left it. `hurried`: somebody waits for it. `error`: why the last try failed,
    which was the `failed`-th failure of all. `data`: bodies that are in memory.
    """

    record: Record
    due: float
    since: int
    latest: float = inf
    doubt: bool = False
    inherited: bool = False
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
        self._readers: dict[str, list[Entry]] = {}
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

    def is_next(self, entry: Entry) -> bool:
        """Whether *entry* is pending and nothing is to be sent before it."""
        chain = self._by_key.get(entry.record.key)
        return chain is not None and chain[0] is entry and not self._held_up(entry)

    def _held_up(self, entry: Entry) -> bool:
        return bool(self._readers) and any(True for _ in self._before(entry))

    def _before(self, entry: Entry) -> Iterator[Entry]:
        """Changes of other keys that are to be sent before *entry*."""
        record = entry.record
        if record.reads and record.base is not None:
            yield from (maker for maker in self.of(record.reads) if maker.record.op is Op.PUT and maker.record.etag == record.base.etag)
        for reader in self._readers.get(record.key, ()):
            if reader.record.base is not None and reader.record.base.etag != record.etag:
                yield reader

    def with_those_before(self, entries: Sequence[Entry]) -> list[Entry]:
        """*entries*, and all that is to be sent before they can be."""
        if not self._readers:
            return list(entries)
        found: dict[Entry, None] = dict.fromkeys(entries)
        waiting = list(entries)
        while waiting:
            for before in (*self._before(entry := waiting.pop()), *self.of(entry.record.key)):
                if before not in found:
                    found[before] = None
                    waiting.append(before)
        return list(found)

    def circular(self, target: str, reads: str) -> bool:
        """Whether a copy under *target* of what lies under *reads* would wait for itself."""
        seen: set[str] = set()
        waiting = [reads]
        while waiting:
            key = waiting.pop()
            if key == target:
                return True
            if key not in seen:
                seen.add(key)
                waiting += [entry.record.reads for entry in self.of(key) if entry.record.reads]
        return False

    def behind(self, record: Record) -> list[Entry]:
        """What may be sent now that *record* is pending no more: of other keys."""
        if not self._readers and not record.reads:
            return []
        return [*self._readers.get(record.key, ()), *self.of(record.reads)[:1]]

    def rewrite(self, entry: Entry, record: Record) -> None:
        """*entry*, which is pending, says *record* from here on."""
        self._reads_no_more(entry)
        entry.record = record
        self._reads(entry)

    def _reads(self, entry: Entry) -> None:
        if entry.record.reads:
            self._readers.setdefault(entry.record.reads, []).append(entry)

    def _reads_no_more(self, entry: Entry) -> None:
        if key := entry.record.reads:
            self._readers[key].remove(entry)
            if not self._readers[key]:
                del self._readers[key]

    def successor(self, entry: Entry) -> Entry | None:
        chain = self._by_key.get(entry.record.key, [])
        return chain[1] if len(chain) > 1 and chain[0] is entry else None

    def admit(self, entry: Entry, *, replaces: Entry | None = None) -> None:
        """*entry* is the newest of its key now."""
        chain = self._by_key.setdefault(entry.record.key, [])
        if replaces is not None:
            chain.remove(replaces)
            self._reads_no_more(replaces)
            entry.since = min(entry.since, replaces.since)
            entry.latest = replaces.latest
        entry.latest = min(entry.latest, entry.due + LATEST_S)
        entry.due = min(entry.due, entry.latest)
        chain.append(entry)
        self._reads(entry)
        self._count += replaces is None

    def remove(self, entry: Entry) -> None:
        chain = self._by_key[entry.record.key]
        chain.remove(entry)
        self._reads_no_more(entry)
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
        assert all(entry in self.of(entry.record.key) for readers in self._readers.values() for entry in readers), "Q3"
        for key, chain in self._by_key.items():
            assert 1 <= len(chain) <= 2, f"Q1 {key}"
            assert all(entry.record.key == key for entry in chain), f"Q1 {key}"
            for entry in chain[1:]:
                assert entry.phase is not Phase.SENDING, f"Q1 {key}"
                assert chain[0].phase is not Phase.HELD, f"Q1 {key}"
            assert [entry for entry in chain if entry.record.reads] == [
                entry for entry in chain if entry in self._readers.get(entry.record.reads, ())
            ], f"Q3 {key}"
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

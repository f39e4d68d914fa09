"""Bodies of pending changes: in memory as far as there is room, else in the journal and its files.

Owns: how much of them is in memory, how much of them waits on the disk; reading them for those who send or pin.
Must not know: when a change is entered, what it means.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping

from s3mount.errors import NotFound, Unavailable
from s3mount.model import MiB
from s3mount.writeback.chains import Entry
from s3mount.writeback.journal import Journal
from s3mount.writeback.pins import Body
from s3mount.writeback.records import Record
from s3mount.writeback.together import Together

# Bodies of pending changes that are kept in memory too, for being sent and read; beyond, they are read from the journal.
MEMORY = 64 * MiB


class Holding:
    """The bodies of all that is pending. `waiting`: bytes of them, those that several changes share counted for each.

    `refused`: likewise of what the store would not take, which stays on the disk until somebody decides.
    """

    def __init__(self, journal: Journal, together: Together) -> None:
        self.waiting = 0
        self.refused = 0
        self._journal = journal
        self._together = together
        self._memory = 0

    def check(self, entries: Iterable[Entry]) -> None:
        pending = list(entries)
        assert self._memory == sum(len(data) for entry in pending for data in entry.data.values()), "memory"
        assert self.waiting == sum(entry.record.stored_bytes for entry in pending), "waiting"

    def came(self, record: Record) -> None:
        """*record* is pending now."""
        self.waiting += record.stored_bytes

    def went(self, entry: Entry) -> None:
        """*entry* is pending no more."""
        self.waiting -= entry.record.stored_bytes
        self._memory -= sum(map(len, entry.data.values()))

    def became(self, former: Record, record: Record) -> None:
        """What was pending as *former* is *record*."""
        self.waiting += record.stored_bytes - former.stored_bytes

    def kept(self, record: Record) -> None:
        """*record* waits for somebody's decision now."""
        self.refused += record.stored_bytes

    def decided(self, record: Record) -> None:
        """*record*, for which somebody's decision was waited, is pending again, or gone."""
        self.refused -= record.stored_bytes

    def remember(self, entry: Entry, bodies: Mapping[str, bytes | int]) -> None:
        """Keep what *entry*, which is pending, needs of *bodies* in memory, as far as there is room."""
        for name, data in bodies.items():
            wanted = name in entry.record.bodies and name not in entry.data
            if wanted and isinstance(data, bytes) and self._memory + len(data) <= MEMORY:
                entry.data[name] = data
                self._memory += len(data)

    async def of(self, entry: Entry) -> dict[str, Body]:
        """Bytes and open descriptors of what *entry* names; the caller closes them. Raises NotFound where they are gone."""
        bodies: dict[str, Body] = dict(entry.data)
        try:
            for name in entry.record.bodies - bodies.keys():
                data = await self._together.call(self._journal.inline, name)
                bodies[name] = data if data is not None else self._open(name)
        except BaseException:
            close_all(bodies)
            raise
        return bodies

    def _open(self, name: str) -> int:
        try:
            return os.open(self._journal.path_of(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"The body {name!r} is gone.") from None
        except OSError as error:
            raise Unavailable(f"What waits in {self._journal.folder} cannot be read: {error.strerror}.") from error


def close_all(bodies: Mapping[str, Body]) -> None:
    for body in bodies.values():
        if isinstance(body, int):
            os.close(body)


def fresh_name() -> str:
    """For a body."""
    return secrets.token_hex(12)

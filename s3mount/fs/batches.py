"""Large renames under way and what is written down of them.

Owns: which leg stands where in which record, and when a record goes.
Must not know: how legs are carried, the overlay.

B1  A record goes when all its legs are over.
"""

from __future__ import annotations

from collections.abc import Mapping

from s3mount.fs.journal import Record
from s3mount.fs.overlay import Leg, State
from s3mount.model import ETag


class Batch:
    """One rename: its record, and how many of its legs are not over."""

    def __init__(self, record: Record | None, left: int) -> None:
        self.record = record
        self.left = left

    def note(self, number: int, etag: str) -> None:
        """Write down what became of a leg."""
        if self.record is not None:
            self.record.copied(number, ETag(etag))


class Batches:
    """All of one mount."""

    def __init__(self) -> None:
        self._of: dict[Leg, tuple[Batch, int]] = {}

    def check(self) -> None:
        assert all(leg.state is not State.OVER for leg in self._of), "B1"

    def begin(self, record: Record | None, numbers: Mapping[Leg, int]) -> None:
        """The legs of *record*, by the numbers of their moves."""
        batch = Batch(record, len(numbers))
        self._of.update((leg, (batch, number)) for leg, number in numbers.items())

    def copied(self, leg: Leg, etag: ETag) -> None:
        batch, number = self._of[leg]
        batch.note(number, etag)

    def ended(self, leg: Leg) -> None:
        """The last one of a record takes it along. The others say so: what is put where they came from may be just like them."""
        batch, number = self._of.pop(leg)
        batch.left -= 1
        if not batch.left and batch.record is not None:
            batch.record.done()
        else:
            batch.note(number, "")

    def leave(self) -> None:
        """What is still on its way is for the next mount."""
        for batch, _ in self._of.values():
            if batch.record is not None:
                batch.record.leave()

"""Which parts of a file are at the store before it is closed: the decisions, without the sending.

Owns: when a part may go, which of those that went are still true.
Must not know: where parts begin and end (see grid), stores, tasks, memory, why a commit wants them. Plain and synchronous: every method is
atomic between checkpoints.

A part is what one cell of the grid has. It goes early once, as soon as every byte of it has been written. What is changed after that goes
again, under its number, but not before the commit: a program that comes back for each block (a database, a download in pieces) would else
send everything many times. What an edit leaves as it was is copied by the commit.

    WANTING --full--> READY --begin--> SENDING --done, untouched--> SENT
       ^                |                 |                          |
       +---- cut off ---+                 +--failed, or touched--> LATE <-- touched        LATE and WANTING: the commit sends them

"Touched" is counted per part: at the beginning of a write, for what is read meanwhile may be half old and half new, and at its end, for
what was read before shows the old bytes. A part is true if nobody touched it since its reading began; one that a commit reads from its
frozen copy, if nobody did since the freezing.

Invariants (`check`):
U1  A cell is at most one of READY and SENDING; READY ones never began before.
U2  A part is one of `true_parts(size)` only if it has the bytes of its cell as they are now, and the right size.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass

from s3mount.fs.extents import Extents
from s3mount.fs.grid import Grid, is_full
from s3mount.model import Part

# An upload is worth its two more requests, and metadata that are fixed before the file is closed, from this many full parts on: a file
# below them goes at close, in one request or in a few at once, and with everything that chmod and utimens said until then.
START_PARTS = 4


@dataclass(frozen=True, slots=True)
class Sent:
    """A part that the store has, as it was when it had been touched so often."""

    part: Part
    touches: int


class Parts:
    """The parts of one content, by their cells, since it was new, emptied or committed."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._first = 1
        self._touches: Counter[int] = Counter()
        self._frozen: Counter[int] = Counter()
        self._ready: list[int] = []
        self._sending: dict[int, int] = {}
        self._sent: dict[int, Sent] = {}
        self._went: set[int] = set()

    def __repr__(self) -> str:
        return f"<Parts {len(self._sent)} sent, {len(self._sending)} under way, {len(self._ready)} ready>"

    @property
    def ready(self) -> int:
        """How many wait to be sent."""
        return len(self._ready)

    @property
    def under_way(self) -> int:
        return len(self._sending)

    @property
    def next_ready(self) -> int | None:
        """The first part that may go now."""
        return self._ready[0] if self._ready else None

    def touched(self, start: int, stop: int) -> None:
        """The bytes *start* to *stop* are about to change, or have changed."""
        for cell in range(self.grid.cell_at(start), self.grid.cell_at(stop - 1) + 1 if stop > start else 0):
            self._touches[cell] += 1

    def written(self, start: int, stop: int, table: Extents, *, settled: int = 0) -> bool:
        """After `touched`: *start* to *stop* have been written, *table* shows them (see `is_full`). Whether a part became ready."""
        cells = range(self.grid.cell_at(start), self.grid.cell_at(stop - 1) + 1)
        fresh = [cell for cell in cells if self._is_news(cell) and is_full(table, self.grid.span_of(cell), settled=settled)]
        for cell in fresh:
            insort(self._ready, cell)
        return bool(fresh)

    def _is_news(self, cell: int) -> bool:
        return cell >= self._first and cell not in self._went and cell not in self._ready

    def leave_out(self, first: int) -> None:
        """What lies before cell *first* is left to the commit."""
        self._first = first
        self._ready = [cell for cell in self._ready if cell >= first]

    def resized(self, former: int, size: int) -> None:
        """The file had *former* bytes and has *size* now."""
        self.touched(min(former, size), max(former, size))
        self._ready = [cell for cell in self._ready if self.grid.span_of(cell).stop <= size]

    # -- sending ----------------------------------------------------------------------

    def freeze(self) -> None:
        """A commit takes the content as it is now: `begin_frozen` reads from there, whatever is written from here on."""
        self._frozen = self._touches.copy()

    def begin_frozen(self, cell: int) -> None:
        """The bytes of part *cell* are about to be read, as they were at `freeze`, and sent."""
        self.begin(cell)
        self._sending[cell] = self._frozen[cell]

    def begin(self, cell: int) -> None:
        """The bytes of part *cell* are about to be read, as they are, and sent."""
        assert cell not in self._sending, f"U1 {cell}"
        if cell in self._ready:
            self._ready.remove(cell)
        self._went.add(cell)
        self._sending[cell] = self._touches[cell]

    def done(self, cell: int, part: Part) -> None:
        """The store has it as it was at `begin`."""
        self._sent[cell] = Sent(part, self._sending.pop(cell))

    def ended(self, cell: int) -> None:
        """Nobody is sending it any more, whether it arrived (`done`) or not."""
        self._sending.pop(cell, None)

    # -- what a commit needs --------------------------------------------------------------

    def true_parts(self, size: int) -> dict[int, Part]:
        """What the store has of the content as it is now, which has *size* bytes: parts by cell. All others are to be copied or sent."""
        return {cell: sent.part for cell, sent in self._sent.items() if cell <= self.grid.count(size) and self._is_true(cell, size)}

    def _is_true(self, cell: int, size: int) -> bool:
        sent = self._sent[cell]
        return sent.touches == self._touches[cell] and sent.part.size == self.grid.clipped(cell, size).length

    def check(self) -> None:
        assert self._ready == sorted(set(self._ready)), "U1"
        assert not set(self._ready) & set(self._sending), "U1"
        assert set(self._sending) | set(self._sent) <= self._went, "U1"
        assert not set(self._ready) & self._went, "U1"

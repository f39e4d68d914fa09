"""What of a content is committed: a state and one pure step.

Owns: when there is something to commit, and what a failed commit leaves.
Must not know: bytes, stores, tasks.

Edits are numbered. The store has the content as it was after edit `committed`; the commit under way carries it as after edit `sending`.
Nothing has to be merged or undone when a commit fails: the number in the store simply did not rise.

                 edit                      freeze                       edit
      CLEAN --------------> CHANGED ------------------> SENDING ----------------> OVERTAKEN
        |  ^                 ^   ^  \\                    |    |                     |    |
  empty |  | done            |   |   \\ freeze       done |    | fail           done |    | fail
        v  |            edit |   |    v                  v    |                     v    v
      UNTOUCHED -------------+   +----(SENDING)        CLEAN   +---> FAILED <---   CHANGED, FAILED
          `-- freeze --> SENDING

CLEAN      the store has it all
UNTOUCHED  created or emptied, and nothing written since: to be committed by the last release only
CHANGED    there is something to commit
SENDING    a commit is under way and carries everything; OVERTAKEN: edits came behind it
FAILED     the last commit failed and `error` says why; an edit does not leave it, a successful commit does

The phase is derived (`CommitState.phase`), so that it cannot contradict the numbers.

Invariants (`check`):
S1  committed <= sending <= edits where sending is set, else committed <= edits.
S2  emptied, where set, is the number of an edit, and at most edits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from s3mount.errors import S3MountError


class Phase(Enum):
    CLEAN = "clean"
    UNTOUCHED = "untouched"
    CHANGED = "changed"
    SENDING = "sending"
    OVERTAKEN = "overtaken"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CommitState:
    edits: int = 0
    committed: int = 0
    sending: int | None = None
    emptied: int | None = None
    error: S3MountError | None = None

    @property
    def changed(self) -> bool:
        return self.edits != self.committed

    @property
    def untouched(self) -> bool:
        return self.changed and self.emptied == self.edits

    @property
    def overwrites(self) -> bool:
        """Emptied since the last commit: nothing of that version is in it any more."""
        return self.emptied is not None and self.emptied > self.committed

    @property
    def phase(self) -> Phase:
        if self.sending is not None:
            return Phase.SENDING if self.sending == self.edits else Phase.OVERTAKEN
        if self.error is not None:
            return Phase.FAILED
        if not self.changed:
            return Phase.CLEAN
        return Phase.UNTOUCHED if self.untouched else Phase.CHANGED

    def check(self) -> None:
        sending = self.edits if self.sending is None else self.sending
        assert self.committed <= sending <= self.edits, f"S1 {self}"
        assert self.emptied is None or 0 < self.emptied <= self.edits, f"S2 {self}"


# A file that the store has, and one that it does not have yet.
FOUND = CommitState()
CREATED = CommitState(edits=1, emptied=1)


@dataclass(frozen=True, slots=True)
class Edited:
    """Bytes are written, or the size is changed."""


@dataclass(frozen=True, slots=True)
class Emptied:
    """The size became 0."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A commit takes the content as it is now."""


@dataclass(frozen=True, slots=True)
class Done:
    """The store has the content as it was after *edits*; a commit under way is over."""

    edits: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The commit under way is over and may or may not have happened; *error* None: it was cancelled."""

    error: S3MountError | None


Event = Edited | Emptied | Frozen | Done | Failed


def step(state: CommitState, event: Event) -> CommitState:
    """The state after *event*."""
    match event:
        case Edited():
            return CommitState(state.edits + 1, state.committed, state.sending, state.emptied, state.error)
        case Emptied():
            return CommitState(state.edits + 1, state.committed, state.sending, state.edits + 1, state.error)
        case Frozen() if state.sending is None:
            return CommitState(state.edits, state.committed, state.edits, state.emptied, state.error)
        case Done(edits) if state.committed <= edits <= state.edits:
            return CommitState(state.edits, edits, None, state.emptied, None)
        case Failed(error) if state.sending is not None or error is not None:
            return CommitState(state.edits, state.committed, None, state.emptied, error or state.error)
    raise AssertionError(f"{event} in {state}")

"""One try to have a content at the store before it is closed.

Owns: what it is to make, and how far it is.
Must not know: who sends, when, and what is done about a failure (see early).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import trio

from s3mount.fs.grid import Grid, Plan
from s3mount.fs.upload import Parts
from s3mount.model import ETag, Key, Upload
from s3mount.store.api import Commit


@dataclass(frozen=True, slots=True)
class Aim:
    """Which object an upload makes, and everything about it but bytes and id. *base*: the version that it edits."""

    key: Key
    commit: Commit
    base: ETag | None = None

    def fits(self, other: Aim) -> bool:
        """Whether an upload begun for this one may be completed for *other*: all but the metadata is the same."""
        mine, former = self.commit, other.commit.former
        if former is not None and mine.former is not None and former.etag == mine.former.etag:
            former = mine.former
        commit = replace(other.commit, metadata=mine.metadata, commit_id=mine.commit_id, former=former)
        return self == Aim(other.key, commit, other.base)


class Phase(Enum):
    IDLE = "idle"
    CREATING = "creating"
    OPEN = "open"


class Attempt:
    """One upload of one content, from the first byte written to its end. `plan`: once it has begun."""

    __slots__ = ("aim", "given_up", "parts", "phase", "plan", "tasks", "upload")

    def __init__(self, grid: Grid) -> None:
        self.parts = Parts(grid)
        self.plan: Plan | None = None
        self.phase = Phase.IDLE
        self.aim: Aim | None = None
        self.upload: Upload | None = None
        self.given_up = False
        self.tasks: set[trio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"<Attempt {self.phase.value}{' given up' if self.given_up else ''} {self.parts!r}>"

    def begin(self, plan: Plan) -> None:
        """The upload is about to be created."""
        self.phase, self.plan = Phase.CREATING, plan
        self.parts.leave_out(plan.first)

    def stop(self) -> None:
        """Cancel what is under way."""
        for scope in self.tasks:
            scope.cancel()

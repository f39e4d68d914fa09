"""What a commit may demand of a key under which something lies that is not seen, and from when on what it puts there is seen.

Owns: the conditions of commits, as the store can judge them; puts under way where nothing is seen.
Must not know: how keys are carried, requests.

Who makes a file where he sees none wants none to be there. Where a rename has left something, which may not be deleted yet, that is to be
replaced, and nothing else: it is named by its version. An upload of many parts has its condition from the beginning; what lies there then
may be gone when it is complete, so that no condition will do, and none at all would write over what others put there in between. It is not
begun: all is sent when the file is closed.

What is put where a directory was that has gone elsewhere is seen from before the store hears of it, and the directory with it: others may
list it before we have our answer. Where all who put it were refused, nothing is there, and nothing is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from s3mount.errors import AlreadyExists, StoreError, Unsupported
from s3mount.fs.aliases import Aliases
from s3mount.fs.copies import DOUBTFUL
from s3mount.fs.looking import GONE
from s3mount.fs.overlay import Leg, Overlay
from s3mount.fs.undoing import Stray, Undoing
from s3mount.model import Absent, Condition, Key, Matches
from s3mount.store.api import Commit

# After these something is there, or may be.
THERE = (*DOUBTFUL, *GONE, AlreadyExists)


@dataclass(slots=True)
class Attempt:
    """Who puts something under one key just now: how many; what else is seen where it was not; whether any of them may have put it."""

    reborn: Sequence[set[str]]
    count: int = 0
    made: bool = False


class Unseen:
    """Judges commits of one mount."""

    def __init__(self, overlay: Overlay, undoing: Undoing, aliases: Aliases) -> None:
        self._attempts: dict[str, Attempt] = {}
        self._overlay = overlay
        self._undoing = undoing
        self._aliases = aliases

    def _lying(self, key: str) -> Leg | Stray | None:
        return self._overlay.unseen(key) or self._undoing.lying(key)

    def condition(self, key: Key, condition: Condition) -> Condition:
        """*condition* for a request that is about to be sent."""
        lying = self._lying(key)
        if lying is None or not isinstance(condition, Absent):
            return self._aliases.condition(key, condition)
        return None if lying.etag is None else Matches(lying.etag)

    def commit(self, key: Key, commit: Commit) -> Commit:
        made = self._aliases.commit(key, commit)
        return replace(made, condition=self.condition(key, made.condition)) if isinstance(made.condition, Absent) else made

    def commit_later(self, key: Key, commit: Commit) -> Commit:
        """For an upload that is completed some time. Raises Unsupported where no condition would hold as long."""
        if isinstance(commit.condition, Absent) and self._lying(key) is not None:
            raise Unsupported(
                f"Under {key!r} something lies that is not seen: a file that shall replace nothing is sent when it is closed."
            )
        return self._aliases.commit(key, commit)

    @contextmanager
    def putting(self, key: Key) -> Iterator[None]:
        """While something is put under *key*, where nothing lies unseen."""
        if self._overlay.idle:
            yield
            return
        attempt = self._attempts.get(key)
        if attempt is None:
            attempt = self._attempts[key] = Attempt([area.reborn for area in self._overlay.areas_of(key) if area.hides(key)])
        attempt.count += 1
        self._overlay.put(key)
        try:
            yield
            attempt.made = True
        except BaseException as error:
            attempt.made |= isinstance(error, THERE) or not isinstance(error, StoreError)
            raise
        finally:
            attempt.count -= 1
            if not attempt.count:
                self._over(key, self._attempts.pop(key))

    def _over(self, key: Key, attempt: Attempt) -> None:
        if not attempt.made:
            for reborn in attempt.reborn:
                reborn.discard(key)

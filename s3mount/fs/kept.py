"""What could not be committed, and the hands into which it is given.

Owns: the shape of an uncommitted content, and what whoever keeps it promises.
Must not know: where it is kept, who looks after it later. Pure.

A commit that fails leaves the bytes with the open file (see content). Two ends would lose them: the last holder goes while the commit can
never succeed (somebody else was faster), and the mount ends. At both the content is handed on whole: its pieces, where it was to go, under
which condition, and why it did not. To the application nothing changes: `close` or `fsync` has told it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from s3mount.errors import S3MountError
from s3mount.model import Absent, Condition, Content, Key, Matches, ObjectInfo
from s3mount.store.api import Commit, ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncommitted:
    """A content as its commit would have sent it: `commit.condition` is that of the request that was to be sent.

    `commit.commit_id` names a request with all of this that may have been carried out although no reply came; "" where there is none.
    `error` is why it was not committed; None: nothing failed, the mount ended. `incomplete`: it lacks bytes that were written.
    """

    key: Key
    content: Content
    commit: Commit
    error: S3MountError | None
    incomplete: bool = False

    @property
    def reason(self) -> str:
        """For the user."""
        return str(self.error or "The mount ended before it was committed.")


def nothing_since(committed: ObjectInfo | None, store: ObjectStore) -> Condition:
    """For an overwrite that may be sent much later: that the key is still as the mount last found or made it (None: empty)."""
    if not store.capabilities.conditional_put:
        return None
    return Absent() if committed is None else Matches(committed.etag)


class Keep(Protocol):
    """Whoever keeps what could not be committed."""

    async def __call__(self, uncommitted: Uncommitted) -> None:
        """On return it survives this process. What is staged does not change before. Raises StoreError: then it is lost with the mount."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A file whose last commit failed, or is under way. `since_ns`: when it first failed (0: it has not)."""

    key: Key
    size: int
    since_ns: int = 0
    reason: str = ""
    tries: int = 0
    sending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """An object that a rename cannot copy or delete for now. `since_ns`: when it first failed."""

    key: Key
    size: int
    since_ns: int
    reason: str
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """What renames have not done yet: how many keys are on their way, how many of all are stuck, the first of those."""

    under_way: int = 0
    stuck: int = 0
    first: tuple[Stuck, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outstanding:
    """What a mounted file system has not committed: those that failed or are being sent, how many others changed, what was given away."""

    waiting: tuple[Waiting, ...] = ()
    changed: int = 0
    changed_bytes: int = 0
    open: int = 0
    kept: int = 0
    renamed: Renamed = Renamed()

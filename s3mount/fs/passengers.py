"""Who goes along with keys that are carried.

Owns: what whoever copies keys asks and tells about those that somebody knows more of than the store.
Must not know: how keys are carried, inodes. Pure.
"""

from __future__ import annotations

from typing import Protocol

from s3mount.model import ETag, Key, ObjectInfo
from s3mount.store.api import Commit


class Passengers(Protocol):
    """Who knows more of the keys that are carried than the store."""

    def described(self, key: Key, etag: ETag) -> Commit | None:
        """What the copy is to say of itself, seen under *key* now; None: what its source says."""
        ...

    async def arrived(self, key: Key, former: ETag, copy: ObjectInfo) -> None:
        """What was seen under *key* as version *former* is *copy* from now on. Waits for no request to the store."""
        ...

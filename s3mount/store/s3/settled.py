"""What an object is called once its upload is completed.

Owns: whether a completion says the ETag that the object has from then on, found out at the first one; the look at the object where not.
Must not know: how an upload is completed.

Some services name the object by its parts when it is completed, and by its bytes ever after (`rclone serve s3`): whoever believes the
completion takes the own object for somebody else's. One that is not known is looked at once, and where the names differ each time:

    known, or named alike before --> as the completion says        else HEAD -- our commit id --> by its ETag; its size must be ours
                                                                             `- another, or no answer --> as the completion says

Where the names are known to differ, and there is no answer for now, it is as if that of the completion were lost: one looks again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from s3mount.errors import InvalidPart, OutcomeUnknown, StoreError, Throttled, TimedOut, Unavailable
from s3mount.model import Key, ObjectInfo
from s3mount.store.api import COMMIT_ID
from s3mount.store.s3.client import Answer, Headers
from s3mount.store.s3.conditions import is_known
from s3mount.store.s3.headers import info_of
from s3mount.store.s3.lacks import Lack, Lacks
from s3mount.store.s3.replies import headers_of

# What our own server says that it is.
OURS = "s3mount"
# By which a store says that it may answer later.
PASSING = (Throttled, TimedOut, Unavailable)

logger = logging.getLogger(__name__)


def is_ours(answer: Answer) -> bool:
    """Whether it is our own server that answered."""
    return headers_of(answer).get("server", "").startswith(OURS)


class Settled:
    """Of one service at *endpoint* (a URL); *head* asks it about a key."""

    def __init__(self, head: Callable[[Key], Awaitable[Headers]], lacks: Lacks, *, endpoint: str) -> None:
        self._head = head
        self._lacks = lacks
        self._alike = is_known(endpoint)

    def __repr__(self) -> str:
        return f"<Settled, ETags {'' if self._alike else 'not known to be '}the same>"

    async def of(self, info: ObjectInfo, answer: Answer) -> ObjectInfo:
        """*info*, which *answer* says was completed, as the service has it.

        Raises InvalidPart where it is not what was sent, OutcomeUnknown.
        """
        if self._alike or is_ours(answer):
            return info
        try:
            found = info_of(info.key, await self._head(info.key))
        except StoreError as error:
            if Lack.LASTING_ETAGS in self._lacks and isinstance(error, PASSING):
                raise OutcomeUnknown(f"{info.key!r} is stored, and the store does not say yet as what.") from error
            logger.debug("What %r is called by now could not be found out: %s", info.key, error)
            return info
        mine = (info.metadata or {}).get(COMMIT_ID)
        if not mine or (found.metadata or {}).get(COMMIT_ID) != mine:
            return info
        if found.size != info.size:
            raise InvalidPart(f"{info.key!r} has {found.size} bytes at the store, where {info.size} were sent.")
        if found.etag != info.etag:
            self._lacks.learn(Lack.LASTING_ETAGS)
        self._alike = Lack.LASTING_ETAGS not in self._lacks
        return replace(info, etag=found.etag, mtime_ns=found.mtime_ns)

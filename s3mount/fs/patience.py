"""How often a change is tried again that the store refuses although nothing stands against it.

Owns: the pauses between tries, and when it is enough.
Must not know: what is tried, why it is refused.

A condition that failed is no answer where the object is still ours: a commit of ours was faster, or a copy of it onto itself whose reply
was lost. That is so once or twice. A service that compares ETags otherwise than it tells them refuses for good.
"""

from __future__ import annotations

import trio

from s3mount.errors import Unavailable

# The second try follows at once, as after a lost reply; then after pauses of 0.1, 0.2, ... seconds, 12.7 in all.
TRIES = 9
PAUSE_S = 0.1


class Patience:
    """For one change of one object."""

    def __init__(self) -> None:
        self._refusals = 0

    async def refused(self, key: str) -> None:
        """The change of *key* was refused: return when it may be tried again. Raises Unavailable, after `TRIES` tries."""
        self._refusals += 1
        if self._refusals == TRIES:
            raise Unavailable(f"The store keeps refusing a change of {key!r}, though nobody else has changed it.")
        if self._refusals > 1:
            await trio.sleep(PAUSE_S * 2 ** (self._refusals - 2))

"""A pin that several reads share.

Owns: when the pin may go: it is retired, and the last read that uses it is over.
Must not know: what the version means to the content.
"""

from __future__ import annotations

from types import TracebackType

import trio

from s3mount.store.api import Pin


class Pinned:
    """Use it as an async context manager while you read."""

    def __init__(self, pin: Pin) -> None:
        self.pin = pin
        self._users = 0
        self._retired = False

    def __repr__(self) -> str:
        return f"<Pinned {self.pin.info.key} {self.pin.info.etag}{' retired' if self._retired else ''}>"

    async def __aenter__(self) -> Pin:
        self._users += 1
        return self.pin

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._users -= 1
        await self._go_if_done()

    async def retire(self) -> None:
        """Nobody begins to use it any more. Idempotent, not cancellable."""
        if not self._retired:
            self._retired = True
            await self._go_if_done()

    async def _go_if_done(self) -> None:
        if self._retired and not self._users:
            with trio.CancelScope(shield=True):
                await self.pin.aclose()

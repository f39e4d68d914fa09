"""Tasks that outlive the call that began them.

Owns: their cancellation, and that none of their exceptions goes further than the log.
Must not know: what they do.

Each is a trio system task, so a store can be made without a nursery around it; `aclose` ends them, and so does the end of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

logger = logging.getLogger(__name__)


class Background:
    """Begin with `start`, end all with `aclose`."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._idle = trio.Event()
        self.closed = False

    def __repr__(self) -> str:
        return f"<Background {len(self._scopes)} running{' closed' if self.closed else ''}>"

    def start(self, work: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run *work* soon. After `aclose` it is not run but to its first checkpoint, where it is cancelled: so its clean-up happens."""
        scope = trio.CancelScope()
        if self.closed:
            scope.cancel()
        self._scopes.add(scope)
        trio.lowlevel.spawn_system_task(self._run, scope, work, args)

    async def aclose(self) -> None:
        """Cancel all that runs, and wait until it has ended. Idempotent."""
        self.closed = True
        while self._scopes:
            for scope in self._scopes:
                scope.cancel()
            self._idle = trio.Event()
            await self._idle.wait()

    async def _run(self, scope: trio.CancelScope, work: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            with scope:
                await work(*args)
        except Exception:
            logger.exception("A background task failed")
        finally:
            self._scopes.discard(scope)
            if not self._scopes:
                self._idle.set()

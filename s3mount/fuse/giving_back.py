"""Memory that nobody uses any more goes back to the system.

Owns: when the store is asked to forget what it need not know any more, and the allocator to give back what was freed.
Must not know: what the memory held.

glibc keeps what was freed below something that is still in use: 20 MiB of 180 after a walk over hundreds of thousands of keys. Asked to, it
gives whole pages back; that takes some milliseconds, so it is asked now and then, when the process has worked meanwhile or forgotten much.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import trio

PERIOD_S = 10.0
# CPU time that may leave something to give back: a walk over ten thousand names.
WORKED_S = 0.2
# Bytes that are worth it.
MUCH = 1 << 20


def trimmer() -> Callable[[], object] | None:
    """What gives back all that can be, safe in any thread; None where the C library has no such thing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)


async def give_back_now_and_then(let_go: Callable[[], int]) -> None:
    """Until cancelled. *let_go* forgets what is not needed any more, and says how many bytes that gives."""
    trim = trimmer()
    worked = time.process_time()
    while True:
        await trio.sleep(PERIOD_S)
        forgot = let_go()
        if trim is not None and (forgot >= MUCH or time.process_time() - worked >= WORKED_S):
            await trio.to_thread.run_sync(trim, abandon_on_cancel=True)
            worked = time.process_time()

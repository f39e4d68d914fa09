"""Memory that nobody uses any more goes back to the system.

Owns: when the allocator is asked for that.
Must not know: what the memory held.

glibc keeps what was freed below something that is still in use: 20 MiB of 180 after a walk over hundreds of thousands of keys. Asked to, it
gives whole pages back; that takes some milliseconds, so it is asked now and then, when the process has worked meanwhile.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import trio

PERIOD_S = 10.0
# CPU time that may leave something to give back: a walk over ten thousand names.
WORKED_S = 0.2


def trimmer() -> Callable[[], object] | None:
    """What gives back all that can be, safe in any thread; None where the C library has no such thing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)


async def give_back_now_and_then() -> None:
    """Until cancelled."""
    trim = trimmer()
    if trim is None:
        return
    worked = time.process_time()
    while True:
        await trio.sleep(PERIOD_S)
        if time.process_time() - worked >= WORKED_S:
            await trio.to_thread.run_sync(trim, abandon_on_cancel=True)
            worked = time.process_time()

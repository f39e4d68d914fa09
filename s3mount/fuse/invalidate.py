"""Tell the kernel to forget names and pages, from a thread of its own.

Owns: the queue, the thread, and its end.
Must not know: why something is to be forgotten.

The kernel answers such a call only when no request for the same directory or inode is under way, and may first write dirty pages back
through us. So it is never made from the event loop, which would have to serve the very request it waits for.

I1  `entry`, `inode` and `attributes` never wait and never fail; order is kept.
I2  After `close` no call is under way in the kernel, or `close` has said so by returning False: then the session must not be freed.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
from collections.abc import Callable, Collection

import pyfuse3

log = logging.getLogger(__name__)

# The kernel does not know it (any more), or the mount is over: nothing is left to forget.
NOTHING_TO_FORGET = frozenset({errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.ENOTDIR, errno.EBADF})


class Invalidator:
    """Safe to call from any thread, inside handlers too. *occupied*, *covered*: see `options.Invalidate`."""

    def __init__(self, occupied: Callable[[], Collection[bytes] | None], covered: Callable[[], Collection[bytes]]) -> None:
        self.occupied = occupied
        self.covered = covered
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="s3mount-invalidate", daemon=True)
        self._started = False
        self._closed = False

    def entry(self, parent: int, name: bytes) -> None:
        """Forget that *name* in *parent* exists or not; the inode behind it is forgotten too when nothing else holds it."""
        self._put(lambda: pyfuse3.invalidate_entry(parent, name))

    def inode(self, ino: int) -> None:
        """Forget the attributes and pages of *ino*."""
        self._put(lambda: pyfuse3.invalidate_inode(ino))

    def attributes(self, ino: int) -> None:
        """Forget the attributes of *ino*; its pages stay."""
        self._put(lambda: pyfuse3.invalidate_inode(ino, attr_only=True))

    def close(self, *, patience_s: float) -> bool:
        """Drop what is queued or still comes, and end the thread; False when it is still inside the kernel after *patience_s* seconds."""
        self._closed = True
        if not self._started:
            return True
        while not self._calls.empty():
            self._calls.get()
        self._calls.put(None)
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _put(self, call: Callable[[], None]) -> None:
        if self._closed:
            return
        self._calls.put(call)
        if not self._started:
            self._started = True
            self._thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except OSError as error:
                if error.errno not in NOTHING_TO_FORGET:
                    log.warning("The kernel did not forget an entry: %s", error)

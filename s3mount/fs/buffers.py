"""Reused buffers for the answers to READ.

Owns: a free list of buffers, and one stretch of zeros.
Must not know: what is in them.

First touch of fresh memory costs more than the copy that follows, so the buffer used last is the one to use next: the cache has it.
A buffer is given back before its content was sent: nobody else runs until the next checkpoint, and by then the reply is out.
"""

from __future__ import annotations

from s3mount.model import MiB

# The largest READ that the kernel sends.
BUFFER_BYTES = 1 * MiB
# Buffers kept for reuse; more reads than this at once allocate theirs anew.
KEPT_BUFFERS = 16

_ZEROS = memoryview(bytes(BUFFER_BYTES))


class BufferPool:
    """Buffers for reads, each *size* bytes; larger ones are made on demand and not kept."""

    def __init__(self, *, size: int = BUFFER_BYTES, kept: int = KEPT_BUFFERS) -> None:
        self._size = size
        self._kept = kept
        self._free: list[memoryview] = []

    def __repr__(self) -> str:
        return f"<BufferPool {len(self._free)} free>"

    def take(self, size: int) -> memoryview:
        """A buffer of at least *size* bytes, with anything in it. `give` it back."""
        if size > self._size:
            return memoryview(bytearray(size))
        return self._free.pop() if self._free else memoryview(bytearray(self._size))

    def give(self, buffer: memoryview) -> None:
        """*buffer* may be overwritten from the caller's next checkpoint on."""
        if len(buffer) == self._size and len(self._free) < self._kept:
            self._free.append(buffer)


def fill_zeros(buffer: memoryview) -> None:
    for at in range(0, len(buffer), BUFFER_BYTES):
        part = buffer[at : at + BUFFER_BYTES]
        part[:] = _ZEROS[: len(part)]

"""The body of a request: bytes in memory, sent in pieces.

Owns: the shape that botocore hashes and httpx sends.
Must not know: what the bytes are.

Pieces, because a client's write time-out counts for one piece: a slow line must not fail a large part, only a line that stands still.
No copy of the whole is made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from s3mount.model import KiB

# What the slowest line worth having (10 KB/s) carries within the stall time-out.
PIECE_BYTES = 256 * KiB


class Body:
    """*data* as a readable, seekable, asynchronously iterable body."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.view = memoryview(data).cast("B") if not isinstance(data, bytes | bytearray) else memoryview(data)
        self._at = 0

    def __len__(self) -> int:
        return self.view.nbytes

    def read(self, size: int = -1) -> memoryview:
        """For the signature."""
        stop = len(self) if size is None or size < 0 else min(len(self), self._at + size)
        piece, self._at = self.view[self._at : stop], stop
        return piece

    def seek(self, position: int, whence: int = 0) -> int:
        self._at = position + (0, self._at, len(self))[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    # No plain iteration beside it: the HTTP session would wrap that in a generator that nobody closes.
    async def __aiter__(self) -> AsyncIterator[memoryview]:
        for at in range(0, len(self), PIECE_BYTES):
            yield self.view[at : at + PIECE_BYTES]

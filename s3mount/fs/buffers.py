"""Reused buffers for the answers to READ.

Owns: a free list of buffers.
Must not know: what is in them.
"""

from __future__ import annotations


class BufferPool:
    """Buffers of *size* bytes, handed out and taken back."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

"""Where bytes wait until they are committed.

Owns: the folder for staged files, and one `StagingFile` per generation of a content.
Must not know: inodes, keys, which part of a file the bytes belong to.
"""

from __future__ import annotations

from pathlib import Path


class StagingArea:
    """All staged bytes of one mount, in *folder* (None: a temporary folder of its own)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def close(self) -> None:
        """Remove what is left; idempotent."""

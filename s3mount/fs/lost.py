"""Which written bytes could not be kept, so that nobody is told later that they were.

Owns: the ranges, and what ends them. Pure.
Must not know: where bytes are kept, commits.

The kernel collects writes and hands them over later. One that is refused then is reported to the next fsync or close, once; after that the
kernel takes its pages for clean, and the next fsync would say that all is well, of a file that lacks them. So they are remembered here: no
content with a lost range is committed, every attempt says why, until the range is written again, cut off, or all of it is emptied.

T1  The ranges are sorted, not empty, and do not touch each other.
"""

from __future__ import annotations

from s3mount.errors import S3MountError


class Lost:
    """Ranges of one content; false while there are none."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []
        self._error: S3MountError | None = None

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __repr__(self) -> str:
        return f"<Lost {self._ranges}>"

    def check(self) -> None:
        ends = [end for span in self._ranges for end in span]
        assert ends == sorted(set(ends)), f"T1 {self}"

    def add(self, start: int, stop: int, error: S3MountError) -> None:
        """What was written there is not kept, for *error*."""
        if start >= stop:
            return
        self._error = error
        apart = [span for span in self._ranges if span[1] < start or span[0] > stop]
        meeting = [span for span in self._ranges if span not in apart]
        joined = (min([start, *(span[0] for span in meeting)]), max([stop, *(span[1] for span in meeting)]))
        self._ranges = sorted([*apart, joined])

    def rewritten(self, start: int, stop: int) -> None:
        """All of it was written again, and is kept."""
        if start >= stop:
            return
        self._ranges = [
            part for first, last in self._ranges for part in ((first, min(last, start)), (max(first, stop), last)) if part[0] < part[1]
        ]

    def cut(self, size: int) -> None:
        """Nothing lies beyond *size* any more."""
        self._ranges = [(first, min(last, size)) for first, last in self._ranges if first < size]

    def require_none(self) -> None:
        """Raise an error of the kind of the last refusal that says what to do."""
        if self._ranges and self._error is not None:
            count = sum(last - first for first, last in self._ranges)
            raise type(self._error)(f"{self._error} Of what was written before, {count} bytes are lost: write the file anew.")

"""The line of those inodes that may go.

Owns: who is next in it, and whom the kernel has been asked to forget and has not forgotten yet.
Must not know: who may go, why; how the kernel is asked.

In line stand the numbers of objects (directories, and files that somebody has or had just now), then the files without (see cold), which
have a line of their own; it is gone through again and again. Who is gone is passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Container, Iterator

from s3mount.fs.cold import Cold
from s3mount.fs.inode import DirInode

# How many inodes the kernel is asked to forget before it has forgotten any: the questions wait in a queue, a few hundred bytes each.
ASKED = 1024
# For how many we look in vain before we ask for others: four rounds of questions.
PATIENCE = 4096

# Numbers of objects that are gone, kept until the line is made anew: each is 56 bytes between others that stay.
GONE, GONE_PER = 1024, 16


Wanted = Callable[[int], DirInode | str | None]
"""What is to be asked for of the object with a number: a directory, or a file by its key; None for nothing."""


class Line:
    """The numbers, in the order in which they came."""

    def __init__(self, cold: Cold) -> None:
        self._cold = cold
        self._objects: Container[int] = ()
        self._clock: deque[int] = deque()
        self._left = 0
        self._asked: set[int] = set()
        self._patience = PATIENCE

    def __len__(self) -> int:
        return len(self._clock) + len(self._cold)

    @property
    def asked(self) -> int:
        return len(self._asked)

    def join(self, ino: int, objects: Collection[int]) -> None:
        """*ino* is one of *objects* now, which are all that there are."""
        self._objects = objects
        self._clock.append(ino)
        if len(self._clock) > len(objects) + len(objects) // GONE_PER + GONE:
            self._clock = deque(objects)

    def left(self, ino: int) -> None:
        """It is not known any more."""
        self._asked.discard(ino)

    def next(self, count: int, wanted: Wanted, *, among: int, live: bool) -> list[DirInode | str]:
        """Of the next *among* up to *count*, which the kernel has been asked to forget from now on, and was not before.

        Of files without an object the keys, of those that were live only if *live*; of objects what *wanted* makes of their numbers, if
        anything.
        """
        found: list[DirInode | str] = []
        among = min(among, len(self))
        while among > 0 and len(found) < count:
            if self._left:
                self._left -= 1
                among -= 1
                self._look_at(self._clock.popleft(), wanted, found)
            else:
                most = min(among, count - len(found))
                passed = self._cold.pass_by(most)
                among -= len(passed)
                if len(passed) < most:
                    self._left = len(self._clock)
                for ino, key, was_live in passed:
                    if ino not in self._asked and (live or not was_live):
                        self._asked.add(ino)
                        found.append(key)
        return found

    def _look_at(self, ino: int, wanted: Wanted, found: list[DirInode | str]) -> None:
        if ino in self._objects:
            self._clock.append(ino)
            if ino not in self._asked and (one := wanted(ino)) is not None:
                self._asked.add(ino)
                found.append(one)

    def around(self, among: int) -> Iterator[int]:
        """The next *among* numbers of objects; of some nothing is left."""
        for _ in range(min(among, len(self._clock))):
            self._clock.rotate(-1)
            yield self._clock[-1]

    def is_waiting(self, count: int) -> bool:
        """As `Inodes.is_waiting`."""
        if len(self._asked) < ASKED:
            self._patience = PATIENCE
            return False
        self._patience -= count
        if self._patience <= 0:
            self._asked.clear()
        return True

    def compact(self, objects: Collection[int]) -> None:
        """No room for who is gone: *objects* are all that there are."""
        self._objects, self._clock, self._left, self._asked = objects, deque(objects), 0, set(self._asked)

"""Names that the kernel must not be asked to forget, as somebody is in a directory, or something is mounted on a file.

Owns: the stems of directories in which processes stand or other file systems are mounted, and of those above.
Must not know: how that is found out (see `options.Invalidate`).

A directory that the kernel forgets while a process works in it has no path any more until somebody looks it up again: getcwd(2) fails
there. A mount in it would be taken off, or on a file (containers have such). Nobody tells a FUSE file system, so it has to ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import trio

from s3mount.errors import FsError
from s3mount.fs.names import Kind, meaning

# How old the answer may be. Asking takes a millisecond or two, on the event loop; more where there are thousands of processes: then the
# answer holds for so many times as long as it took.
FRESH_SECONDS = 0.05
FRESH_TIMES = 20


class Occupied:
    """*root*: the stem of the mount's top. *ask* gives paths below it; None where nobody can tell: everything counts as occupied then."""

    def __init__(self, root: str, ask: Callable[[], Iterable[bytes] | None]) -> None:
        self._root = root
        self._ask = ask
        self._stems: set[str] | None = None
        self._fresh_until = float("-inf")

    def __contains__(self, stem: str) -> bool:
        if trio.current_time() >= self._fresh_until:
            began = time.perf_counter()
            paths = self._ask()
            self._stems = None if paths is None else {stem for path in paths for stem in stems_of(self._root, path)}
            self._fresh_until = trio.current_time() + max(FRESH_SECONDS, FRESH_TIMES * (time.perf_counter() - began))
        return self._stems is None or stem in self._stems


def stems_of(root: str, path: bytes) -> list[str]:
    """The stems of the directories that *path* leads through, its own among them."""
    stems, stem = [], root
    for name in path.split(b"/"):
        try:
            said = meaning(stem, name)
        except FsError:
            break
        stem = said.key if said.kind is Kind.CONTINUED else said.key + "/"
        stems.append(stem)
    return stems

"""What the caller of `Filesystem` chooses, hands in and gets back.

Owns: the shapes at the file system's door.
Must not know: how any of it is done.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from s3mount.fs.kept import Keep
from s3mount.model import KEY_BYTES, KiB, MiB, cheap_value

# More are of no use: a walk does not look back that far.
MOST_INODES, FEWEST_INODES = 100_000, 1000
# Of the memory limit for one inode: all take a tenth of it at most, a fiftieth where they were only listed.
INODE_SHARE = 5 * KiB


def inodes_within(memory: int) -> int:
    """`FsOptions.inode_limit` where *memory* bytes are there for all that is read and remembered."""
    return max(FEWEST_INODES, min(MOST_INODES, memory // INODE_SHARE))


@dataclass(frozen=True, slots=True, kw_only=True)
class FsOptions:
    """How a bucket is shown. Modes and owners here are for objects that carry none of their own."""

    root: str = ""
    """The prefix that is the mount's top: "" or something that ends with "/"."""
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    """Taken away from `file_mode` and `dir_mode`."""
    file_mode: int = 0o666
    dir_mode: int = 0o777
    read_only: bool = False
    sync: Literal["fsync", "close"] = "fsync"
    """When what was committed is made safe from a power cut, where the store does not do so by itself."""
    metadata_ttl_s: float = 1.0
    inode_limit: int = MOST_INODES
    """Inodes that the kernel may make us remember; beyond, cold files are expelled, and directories beyond as many again by themselves.

    About 0.1 KiB each for a file that was only listed, 0.5 KiB for any other.
    """
    key_bytes: int = KEY_BYTES
    """The longest key that the store takes (S3: 1024)."""
    xattrs: bool = True
    content_types: bool = True
    """New files get the Content-Type that their name promises; else they are bytes."""
    journal: Path | None = None
    """Where renames are written down that the store cannot do at once; None where it can."""
    upload_memory: int = 256 * MiB
    """Bytes of parts under way, where that many are worth it; 128 MiB always may be (see slots)."""
    flush_timeout_s: float = 600.0
    """How long the end of a mount waits for a store that gets commits later (`Capabilities.deferred`)."""
    keep: Keep | None = None
    """Who keeps what could not be committed; None: it is lost with the last holder, or with the mount."""

    def __post_init__(self) -> None:
        if self.root and not self.root.endswith("/"):
            raise ValueError(f"a prefix ends with '/': {self.root!r}")


@cheap_value
class Opened:
    """A handle, and whether the kernel may keep the pages it has of the inode."""

    fh: int
    keep_cache: bool


class Invalidate(Protocol):
    """Makes the kernel forget. No method waits or fails."""

    def entry(self, parent: int, name: bytes) -> None: ...

    def inode(self, ino: int) -> None: ...

    def attributes(self, ino: int) -> None: ...

    def covered(self) -> Collection[bytes]:
        """Paths below the mount, without a leading slash, on which something is mounted."""
        ...

    def occupied(self) -> Collection[bytes] | None:
        """Paths below the mount, without a leading slash, where processes stand or something is mounted; None where nobody can tell."""
        ...

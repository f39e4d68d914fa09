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
from s3mount.model import KEY_BYTES, MiB, cheap_value


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
    inode_limit: int = 100_000
    """Inodes that the kernel may make us remember; beyond, cold files are expelled, and directories beyond as many again by themselves.

    About 0.5 KiB each.
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

"""What the caller of the caches chooses.

Owns: the options' shapes, units and defaults.
Must not know: how any of it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s3mount.model import GiB, MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How much is remembered, where, and for how long. Sizes in bytes, times in seconds."""

    identity: str = ""
    """What tells this bucket from all others, across restarts: endpoint and bucket."""
    memory_limit: int = 512 * MiB
    """All data buffers and tables together."""
    folder: Path | None = None
    """Keep blocks and listings here across restarts; None: in memory only."""
    disk_limit: int = 10 * GiB
    """What the blocks in `folder` may take."""
    metadata_ttl_s: float = 1.0
    """How old a name or an attribute may be; 0 asks each time, `math.inf` never again."""
    attributes: Literal["list", "full"] = "full"
    """`list`: what a listing says is all there is. `full`: one HEAD per (key, ETag) for modes, owners, links, remembered."""

"""What whoever mounts with write-back says of it.

Owns: the values and their defaults.
Must not know: what they are good for. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s3mount.model import GiB

# As large as what a mount caches by default: minutes of a fast line, and a small part of any disk that has room for a day's work.
LIMIT = 10 * GiB


@dataclass(frozen=True, slots=True)
class Spool:
    """The folder where changes wait, and how many bytes of them."""

    folder: Path
    limit: int = LIMIT

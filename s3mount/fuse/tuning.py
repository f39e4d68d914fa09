"""What the kernel lets us raise once the mount is there.

Owns: the knobs below /sys/class/bdi and /sys/fs/fuse/connections, and one log line about those that stayed as they were.
Must not know: the file system.

The kernel sends reads of at most the readahead of the mount's device (128 KiB at first): with 1 MiB sequential reads are several times
faster. It runs at most `max_background` readaheads, writebacks and releases at once (12 at first). And it lets a FUSE mount have only one
per cent of the dirty pages that a disk may have, strictly, so that big writes are slowed down early. The first and the last are root's; the
queue belongs to whoever mounted.
"""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)

# The largest request that the kernel makes is 256 pages = 1 MiB (FUSE_MAX_MAX_PAGES); readahead of four keeps the pipe full.
READ_AHEAD_KB = 4096
MAX_BACKGROUND = 256
# Three quarters, as the kernel's own default ratio.
CONGESTION_THRESHOLD = 192
# Per cent of the system's dirty pages; any other file system has 100.
MAX_RATIO = 100


def raise_limits(device: str, *, sysfs: Path = Path("/sys")) -> None:
    """Raise what may be raised for the mount on *device* ("major:minor"). Never fails: what stays is said once, in the log."""
    bdi = sysfs / "class/bdi" / device
    queue = sysfs / "fs/fuse/connections" / device.partition(":")[2]
    wanted = {
        bdi / "read_ahead_kb": READ_AHEAD_KB,
        bdi / "strict_limit": 0,
        bdi / "max_ratio": MAX_RATIO,
        queue / "max_background": MAX_BACKGROUND,
        queue / "congestion_threshold": CONGESTION_THRESHOLD,
    }
    kept = [path.name for path, value in wanted.items() if not _write(path, value)]
    if kept:
        log.info("Reads or writes may be slower than they could be: not allowed to raise %s.", ", ".join(kept))


def _write(path: Path, value: int) -> bool:
    try:
        path.write_text(str(value))
    except OSError:
        return False
    return True

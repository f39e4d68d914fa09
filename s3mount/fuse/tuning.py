"""What the kernel lets us raise once the mount is there.

Owns: the knobs below /sys/class/bdi and /sys/fs/fuse/connections, and one log line about those that stayed as they were.
Must not know: the file system.

The kernel sends reads of at most the readahead of the mount's device (128 KiB at first): with 1 MiB sequential reads are several times
faster: root may raise that. It runs at most `max_background` readaheads, writebacks and releases at once (12 at first): that belongs to
whoever mounted. Left as it is: `max_ratio` and `strict_limit`, which keep a FUSE mount to one per cent of the system's dirty pages. Raised,
write(2) returns sooner and close(2) later (the sum stayed the same), and a slow store could hold up everybody who writes to a disk.
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


def raise_limits(device: str, *, sysfs: Path = Path("/sys")) -> None:
    """Raise what may be raised for the mount on *device* ("major:minor"). Never fails: what stays is said once, in the log."""
    bdi = sysfs / "class/bdi" / device
    queue = sysfs / "fs/fuse/connections" / device.partition(":")[2]
    wanted = {
        bdi / "read_ahead_kb": READ_AHEAD_KB,
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

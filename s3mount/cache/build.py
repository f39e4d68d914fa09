"""The caches put together: the only place that knows both halves.

Owns: the order of the wrappers, who tells whom, and where remembered attributes lie.
Must not know: which store is inside, who asks.
"""

from __future__ import annotations

import os
from pathlib import Path

from s3mount.cache.blocks import Blocks
from s3mount.cache.options import CacheOptions
from s3mount.cache.records import DiskRecords, MemoryRecords
from s3mount.cache.remember import Remembering
from s3mount.cache.snapshot import Snapshot
from s3mount.store.api import ObjectStore


def remembered(store: ObjectStore, options: CacheOptions) -> Remembering:
    """*store* with a memory for names, attributes and bytes. Close it: that ends its tasks, writes what is kept, and closes *store*."""
    blocks = Blocks(store, options)
    return remembered_over(blocks, blocks, options)


def remembered_over(store: ObjectStore, blocks: Blocks, options: CacheOptions) -> Remembering:
    """As `remembered`, where *store* stands around *blocks* already."""
    folder = attributes_folder(options)
    records = MemoryRecords(options.identity) if folder is None else DiskRecords(folder, options.identity)
    snapshot = Snapshot(options.folder, f"{options.attributes} {options.identity}") if options.folder is not None else None
    remembering = Remembering(store, options, records=records, snapshot=snapshot)
    blocks.siblings = remembering
    return remembering


def attributes_folder(options: CacheOptions) -> Path | None:
    """Where attributes are remembered: the cache's folder, else `s3mount` in the user's cache directory (XDG); None where there is none."""
    if options.attributes == "list":
        return None
    if options.folder is not None:
        return options.folder
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "s3mount"
    home = os.environ.get("HOME", "")
    return Path(home) / ".cache" / "s3mount" if os.path.isabs(home) else None

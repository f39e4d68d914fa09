"""An open data folder, in pieces.

Owns: the list of them. Must not know: what is done with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3mount.engine.bodies import Bodies
from s3mount.engine.disk import Disk
from s3mount.engine.index import Index
from s3mount.engine.layout import Layout
from s3mount.engine.lock import Owner, WriteLock
from s3mount.engine.log import Log
from s3mount.engine.sync import Sync


@dataclass(frozen=True, slots=True)
class Parts:
    """An open folder, in pieces."""

    layout: Layout
    disk: Disk
    lock: WriteLock
    log: Log
    index: Index
    owner: Owner
    bodies: Bodies
    sync: Sync

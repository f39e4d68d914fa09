"""What is left uncommitted: told while the mount lives, given into other hands when it cannot stay.

Owns: what of the base is fetched first, the log line that tells where the file went.
Must not know: when a file is given up (see files), where it is kept.

    commit fails --> waiting: shown by `outstanding`, tried again by the background
                       |-- a commit goes through --> nothing is left
                       |-- it never can, and the last holder goes --.
                       `-- the mount ends --------------------------+--> `keep`: fetched, handed over, logged
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import trio

from s3mount.errors import S3MountError
from s3mount.fs.content import Target
from s3mount.fs.inode import FileInode
from s3mount.fs.kept import Outstanding, Waiting
from s3mount.fs.live import Live
from s3mount.fs.volume import Volume
from s3mount.model import GiB, Key, MiB

log = logging.getLogger(__name__)

# How much of the base is fetched for a content that is given up, so that all of it can be had later: of a store on this machine, which
# drops the version with our pin; and of one behind a network.
FETCH_BYTES = 1 * GiB
FETCH_REMOTE_BYTES = 64 * MiB


class Leftover:
    """The uncommitted of one volume. `kept` counts what was handed over."""

    def __init__(self, volume: Volume) -> None:
        self.kept = 0
        self._volume = volume

    async def keep(self, live: Live, target: Target, error: S3MountError | None, *, reachable: bool) -> bool:
        """Hand the content over; False where nobody could take it just now. Never fails, is not cancellable: nobody is left to be told.

        *reachable*: the store answers, so that the rest of an edited file can be asked for.
        """
        keep, reason = self._volume.options.keep, error or "the mount ended."
        if keep is None:
            log.error("%r is given up uncommitted: %s", target.key, reason)
            return True
        fetch = FETCH_BYTES if self._volume.can.versions else FETCH_REMOTE_BYTES if reachable else 0
        try:
            with trio.CancelScope(shield=True):
                await live.content.hand_over(target, keep, error=error, fetch=fetch)
        except S3MountError as failure:
            log.error("%r is given up uncommitted: %s It could not be kept either: %s", target.key, reason, failure)
            return False
        self.kept += 1
        log.error("%r could not be stored and is kept aside (s3mount pending lists it): %s", target.key, reason)
        return True

    def outstanding(self, uncommitted: Iterable[FileInode], *, open_files: int) -> Outstanding:
        """What is not committed now, of the live inodes *uncommitted*."""
        files = [(Key(inode.key), inode.live) for inode in uncommitted if inode.live is not None]
        waiting = [_waiting(key, live) for key, live in files if live.failed_ns or live.in_flight]
        return Outstanding(
            waiting=tuple(sorted(waiting, key=lambda one: (one.since_ns, one.key))),
            changed=len(files),
            changed_bytes=sum(live.content.size for _, live in files if live.content.changed),
            open=open_files,
            kept=self.kept,
        )


def _waiting(key: Key, live: Live) -> Waiting:
    return Waiting(
        key=key,
        size=live.content.size,
        since_ns=live.failed_ns,
        reason=str(live.content.error or ""),
        tries=live.tries,
        sending=live.in_flight > 0,
    )

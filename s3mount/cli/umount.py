"""`s3mount umount` and `s3mount flush`: the end of a mount, and a point in its life when everything is in the store.

Owns: the two commands and what they say.
Must not know: how a mount commits.

`umount` opens the runtime record before it unmounts, and so learns how the mount's process ended, even if it was quick.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from s3mount.cli.output import files_text
from s3mount.cli.waiting import told_meanwhile
from s3mount.errors import S3MountError, Unavailable, UsageError
from s3mount.fuse import mountpoint as place
from s3mount.fuse.control import ask
from s3mount.fuse.runtime import Outcome, Watch, watch


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option(
    "--lazy", "-l", is_flag=True, help="Take it out of the tree now, even if it is in use; it ends with its last user. Does not wait."
)
@click.option("--force", is_flag=True, help="Accepted for umount(8); does nothing more.")
def umount(*, mountpoint: Path, lazy: bool, force: bool) -> None:
    """Unmount, and wait until everything is committed.

    Exit status 1 means that something could not be committed, or that the mount's process did not live to say so.
    """
    path = place.resolve(mountpoint)
    mounted = place.mounted_at(path)
    record = watch(path, owner=mounted.owner if mounted else os.getuid())
    if mounted is None and (record is None or not record.is_alive()):
        raise UsageError(f"Nothing is mounted at {mountpoint}.")
    owner = mounted.owner if mounted else os.getuid()
    with told_meanwhile(lambda: ask(path, owner=owner, do="status")):
        if mounted is not None:
            _take_off(mounted, lazily=lazy)
        if record is not None and not lazy:
            _wait(record, mountpoint)


def _take_off(mounted: place.Mounted, *, lazily: bool) -> None:
    if not mounted.is_ours:
        raise UsageError(f"{mounted.path} is no s3mount file system but {mounted.fstype}; use umount.")
    if lazily:
        place.detach(mounted.path)
    else:
        place.unmount(mounted.path)


def _wait(record: Watch, mountpoint: Path) -> None:
    try:
        outcome = record.wait()
    finally:
        record.close()
    if (error := _failure(outcome, mountpoint)) is not None:
        raise error
    if outcome.kept:
        click.echo(f"s3mount: {_kept(outcome)}", err=True)


def _failure(outcome: Outcome, mountpoint: Path) -> S3MountError | None:
    if outcome.error is not None:
        what = f"{mountpoint} is unmounted, but not everything was committed: {outcome.error}"
        return Unavailable(f"{what} {_kept(outcome)}" if outcome.kept else what)
    if not outcome.finished:
        return Unavailable(f"{mountpoint} is unmounted, but its process had died; what it had not committed by then is lost.")
    return None


def _kept(outcome: Outcome) -> str:
    return f"{files_text(outcome.kept)} could not be stored, and nothing of it is lost: s3mount pending lists what and why."


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
def flush(*, mountpoint: Path) -> None:
    """Return when everything written so far is in the store.

    MOUNTPOINT is a mount or a directory in one; everything written to the whole mount before is committed, and safe from a power cut.
    """
    mounted = place.mount_above(place.resolve(mountpoint))
    if mounted is None:
        raise UsageError(f"{mountpoint} is not in an s3mount file system.")
    path, owner = mounted.path, mounted.owner
    try:
        with told_meanwhile(lambda: ask(path, owner=owner, do="status")):
            place.sync_all(path)
    except OSError as error:
        raise Unavailable(f"{mountpoint} could not be flushed: {_why(path, owner) or os.strerror(error.errno or 0)}.") from None


def _why(path: Path, owner: int) -> str:
    """What the mount says of the first file that it cannot store, and how many others there are; "" where it does not say."""
    try:
        status = ask(path, owner=owner, do="status") or {}
    except S3MountError:
        return ""
    failed = [one for one in status.get("waiting", ()) if one["reason"]]
    if not failed:
        return ""
    others = f" (and {len(failed) - 1} more: see s3mount pending)" if len(failed) > 1 else ""
    return f"{failed[0]['reason'].rstrip('.')}{others}"

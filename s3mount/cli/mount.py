"""`s3mount mount`: options into values, then into the background.

Owns: the options of the command and what they default to.
Must not know: how a mount is served, what kind of store it is.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import click

from s3mount.cache.options import CacheOptions
from s3mount.cli.cache_options import cache_options
from s3mount.cli.main import LOG_LEVELS
from s3mount.cli.mount_options import ListedOptionsCommand
from s3mount.cli.open_store import open_store
from s3mount.cli.output import files_text
from s3mount.cli.pending_keeper import keeper_for, kept_in, left_behind
from s3mount.cli.pending_places import describe, place_of
from s3mount.cli.report import only_cause, sentence
from s3mount.cli.state import journal_folder, pending_folder, write_back_folder
from s3mount.cli.status import errands, let_go, tell
from s3mount.cli.store_options import Choice, store_options
from s3mount.config import parse_age, parse_duration, parse_size, parse_url
from s3mount.errors import UsageError
from s3mount.fs.options import FsOptions, inodes_within
from s3mount.fuse.daemon import Ready, in_background
from s3mount.fuse.logs import log_to
from s3mount.fuse.mountpoint import clear_dead, require_fit
from s3mount.fuse.operations import Deadlines
from s3mount.fuse.runtime import log_fallback
from s3mount.fuse.session import MountOptions, run_mount
from s3mount.model import KEY_BYTES
from s3mount.writeback.options import Spool

log = logging.getLogger(__name__)

# As old as anything gets: what the kernel takes as a time-out has an end.
FOREVER_S = 10 * 365 * 86400.0
# S3's limit for a key, in bytes of UTF-8.
S3_KEY_BYTES = 1024


def octal(text: str) -> int:
    """Permission bits as chmod takes them. Raises UsageError."""
    if not re.fullmatch("[0-7]{1,4}", text):
        raise UsageError(f"{text!r} is no mode: write up to four octal digits, as in 0755.")
    return int(text, 8)


def parse_moment(text: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 time, local where it names no zone; without a fraction, the end of its second.

    Raises UsageError.
    """
    try:
        moment = datetime.fromisoformat(text)
        seconds = int(moment.replace(microsecond=0).timestamp())
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no time: write 2026-11-21T02:40, or with a zone 2026-11-21T02:40:00Z.") from None
    return seconds * 10**9 + (moment.microsecond * 1000 or 10**9 - 1)


@click.command(cls=ListedOptionsCommand)
@click.argument("source")
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, and log to stderr.")
@click.option("-o", "kernel", multiple=True, metavar="OPT,OPT...", help="Options as mount(8) takes them: any of these, and the kernel's.")
@click.option("--create", is_flag=True, help="Make the bucket if it is missing.")
@click.option("--read-only", is_flag=True, help="Refuse every change.")
@click.option(
    "--versions-at",
    type=parse_moment,
    metavar="TIME",
    help="Show the bucket as it was, if it keeps versions: 2026-11-21T02:40 (local time, or with a zone). Read-only.",
)
@click.option("--uid", type=click.IntRange(min=0), help="Owner of what has none recorded. Default: who mounts.")
@click.option("--gid", type=click.IntRange(min=0), help="Group of what has none recorded. Default: that of who mounts.")
@click.option("--umask", type=octal, default="022", show_default=True, help="Taken away from the next two.")
@click.option("--file-mode", type=octal, default="0666", show_default=True, help="Mode of files that have none recorded.")
@click.option("--dir-mode", type=octal, default="0777", show_default=True, help="Mode of directories that have none recorded.")
@click.option("--allow-other", is_flag=True, help="Let other users in (for others than root: see user_allow_other in /etc/fuse.conf).")
@click.option("--nonempty", is_flag=True, help="Mount over a directory that is not empty.")
@click.option(
    "--metadata-ttl",
    type=parse_age,
    metavar="SECONDS",
    default="1",
    show_default=True,
    help="How old names and attributes may be, in seconds; 0 asks each time, forever never again.",
)
@click.option(
    "--sync",
    type=click.Choice(["fsync", "close"]),
    default="fsync",
    show_default=True,
    help="What makes data safe from a power cut: fsync (and 5 seconds), or each close too.",
)
@click.option("--no-xattr", is_flag=True, help="Have no extended attributes; small writes become faster.")
@click.option("--no-content-type", is_flag=True, help="Do not guess the Content-Type of new files from their names.")
@click.option(
    "--request-timeout", type=parse_duration, metavar="SECONDS", default="2m", show_default=True, help="Give up a request after this."
)
@click.option(
    "--commit-timeout", type=parse_duration, metavar="SECONDS", default="6h", show_default=True, help="Give up a commit after this."
)
@click.option("--write-back", is_flag=True, help="s3://: close returns when the data is safe on local disk, and uploads it afterwards.")
@click.option(
    "--spool-size",
    type=parse_size,
    metavar="SIZE",
    default="10G",
    show_default=True,
    help="With --write-back: how much may wait on local disk; beyond, close waits until some of it is in the bucket.",
)
@click.option(
    "--flush-timeout",
    type=parse_duration,
    metavar="SECONDS",
    default="10m",
    show_default=True,
    help="With --write-back: how long unmounting waits for uploads; the next mount sends the rest.",
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True, help="How much to log.")
@click.option("--log-file", type=click.Path(path_type=Path), help="Log into this file. Default: the system log; stderr with -f.")
@cache_options
@store_options
def mount(
    *,
    source: str,
    mountpoint: Path,
    foreground: bool,
    kernel: tuple[str, ...],
    create: bool,
    read_only: bool,
    versions_at: int | None,
    uid: int | None,
    gid: int | None,
    umask: int,
    file_mode: int,
    dir_mode: int,
    allow_other: bool,
    nonempty: bool,
    metadata_ttl: float,
    sync: Literal["fsync", "close"],
    no_xattr: bool,
    no_content_type: bool,
    request_timeout: float,
    commit_timeout: float,
    write_back: bool,
    spool_size: int,
    flush_timeout: float,
    log_level: str,
    log_file: Path | None,
    choice: Choice,
    cache: CacheOptions,
) -> None:
    """Make a bucket, or a prefix of it, a directory.

    SOURCE is s3://BUCKET[/PREFIX] or local://BUCKET[/PREFIX]. The command returns once MOUNTPOINT answers; unmount with s3mount umount.
    """
    url = parse_url(source)
    late = Spool(write_back_folder(url, choice), spool_size) if write_back and not read_only and versions_at is None else None
    if versions_at is not None:
        # What was does not change any more.
        read_only, metadata_ttl, create = True, FOREVER_S, False
        cache = replace(cache, metadata_ttl_s=FOREVER_S)
    dead = clear_dead(mountpoint)
    options = MountOptions(
        source=source,
        mountpoint=require_fit(mountpoint, nonempty=nonempty),
        fs=FsOptions(
            root=_as_prefix(url.key),
            uid=os.getuid() if uid is None else uid,
            gid=os.getgid() if gid is None else gid,
            umask=umask,
            file_mode=file_mode,
            dir_mode=dir_mode,
            read_only=read_only,
            sync=sync,
            metadata_ttl_s=min(metadata_ttl, FOREVER_S),
            xattrs=not no_xattr,
            content_types=not no_content_type,
            key_bytes=S3_KEY_BYTES if url.scheme == "s3" else KEY_BYTES,
            journal=journal_folder(url, choice),
            upload_memory=cache.memory_limit // 2,
            inode_limit=inodes_within(cache.memory_limit),
            flush_timeout_s=flush_timeout,
            keep=None if read_only else keeper_for(url, choice),
        ),
        allow_other=allow_other,
        kernel=kernel,
        deadlines=Deadlines(request_s=request_timeout, commit_s=commit_timeout),
        about={"pending": str(pending_folder(url, choice)), "sync": sync, "metadata_ttl_s": min(metadata_ttl, FOREVER_S)},
        tell=tell,
        errands=errands,
        let_go=let_go,
    )
    log_file = log_file and log_file.expanduser().absolute()
    if late is not None:
        describe(place_of(url, choice))

    def work(ready: Ready) -> None:
        log_to(log_file, level=log_level, foreground=foreground, fallback=log_fallback(options.mountpoint))
        for former in dead:
            log.warning("A mount of %s whose process was gone has been taken off %s", former.source, former.path)
        if left := kept_in(place_of(url, choice)):
            log.warning("%s of earlier mounts could not be stored: s3mount pending %s lists what", files_text(left), url)
        if late is None and (behind := left_behind(place_of(url, choice))):
            log.warning(
                "%s of an earlier mount with --write-back are not in the bucket yet, and not shown here: mount with --write-back once more,"
                " or s3mount retry --all %s",
                files_text(behind),
                url,
            )
        run_mount(
            lambda: open_store(url, choice, create_bucket=create, cache=cache, at_ns=versions_at, write_back=late, writes=not read_only),
            options,
            ready=ready,
        )

    if foreground:
        work(lambda: None)
    else:
        logging.getLogger("s3mount").setLevel(log_level.upper())
        in_background(work, explain=_explain)


def _explain(error: BaseException) -> tuple[int, str]:
    cause = only_cause(error)
    return 2 if isinstance(cause, UsageError | click.UsageError) else 1, sentence(cause)


def _as_prefix(key: str) -> str:
    return key if not key or key.endswith("/") else f"{key}/"

"""What is shown while a command waits until a mount has stored everything.

Owns: when something is said, the sentence, the bar.
Must not know: what the command waits for, how a mount is asked (status does).

A moment is waited in silence. Then one sentence says what is on its way; on a terminal a bar follows it. The mount is asked by a thread of
its own, for the command hangs in the kernel, or on the record's lock, until all is over.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from s3mount.cli.output import Progress, files_text, progress_bar, size_text
from s3mount.cli.status import to_store
from s3mount.errors import S3MountError

# Longer than this is "more than a moment", and is said.
MOMENT_S = 1.0
# Who is done does not wait longer for a mount that has yet to say how far it is.
LAST_WORD_S = 1.0
# How often the bar moves.
STEP_S = 0.5

Ask = Callable[[], Mapping[str, Any] | None]


@contextmanager
def told_meanwhile(ask: Ask, *, verb: str = "Waiting") -> Iterator[None]:
    """Tell the user what the block waits for, if that takes more than a moment. *ask* gives the mount's status, or None."""
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(ask, over, verb), daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join(timeout=LAST_WORD_S)


def _tell(ask: Ask, over: threading.Event, verb: str) -> None:
    if over.wait(MOMENT_S):
        return
    files, size = _left(ask)
    click.echo(f"{verb} until {what(files, size)} stored.", err=True)
    if size and sys.stderr.isatty():
        with progress_bar("Storing", size) as progress:
            _follow(ask, over, size, progress)


def _follow(ask: Ask, over: threading.Event, size: int, progress: Progress) -> None:
    done = 0
    while not over.wait(STEP_S):
        _, left = _left(ask)
        if (now := max(done, size - left)) > done:
            progress(now - done)
            done = now
    if done < size:
        progress(size - done)


def _left(ask: Ask) -> tuple[int, int]:
    try:
        status = ask()
    except S3MountError:
        status = None
    return to_store(status) if status is not None else (0, 0)


def what(files: int, size: int) -> str:
    """As in `3 files (12M) are`."""
    if not files:
        return "everything that was written is"
    return f"{files_text(files)} ({size_text(size, human=True)}B) {'is' if files == 1 else 'are'}"

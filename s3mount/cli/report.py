"""How a failure leaves the program: one sentence on stderr, and an exit status.

Owns: the sentence for every kind of failure, the status. The only place that makes them.
Must not know: which command failed.

Exit status: 0 done; 1 it could not be done; 2 the request itself is wrong. A traceback comes only where the log level is debug, and then
before the sentence. A defect (no error of ours, none of the operating system's) gets a sentence too, which says how to see the traceback.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from s3mount.errors import S3MountError, UsageError

logger = logging.getLogger("s3mount")


def report(error: BaseException, *, program: str = "s3mount") -> int:
    """Say *error* as one sentence on stderr, and return the exit status that it means."""
    cause = only_cause(error)
    if isinstance(cause, SystemExit):
        return cause.code if isinstance(cause.code, int) else 1
    if isinstance(cause, click.exceptions.Exit):
        return cause.exit_code
    if isinstance(cause, BrokenPipeError):
        stop_writing()
        return 1
    if logger.isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)
    click.echo(f"{program}: {sentence(cause)}", err=True)
    return 2 if isinstance(cause, UsageError | click.UsageError) else 1


def only_cause(error: BaseException) -> BaseException:
    """The one failure inside *error*: trio wraps what a task raised; of several, one that is an answer to the user goes before a defect."""
    while isinstance(error, BaseExceptionGroup):
        named, _ = error.split((S3MountError, OSError, click.ClickException, KeyboardInterrupt))
        error = (named or error).exceptions[0]
    return error


def sentence(error: BaseException) -> str:
    """What to tell the user about *error*, on one line."""
    text = _sentence(error)
    return " ".join(text.split()) or type(error).__name__


def _sentence(error: BaseException) -> str:
    match error:
        case click.UsageError():
            return f"{error.format_message()}{_where_help_is(error)}"
        case click.ClickException():
            return error.format_message()
        case S3MountError():
            return str(error)
        case KeyboardInterrupt() | click.Abort():
            return "interrupted"
        case OSError():
            return os_sentence(error)
        case MemoryError():
            return "not enough memory"
        case _:
            return f"internal error, {type(error).__name__}: {error} (--log-level debug shows where; please report it)"


def _where_help_is(error: click.UsageError) -> str:
    return f" (see {error.ctx.command_path} --help)" if error.ctx else ""


def os_sentence(error: OSError) -> str:
    """The operating system's reason with the files it is about."""
    names = " -> ".join(_names(error.filename, error.filename2))
    return f"{names}: {os_reason(error)}" if names else os_reason(error)


def os_reason(error: OSError) -> str:
    """The operating system's reason alone."""
    return "no space left on the device" if error.errno == errno.ENOSPC else (error.strerror or str(error)).lower()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let failures inside be about *path*, where the operating system did not say which file it meant (read, write, sync)."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def _names(*files: object) -> Iterable[str]:
    return [os.fsdecode(name) if isinstance(name, bytes | str | os.PathLike) else str(name) for name in files if name is not None]


def stop_writing() -> None:
    """Nobody reads our output any more: let the interpreter's last flush go nowhere, silently."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass

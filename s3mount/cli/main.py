"""The command `s3mount`: its subcommands, and its log on the terminal.

Owns: which subcommands there are (they are imported when called, so that `s3mount --help` is quick), the way in and the way out of each.
Must not know: what any subcommand does, how a failure is put into words (report does).
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

import s3mount
from s3mount.cli.importing import imported
from s3mount.cli.report import report

# Where each subcommand lives, and what the overview says of it (the command's own help begins with the same words; a test compares).
COMMANDS: dict[str, tuple[str, str]] = {
    "mount": ("s3mount.cli.mount:mount", "Make a bucket, or a prefix of it, a directory."),
    "umount": ("s3mount.cli.umount:umount", "Unmount, and wait until everything is committed."),
    "flush": ("s3mount.cli.umount:flush", "Return when everything written so far is in the store."),
    "status": ("s3mount.cli.status:status", "Show what a mount is doing, and what it has not stored yet."),
    "pending": ("s3mount.cli.pending:pending", "List what is not stored: why, since when, how large."),
    "retry": ("s3mount.cli.pending:retry", "Store now what could not be stored before, and finish what a rename has left."),
    "discard": ("s3mount.cli.pending:discard", "Throw away what could not be stored."),
    "export": ("s3mount.cli.pending:export", "Write what could not be stored into local files."),
    "mb": ("s3mount.cli.buckets:mb", "Make buckets."),
    "rb": ("s3mount.cli.buckets:rb", "Remove empty buckets."),
    "ls": ("s3mount.cli.listing:ls", "List buckets, or what lies under a URL."),
    "cp": ("s3mount.cli.objects:cp", "Copy between files and objects, either way, or between objects."),
    "mv": ("s3mount.cli.objects:mv", "Move or rename objects and whole prefixes."),
    "rm": ("s3mount.cli.objects:rm", "Remove objects."),
    "cat": ("s3mount.cli.objects:cat", "Write objects to standard output."),
    "stat": ("s3mount.cli.listing:stat", "Show everything known about objects but their bytes."),
    "du": ("s3mount.cli.listing:du", "Add up the sizes of what lies under a URL."),
    "versions": ("s3mount.cli.versions:versions", "List the versions of objects, the newest first."),
    "restore": ("s3mount.cli.restoring:restore", "Have archived objects brought back."),
    "serve": ("s3mount.cli.serve:serve", "Serve the embedded store as an S3 endpoint."),
    "presign": ("s3mount.cli.presign:presign", "Sign a URL, so that whoever has it may use it for a time."),
    "store": ("s3mount.cli.maintenance:store", "Look after the embedded store's folder."),
}

LOG_LEVELS = ("debug", "info", "warning", "error")

logger = logging.getLogger("s3mount")


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are asked for, not when the overview is printed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def load(name: str) -> click.Command:
    """The subcommand *name* of `COMMANDS`."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(imported(module), attribute)
    return command


class StderrLog(logging.Handler):
    """Log lines beside the sentences, on whatever is stderr at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"s3mount: {record.levelname.lower()}: {record.getMessage()}", err=True)
        if record.exc_info and logger.isEnabledFor(logging.DEBUG):
            traceback.print_exception(record.exc_info[1])


def log_to_stderr(level: str) -> None:
    """Send the program's log to stderr from *level* on; a second call replaces the first."""
    for handler in [handler for handler in logger.handlers if isinstance(handler, StderrLog)]:
        logger.removeHandler(handler)
    logger.addHandler(StderrLog())
    logger.setLevel(level.upper())


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(s3mount.__version__, "-V", "--version", prog_name="s3mount", message="%(prog)s %(version)s")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="warning",
    show_default=True,
    help="How much to say on stderr; debug adds tracebacks.",
)
def group(log_level: str) -> None:
    """S3 buckets as POSIX directories, with an object store of its own for when there is no network.

    A store's URL is s3://BUCKET/KEY (any S3 service) or local://BUCKET/KEY (the embedded store, a folder of this machine).
    """
    log_to_stderr(log_level)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (default: of this process) and exit with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str], *, program: str = "s3mount") -> int:
    """Run one command line and return its exit status; whatever fails has been said on stderr as one sentence of *program*."""
    try:
        status = group.main(args=list(arguments), prog_name="s3mount", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except BaseException as error:
        return report(error, program=program)

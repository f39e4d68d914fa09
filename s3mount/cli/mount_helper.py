"""What mount(8) and umount(8) call: `mount.s3mount` and `umount.s3mount`.

Owns: their argument order, their flags, mount(8)'s exit status.
Must not know: what any option means (mount_options does), how a mount is made (the commands `mount` and `umount` do).

    mount.s3mount  SOURCE TARGET [-sfnvrw] [-N namespace] [-o options] [-t type]      mount(8), "External helpers"
    umount.s3mount TARGET [-flnrv] [-N namespace] [-t type]                           umount(8), "External helpers"

A mount shows in /proc/mounts with the type `fuse.s3mount`; libmount then calls `umount.fuse.s3mount`, and `mount -t fuse.s3mount` calls
`mount.fuse.s3mount`: the installation has both names for each program.
"""

from __future__ import annotations

import getopt
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from s3mount.cli.main import load, run
from s3mount.cli.mount_options import join_options, options_of, split_options, translate
from s3mount.cli.report import report
from s3mount.errors import UsageError

# mount(8), "Exit status": 1 incorrect invocation or permissions, 32 mount failure.
WRONG_CALL = 1
MOUNT_FAILURE = 32

MOUNT_USAGE = "mount.s3mount SOURCE TARGET [-sfnvrw] [-o options] [-t type]"
UMOUNT_USAGE = "umount.s3mount TARGET [-flnrv] [-t type]"


@dataclass(frozen=True, slots=True)
class MountCall:
    """One call of mount.s3mount. `fake`: check everything, mount nothing. `sloppy`: pass over options that nobody knows."""

    source: str
    target: str
    options: tuple[str, ...] = ()
    fake: bool = False
    sloppy: bool = False
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class UmountCall:
    """One call of umount.s3mount."""

    target: str
    force: bool = False
    lazy: bool = False
    verbose: bool = False


def parse_mount(arguments: Sequence[str]) -> MountCall:
    """Raises UsageError."""
    flags, operands = _getopt(arguments, "sfnvrwN:o:t:", MOUNT_USAGE)
    if len(operands) != 2:
        raise UsageError(f"It takes a source and a mount point: {MOUNT_USAGE}")
    options = [option for flag, value in flags if flag == "-o" for option in split_options(value)]
    options += ["ro" if flag == "-r" else "rw" for flag, _ in flags if flag in ("-r", "-w")]
    given = {flag for flag, _ in flags}
    return MountCall(operands[0], operands[1], tuple(options), fake="-f" in given, sloppy="-s" in given, verbose="-v" in given)


def parse_umount(arguments: Sequence[str]) -> UmountCall:
    """Raises UsageError."""
    flags, operands = _getopt(arguments, "flnrvN:t:", UMOUNT_USAGE)
    if len(operands) != 1:
        raise UsageError(f"It takes one mount point: {UMOUNT_USAGE}")
    given = {flag for flag, _ in flags}
    return UmountCall(operands[0], force="-f" in given, lazy="-l" in given, verbose="-v" in given)


def _getopt(arguments: Sequence[str], letters: str, usage: str) -> tuple[list[tuple[str, str]], list[str]]:
    try:
        flags, operands = getopt.gnu_getopt(list(arguments), letters)
    except getopt.GetoptError as error:
        raise UsageError(f"{str(error).capitalize()}: {usage}") from None
    if any(flag == "-N" for flag, _ in flags):
        raise UsageError("Mounting into another namespace (-N) is not supported: use nsenter --mount=NAMESPACE mount ...")
    return flags, operands


def mount_command_line(call: MountCall) -> list[str]:
    """The `s3mount` command line that does what *call* asks. Raises UsageError where an option is unknown or makes no sense."""
    options = list(call.options)
    unknown = translate(options, options_of(load("mount"))).unknown
    if call.sloppy:
        options = [option for option in options if option not in unknown]
    level = ["--log-level=info"] if call.verbose else []
    return [*level, "mount", *(["-o", join_options(options)] if options else []), "--", call.source, call.target]


def umount_command_line(call: UmountCall) -> list[str]:
    """The `s3mount` command line that does what *call* asks."""
    offered = options_of(load("umount"))
    wanted = [name for name, asked in (("force", call.force), ("lazy", call.lazy)) if asked]
    missing = [name for name in wanted if name not in offered]
    if missing:
        raise UsageError(f"Unmounting with --{missing[0]} is not supported.")
    level = ["--log-level=info"] if call.verbose else []
    return [*level, "umount", *(f"--{name}" for name in wanted), "--", call.target]


def mount() -> NoReturn:
    """The program `mount.s3mount`."""
    sys.exit(helper_status(run_mount(sys.argv[1:])))


def umount() -> NoReturn:
    """The program `umount.s3mount`."""
    sys.exit(helper_status(run_umount(sys.argv[1:])))


def run_mount(arguments: Sequence[str]) -> int:
    """Mount as *arguments* say and return the exit status that `s3mount` would have."""
    try:
        call = parse_mount(arguments)
        command_line = mount_command_line(call)
        if call.fake:
            check_only(command_line)
            return 0
    except Exception as error:
        return report(error, program="mount.s3mount")
    return run(command_line, program="mount.s3mount")


def run_umount(arguments: Sequence[str]) -> int:
    """Unmount as *arguments* say and return the exit status that `s3mount` would have."""
    try:
        command_line = umount_command_line(parse_umount(arguments))
    except Exception as error:
        return report(error, program="umount.s3mount")
    return run(command_line, program="umount.s3mount")


def check_only(command_line: Sequence[str]) -> None:
    """Parse a mount command line as the command itself would, and do nothing. Raises what parsing raises."""
    words = list(command_line)
    load("mount").make_context("mount", words[words.index("mount") + 1 :]).close()


def helper_status(status: int) -> int:
    """The status that mount(8) expects for one of ours: 0 done, 1 could not be done, 2 wrongly asked."""
    return {0: 0, 2: WRONG_CALL}.get(status, MOUNT_FAILURE)

"""Into the background, and back with one word or one sentence.

Owns: the double fork, the pipe to the process that the user started, standard input and output.
Must not know: mounts, stores, how a failure is put into words.

    caller ----fork---> middle ----fork---> daemon     (middle ends at once: the daemon has no parent that waits)
       |<------- "P<pid>" "R" or "E<status> <sentence>" -|

The caller returns with the daemon's first word: `ready`, or the sentence for why not. Until then the daemon keeps standard error, so that
whatever libraries print is seen; afterwards it holds nothing of the terminal. Fork before there are threads, an event loop or a database:
all of those are opened by *work*, in the daemon. Until its first word it stays in the caller's process group, too: an automount (autofs)
lets the group that it asked to mount go to the mount point, and has everybody else wait for the mount.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from s3mount.errors import S3MountError, Unavailable, UsageError

Ready = Callable[[], None]
Work = Callable[[Ready], None]
Explain = Callable[[BaseException], tuple[int, str]]

# A sentence that is longer than this is not one.
MESSAGE_BYTES = 64 * 1024

USAGE_STATUS = 2


def in_background(work: Work, *, explain: Explain) -> None:
    """Run *work* in a process of its own; return once it has called its argument.

    Raises UsageError (status 2) or Unavailable with the sentence that *explain* made of the reason why it came to no good before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        _daemonise(work, explain, writing)
    os.close(writing)
    os.waitpid(middle, 0)
    with open(reading, "rb", buffering=0) as pipe:
        _heed(_messages(pipe.read))


def _messages(read: Callable[[int], bytes]) -> list[bytes]:
    """The daemon's lines until its first word. Interrupted meanwhile, it takes the daemon with it."""
    said = b""
    try:
        while (more := read(MESSAGE_BYTES)) and b"R\n" not in said + more:
            said += more
    except KeyboardInterrupt:
        if said.startswith(b"P"):
            os.kill(int(said.split(b"\n")[0][1:]), signal.SIGTERM)
        raise
    return (said + more).splitlines()


def _heed(messages: list[bytes]) -> None:
    for message in messages:
        if message == b"R":
            return
        if message.startswith(b"E"):
            status, _, sentence = message[1:].partition(b" ")
            kind: type[S3MountError] = UsageError if int(status) == USAGE_STATUS else Unavailable
            raise kind(sentence.decode())
    raise Unavailable("the mount's process ended before the mount was there; its log may tell why")


def _daemonise(work: Work, explain: Explain, writing: int) -> NoReturn:
    status = 1
    try:
        if os.fork() != 0:
            os._exit(0)
        _leave_the_terminal(writing)
        caller = _Caller(writing)
        caller.say(f"P{os.getpid()}")
        status = _work(work, explain, caller)
    finally:
        os._exit(status)


def _leave_the_terminal(writing: int) -> None:
    os.chdir("/")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, writing)
    os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))


class _Caller:
    """The way back to the process that the user started, until that has heard enough."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, message: str) -> None:
        try:
            os.write(self._fd, message.encode(errors="replace") + b"\n")
        except OSError:
            pass

    def ready(self) -> None:
        """Give the terminal back, and let the caller go."""
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        os.close(nowhere)
        self.say("R")
        os.close(self._fd)
        self._fd = -1


def _work(work: Work, explain: Explain, caller: _Caller) -> int:
    try:
        work(caller.ready)
    except BaseException as error:
        status, sentence = explain(error)
        caller.say(f"E{status} {' '.join(sentence.split())}")
        return status
    return 0

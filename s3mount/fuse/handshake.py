"""The first words between kernel and libfuse, with two more of ours.

Owns: opening the mount through fusermount3, and the INIT exchange.
Must not know: handlers, the file system.

libfuse 3.14 answers the kernel's INIT without FUSE_HANDLE_KILLPRIV_V2, and there is no way to make pyfuse3 ask for it. Without it the
kernel sends a GETXATTR for `security.capability` before every write(2), which cost cp half of its speed (512 MiB: 1.35 s with, 0.58 s
without). So we mount ourselves and stand in between for one exchange:

    kernel --INIT--> device --we--> stand-in (a socket) --> libfuse, which takes it for /dev/fuse
    kernel <-------- device <--we, two fields changed-- stand-in <-- libfuse
    then the device takes the stand-in's place under its number (dup2), and we are gone

With the flag the file system answers for set-id bits itself, which matters little on a mount that is always `nosuid` (see fs/live).
The other field is `max_background`: how many readaheads, writebacks and releases run at once, which root alone could raise afterwards.

Layouts: fuse_in_header (40 bytes) + fuse_init_in, fuse_out_header (16 bytes) + fuse_init_out, in the kernel's include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import array
import os
import select
import shutil
import socket
import struct
import subprocess
from collections.abc import Collection
from pathlib import Path

import trio

from s3mount.errors import Unavailable

HANDLE_KILLPRIV_V2 = 1 << 28
# 12 unless asked for: reads of several files, and their releases, would queue up. Three quarters of it are the kernel's own ratio.
MAX_BACKGROUND = 256
CONGESTION_THRESHOLD = 192

# Labels of SELinux: libfuse hands them to the kernel where root mounts, fusermount3 knows none.
LABELS = ("context=", "fscontext=", "defcontext=", "rootcontext=")

# In INIT: the flags that the kernel offers. In its answer: the flags that are taken, then max_background and congestion_threshold.
_OFFERED = struct.Struct("=52xI")
_TAKEN = struct.Struct("=I")
_TAKEN_AT = 28
_BACKGROUND = struct.Struct("=HH")
_BACKGROUND_AT = 32

# More than any INIT or its answer; and what the kernel demands of a reader's buffer before it hands out any request.
MESSAGE_BYTES = 1 << 20
# The kernel sends INIT when it mounts.
PATIENCE_S = 10.0


def can_shake_hands(options: Collection[str]) -> bool:
    """Whether fusermount3 is there and takes *options*; root gets along without it, and without what this module is for."""
    return shutil.which("fusermount3") is not None and not any(option.startswith(LABELS) for option in options)


class Handshake:
    """A mount that nobody answers yet. Give `path` to libfuse as the mount point, then `finish` while its main loop runs."""

    def __init__(self, mountpoint: Path, options: Collection[str]) -> None:
        """Mount. Raises Unavailable; what fusermount3 has to say about it goes to stderr."""
        self._device, self._keeper = _mounted(mountpoint, options)
        try:
            self._init = _first_request(self._device)
            stand_in, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except BaseException:
            os.close(self._device)
            raise
        self._ours.send(self._init)
        self._number = stand_in.detach()  # libfuse closes it

    @property
    def path(self) -> str:
        """What libfuse takes for a mount point that is mounted already."""
        return f"/dev/fd/{self._number}"

    async def finish(self) -> None:
        """Pass libfuse's answer on, and let it talk to the kernel from here on."""
        await trio.lowlevel.wait_readable(self._ours)
        answer = self._ours.recv(MESSAGE_BYTES)
        os.write(self._device, amended(answer, offered=_OFFERED.unpack_from(self._init)[0]))
        os.set_blocking(self._device, os.get_blocking(self._number))
        os.dup2(self._device, self._number, inheritable=False)
        self.abandon()
        # Whoever waits to read under this number was registered for the socket: asking for the other direction registers the device.
        await trio.lowlevel.wait_writable(self._number)

    def abandon(self) -> None:
        """Close what is ours; idempotent. Unless `finish` came before, the mount answers nothing any more."""
        self._ours.close()
        if self._device >= 0:
            os.close(self._device)
        self._device = -1


def amended(answer: bytes, *, offered: int) -> bytes:
    """libfuse's *answer* to an INIT that *offered* these flags, with what we want besides. An error is passed on as it is."""
    if len(answer) < _BACKGROUND_AT + _BACKGROUND.size:
        return answer
    changed = bytearray(answer)
    (taken,) = _TAKEN.unpack_from(answer, _TAKEN_AT)
    _TAKEN.pack_into(changed, _TAKEN_AT, taken | offered & HANDLE_KILLPRIV_V2)
    _BACKGROUND.pack_into(changed, _BACKGROUND_AT, MAX_BACKGROUND, CONGESTION_THRESHOLD)
    return bytes(changed)


def _mounted(mountpoint: Path, options: Collection[str]) -> tuple[int, socket.socket | None]:
    """The device of a new mount; and, with `auto_unmount`, the socket at whose end fusermount3 takes the mount off again."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    command = ["fusermount3", "-o", ",".join(sorted(options)), "--", str(mountpoint)]
    with theirs:
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    stays = "auto_unmount" in options
    received = _received(ours)
    if received is None or not stays:
        process.wait()
        ours.close()
    if received is None:
        raise Unavailable("the kernel did not accept the mount")
    if stays:
        process.returncode = 0  # it goes when we do; nobody waits for it
    return received, ours if stays else None


def _received(connection: socket.socket) -> int | None:
    """The descriptor that fusermount3 sends; None where it sends none."""
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_LEN(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return array.array("i", data)[0]
    return None


def _first_request(device: int) -> bytes:
    poll = select.poll()
    poll.register(device, select.POLLIN)
    if not poll.poll(PATIENCE_S * 1000):
        raise Unavailable("the kernel does not speak to the new mount")
    return os.read(device, MESSAGE_BYTES)

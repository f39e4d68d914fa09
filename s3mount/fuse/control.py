"""A way to a mount's process beside the kernel: a socket next to its runtime record, for questions and small errands.

Owns: the socket, one line of JSON in, one line of JSON out, who may ask.
Must not know: what is asked, pyfuse3.

Through the kernel one learns nothing of a mount that is just ending, or stands still; this way answers until the last commit is over. The
socket lies in a folder that is its owner's alone, and both sides look whom they speak to: the mount answers its own user and root, and who
asks believes nobody else.

    asker                                     mount
      | -- {"do": "status"} ------------------> |
      | <------- {"done": {...}} -------------- |    or {"failed": "a sentence"}
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from s3mount.errors import S3MountError, Unavailable
from s3mount.fuse import runtime

log = logging.getLogger(__name__)

Answer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

SUFFIX = ".sock"

# A request is one short line: keys and a verb. An answer may list some thousand files.
REQUEST_BYTES = 1024 * 1024
# Whoever connects and says nothing is not waited for. A question is answered at once; an errand takes as long as it takes.
PATIENCE_S = 10.0


class Control:
    """The mount's side. `serve` answers by *verbs* until it is cancelled."""

    def __init__(self, path: Path, verbs: Mapping[str, Answer]) -> None:
        self._path = path
        self._verbs = verbs

    async def serve(self) -> None:
        """Never fails: a mount without it is still a mount."""
        try:
            listening = _listening(self._path)
        except OSError as error:
            log.warning("Nobody will be able to ask this mount anything: %s: %s", self._path, error.strerror)
            return
        try:
            await trio.serve_listeners(self._converse, [trio.SocketListener(trio.socket.from_stdlib_socket(listening))])
        finally:
            self._path.unlink(missing_ok=True)

    async def _converse(self, stream: trio.SocketStream) -> None:
        try:
            if _peer(stream.socket) not in (0, os.getuid()):
                return
            with trio.move_on_after(PATIENCE_S) as patience:
                line = await _line(stream)
            if not patience.cancelled_caught:
                answer = await self._answer(line)
                with trio.move_on_after(PATIENCE_S):
                    await stream.send_all(answer)
        except (trio.BrokenResourceError, OSError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            verb = self._verbs[request["do"]]
        except (ValueError, LookupError, TypeError, RecursionError):
            return _told({"failed": "The mount does not understand that; it may be of another version of s3mount."})
        try:
            return _told({"done": await verb(request)})
        except S3MountError as error:
            return _told({"failed": str(error)})
        except Exception:
            log.exception("A question could not be answered")
            return _told({"failed": "The mount could not answer; its log says why."})


def _told(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def ask(mountpoint: Path, *, owner: int, do: str, patience_s: float | None = PATIENCE_S, **more: Any) -> dict[str, Any] | None:
    """What the mount at *mountpoint* (resolved) of user *owner* answers; None where nobody listens, or it ends. Blocks.

    Raises Unavailable with its sentence where it refuses, or does not answer within *patience_s* seconds (None: however long that takes).
    """
    for folder in runtime.folders(owner):
        try:
            answer = _asked(path_in(folder, mountpoint), owner, {"do": do, **more}, patience_s)
        except TimeoutError:
            raise Unavailable(f"The mount of {mountpoint} does not answer.") from None
        except OSError:
            continue
        if answer is not None:
            return answer
    return None


def _asked(path: Path, owner: int, request: Mapping[str, Any], patience_s: float | None) -> dict[str, Any] | None:
    """The answer; None from somebody whom one does not believe, or who ends just now. Raises OSError, Unavailable."""
    with _connected(path) as channel:
        if _peer(channel) not in (owner, os.getuid(), 0):
            return None
        channel.sendall(json.dumps(request).encode() + b"\n")
        channel.settimeout(patience_s)
        return _heard(_all_of(channel))


def everybody(owner: int) -> list[dict[str, Any]]:
    """The status of every mount of user *owner* that answers. Blocks."""
    found: list[dict[str, Any]] = []
    for folder in runtime.folders(owner):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                answer = _asked(path, owner, {"do": "status"}, PATIENCE_S)
            except (OSError, Unavailable):
                continue
            if answer is not None:
                found.append(answer)
    return found


def path_in(folder: Path, mountpoint: Path) -> Path:
    """Where the socket of *mountpoint* lies in *folder*."""
    return folder / f"{runtime.name_of(mountpoint)}{SUFFIX}"


def _heard(said: bytes) -> dict[str, Any] | None:
    if not said:
        return None
    try:
        answer = json.loads(said)
        done: dict[str, Any] | None = answer.get("done")
    except (ValueError, AttributeError):
        raise Unavailable("The mount's answer makes no sense.") from None
    if done is None:
        raise Unavailable(str(answer.get("failed")))
    return done


async def _line(stream: trio.SocketStream) -> bytes:
    said = b""
    while b"\n" not in said and len(said) < REQUEST_BYTES and (more := await stream.receive_some()):
        said += more
    return said


def _all_of(channel: socket.socket) -> bytes:
    parts = []
    while part := channel.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


# -- sockets ------------------------------------------------------------------------------------
# Their names may have 107 bytes and paths may not: a folder's descriptor stands for the folder.


@contextmanager
def _in_folder(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _listening(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _in_folder(path) as name:
            listening.bind(name)
        path.chmod(0o600)
        listening.listen(16)
    except BaseException:
        listening.close()
        raise
    return listening


@contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(PATIENCE_S)
        with _in_folder(path) as name:
            channel.connect(name)
        yield channel


def _peer(channel: Any) -> int:
    """The user at the other end (SO_PEERCRED: pid, uid, gid)."""
    uid: int = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[1]
    return uid

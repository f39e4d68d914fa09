"""One socket of the front: heads are read, bodies are carried from one to the next without passing through this program.

Owns: buffering what came with a head, splicing, the pace, chunked framing.
Must not know: S3, faults, what is counted.

A body goes socket -> pipe -> socket by splice(2): the bytes stay in the kernel, so that a front without limits costs 0.25 s of CPU per
GiB. With a pace it goes in small steps, each followed by the sleep that it is worth. TLS cannot be spliced and is copied.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Final

from tests.wire.heads import HEAD_END, Head, parse

RECEIVE: Final = 64 * 1024
HEAD_LIMIT: Final = 256 * 1024
# As much as one step of a body may take from a socket; the pipe between is as large where the system allows it.
STEP: Final = 1024 * 1024
# A step of a paced body is worth about this; it is also how far a sleeper may fall behind and catch up.
PACE_STEP_S: Final = 0.003
PACE_SLACK_S: Final = 0.006
F_SETPIPE_SZ: Final = 1031

Count = Callable[[int], None]


class Closed(Exception):
    """The other side is gone, in mid-message or between two."""


class Pace:
    """A token bucket for one connection and direction; *rate* tells bytes per second at the time, 0 for no limit."""

    def __init__(self, rate: Callable[[], float]) -> None:
        self._rate = rate
        self._paid_until = 0.0

    def step(self) -> int:
        rate = self._rate()
        return STEP if not rate else min(STEP, max(4096, int(rate * PACE_STEP_S)))

    def pay(self, count: int) -> None:
        rate = self._rate()
        if not rate:
            return
        now = time.monotonic()
        self._paid_until = max(self._paid_until, now - PACE_SLACK_S) + count / rate
        if self._paid_until > now:
            time.sleep(self._paid_until - now)


class Channel:
    """A connected socket and what was received of it beyond the last head."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.buffer = b""
        if connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def splices(self) -> bool:
        return not isinstance(self.socket, ssl.SSLSocket)

    def head(self) -> Head | None:
        """The next one; None where the other side closed instead."""
        while HEAD_END not in self.buffer:
            if len(self.buffer) > HEAD_LIMIT:
                raise Closed("no end of the head")
            more = self._receive()
            if not more:
                return None
            self.buffer += more
        raw, _, self.buffer = self.buffer.partition(HEAD_END)
        return parse(raw + HEAD_END)

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(RECEIVE)
        except OSError:
            return b""

    def send(self, data: bytes | memoryview) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from None

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """The other side sees ECONNRESET."""
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self.socket.close()

    def is_gone(self) -> bool:
        """Whether the other side closed; nothing is taken away."""
        try:
            return not self.buffer and self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def line(self) -> bytes:
        """Up to and with the next CRLF."""
        while b"\r\n" not in self.buffer:
            more = self._receive()
            if not more:
                raise Closed("in a line")
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line + b"\r\n"

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            more = self._receive()
            if not more:
                raise Closed("in mid-body")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken


class Carrier:
    """Carries bodies for one connection; its pipe lives as long."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        try:
            fcntl.fcntl(self._in, F_SETPIPE_SZ, STEP)
        except OSError:
            pass
        self._copy = memoryview(bytearray(0))

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)

    def carry(self, source: Channel, target: Channel, count: int, pace: Pace, counted: Count) -> None:
        """Exactly *count* bytes. Raises Closed."""
        left = count
        while left > 0 and source.buffer:
            piece, source.buffer = source.buffer[: min(left, pace.step())], source.buffer[min(left, pace.step()) :]
            target.send(piece)
            left -= len(piece)
            counted(len(piece))
            pace.pay(len(piece))
        step = self._splice if source.splices and target.splices else self._copied
        while left > 0:
            moved = step(source, target, min(left, pace.step()))
            if not moved:
                raise Closed("in mid-body")
            left -= moved
            counted(moved)
            pace.pay(moved)

    def carry_rest(self, source: Channel, target: Channel, pace: Pace, counted: Count) -> None:
        """All that comes until *source* closes."""
        try:
            self.carry(source, target, 1 << 62, pace, counted)
        except Closed:
            pass

    def _splice(self, source: Channel, target: Channel, count: int) -> int:
        try:
            taken = left = os.splice(source.socket.fileno(), self._in, count)
            while left:
                left -= os.splice(self._out, target.socket.fileno(), left)
        except OSError as error:
            raise Closed(str(error)) from None
        return taken

    def _copied(self, source: Channel, target: Channel, count: int) -> int:
        if not self._copy:
            self._copy = memoryview(bytearray(STEP))
        try:
            taken = source.socket.recv_into(self._copy[:count])
        except OSError as error:
            raise Closed(str(error)) from None
        target.send(self._copy[:taken])
        return taken

    def carry_chunked(self, source: Channel, target: Channel, pace: Pace, counted: Count) -> None:
        """A body in chunks, trailers and all; its framing goes out as it came."""
        while True:
            line = source.line()
            target.send(line)
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            self.carry(source, target, size, pace, counted)
            target.send(source.exactly(2))
        while line != b"\r\n":
            line = source.line()
            target.send(line)

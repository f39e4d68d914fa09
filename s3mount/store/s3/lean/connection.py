"""One connection to an endpoint: send a request, read the answer's head, receive its body into the caller's buffer.

Owns: the socket, TLS on it, the patience for first byte and stalls, when to wake up.
Must not know: S3, signatures, which requests there are.

The socket is non-blocking and used as it is: `recv_into` until it has no more, then `trio.lowlevel.wait_readable`. No stream object, no
buffer of our own lies between the kernel and the caller's memory; only the few body bytes that came with the head are copied.

What won and what lost (8 MiB ranges, 8 connections; CPU seconds of this process per GiB, tests/bench/bench_lane.py and its kin):

                                                          plain   TLS
    bare loop of recv_into on kept connections             0.21   0.83
    this                                                   0.26   0.86     (aiobotocore on trio there: 2-4 and 12)
    SO_RCVBUF of 4 MiB on top                              0.26   0.83     within the noise, and it stops the kernel's own tuning: lost
    a body that comes in pieces of 4, 16, 64 KiB           1.87, 1.68, 0.87   waking up for each
                                                           0.49, 0.41, 0.44   with SO_RCVLOWAT of 512 KiB: won

Threads that receive large bodies beside the event loop (one for each, or one or two at a time) lost: on two cores, where the kernel, the
reader and pyfuse3 (which replies with the GIL held) want the other one, a mount took 10 % more CPU time and read 10 to 30 % slower, with
TLS too, though the receiving alone became 1.6 times as fast.

SO_RCVLOWAT makes epoll wait until much has come. On loopback, where a server fills the socket at once, it changes nothing; on a wire, where
segments trickle in, it saves three of four wake-ups' cost. It follows the pace of the body (`_Pace`), so that a slow body is still seen to
move, and never asks for more than must still come, or nothing would wake us.

A body goes out as it came in: `send` of what the caller holds, a wait where the socket takes no more. The time for the answer begins when
the other side has taken the last byte (a slow line's buffers hold seconds of it). Who refuses may answer before it has heard all: that
answer counts, and ends the connection.

A connection that was abandoned in the middle (an error, a cancellation) is closed, never used again: `clean` says whether it may be.
"""

from __future__ import annotations

import fcntl
import math
import socket
import ssl
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from s3mount.errors import TimedOut, Unavailable
from s3mount.store.api import Arrived
from s3mount.store.s3.lean.wire import HEAD_BYTES, Chunks, Garbled, Head, find_head, parse_head

# Bytes of the first receive: a head is about 500, so little of the body needs copying.
FIRST_BYTES = 2048
# Bytes. A wire of 90 MB/s brings as much in 6 ms; 2 MiB saved nothing further.
LOWAT_BYTES = 512 * 1024
# Seconds within which as much should have come; a wire that takes longer wakes us for less.
SOON_S = 0.02
# Bytes that OpenSSL may hold of a record it has not wholly: 16 KiB of data, its header and tag.
RECORD_BYTES = 17 * 1024
# Bytes received without a wait, after which others get a turn: about half a millisecond.
TURN_BYTES = 1024 * 1024
# Bytes of a body that go with its head in one packet, and those of one send.
JOINED_BYTES = 64 * 1024
SENT_BYTES = 256 * 1024
# Seconds after which a sender that is held up looks whether there is an answer already.
LISTEN_S = 0.5
# Bytes for one portion of a body of unknown length.
PORTION_BYTES = 64 * 1024
# Seconds: dead peers are found while a connection is idle, and middleboxes do not forget it.
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_PROBES = 30, 10, 3


class Gone(Unavailable):
    """The connection was closed before a byte of the answer came: ask again on another."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for a connection (TLS included), for the answer's first byte, and between two bytes."""

    connect_s: float = 10.0
    first_byte_s: float = 30.0
    stall_s: float = 30.0


class Connection:
    """One request at a time. After `ask`, exactly one of `receive` and `drain`; then, if `clean`, the next request."""

    def __init__(self, channel: socket.socket, patience: Patience) -> None:
        self._channel = channel
        self._secure = isinstance(channel, ssl.SSLSocket)
        self._patience = patience
        self._scope = trio.CancelScope()
        self._pace = _Pace(channel)
        self._early = b""
        self._heard = b""
        self._left: int | None = 0
        self._began = False
        self.asked = False
        self.used = False
        self.idle_since = 0.0

    @property
    def clean(self) -> bool:
        """The last answer was received to its end."""
        return self._left == 0 and not self._early and self.fileno >= 0

    @property
    def fileno(self) -> int:
        """Negative once it is closed."""
        return self._channel.fileno()

    def looks_dead(self) -> bool:
        """The server has closed it, or sent what nobody asked for, while it was idle."""
        try:
            # Of TLS, session tickets may come at any time, and the end is a message as well: only reading tells.
            self._channel.recv(1, 0 if self._secure else socket.MSG_PEEK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Idempotent."""
        self._channel.close()

    # -- the request ----------------------------------------------------------------------

    async def ask(self, request: bytes, body: memoryview | None = None, *, thinking_s: float | None = None) -> Head:
        """Send *request* and *body*, and return the head of the answer (to a HEAD, that is all of it). `asked`: all of it has left.

        *thinking_s* takes the place of the patience for the first byte. Raises Gone where the connection ended before the answer began,
        TimedOut, Garbled, Unavailable.
        """
        again, self.used, self._left, self._began, self.asked = self.used, True, None, False, False
        patience = thinking_s or self._patience.first_byte_s
        self._pace.at_once()
        with trio.CancelScope(deadline=trio.current_time() + self._patience.stall_s) as self._scope:
            try:
                await self._send(request, body)
                self._scope.deadline = trio.current_time() + patience
                return await self._head(bodiless=request.startswith(b"HEAD "))
            except OSError as error:
                kind = Unavailable if self._began else Gone
                raise kind(f"The endpoint closed the connection ({error}).") from error
        if not self.asked:
            raise TimedOut(f"The endpoint took nothing more of a request for {self._patience.stall_s:g} s.")
        raise TimedOut(f"The endpoint did not answer within {patience:g} s{' (on a kept connection)' if again else ''}.")

    async def _send(self, request: bytes, body: memoryview | None) -> None:
        """All of it, or as much as was taken before an answer came."""
        if not body:
            self.asked = await self._sent(memoryview(request))
            return
        first = memoryview(request + bytes(body[:JOINED_BYTES]))
        self.asked = await self._sent(first) and await self._sent(body[JOINED_BYTES:])
        if self.asked and len(body) > JOINED_BYTES:
            await self._taken()

    async def _sent(self, rest: memoryview) -> bool:
        """Send *rest*; False where an answer came before its end."""
        turn = TURN_BYTES
        while rest:
            try:
                count = self._channel.send(rest[:SENT_BYTES])
            except (BlockingIOError, ssl.SSLWantWriteError):
                with trio.move_on_after(LISTEN_S):
                    await trio.lowlevel.wait_writable(self._channel)
                    continue
                if self._hears():
                    return False
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._channel)
            except OSError:
                if self._hears():
                    return False
                raise
            else:
                rest, turn = rest[count:], turn - count
                self._scope.deadline = trio.current_time() + self._patience.stall_s
                if turn <= 0:
                    turn = TURN_BYTES
                    await trio.lowlevel.checkpoint()
        return True

    def _hears(self) -> bool:
        """Whether the answer begins; its first bytes are kept."""
        try:
            self._heard = self._channel.recv(FIRST_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return bool(self._heard)

    async def _taken(self) -> None:
        """Until the other side has the request, or no longer takes it, or answers."""
        self._scope.deadline = math.inf
        queued = self._queued()
        while queued:
            with trio.move_on_after(self._patience.stall_s):
                await trio.lowlevel.wait_readable(self._channel)
                return
            before, queued = queued, self._queued()
            if queued >= before:
                return

    def _queued(self) -> int:
        """Bytes that were sent and not yet taken."""
        count: int = struct.unpack("i", fcntl.ioctl(self._channel, termios.TIOCOUTQ, bytes(4)))[0]
        return count

    async def _head(self, *, bodiless: bool) -> Head:
        received = bytearray()
        portion = bytearray(FIRST_BYTES)
        while True:
            if self._heard:
                received += self._heard
                self._heard = b""
            elif count := await self._some(memoryview(portion)):
                received += portion[:count]
            else:
                raise self._ended()
            self._began = True
            while begin := find_head(received):
                head = parse_head(bytes(received[:begin]), bodiless=bodiless)
                del received[:begin]
                if head.status >= 200:
                    return self._begun(head if self.asked else self._cut(head), bytes(received))
            if len(received) > HEAD_BYTES:
                raise Garbled("The endpoint's answer does not begin.")

    def _cut(self, head: Head) -> Head:
        """*head*, which came before all was sent: what the other side makes of the rest of the request is not to be known."""
        self.asked = head.status < 300
        return replace(head, keep=False)

    def _ended(self) -> Unavailable:
        if self._began:
            return Unavailable("The endpoint closed the connection in the middle of its answer.")
        return Gone("The endpoint closed the connection without an answer.")

    def _begun(self, head: Head, early: bytes) -> Head:
        self._early, self._left = early, head.length
        if head.length is not None and len(early) > head.length:
            self._left = None
            raise Garbled("The endpoint sent more than it said.")
        return head

    # -- the body -------------------------------------------------------------------------

    async def receive(self, head: Head, buffer: memoryview, arrived: Arrived | None = None) -> None:
        """Fill *buffer* with the body, which must be just as long. *arrived* hears how many bytes are there.

        Raises Unavailable for a body that ends early or goes on behind *buffer*, TimedOut for one that stalls.
        """
        if head.length is None:
            return await self._receive_unmeasured(head, buffer, arrived)
        if head.length != len(buffer):
            raise Garbled(f"The endpoint sends {head.length} bytes where {len(buffer)} were asked for.")
        done = len(self._early)
        buffer[:done] = self._early
        self._early = b""
        with self._stalling() as self._scope:
            await self._fill(buffer, done, arrived)
            return
        raise self._stalled()

    async def _fill(self, buffer: memoryview, done: int, arrived: Arrived | None) -> None:
        size, turn = len(buffer), done + TURN_BYTES
        receive = self._channel.recv_into
        while done < size:
            try:
                count = receive(buffer[done:])
            except (BlockingIOError, ssl.SSLWantReadError):
                if arrived is not None:
                    arrived(done)
                self._scope.deadline = trio.current_time() + self._patience.stall_s
                await self._pace.wait(size - done)
                continue
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._channel)
                continue
            except OSError as error:
                raise Unavailable(f"The connection broke in the middle of a body ({error}).") from error
            if not count:
                raise Unavailable(f"A body ended after {done} of {size} bytes.")
            done += count
            if done >= turn:
                turn = done + TURN_BYTES
                await trio.lowlevel.checkpoint()
        self._left = 0
        if arrived is not None:
            arrived(done)

    async def drain(self, head: Head, limit: int) -> bytes:
        """The whole body, at most *limit* bytes. Raises as `receive`."""
        if head.length is not None:
            if head.length > limit:
                raise Garbled(f"The endpoint's answer has {head.length} bytes; {limit} were expected at most.")
            body = bytearray(head.length)
            await self.receive(head, memoryview(body))
            return bytes(body)
        body = bytearray()

        def keep(portion: bytes) -> None:
            if len(body) + len(portion) > limit:
                raise Garbled(f"The endpoint's answer has more than {limit} bytes.")
            body.extend(portion)

        await self._pour(head, keep)
        return bytes(body)

    async def _receive_unmeasured(self, head: Head, buffer: memoryview, arrived: Arrived | None) -> None:
        done = 0

        def place(portion: bytes) -> None:
            nonlocal done
            if done + len(portion) > len(buffer):
                raise Garbled(f"The endpoint sends more than the {len(buffer)} bytes that were asked for.")
            buffer[done : done + len(portion)] = portion
            done += len(portion)

        await self._pour(head, place)
        if done < len(buffer):
            raise Unavailable(f"A body ended after {done} of {len(buffer)} bytes.")
        if arrived is not None:
            arrived(done)

    async def _pour(self, head: Head, sink: Callable[[bytes], None]) -> None:
        """Give the body to *sink*, portion by portion, as chunks or as all that comes until the end."""
        chunks = Chunks() if head.chunked else None
        portion, self._early = self._early, b""
        with self._stalling() as self._scope:
            while True:
                sink(portion if chunks is None else chunks.feed(portion))
                if chunks is not None and chunks.done:
                    self._left = 0
                    self._early = chunks.rest
                    return
                portion = await self._portion()
                if not portion and chunks is not None:
                    raise Unavailable("The endpoint closed the connection in the middle of its answer.")
                if not portion:
                    return
        raise self._stalled()

    async def _portion(self) -> bytes:
        buffer = bytearray(PORTION_BYTES)
        try:
            count = await self._some(memoryview(buffer))
        except OSError as error:
            raise Unavailable(f"The connection broke in the middle of a body ({error}).") from error
        return bytes(buffer[:count])

    # -- waiting --------------------------------------------------------------------------

    async def _some(self, buffer: memoryview) -> int:
        """What is there, at least a byte; 0 at the end of the connection."""
        while True:
            try:
                return self._channel.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(self._channel)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._channel)

    def _stalling(self) -> trio.CancelScope:
        return trio.CancelScope(deadline=trio.current_time() + self._patience.stall_s)

    def _stalled(self) -> TimedOut:
        return TimedOut(f"The endpoint sent nothing more of a body for {self._patience.stall_s:g} s.")


class _Pace:
    """How much must have come before a body's receiver wakes up.

    P1  never more than must still come, less what OpenSSL may hold already
    P2  what does not come soon is not waited for: then any byte wakes, and the next time less is enough
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._slack = RECORD_BYTES if isinstance(channel, ssl.SSLSocket) else 0
        self._set = 1
        self._want = PORTION_BYTES

    def at_once(self) -> None:
        """Wake up for any byte."""
        self._apply(1)

    async def wait(self, left: int) -> None:
        """Until some of the *left* bytes that must still come are there."""
        want = min(self._want, left - self._slack)
        if want > 1:
            self._apply(want)
            with trio.move_on_after(SOON_S):
                await trio.lowlevel.wait_readable(self._channel)
                self._want = min(self._want * 2, LOWAT_BYTES)
                return
            self._want = self._want // 4
        self._apply(1)
        await trio.lowlevel.wait_readable(self._channel)
        self._want = max(self._want, 2)

    def _apply(self, lowat: int) -> None:
        if lowat != self._set:
            self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, lowat)
            self._set = lowat


async def connect(host: str, port: int, patience: Patience, tls: ssl.SSLContext | None) -> Connection:
    """A connection to the endpoint, by whichever of its addresses answers first (RFC 8305).

    Raises OSError (ssl.SSLError among them), TimedOut.
    """
    with trio.move_on_after(patience.connect_s):
        stream = await trio.open_tcp_stream(host, port)
        channel = socket.socket(fileno=stream.socket.detach())
        try:
            channel.setblocking(False)
            _tune(channel)
            return Connection(channel if tls is None else await _secured(channel, tls, host), patience)
        except BaseException:
            channel.close()
            raise
    raise TimedOut(f"{host}:{port} cannot be reached: no connection within {patience.connect_s:g} s.")


def _tune(channel: socket.socket) -> None:
    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


async def _secured(channel: socket.socket, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """*channel* with TLS on it; the certificate is checked against *host*."""
    secure = tls.wrap_socket(channel, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secure.do_handshake()
                return secure
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secure)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secure)
    except BaseException:
        secure.close()
        raise

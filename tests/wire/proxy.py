"""The process behind `tests.wire.front.Front`: accepts, passes on, delays, counts, and spoils what the rules say.

Owns: the listener, one thread per connection, the order of things within a request, the control lines on standard input.
Must not know: what a test wants.

One client connection has one connection to the server, opened with its first request; heads go through untouched (Host too, hence
signatures stay valid) unless a fault rewrites them. Within a connection:

    IDLE --head--> PASSING --answered--> IDLE        any reset, close or fault that cuts the message: END, both connections closed

1. The request goes to the server at once; the answer's first byte goes to the client no earlier than `latency_s` after the request's
   last one. So the server works within that time, as a distant one would. `100 Continue` is not delayed: latency is the time S3 takes.
2. Each direction of each connection has its own pace of `rate` bytes per second.
3. A fault is chosen when the head is known. A fault that cuts the message ends the connection, as it would on a real wire.

Control: one JSON object per line on standard input, one per line back. End of input ends the process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.wire.channel import Carrier, Channel, Closed, Pace
from tests.wire.faults import Rule, Rules, document
from tests.wire.heads import (
    CHUNKED,
    UNTIL_CLOSED,
    Head,
    Request,
    answer_length,
    keeps_alive,
    request_length,
    request_of,
    status_of,
    with_field,
)
from tests.wire.ledger import Entry, Ledger

BACKLOG = 1024
# A flipped bit, a lost reply: the answer is read whole, here, so it should be no giant.
HELD_LIMIT = 1 << 30
EXTRA_LENGTH = 1000


@dataclass
class Settings:
    """What may change at any time. `latency_s` in seconds, `rate` in bytes per second and connection and direction (0: no limit)."""

    latency_s: float = 0.0
    rate: float = 0.0


@dataclass
class Shared:
    """What all connections look at."""

    upstream: tuple[str, int]
    settings: Settings
    ledger: Ledger = field(default_factory=Ledger)
    rules: Rules = field(default_factory=Rules)
    lock: threading.Lock = field(default_factory=threading.Lock)
    open: dict[int, Connection] = field(default_factory=dict)
    accepted: int = 0

    def choose(self, request: Request) -> Rule | None:
        with self.lock:
            return self.rules.choose(request)


class Cut(Exception):
    """The connection ends here; *reset* says how the client sees it."""

    def __init__(self, *, reset: bool) -> None:
        self.reset = reset


class Connection:
    """One client, until it or a fault ends it."""

    def __init__(self, shared: Shared, accepted: socket.socket, number: int) -> None:
        self._shared = shared
        self._accepted = accepted
        self._number = number
        self._client: Channel | None = None
        self._server: Channel | None = None
        self._up = Pace(lambda: shared.settings.rate)
        self._down = Pace(lambda: shared.settings.rate)

    def run(self, tls: ssl.SSLContext | None) -> None:
        carrier = Carrier()
        try:
            connected = tls.wrap_socket(self._accepted, server_side=True) if tls else self._accepted
            self._client = Channel(connected)
            self._requests(self._client, carrier)
        except Cut as cut:
            if self._client and cut.reset:
                self._client.reset()
        except (Closed, OSError, ValueError):
            pass
        finally:
            self._shared.open.pop(self._number, None)
            for channel in (self._client, self._server):
                if channel:
                    channel.close()
            self._accepted.close()
            carrier.close()

    def abort(self) -> None:
        """From another thread: both sides see the end, the connection's own thread ends at its next step."""
        for channel in (self._client, self._server):
            if channel:
                try:
                    channel.socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _requests(self, client: Channel, carrier: Carrier) -> None:
        while head := client.head():
            request = request_of(head)
            entry = self._shared.ledger.begin(request, self._number)
            rule = self._shared.choose(request)
            entry.fault = rule.code if rule and rule.fault == "answer" else rule.fault if rule else ""
            exchange = Exchange(self._shared, client, carrier, entry, rule, self._up, self._down)
            try:
                alive = exchange.run(head, self._connected)
            finally:
                entry.ledger.end(entry)
            if not alive:
                return

    def _connected(self) -> Channel:
        """The connection to the server; a new one where it closed the last one while it was idle."""
        if self._server and self._server.is_gone():
            self._server.close()
            self._server = None
        if self._server is None:
            self._server = Channel(socket.create_connection(self._shared.upstream))
        return self._server


class Exchange:
    """One request and its answer."""

    def __init__(self, shared: Shared, client: Channel, carrier: Carrier, entry: Entry, rule: Rule | None, up: Pace, down: Pace) -> None:
        self._shared = shared
        self._client = client
        self._carrier = carrier
        self._entry = entry
        self._rule = rule
        self._fault = rule.fault if rule else ""
        self._up = up
        self._down = down

    def run(self, head: Head, connect: Callable[[], Channel]) -> bool:
        """Whether the connection may go on."""
        if self._fault == "lost_request":
            raise Cut(reset=True)
        if self._rule and self._fault == "answer":
            return self._answer_ourselves(head, self._rule)
        if self._fault == "ignore_range":
            head = with_field(head, b"range", None)
        server = connect()
        answer, alive = self._ask(head, server)
        self._wait(self._entry.asked + self._shared.settings.latency_s)
        self._entry.first = time.monotonic()
        self._entry.status = status_of(answer)
        self._reply(answer, server)
        return alive and keeps_alive(head) and keeps_alive(answer) and answer_length(answer, self._entry.request.method) != UNTIL_CLOSED

    # -- the request ----------------------------------------------------------------------

    def _received(self, count: int) -> None:
        self._entry.received += count

    def _sent(self, count: int) -> None:
        self._entry.sent += count

    def _answer_ourselves(self, head: Head, rule: Rule) -> bool:
        """What was promised to be sent is swallowed; after an Expect it does not come, and the connection cannot be used again."""
        length, expects = request_length(head), head.has(b"expect", b"100-continue")
        if length == CHUNKED or expects:
            alive = False
        else:
            alive = keeps_alive(head)
            self._swallow(length)
        self._entry.asked = time.monotonic()
        self._wait(self._entry.asked + self._shared.settings.latency_s)
        self._entry.first = time.monotonic()
        self._entry.status = rule.status
        raw = document(rule, self._entry.request)
        self._client.send(raw if alive else raw.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        if not alive:
            raise Cut(reset=False)
        return True

    def _swallow(self, left: int) -> None:
        while left:
            taken = len(self._client.exactly(min(left, 65536)))
            self._received(taken)
            self._up.pay(taken)
            left -= taken

    def _ask(self, head: Head, server: Channel) -> tuple[Head, bool]:
        """The answer's head, and whether the request was sent whole."""
        alive = True
        try:
            server.send(head.raw)
            length = request_length(head)
            if length and head.has(b"expect", b"100-continue"):
                refused = self._await_continue(server)
                if refused:
                    return refused, False
            self._send_body(server, length)
        except Closed:
            if self._client.is_gone():
                raise
            alive = False  # the server answered and closed before it had everything
        self._entry.asked = time.monotonic()
        while answer := server.head():
            if status_of(answer) >= 200:
                return answer, alive
            self._client.send(answer.raw)
        raise Cut(reset=True)

    def _await_continue(self, server: Channel) -> Head | None:
        """Pass the server's go-ahead on, unless the client goes ahead by itself; the answer that came instead, if one did."""
        if self._client.buffer:
            return None
        poll = select.poll()
        poll.register(self._client.socket, select.POLLIN)
        poll.register(server.socket, select.POLLIN)
        if server.buffer or any(number == server.socket.fileno() for number, _ in poll.poll()):
            answer = server.head()
            if answer is None:
                raise Cut(reset=True)
            if status_of(answer) >= 200:
                return answer
            self._client.send(answer.raw)
        return None

    def _send_body(self, server: Channel, length: int) -> None:
        if length == CHUNKED:
            self._carrier.carry_chunked(self._client, server, self._up, self._received)
        elif self._rule and self._fault == "reset_upload":
            self._carrier.carry(self._client, server, int(length * self._rule.at), self._up, self._received)
            raise Cut(reset=True)
        elif length:
            self._carrier.carry(self._client, server, length, self._up, self._received)

    # -- the answer -----------------------------------------------------------------------

    def _wait(self, until: float) -> None:
        """Sleep; Closed as soon as the client hangs up."""
        left = until - time.monotonic()
        if left <= 0:
            return
        if left < 0.2:
            time.sleep(left)
            return
        poll = select.poll()
        poll.register(self._client.socket, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        if poll.poll(left * 1000):
            raise Closed("the client hung up")

    def _hold(self, seconds: float) -> None:
        self._wait(time.monotonic() + seconds)

    def _reply(self, answer: Head, server: Channel) -> None:
        length = answer_length(answer, self._entry.request.method)
        rule = self._rule
        if rule is None or self._fault in ("ignore_range", "reset_upload"):
            self._client.send(answer.raw)
            self._send_rest(server, length)
            return
        match self._fault:
            case "lost_reply":
                self._held(server, length)
                raise Cut(reset=True)
            case "silence":
                self._hold(rule.seconds)
                raise Cut(reset=True)
            case "late":
                self._hold(rule.seconds)
                self._client.send(answer.raw)
                self._send_rest(server, length)
            case _:
                self._spoil(rule, answer, server, length)

    def _send_rest(self, server: Channel, length: int) -> None:
        if length == CHUNKED:
            self._carrier.carry_chunked(server, self._client, self._down, self._sent)
        elif length == UNTIL_CLOSED:
            self._carrier.carry_rest(server, self._client, self._down, self._sent)
        else:
            self._carrier.carry(server, self._client, length, self._down, self._sent)

    def _held(self, server: Channel, length: int) -> bytes:
        """The body as it came, chunks and all, kept here instead of sent."""
        if length == CHUNKED:
            raw = bytearray()
            while True:
                line = server.line()
                raw += line
                size = int(line.split(b";")[0], 16)
                raw += server.exactly(size + 2)
                if not size:
                    return bytes(raw)
        return server.exactly(min(length, HELD_LIMIT)) if length > 0 else b""

    def _spoil(self, rule: Rule, answer: Head, server: Channel, length: int) -> None:
        """The faults that are in the body. One without a body is cut after its head, for those that cut."""
        if self._fault == "flip":
            self._flip(answer, server, length)
            return
        if self._fault in ("short_length", "long_length") and length >= 0:
            said = int(length * rule.at) if self._fault == "short_length" else length + EXTRA_LENGTH
            answer = with_field(answer, b"content-length", b"%d" % said)
        self._client.send(answer.raw)
        if length in (CHUNKED, UNTIL_CLOSED):
            whole = self._held(server, length)
            self._client.send(whole[: int(len(whole) * rule.at)])
        else:
            part = 1.0 if self._fault == "long_length" else rule.at
            self._carrier.carry(server, self._client, int(length * part), self._down, self._sent)
        if self._fault == "stall":
            self._hold(rule.seconds)
        raise Cut(reset=self._fault in ("reset", "stall"))

    def _flip(self, answer: Head, server: Channel, length: int) -> None:
        whole = bytearray(self._held(server, length))
        if whole and length > 0:
            whole[len(whole) // 2] ^= 0x10
        self._client.send(answer.raw + whole)
        self._sent(len(whole))


# -- the process --------------------------------------------------------------------------------


class Listener:
    """Accepts on one port for its life; closed for a while, it comes back on the same."""

    def __init__(self, shared: Shared, port: int, tls: ssl.SSLContext | None) -> None:
        self._shared = shared
        self._tls = tls
        self._socket: socket.socket | None = None
        self.port = port
        self.open()

    def open(self) -> None:
        if self._socket is None:
            self._socket = socket.create_server(("127.0.0.1", self.port), backlog=BACKLOG)
            self.port = int(self._socket.getsockname()[1])
            threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def close(self) -> None:
        """Nobody listens any more, and every connection breaks."""
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None
        self.drop()

    def drop(self) -> None:
        for connection in list(self._shared.open.values()):
            connection.abort()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            self._shared.accepted += 1
            connection = Connection(self._shared, accepted, self._shared.accepted)
            self._shared.open[self._shared.accepted] = connection
            threading.Thread(target=connection.run, args=(self._tls,), daemon=True).start()


class Control:
    """The commands, by name; each returns what goes back."""

    def __init__(self, shared: Shared, listener: Listener) -> None:
        self._shared = shared
        self._listener = listener

    def obey(self, command: dict[str, Any]) -> Any:
        return getattr(self, f"do_{command.pop('do')}")(**command)

    def do_set(self, **settings: float) -> None:
        self._shared.settings = dataclasses.replace(self._shared.settings, **settings)

    def do_rules(self, rules: list[dict[str, Any]]) -> None:
        with self._shared.lock:
            self._shared.rules = Rules([Rule(**rule) for rule in rules])

    def do_counts(self) -> dict[str, Any]:
        return self._shared.ledger.counts() | {"connections": {"accepted": self._shared.accepted, "open": len(self._shared.open)}}

    def do_entries(self) -> list[dict[str, Any]]:
        return self._shared.ledger.entries()

    def do_reset(self) -> None:
        self._shared.ledger = Ledger()

    def do_away(self) -> None:
        self._listener.close()

    def do_back(self) -> None:
        self._listener.open()

    def do_drop(self) -> None:
        self._listener.drop()


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--rate", type=float, default=0.0, metavar="BYTES")
    parser.add_argument("--tls-cert", default="")
    parser.add_argument("--tls-key", default="")
    given = parser.parse_args()
    # Threads hold the lock for microseconds; whoever waits for it should not wait for the default of 5 ms.
    sys.setswitchinterval(0.0005)
    host, _, port = given.upstream.rpartition(":")
    shared = Shared((host, int(port)), Settings(given.latency, given.rate))
    listener = Listener(shared, given.port, tls_context(given.tls_cert, given.tls_key))
    control = Control(shared, listener)
    say({"port": listener.port})
    for line in sys.stdin:
        try:
            say({"done": control.obey(json.loads(line))})
        except Exception as error:
            say({"failed": f"{type(error).__name__}: {error}"})
    os._exit(0)


def say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Several processes that serve one address and one folder.

Owns: forking them, starting anew what died, passing signals on, the first word to whoever started us.
Must not know: what a worker does.

Each worker has a listening socket of its own on the same port (SO_REUSEPORT): the kernel spreads connections, and a worker that ends takes
only its own with it. The parent opens no engine, starts no thread and runs no loop, so forking is safe at any time; it keeps the port with
a socket that is bound and does not listen. A worker that finds its parent gone (the end of a pipe) drains and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable
from typing import NoReturn

from s3mount.engine.engine import Engine
from s3mount.errors import Unavailable
from s3mount.server.figures import Board
from s3mount.server.settings import Address, Settings
from s3mount.server.worker import Worker, bind, tls_context

log = logging.getLogger("s3mount.server")

Ready = Callable[[Address], None]
Explain = Callable[[BaseException], str]

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

# A worker that died this soon after its start is not started again at once.
SHORT_LIFE_SECONDS = 1.0

MESSAGE_BYTES = 64 * 1024


def serve(settings: Settings, open_engine: Callable[[], Engine], *, ready: Ready, explain: Explain) -> None:
    """Serve until SIGTERM or SIGINT; *ready* is told the address once every worker accepts.

    *explain* puts what a worker died of at its start into a sentence. Raises UsageError, StoreErrors, OSErrors.
    """
    tls = tls_context(settings)
    bound = bind(settings.listen, silence_s=settings.limits_silence)
    host, port = bound.getsockname()[:2]
    address = Address(host, port)
    board = Board(settings.workers)
    if settings.workers == 1:
        asyncio.run(Worker(settings, open_engine, board, 0).run(bound, tls, lambda: ready(address)))
    else:
        Workers(settings, open_engine, board, address, tls, explain).run(lambda: ready(address))
        bound.close()


class Workers:
    """`settings.workers` processes on *address*."""

    def __init__(
        self,
        settings: Settings,
        open_engine: Callable[[], Engine],
        board: Board,
        address: Address,
        tls: ssl.SSLContext | None,
        explain: Explain,
    ) -> None:
        self._settings = settings
        self._open_engine = open_engine
        self._board = board
        self._address = address
        self._tls = tls
        self._explain = explain
        self._alive, self._alive_end = os.pipe()
        self._numbers: dict[int, int] = {}
        self._started: dict[int, float] = {}

    def run(self, ready: Callable[[], None]) -> None:
        """Until told to end and all have ended. Raises Unavailable where one does not start at all."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            for number in range(self._settings.workers):
                self._start(number)
            ready()
            self._look_after()
        finally:
            self._end_all()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _look_after(self) -> None:
        while signal.sigwait(SIGNALS) == signal.SIGCHLD:
            for pid, status in self._ended():
                number = self._numbers.pop(pid)
                log.warning("Worker %d ended (%s); another is started.", number, _fate(status))
                if time.monotonic() - self._started[number] < SHORT_LIFE_SECONDS:
                    time.sleep(SHORT_LIFE_SECONDS)
                with contextlib.suppress(Unavailable):
                    self._start(number)
            if not self._numbers:
                raise Unavailable("No worker is left.")

    def _ended(self) -> list[tuple[int, int]]:
        ended = []
        while self._numbers and (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(found)
        return ended

    def _end_all(self) -> None:
        for pid in self._numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pid in list(self._numbers):
            os.waitpid(pid, 0)
        self._numbers.clear()
        for fd in (self._alive, self._alive_end):
            os.close(fd)

    def _start(self, number: int) -> None:
        """Fork worker *number*, and wait until it accepts. Raises Unavailable with its sentence."""
        reading, writing = os.pipe()
        self._started[number] = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._work(number, writing)
        os.close(writing)
        self._numbers[pid] = number
        with open(reading, "rb") as pipe:
            word = pipe.read(MESSAGE_BYTES)
        if word != b"R":
            os.waitpid(pid, 0)
            del self._numbers[pid]
            raise Unavailable(word.decode(errors="replace")[1:] or "A worker ended before it began.")

    def _work(self, number: int, writing: int) -> NoReturn:
        status = 1
        try:
            os.close(self._alive_end)
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            bound = bind(self._address, silence_s=self._settings.limits_silence)
            worker = Worker(self._settings, self._open_engine, self._board, number)
            asyncio.run(worker.run(bound, self._tls, lambda: _say(writing, b"R"), self._alive))
            status = 0
        except BaseException as error:
            log.debug("A worker ended.", exc_info=True)
            with contextlib.suppress(OSError):
                _say(writing, b"E" + self._explain(error).encode())
        finally:
            logging.shutdown()
            os._exit(status)


def _say(writing: int, word: bytes) -> None:
    os.write(writing, word)
    os.close(writing)


def _fate(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"status {code}" if code >= 0 else signal.Signals(-code).name

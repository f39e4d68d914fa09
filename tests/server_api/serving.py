"""A real server on a port of the system's choice, in a thread of the test, and boto3 clients of it.

Owns: `Served`: starting, stopping, clients. Asserts nothing.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from pathlib import Path
from typing import Any

import boto3
from aiohttp import web
from botocore.config import Config

from s3mount.engine.engine import Engine
from s3mount.server.access import Keyring
from s3mount.server.app import make_front

ACCESS_KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


async def _end_tasks() -> None:
    """What aiohttp still does for connections that ended: as asyncio.run does it."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


# For whatever a server does soon; a busy machine takes its time.
PATIENCE_S = 60.0


class Served:
    """The S3 API over the folder, until `stop`."""

    def __init__(self, folder: Path, keyring: Keyring | None = None, **options: Any) -> None:
        self.engine = Engine.open(folder)
        self.port = 0
        self._options: dict[str, Any] = {"keyring": keyring, **options}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._clients: list[Any] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S), "the server did not start"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def start() -> web.ServerRunner:
            runner = web.ServerRunner(make_front(self.engine, lingering_time=PATIENCE_S, **self._options), shutdown_timeout=1.0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            return runner

        runner = self._loop.run_until_complete(start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.run_until_complete(_end_tasks())
        self._loop.close()

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self.engine.close()

    def raw(self, request: bytes, *, whole: bool = True) -> bytes:
        """What comes back on a connection of its own, to its end (*whole*) or with the first headers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall(request)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
                if not whole and b"\r\n\r\n" in answer:
                    break
            return answer

    def abandon(self, request: bytes) -> None:
        """Send it and hang up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall(request)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of a plain request; underscores in header names become dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, *, access_key: str = ACCESS_KEY, secret: str = SECRET, **settings: Any) -> Any:
        """boto3, signed by version 4 and in path style unless *settings* say otherwise."""
        config: dict[str, Any] = {
            "signature_version": "s3v4",
            "s3": {"addressing_style": "path"},
            "retries": {"max_attempts": 1},
            **settings,
        }
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=Config(**config),
        )
        self._clients.append(client)
        return client

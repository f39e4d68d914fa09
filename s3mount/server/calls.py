"""One request under way: what every handler gets, and what it gives back.

Owns: `Service` (what all requests share), `Call`, `Reply`; the way to the engine's threads.
Must not know: which handler does what.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

from aiohttp import web

from s3mount.engine.engine import Engine
from s3mount.engine.reader import Reader
from s3mount.engine.values import BucketInfo
from s3mount.model import ByteRange, Key, KiB, MiB
from s3mount.server.access import Caller, Keyring
from s3mount.server.lanes import Room
from s3mount.server.s3errors import S3Error, invalid_argument
from s3mount.server.settling import Settler
from s3mount.server.wire import S3Request

P = ParamSpec("P")
T = TypeVar("T")

# Commits that wait for the same sync sit in threads: as many as may share one.
THREADS = 64
# Bodies are hashed and written by few threads, that take turns: the processors are the limit, and the disk. How far all bodies together may
# be ahead of that.
BODY_THREADS = max(4, 2 * (os.cpu_count() or 1))
WAITING_BYTES = 32 * MiB
# The largest number that S3 takes for one.
WHOLE = (1 << 31) - 1
# One owner owns everything; S3's form of an id.
OWNER = "5d3c0000000000000000000000000000000000000000000000000000736d6e74"
REGION = "us-east-1"
# A client that sends nothing for so long is given up, seconds; AWS waits about 20.
BODY_SECONDS = 60.0
# Up to here a body is held in memory, hashed and committed in one step.
SMALL = 256 * KiB
# Up to here it lies in the log record. To make, sync and name a file of its own takes a millisecond of processor (measured with 30 KB),
# several times what the log takes for as many bytes, and a later compaction for moving them once.
LOGGED = 64 * KiB

# What is said about a request to whoever wraps the application: its id (set by the wrapper, else made here), who asked, bytes received, and
# bytes of a long answer sent so far.
REQUEST_ID = web.RequestKey("request_id", str)
KEY_ID = web.RequestKey("key_id", str)
BYTES_IN = web.RequestKey("bytes_in", int)
BYTES_OUT = web.RequestKey("bytes_out", int)

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Service:
    """What all requests share. `keys` None: authentication is off. *hosts*: names of this server that may have been signed (a proxy's);
    *bases*: names under which buckets are sub-domains. Times are seconds."""

    engine: Engine
    keys: Keyring | None = None
    hosts: Sequence[str] = ()
    bases: Sequence[str] = ()
    region: str = REGION
    rebuild: Callable[[], bool] | None = None
    body_seconds: float = BODY_SECONDS
    now: Callable[[], float] = time.time
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "s3"))
    body_threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(BODY_THREADS, "s3-body"))
    room: Room = field(default_factory=lambda: Room(WAITING_BYTES))
    settler: Settler = field(init=False)

    def __post_init__(self) -> None:
        self.settler = Settler(self.engine, self.threads)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """*function* in a thread. It ends even where the caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Waits for what is under way."""
        self.body_threads.shutdown()
        self.threads.shutdown()


class Source(Protocol):
    async def readany(self) -> bytes: ...


@dataclass(slots=True)
class Call:
    """One request. `id` is what x-amz-request-id says; `received` counts the body's bytes, framing included. `source`: where
    the body comes from, if not straight from the connection."""

    s3: S3Request
    web: web.BaseRequest
    service: Service
    caller: Caller
    id: str
    source: Source | None = None
    continued: bool = False
    received: int = 0
    _place: BucketInfo | None = None

    @property
    def engine(self) -> Engine:
        return self.service.engine

    @property
    def bucket(self) -> str:
        return self.s3.bucket

    @property
    def key(self) -> Key:
        return Key(self.s3.key)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.service.run(function, *args, **kwargs)

    async def change(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A durable change of a few rows (`Settler`)."""
        return await self.service.settler.change(function, *args, **kwargs)

    def place(self) -> BucketInfo:
        """The bucket, as it was when this request first asked. Raises NoSuchBucket."""
        if self._place is None:
            self._place = self.engine.require_bucket(self.bucket)
        return self._place

    @property
    def expects(self) -> bool:
        """Whether the client waits for a word before it sends its body."""
        return (self.s3.header("expect") or "").lower() == "100-continue"

    @property
    def version_id(self) -> str | None:
        """Raises InvalidArgument for an empty one."""
        found = self.s3.param("versionId")
        if found == "":
            sentence = "Version id cannot be the empty string"
            raise S3Error("InvalidArgument", sentence, ArgumentName="versionId", ArgumentValue="")
        return found

    def number(self, name: str, default: int, *, least: int = 0, most: int = WHOLE) -> int:
        """A query parameter that is a number. Raises InvalidArgument."""
        text = self.s3.param(name)
        if text is None or text == "":
            return default
        if not text.removeprefix("-").isdigit() or not text.isascii() or len(text) > 18 or int(text) > WHOLE:
            raise no_number(name, text)
        if not least <= int(text) <= most:
            raise _out_of_bounds(name, text, least, most)
        return int(text)


def no_number(name: str, text: str) -> S3Error:
    return invalid_argument(f"Provided {name} not an integer or within integer range", name, text[:64])


def _out_of_bounds(name: str, text: str, least: int, most: int) -> S3Error:
    """S3 has other names for them here."""
    if name == "partNumber":
        return invalid_argument(f"Part number must be an integer between {least} and {most}, inclusive", name, text)
    first, *rest = name.split("-")
    camel = first + "".join(part.title() for part in rest)
    return invalid_argument(f"Argument {camel} must be an integer between {least} and {most}", camel, text)


@dataclass(slots=True)
class Reply:
    """An answer; with *reader*, its body is those bytes of the object (*span* None: all), and the reader is closed behind it."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    reader: Reader | None = None
    span: ByteRange | None = None


def xml(body: bytes, *headers: tuple[str, str]) -> Reply:
    return Reply(200, [("Content-Type", "application/xml"), *headers], body)

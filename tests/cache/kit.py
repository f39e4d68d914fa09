"""A remote store for the tests of the caches: a MemoryStore behind a line with latency and bandwidth, every request counted.

Runs in trio's virtual time: `MockClock(autojump_threshold=0)` makes a gigabyte over a slow line take milliseconds, and always the same
seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from s3mount.errors import StoreError
from s3mount.model import ETag, Key, KiB, MiB, ObjectInfo
from s3mount.store.api import Pin
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op, Wrapper

T = TypeVar("T")

LATENCY = 0.030
BANDWIDTH = 90e6
# How often a line tells of bytes that have come.
STEP = 256 * KiB


@dataclass(frozen=True, slots=True)
class Get:
    """One ranged GET that was sent."""

    key: Key
    start: int
    stop: int
    at: float


class Remote(Wrapper):
    """*inner* behind a line: *latency* seconds to the first byte, *bandwidth* bytes a second for each request; `gets` are the GETs.

    `shared`: bytes a second that all requests share. `hollow`: no bytes are moved, for tests that look at requests and seconds alone.
    """

    def __init__(self, inner: MemoryStore, *, latency: float = LATENCY, bandwidth: float = BANDWIDTH) -> None:
        super().__init__(inner)
        self.latency = latency
        self.bandwidth = bandwidth
        self.gets: list[Get] = []
        self.counts: Counter[str] = Counter()
        self.hollow = False
        self.shared = float("inf")
        self.running = 0
        self.most_running = 0
        self.broken: Callable[[Get], StoreError | None] = lambda get: None

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        self.counts[op.verb] += 1
        await trio.sleep(self.latency)
        return await call()

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        if known is None:
            known = await self.around(Op("head", key), lambda: self.inner.head(key))
        return RemotePin(self, await self.inner.pin(key, known=known))

    @property
    def bytes_sent(self) -> int:
        return sum(get.stop - get.start for get in self.gets)


class RemotePin:
    def __init__(self, remote: Remote, inner: Pin) -> None:
        self.info = inner.info
        self._remote = remote
        self._inner = inner

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        return False

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        return None

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Callable[[int], None] | None = None) -> None:
        remote = self._remote
        get = Get(self.info.key, offset, offset + buffer.nbytes, trio.current_time())
        remote.gets.append(get)
        remote.running += 1
        remote.most_running = max(remote.running, remote.most_running)
        try:
            await trio.sleep(remote.latency)
            if (error := remote.broken(get)) is not None:
                raise error
            if not remote.hollow:
                await self._inner.get_into(offset, buffer)
            for start in range(0, buffer.nbytes, STEP):
                stop = min(start + STEP, buffer.nbytes)
                await trio.sleep((stop - start) / min(remote.bandwidth, remote.shared / remote.running))
                if arrived is not None:
                    arrived(stop)
        finally:
            remote.running -= 1

    async def aclose(self) -> None:
        await self._inner.aclose()


def pattern(size: int, seed: int = 0) -> bytes:
    """*size* bytes, of which each aligned eight tell where they are."""
    import array

    words = array.array("Q", range(seed << 40, (seed << 40) + -(-size // 8)))
    return words.tobytes()[:size]


async def remote_of(objects: dict[str, bytes], **line: float) -> Remote:
    store = MemoryStore(LIKE_S3)
    for key, data in objects.items():
        await store.put(Key(key), data)
    return Remote(store, **line)


async def read_all(pin: Pin, *, size: int = 1 * MiB, rate: float = 0.0) -> bytes:
    """The whole of *pin*, in requests of *size*, as a kernel sends them one after the other; *rate* seconds of work for each."""
    data = bytearray(pin.info.size)
    whole = memoryview(data)
    for start in range(0, len(data), size):
        await read(pin, start, whole[start : start + size])
        if rate:
            await trio.sleep(rate)
    return bytes(data)


async def read(pin: Pin, offset: int, buffer: memoryview) -> None:
    """As fs reads."""
    if not pin.get_into_nowait(offset, buffer):
        await pin.get_into(offset, buffer)


async def skim(pin: Pin, *, size: int, rate: float) -> None:
    """As `read_all`, but the bytes go nowhere."""
    buffer = memoryview(bytearray(size))
    for start in range(0, pin.info.size, size):
        await read(pin, start, buffer[: min(size, pin.info.size - start)])
        await trio.sleep(rate)

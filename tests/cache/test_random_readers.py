"""Random readers of objects that are replaced, over a line that fails, in little memory: right bytes or the right error, no standstill."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.cache.blocks import Blocks
from s3mount.cache.options import CacheOptions
from s3mount.errors import PreconditionFailed, StoreError, Unavailable
from s3mount.model import Key, KiB, MiB
from s3mount.store.api import Pin
from tests.cache.kit import Get, Remote, pattern, read, remote_of

# Regions of 64 KiB, 28 of them: every reader is in every other's way.
MEMORY = 2 * MiB
# Far more virtual seconds than all the requests of an example take one after the other.
STANDSTILL = 3600.0
SIZES = st.one_of(st.integers(1, 200), st.integers(1, 300 * KiB), st.integers(300 * KiB, 6 * MiB))


@dataclass(frozen=True)
class Story:
    """One example: objects, readers and what befalls them, all drawn from *seed*."""

    sizes: list[int]
    readers: int
    steps: int
    failing: float
    replacing: float
    closing: float
    seed: int


stories = st.builds(
    Story,
    sizes=st.lists(SIZES, min_size=1, max_size=6),
    readers=st.integers(1, 8),
    steps=st.integers(1, 40),
    failing=st.sampled_from([0.0, 0.0, 0.1, 0.5]),
    replacing=st.sampled_from([0.0, 0.05]),
    closing=st.sampled_from([0.02, 0.3]),
    seed=st.integers(0, 1000),
)


class Play:
    def __init__(self, story: Story, remote: Remote) -> None:
        self.story = story
        self.remote = remote
        self.rng = random.Random(story.seed)
        self.blocks = Blocks(remote, CacheOptions(memory_limit=MEMORY))
        self.contents: dict[str, bytes] = {}
        remote.broken = self.broken

    def broken(self, get: Get) -> StoreError | None:
        return Unavailable("Injected.") if self.rng.random() < self.story.failing else None

    async def write(self, key: str, size: int) -> None:
        data = pattern(size, self.rng.randrange(1000))
        info = await self.remote.inner.put(Key(key), data)
        self.contents[info.etag] = data

    async def reader(self) -> None:
        pin: Pin | None = None
        at = 0
        for _ in range(self.story.steps):
            if pin is None or self.rng.random() < self.story.closing:
                if pin is not None:
                    await pin.aclose()
                key = Key(f"o{self.rng.randrange(len(self.story.sizes))}")
                pin = await self.blocks.pin(key, known=await self.remote.inner.head(key))
                at = 0
            at = await self.one(pin, at)
            if self.rng.random() < self.story.replacing:
                number = self.rng.randrange(len(self.story.sizes))
                await self.write(f"o{number}", self.story.sizes[number])
        assert pin is not None
        await pin.aclose()

    async def one(self, pin: Pin, at: int) -> int:
        size = pin.info.size
        at = at if self.rng.random() < 0.7 and at < size else self.rng.randrange(size)
        stop = min(size, at + self.rng.choice([1, 5000, 128 * KiB, 400 * KiB]))
        buffer = bytearray(stop - at)
        try:
            with trio.move_on_after(self.rng.choice([0.01, 0.05, 1e6, 1e6, 1e6])) as scope:
                await read(pin, at, memoryview(buffer))
            if not scope.cancelled_caught:
                assert buffer == self.contents[pin.info.etag][at:stop]
        except Unavailable:
            assert self.story.failing
        except PreconditionFailed:
            assert (await self.remote.inner.head(pin.info.key)).etag != pin.info.etag
        if self.rng.random() < 0.2:
            self.blocks.check()
        return stop

    async def run(self) -> None:
        for number, size in enumerate(self.story.sizes):
            await self.write(f"o{number}", size)
        with trio.fail_after(STANDSTILL):
            async with trio.open_nursery() as nursery:
                for _ in range(self.story.readers):
                    nursery.start_soon(self.reader)
        await trio.sleep(10)  # what a stream skipped is not taken back: a late request may still want it
        self.blocks.check()
        assert self.remote.running == 0
        assert not self.blocks.fetcher.queued
        assert not any(block.waiters or block.wanters for version in self.blocks.versions for block in version)
        await self.blocks.aclose()


@pytest.mark.slow
@given(story=stories)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_random_readers_get_right_bytes_or_the_right_error_and_never_stand_still(story: Story) -> None:
    async def main() -> None:
        await Play(story, await remote_of({})).run()

    trio.run(main, clock=MockClock(autojump_threshold=0))

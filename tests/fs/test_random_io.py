"""Random reads, writes, truncates, closes, reopens, renames and removals on several files at once, byte for byte as on local files.

Several worlds run as tasks on one file system, each in its own directory beside a local folder that gets the same calls. The store takes
its time, and a world waits neither for its flushes, fsyncs nor closes, so that commits are under way while it goes on.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from s3mount.engine.engine import Engine
from s3mount.fs.attrs import AttrChange
from s3mount.model import KiB
from s3mount.store.api import ObjectStore
from s3mount.store.local import LocalStore
from s3mount.store.memory import MemoryStore
from s3mount.store.wrap.faulty import Faulty, seeded
from tests.fs.mounted import ME, Mounted

NAMES = ["a", "b", "c", "d"]
WORLDS = 3
SIZES = [1, 10, 4 * KiB, 70 * KiB, 300 * KiB]


@dataclass(eq=False)
class Open:
    """The same file opened on both sides."""

    fh: int
    fd: int
    ino: int
    name: str
    busy: int = 0


@dataclass(eq=False)
class World:
    """One directory of the file system and one local folder."""

    mounted: Mounted
    folder: Path
    name: str
    rng: random.Random
    nursery: trio.Nursery | None = None
    handles: list[Open] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def path(self, name: str) -> str:
        return f"{self.name}/{name}"

    def local(self, name: str) -> Path:
        return self.folder / name

    async def step(self) -> None:
        choices: list[tuple[int, Callable[[], Awaitable[None]]]] = [(2, self.open), (1, self.rename), (1, self.remove)]
        if self.handles:
            choices += [(6, self.read), (6, self.write), (2, self.truncate), (2, self.close), (1, self.flush), (1, self.fsync)]
        choose = self.rng.choices([call for _, call in choices], [weight for weight, _ in choices])[0]
        self.done.append(choose.__name__)
        await choose()

    def any_handle(self) -> Open:
        handle = self.rng.choice(self.handles)
        self.done[-1] += f" {handle.name}#{handle.fh}"
        return handle

    async def open(self) -> None:
        name = self.rng.choice(NAMES)
        flags = os.O_RDWR | (os.O_TRUNC if self.rng.random() < 0.2 else 0)
        self.done[-1] += f" {name} {flags:#o}"
        fd = os.open(self.local(name), flags | os.O_CREAT, 0o644)
        if name in await self.mounted.names(self.name):
            fh = await self.mounted.open(self.path(name), flags)
        else:
            fh = await self.mounted.create(self.path(name), flags=flags)
        ino = (await self.mounted.stat(self.path(name))).ino
        self.handles.append(Open(fh, fd, ino, name))

    async def read(self) -> None:
        handle = self.any_handle()
        size = os.fstat(handle.fd).st_size
        offset, count = self.rng.randrange(size + 10), self.rng.choice(SIZES)
        assert bytes(await self.mounted.fs.read(handle.fh, offset, count)) == os.pread(handle.fd, count, offset)
        assert (await self.mounted.fs.getattr(handle.ino)).size == size

    async def write(self) -> None:
        handle = self.any_handle()
        size = os.fstat(handle.fd).st_size
        offset = self.rng.choice([size, self.rng.randrange(size + 1), size + self.rng.randrange(10 * KiB)])
        data = self.rng.randbytes(self.rng.choice(SIZES))
        assert await self.mounted.fs.write(handle.fh, offset, data) == os.pwrite(handle.fd, data, offset) == len(data)

    async def truncate(self) -> None:
        handle = self.any_handle()
        size = self.rng.choice([0, self.rng.randrange(os.fstat(handle.fd).st_size + 100 * KiB)])
        os.ftruncate(handle.fd, size)
        attr = await self.mounted.fs.setattr(handle.ino, AttrChange(size=size), fh=handle.fh, caller=ME)
        assert attr.size == size

    async def flush(self) -> None:
        handle = self.any_handle()
        handle.busy += 1
        self.start(self.in_background, handle, self.mounted.fs.flush)

    async def fsync(self) -> None:
        handle = self.any_handle()
        handle.busy += 1
        self.start(self.in_background, handle, self.mounted.fs.fsync)

    async def close(self) -> None:
        handle = self.any_handle()
        if not handle.busy:
            self.handles.remove(handle)
            os.close(handle.fd)
            self.start(self.mounted.close, handle.fh)

    async def in_background(self, handle: Open, call: Callable[[int], Awaitable[None]]) -> None:
        await call(handle.fh)
        handle.busy -= 1

    def start(self, call: Callable[..., Awaitable[None]], *args: object) -> None:
        assert self.nursery is not None
        self.nursery.start_soon(call, *args)

    async def rename(self) -> None:
        old, new = self.rng.choice(NAMES), self.rng.choice(NAMES)
        if self.local(old).exists():
            self.done[-1] += f" {old} {new}"
            self.local(old).rename(self.local(new))
            await self.mounted.rename(self.path(old), self.path(new))

    async def remove(self) -> None:
        name = self.rng.choice(NAMES)
        if self.local(name).exists():
            self.done[-1] += f" {name}"
            self.local(name).unlink()
            await self.mounted.unlink(self.path(name))

    async def run(self, steps: int) -> None:
        async with trio.open_nursery() as self.nursery:
            for _ in range(steps):
                await self.step()
                await trio.sleep(self.rng.random())
        async with trio.open_nursery() as self.nursery:
            while self.handles:
                self.done.append("close")
                await self.close()

    async def compare(self) -> None:
        assert await self.mounted.names(self.name) == sorted(os.listdir(self.folder))
        for name in os.listdir(self.folder):
            fh, expected = await self.mounted.open(self.path(name), os.O_RDONLY), self.local(name).read_bytes()
            assert bytes(await self.mounted.fs.read(fh, 0, len(expected) + 1)) == expected, name
            await self.mounted.close(fh)


async def play(store: ObjectStore, folder: Path, seed: int, *, rounds: int, steps: int) -> None:
    """Rounds of random calls; after each, everything is closed, compared, remounted and compared again."""
    mounted = Mounted(store)
    worlds = [World(mounted, folder / f"w{number}", f"w{number}", random.Random(f"{seed} {number}")) for number in range(WORLDS)]
    for world in worlds:
        world.folder.mkdir()
        await mounted.mkdir(world.name)
    try:
        for _ in range(rounds):
            async with trio.open_nursery() as nursery:
                for world in worlds:
                    nursery.start_soon(world.run, steps)
            for world in worlds:
                await world.compare()
            mounted = await mounted.remount()
            for world in worlds:
                world.mounted = mounted
                await world.compare()
    except BaseException:
        tails = "\n".join(f"{world.name}: {'; '.join(world.done[-25:])}" for world in worlds)
        print(f"seed {seed}, the last steps:\n{tails}")  # noqa: T201 (shown when the test fails)
        raise
    finally:
        for world in worlds:
            for handle in world.handles:
                os.close(handle.fd)
        await mounted.fs.aclose()


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 5))])
async def test_many_files_on_a_slow_store_behave_as_local_ones(seed: int, tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    memory = MemoryStore()
    await play(Faulty(memory, seeded(seed, rate=0, slowest=3)), tmp_path, seed, rounds=3, steps=40)
    memory.check()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
async def test_many_more_files_on_a_slow_store_behave_as_local_ones(
    seed: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    memory = MemoryStore()
    await play(Faulty(memory, seeded(seed, rate=0, slowest=3)), tmp_path, seed, rounds=5, steps=60)
    memory.check()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_files_in_the_embedded_store_behave_as_local_ones(seed: int, tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    engine = Engine.open(tmp_path / "data")
    try:
        engine.create_bucket("bucket")
        (tmp_path / "local").mkdir()
        await play(LocalStore(engine, "bucket"), tmp_path / "local", seed, rounds=3, steps=60)
        assert engine.check() == []
        assert os.listdir(engine.staging) == ["owner.lock"]
    finally:
        engine.close()

"""While nobody looks, the kernel is asked to forget what it was shown and nobody has opened."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from s3mount.fs import cooling
from s3mount.fs.cooling import PASSING, QUIET_S, STEP_S
from s3mount.model import Key
from s3mount.store.memory import MemoryStore
from tests.fs.mounted import Mounted, accepted

# A tree for which smaller numbers do.
FILES, FEW, STEP = 60, 50, 25
# One in line after another, with a step to spare for each that the line is longer than the files.
ONCE_S = (FILES / STEP + 2) * STEP_S


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooling, "FEW", FEW)
    monkeypatch.setattr(cooling, "STEP", STEP)


class Kernel:
    """Forgets at once what it is asked to, but for `wanted`; `asked` is when it was asked for what."""

    def __init__(self, mount: Mounted) -> None:
        self.fs = mount.fs
        self.numbers: dict[bytes, int] = {}
        self.wanted: set[bytes] = set()
        self.asked: list[tuple[float, bytes]] = []
        self.mounts: Collection[bytes] = ()
        self.began = trio.Event()

    def entry(self, parent: int, name: bytes) -> None:
        self.asked.append((trio.current_time(), name))
        self.began.set()
        if name not in self.wanted:
            self.fs.forget(self.numbers.pop(name), 1)

    def inode(self, ino: int) -> None:
        raise AssertionError

    def attributes(self, ino: int) -> None:
        raise AssertionError

    def covered(self) -> Collection[bytes]:
        return self.mounts

    def occupied(self) -> Collection[bytes] | None:
        raise AssertionError

    @property
    def names(self) -> list[bytes]:
        return [name for _, name in self.asked]


@asynccontextmanager
async def walked(**options: object) -> AsyncIterator[tuple[Mounted, Kernel, int]]:
    """A mount whose directory "d" was listed with its files just now; the background works. The directory's number."""
    store = MemoryStore()
    for number in range(FILES):
        await store.put(Key(f"d/{number:04}"), b"text")
    mount = Mounted(store, **options)
    kernel = mount.fs._volume.invalidate = Kernel(mount)
    async with mount.at_work(), mount.at("d") as directory:
        await walk(mount, kernel, directory)
        yield mount, kernel, directory
        for ino in kernel.numbers.values():
            mount.forget(ino)


async def walk(mount: Mounted, kernel: Kernel, directory: int) -> None:
    fh = await mount.fs.opendir(directory)
    for entry in await accepted(mount.fs, fh):
        if entry.name in kernel.numbers:
            mount.forget(entry.attr.ino)
        kernel.numbers[entry.name] = entry.attr.ino
    await mount.fs.releasedir(fh)


async def test_what_was_walked_is_forgotten_when_nobody_looks_any_more_and_asked_for_once(autojump_clock: MockClock) -> None:
    async with walked() as (mount, kernel, _):
        kernel.wanted = {b"0007"}
        await trio.sleep(QUIET_S - 1)
        assert not kernel.asked
        await trio.sleep(1 + QUIET_S + ONCE_S)
        assert sorted(kernel.names) == [b"%04d" % number for number in range(FILES)]
        assert len(mount.fs._inodes) == 3
        mount.fs.check()
        await trio.sleep(20 * QUIET_S)
        assert len(kernel.asked) == FILES


async def test_it_is_done_in_steps_that_cost_little(autojump_clock: MockClock) -> None:
    async with walked() as (_, kernel, _):
        await trio.sleep(2 * QUIET_S + ONCE_S)
        moments = sorted({moment for moment, _ in kernel.asked})
        assert len(moments) >= FILES / STEP
        assert all(later - sooner >= STEP_S * 0.99 for sooner, later in itertools.pairwise(moments))


async def test_what_somebody_has_opened_stays_for_the_sake_of_its_pages(autojump_clock: MockClock) -> None:
    async with walked() as (mount, kernel, directory):
        await mount.fs.release((await mount.fs.open(kernel.numbers[b"0001"], os.O_RDONLY)).fh)
        held = (await mount.fs.open(kernel.numbers[b"0002"], os.O_RDONLY)).fh
        await mount.write("d/0003", b"written")
        await trio.sleep(2 * QUIET_S + ONCE_S)
        assert set(kernel.numbers) == {b"0001", b"0002", b"0003"}
        assert mount.fs._inodes.find(directory) is not None
        await mount.fs.release(held)


async def test_tables_are_made_smaller_when_a_slow_kernel_has_answered(autojump_clock: MockClock) -> None:
    async with walked() as (mount, kernel, _):
        kernel.wanted = set(kernel.numbers)
        await kernel.began.wait()
        while kernel.numbers:
            await trio.sleep(1)
            mount.forget(kernel.numbers.popitem()[1])
        await trio.sleep(4 * STEP_S)
        assert mount.fs._inodes.in_line == len(mount.fs._inodes) == 2


async def test_what_something_is_mounted_on_stays(autojump_clock: MockClock) -> None:
    async with walked() as (_, kernel, _):
        kernel.mounts = {b"d/0005", b"other"}
        await trio.sleep(2 * QUIET_S + ONCE_S)
        assert set(kernel.numbers) == {b"0005"}


async def test_whoever_looks_is_not_disturbed_and_the_rest_goes_later(autojump_clock: MockClock) -> None:
    async with walked() as (mount, kernel, directory):
        await kernel.began.wait()
        await walk(mount, kernel, directory)
        so_far = len(kernel.asked)
        assert so_far <= 2 * STEP
        await trio.sleep(QUIET_S / 2)
        assert len(kernel.asked) == so_far
        await trio.sleep(2 * QUIET_S + 2 * ONCE_S)
        assert not kernel.numbers


async def test_who_asks_now_and_then_whether_the_mount_is_there_holds_nothing_up(autojump_clock: MockClock) -> None:
    async with walked() as (mount, kernel, directory):
        for _ in range(PASSING):
            mount.forget((await mount.fs.lookup(directory, b"0000")).ino)
            await trio.sleep(2 * QUIET_S / PASSING)
        await trio.sleep(ONCE_S)
        assert not kernel.numbers


@pytest.mark.parametrize(("ttl_s", "quiet_s"), [(3 * QUIET_S, 3 * QUIET_S), (math.inf, 600.0)])
async def test_nothing_is_asked_for_that_the_kernel_still_answers_for(ttl_s: float, quiet_s: float, autojump_clock: MockClock) -> None:
    async with walked(metadata_ttl_s=ttl_s) as (_, kernel, _):
        await trio.sleep(quiet_s - 1)
        assert not kernel.asked


async def test_a_few_names_are_not_worth_it(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(cooling, "FEW", 2 * FILES)
    async with walked() as (_, kernel, _):
        await trio.sleep(10 * QUIET_S)
        assert not kernel.asked

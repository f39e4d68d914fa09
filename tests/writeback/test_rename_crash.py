"""The process dies while names change, at any step: each file is there under one of its two names, whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import S3MountError
from s3mount.fs.moving import ANSWER_KEYS
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.writeback.store import WriteBack
from tests.conftest import ExpectLogs
from tests.fs.mounted import Mounted
from tests.writeback.test_crash import Journaled, Life, Mortal, contents
from tests.writeback.test_store import clock

__all__ = ["clock"]  # a fixture

Tree = dict[str, bytes]


@dataclass
class Said:
    """What a program was told, as trees: the one that is, and while a system call is under way the one that shall be."""

    may: list[Tree] = field(default_factory=lambda: [{}])

    @property
    def now(self) -> Tree:
        return self.may[-1]

    async def does(self, call: Awaitable[None], after: Tree) -> None:
        self.may.append(after)
        await call
        self.may = [after]


def moved(tree: Tree, old: str, new: str) -> Tree:
    return {new + key[len(old) :] if key.startswith(old) else key: data for key, data in tree.items()}


async def stored(bucket: MemoryStore) -> Tree:
    """What others have put there before."""
    for key in ("d/stored", "d/sub/foreign", "d/sub/other", "single"):
        await bucket.put(Key(key), f"of {key}".encode())
    return await contents(bucket)


async def rename_all_kinds(mounted: Mounted, store: WriteBack, said: Said) -> None:
    """Of what is in the bucket, of what is pending, of what is being sent."""
    for name in ("d/sent", "d/sub/sent"):
        await said.does(mounted.write(name, name.encode()), {**said.now, name: name.encode()})
    await store.sync()
    await said.does(mounted.write("d/pending", b"pending"), {**said.now, "d/pending": b"pending"})
    await said.does(mounted.write("d/sent", b"sent again"), {**said.now, "d/sent": b"sent again"})
    await said.does(mounted.rename("d", "e"), moved(said.now, "d/", "e/"))
    await said.does(mounted.rename("single", "e/single"), moved(said.now, "single", "e/single"))
    await said.does(mounted.rename("e/sub", "f"), moved(said.now, "e/sub/", "f/"))
    await trio.sleep(2)
    await said.does(mounted.write("e/again", b"again"), {**said.now, "e/again": b"again"})
    await said.does(mounted.rename("e/again", "e/pending"), moved(without(said.now, "e/pending"), "e/again", "e/pending"))
    await said.does(mounted.rename("f", "d"), moved(said.now, "f/", "d/"))
    await store.sync()
    await said.does(mounted.rename("e", "d/deep"), moved(said.now, "e/", "d/deep/"))
    await store.sync()


def without(tree: Tree, name: str) -> Tree:
    return {key: data for key, data in tree.items() if key != name}


Program = Callable[[Mounted, WriteBack, Said], Awaitable[None]]


async def live(folder: Path, bucket: MemoryStore, program: Program, said: Said, last: int) -> bool:
    """One process; whether it lived to the end."""
    life = Life(last)
    store = await WriteBack.open(Mortal(bucket, life, Counter()), folder / "late")
    Journaled(life, trio.lowlevel.current_trio_token()).around(store._journal)
    mounted = Mounted(store, journal=folder / "moves")
    moving = mounted.fs._volume.moving
    assert moving is not None
    ended = False

    async def run(cancel: trio.CancelScope) -> None:
        nonlocal ended
        try:
            await program(mounted, store, said)
            ended = True
        except S3MountError:
            assert life.left < 0
        cancel.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(moving.run)
        nursery.start_soon(run, nursery.cancel_scope)
        await life.over.wait()
        nursery.cancel_scope.cancel()
    moving.leave()
    with trio.CancelScope(shield=True):
        await store._sender.aclose()
        store._journal.close()
    return ended


async def next_mount(folder: Path, bucket: MemoryStore) -> Tree:
    """What the next mount finds and sends: files, without the markers of directories."""
    store = await WriteBack.open(bucket, folder / "late")
    mounted = Mounted(store, journal=folder / "moves")
    await mounted.fs.recover()
    await store.sync()
    store.check()
    await mounted.fs.aclose()
    await store.aclose()
    assert not is_left(folder / "moves")
    return {key: data for key, data in (await contents(bucket)).items() if not key.endswith("/")}


def is_left(moves: Path) -> bool:
    return any(moves.glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("answered_from", [ANSWER_KEYS, 2], ids=["whole", "answered at once"])
async def test_a_rename_that_a_crash_interrupted_leaves_one_of_the_two_names(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch, expect_logs: ExpectLogs, answered_from: int
) -> None:
    """Regression: both names were left, as versions are called otherwise once they have arrived."""
    expect_logs("cannot be (copied there|deleted under its old name) yet: Dead")
    monkeypatch.setattr("s3mount.fs.rename.ANSWER_KEYS", answered_from)
    for last in range(500):
        bucket, said = MemoryStore(LIKE_S3), Said()
        said.may = [await stored(bucket)]
        ended = await live(tmp_path / str(last), bucket, rename_all_kinds, said, last)
        there = await next_mount(tmp_path / str(last), bucket)
        assert there in said.may, last
        if ended:
            assert last > 30
            return
    raise AssertionError("it never ended")

"""The process dies, at any step: what was acknowledged arrives, once, and nothing else does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import StoreError, Unavailable
from s3mount.model import Absent, Key, Matches, ObjectInfo
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op, Wrapper
from s3mount.writeback.journal import Change, Journal
from s3mount.writeback.store import WriteBack
from tests.store.registry import InMemory, edited, keys_of, pattern, read, whole
from tests.writeback.test_store import clock

__all__ = ["clock"]  # a fixture

T = TypeVar("T")

A, B, C, D, BIG = map(Key, ("a", "b", "c", "d/", "big"))


class Life:
    """Of one process: it ends at step *last*; every request and every transaction are two, before and after."""

    def __init__(self, last: int) -> None:
        self.left = last
        self.over = trio.Event()

    def step(self) -> bool:
        """Whether it goes on."""
        self.left -= 1
        return self.left >= 0


class Mortal(Wrapper):
    """*inner*, as a process sees it that dies."""

    def __init__(self, inner: ObjectStore, life: Life, commits: Counter[str]) -> None:
        super().__init__(inner)
        self._life = life
        self._commits = commits

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        if op.mutates and not self._life.step():
            await self._die()
        result = await call()
        if isinstance(result, ObjectInfo) and op.verb in ("put", "adopt"):
            self._commits[(result.metadata or {})[COMMIT_ID]] += 1
        if op.mutates and not self._life.step():
            await self._die()
        return result

    async def _die(self) -> None:
        self._life.over.set()
        await trio.sleep_forever()


@dataclass
class Journaled:
    """A journal whose transactions are steps of *life*."""

    life: Life
    token: trio.lowlevel.TrioToken
    apply_to: Callable[[Sequence[Change]], list[int]] = field(init=False)

    def around(self, journal: Journal) -> None:
        apply = journal.apply

        def mortal(changes: Sequence[Change], *, synced: bool = True) -> list[int]:
            if not self.life.step():
                self._die()
            ids = apply(changes, synced=synced)
            if not self.life.step():
                self._die()
            return ids

        journal.apply = mortal  # type: ignore[method-assign]

    def _die(self) -> None:
        self.token.run_sync_soon(self.life.over.set)
        raise Unavailable("Dead.")


@dataclass
class Said:
    """What a program was told: by key, the contents that may be there (None: no object)."""

    may: dict[str, set[bytes | None]] = field(default_factory=dict)

    def begins(self, key: str, data: bytes | None) -> None:
        self.may.setdefault(key, {None}).add(data)

    def done(self, key: str, data: bytes | None) -> None:
        self.may[key] = {data}


async def work(store: WriteBack, said: Said) -> None:
    """A program's doings; raises when the process is dead."""

    async def put(key: Key, data: bytes, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        said.begins(key, data)
        info = await (store.put(key, data, commit) if len(data) < 200_000 else store.adopt(key, whole(InMemory(data)), commit))
        said.done(key, data)
        return info

    async def remove(key: Key) -> None:
        said.begins(key, None)
        await store.delete(key)
        said.done(key, None)

    await put(A, b"first", Commit(condition=Absent()))
    info = await put(A, b"second", Commit(metadata={"v": "2"}))
    await store.update(A, {"v": "3"}, if_match=info.etag)
    await put(B, b"temporary")
    big = pattern(300_000)
    base = await put(BIG, big, Commit(condition=Absent()))
    said.begins(BIG, big[:5] + b"edit" + big[9:])
    await store.adopt(BIG, edited(base, 5, InMemory(b"edit")), Commit(condition=Matches(base.etag)))
    said.done(BIG, big := big[:5] + b"edit" + big[9:])
    await trio.sleep(2)
    said.begins(C, b"temporary")
    await store.copy(B, C, if_match=(await store.head(B)).etag)
    said.done(C, b"temporary")
    await remove(B)
    base = await store.head(BIG)
    said.begins(BIG, big[:7] + b"again" + big[12:])
    await store.adopt(BIG, edited(base, 7, InMemory(b"again")), Commit(condition=Matches(base.etag)))
    said.done(BIG, big[:7] + b"again" + big[12:])
    await put(D, b"", Commit(condition=Absent()))
    await trio.sleep(2)
    await remove(A)
    await put(A, b"third")
    await remove(D)
    await store.sync()
    await put(B, b"after the sync")
    await store.sync()


async def live(folder: Path, bucket: ObjectStore, last: int, commits: Counter[str]) -> tuple[Said, bool]:
    """One process; whether it lived to the end."""
    said, life = Said(), Life(last)
    store = await WriteBack.open(Mortal(bucket, life, commits), folder)
    Journaled(life, trio.lowlevel.current_trio_token()).around(store._journal)
    ended = False

    async def program(cancel: trio.CancelScope) -> None:
        nonlocal ended
        try:
            await work(store, said)
            ended = True
        except StoreError:
            assert life.left < 0
        cancel.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(program, nursery.cancel_scope)
        await life.over.wait()
        nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await store._sender.aclose()
        store._journal.close()
    return said, ended


async def contents(store: ObjectStore) -> dict[str, bytes]:
    return {key: await read(store, Key(key)) for key in await keys_of(store)}


async def arrives(folder: Path, bucket: ObjectStore, commits: Counter[str]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What the next mount shows at once, and what is in the bucket after it."""
    store = await WriteBack.open(Mortal(bucket, Life(10**9), commits), folder)
    store.check()
    shown = await contents(store)
    await store.sync()
    assert store.status()["pending"] == 0
    store.check()
    await store.aclose()
    with Journal.open(folder) as journal:
        journal.check()
        assert journal.records() == []
        assert list((folder / "bodies").iterdir()) == []
    return shown, await contents(bucket)


@pytest.mark.slow
async def test_what_was_acknowledged_arrives_once_wherever_the_process_died(tmp_path: Path, clock: MockClock) -> None:
    for last in range(500):
        bucket, commits = MemoryStore(LIKE_S3), Counter[str]()
        said, ended = await live(tmp_path / str(last), bucket, last, commits)
        shown, there = await arrives(tmp_path / str(last), bucket, commits)
        assert shown == there, last
        for key, may in said.may.items():
            assert there.get(key) in may, (last, key)
        assert there.keys() <= said.may.keys(), last
        assert set(commits.values()) <= {1}, (last, commits)
        if ended:
            assert last > 40
            return
    raise AssertionError("it never ended")

"""MemoryStore and LocalStore, side by side: whatever is done to both, both answer alike and hold the same.

Hypothesis writes the programs; a name in one stands for the same thing in both stores, though file ids and ETags differ.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.engine.engine import Engine
from s3mount.errors import StoreError
from s3mount.model import Absent, Condition, Content, ETag, Hole, Kept, Key, Matches, ObjectInfo, Piece, Staged, Upload
from s3mount.store.api import Commit, ObjectStore, Pin
from s3mount.store.local import LocalStore
from s3mount.store.memory import MemoryStore
from tests.store.registry import InMemory, own_metadata, pattern, read, read_pin

NAMES = ("a", "b", "a/", "b/", "a/a", "a/b", "b/a", "a/a/b", "a0")
PREFIXES = ("a/", "b/", "a/a/", "b/a/")
# Empty, inline in the engine's log, a body of its own.
SIZES = (0, 5, 300, 20_000)

names = st.sampled_from(NAMES)
prefixes = st.sampled_from(PREFIXES)
sizes = st.sampled_from(SIZES)
seeds = st.integers(0, 50)
conditions = st.sampled_from(("none", "none", "none", "absent", "matches", "stale"))
files = st.sampled_from(("new", "new", "same", "7", "8"))
places = st.sampled_from((0, 1, 100, 4096, 19_999))

steps = st.one_of(
    st.tuples(st.just("put"), names, sizes, seeds, conditions, files),
    st.tuples(st.just("put"), names, sizes, seeds, st.just("none"), st.just("new")),
    st.tuples(st.just("remember"), names),
    st.tuples(st.just("edit"), places, st.sampled_from((1, 50, 20_000)), seeds),
    st.tuples(st.just("cut"), places),
    st.tuples(st.just("grow"), places),
    st.tuples(st.just("update"), names, seeds, st.booleans()),
    st.tuples(st.just("delete"), names, st.booleans()),
    st.tuples(st.just("delete_many"), st.lists(names, max_size=3)),
    st.tuples(st.just("copy"), names, names, conditions),
    st.tuples(st.just("rename"), names, names, st.booleans()),
    st.tuples(st.just("rename_prefix"), prefixes, prefixes, st.booleans()),
    st.tuples(st.just("exchange"), names, names),
    st.tuples(st.just("link"), names, names),
    st.tuples(st.just("reserve"), names),
    st.tuples(st.just("release"), names),
    st.tuples(st.just("pin"), names),
    st.tuples(
        st.just("list"),
        st.sampled_from(("", "a", "a/", "b/")),
        st.sampled_from(("", "/")),
        st.sampled_from(("", *NAMES)),
        st.integers(1, 4),
    ),
    st.tuples(st.just("find"), names),
    st.tuples(st.just("upload"), names, st.lists(sizes, min_size=1, max_size=3), conditions),
    st.tuples(st.just("complete")),
    st.tuples(st.just("sync")),
)


@dataclass
class Side:
    """One store, and what the program has named in it so far."""

    store: ObjectStore
    base: ObjectInfo | None = None
    upload: tuple[Upload, Sequence[int]] | None = None
    pins: list[tuple[Pin, bytes]] = field(default_factory=list)

    async def etag(self, key: Key) -> ETag:
        found = (await self.store.find(key)).object
        return found.etag if found else ETag("absent")

    async def condition(self, kind: str, key: Key) -> Condition:
        if kind == "absent":
            return Absent()
        if kind == "matches":
            return Matches(await self.etag(key))
        return Matches(ETag("stale")) if kind == "stale" else None

    async def file(self, kind: str, key: Key) -> int:
        found = (await self.store.find(key)).object
        if kind == "same":
            return found.file_id if found else 0
        return 0 if kind == "new" else int(kind)

    # -- the steps; each answers what must be alike -----------------------------------

    async def put(self, key: Key, size: int, seed: int, condition: str, file: str) -> object:
        commit = Commit(condition=await self.condition(condition, key), file_id=await self.file(file, key), metadata={"s": str(seed)})
        return shown(await self.store.put(key, pattern(size, seed), commit))

    async def remember(self, key: Key) -> object:
        self.base = (await self.store.find(key)).object
        return None

    async def _onto_base(self, pieces: Callable[[ObjectInfo], list[Piece]]) -> object:
        base = self.base
        if base is None:
            return None
        laid = pieces(base)
        content = Content(sum(piece.length for piece in laid), tuple(laid), base)
        commit = Commit(condition=Matches(base.etag), file_id=base.file_id, metadata=base.metadata or {})
        self.base = await self.store.adopt(base.key, content, commit)
        return shown(self.base)

    async def edit(self, place: int, size: int, seed: int) -> object:
        def pieces(base: ObjectInfo) -> list[Piece]:
            at = min(place, base.size)
            left: list[Piece] = [Kept(0, at)] if at else []
            right: list[Piece] = [Kept(at + size, base.size - at - size)] if at + size < base.size else []
            return [*left, Staged(at, size, InMemory(pattern(size, seed)), 0), *right]

        return await self._onto_base(pieces)

    async def cut(self, place: int) -> object:
        return await self._onto_base(lambda base: [Kept(0, min(place, base.size))] if min(place, base.size) else [])

    async def grow(self, by: int) -> object:
        def pieces(base: ObjectInfo) -> list[Piece]:
            kept: list[Piece] = [Kept(0, base.size)] if base.size else []
            return [*kept, Hole(base.size, by)] if by else kept

        return await self._onto_base(pieces)

    async def update(self, key: Key, seed: int, by_id: bool) -> object:
        file_id = self.base.file_id if by_id and self.base else 0
        return shown(await self.store.update(key, {"u": str(seed)}, file_id=file_id))

    async def delete(self, key: Key, matching: bool) -> object:
        await self.store.delete(key, if_match=await self.etag(key) if matching else None)
        return None

    async def delete_many(self, keys: Sequence[Key]) -> object:
        return len(await self.store.delete_many(keys))

    async def copy(self, source: Key, target: Key, condition: str) -> object:
        if condition == "none":
            return shown(await self.store.copy(source, target))
        commit = Commit(condition=await self.condition(condition, target), metadata={"c": "c"})
        return shown(await self.store.copy(source, target, commit=commit))

    async def rename(self, source: Key, target: Key, replace: bool) -> object:
        await self.store.rename(source, target, replace=replace)
        return None

    async def rename_prefix(self, source: str, target: str, replace: bool) -> object:
        return await self.store.rename_prefix(source, target, replace=replace)

    async def exchange(self, a: str, b: str) -> object:
        await self.store.exchange(a, b)
        return None

    async def link(self, source: Key, target: Key) -> object:
        return shown(await self.store.link(source, target))

    async def reserve(self, key: Key) -> object:
        await self.store.reserve(key)
        return None

    async def release(self, key: Key) -> object:
        await self.store.release(key)
        return None

    async def pin(self, key: Key) -> object:
        pin = await self.store.pin(key)
        self.pins.append((pin, await read_pin(pin)))
        return self.pins[-1][1]

    async def list(self, prefix: str, delimiter: str, after: str, limit: int) -> object:
        page = await self.store.list(prefix, delimiter=delimiter, after=after, limit=limit)
        return [info.key for info in page.objects], page.prefixes, page.next

    async def find(self, name: str) -> object:
        found = await self.store.find(name)
        return found.object is not None, found.marker is not None, found.implied

    async def start_upload(self, key: Key, parts: Sequence[int], condition: str) -> object:
        commit = Commit(condition=await self.condition(condition, key), metadata={"m": "m"})
        self.upload = (await self.store.create_upload(key, commit), parts)
        return None

    async def complete(self) -> object:
        if self.upload is None:
            return None
        upload, lengths = self.upload
        parts = [await self.store.put_part(upload, number, pattern(size, number)) for number, size in enumerate(lengths, 1)]
        return shown(await self.store.complete_upload(upload, parts))

    async def sync(self) -> object:
        await self.store.sync()
        return None

    # -- what there is ----------------------------------------------------------------

    async def state(self) -> object:
        infos = (await self.store.list()).objects
        links = [sorted(other.key for other in infos if other.file_id == info.file_id) for info in infos]
        contents = [await read(self.store, info.key) for info in infos]
        held = [await read_pin(pin) == data for pin, data in self.pins]
        assert all(held)
        return [shown(info) for info in infos], links, contents

    async def let_go(self) -> None:
        for pin, _ in self.pins:
            await pin.aclose()
        self.pins.clear()

    async def do(self, step: tuple[object, ...]) -> object:
        verb, *arguments = step
        method: Callable[..., Awaitable[object]] = getattr(self, "start_upload" if verb == "upload" else str(verb))
        try:
            return await method(*arguments)
        except (StoreError, ValueError) as error:
            return type(error)


def shown(info: ObjectInfo) -> object:
    return info.key, info.size, info.content_type, info.links, dict(own_metadata(info))


def alone(steps: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """*steps* without those that speak of one process only."""
    return [step for step in steps if step[0] not in ("reserve", "release")]


async def run(steps: list[tuple[object, ...]], folder: Path, *, engines: int = 1) -> None:
    """Do *steps* in a MemoryStore and a LocalStore, whose *engines* on one folder take turns; then once more look at what replay makes."""
    memory = Side(MemoryStore())
    with ExitStack() as stack:
        opened = [stack.enter_context(Engine.open(folder / "data")) for _ in range(engines)]
        opened[0].create_bucket("bucket")
        stores = [LocalStore(engine, "bucket") for engine in opened]
        local = Side(stores[0])
        for number, step in enumerate(steps):
            local.store = stores[number % engines]
            assert await local.do(step) == await memory.do(step), (number, step)
            assert await local.state() == await memory.state(), (number, step)
        assert opened[0].check() == []
        for side in (memory, local):
            await side.let_go()
    for index in (folder / "data").glob("index.db*"):
        index.unlink()
    with Engine.open(folder / "data") as replayed:
        assert await Side(LocalStore(replayed, "bucket")).state() == await memory.state()
        assert replayed.check() == []


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(steps, max_size=25))
def test_both_stores_answer_alike_and_hold_the_same(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(run, steps, Path(folder))


@pytest.mark.slow
@settings(max_examples=120)
@given(st.lists(steps, max_size=60))
def test_both_stores_agree_over_long_programs(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(run, steps, Path(folder))


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(steps, max_size=25))
def test_two_engines_in_turns_are_one_store(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(partial(run, alone(steps), Path(folder), engines=2))

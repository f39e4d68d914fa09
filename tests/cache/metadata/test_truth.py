"""Random changes by this mount and by others, random questions: every answer was true within the time-to-live, and after our last change.

Virtual clock; the store takes random time to answer, so answers overtake each other and our own changes.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.cache.options import CacheOptions
from s3mount.cache.remember import Remembering
from s3mount.cache.tables import UNTOUCHED
from s3mount.errors import NotFound, OutcomeUnknown, StoreError
from s3mount.model import ETag, Key, Page
from s3mount.store.api import PAGE_KEYS, ObjectStore
from s3mount.store.bucket import Bucket, File
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op, Wrapper
from tests.cache.metadata.kit import fill, list_all, remembering

T = TypeVar("T")

TTL = 10.0
KEYS = ["a", "a/", "a/b", "a/b/c", "a/b/d", "a/b/e", "a-b", "a.b", "b", "b/1", "b/2", "b/3", "b/4", "b/5", "c/x/y", "c/x/z", "c/z/y", "d/"]
NAMES = ["a", "a/b", "b", "b/3", "c", "c/x", "c/x/y", "c/z", "d", "nothing", "a/b/c"]
STEMS = ["", "a/", "a/b/", "b/", "c/", "c/x/", "c/z/", "nothing/"]


class Unsteady(Wrapper):
    """Pages of a few keys; each request acts and answers after random times; now and then a reply is lost."""

    def __init__(self, inner: ObjectStore, rng: random.Random, *, page: int = 3) -> None:
        super().__init__(inner)
        self._rng = rng
        self._page = page
        self.flying = self.most = 0

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        await trio.sleep(self._rng.choice([0, 0, 0.1, 1, 3]))
        answer = await call()
        await trio.sleep(self._rng.choice([0, 0, 0.1, 1, 3]))
        if op.mutates and self._rng.random() < 0.1:
            raise OutcomeUnknown("The reply was lost.")
        return answer

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            return await super().list(prefix, delimiter=delimiter, after=after, limit=min(limit, self._page))
        finally:
            self.flying -= 1


State = dict[str, ETag]


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@dataclass(frozen=True)
class Asked:
    """When a question was asked, and which state was the last when this mount's changes were over by then."""

    at_s: float
    ours: dict[str, int]
    puts: dict[str, int]


class Told(Bucket):
    """Tells of each change."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed

    def bind(self, key: str, file: File) -> None:
        super().bind(key, file)
        self._changed()

    def unbind(self, key: str) -> None:
        super().unbind(key)
        self._changed()


@dataclass
class World:
    """The truth at all times, and what is asked of it."""

    attributes: str
    seed: int
    history: list[tuple[float, State]] = field(default_factory=list)
    ours: dict[str, int] = field(default_factory=dict)
    puts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.memory = MemoryStore(LIKE_S3, bucket=Told(self.note))
        self.other = self.memory.another()
        self.store = Remembering(
            Unsteady(self.memory, random.Random(self.seed)),
            CacheOptions(attributes=self.attributes, metadata_ttl_s=TTL),  # type: ignore[arg-type]
        )
        self.versions = itertools.count()

    def note(self) -> None:
        self.history.append((trio.current_time(), {key: file.etag for key, file in self.memory.bucket.keys.items()}))

    def asked(self) -> Asked:
        return Asked(trio.current_time(), dict(self.ours), dict(self.puts))

    def window(self, asked: Asked, key: str) -> list[State]:
        """The states that an answer may show: of the time-to-live before it was asked for, but not before our last change till then."""
        return self._since(asked, asked.ours.get(key, 0))

    def _since(self, asked: Asked, index: int) -> list[State]:
        old = max((at for at, (when, _) in enumerate(self.history) if when <= asked.at_s - TTL), default=0)
        return [state for _, state in self.history[max(old, index) :]]

    def may_be_there(self, asked: Asked, row: str, *, there: bool) -> bool:
        """Whether a directory may be told to be there, for the sake of any key below it, or not to be."""
        if there:
            return any(key in state for key in KEYS if key.startswith(row) for state in self.window(asked, key))
        put = max((at for key, at in asked.puts.items() if key.startswith(row)), default=0)
        return any(all(not key.startswith(row) for key in state) for state in self._since(asked, put))

    # -- changes ------------------------------------------------------------------------

    async def put(self, key: str) -> None:
        await self.change(key, lambda: self.store.put(Key(key), b"%d" % next(self.versions)))
        self.puts[key] = self.ours[key]

    async def delete(self, key: str) -> None:
        await self.change(key, lambda: self.store.delete(Key(key)))

    async def change(self, key: str, act: Callable[[], Awaitable[object]]) -> None:
        try:
            await act()
        except OutcomeUnknown:
            pass
        self.ours[key] = len(self.history) - 1

    async def others_put(self, key: str) -> None:
        await self.other.put(Key(key), b"other %d" % next(self.versions))

    async def others_delete(self, key: str) -> None:
        await self.other.delete(Key(key))

    async def wait(self, seconds: float) -> None:
        """Now and then all is forgotten that nobody works on."""
        await trio.sleep(seconds)
        for _ in range(UNTOUCHED + 1 if seconds == 3 else 0):
            self.store.tables.let_go(lambda asked: False)

    # -- questions ------------------------------------------------------------------------

    async def head(self, key: str) -> None:
        asked = self.asked()
        try:
            etag: ETag | None = (await self.store.head(Key(key))).etag
        except NotFound:
            etag = None
        assert etag in [state.get(key) for state in self.window(asked, key)], f"head {key}"

    async def find(self, name: str) -> None:
        asked = self.asked()
        found = await self.store.find(name)
        if not found.is_directory:  # else an object is hidden, and may be older news
            assert (found.object and found.object.etag) in [state.get(name) for state in self.window(asked, name)], f"find {name}"
        assert self.may_be_there(asked, f"{name}/", there=found.is_directory), f"find {name}/"
        if found.marker is not None:
            assert found.marker.etag in [state.get(f"{name}/") for _, state in self.history], f"marker of {name}"

    async def list(self, stem: str) -> None:
        asked = self.asked()
        rows: list[str] = []
        after = ""
        while True:
            page = await self.store.list(stem, delimiter="/", after=after)
            for info in page.objects:
                assert info.etag in [state.get(info.key) for state in self.window(asked, info.key)], f"list {stem}: {info.key}"
            rows += [info.key for info in page.objects]
            rows += page.prefixes
            if page.next is None:
                break
            assert page.next > after
            after = page.next
        assert len(rows) == len(set(rows))
        for row in {self.row(stem, key) for key in KEYS if key.startswith(stem)}:
            if row.endswith("/") and row != stem:
                assert self.may_be_there(asked, row, there=row in rows), f"list {stem}: {row}"
            else:
                assert (row in rows) in [row in state for state in self.window(asked, row)], f"list {stem}: {row}"

    @staticmethod
    def row(stem: str, key: str) -> str:
        inner, slash, _ = key[len(stem) :].partition("/")
        return stem + inner + slash


@pytest.mark.slow
@pytest.mark.parametrize("attributes", ["list", "full"])
async def test_empty_directories_at_the_ends_of_flat_pages_stay(autojump_clock: MockClock, attributes: str) -> None:
    keys = [f"p/d{n:04}/" for n in range(2100)]
    async with remembering(keys, attributes=attributes, metadata_ttl_s=60.0) as (store, slow):
        _, prefixes = await list_all(store, "p/")
        for prefix in prefixes:
            await list_all(store, prefix)
        assert slow.counts["list"] < 20  # by flat pages
        assert [prefix for prefix in keys if not (await store.find(prefix[:-1])).is_directory] == []


async def live(attributes: str, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    world = World(attributes, seed)
    world.note()
    async with trio.open_nursery() as nursery:
        for _ in range(steps):
            act = rng.choice(["put", "delete", "others_put", "others_delete", "wait", "head", "find", "find", "list", "list"])
            what: object = {"wait": rng.choice([0.5, 3, 6, 12]), "find": rng.choice(NAMES), "list": rng.choice(STEMS)}.get(
                act, rng.choice(KEYS)
            )
            if act in ("head", "find", "list") and rng.random() < 0.5:
                nursery.start_soon(quietly, getattr(world, act), what)
            else:
                await quietly(getattr(world, act), what)
            world.store.tables.check()
    await world.store.aclose()


async def quietly(act: Callable[[object], Awaitable[None]], what: object) -> None:
    try:
        await act(what)
    except StoreError as error:
        raise AssertionError(f"{act} {what}") from error


@pytest.mark.slow
@pytest.mark.parametrize("attributes", ["list", "full"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_every_answer_was_true_within_the_time_to_live(attributes: str, seed: int) -> None:
    trio.run(live, attributes, seed, 40, clock=MockClock(autojump_threshold=0))


async def list_while_others_write(seed: int) -> None:
    """Twice: the second listing begins its pages where the first one's began."""
    rng = random.Random(seed)
    memory = MemoryStore(LIKE_S3)
    fill(memory.bucket, [f"d/f{n:05}" for n in range(24_000)])
    unsteady, other = Unsteady(memory, rng, page=PAGE_KEYS), memory.another()
    store = Remembering(unsteady, CacheOptions(attributes="list", metadata_ttl_s=rng.choice([0.5, TTL, 1000])))
    kept = {f"d/f{n:05}" for n in range(24_000) if n % 100}
    ever = set(memory.bucket.keys)

    async def write() -> None:
        while True:
            key = Key(f"d/f{rng.randrange(240) * 100:05}{rng.choice(['', '', '-new'])}")
            ever.add(key)
            try:
                match rng.randrange(4):
                    case 0:
                        await store.put(key, b"ours")
                    case 1:
                        await store.delete(key)
                    case 2:
                        await other.put(key, b"other")
                    case 3:
                        await other.delete(key)
            except OutcomeUnknown:
                pass
            await trio.sleep(rng.choice([0, 0.1, 1]))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(write)
        for _ in range(2):
            objects, _ = await list_all(store, "d/")
            told = [info.key for info in objects]
            assert told == sorted(set(told))
            assert kept <= set(told) <= ever
            store.tables.check()
        nursery.cancel_scope.cancel()
    assert unsteady.most > 1
    await store.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_pages_listed_side_by_side_lose_and_repeat_nothing_that_was_there_throughout(seed: int) -> None:
    trio.run(list_while_others_write, seed, clock=MockClock(autojump_threshold=0))

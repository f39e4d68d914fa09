"""The conformance suite, applied to every store and to every wrapper."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.store.api import EVERYTHING, Capabilities, ObjectStore
from s3mount.store.local import LocalStore
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import Faulty, Script
from s3mount.store.wrap.limited import Limited, Limits
from s3mount.store.wrap.retrying import Retrying
from s3mount.store.wrap.traced import Traced
from tests.store.conformance import CHECKS, GATHERED, Check, apply, lacking

ONE_AT_A_TIME = Limits(look=1, read=1, change=1, commit=1, medium=1)

Make = Callable[[Engine, str], ObjectStore]

IN_MEMORY: dict[str, Callable[[], ObjectStore]] = {
    "memory": MemoryStore,
    "memory-like-s3": lambda: MemoryStore(LIKE_S3),
    "retrying": lambda: Retrying(MemoryStore()),
    "limited": lambda: Limited(MemoryStore(), ONE_AT_A_TIME),
    "faulty": lambda: Faulty(MemoryStore(), Script()),
    "traced": lambda: Traced(MemoryStore()),
    "all-wrappers": lambda: Traced(Retrying(Limited(Faulty(MemoryStore(LIKE_S3), Script())))),
}

ON_DISK: dict[str, Make] = {
    "local": LocalStore,
    "local-durable": lambda engine, bucket: LocalStore(engine, bucket, durable=True),
    "local-wrapped": lambda engine, bucket: Traced(Retrying(Limited(LocalStore(engine, bucket)))),
}


class Engines:
    """One for each store, with a bucket for each check: to open, check and close it takes longer than most checks of the suite."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engines: dict[str, Engine] = {}
        self._numbers = itertools.count()

    def bucket(self, name: str) -> tuple[Engine, str]:
        """The engine of the store *name*, and an empty bucket in it."""
        if name not in self._engines:
            self._engines[name] = Engine.open(self._folder / name)
        bucket = f"bucket-{next(self._numbers)}"
        self._engines[name].create_bucket(bucket)
        return self._engines[name], bucket

    def close(self) -> list[str]:
        """What is wrong with any of them."""
        problems = [f"{name}: {problem}" for name, engine in self._engines.items() for problem in engine.check()]
        for engine in self._engines.values():
            engine.close()
        return problems


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    engines = Engines(tmp_path_factory.mktemp("engines"))
    yield engines
    assert engines.close() == []


# Nothing in these is new over "local" and all wrappers around memory: they are for `make test`, not for every `make check`.
QUICK = ("memory", "all-wrappers", "local")
SLOW = tuple(name for name in (*IN_MEMORY, *ON_DISK) if name not in QUICK)


@pytest.fixture(params=[*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
async def store(request: pytest.FixtureRequest, engines: Engines) -> AsyncIterator[ObjectStore]:
    name = request.param
    store = IN_MEMORY[name]() if name in IN_MEMORY else ON_DISK[name](*engines.bucket(name))
    yield store
    await store.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_conformance(check: Check, store: ObjectStore) -> None:
    await apply(check, store)


@pytest.mark.parametrize("can", [EVERYTHING, replace(EVERYTHING, durable=False)], ids=["durable", "lazy"])
def test_memory_and_local_stores_skip_nothing(can: Capabilities) -> None:
    """But for what only matters over a network."""
    assert [check.name for check in CHECKS if set(lacking(check, can)) - {"early_parts"}] == []


async def test_the_stores_have_the_capabilities_that_are_said_to_skip_nothing(engines: Engines) -> None:
    engine, bucket = engines.bucket("local")
    assert MemoryStore().capabilities == EVERYTHING
    assert LocalStore(engine, bucket).capabilities == replace(EVERYTHING, durable=False, changes=True)
    assert LocalStore(engine, bucket, durable=True).capabilities == replace(EVERYTHING, durable=True, changes=True)


def test_every_capability_that_a_check_asks_for_is_asked_for_by_its_name() -> None:
    for check in CHECKS:
        assert all(isinstance(getattr(EVERYTHING, name), bool) for name in check.needs), check.name


def test_no_two_checks_have_the_same_name() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))
    assert {check.run.__module__ for check in CHECKS} == {module.__name__ for module in GATHERED}

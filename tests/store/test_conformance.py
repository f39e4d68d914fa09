"""The conformance suite, applied to every store and to every wrapper."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from s3mount.store.api import ObjectStore
from s3mount.store.memory import EVERYTHING, LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import Faulty, Script
from s3mount.store.wrap.limited import Limited, Limits
from s3mount.store.wrap.retrying import Retrying
from s3mount.store.wrap.traced import Traced
from tests.store.conformance import CHECKS, GATHERED, Check, apply, lacking

ONE_AT_A_TIME = Limits(look=1, read=1, change=1, commit=1, medium=1)

STORES: dict[str, Callable[[], ObjectStore]] = {
    "memory": MemoryStore,
    "memory-like-s3": lambda: MemoryStore(LIKE_S3),
    "retrying": lambda: Retrying(MemoryStore()),
    "limited": lambda: Limited(MemoryStore(), ONE_AT_A_TIME),
    "faulty": lambda: Faulty(MemoryStore(), Script()),
    "traced": lambda: Traced(MemoryStore()),
    "all-wrappers": lambda: Traced(Retrying(Limited(Faulty(MemoryStore(LIKE_S3), Script())))),
}


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    store = STORES[request.param]()
    yield store
    await store.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_conformance(check: Check, store: ObjectStore) -> None:
    await apply(check, store)


def test_a_store_that_can_do_everything_skips_nothing() -> None:
    assert [check.name for check in CHECKS if lacking(check, EVERYTHING)] == []


def test_every_capability_that_a_check_asks_for_is_asked_for_by_its_name() -> None:
    for check in CHECKS:
        assert all(isinstance(getattr(EVERYTHING, name), bool) for name in check.needs), check.name


def test_no_two_checks_have_the_same_name() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))
    assert {check.run.__module__ for check in CHECKS} == {module.__name__ for module in GATHERED}

"""The reference model again, while renamed directories are still on their way: nobody can tell."""

from __future__ import annotations

import os
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.fs import rename
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import Fault, Faulty
from tests.conftest import ExpectLogs
from tests.fs.mounted import RW, Mounted
from tests.model.test_model import Pair, Step, steps

# A copy takes up to so long, a step of the sequence up to half of it: most renames meet one that is under way.
COPY_S = 4.0
OTHERS = ("put", "delete", "move")


@pytest.fixture(autouse=True)
def attributes_may_come_too_late(expect_logs: ExpectLogs) -> None:
    """For an object that another client has replaced meanwhile, as content may; that is told."""
    expect_logs(
        "The attributes of .* are given up: .* replaced by somebody else",
        "is given up uncommitted: .* (exists already|was replaced or removed by somebody else)",
    )


@dataclass
class MovingPair(Pair):
    """A mount with a background, of a store whose copies and deletions take their time."""

    seed: int = 0
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    met: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rng = random.Random(self.seed)
        self.mount = Mounted(Faulty(self.store, self.plan))

    def plan(self, asked: Op) -> Fault:
        slow = asked.verb in ("copy", "delete", "update")
        return Fault(delay=self.rng.uniform(0, COPY_S), reply_delay=self.rng.uniform(0, COPY_S)) if slow else Fault()

    async def begin(self) -> None:
        nursery = await self.stack.enter_async_context(trio.open_nursery())
        self.stack.callback(nursery.cancel_scope.cancel)
        await nursery.start(self.mount.fs.run)

    async def step(self, name: str, args: tuple[object, ...]) -> None:
        moving = self.mount.fs._volume.moving
        assert moving is not None
        if name in OTHERS:
            await moving.settle()  # what others do below a name that is still on its way is seen late
        await super().step(name, args)
        self.met += not moving.overlay.idle
        await trio.sleep(self.rng.uniform(0, COPY_S / 2))
        self.mount.fs.check()

    async def remount(self) -> None:
        await self.forget()
        while self.handles:
            await self.close(0)
        await self.stack.aclose()
        self.stack = AsyncExitStack()
        self.mount = await self.mount.remount()
        self.model.kept.clear()
        await self.begin()

    def compare_bodies(self) -> None:
        """A key on its way has two objects."""


def run(sequence: list[Step], seed: int) -> int:
    async def main() -> int:
        pair = MovingPair(MemoryStore(LIKE_S3), seed=seed)
        try:
            await pair.begin()
            for name, args in sequence:
                await pair.step(name, args)
            await pair.remount()
            await pair.compare()
            Pair.compare_bodies(pair)
        finally:
            await pair.stack.aclose()
        return pair.met

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rename, "ANSWER_KEYS", 0)
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.slow
@settings(max_examples=150)
@given(steps(), st.integers(0, 1000))
def test_random_operations_agree_with_the_model_while_directories_move(sequence: list[Step], seed: int) -> None:
    run([("put", ("a/a", b"x")), ("put", ("a/b/a", b"y")), ("rename", ("a", "b", True)), *sequence], seed)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@settings(max_examples=20_000)
@given(steps(), st.integers(0, 1 << 30))
def test_very_many_random_operations_agree_with_the_model_while_directories_move(sequence: list[Step], seed: int) -> None:
    run([("put", ("a/a", b"x")), ("put", ("a/b/a", b"y")), ("rename", ("a", "b", True)), *sequence], seed)


@pytest.mark.parametrize("seed", range(6))
def test_another_clients_object_is_seen_while_ours_is_on_its_way_with_new_attributes(seed: int) -> None:
    """Regression: it was taken for the copy by which the attributes are changed, and reading it was ESTALE."""
    sequence: list[Step] = [("put", ("a/a", b"x")), ("put", ("a/b/a", b"y")), ("rename", ("a", "b", True))]
    run([*sequence, ("chmod", ("b/b/a", 0o600)), ("put", ("b/b/a", b"x"))], seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_tree_is_renamed_again_and_again_before_it_has_arrived(seed: int) -> None:
    sequence: list[Step] = [("put", ("a/a", b"x")), ("put", ("a/b/a", b"y")), ("put", ("a/b/b", b"z"))]
    sequence += [("rename", (one, other, True)) for one, other in (("a", "b"), ("b/b", "a"), ("a", "b/b"), ("b", "a"))]
    sequence += [("open", ("a/a", RW | os.O_TRUNC)), ("write", (0, 0, b"new")), ("rename", ("a", "b", True)), ("close", (0,))]
    assert run(sequence, seed) >= 3

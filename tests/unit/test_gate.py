"""Commits keep off moving names, and late answers are told."""

from __future__ import annotations

import trio
import trio.testing

from s3mount.fs.gate import CHANGES_REMEMBERED, Changes, Gate, covers


def test_a_prefix_covers_what_lies_below_and_a_key_only_itself() -> None:
    assert covers("a/", "a/b")
    assert covers("a/", "a/")
    assert not covers("a/", "a")
    assert not covers("a", "a/b")
    assert covers("a", "a")


async def test_a_move_waits_for_those_below_and_holds_up_new_ones() -> None:
    gate, done = Gate(), list[str]()

    async def use(key: str, release: trio.Event) -> None:
        await gate.wait_free(lambda: key)
        with gate.using(key):
            done.append(f"use {key}")
            await release.wait()

    async def move(name: str) -> None:
        async with gate.moving(lambda: (name,)):
            done.append(f"move {name}")
            await trio.testing.wait_all_tasks_blocked()

    first, rest = trio.Event(), trio.Event()
    rest.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, "d/a", first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(move, "d/")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(use, "d/b", rest)
        nursery.start_soon(use, "e", rest)
        nursery.start_soon(move, "d/sub/")
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["use d/a", "use e"]
        gate.check()
        first.set()
    assert done[2] == "move d/"
    assert sorted(done[3:]) == ["move d/sub/", "use d/b"]
    assert gate.idle


async def test_who_waited_asks_again_what_the_key_is_called() -> None:
    gate, names = Gate(), {"key": "old"}
    async with trio.open_nursery() as nursery, gate.moving(lambda: ("old", "new")):
        nursery.start_soon(gate.wait_free, lambda: names["key"])
        await trio.testing.wait_all_tasks_blocked()
        names["key"] = "elsewhere"
    assert await gate.wait_free(lambda: names["key"]) == "elsewhere"


async def test_a_cancelled_move_leaves_nothing_behind() -> None:
    gate = Gate()
    with gate.using("k"):
        with trio.move_on_after(0):
            async with gate.moving(lambda: ("k",)):
                raise AssertionError
        assert await gate.wait_free(lambda: "k") == "k"
    assert gate.idle


def test_a_key_is_in_doubt_only_if_it_changed_since() -> None:
    changes = Changes()
    changes.note("a")
    then = changes.now
    assert not changes.since("a", then)
    changes.note("b")
    assert not changes.since("a", then)
    assert changes.since("b", then)
    changes.note_all()
    assert changes.since("a", then)
    assert not changes.since("a", changes.now)


def test_what_is_too_old_to_be_remembered_is_in_doubt() -> None:
    changes = Changes()
    then = changes.now
    changes.note("a")
    now = changes.now
    for number in range(CHANGES_REMEMBERED):
        changes.note(str(number))
    assert changes.since("quiet", then)
    assert not changes.since("quiet", now)

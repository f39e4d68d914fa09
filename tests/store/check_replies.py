"""Checks: what happens when replies get lost, requests fail, or callers go away in mid-request.

Each puts `Faulty` and `Retrying` around the store under test: what is checked is that the store leaves the proofs that resolving a lost
reply needs.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from s3mount.errors import AlreadyExists, NotFound, OutcomeUnknown, PreconditionFailed
from s3mount.model import Absent, Key, Matches
from s3mount.store.api import COMMIT_ID, Commit, ObjectStore
from s3mount.store.wrap.faulty import Fault, Faulty, Script, lost_reply, lost_request, seeded
from s3mount.store.wrap.retrying import Policy, Retrying
from tests.store.registry import InMemory, conforms, edited, keys_of, own_metadata, pattern, read, whole

K = Key("key")

# Real seconds: the suite runs on the real clock, as stores with threads need it.
QUICK = Policy(base=0.0001, cap=0.001, budget=30.0)


def patient(store: ObjectStore, script: Script) -> Retrying:
    return Retrying(Faulty(store, script), QUICK, rng=random.Random(1))


@conforms()
async def a_lost_reply_is_resolved_by_the_commit_id(store: ObjectStore) -> None:
    script = Script()
    faulty = Faulty(store, script)
    script.add("put", lost_reply(), lost_request())
    with pytest.raises(OutcomeUnknown):
        await faulty.put(K, b"data", Commit(commit_id="happened"))
    assert ((await store.head(K)).metadata or {})[COMMIT_ID] == "happened"
    with pytest.raises(OutcomeUnknown):
        await faulty.put(K, b"data", Commit(commit_id="did not"))
    assert ((await store.head(K)).metadata or {})[COMMIT_ID] == "happened"


Mutation = Callable[[Retrying], Awaitable[object]]


async def _settles(store: ObjectStore, verb: str, mutate: Mutation, *, gone: bool = False, expected: bytes = b"new") -> None:
    """*mutate* succeeds once, whichever of its messages got lost; each round begins with K holding b"old"."""
    for faults in ([lost_reply()], [lost_request()], [lost_request(), lost_reply()], [lost_request(), lost_request()]):
        await store.put(K, b"old", Commit(metadata={"v": "old"}))
        script = Script()
        script.add(verb, *faults)
        await mutate(patient(store, script))
        assert script.used_up
        if gone:
            assert await keys_of(store) == []
        else:
            assert await read(store, K) == expected
        await store.delete(K)


@conforms()
async def a_put_survives_lost_messages(store: ObjectStore) -> None:
    await _settles(store, "put", lambda s: s.put(K, b"new"))


@conforms("conditional_put")
async def an_edit_survives_lost_messages(store: ObjectStore) -> None:
    async def edit(s: Retrying) -> None:
        base = await store.head(K)
        info = await s.adopt(K, edited(base, 1, InMemory(b"NEW")), Commit(condition=Matches(base.etag), file_id=base.file_id))
        assert info.size == 4

    await _settles(store, "adopt", edit, expected=b"oNEW")


@conforms("conditional_put")
async def a_creation_survives_lost_messages(store: ObjectStore) -> None:
    async def create(s: Retrying) -> None:
        await store.delete(K)
        await s.put(K, b"new", Commit(condition=Absent()))

    await _settles(store, "put", create)


@conforms()
async def an_adoption_survives_lost_messages(store: ObjectStore) -> None:
    await _settles(store, "adopt", lambda s: s.adopt(K, whole(InMemory(b"new")), Commit()))


@conforms()
async def a_copy_survives_lost_messages(store: ObjectStore) -> None:
    await store.put(Key("source"), b"new")

    async def copy(s: Retrying) -> None:
        await s.copy(Key("source"), K, commit=Commit())

    await _settles(store, "copy", copy)
    await _settles(store, "copy", lambda s: s.copy(Key("source"), K))


@conforms()
async def an_update_survives_lost_messages(store: ObjectStore) -> None:
    async def update(s: Retrying) -> None:
        base = await store.head(K)
        info = await s.update(K, {"v": "new"}, if_match=base.etag)
        assert own_metadata(info) == {"v": "new"}

    await _settles(store, "update", update, expected=b"old")


@conforms()
async def a_delete_survives_lost_messages(store: ObjectStore) -> None:
    async def delete(s: Retrying) -> None:
        await s.delete(K, if_match=(await store.head(K)).etag)

    await _settles(store, "delete", delete, gone=True)
    await _settles(store, "delete_many", lambda s: s.delete_many([K]), gone=True)


@conforms()
async def a_completion_survives_lost_messages(store: ObjectStore) -> None:
    async def upload(s: Retrying) -> None:
        begun = await s.create_upload(K)
        await s.complete_upload(begun, [await s.put_part(begun, 1, b"new")])

    for verb in ("create_upload", "put_part", "complete_upload"):
        await _settles(store, verb, upload)


@conforms("conditional_put")
async def a_refusal_is_no_success_even_in_doubt(store: ObjectStore) -> None:
    there = await store.put(K, b"theirs")
    script = Script()
    script.add("put", lost_request(), lost_request())
    retrying = patient(store, script)
    with pytest.raises(AlreadyExists):
        await retrying.put(K, b"ours", Commit(condition=Absent()))
    await store.put(K, b"newer")
    with pytest.raises(PreconditionFailed):
        await retrying.put(K, b"ours", Commit(condition=Matches(there.etag)))
    assert await read(store, K) == b"newer"


@conforms("atomic_rename")
async def a_doubtful_rename_is_not_repeated(store: ObjectStore) -> None:
    await store.put(K, b"data")
    script = Script()
    script.add("rename", lost_reply(), lost_request())
    retrying = patient(store, script)
    with pytest.raises(OutcomeUnknown):
        await retrying.rename(K, Key("b"))
    assert await keys_of(store) == ["b"]
    with pytest.raises(OutcomeUnknown):
        await retrying.rename(Key("b"), K)
    assert await keys_of(store) == ["b"]


@conforms()
async def a_storm_of_faults_changes_nothing_in_the_end(store: ObjectStore) -> None:
    rng = random.Random(11)
    stormy = Retrying(Faulty(store, seeded(12, rate=0.4)), QUICK, rng=random.Random(13))
    model: dict[str, bytes] = {}
    for step in range(120):
        key = Key(f"k{rng.randrange(6)}")
        match rng.randrange(5):
            case 0 | 1:
                model[key] = pattern(rng.choice((1, 100, 20_000)), step)
                await stormy.put(key, model[key])
            case 2:
                await stormy.delete(key)
                model.pop(key, None)
            case 3 if key in model:
                base = await stormy.head(key)
                edit = edited(base, 0, InMemory(b"!"))
                await stormy.adopt(key, edit, Commit(condition=Matches(base.etag), file_id=base.file_id))
                model[key] = b"!" + model[key][1:]
            case _:
                target = Key(f"k{rng.randrange(6)}")
                if key in model and target != key:
                    await stormy.copy(key, target)
                    model[target] = model[key]
        assert await keys_of(store) == sorted(model), step
    for name, data in model.items():
        assert await read(store, Key(name)) == data


# -- cancellation -------------------------------------------------------------------------


@conforms()
async def a_cancelled_mutation_happened_whole_or_not_at_all(store: ObjectStore) -> None:
    for number, size in enumerate((10, 50_000)):
        await store.put(K, b"old")
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.put(K, pattern(size, number))
        assert await read(store, K) in (b"old", pattern(size, number))


async def _read_at_last(store: ObjectStore, key: Key) -> bytes:
    """As `read`, though the object is replaced between its look and its bytes."""
    while True:
        try:
            return await read(store, key)
        except PreconditionFailed:
            continue


@conforms()
async def a_mutation_cancelled_on_its_way_leaves_the_store_in_order(store: ObjectStore) -> None:
    contents = {pattern(30_000, number) for number in range(20)} | {b"old"}
    await store.put(K, b"old")
    for number in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.put, K, pattern(30_000, number))
            for _ in range(number % 5):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert await _read_at_last(store, K) in contents
    while await _read_at_last(store, K) != b"usable":
        # What was cancelled may still arrive, after what was put later.
        await store.put(K, b"usable")


@conforms()
async def a_caller_that_gave_up_waiting_for_the_reply_finds_its_commit(store: ObjectStore) -> None:
    never = trio.Event()
    script = Script()
    script.add("put", Fault(reply_delay=3600.0), Fault(until=never))
    faulty = Faulty(store, script)
    for commit_id, happened in (("first", True), ("second", False)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(faulty.put, K, commit_id.encode(), Commit(commit_id=commit_id))
            while happened and (await store.find(K)).object is None:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert ((await store.head(K)).metadata or {})[COMMIT_ID] == "first"


@conforms()
async def a_cancelled_read_leaves_the_store_in_order(store: ObjectStore) -> None:
    await store.put(K, pattern(100_000))
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await read(store, K)
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.pin(K)
    assert await read(store, K) == pattern(100_000)
    with pytest.raises(NotFound):
        await store.head(Key("absent"))

"""Commits that are slow, fail, are cancelled, or whose reply is lost; and what goes on meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from s3mount.errors import AlreadyExists, NoSpace, NotFound, OutcomeUnknown, Stale, StoreError, Throttled, TimedOut, Unavailable
from s3mount.fs import staging
from s3mount.fs.buffers import BufferPool
from s3mount.fs.content import WHOLE_BYTES, FileContent
from s3mount.fs.layers import LAZY_LOGS, Layers
from s3mount.fs.staging import StagingArea, StagingFile
from s3mount.model import Absent, ETag, Key, KiB, MiB, ObjectInfo
from s3mount.store.api import EVERYTHING, Pin
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import Fault, Faulty, lost_reply, lost_request, seeded
from tests.fs.content_kit import KEY, Rig, bytes_of, rewrite, write_over

SMALL, LARGE = 1000, 3 * WHOLE_BYTES
SENT_BY = {SMALL: "put", LARGE: "adopt"}
sizes = pytest.mark.parametrize("size", [SMALL, LARGE])


@pytest.fixture(params=["everything", "like S3"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    return Rig(MemoryStore(EVERYTHING if request.param == "everything" else LIKE_S3), tmp_path)


async def during_a_commit(
    rig: Rig, content: FileContent, do: Callable[[], Awaitable[object]], *, verb: str, refusal: StoreError | None = None
) -> None:
    """Run *do* while the commit of *content* waits at the store, which then answers *refusal*."""
    until = trio.Event()
    rig.script.add(verb, Fault(until=until, before=refusal))

    async def commit() -> None:
        if refusal is None:
            await content.commit(rig.target)
            return
        with pytest.raises(type(refusal)):
            await content.commit(rig.target)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit)
        await trio.testing.wait_all_tasks_blocked()
        await do()
        content.check()
        until.set()


# -- meanwhile ------------------------------------------------------------------------------


@sizes
async def test_reads_and_writes_go_on_while_a_commit_is_sent(rig: Rig, size: int) -> None:
    content = rig.content()
    await content.write(0, b"a" * size)

    async def go_on() -> None:
        await content.write(0, b"later")
        await content.truncate(size + 10)
        assert (await bytes_of(content))[:7] == b"lateraa"
        assert (content.size, content.changed) == (size + 10, True)

    await during_a_commit(rig, content, go_on, verb=SENT_BY[size])
    assert await rig.object() == b"a" * size
    assert (content.changed, content.size) == (True, size + 10)
    assert await bytes_of(content) == b"later" + b"a" * (size - 5) + bytes(10)
    await content.commit(rig.target)
    assert await rig.object() == b"later" + b"a" * (size - 5) + bytes(10)
    await rig.leave(content)


@sizes
async def test_cutting_and_growing_while_a_commit_is_sent_leaves_zeros(rig: Rig, size: int) -> None:
    content = await rig.stored(b"k" * size)
    await content.write(10, b"staged")

    async def cut() -> None:
        await content.truncate(12)
        await content.truncate(20)

    await during_a_commit(rig, content, cut, verb=SENT_BY[size])
    assert await bytes_of(content) == b"k" * 10 + b"st" + bytes(8)
    await content.commit(rig.target)
    assert await rig.object() == b"k" * 10 + b"st" + bytes(8)
    await rig.leave(content)


@sizes
async def test_emptying_while_a_commit_is_sent_makes_the_next_one_a_full_overwrite(rig: Rig, size: int) -> None:
    content = await rig.stored(b"k" * size)
    await content.write(0, b"edit")

    async def empty() -> None:
        await content.truncate(0)
        assert content.untouched
        assert content.base is None

    await during_a_commit(rig, content, empty, verb=SENT_BY[size])
    assert (content.changed, content.untouched, content.base) == (True, True, None)
    await content.write(0, b"mine")
    await rig.another_client_puts(b"theirs")
    await content.commit(rig.target)
    assert await rig.object() == b"mine"
    await rig.leave(content)


@sizes
async def test_a_second_commit_waits_and_sends_only_what_came_since(rig: Rig, size: int) -> None:
    content = rig.content()
    await content.write(0, b"a" * size)
    release, results = trio.Event(), []
    rig.script.add(SENT_BY[size], Fault(until=release))

    async def commit() -> None:
        results.append(await content.commit(rig.target))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(commit)
        await trio.testing.wait_all_tasks_blocked()
        assert not results
        release.set()
    assert results[0] == results[1] == results[2] == content.base
    await rig.leave(content)


async def test_a_threaded_write_under_way_is_part_of_the_commit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    content = rig.content()
    await content.write(0, b"a" * MiB)
    go_on, write_now = trio.Event(), StagingFile._write_now

    def slowly(self: StagingFile, parts: list[tuple[int, memoryview]]) -> None:
        trio.from_thread.run(go_on.wait)
        write_now(self, parts)

    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(StagingFile, "_write_now", slowly)
            nursery.start_soon(content.write, MiB, b"b" * MiB)
            nursery.start_soon(content.write, 0, b"c" * 300 * KiB)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(content.commit, rig.target)
        await trio.testing.wait_all_tasks_blocked()
        await content.write(0, b"late")
        assert (await bytes_of(content))[:5] == b"latea"
        go_on.set()
    content.check()
    assert await rig.object() == b"c" * 300 * KiB + b"a" * (MiB - 300 * KiB) + b"b" * MiB
    await rig.leave(content)


async def test_where_the_store_drops_the_old_version_reads_wait_for_the_new_one(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    rig = Rig(MemoryStore(LIKE_S3), tmp_path)
    content = await rig.stored(b"k" * LARGE)
    await content.write(0, b"edit")
    former, read = content.base, list[bytes]()
    rig.script.add("adopt", Fault(reply_delay=5))

    async def reader() -> None:
        read.append(bytes(await content.read(LARGE - 5, 10)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.commit, rig.target)
        await trio.testing.wait_all_tasks_blocked()
        assert former is not None
        assert (await rig.memory.head(KEY)).etag != former.etag
        nursery.start_soon(reader)
    assert read == [b"kkkkk"]
    await rig.leave(content)


# -- failures -------------------------------------------------------------------------------


@sizes
async def test_a_failed_commit_keeps_the_bytes_and_the_reason_until_one_succeeds(rig: Rig, size: int) -> None:
    content = await rig.stored(b"k" * size)
    await content.write(3, b"first")
    refusal = Unavailable("The store does not answer.")

    async def write_more() -> None:
        await content.write(5, b"second")

    await during_a_commit(rig, content, write_more, verb=SENT_BY[size], refusal=refusal)
    content.check()
    assert (content.error, content.changed) == (refusal, True)
    expected = b"kkkfisecond" + b"k" * (size - 11)
    assert await bytes_of(content) == expected
    assert await rig.object() == b"k" * size
    await content.commit(rig.target)
    assert (content.error, content.changed) == (None, False)
    assert await rig.object() == await bytes_of(content) == expected
    await rig.leave(content)


async def test_a_failed_overwrite_stays_an_overwrite(rig: Rig) -> None:
    content = await rig.stored(b"old")
    await content.truncate(0)
    await content.write(0, b"mine")
    rig.script.add("put", Fault(before=NoSpace("The disk is full.")))
    with pytest.raises(NoSpace):
        await content.commit(rig.target)
    await rig.another_client_puts(b"theirs")
    await content.commit(rig.target)
    assert await rig.object() == b"mine"
    await rig.leave(content)


async def test_a_new_file_whose_name_was_taken_meanwhile_fails_as_it_was_asked(rig: Rig) -> None:
    rig.condition = Absent()
    content = rig.content()
    await content.write(0, b"mine")
    await rig.another_client_puts(b"theirs")
    with pytest.raises(AlreadyExists):
        await content.commit(rig.target)
    assert await rig.object() == b"theirs"
    await rig.leave(content)


# -- lost replies ---------------------------------------------------------------------------


@sizes
@pytest.mark.parametrize("fault", [lost_reply(), lost_request(), Fault(after=TimedOut("No answer.")), Fault(before=TimedOut("No answer."))])
@pytest.mark.parametrize("edit", [True, False])
async def test_after_a_lost_reply_the_commit_has_happened_once(rig: Rig, size: int, fault: Fault, edit: bool) -> None:
    content = await rig.stored(b"k" * size) if edit else rig.content()
    rig.condition = None if edit else Absent()
    await content.write(size - 4, b"mine")
    rig.script.add(SENT_BY[size], fault)
    await content.commit(rig.target)
    assert rig.script.used_up
    assert not content.changed
    assert (await rig.object())[-4:] == b"mine"
    await content.write(0, b"more")
    rig.condition = None
    await content.commit(rig.target)
    assert (await rig.object())[:4] == b"more"
    await rig.leave(content)


@sizes
@pytest.mark.parametrize("fault", [lost_reply(), lost_request()])
async def test_when_even_looking_fails_the_next_commit_finds_out(rig: Rig, size: int, fault: Fault) -> None:
    content = await rig.stored(b"k" * size)
    await content.write(0, b"mine")
    rig.script.add(SENT_BY[size], fault)
    rig.script.add("head", Fault(before=Unavailable("Gone.")), Fault(before=Unavailable("Still gone.")))
    with pytest.raises(OutcomeUnknown):
        await content.commit(rig.target)
    assert isinstance(content.error, OutcomeUnknown)
    with pytest.raises(Unavailable):
        await content.commit(rig.target)
    assert isinstance(content.error, Unavailable)
    await content.write(4, b"!")
    content.check()
    await content.commit(rig.target)
    content.check()
    assert content.error is None
    assert (await rig.object())[:6] == b"mine!k"
    await rig.leave(content)


async def test_what_was_in_doubt_and_happened_is_not_sent_again(rig: Rig) -> None:
    content = await rig.stored(b"old")
    await content.write(0, b"mine")
    rig.script.add("put", lost_reply(), Fault(before=Unavailable("Must not be asked.")))
    rig.script.add("head", Fault(before=Unavailable("Gone.")))
    with pytest.raises(OutcomeUnknown):
        await content.commit(rig.target)
    info = await content.commit(rig.target)
    assert not rig.script.used_up
    assert info == content.committed == await rig.memory.head(KEY)
    await rig.leave(content)


async def test_after_a_lost_request_somebody_elses_version_is_not_overwritten(rig: Rig) -> None:
    content = await rig.stored(b"old")
    await content.write(0, b"mine")
    rig.script.add("put", lost_request())
    rig.script.add("head", Fault(before=Unavailable("Gone.")))
    with pytest.raises(OutcomeUnknown):
        await content.commit(rig.target)
    await rig.another_client_puts(b"theirs")
    with pytest.raises(Stale):
        await content.commit(rig.target)
    assert await rig.object() == b"theirs"
    await rig.leave(content)


async def test_an_overwrite_found_out_later_is_followed_by_edits(rig: Rig) -> None:
    content = await rig.stored(b"old")
    await content.truncate(0)
    await content.write(0, b"mine")
    rig.script.add("put", lost_reply())
    rig.script.add("head", Fault(before=Unavailable("Gone.")))
    with pytest.raises(OutcomeUnknown):
        await content.commit(rig.target)
    await content.commit(rig.target)
    await content.write(0, b"edit")
    await rig.another_client_puts(b"theirs")
    with pytest.raises(Stale):
        await content.commit(rig.target)
    await rig.leave(content)


# -- cancellations --------------------------------------------------------------------------


@sizes
@pytest.mark.parametrize("happened", [True, False])
async def test_a_cancelled_commit_is_resolved_by_the_next_one(
    rig: Rig, size: int, happened: bool, autojump_clock: trio.testing.MockClock
) -> None:
    content = await rig.stored(b"k" * size)
    await content.write(0, b"mine")
    rig.script.add(SENT_BY[size], Fault(reply_delay=60) if happened else Fault(delay=60))
    with trio.move_on_after(1) as scope:
        await content.commit(rig.target)
    assert scope.cancelled_caught
    content.check()
    assert content.changed
    assert (await rig.object())[:4] == (b"mine" if happened else b"kkkk")
    await content.write(4, b"!")
    await content.commit(rig.target)
    content.check()
    assert (await rig.object())[:6] == b"mine!k"
    await rig.leave(content)


@sizes
async def test_a_commit_cancelled_while_it_pins_the_new_version_has_happened(
    rig: Rig, size: int, autojump_clock: trio.testing.MockClock
) -> None:
    content = await rig.stored(b"k" * size)
    await content.write(0, b"mine")
    rig.script.add("pin", Fault(delay=60))
    with trio.move_on_after(1):
        await content.commit(rig.target)
    content.check()
    assert not content.changed
    assert (await bytes_of(content))[:6] == b"minekk"
    await content.write(4, b"!")
    await content.commit(rig.target)
    assert (await rig.object())[:6] == await content.read(0, 6) == b"mine!k"
    await rig.leave(content)


@sizes
async def test_a_new_version_replaced_before_it_is_pinned_can_be_read_on_where_versions_are_kept(rig: Rig, size: int) -> None:
    content = rig.content()
    await content.write(0, b"mine" + b"k" * (size - 4))
    until = trio.Event()
    rig.script.add("pin", Fault(until=until))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.commit, rig.target)
        await trio.testing.wait_all_tasks_blocked()
        await rig.another_client_puts(b"theirs")
        until.set()
    content.check()
    assert not content.changed
    if rig.store.capabilities.versions or size == SMALL:
        assert await bytes_of(content) == b"mine" + b"k" * (size - 4)
    else:
        with pytest.raises(Stale):
            await bytes_of(content)
    await content.write(0, b"x")
    with pytest.raises(Stale):
        await content.commit(rig.target)
    await rig.leave(content)


async def test_a_cancelled_write_has_not_happened(rig: Rig) -> None:
    content = rig.content()
    await content.write(0, b"a" * MiB)
    with trio.CancelScope() as scope:
        scope.cancel()
        await content.write(0, b"b" * MiB)
    content.check()
    assert await bytes_of(content) == b"a" * MiB
    await rig.leave(content)


# -- all at once ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_many_tasks_and_a_store_that_fails_at_random_lose_nothing(
    rig: Rig, seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Each task owns a stripe of the file; commits fail, are lost and cancelled; in the end every stripe is in the object."""
    rng, stripe = random.Random(seed), 100 * KiB
    rig.store = Faulty(rig.memory, seeded(seed, rate=0.2, slowest=2))
    content = rig.content()
    model = bytearray(4 * stripe)
    await content.truncate(len(model))

    async def write_stripe(at: int) -> None:
        for _ in range(25):
            offset = at + rng.randrange(stripe - 400)
            data = rng.randbytes(rng.choice([1, 50, 400]))
            write_over(model, offset, data)
            await content.write(offset, data)
            with suppress(Unavailable, Throttled):
                assert bytes(await content.read(offset, len(data))) == data
            await trio.sleep(rng.uniform(0, 1))

    async def commit() -> None:
        for _ in range(12):
            with trio.move_on_after(rng.uniform(0, 6)), suppress(Unavailable, Throttled, OutcomeUnknown):
                await content.commit(rig.target)
            content.check()
            await trio.sleep(rng.uniform(0, 1))

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(write_stripe, number * stripe)
        nursery.start_soon(commit)
        nursery.start_soon(commit)
    while content.changed:
        with suppress(Unavailable, Throttled, OutcomeUnknown):
            await content.commit(rig.target)
    assert await rig.object() == bytes(model)
    await content.aclose()


async def test_little_commits_do_not_pin_each_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(MemoryStore(EVERYTHING), tmp_path)
    pins = 0
    pin = rig.store.pin

    async def counted(key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        nonlocal pins
        pins += 1
        return await pin(key, if_match=if_match, known=known)

    monkeypatch.setattr(rig.store, "pin", counted)
    model = bytearray(b"k" * LARGE)
    content = await rig.stored(bytes(model))
    edits = random.Random(1)
    for number in range(3 * LAZY_LOGS):
        offset = edits.randrange(LARGE)
        await rewrite(content, model, offset, b"%04d" % number)
        await content.commit(rig.target)
        content.check()
        assert await bytes_of(content) == model
        assert await rig.object() == model
    assert 3 <= pins <= 5
    await rig.leave(content)


async def test_a_commit_of_much_pins_the_new_version_and_gives_the_staged_bytes_back(tmp_path: Path) -> None:
    rig = Rig(MemoryStore(EVERYTHING), tmp_path)
    content = await rig.stored(b"k" * 4 * MiB)
    await content.write(MiB, b"e" * 2 * MiB)
    await content.commit(rig.target)
    assert rig.area.memory == 0
    assert not os.listdir(tmp_path)
    assert await bytes_of(content) == b"k" * MiB + b"e" * 2 * MiB + b"k" * MiB
    await rig.leave(content)


# -- what most files are ----------------------------------------------------------------------


async def test_what_was_written_in_one_piece_is_sent_as_it_lies_in_its_log(rig: Rig) -> None:
    layers = Layers(rig.store, rig.area, BufferPool(), base=None)
    await layers.write(0, memoryview(b"a" * SMALL))
    frozen = layers.freeze()
    whole = layers.in_one(frozen)
    assert bytes(whole or b"") == b"a" * SMALL
    assert layers.in_one(frozen) is whole
    layers.thaw()
    await layers.aclose()


@pytest.mark.parametrize("places", [[(10, 5)], [(0, 5), (5, 5), (2, 1), (20, 1)], [(5, 5), (0, 5)]])
async def test_what_lies_otherwise_than_it_is_read_is_not_sent_as_it_lies(rig: Rig, places: list[tuple[int, int]]) -> None:
    content, model = rig.content(), bytearray()
    for number, (offset, size) in enumerate(places):
        await rewrite(content, model, offset, bytes([number + 1]) * size)
    await content.commit(rig.target)
    assert await rig.object() == model
    await rig.leave(content)


async def test_a_small_file_takes_its_memory_once_while_it_is_sent_and_after(rig: Rig) -> None:
    rig.area = StagingArea(None)
    content, taken = rig.content(), []
    await content.write(0, b"a" * SMALL)

    async def look() -> None:
        taken.append(rig.area.memory)

    await during_a_commit(rig, content, look, verb="put")
    assert (taken, rig.area.memory) == ([SMALL], SMALL)
    await content.write(SMALL, b"b")
    await content.commit(rig.target)
    assert await bytes_of(content) == b"a" * SMALL + b"b"
    assert await rig.object() == b"a" * SMALL + b"b"
    await content.aclose()
    assert rig.area.memory == 0


async def test_between_what_a_write_shows_and_its_end_nobody_else_runs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: what it left nothing of was removed in a thread first; a commit in that moment took an older part for true."""
    monkeypatch.setattr(staging, "UNLINK_BYTES", 0)
    layers = Layers(rig.store, StagingArea(None), BufferPool(), base=None)
    size = staging.MEMORY_BYTES + 1
    await layers.write(0, memoryview(bytes(size)))
    layers.freeze()
    layers.thaw()
    with trio.testing.assert_no_checkpoints():
        await layers.write(0, memoryview(b"x" * size))
    assert len(layers.files) == 2
    await layers.drop_overwritten()
    assert len(layers.files) == 1
    layers.check()
    await layers.aclose()


async def test_layers_close_at_once_unless_something_is_pinned(rig: Rig) -> None:
    layers = Layers(rig.store, rig.area, BufferPool(), base=None)
    await layers.write(0, memoryview(b"a" * SMALL))
    assert layers.close_nowait()
    assert layers.close_nowait()
    assert rig.area.memory == 0
    based = Layers(rig.store, rig.area, BufferPool(), base=await rig.memory.put(KEY, b"a" * SMALL))
    await based.pin()
    assert not based.close_nowait()
    assert based.pinned
    await based.aclose()


async def test_closing_waits_for_the_commit_under_way(rig: Rig) -> None:
    content, closed = rig.content(), trio.Event()
    await content.write(0, b"a" * SMALL)

    async def close() -> None:
        await content.aclose()
        closed.set()

    async def begin_to_close() -> None:
        closing.start_soon(close)
        await trio.testing.wait_all_tasks_blocked()
        assert not closed.is_set()

    async with trio.open_nursery() as closing:
        await during_a_commit(rig, content, begin_to_close, verb="put")
    assert await rig.object() == b"a" * SMALL
    assert rig.area.memory == 0


async def test_a_new_file_that_the_store_finds_no_place_for_is_named_in_its_error(rig: Rig) -> None:
    """Regression: "None was replaced or removed by somebody else"."""
    content = rig.content()
    await content.write(0, b"new")
    rig.script.add("put", Fault(before=NotFound("No such place.")))
    with pytest.raises(Stale, match=f"^{KEY!r} was replaced or removed"):
        await content.commit(rig.target)
    content.check()

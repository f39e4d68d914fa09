"""Parts that go while a file is written, and the commits that find them there."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
import trio.testing

from s3mount.errors import AccessDenied, AlreadyExists, NoSuchUpload, OutcomeUnknown, Stale, StoreError, Unavailable, Unsupported
from s3mount.fs import early, grid
from s3mount.fs.attrs import AttrChange, read_time
from s3mount.fs.content import FileContent
from s3mount.fs.early import PACE_S, WAITING_PARTS, EarlyUpload, Uploads
from s3mount.fs.slots import EACH_BYTES, Slots
from s3mount.fs.upload import START_PARTS
from s3mount.fs.width import LEAST, MOST, Width
from s3mount.model import Absent, GiB, Key, KiB, MiB
from s3mount.store.api import Commit
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty, lost_reply, lost_request, seeded
from tests.fs.content_kit import Rig, bytes_of, resize, rewrite, write_over
from tests.fs.mounted import Mounted

# Parts of a size that many of fit into a test; how large they are is tried in tests/unit/test_grid.py.
PART = 256 * KiB


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("PART_BYTES", PART), ("LEAST_PART", PART * 5 // 8), ("COPY_BYTES", 32 * PART), ("MIXED_BYTES", 4 * PART)):
        monkeypatch.setattr(grid, name, size)
    monkeypatch.setattr(early, "PART_BYTES", PART)
    monkeypatch.setattr(early, "LEAST_PART", PART * 5 // 8)


@dataclass
class Kit(Rig):
    """`asked`: the verbs of the requests so far."""

    early: bool = True
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.store = Faulty(self.memory, self._noted)
        # As many at once whatever a busy machine makes of the time that a part takes.
        self.uploads = Uploads(self.store, slots=Slots(Width(most=LEAST)))

    def _noted(self, op: Op) -> Fault:
        self.asked.append(op.verb)
        return self.script(op)

    def count(self, verb: str) -> int:
        return self.asked.count(verb)

    @property
    def fetched(self) -> int:
        """Requests for bytes."""
        return self.count("get_into") + self.count("pin.get_into")

    @property
    def open_uploads(self) -> int:
        """Uploads that nobody completed or aborted."""
        return len(self.memory.bucket.uploads)

    @property
    def parts_there(self) -> int:
        return sum(len(receiving.parts) for receiving in self.memory.bucket.uploads.values())

    async def parts_arrive(self, number: int) -> None:
        await until(lambda: self.parts_there == number)
        await self.quiet()

    async def quiet(self) -> None:
        assert self.uploads is not None
        slots = self.uploads.slots
        await until(lambda: not slots.taken)
        await trio.testing.wait_all_tasks_blocked()


async def until(happened: Callable[[], bool]) -> None:
    while not happened():
        await trio.lowlevel.checkpoint()


@pytest.fixture
def rig(tmp_path: Path) -> Kit:
    return Kit(MemoryStore(LIKE_S3), tmp_path)


@asynccontextmanager
async def background(rig: Kit) -> AsyncIterator[Uploads]:
    assert rig.uploads is not None
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.uploads.run)
        yield rig.uploads
        nursery.cancel_scope.cancel()
    assert rig.uploads.slots.taken == rig.uploads.slots.used == 0


async def write_all(content: FileContent, data: bytes, *, step: int = 64 * KiB) -> None:
    for at in range(0, len(data), step):
        await content.write(at, data[at : at + step])
    content.check()


def material(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# -- the way that all goes well --------------------------------------------------------------


async def test_full_parts_go_while_the_file_is_written_and_the_commit_sends_the_tail(rig: Kit) -> None:
    data = material(6 * PART + 100)
    async with background(rig):
        content = rig.content()
        await write_all(content, data)
        await rig.parts_arrive(6)
        info = await content.commit(rig.target)
        assert rig.count("put_part") == 7
        assert (rig.count("create_upload"), rig.count("complete_upload"), rig.count("adopt")) == (1, 1, 0)
        assert await rig.object() == await bytes_of(content) == data
        assert (info.size, content.changed, content.committed) == (len(data), False, info)
        assert not rig.open_uploads
        await rig.leave(content)


@pytest.mark.parametrize("size", [100, 200 * KiB, START_PARTS * PART - 1])
async def test_a_file_of_few_parts_goes_at_close(rig: Kit, size: int) -> None:
    async with background(rig):
        content = rig.content()
        await write_all(content, material(size))
        await rig.quiet()
        assert rig.asked == []
        await content.commit(rig.target)
        assert rig.count("create_upload") == 0
        assert await rig.object() == material(size)
        await rig.leave(content)


async def test_without_a_background_the_commit_sends_everything(rig: Kit) -> None:
    content = rig.content()
    await write_all(content, material(6 * PART))
    await rig.quiet()
    assert rig.asked == []
    await content.commit(rig.target)
    assert await rig.object() == material(6 * PART)
    await rig.leave(content)


async def test_an_emptied_object_written_anew_goes_in_parts(rig: Kit) -> None:
    async with background(rig):
        content = await rig.stored(material(2 * PART))
        await content.truncate(0)
        await write_all(content, material(5 * PART, 2))
        await rig.parts_arrive(5)
        await content.commit(rig.target)
        assert rig.count("complete_upload") == 1
        assert await rig.object() == material(5 * PART, 2)
        await rig.leave(content)


# -- edits -----------------------------------------------------------------------------------


async def test_full_parts_of_what_is_appended_go_while_it_is_written_and_the_rest_is_copied(rig: Kit) -> None:
    """20 MiB and 5 parts of 8, at this test's scale: of the base, what shares a part with the first bytes appended is fetched."""
    base, more = material(5 * PART // 2), material(5 * PART, 2)
    async with background(rig):
        content = await rig.stored(base)
        for at in range(0, len(more), PART // 8):
            await content.write(len(base) + at, more[at : at + PART // 8])
        await rig.parts_arrive(4)
        assert (rig.count("put_part"), rig.count("copy_part"), rig.fetched) == (4, 0, 0)
        info = await content.commit(rig.target)
        assert (rig.count("put_part"), rig.count("copy_part"), rig.fetched) == (6, 2, 1)
        assert (rig.count("complete_upload"), rig.count("adopt")) == (1, 0)
        assert await rig.object() == await bytes_of(content) == base + more
        assert (info.size, content.changed, content.committed) == (len(base + more), False, info)
        assert not rig.open_uploads
        await rig.leave(content)


async def test_what_is_appended_to_a_base_of_whole_parts_fetches_nothing(rig: Kit) -> None:
    base, more = material(40 * PART), material(6 * PART + 10, 2)
    async with background(rig):
        content = await rig.stored(base)
        for at in range(0, len(more), PART // 2):
            await content.write(len(base) + at, more[at : at + PART // 2])
        await rig.parts_arrive(6)
        await content.commit(rig.target)
        assert (rig.count("put_part"), rig.fetched, rig.count("adopt")) == (7, 0, 0)
        assert rig.count("copy_part") < 40
        assert await rig.object() == base + more
        await rig.leave(content)


async def test_full_parts_of_a_middle_that_is_rewritten_go_while_it_is_written(rig: Kit) -> None:
    data, piece = bytearray(material(20 * PART)), material(5 * PART, 2)
    async with background(rig):
        content = await rig.stored(bytes(data))
        for at in range(0, len(piece), PART // 4):
            await content.write(6 * PART + 5 + at, piece[at : at + PART // 4])
        await rig.parts_arrive(4)
        write_over(data, 6 * PART + 5, piece)
        await content.commit(rig.target)
        assert (rig.count("put_part"), rig.count("adopt")) == (6, 0)
        assert await rig.object() == await bytes_of(content) == data
        await rig.leave(content)


async def test_an_edit_at_both_ends_of_a_large_object_copies_what_lies_between_in_large_parts(
    rig: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: each of its cells was copied by itself, up to 5000."""
    monkeypatch.setattr(early, "FEW_COPIES", 16)
    data = bytearray(material(32 * PART))
    async with background(rig):
        content = await rig.stored(bytes(data))
        for at in (0, 1, 2, 3, 28, 29, 30, 31):
            await rewrite(content, data, at * PART, material(PART, at))
        await rig.parts_arrive(8)
        await content.commit(rig.target)
        assert (rig.count("copy_part"), rig.count("adopt"), rig.open_uploads) == (0, 1, 0)
        assert await rig.object() == data
        await rig.leave(content)


async def test_after_a_commit_in_between_the_next_parts_go_on_top_of_it(rig: Kit) -> None:
    data = material(12 * PART)
    async with background(rig):
        content = rig.content()
        await write_all(content, data[: 6 * PART])
        await content.commit(rig.target)
        for at in range(6 * PART, 12 * PART, PART):
            await content.write(at, data[at : at + PART])
        await rig.parts_arrive(6)
        await content.commit(rig.target)
        assert (rig.count("put_part"), rig.count("complete_upload"), rig.count("adopt")) == (12, 2, 0)
        assert await rig.object() == data
        await rig.leave(content)


async def test_what_was_written_of_the_base_after_its_parts_went_is_in_the_object(rig: Kit) -> None:
    base = bytearray(material(10 * PART))
    async with background(rig):
        content = await rig.stored(bytes(base))
        for at in range(10, 16):
            await rewrite(content, base, at * PART, material(PART, at))
        await rig.parts_arrive(6)
        for at in (3, 11 * PART + 7, 16 * PART):
            await rewrite(content, base, at, b"changed")
        await rig.quiet()
        assert rig.count("put_part") == 6
        await content.commit(rig.target)
        assert rig.count("put_part") == 6 + 3
        assert rig.count("adopt") == 0
        assert await rig.object() == base
        await rig.leave(content)


async def test_an_upload_that_had_better_not_be_completed_sends_no_more_and_the_commit_begins_anew(rig: Kit) -> None:
    base = bytearray(material(60 * PART))
    async with background(rig):
        content = await rig.stored(bytes(base))
        for at in range(60, 64):
            await rewrite(content, base, at * PART, material(PART, at))
        await rig.parts_arrive(4)
        await rewrite(content, base, 20 * PART, b"in the middle")
        for at in range(64, 70):
            await rewrite(content, base, at * PART, material(PART, at))
        await rig.quiet()
        assert rig.count("put_part") == 4
        await content.commit(rig.target)
        assert (rig.count("complete_upload"), rig.count("adopt")) == (0, 1)
        assert await rig.object() == base
        await rig.quiet()
        assert not rig.open_uploads
        await rig.leave(content)


@pytest.mark.parametrize("moment", ["before the commit", "before the completion"])
async def test_an_edit_of_an_object_that_somebody_else_replaced_is_refused(rig: Kit, moment: str) -> None:
    async with background(rig):
        content = await rig.stored(material(6 * PART))
        for at in range(6, 12):
            await content.write(at * PART, material(PART, at))
        await rig.parts_arrive(6)
        if moment == "before the commit":
            await rig.another_client_puts(b"theirs")
            with pytest.raises(Stale):
                await content.commit(rig.target)
        else:
            gate = trio.Event()
            rig.script.add("complete_upload", Fault(until=gate))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_is_stale, content, rig)
                await until(lambda: rig.count("complete_upload") == 1)
                await rig.another_client_puts(b"theirs")
                gate.set()
        assert await rig.object() == b"theirs"
        await rig.leave(content)
        await rig.quiet()
        assert not rig.open_uploads


async def _is_stale(content: FileContent, rig: Kit) -> None:
    with pytest.raises(Stale):
        await content.commit(rig.target)


async def test_an_upload_that_was_begun_before_its_object_got_other_metadata_or_tags_is_given_up(rig: Kit) -> None:
    data = material(12 * PART)
    async with background(rig):
        content = await rig.stored(data[: 6 * PART])
        for at in range(6 * PART, 12 * PART, PART):
            await content.write(at, data[at : at + PART])
        await rig.parts_arrive(6)
        assert content.base is not None
        await content.rebase(await rig.memory.update(rig.key, {"a": "b"}), former=content.base.etag)
        await until(lambda: not rig.open_uploads)
        await content.commit(rig.target)
        assert rig.count("complete_upload") == 0
        assert await rig.object() == data
        await rig.leave(content)


async def test_a_copy_that_fails_keeps_the_parts_for_the_next_try(rig: Kit) -> None:
    data = material(12 * PART)
    async with background(rig):
        content = await rig.stored(data[: 6 * PART])
        for at in range(6 * PART, 12 * PART, PART):
            await content.write(at, data[at : at + PART])
        await rig.parts_arrive(6)
        rig.script.add("copy_part", Fault(before=Unavailable("Injected.")))
        with pytest.raises(Unavailable):
            await content.commit(rig.target)
        content.check()
        await content.commit(rig.target)
        assert (rig.count("put_part"), rig.count("adopt")) == (6, 0)
        assert await rig.object() == data
        await rig.leave(content)


async def test_an_edit_where_the_store_copies_no_parts_goes_at_close(tmp_path: Path) -> None:
    rig = Kit(MemoryStore(replace(LIKE_S3, part_copy=False)), tmp_path)
    async with background(rig):
        content = await rig.stored(material(2 * PART))
        for at in range(2, 8):
            await content.write(at * PART, material(PART))
        await rig.quiet()
        await content.commit(rig.target)
        assert rig.count("create_upload") == 0
        await rig.leave(content)


async def test_a_store_that_turns_out_to_copy_no_parts_is_sent_everything_anew(rig: Kit) -> None:
    """Regression: the commit of an edit failed for good."""
    data = material(12 * PART)
    async with background(rig):
        content = await rig.stored(data[: 6 * PART])
        for at in range(6 * PART, 12 * PART, PART):
            await content.write(at, data[at : at + PART])
        await rig.parts_arrive(6)
        rig.script.add("copy_part", Fault(before=Unsupported("Injected.")))
        await content.commit(rig.target)
        assert rig.count("adopt") == 1
        assert await rig.object() == data
        assert not rig.open_uploads
        await rig.leave(content)


# -- what changes after it went --------------------------------------------------------------


async def test_a_store_that_takes_no_part_twice_is_sent_everything_anew(rig: Kit) -> None:
    """Regression: `rclone serve s3` has sent a part on by the time that it changes; the commit failed for good."""
    data = bytearray(material(6 * PART))
    async with background(rig):
        content = rig.content()
        await write_all(content, bytes(data))
        await rig.parts_arrive(6)
        await rewrite(content, data, 100, b"changed")
        rig.script.add("put_part", Fault(before=Unsupported("Injected.")))
        await content.commit(rig.target)
        assert rig.count("adopt") == 1
        assert await rig.object() == data
        assert not rig.open_uploads
        await rig.leave(content)


async def test_a_write_far_ahead_makes_no_part_go_again_that_others_filled_meanwhile(rig: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: the kernel writes back out of order; parts between the end of then and what was written went twice."""
    data, gate = material(6 * PART), trio.Event()
    async with background(rig):
        content = rig.content()
        write = content._layers.write

        async def held(offset: int, piece: memoryview) -> None:
            if offset == 5 * PART:
                await gate.wait()
            await write(offset, piece)

        monkeypatch.setattr(content._layers, "write", held)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(content.write, 5 * PART, data[5 * PART :])
            await trio.testing.wait_all_tasks_blocked()
            await write_all(content, data[: 5 * PART])
            await rig.parts_arrive(5)
            gate.set()
        await rig.parts_arrive(6)
        await content.commit(rig.target)
        assert (rig.count("put_part"), rig.count("adopt")) == (6, 0)
        assert await rig.object() == data
        await rig.leave(content)


async def test_only_the_part_that_was_changed_goes_again(rig: Kit) -> None:
    data = bytearray(material(6 * PART))
    async with background(rig):
        content = rig.content()
        await write_all(content, bytes(data))
        await rig.parts_arrive(6)
        await rewrite(content, data, 2 * PART + 5, b"changed")
        await rig.quiet()
        assert rig.count("put_part") == 6
        await content.commit(rig.target)
        assert rig.count("put_part") == 7
        assert await rig.object() == data
        await rig.leave(content)


async def test_a_part_overwritten_while_it_is_sent_is_not_what_the_commit_takes(rig: Kit) -> None:
    data = bytearray(material(5 * PART))
    gate = trio.Event()
    rig.script.add("put_part", *[Fault(until=gate)] * 5)
    async with background(rig):
        content = rig.content()
        await write_all(content, bytes(data))
        await until(lambda: rig.count("put_part") == 5)
        await rewrite(content, data, 0, b"late")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(content.commit, rig.target)
            await trio.testing.wait_all_tasks_blocked()
            content.check()
            gate.set()
        assert await rig.object() == data
        await rig.leave(content)


@pytest.mark.parametrize("size", [0, 100, 3 * PART, 5 * PART + 10, 7 * PART])
async def test_a_file_cut_or_grown_after_its_parts_went_is_what_it_should_be(rig: Kit, size: int) -> None:
    data = bytearray(material(6 * PART))
    async with background(rig):
        content = rig.content()
        await write_all(content, bytes(data))
        await rig.parts_arrive(6)
        await content.truncate(size)
        resize(data, size)
        await content.commit(rig.target)
        assert await rig.object() == data
        await rig.quiet()
        assert not rig.open_uploads
        await rig.leave(content)


async def test_writes_during_the_commit_belong_to_the_next(rig: Kit) -> None:
    data = bytearray(material(6 * PART + 7))
    gate = trio.Event()
    async with background(rig):
        content = rig.content()
        await write_all(content, bytes(data))
        await rig.parts_arrive(6)
        rig.script.add("complete_upload", Fault(until=gate))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(content.commit, rig.target)
            await until(lambda: rig.count("complete_upload") == 1)
            await content.write(PART, b"next")
            await content.write(len(data), material(PART))
            content.check()
            gate.set()
        assert await rig.object() == data
        write_over(data, PART, b"next")
        data += material(PART)
        assert await bytes_of(content) == data
        await content.commit(rig.target)
        assert await rig.object() == data
        await rig.leave(content)


# -- uploads that become useless ---------------------------------------------------------------


async def test_a_renamed_file_goes_anew_under_its_new_key(rig: Kit) -> None:
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.parts_arrive(6)
        rig.key = Key("another")
        content.moved(rig.key)
        await content.commit(rig.target)
        assert await rig.object() == material(6 * PART)
        assert not rig.open_uploads
        assert rig.memory.bucket.keys.keys() == {"another"}
        await rig.leave(content)


async def test_a_condition_that_came_later_is_kept(rig: Kit) -> None:
    await rig.another_client_puts(b"theirs")
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.parts_arrive(6)
        rig.condition = Absent()
        with pytest.raises(AlreadyExists):
            await content.commit(rig.target)
        assert await rig.object() == b"theirs"
        await rig.leave(content)


async def test_an_emptied_file_leaves_no_upload(rig: Kit) -> None:
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.parts_arrive(6)
        assert rig.open_uploads == 1
        await content.truncate(0)
        await rig.quiet()
        assert rig.open_uploads < 1
        await write_all(content, material(5 * PART, 2))
        await rig.parts_arrive(5)
        assert rig.open_uploads == 1
        await content.commit(rig.target)
        assert await rig.object() == material(5 * PART, 2)
        await rig.leave(content)


@pytest.mark.parametrize("sending", [True, False])
async def test_a_file_that_is_given_up_leaves_no_upload(rig: Kit, *, sending: bool) -> None:
    if sending:
        rig.script.add("put_part", *[Fault(until=trio.Event())] * 6)
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await until(lambda: rig.count("put_part") == 6)
        assert rig.open_uploads == 1
        await rig.leave(content)
        await rig.quiet()
        assert not rig.open_uploads


async def test_a_file_given_up_while_its_upload_is_created_leaves_none(rig: Kit) -> None:
    gate = trio.Event()
    rig.script.add("create_upload", Fault(until=gate))
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.leave(content)
        gate.set()
        await rig.quiet()
        assert rig.count("create_upload") == 1
        assert not rig.open_uploads


async def test_the_end_of_the_background_leaves_the_rest_to_the_commit(rig: Kit) -> None:
    rig.script.add("put_part", *[NOTHING] * 2, *[Fault(until=trio.Event())] * 4)
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await until(lambda: rig.count("put_part") == 6 and rig.parts_there == 2)
    await content.commit(rig.target)
    assert rig.count("put_part") == 6 + 4
    assert await rig.object() == material(6 * PART)
    assert not rig.open_uploads
    await rig.leave(content)


# -- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["create_upload", "put_part"])
async def test_what_fails_in_the_background_is_sent_by_the_commit(rig: Kit, verb: str) -> None:
    rig.script.add(verb, Fault(before=Unavailable("Injected.")))
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.quiet()
        assert content.error is None
        await content.commit(rig.target)
        assert await rig.object() == material(6 * PART)
        assert not rig.open_uploads
        await rig.leave(content)


@pytest.mark.parametrize("verb", ["put_part", "complete_upload"])
async def test_an_upload_that_the_store_has_forgotten_is_begun_again_from_the_staged_bytes(rig: Kit, verb: str) -> None:
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART + 1))
        await rig.parts_arrive(6)
        rig.script.add(verb, Fault(before=NoSuchUpload("It is over.")))
        await content.commit(rig.target)
        assert await rig.object() == material(6 * PART + 1)
        await rig.leave(content)


async def test_the_lost_reply_of_a_completion_is_found_by_its_id(rig: Kit) -> None:
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.parts_arrive(6)
        rig.script.add("complete_upload", lost_reply())
        await content.commit(rig.target)
        assert (rig.count("complete_upload"), rig.count("adopt")) == (1, 0)
        assert await rig.object() == material(6 * PART)
        await rig.leave(content)


@pytest.mark.parametrize("fault", [lost_request(), lost_reply()])
async def test_a_completion_in_doubt_is_decided_by_the_next_commit(rig: Kit, fault: Fault) -> None:
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.parts_arrive(6)
        rig.script.add("complete_upload", fault)
        rig.script.add("head", Fault(before=Unavailable("Injected.")))
        with pytest.raises(OutcomeUnknown):
            await content.commit(rig.target)
        content.check()
        await content.commit(rig.target)
        assert (rig.count("put_part"), rig.count("adopt")) == (6, 0)
        assert await rig.object() == material(6 * PART)
        assert not rig.open_uploads
        await rig.leave(content)


async def test_a_file_that_is_emptied_while_a_lost_completion_is_looked_for_is_committed_as_it_was_and_then_empty(rig: Kit) -> None:
    """Regression: the second try had no upload any more, and was taken for a defect."""
    gate = trio.Event()
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.parts_arrive(6)
        rig.script.add("complete_upload", lost_request())
        rig.script.add("head", Fault(until=gate))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(content.commit, rig.target)
            await until(lambda: rig.count("head") == 1)
            await content.truncate(0)
            gate.set()
        content.check()
        assert await rig.object() == material(6 * PART)
        await content.commit(rig.target)
        assert await rig.object() == b""
        await rig.quiet()
        assert not rig.open_uploads
        await rig.leave(content)


async def test_a_completion_that_was_cancelled_is_decided_by_the_next_commit(rig: Kit) -> None:
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.parts_arrive(6)
        rig.script.add("complete_upload", Fault(until=trio.Event()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(content.commit, rig.target)
            await until(lambda: rig.count("complete_upload") == 1)
            nursery.cancel_scope.cancel()
        content.check()
        await content.commit(rig.target)
        assert await rig.object() == material(6 * PART)
        assert not rig.open_uploads
        await rig.leave(content)


async def test_what_was_written_while_a_commit_failed_is_in_the_next(rig: Kit) -> None:
    data = bytearray(material(6 * PART))
    gate = trio.Event()
    async with background(rig):
        content = rig.content()
        await write_all(content, bytes(data))
        await rig.parts_arrive(6)
        await rewrite(content, data, 0, b"former")
        rig.script.add("put_part", Fault(until=gate))
        rig.script.add("complete_upload", Fault(before=AccessDenied("Not now.")))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fail, content, rig)
            await rewrite(content, data, 3, b"latter")
            await until(lambda: rig.count("put_part") == 7)
            gate.set()
        await content.commit(rig.target)
        assert await rig.object() == data
        await rig.leave(content)


async def _fail(content: FileContent, rig: Kit) -> None:
    with pytest.raises(AccessDenied):
        await content.commit(rig.target)


async def test_a_refused_completion_keeps_its_parts_for_the_next_try(rig: Kit) -> None:
    async with background(rig):
        content = rig.content()
        await write_all(content, material(6 * PART))
        await rig.parts_arrive(6)
        rig.script.add("complete_upload", Fault(before=AccessDenied("Not now.")))
        with pytest.raises(AccessDenied):
            await content.commit(rig.target)
        content.check()
        await content.write(3, b"more")
        await content.commit(rig.target)
        assert rig.count("put_part") == 7
        assert await rig.object() == b"".join([material(6 * PART)[:3], b"more", material(6 * PART)[7:]])
        assert not rig.open_uploads
        await rig.leave(content)


# -- pace and shares --------------------------------------------------------------------------


async def test_a_writer_waits_while_too_many_of_its_parts_do_but_not_for_long(rig: Kit, autojump_clock: trio.testing.MockClock) -> None:
    rig.script.add("put_part", *[Fault(until=trio.Event())] * LEAST)
    async with background(rig):
        content = rig.content()
        began = trio.current_time()
        for at in range(LEAST + WAITING_PARTS):
            await content.write(at * PART, bytes(PART))
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == began
        await content.write((LEAST + WAITING_PARTS) * PART, bytes(PART))
        assert trio.current_time() - began == PACE_S
        await rig.leave(content)


async def test_a_writer_goes_on_as_soon_as_a_part_has_gone(rig: Kit) -> None:
    gate = trio.Event()
    rig.script.add("put_part", *[Fault(until=gate)] * LEAST)
    async with background(rig):
        content = rig.content()
        for at in range(LEAST + WAITING_PARTS):
            await content.write(at * PART, bytes(PART))
            if at >= START_PARTS:
                await until(lambda: rig.count("put_part") > START_PARTS)
        await until(lambda: rig.count("put_part") == LEAST)
        async with trio.open_nursery() as nursery:
            for at in range(2):
                nursery.start_soon(content.write, (LEAST + WAITING_PARTS + at) * PART, bytes(PART))
            await until(lambda: content.size == (LEAST + WAITING_PARTS + 2) * PART)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 2
            gate.set()
        await content.commit(rig.target)
        await rig.leave(content)


async def test_a_second_file_is_not_starved_by_the_first(rig: Kit) -> None:
    gate = trio.Event()
    rig.script.add("put_part", *[Fault(until=gate)] * LEAST)
    async with background(rig):
        first, second = rig.content(), rig.content()
        await write_all(first, material(2 * LEAST * PART), step=PART)
        await write_all(second, material(START_PARTS * PART))
        await until(lambda: rig.count("put_part") == LEAST)
        gate.set()
        await until(lambda: len(rig.memory.bucket.uploads) == 2)
        # The first to go after the gate opened are those of the file with nothing under way.
        await until(lambda: rig.parts_there == 2 * LEAST + START_PARTS)
        for content in (first, second):
            await content.aclose()


async def test_an_upload_begins_while_others_take_all_slots_and_its_commit_shares_them(rig: Kit) -> None:
    gate = trio.Event()
    rig.script.add("put_part", *[Fault(until=gate)] * LEAST)
    async with background(rig) as uploads:
        first, second = rig.content(), rig.content()
        await write_all(first, material(2 * LEAST * PART), step=PART)
        await until(lambda: rig.count("put_part") == LEAST)
        await write_all(second, material(START_PARTS * PART), step=PART)
        await until(lambda: rig.open_uploads == 2)
        assert (uploads.slots.taken, rig.count("put_part")) == (LEAST, LEAST)
        gate.set()
        await second.commit(rig.target)
        assert rig.count("adopt") == 0
        for content in (first, second):
            await content.aclose()


async def test_the_memory_of_parts_goes_when_none_is_under_way_though_the_file_is_still_written(rig: Kit) -> None:
    first, rest = trio.Event(), trio.Event()
    rig.script.add("put_part", *[Fault(until=first)] * 4, *[Fault(until=rest)] * 2)
    async with background(rig) as uploads:
        content = rig.content()
        await write_all(content, material(6 * PART))
        await until(lambda: rig.count("put_part") == 6)
        first.set()
        await until(lambda: uploads.slots.taken == 2)
        assert uploads.kept == 4 * PART
        rest.set()
        await rig.parts_arrive(6)
        assert uploads.kept == 0
        await rig.leave(content)


async def test_memory_of_small_parts_is_not_kept_beside_large_ones(rig: Kit) -> None:
    uploads = Uploads(rig.store, slots=Slots(Width(least=4, most=4), each=PART))
    parts = [uploads.buffer(PART) for _ in range(4)]
    uploads.join(EarlyUpload(uploads, rig.content()._layers, lambda: None, lambda: None))
    for buffer in parts:
        uploads.reuse(buffer)
    assert uploads.kept == 4 * PART
    uploads.slots.take_nowait(uploads, 2 * PART)
    assert (len(uploads.buffer(2 * PART)), uploads.kept) == (2 * PART, 2 * PART)
    uploads.slots.take_nowait(uploads, 2 * PART)
    uploads.reuse(parts[0])
    assert (len(uploads.buffer(2 * PART)), uploads.kept) == (2 * PART, 0)


async def test_what_a_commit_gives_back_is_for_files_that_are_still_written(rig: Kit) -> None:
    """Regression: while the last parts of a commit were under way, and its completion, nobody else's parts were begun."""
    sent, completed = trio.Event(), trio.Event()
    rig.script.add("put_part", Fault(until=sent))
    rig.script.add("complete_upload", Fault(until=completed))
    rig.uploads = Uploads(rig.store, slots=Slots(Width(least=1, most=2)))
    async with background(rig):
        first, second = rig.content(), rig.content()
        for content in (first, second):
            await write_all(content, material(START_PARTS * PART), step=PART)
        await until(lambda: rig.open_uploads == 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.commit, rig.target)
            sent.set()
            await until(lambda: rig.count("complete_upload") == 1)
            await until(lambda: rig.parts_there == 2 * START_PARTS)
            completed.set()
        await rig.quiet()
        for content in (first, second):
            await content.aclose()


class Counted(Slots):
    """`most`: as many as were taken at once."""

    most = 0

    def take_nowait(self, owner: object, size: int) -> None:
        super().take_nowait(owner, size)
        self.most = max(self.most, self.taken)


async def test_more_parts_go_at_once_where_the_store_takes_its_time_and_as_many_as_memory_holds(
    rig: Kit, autojump_clock: trio.testing.MockClock
) -> None:
    written, slots = trio.Event(), Counted(Slots.within(24 * EACH_BYTES).width)
    plans = {"put_part": Fault(delay=1.0, until=written)}
    rig.uploads = Uploads(Faulty(rig.memory, lambda op: plans.get(op.verb, NOTHING)), slots=slots)
    async with background(rig):
        content = rig.content()
        await write_all(content, bytes(2 * MOST * PART), step=PART)
        written.set()
        await content.commit(rig.target)
        assert (slots.most, slots.width.at_once) == (24, 24)
        await rig.leave(content)


@pytest.mark.parametrize(("seconds", "at_once"), [(0.3, MOST), (0.03, LEAST)])
async def test_on_a_far_store_the_first_round_is_as_wide_as_memory_holds(
    rig: Kit, autojump_clock: trio.testing.MockClock, seconds: float, at_once: int
) -> None:
    gate, slots = trio.Event(), Slots.within(4 * GiB)
    plans = {"create_upload": Fault(delay=seconds), "put_part": Fault(until=gate)}
    rig.uploads = Uploads(Faulty(rig.memory, lambda op: plans.get(op.verb, NOTHING)), slots=slots)
    async with background(rig):
        content = rig.content()
        await write_all(content, bytes((MOST + 1) * PART), step=PART)
        await trio.sleep(seconds)
        await until(lambda: slots.taken == at_once)
        await trio.testing.wait_all_tasks_blocked()
        assert slots.taken == at_once
        gate.set()
        await content.commit(rig.target)
        await rig.leave(content)


@pytest.mark.parametrize(("memory", "most"), [(0, LEAST), (64 * MiB, LEAST), (200 * MiB, 25), (256 * MiB, MOST), (4 * GiB, MOST)])
def test_memory_bounds_how_many_may_go_at_once_but_never_below_what_fills_most_lines(memory: int, most: int) -> None:
    assert Slots.within(memory).width.most == most
    assert Slots.within(memory).parts == LEAST


async def test_who_has_least_under_way_gets_the_next_slot() -> None:
    slots = Slots(Width(least=2, most=2), each=50)
    order: list[str] = []
    gates = {name: trio.Event() for name in "abc"}

    async def take(owner: str, name: str) -> None:
        async with slots.taking(owner, 10):
            order.append(name)
            await gates[owner].wait()

    async with trio.open_nursery() as nursery:
        for owner, name in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("a", "a3"), ("c", "c1")]:
            nursery.start_soon(take, owner, name)
            await trio.testing.wait_all_tasks_blocked()
        assert order == ["a1", "b1"]
        gates["b"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["a1", "b1", "c1"]
        gates["c"].set()
        gates["a"].set()
    assert (slots.taken, slots.used) == (0, 0)


@pytest.mark.parametrize(("used", "size", "fits"), [((), 500, True), ((10,), 92, True), ((10,), 93, False), ((1, 1, 1), 1, False)])
def test_parts_keep_within_number_and_memory_but_one_may_always_go(used: tuple[int, ...], size: int, *, fits: bool) -> None:
    slots = Slots(Width(least=3, most=3), each=34)
    for taken in used:
        slots.take_nowait("a", taken)
    assert slots.fits(size) is fits


async def test_a_slot_that_nobody_waits_for_any_more_is_free() -> None:
    slots = Slots(Width(least=1, most=1), each=100)
    slots.take_nowait("a", 1)
    with trio.move_on_after(0):
        async with slots.taking("b", 1):
            raise AssertionError("it was taken")
    slots.give("a", 1)
    assert (slots.taken, slots.waited_for) == (0, False)


# -- at random --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [*range(6), 71])
async def test_whatever_is_written_and_whatever_fails_each_commit_makes_the_bytes_of_its_moment(
    seed: int, tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """*caplog*: an abort that the store refuses is logged."""
    rng = random.Random(seed)
    rig = Kit(MemoryStore(LIKE_S3), tmp_path)
    faults = seeded(seed, rate=0.1 if seed % 2 else 0.0, slowest=0.5)
    data = bytearray(material(20 * PART + 5) if seed % 3 == 1 else b"")
    async with background(rig):
        content = await rig.stored(bytes(data)) if data else rig.content()
        rig.script = faults  # type: ignore[assignment]
        for _ in range(40):
            await _step(rng, content, data)
            content.check()
            if rng.random() < 0.15:
                await _commit(rng, rig, content, data)
        while content.changed:
            await _commit(rng, rig, content, data)
        rig.script = lambda op: NOTHING  # type: ignore[assignment]
        assert await rig.object() == await bytes_of(content) == data
        await rig.leave(content)
        await rig.quiet()
    # What could not be aborted because the store failed has been logged; without failures nothing is left.
    assert seed % 2 or not rig.open_uploads


async def _step(rng: random.Random, content: FileContent, data: bytearray) -> None:
    chance = rng.random()
    if chance < 0.6:
        piece = rng.randbytes(rng.choice([1000, PART // 2, PART, 2 * PART]))
        await content.write(len(data), piece)
        data += piece
    elif chance < 0.8:
        at, piece = rng.randrange(len(data) + PART), rng.randbytes(rng.randrange(1, PART))
        await rewrite(content, data, at, piece)
    elif chance < 0.9:
        size = rng.randrange(len(data) + PART)
        await content.truncate(size)
        resize(data, size)
    elif chance < 0.93:
        await content.truncate(0)
        data.clear()
    else:
        await trio.sleep(rng.uniform(0, 1))


async def _commit(rng: random.Random, rig: Kit, content: FileContent, data: bytearray) -> None:
    """A commit, and a write that comes while it is under way."""
    then, piece = bytes(data), rng.randbytes(100)
    at = rng.randrange(len(data) + 1)
    late = bytearray(then)
    write_over(late, at, piece)

    async def write_late() -> None:
        await trio.sleep(rng.uniform(0, 0.5))
        await rewrite(content, data, at, piece)

    changed = content.changed
    async with trio.open_nursery() as nursery:
        if rng.random() < 0.5:
            nursery.start_soon(write_late)
        try:
            await content.commit(rig.target)
        except StoreError:
            return
        if changed:
            found = await rig.object()
            assert found in (then, bytes(late))


# -- attributes -------------------------------------------------------------------------------


@asynccontextmanager
async def mounted(rig: Kit) -> AsyncIterator[Mounted]:
    mount = Mounted(rig.store)
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        yield mount
        await mount.fs.aclose()
        nursery.cancel_scope.cancel()


async def write_large(mount: Mounted, rig: Kit, path: str) -> int:
    """The handle of a file whose upload is open."""
    fh = await mount.create(path)
    for at in range(6):
        await mount.fs.write(fh, at * PART, bytes(PART))
    await until(lambda: rig.parts_there == 6)
    return fh


async def test_what_was_set_before_the_close_is_kept_though_the_upload_began_without_it(rig: Kit) -> None:
    async with mounted(rig) as mount:
        fh = await write_large(mount, rig, "file")
        await mount.setattr("file", AttrChange(mode=0o600, mtime_ns=5, atime_ns=6))
        await mount.close(fh)
        metadata = (await rig.memory.head(Key("file"))).metadata
        assert metadata is not None
        assert (int(metadata["mode"]) & 0o777, metadata["mtime"], metadata["atime"]) == (0o600, "0.000000005", "0.000000006")
        assert (rig.count("complete_upload"), rig.count("update")) == (1, 1)
        attr = await mount.stat("file")
        assert (attr.mode & 0o777, attr.mtime_ns) == (0o600, 5)


async def test_a_time_that_nobody_set_is_not_worth_a_copy_and_says_when_the_sending_began(rig: Kit) -> None:
    async with mounted(rig) as mount:
        fh = await write_large(mount, rig, "file")
        await mount.fs.write(fh, 6 * PART, b"end")
        await mount.close(fh)
        assert (rig.count("complete_upload"), rig.count("update")) == (1, 0)
        info = await rig.memory.head(Key("file"))
        assert info.metadata is not None
        assert (await mount.stat("file")).mtime_ns == read_time(info.metadata["mtime"])


async def test_what_is_appended_costs_no_copy_of_it_all_for_the_sake_of_times_that_nobody_set(rig: Kit) -> None:
    """Regression: the object was older than its editing, and had itself copied for that."""
    await rig.memory.put(Key("file"), material(6 * PART), Commit(metadata={"mtime": "5.000000000", "atime": "3.000000000"}))
    async with mounted(rig) as mount:
        fh = await mount.open("file", os.O_RDWR)
        for at in range(6, 12):
            await mount.fs.write(fh, at * PART, bytes(PART))
        await until(lambda: rig.parts_there == 6)
        await mount.fs.write(fh, 12 * PART, b"end")
        await mount.close(fh)
        assert (rig.count("complete_upload"), rig.count("update"), rig.count("adopt")) == (1, 0, 0)
        metadata = (await rig.memory.head(Key("file"))).metadata
        assert metadata is not None
        assert (await mount.stat("file")).mtime_ns == read_time(metadata["mtime"])
        assert metadata["atime"] == "3.000000000"


async def test_an_access_time_that_was_set_while_something_was_appended_is_kept(rig: Kit) -> None:
    await rig.memory.put(Key("file"), material(6 * PART))
    async with mounted(rig) as mount:
        fh = await mount.open("file", os.O_RDWR)
        for at in range(6, 12):
            await mount.fs.write(fh, at * PART, bytes(PART))
        await until(lambda: rig.parts_there == 6)
        await mount.setattr("file", AttrChange(atime_ns=7))
        await mount.close(fh)
        metadata = (await rig.memory.head(Key("file"))).metadata
        assert metadata is not None
        assert (metadata["atime"], rig.count("update")) == ("0.000000007", 1)


async def test_a_file_that_was_removed_sends_nothing(rig: Kit) -> None:
    async with mounted(rig) as mount:
        fh = await mount.create("file")
        await mount.unlink("file")
        for at in range(8):
            await mount.fs.write(fh, at * PART, bytes(PART))
        await rig.quiet()
        assert rig.count("create_upload") == 0
        await mount.close(fh)


async def test_a_file_removed_while_it_is_sent_sends_no_more_and_leaves_no_upload(rig: Kit) -> None:
    async with mounted(rig) as mount:
        fh = await write_large(mount, rig, "file")
        await mount.unlink("file")
        for at in range(6, 12):
            await mount.fs.write(fh, at * PART, bytes(PART))
        await rig.quiet()
        assert rig.count("put_part") == 6
        await mount.close(fh)
        await until(lambda: not rig.open_uploads)
        assert rig.memory.bucket.keys == {}

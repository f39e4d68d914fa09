"""Attributes are being saved, by a copy of the object onto itself, and meanwhile somebody reads it or replaces it. On virtual time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import AccessDenied, NoEntry, OutcomeUnknown, Stale, StoreError, Unavailable
from s3mount.fs.attrs import AttrChange
from s3mount.fs.deferred import WAIT_S
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import Fault, Faulty, Script, lost_reply
from s3mount.store.wrap.traced import Traced
from tests.cache.metadata.kit import around
from tests.conftest import ExpectLogs
from tests.fs.mounted import Mounted, body
from tests.fs.test_deferred import AnewEachTime, Rig, rigged

# A save is under way from this moment on, for as long as a fault says.
UNDER_WAY_S = WAIT_S + 0.5

GIVEN_UP = "attributes of 'f' are given up: .* replaced by somebody else"

Change = Callable[[Mounted], Awaitable[object]]


async def _tag(mount: Mounted) -> None:
    async with mount.at("f") as ino:
        await mount.fs.setxattr(ino, b"user.colour", b"red", 0)


CHANGES: dict[str, Change] = {
    "mode": lambda mount: mount.chmod("f", 0o600),
    "time": lambda mount: mount.setattr("f", AttrChange(mtime_ns=7)),
    "xattr": _tag,
}


@pytest.fixture(params=[MemoryStore, AnewEachTime], ids=["the tag stays", "another tag"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    made: MemoryStore = request.param(LIKE_S3)
    return made


async def theirs(rig: Rig, data: bytes = b"theirs") -> None:
    await rig.store.another().put(Key("f"), data)


async def opened(mount: Mounted) -> int:
    """As open(2): where the kernel is told that what it knows is another object by now, it looks the name up again, once."""
    try:
        return await mount.open("f", os.O_RDONLY)
    except Stale:
        return await mount.open("f", os.O_RDONLY)


async def read(mount: Mounted, fh: int) -> bytes:
    return bytes(await mount.fs.read(fh, 0, 1 << 20))


@pytest.mark.parametrize("before", [True, False], ids=["opened before", "opened meanwhile"])
async def test_a_file_is_read_while_its_object_is_made_anew(autojump_clock: MockClock, before: bool) -> None:
    """Regression: the copy was there, its answer was not, and what was read of the version that had gone was ESTALE."""
    async with rigged(AnewEachTime(LIKE_S3)) as rig:
        await rig.mount.write("f", b"ours")
        fh = await opened(rig.mount) if before else 0
        ino = await rig.mount.ino("f")
        rig.script.add("update", Fault(reply_delay=10))
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(UNDER_WAY_S)
        fh = fh or await opened(rig.mount)
        assert (await rig.mount.stat("f")).ino == ino
        assert await read(rig.mount, fh) == b"ours"
        await rig.mount.close(fh)
        assert (await rig.mount.stat("f")).ino == ino
        rig.mount.forget(ino)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("data", [b"theirs", b"mine"], ids=["longer", "as long"])
async def test_an_object_of_somebody_else_is_seen_while_attributes_are_saved(
    store: MemoryStore, autojump_clock: MockClock, expect_logs: ExpectLogs, change: str, data: bytes
) -> None:
    """Regression: until the answer came, whatever was there was taken for what was being made; and reading it was ESTALE."""
    expect_logs(GIVEN_UP)
    await store.put(Key("f"), b"ours")
    async with rigged(store) as rig:
        rig.script.add("update", Fault(delay=10))
        await CHANGES[change](rig.mount)
        await trio.sleep(UNDER_WAY_S)
        await theirs(rig, data)
        fh = await opened(rig.mount)
        assert trio.current_time() < 10, "not only once it is known what has become of the change"
        assert await read(rig.mount, fh) == data
        assert (await rig.mount.stat("f")).size == len(data)
        await rig.mount.close(fh)
        await trio.sleep(20)
        assert await body(store, "f") == data
        assert (await rig.mount.stat("f")).mode & 0o777 == 0o644


async def test_an_object_of_somebody_else_is_seen_behind_the_one_that_was_made(autojump_clock: MockClock) -> None:
    async with rigged(AnewEachTime(LIKE_S3)) as rig:
        await rig.mount.write("f", b"ours")
        rig.script.add("update", Fault(reply_delay=10))
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(UNDER_WAY_S)
        await theirs(rig)
        for _ in range(2):
            fh = await opened(rig.mount)
            assert await read(rig.mount, fh) == b"theirs"
            await rig.mount.close(fh)
            await trio.sleep(20)
        assert await body(rig.store, "f") == b"theirs"


async def test_a_file_that_somebody_else_removed_is_gone_while_its_attributes_are_saved(
    store: MemoryStore, autojump_clock: MockClock, expect_logs: ExpectLogs
) -> None:
    expect_logs(GIVEN_UP)
    async with rigged(store) as rig:
        await rig.mount.write("f", b"ours")
        rig.script.add("update", Fault(delay=10))
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(UNDER_WAY_S)
        await store.another().delete(Key("f"))
        with pytest.raises(NoEntry):
            await rig.mount.stat("f")
        assert await rig.mount.names() == []
        await trio.sleep(20)
        assert not store.bucket.keys


@pytest.mark.parametrize("seen", [True, False], ids=["seen by a look", "not seen before"])
@pytest.mark.parametrize("wait_s", [0, UNDER_WAY_S], ids=["waiting", "under way"])
async def test_fsync_says_that_attributes_have_no_object_any_more(
    store: MemoryStore, autojump_clock: MockClock, expect_logs: ExpectLogs, wait_s: float, seen: bool
) -> None:
    """Regression: what a look had found replaced was not asked again, and fsync said that the attributes were saved."""
    expect_logs(GIVEN_UP)
    async with rigged(store) as rig:
        await rig.mount.write("f", b"ours")
        fh = await opened(rig.mount)
        rig.script.add("update", Fault(delay=10))
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(wait_s)
        await theirs(rig)
        if seen:
            assert (await rig.mount.stat("f")).size == 6
        if not wait_s:
            with pytest.raises(Stale):
                await rig.mount.fs.fsync(fh)
        await trio.sleep(20)
        with pytest.raises(Stale):
            await read(rig.mount, fh)
        await rig.mount.fs.release(fh)
        assert await rig.mount.read("f") == b"theirs"


@pytest.mark.parametrize("tried", [0, 1], ids=["at once", "later"])
async def test_what_is_told_of_attributes_that_are_given_up_is_told_once(
    store: MemoryStore, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, tried: int
) -> None:
    async with rigged(store) as rig:
        await rig.mount.write("f", b"ours")
        if tried:
            rig.script.add("update", Fault(before=Unavailable("Away.")))
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(tried * WAIT_S + 0.1)
        await theirs(rig)
        await trio.sleep(100)
        if tried:
            assert caplog.records.pop(0).getMessage() == "The attributes of 'f' are not saved yet: Away."
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            "The attributes of 'f' are given up: The object was replaced by somebody else; open it again."
        ]
        assert await rig.mount.read("f") == b"theirs"


async def test_a_copy_whose_answer_was_lost_is_the_same_file(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Regression: until the change was tried again its own object was taken for somebody else's, and who had the file open read ESTALE."""
    async with rigged(AnewEachTime(LIKE_S3)) as rig:
        await rig.mount.write("f", b"ours")
        fh = await opened(rig.mount)
        ino = await rig.mount.ino("f")
        rig.script.add("update", lost_reply(), Fault(before=Unavailable("no")))
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(UNDER_WAY_S)
        assert (await rig.mount.stat("f")).ino == ino
        second = await opened(rig.mount)
        for handle in (fh, second):
            assert await read(rig.mount, handle) == b"ours"
            await rig.mount.close(handle)
        await trio.sleep(20)
        assert int((await rig.said("f"))["mode"]) & 0o7777 == 0o600
        rig.mount.forget(ino)
        assert "given up" not in caplog.text


@pytest.mark.parametrize("error", [AccessDenied("no"), OutcomeUnknown("who knows")], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [False, True], ids=["once", "tried again"])
async def test_an_object_that_says_nothing_of_itself_is_not_taken_for_ours(store: MemoryStore, error: StoreError, again: bool) -> None:
    """Regression: behind a change of its type that had failed, any object as long was: who had the file open read on in the other one."""
    await store.put(Key("f"), b"ours")
    async with rigged(store) as rig:
        fh = await opened(rig.mount)
        rig.script.add("set_aspect", Fault(before=error))
        async with rig.mount.at("f") as ino:
            with pytest.raises(type(error)):
                await rig.mount.fs.setxattr(ino, b"user.s3.content-type", b"text/html", 0)
            await theirs(rig, b"mine")
            if again:
                with pytest.raises(Stale):
                    await rig.mount.fs.setxattr(ino, b"user.s3.content-type", b"text/html", 0)
        second = await opened(rig.mount)
        assert await read(rig.mount, second) == b"mine"
        with pytest.raises(Stale):
            await read(rig.mount, fh)
        for handle in (fh, second):
            await rig.mount.close(handle)


@asynccontextmanager
async def only_listed() -> AsyncIterator[Rig]:
    """As `rigged`, where a look does not tell what an object says of itself."""
    store, script = AnewEachTime(LIKE_S3), Script()
    traced = Traced(Faulty(store, script))
    async with around(traced, attributes="list", metadata_ttl_s=0.0) as listing:
        mount = Mounted(listing)
        async with mount.at_work():
            yield Rig(mount, store, script, traced)
        mount.fs.check()


@pytest.mark.parametrize("faults", [[Fault(reply_delay=10)], [lost_reply(), Fault(before=Unavailable("no"))]], ids=["late", "lost"])
async def test_a_copy_is_the_same_file_where_looks_do_not_tell_what_it_says(
    autojump_clock: MockClock, expect_logs: ExpectLogs, faults: list[Fault]
) -> None:
    """Regression: it says nothing of who made it, and was taken for somebody else's."""
    if len(faults) > 1:
        expect_logs("are not saved yet")
    async with only_listed() as rig:
        await rig.mount.write("f", b"ours")
        fh = await opened(rig.mount)
        ino = await rig.mount.ino("f")
        rig.script.add("update", *faults)
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(UNDER_WAY_S)
        assert (await rig.mount.stat("f")).ino == ino
        second = await opened(rig.mount)
        for handle in (fh, second):
            assert await read(rig.mount, handle) == b"ours"
            await rig.mount.close(handle)
        rig.mount.forget(ino)


@pytest.mark.parametrize("others", [False, True])
async def test_an_edit_is_committed_behind_a_copy_whose_answer_was_lost(
    autojump_clock: MockClock, expect_logs: ExpectLogs, others: bool
) -> None:
    """Regression: it was refused, as if the copy were somebody else's."""
    expect_logs("are not saved yet", *["is given up uncommitted"] * others)
    async with rigged(AnewEachTime(LIKE_S3)) as rig:
        await rig.mount.write("f", b"ours")
        fh = await rig.mount.open("f", os.O_RDWR)
        rig.script.add("update", lost_reply())
        await rig.mount.chmod("f", 0o600)
        await trio.sleep(UNDER_WAY_S)
        if others:
            await theirs(rig, b"mine")
        await rig.mount.fs.write(fh, 1, b"ff")
        if others:
            with pytest.raises(Stale):
                await rig.mount.close(fh)
        else:
            await rig.mount.close(fh)
            assert int((await rig.said("f"))["mode"]) & 0o7777 == 0o600
        assert await body(rig.store, "f") == (b"mine" if others else b"offs")

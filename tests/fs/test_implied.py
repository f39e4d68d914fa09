"""Directories that only keys imply stay where this mount takes the last key away, whoever looks in between. On virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import NotEmpty, OutcomeUnknown, S3MountError, Unavailable
from s3mount.fs.implied import Kept
from s3mount.model import Key
from s3mount.store.api import EVERYTHING
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty
from tests.fs.mounted import Mounted

# Requests that take something away, and the seconds after which their answer comes.
REMOVING = ("delete", "delete_many", "rename", "rename_prefix")
ANSWER_S = 10.0


@pytest.fixture(params=["everything", "like S3"])
async def store(request: pytest.FixtureRequest) -> MemoryStore:
    store = MemoryStore(EVERYTHING if request.param == "everything" else LIKE_S3)
    await store.put(Key("implied/deeper/file"), b"x")
    await store.put(Key("other/file"), b"x")
    return store


@asynccontextmanager
async def under_way(action: Awaitable[None], *, seconds: float = 1.0) -> AsyncIterator[None]:
    """*action* has been going on for *seconds*, and is over at the end."""

    async def act() -> None:
        await action

    async with trio.open_nursery() as nursery:
        nursery.start_soon(act)
        await trio.sleep(seconds)
        yield


def late_answers(*verbs: str) -> Callable[[Op], Fault]:
    return lambda op: Fault(reply_delay=ANSWER_S) if op.verb in verbs else NOTHING


async def test_what_lies_on_the_way_to_a_directory_that_is_kept_is_there(store: MemoryStore) -> None:
    mount = Mounted(store)
    await mount.unlink("implied/deeper/file")
    assert await mount.names("implied/deeper") == []
    assert await mount.names("implied") == ["deeper"]
    assert await mount.names() == ["implied", "other"]
    with pytest.raises(NotEmpty):
        await mount.rmdir("implied")
    await mount.rmdir("implied/deeper")
    assert await mount.names("implied") == []
    await mount.rmdir("implied")
    assert await mount.names() == ["other"]


@pytest.mark.parametrize("looks", ["looked at", "looked up", "listed"])
@pytest.mark.parametrize("how", ["unlink", "move a file", "move a directory"])
async def test_a_directory_is_there_while_its_last_entry_goes(store: MemoryStore, how: str, looks: str, autojump_clock: MockClock) -> None:
    mount = Mounted(Faulty(store, late_answers(*REMOVING)))
    path = "implied/deeper"
    if how == "move a directory":
        path = "implied"
        action = mount.rename("implied/deeper", "other/deeper")
    else:
        action = mount.unlink("implied/deeper/file") if how == "unlink" else mount.rename("implied/deeper/file", "other/moved")
    async with mount.at(path) as ino, under_way(action):
        if looks == "looked at":
            assert (await mount.fs.getattr(ino)).nlink
        elif looks == "looked up":
            assert (await mount.stat(path)).ino == ino
        else:
            parent, name = mount.split(path)
            assert name.decode() in await mount.names(parent)
    assert (await mount.stat(path)).nlink
    assert await mount.names(path) == []


async def test_a_listing_that_was_asked_for_before_and_answered_after_tells_the_directory(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    mount = Mounted(Faulty(store, lambda op: Fault(delay=ANSWER_S) if op.verb == "list" and not op.key else NOTHING))
    told: list[str] = []

    async def look() -> None:
        told.extend(await mount.names())

    async with under_way(look()):
        await mount.unlink("implied/deeper/file")
    assert told == ["implied", "other"]


async def test_a_directory_stays_where_the_store_does_not_answer_whether_it_is_there(store: MemoryStore) -> None:
    removed = False

    def fails(op: Op) -> Fault:
        nonlocal removed
        fault = Fault(before=Unavailable("The store is away.")) if removed and op.verb == "find" else NOTHING
        removed = op.verb == "delete"
        return fault

    mount = Mounted(Faulty(store, fails))
    await mount.unlink("implied/deeper/file")
    assert await mount.names("implied/deeper") == []


async def test_a_directory_stays_where_nobody_knows_whether_its_last_file_went(store: MemoryStore) -> None:
    lost = OutcomeUnknown("The connection broke.")
    mount = Mounted(Faulty(store, lambda op: Fault(after=lost) if op.verb == "delete" else NOTHING))
    with pytest.raises(S3MountError):
        await mount.unlink("implied/deeper/file")
    assert await mount.names("implied/deeper") == []


async def test_an_empty_directory_that_could_not_be_replaced_is_still_there(store: MemoryStore) -> None:
    if store.capabilities.atomic_rename:
        pytest.skip("nothing is removed before the rename")
    await store.delete(Key("other/file"))
    mount = Mounted(Faulty(store, lambda op: Fault(before=Unavailable("The store is away.")) if op.verb == "copy" else NOTHING))
    await store.put(Key("other/empty/"), b"")
    async with mount.at("other") as ino:
        with pytest.raises(Unavailable):
            await mount.rename("implied/deeper", "other/empty")
        assert (await mount.fs.getattr(ino)).nlink
    assert await mount.names("other") == ["empty"]
    assert await mount.names("other/empty") == []
    assert await mount.names("implied/deeper") == ["file"]


def test_a_stem_is_there_as_long_as_anybody_needs_it() -> None:
    kept = Kept()
    with kept.holding("a/b/"):
        with kept.holding("a/b/", "a/c/"):
            assert sorted(kept.directly_in("a/")) == ["a/b/", "a/c/"]
        assert "a/" in kept
        assert list(kept.directly_in("a/")) == ["a/b/"]
        kept.add("a/b/")
    assert "a/b/" in kept
    assert kept.lastingly("a/b/")
    kept.move({"a/": "new/"})
    assert list(kept) == ["new/b/"]
    assert list(kept.directly_in("")) == ["new/"]
    kept.discard("new/b/")
    assert "new/" not in kept
    kept.check()

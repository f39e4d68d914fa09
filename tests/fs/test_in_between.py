"""What others see between a change in the store and the note that this mount takes of it. On virtual time."""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import MockClock

from s3mount.fs.attrs import AttrChange
from s3mount.fs.filesystem import Filesystem
from s3mount.model import ETag, Key, ObjectInfo
from s3mount.store.api import EVERYTHING, Pin
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Wrapper
from s3mount.store.wrap.faulty import Fault, Faulty
from tests.fs.mounted import ME, Mounted
from tests.fs.test_implied import late_answers, under_way


class Renewing(Wrapper):
    """Objects that are copied onto themselves are versions of their own, as those of many parts on S3. What is gone cannot be pinned."""

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        await self.inner.head(key)
        return await self.inner.pin(key, if_match=if_match, known=known)

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        await self.inner.set_aspect(key, name, value, if_match=if_match, file_id=file_id)
        assert isinstance(self.inner, MemoryStore)
        file = self.inner.bucket.keys[key]
        file.etag = ETag(f'"{file.etag}+"')
        return await self.inner.head(key)


@pytest.fixture
async def renewing() -> Renewing:
    store = Renewing(MemoryStore(LIKE_S3))
    await store.put(Key("file"), b"content")
    return store


async def test_a_file_whose_type_is_just_set_is_the_same_to_whoever_looks(renewing: Renewing, autojump_clock: MockClock) -> None:
    mount = Mounted(Faulty(renewing, late_answers("set_aspect")))
    fh = await mount.open("file", os.O_RDONLY)
    async with mount.at("file") as ino:
        async with under_way(mount.fs.setxattr(ino, b"user.s3.content-type", b"text/x-new")):
            assert (await mount.stat("file")).ino == ino
            assert (await mount.fs.getattr(ino)).ino == ino
        assert (await mount.stat("file")).ino == ino
    assert bytes(await mount.fs.read(fh, 0, 100)) == b"content"
    await mount.close(fh)


@pytest.mark.parametrize("body", [b"", b"content"])
async def test_an_open_file_whose_object_was_copied_and_then_removed_is_worked_on(renewing: Renewing, body: bytes) -> None:
    """Regression: what such a copy unpinned was to be pinned anew by the next change, though nothing of it was needed any more: ESTALE."""
    await renewing.put(Key("file"), body)
    mount = Mounted(renewing)
    fh = await mount.open("file", os.O_RDWR)
    async with mount.at("file") as ino:
        await mount.fs.setxattr(ino, b"user.s3.content-type", b"text/x-new")
        await mount.unlink("file")
        await mount.fs.setattr(ino, AttrChange(size=10), fh=fh, caller=ME)
    assert bytes(await mount.fs.read(fh, 0, 100)) == body.ljust(10, b"\0")
    await mount.close(fh)
    assert await mount.names() == []


async def test_a_link_is_made_where_its_directory_is_by_then(autojump_clock: MockClock) -> None:
    """Regression: while it waited for its file, which was being renamed, nobody held up the rename of the directory that began then."""
    delays = {"rename": 10.0, "rename_prefix": 10.0}
    mount = Mounted(Faulty(MemoryStore(EVERYTHING), lambda op: Fault(delay=delays.get(op.verb, 0.0))))
    await mount.write("file", b"x")
    await mount.mkdir("d")
    async with mount.at("file") as file, mount.at("d") as directory, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: mount.fs.rename(Filesystem.ROOT, b"file", Filesystem.ROOT, b"moved"))
        await trio.sleep(1)

        async def link() -> None:
            mount.forget((await mount.fs.link(file, directory, b"second")).ino)

        nursery.start_soon(link)
        await trio.sleep(1)
        nursery.start_soon(lambda: mount.fs.rename(Filesystem.ROOT, b"d", Filesystem.ROOT, b"e"))
        await trio.sleep(9)
        mount.fs.check()
    assert await mount.names() == ["e", "moved"]
    assert await mount.names("e") == ["second"]

"""What objects say of themselves, through the file system: asked by name, set where that can be, never listed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from s3mount.errors import Busy, Invalid, NoAttribute, NotPermitted, NotSupported, ReadOnly, Unsupported
from s3mount.model import Key
from s3mount.store.api import Commit
from s3mount.store.memory import MemoryStore
from tests.fs.mounted import Mounted

FILE = Key("dir/file")


@asynccontextmanager
async def mounted(**options: object) -> AsyncIterator[Mounted]:
    store = MemoryStore()
    await store.put(FILE, b"four", Commit(content_type="text/plain", storage_class="STANDARD_IA", metadata={"colour": "blue"}))
    mount = Mounted(store, **options)
    yield mount
    await mount.fs.aclose()


async def test_an_object_says_what_it_is_to_who_asks_by_name() -> None:
    async with mounted() as mount, mount.at(FILE) as ino:
        info = await mount.store.head(FILE)
        assert await mount.fs.getxattr(ino, b"user.s3.etag") == info.etag.encode()
        assert await mount.fs.getxattr(ino, b"user.s3.size") == b"4"
        assert await mount.fs.getxattr(ino, b"user.s3.storage-class") == b"STANDARD_IA"
        assert await mount.fs.getxattr(ino, b"user.s3.content-type") == b"text/plain"
        for name in (b"user.s3.tags", b"user.s3.presigned-url", b"user.s3.nonsense", b"user.s3."):
            with pytest.raises(NoAttribute):
                await mount.fs.getxattr(ino, name)


async def test_what_objects_say_of_themselves_is_not_listed_and_not_stored() -> None:
    async with mounted() as mount, mount.at(FILE) as ino:
        await mount.fs.setxattr(ino, b"user.s3.content-type", b"image/png")
        await mount.fs.setxattr(ino, b"user.own", b"x")
        assert await mount.fs.listxattr(ino) == [b"user.own"]
        assert "s3.content" not in str((await mount.store.head(FILE)).metadata)


async def test_a_type_and_a_class_are_set_and_the_rest_stays() -> None:
    async with mounted() as mount, mount.at(FILE) as ino:
        before = await mount.fs.getattr(ino)
        await mount.fs.setxattr(ino, b"user.s3.content-type", b"image/png")
        await mount.fs.setxattr(ino, b"user.s3.storage-class", b"GLACIER_IR")
        info = await mount.store.head(FILE)
        assert (info.content_type, info.storage_class, info.size) == ("image/png", "GLACIER_IR", 4)
        assert dict(info.metadata or {}) == {"colour": "blue"}
        assert (await mount.fs.getattr(ino)).size == before.size
        assert await mount.read(FILE) == b"four"
    assert await mount.read(FILE) == b"four"


async def test_an_open_file_goes_on_with_the_type_that_it_was_given() -> None:
    async with mounted() as mount, mount.at(FILE) as ino:
        fh = await mount.open(FILE)
        await mount.fs.setxattr(ino, b"user.s3.content-type", b"image/png")
        assert bytes(await mount.fs.read(fh, 0, 10)) == b"four"
        await mount.fs.write(fh, 4, b"teen")
        assert await mount.fs.getxattr(ino, b"user.s3.size") == b"4"
        with pytest.raises(Busy):
            await mount.fs.setxattr(ino, b"user.s3.content-type", b"image/gif")
        await mount.close(fh)
        assert await mount.fs.getxattr(ino, b"user.s3.size") == b"8"
    assert (await mount.store.head(FILE)).content_type == "image/png"


async def test_a_file_that_was_never_committed_says_nothing() -> None:
    async with mounted() as mount:
        fh = await mount.create("new")
        async with mount.at("new") as ino:
            with pytest.raises(NoAttribute):
                await mount.fs.getxattr(ino, b"user.s3.etag")
            with pytest.raises(Busy):
                await mount.fs.setxattr(ino, b"user.s3.content-type", b"image/gif")
        await mount.close(fh)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        (b"etag", b"x", NotPermitted),
        (b"anything", b"x", NotPermitted),
        (b"content-type", b"a\nb", Invalid),
        (b"storage-class", b"standard", Invalid),
        (b"tags", b"a=1", Unsupported),
    ],
)
async def test_what_cannot_be_set_is_refused(name: bytes, value: bytes, error: type[Exception]) -> None:
    async with mounted() as mount, mount.at(FILE) as ino:
        before = await mount.store.head(FILE)
        with pytest.raises(error):
            await mount.fs.setxattr(ino, b"user.s3." + name, value)
        assert await mount.store.head(FILE) == before
        with pytest.raises(NotPermitted):
            await mount.fs.removexattr(ino, b"user.s3.etag")


async def test_a_directory_says_what_its_marker_is_and_takes_no_change() -> None:
    async with mounted() as mount, mount.at("dir") as ino:
        with pytest.raises(NoAttribute):
            await mount.fs.getxattr(ino, b"user.s3.etag")
        await mount.store.put(Key("dir/"), b"")
        assert await mount.fs.getxattr(ino, b"user.s3.etag") == (await mount.store.head(Key("dir/"))).etag.encode()
        with pytest.raises(NotSupported):
            await mount.fs.setxattr(ino, b"user.s3.content-type", b"image/gif")


async def test_a_read_only_mount_tells_and_refuses() -> None:
    async with mounted(read_only=True) as mount, mount.at(FILE) as ino:
        assert await mount.fs.getxattr(ino, b"user.s3.size") == b"4"
        with pytest.raises(ReadOnly):
            await mount.fs.setxattr(ino, b"user.s3.content-type", b"image/gif")

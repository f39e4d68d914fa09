"""Directories on a service that keeps no markers of them."""

from __future__ import annotations

import pytest

from s3mount.errors import AccessDenied, InvalidName
from s3mount.model import Found, Key, ObjectInfo
from s3mount.store.api import Commit
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.s3.markers import NAME, Markers, keeps_markers
from s3mount.store.wrap.faulty import Fault, Faulty, Script
from tests.store.conformance import CHECKS, Check, apply, lacking
from tests.store.registry import keys_of

D = Key("d/")


class Files(MemoryStore):
    """A service that makes a file `d` of a marker `d/`, as `rclone serve s3` does."""

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        return await super().put(Key(key.rstrip("/")), data, commit)

    async def delete(self, key: Key, *, if_match: object = None) -> None:
        await super().delete(Key(key.rstrip("/")))


async def test_whether_a_service_keeps_markers_is_found_out_and_nothing_is_left_of_it() -> None:
    for store, keeps in ((MemoryStore(LIKE_S3), True), (Files(LIKE_S3), False)):
        assert await keeps_markers(store, "a/") is keeps
        assert await keys_of(store) == []


async def test_what_cannot_be_found_out_leaves_markers_as_they_are() -> None:
    script = Script()
    script.add("put", Fault(before=AccessDenied("Injected.")))
    assert await keeps_markers(Faulty(MemoryStore(LIKE_S3), script), "")


async def test_a_marker_is_an_object_in_its_directory_and_nobody_sees_that() -> None:
    inside = Files(LIKE_S3)
    store = Markers(inside)
    made = await store.put(D, b"", Commit(metadata={"mode": "16877"}))
    assert (made.key, (await store.head(D)).metadata) == (D, {"mode": "16877"})
    await store.put(Key("d/a"), b"a")
    assert await keys_of(inside) == [f"d/{NAME}", "d/a"]
    assert await keys_of(store) == ["d/", "d/a"]
    found = await store.find("d")
    assert (found.object, found.marker and found.marker.key, found.implied) == (None, D, True)
    await store.copy(D, Key("e/"), if_match=made.etag)
    assert await store.delete_many([D, Key("d/a")]) == []
    assert await keys_of(inside) == [f"e/{NAME}"]


async def test_the_marker_of_a_directory_is_found_beside_names_that_begin_like_its_marker() -> None:
    """Regression: with a marker behind `!a` and `!b` in order, a look at the directory did not see it."""
    store = Markers(Files(LIKE_S3))
    made = await store.put(D, b"")
    for name in ("d/!a", "d/!b", "d/!~"):
        await store.put(Key(name), b"x")
    assert await keys_of(store) == ["d/", "d/!a", "d/!b", "d/!~"]
    marker = (await store.find("d")).marker
    assert (marker and marker.etag) == made.etag


async def test_nothing_else_takes_the_place_of_a_marker() -> None:
    """Regression: a copy of what the service has, markers and all, made directories what the files are that stand for them."""
    store = Markers(Files(LIKE_S3))
    made = await store.put(D, b"", Commit(metadata={"mode": "16877"}))
    with pytest.raises(InvalidName, match="another name"):
        await store.put(Key(f"d/{NAME}"), b"", Commit(metadata={"mode": "33188"}))
    with pytest.raises(InvalidName):
        await store.delete(Key(f"d/{NAME}"))
    assert await store.find(f"d/{NAME}") == Found(None, None, implied=False)
    assert (await store.head(D)).etag == made.etag
    await store.put(Key(NAME), b"at the top")
    assert await keys_of(store) == [NAME, "d/"]


@pytest.mark.slow  # a hundred checks
@pytest.mark.parametrize("check", [check for check in CHECKS if not lacking(check, LIKE_S3)], ids=lambda check: check.name)
async def test_a_service_without_markers_is_a_store_like_any_other(check: Check) -> None:
    await apply(check, Markers(MemoryStore(LIKE_S3)))

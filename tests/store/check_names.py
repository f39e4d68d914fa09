"""Checks: names and files - rename, exchange, link, file ids, reservations."""

from __future__ import annotations

import pytest
import trio

from s3mount.errors import AlreadyExists, InvalidName, NotFound, PreconditionFailed
from s3mount.model import Absent, Key, Matches
from s3mount.store.api import Commit, ObjectStore
from tests.store.registry import InMemory, conforms, edited, keys_of, own_metadata, pattern, read, whole

A, B, C = Key("a"), Key("b"), Key("c")


async def fill(store: ObjectStore, *keys: str) -> None:
    """Objects whose content is their key, so that one sees where they went."""
    for key in keys:
        await store.put(Key(key), key.encode())


async def contents(store: ObjectStore) -> dict[str, str]:
    return {key: (await read(store, Key(key))).decode() for key in await keys_of(store)}


# -- rename -------------------------------------------------------------------------------


@conforms("atomic_rename")
async def a_rename_moves_everything_but_the_content(store: ObjectStore) -> None:
    before = await store.put(A, pattern(50_000), Commit(metadata={"x": "y"}, content_type="text/x"))
    await store.rename(A, B)
    after = await store.head(B)
    assert (after.etag, after.size, after.content_type, after.file_id) == (before.etag, 50_000, "text/x", before.file_id)
    assert own_metadata(after) == {"x": "y"}
    assert await read(store, B) == pattern(50_000)
    assert await keys_of(store) == [B]


@conforms("atomic_rename")
async def a_rename_replaces_or_is_told_not_to(store: ObjectStore) -> None:
    await fill(store, "a", "b")
    with pytest.raises(AlreadyExists):
        await store.rename(A, B, replace=False)
    assert await contents(store) == {"a": "a", "b": "b"}
    await store.rename(A, B)
    assert await contents(store) == {"b": "a"}
    await store.rename(B, C, replace=False)
    assert await contents(store) == {"c": "a"}


@conforms("atomic_rename")
async def a_rename_of_nothing_is_not_found(store: ObjectStore) -> None:
    await fill(store, "a/below", "b")
    with pytest.raises(NotFound):
        await store.rename(A, B)
    assert await contents(store) == {"a/below": "a/below", "b": "b"}


@conforms("atomic_rename")
async def a_rename_onto_itself_does_nothing(store: ObjectStore) -> None:
    await fill(store, "a")
    await store.rename(A, A)
    assert await contents(store) == {"a": "a"}
    with pytest.raises(AlreadyExists):
        await store.rename(A, A, replace=False)
    with pytest.raises(NotFound):
        await store.rename(B, B)


@conforms("atomic_rename")
async def a_rename_is_of_one_key_even_if_that_ends_with_a_slash(store: ObjectStore) -> None:
    await fill(store, "a/", "a/x", "b/x")
    await store.rename(Key("a/"), A)
    assert await contents(store) == {"a": "a/", "a/x": "a/x", "b/x": "b/x"}
    await store.rename(A, Key("b/"))
    assert await contents(store) == {"a/x": "a/x", "b/": "a/", "b/x": "b/x"}
    await store.rename(Key("b/"), Key("a/"))
    assert await contents(store) == {"a/": "a/", "a/x": "a/x", "b/x": "b/x"}


@conforms("atomic_rename")
async def a_rename_to_what_is_no_key_is_refused(store: ObjectStore) -> None:
    await fill(store, "a")
    for target in ("", "x" * 4097, "\udc80"):
        with pytest.raises(InvalidName):
            await store.rename(A, Key(target))
    assert await contents(store) == {"a": "a"}


# -- rename_prefix ------------------------------------------------------------------------


@conforms("atomic_rename")
async def a_prefix_moves_with_all_below_it_and_nothing_beside_it(store: ObjectStore) -> None:
    beside = ("d", "d-", "d0", "d\U0010ffff", "dd/x", "c/d/x")
    below = ("d/", "d/a", "d/e/f", "d/\U0001f600", "d//")
    await fill(store, *beside, *below)
    ids = {key: (await store.head(Key(key))).file_id for key in below}
    assert await store.rename_prefix("d/", "new/deep/") == len(below)
    assert await contents(store) == {key: key for key in beside} | {"new/deep/" + key[2:]: key for key in below}
    for key in below:
        assert (await store.head(Key("new/deep/" + key[2:]))).file_id == ids[key]


@conforms("atomic_rename")
async def a_prefix_moves_to_a_name_that_begins_like_it(store: ObjectStore) -> None:
    await fill(store, "d/x", "d/y")
    await store.rename_prefix("d/", "dd/")
    assert await contents(store) == {"dd/x": "d/x", "dd/y": "d/y"}
    await store.rename_prefix("dd/", "d/")
    assert await contents(store) == {"d/x": "d/x", "d/y": "d/y"}


@conforms("atomic_rename")
async def a_prefix_replaces_an_empty_directory_and_nothing_more(store: ObjectStore) -> None:
    await fill(store, "s/x", "t/", "u/", "u/y")
    for replace in (True, False):
        with pytest.raises(AlreadyExists):
            await store.rename_prefix("s/", "u/", replace=replace)
    with pytest.raises(AlreadyExists):
        await store.rename_prefix("s/", "t/", replace=False)
    assert await contents(store) == {key: key for key in ("s/x", "t/", "u/", "u/y")}
    assert await store.rename_prefix("s/", "t/") == 1
    assert await contents(store) == {"t/x": "s/x", "u/": "u/", "u/y": "u/y"}
    await fill(store, "s/", "v/")
    await store.rename_prefix("s/", "v/")
    assert (await contents(store))["v/"] == "s/"


@conforms("atomic_rename")
async def a_prefix_without_keys_is_not_found(store: ObjectStore) -> None:
    await fill(store, "s", "s0", "t/")
    with pytest.raises(NotFound):
        await store.rename_prefix("s/", "t/")
    assert await contents(store) == {key: key for key in ("s", "s0", "t/")}


@conforms("atomic_rename")
async def a_prefix_does_not_move_into_itself(store: ObjectStore) -> None:
    await fill(store, "d/x", "e")
    for source, target in (("d/", "d/"), ("d/", "d/e/"), ("d/e/", "d/"), ("d", "e/"), ("d/", "e"), ("d/", ""), ("", "d/")):
        with pytest.raises(ValueError):
            await store.rename_prefix(source, target)
    assert await contents(store) == {"d/x": "d/x", "e": "e"}


@conforms("atomic_rename")
async def a_prefix_moves_whole_or_not_at_all(store: ObjectStore) -> None:
    await fill(store, "d/x", "d/" + "y" * 3000)
    before = await contents(store)
    with pytest.raises(InvalidName):
        await store.rename_prefix("d/", "z" * 2000 + "/")
    assert await contents(store) == before


@conforms("atomic_rename")
async def nobody_sees_half_a_prefix_moved(store: ObjectStore) -> None:
    names = [f"{number:03}" for number in range(200)]
    await fill(store, *(f"old/{name}" for name in names))
    done = trio.Event()

    async def look() -> None:
        while not done.is_set():
            page = await store.list()
            tops = {info.key.partition("/")[0] for info in page.objects}
            assert len(tops) == 1
            assert len(page.objects) == 200
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        for _ in range(5):
            await store.rename_prefix("old/", "new/")
            await store.rename_prefix("new/", "old/")
        done.set()


# -- exchange -----------------------------------------------------------------------------


@conforms("atomic_rename")
async def two_objects_are_exchanged(store: ObjectStore) -> None:
    await fill(store, "a", "b")
    ids = [(await store.head(key)).file_id for key in (A, B)]
    await store.exchange(A, B)
    assert await contents(store) == {"a": "b", "b": "a"}
    assert [(await store.head(key)).file_id for key in (B, A)] == ids
    await store.exchange(A, A)
    assert await contents(store) == {"a": "b", "b": "a"}


@conforms("atomic_rename")
async def two_prefixes_are_exchanged(store: ObjectStore) -> None:
    await fill(store, "a/", "a/x", "a/y/z", "b/x", "b/w", "a0")
    await store.exchange("a/", "b/")
    assert await contents(store) == {"a/w": "b/w", "a/x": "b/x", "a0": "a0", "b/": "a/", "b/x": "a/x", "b/y/z": "a/y/z"}


@conforms("atomic_rename")
async def an_object_and_a_prefix_are_exchanged(store: ObjectStore) -> None:
    await fill(store, "file", "tree/", "tree/x")
    await store.exchange("file", "tree/")
    assert await contents(store) == {"file/": "tree/", "file/x": "tree/x", "tree": "file"}
    await store.exchange("file/", "tree")
    assert await contents(store) == {"file": "file", "tree/": "tree/", "tree/x": "tree/x"}


@conforms("atomic_rename")
async def an_exchange_with_nothing_or_with_its_own_inside_is_refused(store: ObjectStore) -> None:
    await fill(store, "a", "d/x")
    for one, other in (("a", "b"), ("b", "a"), ("a", "e/"), ("e/", "d/")):
        with pytest.raises(NotFound):
            await store.exchange(one, other)
    with pytest.raises(ValueError):
        await store.exchange("d/", "d/e/")
    assert await contents(store) == {"a": "a", "d/x": "d/x"}


# -- links and files ----------------------------------------------------------------------


@conforms("links")
async def a_link_is_a_second_name_of_the_file(store: ObjectStore) -> None:
    file = await store.put(A, b"data", Commit(metadata={"x": "y"}))
    linked = await store.link(A, Key("d/b"))
    assert (linked.key, linked.file_id, linked.etag, linked.links) == ("d/b", file.file_id, file.etag, 2)
    assert (await store.head(A)).links == 2
    assert [info.links for info in (await store.list()).objects] == [2, 2]
    await store.delete(A)
    assert (await store.head(Key("d/b"))).links == 1
    assert await read(store, Key("d/b")) == b"data"


@conforms("links")
async def a_link_onto_what_is_there_or_from_what_is_not_is_refused(store: ObjectStore) -> None:
    await fill(store, "a", "b")
    with pytest.raises(AlreadyExists):
        await store.link(A, B)
    with pytest.raises(AlreadyExists):
        await store.link(A, A)
    with pytest.raises(NotFound):
        await store.link(C, Key("d"))
    with pytest.raises(InvalidName):
        await store.link(A, Key(""))
    assert await contents(store) == {"a": "a", "b": "b"}


@conforms("links")
async def what_is_written_by_one_name_is_read_by_all(store: ObjectStore) -> None:
    file = await store.put(A, pattern(50_000))
    await store.link(A, B)
    edit = edited(file, 0, InMemory(b"edit"))
    edited_file = await store.adopt(A, edit, Commit(condition=Matches(file.etag), file_id=file.file_id))
    assert (await store.head(B)).etag == edited_file.etag
    assert (await read(store, B))[:6] == b"edit" + pattern(50_000)[4:6]
    await store.put(B, b"over", Commit(file_id=file.file_id))
    assert await read(store, A) == b"over"
    await store.update(A, {"x": "y"})
    assert own_metadata(await store.head(B)) == {"x": "y"}
    assert (await store.head(A)).links == 2


@conforms("links")
async def a_plain_put_over_a_link_leaves_the_other_name(store: ObjectStore) -> None:
    file = await store.put(A, b"shared")
    await store.link(A, B)
    new = await store.put(A, b"new")
    assert new.file_id != file.file_id
    assert await contents(store) == {"a": "new", "b": "shared"}
    assert (await store.head(B)).links == 1


@conforms("links", "atomic_rename")
async def a_rename_onto_another_link_does_nothing(store: ObjectStore) -> None:
    await fill(store, "a")
    await store.link(A, B)
    await store.rename(A, B)
    assert await contents(store) == {"a": "a", "b": "a"}
    assert (await store.head(A)).links == 2


@conforms("links", "atomic_rename")
async def a_rename_over_one_link_leaves_the_other(store: ObjectStore) -> None:
    await fill(store, "a", "b")
    await store.link(A, C)
    await store.rename(B, A)
    assert await contents(store) == {"a": "b", "c": "a"}
    assert (await store.head(C)).links == 1


@conforms("links")
async def a_file_id_may_be_chosen(store: ObjectStore) -> None:
    chosen = await store.put(A, b"data", Commit(file_id=4711))
    assert chosen.file_id == 4711
    assert (await store.head(A)).file_id == 4711
    again = await store.adopt(A, whole(InMemory(b"more")), Commit(file_id=4711))
    assert (again.file_id, again.links) == (4711, 1)
    assert (await store.put(B, b"data")).file_id not in (0, 4711)


@conforms("links")
async def another_file_put_under_a_key_takes_its_place(store: ObjectStore) -> None:
    await store.put(A, b"old", Commit(file_id=100))
    new = await store.put(A, b"new", Commit(file_id=200))
    assert new.file_id == 200
    with pytest.raises(PreconditionFailed):
        await store.put(A, b"x", Commit(condition=Matches(new.etag), file_id=100))
    assert await contents(store) == {"a": "new"}


@conforms("links", "atomic_rename", "conditional_put")
async def an_edit_finds_its_file_under_its_new_name(store: ObjectStore) -> None:
    file = await store.put(A, pattern(40_000))
    await store.rename(A, B)
    await store.put(A, b"somebody else's")
    by_id = Commit(condition=Matches(file.etag), file_id=file.file_id)
    info = await store.adopt(A, edited(file, 0, InMemory(b"edit")), by_id)
    assert (info.key, info.file_id) == (B, file.file_id)
    assert await read(store, A) == b"somebody else's"
    assert (await read(store, B))[:4] == b"edit"
    updated = await store.update(A, {"x": "y"}, file_id=file.file_id)
    assert updated.key == B
    assert own_metadata(await store.head(B)) == {"x": "y"}
    assert own_metadata(await store.head(A)) == {}


@conforms("links", "conditional_put")
async def an_edit_of_a_file_that_is_gone_is_refused(store: ObjectStore) -> None:
    file = await store.put(A, b"data")
    await store.put(A, b"another file")
    with pytest.raises(PreconditionFailed):
        await store.put(A, b"edit", Commit(condition=Matches(file.etag), file_id=file.file_id))
    with pytest.raises(NotFound):
        await store.update(A, {}, file_id=file.file_id)
    assert await read(store, A) == b"another file"


# -- reservations -------------------------------------------------------------------------


@conforms("reserve")
async def a_reserved_key_is_not_there_and_is_taken(store: ObjectStore) -> None:
    await store.reserve(A)
    with pytest.raises(NotFound):
        await store.head(A)
    assert await keys_of(store) == []
    with pytest.raises(AlreadyExists):
        await store.reserve(A)
    await store.put(A, b"data", Commit(condition=Absent()))
    assert await read(store, A) == b"data"


@conforms("reserve")
async def a_commit_or_a_release_ends_a_reservation(store: ObjectStore) -> None:
    await store.reserve(A)
    await store.put(A, b"data")
    await store.delete(A)
    await store.reserve(A)
    await store.release(A)
    await store.release(A)
    await store.release(B)
    await store.reserve(A)
    await store.release(A)


@conforms("reserve")
async def what_is_there_cannot_be_reserved(store: ObjectStore) -> None:
    await fill(store, "a", "b/x")
    with pytest.raises(AlreadyExists):
        await store.reserve(A)
    await store.reserve(B)
    with pytest.raises(InvalidName):
        await store.reserve(Key(""))


@conforms("reserve", "links", "atomic_rename")
async def nothing_new_is_named_where_a_key_is_reserved(store: ObjectStore) -> None:
    await fill(store, "a")
    await store.reserve(B)
    with pytest.raises(AlreadyExists):
        await store.link(A, B)
    with pytest.raises(AlreadyExists):
        await store.rename(A, B, replace=False)
    await store.rename(A, B)
    assert await contents(store) == {"b": "a"}
    await store.delete(B)
    await store.reserve(B)

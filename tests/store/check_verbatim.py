"""Checks: a key is what it is, whatever it would mean as a path. Each stands beside what a tidy program would make of it."""

from __future__ import annotations

from posixpath import normpath
from urllib.parse import unquote, unquote_plus

import pytest

from s3mount.errors import NotFound, Unsupported
from s3mount.model import ByteRange, Key
from s3mount.store.api import Commit, ObjectStore
from tests.store.registry import conforms, keys_of, own_metadata, read

LITERAL = (
    "a/../b",
    "a/./b",
    "./x",
    "../x",
    "x/.",
    "x/..",
    ".",
    "..",
    "/../..",
    "a//b",
    "//",
    "/lead",
    "%2e%2e/x",
    "a%2Fb",
    "a%20b",
    "a?b#c",
    "a?uploads",
    "a+b c",
    "a;b=c&d",
    "https://host/x",
    "n\u00fc/\u65e5\u672c/../\U0001f600",
)


def tidied(key: str) -> set[str]:
    """What programs are tempted to take *key* for."""
    alike = {
        normpath(key),
        normpath("/" + key),
        unquote(key),
        unquote_plus(key),
        key.lstrip("/"),
        key.replace("//", "/"),
        key.split("?")[0],
    }
    return alike - {key, "", "/"}


OTHERS = sorted({other for key in LITERAL for other in tidied(key)} - set(LITERAL))


async def _both(store: ObjectStore) -> None:
    """All of them, and all that they might be mistaken for, each with its own name for a content."""
    for key in (*OTHERS, *LITERAL):
        await store.put(Key(key), key.encode(), Commit(metadata={"of": key.encode().hex()}))


async def _whole(store: ObjectStore, *, less: tuple[str, ...] = ()) -> None:
    """Everything is there, but for *less*, and is what it was."""
    keys = {*OTHERS, *LITERAL} - set(less)
    assert await keys_of(store) == sorted(keys, key=str.encode)
    for key in keys:
        assert await read(store, Key(key)) == key.encode()
        assert own_metadata(await store.head(Key(key))) == {"of": key.encode().hex()}


@conforms()
async def a_key_is_taken_literally(store: ObjectStore) -> None:
    await _both(store)
    await _whole(store)


@conforms()
async def a_key_is_deleted_literally(store: ObjectStore) -> None:
    await _both(store)
    await store.delete_many([Key(key) for key in LITERAL[::2]])
    for key in LITERAL[1::2]:
        await store.delete(Key(key))
    await _whole(store, less=LITERAL)


@conforms()
async def a_key_is_copied_literally(store: ObjectStore) -> None:
    await _both(store)
    for key in LITERAL:
        plain, back = Key("copy/plain"), Key(f"copy/{key}")
        await store.copy(Key(key), plain)
        assert await read(store, plain) == key.encode()
        await store.copy(plain, back, commit=Commit(metadata={"back": "1"}))
        assert await read(store, back) == key.encode()
        assert own_metadata(await store.head(back)) == {"back": "1"}
    await store.delete_many([plain, *(Key(f"copy/{key}") for key in LITERAL)])
    await _whole(store)


@conforms()
async def what_an_object_says_of_itself_is_set_literally(store: ObjectStore) -> None:
    await _both(store)
    for number, key in enumerate(LITERAL):
        info = await store.update(Key(key), {"of": key.encode().hex()})
        await store.set_aspect(Key(key), "content-type", f"text/x-{number}", if_match=info.etag)
    for number, key in enumerate(LITERAL):
        assert (await store.head(Key(key))).content_type == f"text/x-{number}"
    await _whole(store)


@conforms()
async def tags_are_set_literally(store: ObjectStore) -> None:
    await _both(store)
    try:
        for number, key in enumerate(LITERAL):
            await store.set_aspect(Key(key), "tags", f"n={number}", if_match=(await store.head(Key(key))).etag)
    except Unsupported:
        return
    for number, key in enumerate(LITERAL):
        assert await store.aspect(Key(key), "tags") == f"n={number}"
    for other in OTHERS:
        assert await store.aspect(Key(other), "tags") is None


@conforms()
async def an_upload_is_of_its_key_literally(store: ObjectStore) -> None:
    for key in LITERAL:
        upload = await store.create_upload(Key(key))
        assert [(one.key, one.upload_id) for one in await store.list_uploads()] == [(key, upload.upload_id)]
        part = await store.put_part(upload, 1, key.encode())
        await store.complete_upload(upload, [part])
        await store.abort_upload(await store.create_upload(Key(key)))
    assert await keys_of(store) == sorted(LITERAL, key=str.encode)
    for key in LITERAL:
        assert await read(store, Key(key)) == key.encode()


@conforms()
async def an_absent_key_is_not_its_neighbour(store: ObjectStore) -> None:
    for other in OTHERS:
        await store.put(Key(other), b"neighbour")
    for key in LITERAL:
        with pytest.raises(NotFound):
            await store.head(Key(key))
        with pytest.raises(NotFound):
            await store.get_into(Key(key), ByteRange(0, 1), memoryview(bytearray(1)))
        with pytest.raises(NotFound):
            await store.copy(Key(key), Key("target"))
        await store.delete(Key(key))
    assert await keys_of(store) == sorted(OTHERS, key=str.encode)

"""Checks: what objects say of themselves, and which versions of them there are."""

from __future__ import annotations

import pytest

from s3mount.errors import NotFound, PreconditionFailed, Unsupported, UsageError
from s3mount.model import ETag, Key
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.aspects import told_by
from tests.store.registry import conforms, own_metadata, read

K = Key("folder/key ü+%")


@conforms()
async def an_object_says_what_its_head_says(store: ObjectStore) -> None:
    await store.put(K, b"data", Commit(content_type="text/plain"))
    info = await store.head(K)
    for name in ("etag", "size", "content-type", "storage-class", "version-id"):
        assert await store.aspect(K, name) == told_by(info, name)
    assert await store.aspect(K, "content-type") == "text/plain"
    with pytest.raises(NotFound):
        await store.aspect(Key("absent"), "content-type")


@conforms()
async def a_type_is_set_and_the_rest_stays(store: ObjectStore) -> None:
    made = await store.put(K, b"data", Commit(content_type="text/plain", metadata={"colour": "blue"}))
    info = await store.set_aspect(K, "content-type", "image/png", if_match=made.etag)
    assert info == await store.head(K) or abs(info.mtime_ns - (await store.head(K)).mtime_ns) <= 2 * 10**9
    assert (info.content_type, info.size) == ("image/png", 4)
    assert own_metadata(await store.head(K)) == {"colour": "blue"}
    assert await read(store, K) == b"data"


@conforms()
async def an_aspect_of_another_version_is_not_set(store: ObjectStore) -> None:
    await store.put(K, b"data", Commit(content_type="text/plain"))
    with pytest.raises(PreconditionFailed):
        await store.set_aspect(K, "content-type", "image/png", if_match=ETag("0123456789abcdef0123456789abcdef"))
    with pytest.raises(NotFound):
        await store.set_aspect(Key("absent"), "content-type", "image/png", if_match=ETag("0123456789abcdef0123456789abcdef"))
    assert (await store.head(K)).content_type == "text/plain"


@conforms()
async def tags_are_kept_beside_the_object_or_refused(store: ObjectStore) -> None:
    made = await store.put(K, b"data")
    try:
        await store.set_aspect(K, "tags", "a=1&b=two%20words", if_match=made.etag)
    except Unsupported:
        return
    assert await store.aspect(K, "tags") == "a=1&b=two%20words"
    assert (await store.head(K)).etag == made.etag
    with pytest.raises(UsageError):
        await store.set_aspect(K, "tags", "a", if_match=made.etag)
    await store.set_aspect(K, "tags", "", if_match=made.etag)
    assert await store.aspect(K, "tags") is None


@conforms()
async def tags_stay_when_a_version_takes_the_place_of_another(store: ObjectStore) -> None:
    made = await store.put(K, b"data")
    try:
        await store.set_aspect(K, "tags", "a=1&b=two%20words", if_match=made.etag)
    except Unsupported:
        return
    again = await store.put(K, b"other data", Commit(former=await store.head(K), file_id=made.file_id))
    assert await store.aspect(K, "tags") == "a=1&b=two%20words"
    if not store.capabilities.early_parts:
        return  # nobody edits by uploads there
    upload = await store.create_upload(K, Commit(former=again, file_id=made.file_id))
    await store.complete_upload(upload, [await store.put_part(upload, 1, b"third data")])
    assert await store.aspect(K, "tags") == "a=1&b=two%20words"
    assert await read(store, K) == b"third data"


@conforms()
async def an_object_is_its_only_version_where_none_are_kept(store: ObjectStore) -> None:
    keys = [Key("a"), Key("b/c"), K]
    for key in keys:
        await store.put(key, key.encode())
    found = await store.list_versions()
    assert [version.key for version in found.entries] == sorted(keys)
    assert found.next is None
    assert all(version.latest and not version.marker for version in found.entries)
    (one,) = (await store.list_versions(K)).entries
    assert (one.size, one.etag, one.version_id) == (len(K.encode()), (await store.head(K)).etag, "null")

"""Markers of directories where the service can have none.

Owns: whether a service keeps `d/` apart from `d`, found out with a name that nobody has; another key for `d/` where it does not.
Must not know: what a marker is for.

A service that keeps objects as files (`rclone serve s3`) makes a file `d` of the marker `d/`: below it there can be nothing, and what was
there is seen no more. Behind this wrapper the marker is the object `d/NAME`, and everybody sees `d/`:

    outside    d/        d/a    d/e/          K1  Keys that end with "/" are called otherwise inside, and nothing else is.
    inside     d/NAME    d/a    d/e/NAME      K2  Pages stay in order: NAME comes before all names but those with a blank or "!!" in front.

The top of a bucket has no marker: an object NAME there is one like any other. Elsewhere nothing else may be called so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import trio

from s3mount.errors import InvalidName, NotFound, StoreError
from s3mount.model import NO_METADATA, ByteRange, Condition, Content, ETag, Found, Key, Metadata, ObjectInfo, Page, Part, Upload
from s3mount.store.api import PAGE_KEYS, Arrived, Commit, Failure, ObjectStore, Pin
from s3mount.store.s3.conditions import DELETE_S, probe_in
from s3mount.store.s3.reading import find
from s3mount.store.wrap.base import Wrapper

NAME = "!!s3mount-directory"

logger = logging.getLogger(__name__)


async def keeps_markers(store: ObjectStore, prefix: str) -> bool:
    """Whether a marker under *prefix* (ends with "/", or empty) is one. Where that cannot be found out it is taken to be."""
    probe = probe_in(prefix)
    try:
        await store.put(Key(f"{probe}/"), b"", Commit(metadata=NO_METADATA))
        return await _is_absent(store, Key(probe))
    except StoreError as error:
        logger.debug("Whether the service keeps markers of directories could not be found out: %s", error)
        return True
    finally:
        with trio.move_on_after(DELETE_S, shield=True):
            await _forget(store, Key(f"{probe}/"))


async def _is_absent(store: ObjectStore, key: Key) -> bool:
    try:
        await store.head(key)
    except NotFound:
        return True
    logger.info("The service makes files of directories' markers, which are objects %s in them instead", NAME)
    return False


async def _forget(store: ObjectStore, key: Key) -> None:
    try:
        await store.delete(key)
    except StoreError as error:
        logger.warning("%r could not be deleted again: %s", key, error)


def within(key: str) -> Key:
    """What *key* is called inside. Raises InvalidName where that is a marker, of another key."""
    if key.endswith(f"/{NAME}"):
        raise InvalidName(f"{key!r} is what the service has for the marker of a directory: choose another name.")
    return inside(key)


def inside(key: str) -> Key:
    return Key(key + NAME if key.endswith("/") else key)


def without(key: str) -> Key:
    """What is called *key* inside."""
    return Key(key.removesuffix(NAME) if key.endswith(f"/{NAME}") else key)


def told(info: ObjectInfo) -> ObjectInfo:
    key = without(info.key)
    return info if key == info.key else replace(info, key=key)


def meant(commit: Commit) -> Commit:
    former = commit.former
    return commit if former is None else replace(commit, former=replace(former, key=within(former.key)))


class Markers(Wrapper):
    """*inner*, a service that keeps no markers, as one that does."""

    def statistics(self) -> dict[str, object]:
        return {"markers": NAME}

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        return told(await super().head(within(key)))

    async def find(self, name: str) -> Found:
        return Found(None, None, implied=False) if name.endswith(f"/{NAME}") else await find(self, name)

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        behind = after if delimiter and after != prefix else inside(after)
        page = await super().list(prefix, delimiter=delimiter, after=behind, limit=limit)
        return replace(page, objects=tuple(map(told, page.objects)))

    async def aspect(self, key: Key, name: str) -> str | None:
        return await super().aspect(within(key), name)

    # -- reading ----------------------------------------------------------------------

    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo:
        return told(await super().get_into(within(key), span, buffer, if_match=if_match, arrived=arrived))

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        return await super().pin(within(key), if_match=if_match, known=known and replace(known, key=within(known.key)))

    # -- committing -------------------------------------------------------------------

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        return told(await super().put(within(key), data, meant(commit)))

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        base = content.base and replace(content.base, key=within(content.base.key))
        return told(await super().adopt(within(key), replace(content, base=base), meant(commit)))

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        return told(await super().update(within(key), metadata, if_match=if_match, file_id=file_id))

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        return told(await super().set_aspect(within(key), name, value, if_match=if_match, file_id=file_id))

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        await super().delete(within(key), if_match=if_match)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        failures = await super().delete_many([within(key) for key in keys])
        return [replace(failure, key=without(failure.key)) for failure in failures]

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        commit = commit and meant(commit)
        return told(await super().copy(within(source), within(target), if_match=if_match, commit=commit, condition=condition))

    # -- multipart --------------------------------------------------------------------

    async def create_upload(self, key: Key, commit: Commit = Commit()) -> Upload:  # noqa: B008 (frozen)
        upload = await super().create_upload(within(key), meant(commit))
        return replace(upload, key=key)

    async def put_part(self, upload: Upload, number: int, data: bytes | bytearray | memoryview) -> Part:
        return await super().put_part(replace(upload, key=within(upload.key)), number, data)

    async def copy_part(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        source = replace(source, key=within(source.key))
        return await super().copy_part(replace(upload, key=within(upload.key)), number, source=source, span=span)

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        return told(await super().complete_upload(replace(upload, key=within(upload.key)), parts))

    async def abort_upload(self, upload: Upload) -> None:
        await super().abort_upload(replace(upload, key=within(upload.key)))

    async def list_uploads(self) -> Sequence[Upload]:
        return [replace(upload, key=without(upload.key)) for upload in await super().list_uploads()]

"""Wrapper: a store that asks another one, every request passing one seam.

Owns: the delegation of the whole protocol, pins included, and `Op`, the description of a request.
Must not know: what any wrapper does at the seam.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from s3mount.model import (
    ByteRange,
    Changed,
    Condition,
    Content,
    ETag,
    Found,
    Key,
    Metadata,
    ObjectInfo,
    Page,
    Part,
    Space,
    Upload,
    VersionPlace,
    Versions,
)
from s3mount.store.api import COMMIT_ID, PAGE_KEYS, Arrived, Capabilities, Commit, Failure, ObjectStore, Pin, Relocation
from s3mount.store.aspects import TAGS, told_by

T = TypeVar("T")


class Kind(Enum):
    """What a request costs and risks."""

    LOOK = "look"  # answers from the index
    READ = "read"  # moves bytes out
    CHANGE = "change"  # a small mutation: names and metadata
    COMMIT = "commit"  # a mutation that moves bytes in
    MEDIUM = "medium"  # speaks of the medium, not of an object


KINDS: dict[str, Kind] = {
    "head": Kind.LOOK,
    "find": Kind.LOOK,
    "list": Kind.LOOK,
    "aspect": Kind.LOOK,
    "list_versions": Kind.LOOK,
    "head_version": Kind.LOOK,
    "version_aspect": Kind.LOOK,
    "list_uploads": Kind.LOOK,
    "changed": Kind.LOOK,
    "get_into": Kind.READ,
    "pin": Kind.READ,
    "pin_version": Kind.READ,
    "pin.get_into": Kind.READ,
    "put": Kind.COMMIT,
    "adopt": Kind.COMMIT,
    "put_part": Kind.COMMIT,
    "copy_part": Kind.CHANGE,
    "complete_upload": Kind.COMMIT,
    "copy": Kind.CHANGE,
    "update": Kind.CHANGE,
    "set_aspect": Kind.CHANGE,
    "delete": Kind.CHANGE,
    "delete_many": Kind.CHANGE,
    "rename": Kind.CHANGE,
    "rename_prefix": Kind.CHANGE,
    "relocate": Kind.CHANGE,
    "exchange": Kind.CHANGE,
    "link": Kind.CHANGE,
    "reserve": Kind.CHANGE,
    "release": Kind.CHANGE,
    "create_upload": Kind.CHANGE,
    "abort_upload": Kind.CHANGE,
    "sync": Kind.MEDIUM,
    "space": Kind.MEDIUM,
}

# Mutations that leave no mark by which to tell whether they happened, and that do harm (or fail) when they happen twice.
ONCE = frozenset({"rename", "rename_prefix", "relocate", "exchange", "link", "reserve"})


@dataclass(frozen=True, slots=True)
class Op:
    """One request. `proof`, where there is one, recognises by `head(key)` that this very mutation happened."""

    verb: str
    key: str = ""
    proof: Callable[[ObjectInfo], bool] | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.verb]

    @property
    def mutates(self) -> bool:
        return self.kind in (Kind.CHANGE, Kind.COMMIT)

    @property
    def once(self) -> bool:
        return self.verb in ONCE


def committed(commit: Commit) -> Callable[[ObjectInfo], bool] | None:
    """The proof of *commit*: its id stands in the object's metadata. None for a commit without an id."""
    if not commit.commit_id:
        return None
    return lambda info: (info.metadata or {}).get(COMMIT_ID) == commit.commit_id


class Wrapper:
    """Asks *inner* for everything. Subclasses override `around` (and `at_once`), and a verb only where its arguments matter."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner

    async def around(self, op: Op, call: Callable[[], Awaitable[T]]) -> T:
        """Do *call*, any number of times, and return what the caller gets."""
        return await call()

    def at_once(self, op: Op, call: Callable[[], bool]) -> bool:
        """As `around`, for a read that does not wait."""
        return call()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.inner!r}>"

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    @property
    def staging(self) -> Path | None:
        return self.inner.staging

    async def aclose(self) -> None:
        await self.inner.aclose()

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        return await self.around(Op("head", key), lambda: self.inner.head(key))

    async def find(self, name: str) -> Found:
        return await self.around(Op("find", name), lambda: self.inner.find(name))

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        return await self.around(Op("list", prefix), lambda: self.inner.list(prefix, delimiter=delimiter, after=after, limit=limit))

    async def aspect(self, key: Key, name: str) -> str | None:
        return await self.around(Op("aspect", key), lambda: self.inner.aspect(key, name))

    async def list_versions(self, prefix: str = "", *, after: VersionPlace | None = None) -> Versions:
        return await self.around(Op("list_versions", prefix), lambda: self.inner.list_versions(prefix, after=after))

    async def head_version(self, key: Key, version_id: str) -> ObjectInfo:
        return await self.around(Op("head_version", key), lambda: self.inner.head_version(key, version_id))

    async def version_aspect(self, key: Key, version_id: str, name: str) -> str | None:
        return await self.around(Op("version_aspect", key), lambda: self.inner.version_aspect(key, version_id, name))

    # -- reading ----------------------------------------------------------------------

    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo:
        return await self.around(Op("get_into", key), lambda: self.inner.get_into(key, span, buffer, if_match=if_match, arrived=arrived))

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        return WrappedPin(self, await self.around(Op("pin", key), lambda: self.inner.pin(key, if_match=if_match, known=known)))

    async def pin_version(self, info: ObjectInfo) -> Pin:
        return WrappedPin(self, await self.around(Op("pin_version", info.key), lambda: self.inner.pin_version(info)))

    # -- committing -------------------------------------------------------------------

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        return await self.around(Op("put", key, committed(commit)), lambda: self.inner.put(key, data, commit))

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        return await self.around(Op("adopt", key, committed(commit)), lambda: self.inner.adopt(key, content, commit))

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        op = Op("update", key, lambda info: info.metadata == metadata)
        return await self.around(op, lambda: self.inner.update(key, metadata, if_match=if_match, file_id=file_id))

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        op = Op("set_aspect", key, None if name == TAGS else lambda info: told_by(info, name) == value)
        return await self.around(op, lambda: self.inner.set_aspect(key, name, value, if_match=if_match, file_id=file_id))

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        await self.around(Op("delete", key), lambda: self.inner.delete(key, if_match=if_match))

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        return await self.around(Op("delete_many"), lambda: self.inner.delete_many(keys))

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        op = Op("copy", target, committed(commit) if commit else None)
        return await self.around(op, lambda: self.inner.copy(source, target, if_match=if_match, commit=commit, condition=condition))

    # -- names ------------------------------------------------------------------------

    async def rename(self, source: Key, target: Key, *, replace: bool = True) -> None:
        await self.around(Op("rename", source), lambda: self.inner.rename(source, target, replace=replace))

    async def rename_prefix(self, source: str, target: str, *, replace: bool = True) -> int:
        return await self.around(Op("rename_prefix", source), lambda: self.inner.rename_prefix(source, target, replace=replace))

    async def relocate(self, moves: Sequence[Relocation]) -> Sequence[ObjectInfo]:
        op = Op("relocate", moves[0].target if moves else "")
        return await self.around(op, lambda: self.inner.relocate(moves))

    async def exchange(self, a: str, b: str) -> None:
        await self.around(Op("exchange", a), lambda: self.inner.exchange(a, b))

    async def link(self, source: Key, target: Key) -> ObjectInfo:
        return await self.around(Op("link", target), lambda: self.inner.link(source, target))

    async def reserve(self, key: Key) -> None:
        await self.around(Op("reserve", key), lambda: self.inner.reserve(key))

    async def release(self, key: Key) -> None:
        await self.around(Op("release", key), lambda: self.inner.release(key))

    # -- multipart --------------------------------------------------------------------

    async def create_upload(self, key: Key, commit: Commit = Commit()) -> Upload:  # noqa: B008 (frozen)
        return await self.around(Op("create_upload", key), lambda: self.inner.create_upload(key, commit))

    async def put_part(self, upload: Upload, number: int, data: bytes | bytearray | memoryview) -> Part:
        return await self.around(Op("put_part", upload.key), lambda: self.inner.put_part(upload, number, data))

    async def copy_part(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        return await self.around(Op("copy_part", upload.key), lambda: self.inner.copy_part(upload, number, source=source, span=span))

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        return await self.around(Op("complete_upload", upload.key), lambda: self.inner.complete_upload(upload, parts))

    async def abort_upload(self, upload: Upload) -> None:
        await self.around(Op("abort_upload", upload.key), lambda: self.inner.abort_upload(upload))

    async def list_uploads(self) -> Sequence[Upload]:
        return await self.around(Op("list_uploads"), self.inner.list_uploads)

    async def changed(self) -> Changed:
        return await self.around(Op("changed"), self.inner.changed)

    # -- the medium -------------------------------------------------------------------

    async def sync(self, key: Key | None = None) -> None:
        await self.around(Op("sync", key or ""), lambda: self.inner.sync(key))

    async def space(self) -> Space:
        return await self.around(Op("space"), self.inner.space)


class WrappedPin:
    """A pin whose reads pass the wrapper's seam too."""

    def __init__(self, wrapper: Wrapper, inner: Pin) -> None:
        self._wrapper = wrapper
        self._inner = inner
        self._op = Op("pin.get_into", inner.info.key)

    @property
    def info(self) -> ObjectInfo:
        return self._inner.info

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        return self._wrapper.at_once(self._op, lambda: self._inner.get_into_nowait(offset, buffer))

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        view: memoryview | None = None

        def look() -> bool:
            nonlocal view
            view = self._inner.view_nowait(offset, size)
            return view is not None

        return view if self._wrapper.at_once(self._op, look) else None

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        await self._wrapper.around(self._op, lambda: self._inner.get_into(offset, buffer, arrived=arrived))

    async def aclose(self) -> None:
        await self._inner.aclose()

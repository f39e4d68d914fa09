"""The protocol that every object store speaks, and its contract.

Owns: the verbs, what each promises, and `Capabilities`, which says what a store can beyond the minimum.
Must not know: any implementation, POSIX, the kernel.

The contract, for every implementation and every wrapper (tests/store/ holds it as one suite of plain functions):

C1  Each mutation is atomic: others see the state before it or the state after it, whole.
C2  A mutation that raised anything but `OutcomeUnknown`, `TimedOut` or a cancellation did not happen.
C3  After `OutcomeUnknown`, `TimedOut` or a cancellation it may or may not have happened. A commit carries a commit id, kept in the object's
    metadata under `COMMIT_ID`: `head` tells whether it happened. A conditional mutation is never repeated blindly.
C4  Reads after an acknowledged mutation see it (read-your-writes and list-your-writes, as S3 has them).
C5  A content is never a mixture: bytes come from the one version that the ETag or the pin names.
C6  Keys are listed in the order of their UTF-8 bytes.
C7  Without `Capabilities.durable`, an acknowledged mutation survives a crash of the process at once, and a power cut only after `sync`.

Errors are `s3mount.errors.StoreError`s; the ones named below are the ones to expect besides `Unavailable`, `TimedOut`, `Throttled`,
`AccessDenied` and `NoSuchBucket`, which any call may raise. All sizes are bytes, all times nanoseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from s3mount.errors import StoreError
from s3mount.model import (
    METADATA_BYTES,
    NO_METADATA,
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
    cheap_named_value,
)

# The metadata name under which a commit's id stays with the object.
COMMIT_ID = "s3mount-commit"

# S3's page size, and its upper bound.
PAGE_KEYS = 1000

Arrived = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can beyond put, get, head, list, delete and copy."""

    atomic_rename: bool = False
    """`rename`, `exchange` and `rename_prefix` exist, each one transaction."""
    links: bool = False
    """`link` exists, and `ObjectInfo.file_id` and `links` mean something."""
    versions: bool = False
    """A replaced version stays readable through its pin."""
    conditional_put: bool = True
    """`Condition` is honoured by the store itself, against all its clients."""
    part_copy: bool = False
    """`adopt` takes `Kept` pieces without moving their bytes through the client."""
    adopt: bool = False
    """`adopt` takes over the staged file itself; it should lie in `ObjectStore.staging`."""
    relocate: bool = False
    """`relocate` exists: any number of keys are called otherwise in one transaction, each by a version of its own."""
    reserve: bool = False
    """`reserve` decides O_EXCL at create, against all clients."""
    listed_metadata: bool = False
    """Listings carry `ObjectInfo.metadata`."""
    whole_metadata: bool = True
    """What listings and `head` carry of it is all that there is; else `aspects.whole` asks for the rest."""
    early_parts: bool = False
    """Bytes go over a network: parts of a large file had better go while it is written. With `part_copy`, `copy_part` exists."""
    cheap_metadata: bool = False
    """`head` and `find` cost microseconds: caching their answers is a waste."""
    changes: bool = False
    """`changed` tells what others do: what one remembers holds until then."""
    durable: bool = True
    """Acknowledged means safe from a power cut; else call `sync`."""
    deferred: bool = False
    """Acknowledged means safe in this machine; `sync` waits until it is in the bucket, where it goes by itself."""
    metadata_bytes: int = 2048
    """What names and values of one object's metadata, its commit id included, may take together (2048: S3); beyond is TooLarge."""


# What a store of this machine can.
EVERYTHING = Capabilities(
    atomic_rename=True,
    links=True,
    versions=True,
    conditional_put=True,
    part_copy=True,
    adopt=True,
    reserve=True,
    listed_metadata=True,
    cheap_metadata=True,
    durable=True,
    metadata_bytes=METADATA_BYTES,
)


@cheap_named_value
class Commit:
    """Everything about a new version but its bytes.

    `file_id` (where `Capabilities.links`): the file to write, 0 to let the store choose. With a `Matches` condition the file is found by
    its id, whatever it is called by now; without one the key is made to name this file.

    `former`: the version of the same key whose place this one takes. What it has beyond metadata, type and class (tags, Cache-Control and
    the like) stays, as far as it can be had.
    """

    condition: Condition = None
    metadata: Metadata = field(default_factory=lambda: NO_METADATA)
    content_type: str = "application/octet-stream"
    storage_class: str = "STANDARD"
    commit_id: str = ""
    file_id: int = 0
    former: ObjectInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """The version *source* shall be called *target*; *commit* (but for its condition) and *condition*: as for `copy`.

    *replaced*: what is there now.
    """

    source: ObjectInfo
    target: Key
    commit: Commit | None = None
    condition: Condition = None
    replaced: ObjectInfo | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One key of many that could not be done."""

    key: Key
    error: StoreError


class Pin(Protocol):
    """One version of one object, kept readable where the store can. Release it with `aclose` (idempotent)."""

    @property
    def info(self) -> ObjectInfo: ...

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        """As `get_into`, if that needs no waiting; False (nothing promised of *buffer*) where it would have to wait."""
        ...

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        """The bytes themselves where they lie in memory in one piece, valid until the caller's next checkpoint; else None."""
        ...

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        """Fill *buffer* from *offset*; the caller stays inside `info.size`.

        *arrived* as in `ObjectStore.get_into`. Raises PreconditionFailed or NotFound where the version is gone for good, Corrupt where its
        bytes are not whole. Never comes short.
        """
        ...

    async def aclose(self) -> None: ...


class ObjectStore(Protocol):
    """One bucket. Every method may be called by many tasks at once and may be cancelled (C3)."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def staging(self) -> Path | None:
        """Folder for staged files, on the store's own medium and swept with it; None: use a temporary folder."""
        ...

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key) -> ObjectInfo:
        """Raises NotFound."""
        ...

    async def find(self, name: str) -> Found:
        """What stands under *name*: object `name`, marker `name/`, keys below `name/`. An empty answer is no error.

        *name* "" asks for the bucket's top: marker None, implied True.
        """
        ...

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        """One page of the keys that begin with *prefix* and come behind *after*.

        With *delimiter*, keys that hold it behind the prefix are rolled up into common prefixes, each of which counts once against *limit*.
        *after* may be a key, a common prefix (all of it is then skipped) or a former page's `next`.
        """
        ...

    async def aspect(self, key: Key, name: str) -> str | None:
        """What the object says of itself under *name* (`store.aspects`); None where it has none. `url` asks nobody. Raises NotFound."""
        ...

    async def list_versions(self, prefix: str = "", *, after: VersionPlace | None = None) -> Versions:
        """One page of all versions and delete markers under *prefix*; where none are kept, each object is its only one."""
        ...

    async def head_version(self, key: Key, version_id: str) -> ObjectInfo:
        """As `head`, of a version that `list_versions` told. Raises NotFound."""
        ...

    async def version_aspect(self, key: Key, version_id: str, name: str) -> str | None:
        """As `aspect`, of a version that `list_versions` told. Raises NotFound."""
        ...

    # -- reading ----------------------------------------------------------------------

    async def get_into(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None = None, arrived: Arrived | None = None
    ) -> ObjectInfo:
        """Fill *buffer* (exactly `span.length` bytes) from the object's current version, and say which that is.

        A store that waits for bytes may say through *arrived* how many of the first bytes of *buffer* are there: any number of times, in
        any steps, lower again after a retry. They are the version's only if this returns.
        Raises NotFound; PreconditionFailed when it is not *if_match*; ValueError when *span* does not lie inside it.
        """
        ...

    async def pin(self, key: Key, *, if_match: ETag | None = None, known: ObjectInfo | None = None) -> Pin:
        """Keep the current version for reading. Raises NotFound, PreconditionFailed.

        *known* is what the caller has of the version that it wants (it implies *if_match*). A store that finds versions by ETag alone need
        not ask for it then: a version that is gone shows at the first `get_into`.
        """
        ...

    async def pin_version(self, info: ObjectInfo) -> Pin:
        """Version `info.version_id` of `info.key` for reading, be it the current one or not. Raises NotFound, here or at a read."""
        ...

    # -- committing -------------------------------------------------------------------

    async def put(self, key: Key, data: bytes | bytearray | memoryview, commit: Commit = Commit()) -> ObjectInfo:  # noqa: B008 (frozen)
        """Make *data* the object. Raises AlreadyExists (Absent), PreconditionFailed (Matches), InvalidName, NoSpace, OutcomeUnknown."""
        ...

    async def adopt(self, key: Key, content: Content, commit: Commit) -> ObjectInfo:
        """Make *content* the object, without copying what is staged where the store can.

        The staged file belongs to the store from here on, also when this fails: the caller keeps its descriptor, not its name,
        and may call again with the same content after a failure. Raises as `put`, and PreconditionFailed when `content.base` is not the
        current version although pieces are kept of it.
        """
        ...

    async def update(self, key: Key, metadata: Metadata, *, if_match: ETag | None = None, file_id: int = 0) -> ObjectInfo:
        """Replace the metadata, and nothing else; the ETag stays where the store can do that. Raises NotFound, PreconditionFailed.

        *file_id* finds the file by its id, whatever it is called by now (where `Capabilities.links`).
        """
        ...

    async def set_aspect(self, key: Key, name: str, value: str, *, if_match: ETag, file_id: int = 0) -> ObjectInfo:
        """Set one of `store.aspects.SETTABLE` of version *if_match*; the rest stays, but for the ETag, which may change. Idempotent.

        Raises NotFound, PreconditionFailed, UsageError for what is no value of it, Unsupported.
        """
        ...

    async def delete(self, key: Key, *, if_match: ETag | None = None) -> None:
        """Idempotent: an absent key is no error. Raises PreconditionFailed."""
        ...

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Failure]:
        """Up to 1000 keys; the ones that could not be deleted come back with their reasons."""
        ...

    async def copy(
        self, source: Key, target: Key, *, if_match: ETag | None = None, commit: Commit | None = None, condition: Condition = None
    ) -> ObjectInfo:
        """Make *target* a second object with the same content; with *commit* its metadata and type are replaced, else copied.

        *if_match* speaks of the source; the commit's condition, or *condition* where there is no commit, of the target.
        Raises NotFound, PreconditionFailed, AlreadyExists.
        """
        ...

    # -- names (atomic_rename, relocate, links, reserve) -----------------------------------------

    async def rename(self, source: Key, target: Key, *, replace: bool = True) -> None:
        """Raises NotFound; AlreadyExists without *replace*. Renaming onto another link of the same file does nothing, as in POSIX."""
        ...

    async def rename_prefix(self, source: str, target: str, *, replace: bool = True) -> int:
        """Move every key under *source* (ends with "/") to the same place under *target*; how many were moved.

        Keys under *target*, other than its marker, raise AlreadyExists; so does the marker without *replace*. NotFound when nothing lies
        under *source*. ValueError when one lies inside the other.
        """
        ...

    async def relocate(self, moves: Sequence[Relocation]) -> Sequence[ObjectInfo]:
        """Do all of *moves* (no key twice) or none, where `Capabilities.relocate`; what each target is, in their order.

        Raises NotFound; PreconditionFailed where a source is another version by now.
        """
        ...

    async def exchange(self, a: str, b: str) -> None:
        """Swap two names, each a key or a prefix that ends with "/". Raises NotFound."""
        ...

    async def link(self, source: Key, target: Key) -> ObjectInfo:
        """A second key for the file. Raises NotFound, AlreadyExists."""
        ...

    async def reserve(self, key: Key) -> None:
        """Claim an absent key until this process commits it, releases it, or ends. Raises AlreadyExists. Nobody sees an object yet."""
        ...

    async def release(self, key: Key) -> None:
        """Give a reservation back; idempotent."""
        ...

    # -- multipart --------------------------------------------------------------------

    async def create_upload(self, key: Key, commit: Commit = Commit()) -> Upload:  # noqa: B008 (frozen)
        """Begin; the commit's condition is judged at completion. End it with `complete_upload` or `abort_upload`."""
        ...

    async def put_part(self, upload: Upload, number: int, data: bytes | bytearray | memoryview) -> Part:
        """Any order, many at once; a number sent again replaces the former part. Raises NoSuchUpload."""
        ...

    async def copy_part(self, upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        """As `put_part`, of bytes of *source* that do not pass through here, where `part_copy` and `early_parts`.

        *source* has over 5 MiB. Raises PreconditionFailed where it is another version by now, or gone.
        """
        ...

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        """Make the named parts, in rising order, the object. Raises InvalidPart, NoSuchUpload, and as `put`."""
        ...

    async def abort_upload(self, upload: Upload) -> None:
        """Forget it and its parts; idempotent."""
        ...

    async def list_uploads(self) -> Sequence[Upload]: ...

    # -- others -----------------------------------------------------------------------

    async def changed(self) -> Changed:
        """What others changed since the former call; the first one begins to follow (where `Capabilities.changes`).

        For one caller. What is told can be looked at; own changes may be among it. Raises Unsupported. After any error, as after `lost`,
        something may never be told: forget everything.
        """
        ...

    # -- the medium -------------------------------------------------------------------

    async def sync(self, key: Key | None = None) -> None:
        """On return every mutation acknowledged before (of *key*, or all) survives a power cut.

        A store that gives a `staging` folder also frees the space of what was deleted before, where nobody reads it (*key* None).
        Raises Unavailable, NoSpace: then it may not.
        """
        ...

    async def space(self) -> Space: ...

    async def aclose(self) -> None:
        """Release everything; idempotent."""
        ...

"""What is not in the store: found in running mounts and in the journals of buckets, whoever mounts them.

Owns: one shape for all of it, and which of it a command's operands mean.
Must not know: what is done with it, what is printed.

    waiting   in a running mount, which tries again by itself           sending   the same, while a request is under way
    queued    in a journal: a mount with --write-back sends it          failed    the store refused it for good
    kept      in a journal: the mount that could not store it has gone, or has given it up
    renaming  in the bucket, and neither lost nor new: a running mount cannot copy or delete it for now, as a rename wants it to
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from s3mount.cli.pending_places import PendingPlace, all_places
from s3mount.cli.places import parse_bucket_url, with_key
from s3mount.config import StoreUrl, parse_url
from s3mount.errors import NotFound, S3MountError, Unavailable, UsageError
from s3mount.fuse import control
from s3mount.fuse import mountpoint as mountpoints
from s3mount.writeback.journal import Journal
from s3mount.writeback.records import Op, Record


@dataclass(frozen=True, slots=True)
class RunningMount:
    """A mount that answered. `told` is what it said of itself."""

    path: Path
    url: StoreUrl
    told: dict[str, Any]

    @property
    def pending(self) -> Path | None:
        """The folder of its bucket, as `PendingPlace.folder`."""
        folder = self.told.get("options", {}).get("pending")
        return Path(folder) if folder else None

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """As `control.ask`. Raises Unavailable, also where the mount has ended."""
        answer = control.ask(self.path, owner=os.getuid(), do=do, **more)
        if answer is None:
            raise Unavailable(f"the mount of {self.path} has ended meanwhile: s3mount pending shows what it has left.")
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One of them. `id` is short and unique; "" for what a mount holds. `since_ns`: nanoseconds since 1970.

    `mount` holds it, or writes its `journal` back.
    """

    url: StoreUrl
    state: str
    size: int
    since_ns: int
    reason: str
    tries: int
    id: str = ""
    mount: RunningMount | None = None
    place: PendingPlace | None = None
    journal: Path | None = None
    record: Record | None = None

    @property
    def is_held(self) -> bool:
        """Whether its mount has it in no journal."""
        return self.record is None

    @property
    def is_renaming(self) -> bool:
        return self.state == "renaming"

    @property
    def is_removal(self) -> bool:
        return self.record is not None and self.record.op is Op.DELETE


def running_mounts() -> list[RunningMount]:
    """Every mount of this user that answers; also one that is ending, or that only its users still see."""
    told = [answer for answer in control.everybody(os.getuid()) if answer.get("mountpoint")]
    return [RunningMount(Path(answer["mountpoint"]), parse_url(answer["source"]), answer) for answer in told]


def everything() -> list[Item]:
    """All that is pending, the oldest first. What cannot be read is passed over."""
    mounts = running_mounts()
    found = [item for mount in mounts for item in _of_mount(mount)]
    senders = {mount.pending: mount for mount in mounts if "write_back" in mount.told["store"]}
    for place in all_places():
        found += _of_place(place, senders.get(place.folder))
    return sorted(found, key=lambda item: (item.since_ns, str(item.url)))


def under(items: Iterable[Item], operands: Sequence[str]) -> list[Item]:
    """Those below a URL or a mount point, or below a directory in a mount. Raises UsageError for an operand that is neither."""
    if not operands:
        return list(items)
    scopes = [_scope(operand) for operand in operands]
    return [item for item in items if any(_covers(url, folder, item) for url, folder in scopes)]


def named(items: Sequence[Item], names: Sequence[str]) -> list[Item]:
    """Those with one of these ids or URLs. Raises NotFound for a name that none has."""
    chosen: dict[int, Item] = {}
    for name in names:
        matching = [item for item in items if item.id == name] or [item for item in items if str(item.url) == name]
        if not matching:
            raise NotFound(_none_so_named(items, name))
        chosen.update({id(item): item for item in matching})
    return list(chosen.values())


def _none_so_named(items: Sequence[Item], name: str) -> str:
    try:
        below = len(under(items, [name]))
    except S3MountError:
        below = 0
    if below:
        return f"{name} is not itself pending, but {below} below it {'is' if below == 1 else 'are'}: --all {name} means all of that."
    return f"Nothing is pending under {name}: s3mount pending lists what is."


def _of_mount(mount: RunningMount) -> Iterator[Item]:
    for waiting in mount.told.get("waiting", ()):
        yield Item(
            url=with_key(mount.url, waiting["key"]),
            state="sending" if waiting["sending"] else "waiting",
            size=waiting["size"],
            since_ns=waiting["since_ns"],
            reason=waiting["reason"],
            tries=waiting["tries"],
            mount=mount,
        )
    for stuck in mount.told.get("renamed", {}).get("first", ()):
        yield Item(
            url=with_key(mount.url, stuck["key"]),
            state="renaming",
            size=stuck["size"],
            since_ns=stuck["since_ns"],
            reason=stuck["reason"],
            tries=stuck["tries"],
            mount=mount,
        )


def _of_place(place: PendingPlace, sender: RunningMount | None) -> list[Item]:
    kept = [_of_record(place, place.kept, "", record) for record in _records(place.kept)]
    behind = [_of_record(place, place.write_back, "w", record) for record in _records(place.write_back)]
    return [*kept, *(replace(item, mount=sender) for item in behind)]


def _records(folder: Path) -> list[Record]:
    try:
        with Journal.visit(folder) as journal:
            return journal.records()
    except S3MountError:
        return []


def _of_record(place: PendingPlace, journal: Path, mark: str, record: Record) -> Item:
    return Item(
        url=with_key(place.url, record.key),
        state=record.state.value,
        size=record.size,
        since_ns=record.created_ns,
        reason=record.reason,
        tries=record.attempts,
        id=f"{place.folder.name[:6]}-{mark}{record.id}",
        place=place,
        journal=journal,
        record=record,
    )


def _scope(operand: str) -> tuple[StoreUrl, Path | None]:
    """Which URL *operand* means, and the folder of its bucket where that is known."""
    if "://" in operand:
        return parse_bucket_url(operand), None
    path = mountpoints.resolve(Path(operand))
    mounted = mountpoints.mount_above(path)
    if mounted is None:
        raise UsageError(f"{operand} is neither a URL nor in an s3mount file system.")
    url = parse_url(mounted.source)
    prefix = url.key if not url.key or url.key.endswith("/") else f"{url.key}/"
    inside = path.relative_to(mounted.path).as_posix()
    mount = next((mount for mount in running_mounts() if mount.path == mounted.path), None)
    return with_key(url, prefix if inside == "." else f"{prefix}{inside}"), mount.pending if mount else None


def _covers(url: StoreUrl, folder: Path | None, item: Item) -> bool:
    if url.store != item.url.store or (folder is not None and item.place is not None and item.place.folder != folder):
        return False
    key, top = item.url.key, url.key
    return not top or key == top or key.startswith(top if top.endswith("/") else f"{top}/")

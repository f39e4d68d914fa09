"""Contents that no commit took, kept as files until somebody deals with them.

Owns: the files: what they say, when they are safe, whose they are.
Must not know: how a content is sent again, stores, the kernel. Everything here but `Aside.__call__` blocks.

Each is two files in a folder that belongs to one bucket. `<id>.data` is sparse and holds the new bytes at the places that they have in the
content; `<id>.json` says everything else: key, pieces, the version that the rest is a part of, the condition, the metadata, the reason.
Any number of processes keep, list and deal with them at once.

    keep --> .data written, synced --> .json written aside, synced, renamed --> KEPT --claim--> claimed --discard--> both removed
                   `-- killed: .data alone, unlocked: swept by the next keep        ^              `-- amend (it failed again) --.
                                                                                    `-------------------------------------------'
K1  A .json under its own name has its .data, whole and synced.
K2  Only who holds the lock on the .data writes or removes either.
K3  Nothing but `discard` loses a kept byte; it is for the user to say, or for whoever has stored the content.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from s3mount.errors import FROM_OS, Busy, NotFound, StoreError, Unavailable
from s3mount.fs.kept import Uncommitted
from s3mount.model import Absent, Condition, Content, ETag, Hole, Kept, Key, Matches, MiB, ObjectInfo, Piece, Staged
from s3mount.store.api import Commit

FORMAT = 1
RECORD, DATA = ".json", ".data"

# One read and one write while bytes are copied aside; more only costs memory.
STEP_BYTES = 1 * MiB


@dataclass(frozen=True, slots=True)
class DataFile:
    """The new bytes of a kept content, as `model.StagedBytes`."""

    path: Path | None
    fd: int
    length: int

    def read_into(self, position: int, buffer: memoryview) -> None:
        while buffer:
            count = os.preadv(self.fd, [buffer], position)
            if not count:
                raise EOFError(f"kept bytes end before {position}")
            buffer, position = buffer[count:], position + count


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """What a record says. `missing` bytes of the content are not here but in the version `base`. Times are nanoseconds since 1970."""

    path: Path
    key: Key
    size: int
    pieces: tuple[tuple[str, int, int], ...]
    base: ObjectInfo | None
    commit: Commit
    reason: str
    kept_ns: int
    tries: int = 1

    @property
    def id(self) -> str:
        return self.path.stem

    @property
    def missing(self) -> int:
        return sum(length for kind, _, length in self.pieces if kind == "kept")

    @contextmanager
    def claim(self) -> Iterator[Claim]:
        """Have it to oneself. Raises Busy where somebody else has, NotFound when it is gone."""
        try:
            fd = os.open(self.path.with_suffix(DATA), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"{self.key!r} is not pending any more.") from None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"Somebody else works on {self.key!r} just now.") from None
            if not self.path.exists():
                raise NotFound(f"{self.key!r} is not pending any more.")
            yield Claim(self, fd)
        finally:
            os.close(fd)


class Claim:
    """A kept file that is ours."""

    def __init__(self, file: KeptFile, fd: int) -> None:
        self.file = file
        self._fd = fd

    def content(self) -> Content:
        """What is to be committed; readable while the claim lasts."""
        source = DataFile(None, self._fd, os.fstat(self._fd).st_size)
        pieces = tuple(_piece(kind, offset, length, source) for kind, offset, length in self.file.pieces)
        return Content(self.file.size, pieces, self.file.base)

    def amend(self, *, commit_id: str, reason: str, tries: int) -> None:
        """Note what became of another try. Raises OSError."""
        self.file = replace(self.file, commit=replace(self.file.commit, commit_id=commit_id), reason=reason, tries=tries)
        _write_record(self.file)

    def discard(self) -> None:
        """Remove it for good. Raises OSError."""
        self.file.path.unlink()
        self.file.path.with_suffix(DATA).unlink(missing_ok=True)


class Aside:
    """The kept contents of one bucket in *folder*, which is made for its owner alone. *first* is called before anything is kept."""

    def __init__(self, folder: Path, *, first: Callable[[], None] = lambda: None, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._folder = folder
        self._first = first
        self._clock_ns = clock_ns

    async def __call__(self, uncommitted: Uncommitted) -> None:
        """As `kept.Keep`: safe from a power cut on return. Raises NoSpace and its like."""
        try:
            await trio.to_thread.run_sync(self.keep, uncommitted)
        except OSError as error:
            raise refusal(self._folder, error) from error

    def keep(self, uncommitted: Uncommitted) -> KeptFile:
        """Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._first()
        sweep(self._folder)
        content = uncommitted.content
        path = self._folder / (secrets.token_hex(6) + RECORD)
        file = KeptFile(
            path=path,
            key=uncommitted.key,
            size=content.size,
            pieces=tuple((type(piece).__name__.lower(), piece.offset, piece.length) for piece in content.pieces),
            base=content.base,
            commit=uncommitted.commit,
            reason=uncommitted.reason,
            kept_ns=self._clock_ns(),
        )
        fd = _locked(path.with_suffix(DATA))
        try:
            _copy_staged(content, fd)
            os.fsync(fd)
            _write_record(file)
        except BaseException:
            path.with_suffix(DATA).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return file


def kept_files(folder: Path) -> list[KeptFile]:
    """What is kept in *folder*, the oldest first; a record that cannot be read is passed over. Raises OSError."""
    found = [file for path in folder.glob(f"*{RECORD}") if (file := _read_record(path)) is not None]
    return sorted(found, key=lambda file: (file.kept_ns, file.key))


def sweep(folder: Path) -> None:
    """Remove what a process left that was killed while it kept something."""
    for path in folder.glob(f"*{DATA}"):
        if path.with_suffix(RECORD).exists():
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.with_suffix(RECORD).exists():
                path.unlink(missing_ok=True)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


def refusal(folder: Path, error: OSError) -> StoreError:
    """What *error* means to the one who keeps something in *folder*."""
    kind = FROM_OS.get(error.errno or 0, Unavailable)
    return kind(f"The folder {folder} cannot take it: {(error.strerror or str(error)).lower()}.")


def _locked(path: Path) -> int:
    """A new file at *path*, locked before anybody could sweep it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)


def _copy_staged(content: Content, fd: int) -> None:
    buffer = memoryview(bytearray(STEP_BYTES))
    for piece in content.pieces:
        if not isinstance(piece, Staged):
            continue
        for at in range(0, piece.length, STEP_BYTES):
            part = buffer[: min(STEP_BYTES, piece.length - at)]
            piece.source.read_into(piece.position + at, part)
            _write_all(fd, part, piece.offset + at)
    os.ftruncate(fd, content.size)


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def _piece(kind: str, offset: int, length: int, source: DataFile) -> Piece:
    if kind == "staged":
        return Staged(offset, length, source, offset)
    return Kept(offset, length) if kind == "kept" else Hole(offset, length)


# -- the record -------------------------------------------------------------------------------


def _write_record(file: KeptFile) -> None:
    """Under its own name it is whole, and safe from a power cut."""
    aside = file.path.with_name(f".{file.path.stem}-{secrets.token_hex(4)}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, memoryview(json.dumps(_told(file)).encode()), 0)
        os.fsync(fd)
        os.rename(aside, file.path)
        _sync_folder(file.path.parent)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _told(file: KeptFile) -> dict[str, Any]:
    commit, base = file.commit, file.base
    return {
        "format": FORMAT,
        "key": file.key,
        "size": file.size,
        "reason": file.reason,
        "kept_ns": file.kept_ns,
        "tries": file.tries,
        "pieces": file.pieces,
        "base": base and {"key": base.key, "size": base.size, "etag": base.etag, "mtime_ns": base.mtime_ns, "version_id": base.version_id},
        "condition": _condition_told(commit.condition),
        "metadata": dict(commit.metadata),
        "content_type": commit.content_type,
        "storage_class": commit.storage_class,
        "commit_id": commit.commit_id,
        "file_id": commit.file_id,
    }


def _condition_told(condition: Condition) -> list[str]:
    match condition:
        case Matches(etag):
            return ["matches", etag]
        case Absent():
            return ["absent"]
        case None:
            return []


def _condition(told: list[str]) -> Condition:
    if not told:
        return None
    return Matches(ETag(told[1])) if told[0] == "matches" else Absent()


def _read_record(path: Path) -> KeptFile | None:
    try:
        told = json.loads(path.read_bytes())
        if told["format"] != FORMAT:
            return None
        base = told["base"]
        return KeptFile(
            path=path,
            key=Key(told["key"]),
            size=told["size"],
            pieces=tuple((str(kind), int(offset), int(length)) for kind, offset, length in told["pieces"]),
            base=base and ObjectInfo(Key(base["key"]), base["size"], ETag(base["etag"]), base["mtime_ns"], version_id=base["version_id"]),
            commit=Commit(
                condition=_condition(told["condition"]),
                metadata=told["metadata"],
                content_type=told["content_type"],
                storage_class=told["storage_class"],
                commit_id=told["commit_id"],
                file_id=told["file_id"],
            ),
            reason=told["reason"],
            kept_ns=told["kept_ns"],
            tries=told["tries"],
        )
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""Filesystem against the reference model: random operations, another client's changes among them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.errors import S3MountError
from s3mount.fs.rename import NOREPLACE
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from tests.conftest import ExpectLogs
from tests.fs.mounted import RW, Mounted
from tests.model.reference import SHADOW, Held, Reference

NAMES = ["a", "b"]
PATHS = [*NAMES, *(f"{a}/{b}" for a in NAMES for b in NAMES), *(f"{a}/{b}/a" for a in NAMES for b in NAMES)]
DIRECTORIES = [f"{path}/" for path in PATHS if path.count("/") < 2]

Step = tuple[str, tuple[object, ...]]


@pytest.fixture(autouse=True)
def another_client_may_be_faster(expect_logs: ExpectLogs) -> None:
    """What it has put under a name of ours stays, or what it has removed; ours is given up, since nothing is kept aside here, and told."""
    expect_logs("is given up uncommitted: .* (exists already|was replaced or removed by somebody else)")


@dataclass
class Pair:
    """The file system and the model, side by side."""

    store: MemoryStore
    handles: list[tuple[int, Held]] = field(default_factory=list)
    looked_up: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = Reference(reserves=self.store.capabilities.reserve)
        self.mount = Mounted(self.store)
        self.lenient = False
        self.other = self.store.another()

    async def step(self, name: str, args: tuple[object, ...]) -> None:
        self.lenient = name in ("link", "rename") or any(SHADOW in str(arg) for arg in args)
        await getattr(self, name)(*args)
        self.mount.fs.check()
        self.store.check()
        await self.compare()

    # -- both sides -------------------------------------------------------------------

    async def both(self, action, expectation) -> tuple[object, object] | None:  # type: ignore[no-untyped-def]
        """Do it on both sides; both must refuse it with the same error, or neither. (Of two or odd names any refusal will do.)"""
        expected = refusal = None
        try:
            expected = expectation()
        except S3MountError as error:
            refusal = S3MountError if self.lenient else type(error)
        if refusal is None:
            return await action(), expected
        with pytest.raises(refusal):
            await action()
        return None

    async def open(self, path: str, flags: int) -> None:
        create, truncate, exclusive = bool(flags & os.O_CREAT), bool(flags & os.O_TRUNC), bool(flags & os.O_EXCL)
        action = (lambda: self.mount.create(path, flags=flags)) if create else (lambda: self.mount.open(path, flags))
        done = await self.both(action, lambda: self.model.open(path, create=create, exclusive=exclusive, truncate=truncate))
        if done is not None:
            self.handles.append(done)  # type: ignore[arg-type]

    async def write(self, at: int, offset: int, data: bytes) -> None:
        if self.handles:
            fh, held = self.handles[at % len(self.handles)]
            await self.mount.fs.write(fh, offset, data)
            self.model.write(held, offset, data)

    async def flush(self, at: int) -> None:
        if self.handles:
            fh, held = self.handles[at % len(self.handles)]
            await self.both(lambda: self.mount.fs.flush(fh), lambda: self.model.flush(held))

    async def fsync(self, at: int) -> None:
        if self.handles:
            fh, held = self.handles[at % len(self.handles)]
            await self.both(lambda: self.mount.fs.fsync(fh), lambda: self.model.commit(held))

    async def close(self, at: int) -> None:
        if self.handles:
            fh, held = self.handles.pop(at % len(self.handles))
            await self.both(lambda: self.mount.fs.release(fh), lambda: self.model.close(held))

    async def truncate(self, path: str, size: int) -> None:
        await self.both(lambda: self.mount.truncate(path, size), lambda: self.model.truncate(path, size))

    async def chmod(self, path: str, mode: int) -> None:
        await self.both(lambda: self.mount.chmod(path, mode), lambda: self.model.chmod(path, mode))

    async def mkdir(self, path: str) -> None:
        await self.both(lambda: self.mount.mkdir(path), lambda: self.model.mkdir(path))

    async def link(self, path: str, new: str) -> None:
        if self.store.capabilities.links:
            await self.both(lambda: self.mount.link(path, new), lambda: self.model.link(path, new))

    async def unlink(self, path: str) -> None:
        await self.both(lambda: self.mount.unlink(path), lambda: self.model.unlink(path))

    async def rmdir(self, path: str) -> None:
        await self.both(lambda: self.mount.rmdir(path), lambda: self.model.rmdir(path))

    async def rename(self, path: str, new: str, replace: bool) -> None:
        flags = 0 if replace else NOREPLACE
        await self.both(lambda: self.mount.rename(path, new, flags=flags), lambda: self.model.rename(path, new, replace=replace))

    async def look_up(self, path: str) -> None:
        """The kernel goes on knowing an inode."""
        try:
            self.looked_up.append(await self.mount.ino(path))
        except S3MountError:
            pass

    async def forget(self) -> None:
        for ino in self.looked_up:
            self.mount.forget(ino)
        self.looked_up.clear()

    async def remount(self) -> None:
        await self.forget()
        while self.handles:
            await self.close(0)
        self.mount = await self.mount.remount()
        self.model.kept.clear()

    # -- another client ---------------------------------------------------------------

    async def put(self, key: str, data: bytes) -> None:
        await self.other.put(Key(key), b"" if key.endswith("/") else data)
        self.model.put(key, b"" if key.endswith("/") else data)

    async def delete(self, key: str) -> None:
        await self.other.delete(Key(key))
        self.model.delete(key)

    async def move(self, key: str, new: str) -> None:
        if key in self.store.bucket.keys and self.store.capabilities.atomic_rename:
            await self.other.rename(Key(key), Key(new))
            self.model.move(key, new)

    # -- comparison -------------------------------------------------------------------

    async def compare(self) -> None:
        for path in PATHS:
            try:
                await self.mount.stat(path)
            except S3MountError:
                pass
        assert await self.tree() == self.model.tree()
        self.model.settle()
        self.compare_bodies()
        for fh, held in self.handles:
            if self.model.is_current(held) or held.version is None or self.store.capabilities.versions:
                assert bytes(await self.mount.fs.read(fh, 0, 1000)) == bytes(held.data)

    def compare_bodies(self) -> None:
        bodies = {key: file.blob for key, file in self.store.bucket.files.items()}
        assert len(bodies) == len(set(self.model.objects.values()))

    async def tree(self) -> dict[str, tuple[int, bytes] | None]:
        seen: dict[str, tuple[int, bytes] | None] = {}
        todo = [""]
        while todo:
            stem = todo.pop()
            for entry in await self.mount.entries(stem):
                path = f"{stem}/{entry.name.decode()}".lstrip("/")
                assert path not in seen
                attr = await self.mount.stat(path)
                assert replace(attr, ino=0) == replace(entry.attr, ino=0)
                assert attr.ino == entry.attr.ino or self.looked_up or self.mount.fs._volume.live, (
                    "another number, and no former file is left"
                )
                if stat.S_ISDIR(attr.mode):
                    seen[path] = None
                    todo.append(path)
                else:
                    data = await self.mount.read(path)
                    assert len(data) == attr.size
                    seen[path] = stat.S_IMODE(attr.mode), data
        return seen


# -- random operations --------------------------------------------------------------------

paths = st.sampled_from([*PATHS, *(path + SHADOW for path in PATHS[:6])])
plain = st.sampled_from(PATHS)
keys = st.sampled_from([*PATHS, *DIRECTORIES])
index = st.integers(0, 3)
data = st.sampled_from([b"x", b"longer bytes", b"\0" * 5])
opening = st.sampled_from(
    [os.O_RDWR, RW | os.O_TRUNC, RW | os.O_CREAT, RW | os.O_CREAT, RW | os.O_CREAT | os.O_EXCL, RW | os.O_CREAT | os.O_TRUNC]
)


def op(name: str, *args: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.tuples(*args))


def steps() -> st.SearchStrategy[list[Step]]:
    operations = [
        op("open", plain, opening),
        op("open", paths, opening),
        op("write", index, st.integers(0, 20), data),
        op("write", index, st.integers(0, 20), data),
        op("flush", index),
        op("fsync", index),
        op("close", index),
        op("close", index),
        op("truncate", paths, st.sampled_from([0, 3, 30])),
        op("chmod", plain, st.sampled_from([0o600, 0o644, 0o755])),
        op("mkdir", plain),
        op("link", paths, plain),
        op("unlink", paths),
        op("rmdir", paths),
        op("rename", paths, paths, st.booleans()),
        op("rename", plain, plain, st.just(True)),
        op("look_up", paths),
        op("forget"),
        op("remount"),
        op("put", keys, data),
        op("delete", keys),
        op("move", plain, plain),
    ]
    return st.lists(st.one_of(operations), max_size=30)


def run(store: MemoryStore, sequence: list[Step]) -> None:
    async def main() -> None:
        pair = Pair(store)
        for name, args in sequence:
            await pair.step(name, args)
        await pair.remount()
        await pair.compare()

    trio.run(main)


@pytest.mark.slow
@settings(max_examples=200)
@given(steps())
def test_random_operations_agree_with_the_model(sequence: list[Step]) -> None:
    run(MemoryStore(), sequence)


@pytest.mark.slow
@settings(max_examples=100)
@given(steps())
def test_random_operations_agree_with_the_model_on_a_plain_store(sequence: list[Step]) -> None:
    run(MemoryStore(LIKE_S3), sequence)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@settings(max_examples=20_000)
@given(steps(), st.booleans())
def test_very_many_random_operations_agree_with_the_model(sequence: list[Step], plain: bool) -> None:
    run(MemoryStore(LIKE_S3) if plain else MemoryStore(), sequence)


# -- what went wrong once -----------------------------------------------------------------


@pytest.mark.parametrize("store", [MemoryStore, lambda: MemoryStore(LIKE_S3)], ids=["everything", "like S3"])
@pytest.mark.parametrize(
    "sequence",
    [
        pytest.param(
            [("put", ("b/b/", b"")), ("put", ("a/b/a", b"x")), ("rename", ("a/b", "b/b", True))],
            id="an implied directory replaces an empty one and its marker",
        ),
        pytest.param(
            [("put", ("a/b/", b"")), ("open", ("b", RW | os.O_CREAT | os.O_TRUNC)), ("rename", ("b␛f", "a/b", True))],
            id="a new file has its second name too, and is committed before it is renamed by it",
        ),
        pytest.param(
            [("put", ("b/a/", b"")), ("rename", ("b", "b␛f", True))],
            id="a directory is not renamed to its own shadow",
        ),
        pytest.param(
            [("put", ("a", b"x")), ("open", ("a", RW)), ("write", (0, 0, b"y")), ("move", ("a", "b")), ("close", (0,))],
            id="an edit follows the file that somebody renamed",
        ),
        pytest.param(
            [("put", ("a/a/", b"")), ("look_up", ("a/a",)), ("rmdir", ("a/a",)), ("put", ("a/a/a", b"x"))],
            id="a removed directory that comes back is another inode",
        ),
    ],
)
def test_sequences_that_failed_once_agree_with_the_model(store: Callable[[], MemoryStore], sequence: list[Step]) -> None:
    run(store(), sequence)

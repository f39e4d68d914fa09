"""What the kernel was told to last is forgotten when another process changes it: names, attributes, whole trees.

A kernel that believes everything that is lasting looks at one mount; a second engine on the same folder is the other process.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import stat
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.errors import FsError, NoEntry, NotADirectory, Stale, StoreError, Unavailable
from s3mount.fs.filesystem import Filesystem
from s3mount.fs.options import FsOptions
from s3mount.model import Attr, Changed, ETag, Found, Key
from s3mount.store.api import Capabilities
from s3mount.store.local import LocalStore
from s3mount.store.memory import MemoryStore
from s3mount.store.wrap.base import Wrapper
from tests.fs.mounted import ME, accepted, told

BUCKET = "bucket"
DIRECTORY = {"mode": str(stat.S_IFDIR | 0o755)}


class Kernel:
    """Believes what is lasting until it is asked to forget it. `asked` counts lookups."""

    def __init__(self) -> None:
        self.fs: Filesystem
        self.entries: dict[tuple[int, bytes], int] = {}
        self.attrs: dict[int, Attr] = {}
        self.asked = 0

    def entry(self, parent: int, name: bytes) -> None:
        ino = self.entries.pop((parent, name), None)
        if ino is not None:
            for below in [place for place in self.entries if place[0] == ino]:
                self.entry(*below)

    def inode(self, ino: int) -> None:
        raise AssertionError

    def attributes(self, ino: int) -> None:
        self.attrs.pop(ino, None)

    def covered(self) -> Collection[bytes]:
        return ()

    def occupied(self) -> Collection[bytes] | None:
        return ()

    async def stat(self, path: str) -> Attr:
        """Raises NoEntry. A walk that ends in ESTALE is done once more, believing nothing."""
        try:
            return await self._walk(path)
        except Stale:
            self.entries.clear()
            self.attrs.clear()
            return await self._walk(path)

    async def _walk(self, path: str) -> Attr:
        attr = await self._attr(Filesystem.ROOT)
        for name in filter(None, path.encode().split(b"/")):
            if not stat.S_ISDIR(attr.mode):
                raise NoEntry("That is below a file.")
            attr = await self._step(attr.ino, name)
        return attr

    async def _step(self, parent: int, name: bytes) -> Attr:
        ino = self.entries.get((parent, name))
        if ino is None:
            self.asked += 1
            attr = await self.fs.lookup(parent, name, ME)
            self.believe(parent, name, attr)
            return attr
        return await self._attr(ino)

    async def _attr(self, ino: int) -> Attr:
        attr = self.attrs.get(ino) or await self.fs.getattr(ino)
        if attr.lasting:
            self.attrs[ino] = attr
        return attr

    def believe(self, parent: int, name: bytes, attr: Attr) -> None:
        if attr.lasting:
            self.entries[parent, name] = attr.ino
            self.attrs[attr.ino] = attr

    async def list(self, path: str) -> list[bytes]:
        ino = (await self.stat(path)).ino
        fh = await self.fs.opendir(ino)
        entries = await accepted(self.fs, fh)
        for entry in entries:
            self.believe(ino, entry.name, entry.attr)
        await self.fs.releasedir(fh)
        return [entry.name for entry in entries]


class Pair:
    """A mount that follows, its kernel, and another process on the same folder."""

    def __init__(self, folder: Path, *, root: str = "", **options: float) -> None:
        self.ours = Engine.open(folder)
        self.theirs = Engine.open(folder)
        self.ours.create_bucket(BUCKET)
        self.kernel = Kernel()
        store = LocalStore(self.ours, BUCKET)
        self.fs = self.kernel.fs = Filesystem(store, FsOptions(root=root, **options), invalidate=self.kernel)  # type: ignore[arg-type]
        self._sizes = itertools.count(1)

    async def hear(self) -> None:
        await self.fs._following.ask()
        self.fs.check()

    def put(self, key: str, **metadata: str) -> None:
        """The other process writes; every content has a length of its own."""
        is_directory = key.endswith("/")
        how = How(metadata={**(DIRECTORY if is_directory else {}), **metadata})
        self.theirs.put(BUCKET, Key(key), b"" if is_directory else b"x" * next(self._sizes), how, durable=False)

    def remove(self, key: str) -> None:
        self.theirs.delete(BUCKET, Key(key), durable=False)

    async def is_there(self, path: str) -> bool:
        try:
            await self.kernel.stat(path)
        except NoEntry:
            return False
        return True

    async def true(self, path: str) -> Attr | None:
        """What a mount that knows nothing yet sees."""
        kernel = Kernel()
        kernel.fs = Filesystem(LocalStore(self.theirs, BUCKET), self.fs._volume.options)
        try:
            return await kernel.stat(path)
        except NoEntry:
            return None

    async def check(self, paths: Iterable[str]) -> None:
        """What the kernel believes is true, but for directories that this mount keeps after their last file."""
        for path in paths:
            if path + "/" in self.fs._volume.kept:
                continue
            try:
                seen = await self.kernel.stat(path)
            except NoEntry:
                seen = None
            assert shown(seen) == shown(await self.true(path)), path


def shown(attr: Attr | None) -> object:
    return None if attr is None else (attr.mode, attr.size, attr.nlink, attr.mtime_ns if stat.S_ISREG(attr.mode) else 0)


@asynccontextmanager
async def opened(folder: Path, *, root: str = "") -> AsyncIterator[Pair]:
    pair = Pair(folder, root=root)
    try:
        yield pair
        await pair.fs.aclose()
    finally:
        pair.theirs.close()
        pair.ours.close()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with opened(tmp_path / "data") as pair:
        await pair.hear()
        yield pair


async def test_what_lasts_is_not_asked_for_again(pair: Pair) -> None:
    pair.put("folder/file")
    await pair.hear()
    first = await pair.kernel.stat("folder/file")
    asked = pair.kernel.asked
    assert await pair.kernel.stat("folder/file") == first
    assert pair.kernel.asked == asked
    assert first.lasting


async def test_nothing_lasts_before_the_store_is_followed(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as pair:
        pair.put("file")
        assert not (await pair.kernel.stat("file")).lasting
        await pair.hear()
        assert (await pair.kernel.stat("file")).lasting


async def test_a_file_that_another_process_removes_is_gone(pair: Pair) -> None:
    pair.put("folder/file")
    assert await pair.is_there("folder/file")
    pair.remove("folder/file")
    await pair.hear()
    assert not await pair.is_there("folder/file")


async def test_a_file_that_another_process_replaces_is_another_inode(pair: Pair) -> None:
    pair.put("file")
    former = await pair.kernel.stat("file")
    pair.put("file")
    await pair.hear()
    latter = await pair.kernel.stat("file")
    assert latter.size != former.size
    assert latter.ino != former.ino


async def test_a_mode_that_another_process_sets_is_seen(pair: Pair) -> None:
    pair.put("file")
    await pair.kernel.stat("file")
    pair.theirs.update(BUCKET, Key("file"), {"mode": str(stat.S_IFREG | 0o600)}, durable=False)
    await pair.hear()
    assert stat.S_IMODE((await pair.kernel.stat("file")).mode) == 0o600


async def test_a_directory_that_only_keys_made_goes_with_the_last_of_them(pair: Pair) -> None:
    pair.put("a/b/file")
    assert await pair.is_there("a/b/file")
    pair.remove("a/b/file")
    await pair.hear()
    assert not await pair.is_there("a/b")
    assert not await pair.is_there("a")


@pytest.mark.parametrize("heard", ["before", "in between", "after"])
async def test_directories_stay_whenever_it_is_heard_what_made_them(pair: Pair, heard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = pair.fs._volume.store
    pair.put("a/b/file")
    directory = (await pair.kernel.stat("a/b")).ino
    if heard == "before":
        await pair.hear()
    await pair.kernel.stat("a/b/file")
    if heard == "in between":
        delete = store.delete

        async def delete_and_hear(key: Key, **condition: ETag | None) -> None:
            await delete(key, **condition)
            monkeypatch.undo()
            await pair.hear()

        monkeypatch.setattr(store, "delete", delete_and_hear)
    await pair.fs.unlink(directory, b"file")
    if heard == "after":
        await pair.hear()
    assert await pair.is_there("a/b")
    assert await pair.kernel.list("a/b") == []
    assert await pair.kernel.list("a") == [b"b"]


async def test_a_directory_that_comes_takes_the_name_of_a_file(pair: Pair) -> None:
    pair.put("name")
    assert stat.S_ISREG((await pair.kernel.stat("name")).mode)
    pair.put("name/file")
    await pair.hear()
    assert stat.S_ISDIR((await pair.kernel.stat("name")).mode)
    assert await pair.is_there("name␛f")
    pair.remove("name/file")
    await pair.hear()
    assert stat.S_ISREG((await pair.kernel.stat("name")).mode)


async def test_a_tree_that_another_process_renames_is_where_it_went(pair: Pair) -> None:
    for name in ("a/", "a/b/", "a/b/file", "a/file"):
        pair.put(name)
        await pair.is_there(name.rstrip("/"))
    pair.theirs.rename_prefix(BUCKET, "a/", "z/", durable=False)
    await pair.hear()
    await pair.check(["a", "a/b", "a/b/file", "a/file", "z", "z/b", "z/b/file", "z/file"])
    assert await pair.is_there("z/b/file")


async def test_a_link_that_another_process_makes_and_removes_is_counted(pair: Pair) -> None:
    pair.put("file")
    await pair.kernel.stat("file")
    pair.theirs.link(BUCKET, Key("file"), Key("other"), durable=False)
    await pair.hear()
    assert (await pair.kernel.stat("file")).nlink == 2
    pair.remove("other")
    await pair.hear()
    assert (await pair.kernel.stat("file")).nlink == 1


async def test_a_listing_that_was_under_way_tells_nothing_that_lasts_and_is_over(pair: Pair) -> None:
    for number in range(20):
        pair.put(f"d/{number:02}")
    directory = (await pair.kernel.stat("d")).ino
    fh = await pair.fs.opendir(directory)
    (first,) = await told(pair.fs, fh, count=1)
    assert first.name == b"00"
    pair.put("d/15")
    pair.remove("d/16")
    await pair.hear()
    rest = {entry.name: entry.attr for entry in await told(pair.fs, fh, first.next_id)}
    truth = await pair.true("d/15")
    assert truth is not None
    assert rest[b"15"].size == truth.size
    assert b"16" not in rest
    await pair.fs.releasedir(fh)


async def test_what_is_being_written_does_not_last(pair: Pair) -> None:
    fh, attr = await pair.fs.create(Filesystem.ROOT, b"file", mode=0o600, flags=os.O_RDWR, caller=ME)
    assert not attr.lasting
    await pair.fs.write(fh, 0, b"text")
    assert not (await pair.fs.getattr(attr.ino)).lasting
    await pair.fs.flush(fh)
    await pair.fs.release(fh)
    assert (await pair.fs.getattr(attr.ino)).lasting


async def test_escaped_names_and_long_ones_do_not_last(pair: Pair) -> None:
    for key in ("a//b", "long" * 100, "a␛b"):
        pair.put(key)
    for path in ("a/␛_", "a␛␛b"):
        attr = await pair.kernel.stat(path)
        assert not attr.lasting, path
    (piece,) = [name for name in await pair.kernel.list("") if name.startswith(b"long")]
    (tail,) = await pair.kernel.list(piece.decode())
    assert not (await pair.kernel.stat(f"{piece.decode()}/{tail.decode()}")).lasting


async def test_what_the_feed_lost_is_forgotten_altogether(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/b/file", "a/file", "file"):
        pair.put(name)
        await pair.kernel.stat(name)
    monkeypatch.setattr("s3mount.engine.follow.TOLD_MOST", 0)
    for name in ("a/b/file", "a/file", "file"):
        pair.remove(name)
    await pair.hear()
    await pair.check(["a/b/file", "a/b", "a/file", "a", "file"])


async def test_while_the_store_cannot_tell_nothing_lasts(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.put("file")
    assert (await pair.kernel.stat("file")).lasting

    async def refused() -> Changed:
        raise Unavailable("not now")

    with monkeypatch.context() as patch:
        patch.setattr(pair.fs._volume.store, "changed", refused)
        await pair.hear()
        assert not (await pair.kernel.stat("file")).lasting
        pair.put("file")
    await pair.hear()
    await pair.check(["file"])
    assert (await pair.kernel.stat("file")).lasting


async def test_only_what_lies_below_the_mounted_prefix_is_heard(tmp_path: Path) -> None:
    async with opened(tmp_path / "data", root="a/b/") as pair:
        await pair.hear()
        for name in ("a/b/c/file", "a/x"):
            pair.put(name)
        await pair.hear()
        assert await pair.is_there("c/file")
        pair.put("a/x")
        await pair.hear()
        asked = pair.kernel.asked
        assert await pair.is_there("c/file")
        assert pair.kernel.asked == asked
        pair.theirs.rename_prefix(BUCKET, "a/", "z/", durable=False)
        await pair.hear()
        assert not await pair.is_there("c/file")


@pytest.fixture
def looks(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that are looked for in the store."""
    looks: list[str] = []
    find = pair.fs._volume.store.find

    async def counted(name: str) -> Found:
        looks.append(name)
        return await find(name)

    monkeypatch.setattr(pair.fs._volume.store, "find", counted)
    return looks


@pytest.mark.parametrize("listed", [True, False])
async def test_what_was_listed_or_looked_up_is_removed_without_another_look(pair: Pair, looks: list[str], listed: bool) -> None:
    for name in ("d/", "d/0", "d/1", "d/2"):
        pair.put(name)
    await pair.hear()
    directory = (await pair.kernel.stat("d")).ino
    await pair.fs.getattr(directory)
    if listed:
        assert await pair.kernel.list("d") == [b"0", b"1", b"2"]
    else:
        for number in range(3):
            await pair.kernel.stat(f"d/{number}")
    looks.clear()
    for number in range(3):
        await pair.fs.unlink(directory, b"%d" % number)
        await pair.fs.getattr(directory)
    assert looks == []
    assert [info.key for info in pair.theirs.list(BUCKET).objects] == ["d/"]


async def test_what_others_replaced_linked_or_hold_is_looked_at_before_it_is_removed(pair: Pair, looks: list[str]) -> None:
    for name in ("d/", "d/replaced", "d/linked", "d/open", "d/heard"):
        pair.put(name)
    await pair.hear()
    directory = (await pair.kernel.stat("d")).ino
    await pair.kernel.list("d")
    pair.put("d/heard")
    pair.theirs.link(BUCKET, Key("d/linked"), Key("other"), durable=False)
    await pair.hear()
    opened = await pair.fs.open((await pair.kernel.stat("d/open")).ino, os.O_RDONLY)
    pair.put("d/replaced")
    for name in ("heard", "linked", "open", "replaced"):
        looks.clear()
        await pair.fs.unlink(directory, name.encode())
        assert looks[:1] == [f"d/{name}"]
    assert len(await pair.fs.read(opened.fh, 0, 100))
    await pair.fs.release(opened.fh)
    assert [info.key for info in pair.theirs.list(BUCKET).objects] == ["d/", "other"]


async def test_a_removal_of_what_another_process_removed_just_now_is_done(pair: Pair) -> None:
    pair.put("file")
    await pair.hear()
    await pair.kernel.stat("file")
    pair.remove("file")
    await pair.fs.unlink(Filesystem.ROOT, b"file")
    with pytest.raises(NoEntry):
        await pair.fs.unlink(Filesystem.ROOT, b"file")


NAMES = ("a", "b", "c")
PATHS = tuple("/".join(parts) for depth in (1, 2, 3) for parts in itertools.product(NAMES, repeat=depth))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
async def test_whatever_both_do_the_kernel_believes_what_is_true(pair: Pair, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(40):
        for _ in range(dice.randrange(4)):
            await pair.is_there(dice.choice(PATHS))
        if dice.random() < 0.2 and await pair.is_there(directory := dice.choice(NAMES)):
            with suppress(NotADirectory):
                await pair.kernel.list(directory)
        for _ in range(dice.randrange(3)):
            act(pair, dice)
        if dice.random() < 0.3:
            await act_here(pair, dice)
        if dice.random() < 0.5:
            await pair.hear()
            await pair.check(dice.sample(PATHS, 10))
    await pair.hear()
    await pair.check(PATHS)


def act(pair: Pair, dice: random.Random) -> None:
    """The other process does something."""
    path, other = dice.choice(PATHS), dice.choice(PATHS)
    match dice.randrange(8):
        case 0 | 1 | 2:
            pair.put(path)
        case 3:
            pair.put(path + "/")
        case 4:
            pair.remove(path)
        case 5:
            pair.remove(path + "/")
        case 6:
            with suppress(StoreError):
                pair.theirs.rename(BUCKET, Key(path), Key(other), durable=False)
        case 7:
            with suppress(StoreError, ValueError):
                pair.theirs.rename_prefix(BUCKET, path + "/", other + "/", durable=False)


async def act_here(pair: Pair, dice: random.Random) -> None:
    """Somebody removes a file through the mount, or makes one."""
    parent, name = dice.choice(NAMES), dice.choice(NAMES).encode()
    with suppress(FsError):
        directory = (await pair.kernel.stat(parent)).ino
        if dice.random() < 0.5:
            await pair.fs.unlink(directory, name)
            pair.kernel.entry(directory, name)
        else:
            fh, _ = await pair.fs.create(directory, name, mode=0o600, flags=os.O_RDWR, caller=ME)
            await pair.fs.write(fh, 0, b"y" * next(pair._sizes))
            await pair.fs.flush(fh)
            await pair.fs.release(fh)
            pair.kernel.entry(directory, name)


class Telling(Wrapper):
    """Tells what it is told to tell; counts the questions."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.questions = 0

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, changes=True)

    async def changed(self) -> Changed:
        self.questions += 1
        return Changed()


@pytest.mark.parametrize(("ttl", "questions"), [(1.0, 30), (60.0, 10), (math.inf, 10), (0.0, 0), (0.03, 0)])
async def test_the_store_is_asked_three_times_in_a_time_to_live(ttl: float, questions: int, autojump_clock: MockClock) -> None:
    store = Telling()
    fs = Filesystem(store, FsOptions(metadata_ttl_s=ttl))
    with trio.move_on_after(9.99):
        await fs.run()
    assert store.questions == questions
    assert not fs._volume.following

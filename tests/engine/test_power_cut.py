"""A power cut at any moment: what was acknowledged as durable is there, whole; the rest is there whole, in an older version, or absent.

The medium keeps what was synced for sure, and of everything else whatever chance decides (`ShadowDisk`). The index, which nothing syncs for
certain, comes out of it missing, as it once was, or ahead of the log.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from s3mount.engine.disk import Disk
from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.model import Content, Kept, Key, ObjectInfo, Part, Piece, Staged
from tests.conftest import ExpectLogs
from tests.engine.disks import INDEX_FILES, Crash, ShadowDisk
from tests.engine.observe import BUCKET, leftovers, observe
from tests.engine.test_crash import File

LARGE = 20_000
Index = str  # absent | stale | ahead


@pytest.fixture(autouse=True)
def _announced(expect_logs: ExpectLogs) -> None:
    expect_logs("The log was cut behind record", "After a power cut the unsynced changes", "The index cannot be used")


class Machine:
    """An engine on a medium that will lose its power."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.data = folder / "data"
        self.disk = ShadowDisk(self.data)
        self.engine = Engine.open(self.data, disk=self.disk, boot_id="before")
        self.engine.create_bucket(BUCKET)
        self._cuts = 0
        self.note_index()

    def note_index(self) -> None:
        """What a stale index will look like."""
        self._copy_index(self.data, self._folder)

    def _copy_index(self, source: Path, target: Path) -> None:
        for name in INDEX_FILES[:2]:
            (target / name).unlink(missing_ok=True)
            if (source / name).exists():
                shutil.copy(source / name, target / name)

    def cut(self, index: Index, chance: random.Random | None = None) -> Path:
        self._cuts += 1
        target = self.disk.cut(self._folder / f"cut-{self._cuts}", chance)
        if index != "absent":
            self._copy_index(self._folder if index == "stale" else self.data, target)
        return target

    def close(self) -> None:
        self.engine.close()
        self.disk.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def after_cut(folder: Path) -> dict[str, bytes]:
    """What is there when the machine has booted again; the folder is sound, can be swept and used."""
    with Engine.open(folder, boot_id="after") as engine:
        assert engine.check() == []
        found = observe(engine)
        engine.sync()
        engine.sweep(grace_seconds=0)
        assert leftovers(engine) == []
        engine.put(BUCKET, Key("zz afterwards"), b"z" * LARGE)
        assert engine.scrub().damaged == ()
        assert engine.check() == []
    with Engine.open(folder, boot_id="after") as engine:
        assert observe(engine).objects.items() >= found.objects.items()
    return found.contents()


def put(engine: Engine, key: str, data: bytes, *, durable: bool = False) -> None:
    engine.put(BUCKET, Key(key), data, durable=durable)


def spliced(base: ObjectInfo, at: int, source: File) -> Content:
    """The content of *base* with all of *source* laid over it at *at*."""
    end = at + source.length
    kept: list[Piece] = [Kept(start, stop - start) for start, stop in ((0, at), (end, base.size)) if start < stop]
    return Content(base.size, tuple(sorted([*kept, Staged(at, source.length, source, 0)], key=lambda piece: piece.offset)), base)


def lay_over(machine: Machine, key: str, at: int, data: bytes, *, durable: bool) -> None:
    base = machine.engine.head(BUCKET, Key(key))
    source = File(machine.engine.staging / "mine", data)
    machine.engine.adopt(BUCKET, base.key, spliced(base, at, source), How(file_id=base.file_id), durable=durable)
    source.path.unlink(missing_ok=True)


EVERY_INDEX = pytest.mark.parametrize("index", ["absent", "stale", "ahead"])


# -- one operation ------------------------------------------------------------------------


def adopt(machine: Machine, *, durable: bool) -> None:
    source = File(machine.engine.staging / "mine", b"n" * LARGE)
    content = Content(LARGE, (Staged(0, LARGE, source, 0),))
    machine.engine.adopt(BUCKET, Key("new"), content, How(), durable=durable)


def edit(machine: Machine, *, durable: bool) -> None:
    lay_over(machine, "old", 5, b"n" * LARGE, durable=durable)


def multipart(machine: Machine, *, durable: bool) -> None:
    engine = machine.engine
    upload = engine.create_upload(BUCKET, Key("new"), durable=False)
    parts = [engine.put_part(BUCKET, upload, number, bytes([96 + number]) * LARGE, durable=False) for number in (2, 1)]
    engine.complete_upload(BUCKET, upload, [Part(part.number, part.size, part.etag) for part in reversed(parts)], durable=durable)


OPERATIONS: dict[str, Callable[..., object]] = {
    "put small": lambda machine, durable: machine.engine.put(BUCKET, Key("new"), b"small", durable=durable),
    "put large": lambda machine, durable: machine.engine.put(BUCKET, Key("new"), b"n" * LARGE, durable=durable),
    "put over": lambda machine, durable: machine.engine.put(BUCKET, Key("old"), b"n" * LARGE, durable=durable),
    "adopt": adopt,
    "edit": edit,
    "multipart": multipart,
    "copy": lambda machine, durable: machine.engine.copy(BUCKET, Key("old"), Key("new"), durable=durable),
    "copy of what is not synced": lambda machine, durable: machine.engine.copy(BUCKET, Key("loose"), Key("new"), durable=durable),
    "same bytes as what is not synced": lambda machine, durable: machine.engine.put(BUCKET, Key("new"), b"l" * LARGE, durable=durable),
    "delete": lambda machine, durable: machine.engine.delete(BUCKET, Key("old"), durable=durable),
    "rename": lambda machine, durable: machine.engine.rename(BUCKET, Key("old"), Key("new"), durable=durable),
    "rename prefix": lambda machine, durable: machine.engine.rename_prefix(BUCKET, "dir/", "new/", durable=durable),
    "put many": lambda machine, durable: machine.engine.put_many(
        BUCKET, [(Key(f"new{n}"), bytes([n]) * (n * 9000), How()) for n in range(4)], durable=durable
    ),
}


def prepare(machine: Machine) -> None:
    put(machine.engine, "old", b"o" * 3 * LARGE, durable=True)
    put(machine.engine, "dir/a", b"a" * LARGE, durable=True)
    put(machine.engine, "dir/b", b"b", durable=True)
    machine.note_index()
    put(machine.engine, "loose", b"l" * LARGE)


# What `make check` looks at.
QUICK = {"put large", "edit"}


@EVERY_INDEX
@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OPERATIONS])
def test_what_was_acknowledged_as_durable_is_there(machine: Machine, name: str, index: Index) -> None:
    prepare(machine)
    before = observe(machine.engine).contents()
    OPERATIONS[name](machine, durable=True)
    after = observe(machine.engine).contents()
    found = after_cut(machine.cut(index))
    loose = found.pop("loose", None)
    assert loose in (None, before["loose"])
    assert found == {key: content for key, content in after.items() if key != "loose"}


@pytest.mark.slow
@EVERY_INDEX
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_was_not_synced_is_there_whole_or_as_before(machine: Machine, name: str, index: Index) -> None:
    prepare(machine)
    before = observe(machine.engine).contents()
    OPERATIONS[name](machine, durable=False)
    after = observe(machine.engine).contents()
    for seed in range(4):
        found = after_cut(machine.cut(index, random.Random(seed)))
        for key in {*before, *after}:
            assert found.get(key) in (before.get(key), after.get(key), None if key == "loose" else before.get(key))


@EVERY_INDEX
def test_a_sync_makes_everything_durable(machine: Machine, index: Index) -> None:
    prepare(machine)
    for name in ("put large", "edit", "rename prefix"):
        OPERATIONS[name](machine, durable=False)
    machine.engine.sync()
    expected = observe(machine.engine).contents()
    assert after_cut(machine.cut(index)) == expected
    assert after_cut(machine.cut(index, random.Random(1))) == expected


@EVERY_INDEX
def test_a_sync_of_one_object_makes_that_durable(machine: Machine, index: Index) -> None:
    prepare(machine)
    put(machine.engine, "one", b"1" * LARGE)
    put(machine.engine, "two", b"2" * LARGE)
    machine.engine.sync(BUCKET, Key("two"))
    found = after_cut(machine.cut(index))
    assert found["two"] == b"2" * LARGE
    assert found.get("one") in (None, b"1" * LARGE)


def test_the_replaced_version_outlives_a_replacement_that_was_not_synced(machine: Machine) -> None:
    """The usual way of an editor: write aside, rename over. Neither an empty file nor a mixture may come of it."""
    put(machine.engine, "text", b"old" * LARGE, durable=True)
    machine.engine.sync()
    put(machine.engine, "text.new", b"new" * LARGE)
    machine.engine.rename(BUCKET, Key("text.new"), Key("text"), durable=False)
    assert after_cut(machine.cut("absent")) == {"text": b"old" * LARGE}


def test_an_edit_of_a_version_that_was_lost_does_not_happen(machine: Machine) -> None:
    put(machine.engine, "old", b"o" * 3 * LARGE, durable=True)
    put(machine.engine, "old", b"p" * 3 * LARGE)
    lay_over(machine, "old", 0, b"small edit", durable=False)
    machine.engine.log.sync()
    assert after_cut(machine.cut("ahead")) == {"old": b"o" * 3 * LARGE}


@pytest.mark.slow
def test_what_died_and_was_deleted_before_the_cut_is_not_missed(machine: Machine) -> None:
    for turn in range(3):
        put(machine.engine, "again", bytes([turn]) * LARGE)
        machine.engine.sync()
    put(machine.engine, "again", b"last" * LARGE, durable=True)
    for index in ("absent", "stale", "ahead"):
        for seed in range(5):
            assert after_cut(machine.cut(index, random.Random(seed))) == {"again": b"last" * LARGE}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_body_is_deleted_only_behind_a_mark_that_is_itself_synced(machine: Machine, seed: int) -> None:
    """Else the record that brought it would be taken for one whose body was lost, and all edits that build on it with it."""
    put(machine.engine, "edited", b"1" * 2 * LARGE)
    lay_over(machine, "edited", 0, b"2" * LARGE, durable=False)
    lay_over(machine, "edited", LARGE, b"3" * LARGE, durable=False)
    machine.engine.sync()
    assert after_cut(machine.cut("absent", random.Random(seed))) == {"edited": b"2" * LARGE + b"3" * LARGE}


@pytest.mark.slow
def test_what_dies_while_a_sync_is_under_way_outlives_that_sync(tmp_path: Path) -> None:
    class Meanwhile(ShadowDisk):
        act: Callable[[], None] | None = None

        def fsync(self, fd: int) -> None:
            super().fsync(fd)
            if self.act is not None:
                act, self.act = self.act, None
                act()

    disk = Meanwhile(tmp_path / "data")
    with Engine.open(tmp_path / "data", disk=disk, boot_id="before") as engine:
        engine.create_bucket(BUCKET)
        put(engine, "key", b"old" * LARGE, durable=True)
        put(engine, "other", b"other")
        disk.act = lambda: put(engine, "key", b"new" * LARGE)
        engine.sync()
        assert disk.act is None
        assert after_cut(disk.cut(tmp_path / "cut"))["key"] == b"old" * LARGE
        for seed in range(8):
            assert after_cut(disk.cut(tmp_path / f"cut-{seed}", random.Random(seed)))["key"] in (b"old" * LARGE, b"new" * LARGE)
    disk.close()


@pytest.mark.slow
def test_settling_is_repeated_when_the_power_fails_again(machine: Machine) -> None:
    """A cut at every step of the first boot after a cut."""

    class Stopping(ShadowDisk):
        left = 0

        def step(self, name: str) -> None:
            self.left -= 1
            if self.left < 0:
                raise Crash(name)

    prepare(machine)
    put(machine.engine, "lost", b"x" * LARGE)
    put(machine.engine, "kept", b"k" * LARGE, durable=True)
    kept = {"old", "dir/a", "dir/b", "kept"}
    for steps in range(40):
        folder = machine.cut("ahead")
        disk = Stopping(folder)
        disk.adopt_all()
        disk.left = steps
        died = False
        try:
            Engine.open(folder, disk=disk, boot_id="after").close()
        except Crash:
            died = True
        assert kept <= after_cut(disk.cut(folder.with_name(f"{folder.name}-again"))).keys()
        disk.close()
        if not died:
            return
    raise AssertionError("it never ended")


@EVERY_INDEX
def test_a_rename_of_a_content_that_was_lost_hands_over_no_older_one(machine: Machine, index: Index) -> None:
    put(machine.engine, "source", b"s" * LARGE, durable=True)
    put(machine.engine, "target", b"t" * LARGE, durable=True)
    put(machine.engine, "source", b"S" * LARGE)
    machine.engine.rename(BUCKET, Key("source"), Key("target"), durable=False)
    put(machine.engine, "last", b"the log is synced", durable=True)
    assert after_cut(machine.cut(index)) == {"source": b"s" * LARGE, "target": b"t" * LARGE, "last": b"the log is synced"}


# -- many operations ----------------------------------------------------------------------


@dataclass
class History:
    """Every content that a key had, and from which on a cut may not go back."""

    contents: list[bytes | None] = field(default_factory=lambda: [None])
    durable: int = 0

    def change(self, content: bytes | None, *, durable: bool) -> None:
        self.contents.append(content)
        if durable:
            self.sync()

    def sync(self) -> None:
        self.durable = len(self.contents) - 1

    def allows(self, content: bytes | None) -> bool:
        return content in self.contents[self.durable :]


class Story:
    """Random operations, each with its own content, so that a mixture or a wrong version shows."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.chance = random.Random(seed)
        self.histories: dict[str, History] = {f"k{number}": History() for number in range(6)}

    def act(self) -> None:
        chance, engine = self.chance, self.machine.engine
        key, durable = chance.choice(list(self.histories)), chance.random() < 0.3
        match chance.randrange(11):
            case 0 | 1 | 2:
                data = chance.randbytes(4) * chance.choice([1, 1000, 6000])
                put(engine, key, data, durable=durable)
                self.histories[key].change(data, durable=durable)
            case 3:
                engine.delete(BUCKET, Key(key), durable=durable, lingers=True)
                self.histories[key].change(None, durable=durable)
            case 4:
                self._edit(key, durable=durable)
            case 5:
                engine.sync(BUCKET, Key(key))
                self.histories[key].sync()
            case 6:
                if chance.random() < 0.3:
                    self._sync()
            case 7 | 8:
                self._hand_over(key, chance.choice(list(self.histories)), durable=durable)
            case 9:
                if chance.random() < 0.3:
                    engine.compact()
                    for history in self.histories.values():
                        history.sync()
            case _:
                if chance.random() < 0.3:
                    self.machine.note_index()

    def _edit(self, key: str, *, durable: bool) -> None:
        engine, content = self.machine.engine, self.histories[key].contents[-1]
        if content is None or len(content) < 100:
            return
        base = engine.head(BUCKET, Key(key))
        new = self.chance.randbytes(4) * 10
        at = self.chance.randrange(len(content) - 40)
        edited = content[:at] + new + content[at + 40 :]
        path = engine.staging / "edit"
        engine.adopt(BUCKET, base.key, spliced(base, at, File(path, new)), How(file_id=base.file_id), durable=durable)
        path.unlink(missing_ok=True)
        self.histories[key].change(edited, durable=durable)

    def _hand_over(self, source: str, target: str, *, durable: bool) -> None:
        """Copy or rename."""
        content = self.histories[source].contents[-1]
        if content is None or source == target:
            return
        if self.chance.random() < 0.5:
            self.machine.engine.copy(BUCKET, Key(source), Key(target), durable=durable)
        else:
            self.machine.engine.rename(BUCKET, Key(source), Key(target), durable=durable)
            self.histories[source].change(None, durable=durable)
        self.histories[target].change(content, durable=durable)

    def _sync(self) -> None:
        self.machine.engine.sync()
        for history in self.histories.values():
            history.sync()

    def judge(self, found: dict[str, bytes]) -> None:
        for key, history in self.histories.items():
            assert history.allows(found.get(key)), f"{key}: {found.get(key, b'')[:20]!r}"


# Durable renames of what was not synced (107, 267) and a durable removal of what was not there any more (32) once ended badly.
STORIES = [*range(9), 32, 107, 267]


@pytest.mark.slow
@pytest.mark.parametrize("seed", STORIES)
def test_any_story_ends_well(machine: Machine, seed: int) -> None:
    story = Story(machine, seed)
    for turn in range(60):
        story.act()
        if turn % 6 == 5:
            index = story.chance.choice(["absent", "stale", "ahead"])
            chance = None if story.chance.random() < 0.3 else random.Random(story.chance.random())
            story.judge(after_cut(machine.cut(index, chance)))


def test_a_power_cut_of_the_real_thing_needs_the_real_disk(tmp_path: Path) -> None:
    """The shadow is a Disk like any other: without a cut nothing differs."""
    with Engine.open(tmp_path / "data", disk=Disk(), boot_id="a") as engine:
        engine.create_bucket(BUCKET)
        put(engine, "key", b"k" * LARGE)
    assert after_cut(tmp_path / "data")["key"] == b"k" * LARGE

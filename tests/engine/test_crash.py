"""A process that dies at any step of any operation: afterwards the operation happened or it did not, and nothing is left of the attempt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from s3mount.engine.codec import Buffer
from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.model import Content, Kept, Key, Part, Staged
from tests.conftest import ExpectLogs
from tests.engine.disks import Crash, StoppingDisk, killed
from tests.engine.observe import BUCKET, State, leftovers, observe

BOOT = "one boot"
SMALL, LARGE, OTHER = b"small", b"large" * 8000, b"other" * 9000

# Enough for every operation below; one that takes more never ends the test as it should.
MAX_STEPS = 60


class File:
    """A staged file, as a mount has one."""

    def __init__(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self.path = path
        self.length = len(data)
        self._data = data

    def read_into(self, position: int, buffer: memoryview) -> None:
        buffer[:] = self._data[position : position + len(buffer)]


def adopt(engine: Engine) -> None:
    source = File(engine.staging / "mine", OTHER)
    content = Content(len(OTHER), (Staged(0, len(OTHER), source, 0),))
    engine.adopt(BUCKET, Key("new"), content, How())


def edit(engine: Engine) -> None:
    source = File(engine.staging / "mine", b"x" * 20000)
    base = engine.head(BUCKET, Key("dir/large"))
    pieces = (Kept(0, 100), Staged(100, 20000, source, 0), Kept(20100, base.size - 20100))
    engine.adopt(BUCKET, base.key, Content(base.size, pieces, base), How(file_id=base.file_id))


def complete(engine: Engine) -> None:
    (upload,) = engine.uploads(BUCKET)
    engine.complete_upload(BUCKET, upload, [Part(part.number, part.size, part.etag) for part in engine.parts(BUCKET, upload)])


def put_part(engine: Engine) -> None:
    (upload,) = engine.uploads(BUCKET)
    engine.put_part(BUCKET, upload, 1, OTHER + b"again")


def abort(engine: Engine) -> None:
    (upload,) = engine.uploads(BUCKET)
    engine.abort_upload(BUCKET, upload)


OPERATIONS: dict[str, Callable[[Engine], object]] = {
    "put a small object": lambda engine: engine.put(BUCKET, Key("new"), SMALL),
    "put a large object": lambda engine: engine.put(BUCKET, Key("new"), OTHER),
    "put over a large object": lambda engine: engine.put(BUCKET, Key("dir/large"), OTHER, How(metadata={"mode": "33188"})),
    "put bytes that are stored already": lambda engine: engine.put(BUCKET, Key("new"), LARGE),
    "put without waiting": lambda engine: engine.put(BUCKET, Key("new"), OTHER, durable=False),
    "put many": lambda engine: engine.put_many(BUCKET, [(Key(f"many/{n}"), bytes([n]) * (n * 9000), How()) for n in range(4)]),
    "adopt a staged file": adopt,
    "edit": edit,
    "complete": complete,
    "put a part again": put_part,
    "abort": abort,
    "update": lambda engine: engine.update(BUCKET, Key("dir/large"), {"color": "red"}),
    "delete": lambda engine: engine.delete(BUCKET, Key("dir/large")),
    "delete many": lambda engine: engine.delete_many(BUCKET, [Key("dir/large"), Key("dir/small"), Key("nothing")]),
    "copy": lambda engine: engine.copy(BUCKET, Key("dir/large"), Key("new")),
    "copy over": lambda engine: engine.copy(BUCKET, Key("dir/small"), Key("dir/large")),
    "rename": lambda engine: engine.rename(BUCKET, Key("dir/large"), Key("new")),
    "rename over": lambda engine: engine.rename(BUCKET, Key("dir/small"), Key("dir/large")),
    "rename a prefix": lambda engine: engine.rename_prefix(BUCKET, "dir/", "elsewhere/"),
    "exchange": lambda engine: engine.exchange(BUCKET, "dir/", "top"),
    "link": lambda engine: engine.link(BUCKET, Key("dir/large"), Key("new")),
}

UPKEEP: dict[str, Callable[[Engine], object]] = {
    "sync": lambda engine: engine.sync(),
    "sync one object": lambda engine: engine.sync(BUCKET, Key("unsynced")),
    "sweep": lambda engine: engine.sweep(grace_seconds=0),
    "compact": lambda engine: engine.compact(),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bit of everything: synced and not, shared and not, dead bodies, an upload under way."""
    folder = tmp_path_factory.mktemp("template") / "data"
    with Engine.open(folder, boot_id=BOOT) as engine:
        engine.create_bucket(BUCKET)
        engine.put(BUCKET, Key("dir/large"), LARGE)
        engine.put(BUCKET, Key("dir/small"), SMALL)
        engine.put(BUCKET, Key("top"), b"top" * 10000)
        engine.copy(BUCKET, Key("top"), Key("copied"))
        engine.put(BUCKET, Key("replaced"), b"before" * 5000)
        engine.put(BUCKET, Key("replaced"), b"after" * 5000)
        upload = engine.create_upload(BUCKET, Key("uploaded"))
        engine.put_part(BUCKET, upload, 1, b"one" * 10000)
        engine.put_part(BUCKET, upload, 2, b"two")
        engine.put(BUCKET, Key("unsynced"), b"unsynced" * 5000, durable=False)
        assert engine.check() == []
    return folder


def opened(folder: Path, disk: StoppingDisk | None = None) -> Engine:
    return Engine.open(folder, disk=disk or StoppingDisk(), boot_id=BOOT)


def state_of(folder: Path) -> State:
    with opened(folder) as engine:
        return observe(engine)


def judge(folder: Path, allowed: list[State]) -> State:
    """What every folder has to be after any crash."""
    with opened(folder) as engine:
        assert engine.check() == []
        found = observe(engine)
        assert found in allowed
        engine.sweep(grace_seconds=0)
        assert leftovers(engine) == []
        assert engine.check() == []
        assert observe(engine) == found
        engine.put(BUCKET, Key("afterwards"), LARGE + OTHER)
        assert engine.check() == []
    return found


def crash_everywhere(template: Path, folder: Path, act: Callable[[Engine], object], *, torn: bool = False) -> None:
    done = killed(template, folder / "done")
    with opened(done) as engine:
        before = observe(engine)
        act(engine)
        after = observe(engine)
    seen = []
    for at in range(1, MAX_STEPS):
        alive, dead = killed(template, folder / f"{at}"), folder / f"{at}-dead"
        died = stop_and_copy(alive, dead, act, at, torn=torn)
        seen.append(judge(dead, [before, after]))
        if not died:
            assert seen[-1] == after
            return
    raise AssertionError("it never ended")


def stop_and_copy(alive: Path, dead: Path, act: Callable[[Engine], object], at: int, *, torn: bool) -> bool:
    """Run *act* and die at its step *at* (False: it was over before); *dead* becomes the folder as it is then."""
    disk = StoppingDisk()
    engine = opened(alive, disk)
    disk.at, disk.torn, disk.steps = at, torn, 0
    died = False
    try:
        act(engine)
    except Crash:
        died = True
    killed(alive, dead)
    disk.dead = True
    engine.close()
    return died


# What `make check` looks at.
QUICK = {"delete", "rename a prefix"}


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OPERATIONS])
def test_an_operation_that_is_stopped_at_any_step_happened_or_did_not(template: Path, tmp_path: Path, name: str) -> None:
    crash_everywhere(template, tmp_path, OPERATIONS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["put a small object", "put a large object", "rename a prefix", "complete"])
def test_a_write_that_is_stopped_half_way_leaves_nothing_of_it(template: Path, tmp_path: Path, expect_logs: ExpectLogs, name: str) -> None:
    expect_logs("The log was cut behind record")
    crash_everywhere(template, tmp_path, OPERATIONS[name], torn=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", UPKEEP)
def test_upkeep_that_is_stopped_at_any_step_changes_nothing_that_one_sees(template: Path, tmp_path: Path, name: str) -> None:
    crash_everywhere(template, tmp_path, UPKEEP[name])


@pytest.mark.slow
def test_opening_that_is_stopped_at_any_step_can_be_repeated(template: Path, tmp_path: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The log was cut", "The index cannot be used")
    wounded = killed(template, tmp_path / "wounded")
    before = state_of(killed(template, tmp_path / "before"))
    segment = max((wounded / "log").glob("*.log"))
    with segment.open("ab") as file:
        file.write(b"torn tail")
    (wounded / "index.db").write_bytes(b"no database")
    for at in range(1, MAX_STEPS):
        folder = killed(wounded, tmp_path / f"{at}")
        try:
            Engine.open(folder, disk=StoppingDisk(at), boot_id="another boot").close()
        except Crash:
            judge(folder, [before])
        else:
            return
    raise AssertionError("it never ended")


@pytest.mark.slow
def test_making_a_folder_that_is_stopped_at_any_step_can_be_repeated(tmp_path: Path) -> None:
    for at in range(1, MAX_STEPS):
        folder = tmp_path / f"{at}"
        died = False
        try:
            Engine.open(folder, disk=StoppingDisk(at), boot_id=BOOT).close()
        except Crash:
            died = True
        with opened(folder) as engine:
            engine.create_bucket(BUCKET)
            assert engine.check() == []
            engine.sweep(grace_seconds=0)
            assert leftovers(engine) == []
        if not died:
            return
    raise AssertionError("it never ended")


def test_a_change_that_another_process_did_not_live_to_apply_is_seen_by_the_next(template: Path, tmp_path: Path) -> None:
    class DiesBehindWrite(StoppingDisk):
        armed = False

        def write_all(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
            super().write_all(fd, buffers, offset)
            if self.armed:
                raise Crash("behind the append")

    folder = killed(template, tmp_path / "data")
    disk = DiesBehindWrite()
    survivor, victim = opened(folder), opened(folder, disk)
    try:
        disk.armed = True
        with pytest.raises(Crash):
            victim.put(BUCKET, Key("new"), SMALL)
        assert "new" not in observe(survivor).contents()
        survivor.put(BUCKET, Key("other"), SMALL)
        assert {"new", "other"} <= observe(survivor).contents().keys()
        assert survivor.check() == []
    finally:
        survivor.close()
        victim.close()

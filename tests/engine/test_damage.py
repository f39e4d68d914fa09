"""Files of the folder deleted, cut short or overwritten: the index costs time only, the log says what it costs."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from s3mount.engine import codec
from s3mount.engine.engine import Engine
from s3mount.errors import Busy, Corrupt, NewerFormat
from s3mount.model import Key
from tests.conftest import ExpectLogs
from tests.engine.observe import BUCKET, State, content_of, leftovers, listed, observe

BOOT = "one boot"
LARGE = b"large" * 8000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed folder with objects k0 to k9, small and large, with metadata, and an upload."""
    with opened(tmp_path / "data") as engine:
        engine.create_bucket(BUCKET)
        for number in range(10):
            engine.put(BUCKET, Key(f"k{number}"), b"%d" % number * (1 if number % 2 else 20000))
        engine.update(BUCKET, Key("k1"), {"color": "red"})
        upload = engine.create_upload(BUCKET, Key("upload"))
        engine.put_part(BUCKET, upload, 3, LARGE)
        engine.delete(BUCKET, Key("k8"))
    return tmp_path / "data"


def opened(folder: Path, boot_id: str = BOOT) -> Engine:
    return Engine.open(folder, boot_id=boot_id)


def state_of(folder: Path, boot_id: str = BOOT) -> State:
    with opened(folder, boot_id) as engine:
        assert engine.check() == []
        return observe(engine)


def segment(folder: Path) -> Path:
    (path,) = (folder / "log").glob("*.log")
    return path


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def ends(folder: Path) -> list[int]:
    """Where each record of the only segment ends."""
    with opened(folder) as engine:
        return [item.position.offset for item in engine.log.walk(None)]  # type: ignore[union-attr]


# -- the index ----------------------------------------------------------------------------


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _overwrite_beginning(path: Path) -> None:
    overwrite(path, 0, b"not a database at all")


def _overwrite_middle(path: Path) -> None:
    for at in range(4096 * 3, path.stat().st_size, 4096):
        overwrite(path, at, os.urandom(1000))


def _another_schema(path: Path) -> None:
    overwrite(path, 60, (99).to_bytes(4, "big"))


HARM: list[Callable[[Path], None]] = [_delete, _truncate, _empty, _overwrite_beginning, _overwrite_middle, _another_schema]


@pytest.mark.parametrize("harm", HARM)
def test_a_lost_or_damaged_index_is_made_anew_at_the_next_open(folder: Path, harm: Callable[[Path], None], expect_logs: ExpectLogs) -> None:
    expect_logs("The index cannot be used")
    before = state_of(folder)
    harm(folder / "index.db")
    assert state_of(folder) == before


def test_an_index_without_its_log_is_no_truth(folder: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The index cannot be used")
    stale = folder.with_name("stale")
    shutil.copy(folder / "index.db", stale)
    with opened(folder) as engine:
        engine.put(BUCKET, Key("later"), b"later")
        offset = engine.log.end().offset
    before = state_of(folder)
    shutil.copy(stale, folder / "index.db")
    assert state_of(folder) == before
    ahead = folder / "index.db"
    with opened(folder) as engine:
        engine.put(BUCKET, Key("too late"), b"later")
    shutil.copy(ahead, stale)
    os.truncate(segment(folder), offset)
    assert state_of(folder) == before


def test_a_damaged_index_is_not_replaced_under_a_living_process(folder: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The index cannot be used")
    with opened(folder) as engine:
        with pytest.raises(Busy, match="other processes use the folder"):
            Engine.rebuild(folder)
        assert engine.check() == []


def test_rebuild_makes_the_same_index(folder: Path) -> None:
    before = state_of(folder)
    seen: list[tuple[int, int]] = []
    report = Engine.rebuild(folder, progress=lambda done, total: seen.append((done, total)))
    assert report.lost == ()
    assert report.records == len(ends(folder))
    size = segment(folder).stat().st_size
    assert seen[-1] == (size, size)
    assert state_of(folder) == before


# -- the log ------------------------------------------------------------------------------


def test_a_torn_tail_is_cut_with_a_warning_and_kept_aside(folder: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The log was cut behind record")
    before = state_of(folder)
    with segment(folder).open("ab") as file:
        file.write(b"half a record")
    assert state_of(folder) == before
    assert [path.read_bytes() for path in (folder / "quarantine").iterdir()] == [b"half a record"]


def test_a_damaged_last_record_costs_that_record_alone(folder: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The log was cut behind record", "The index cannot be used")
    before = state_of(folder)
    with opened(folder) as engine:
        engine.put(BUCKET, Key("last"), b"last")
    overwrite(segment(folder), ends(folder)[-1] - 10, b"!")
    assert state_of(folder) == before


@pytest.mark.parametrize("boot_id", [BOOT, "another boot"])
def test_an_object_that_looks_like_a_record_is_none(tmp_path: Path, boot_id: str, expect_logs: ExpectLogs) -> None:
    """Its record is torn: what stands in it must not pass for one that survived, nor for a mark."""
    expect_logs("The log was cut behind record 1:")
    forged = codec.encode(1 << 40, mark=1 << 40, chain=7, payload=b"")
    likely = codec.encode(3, mark=2, chain=7, payload=b"")
    with opened(tmp_path / "data") as engine:
        engine.create_bucket(BUCKET)
        end = engine.log.end()
        engine.put(BUCKET, Key("key"), b"x" * 3000 + b"".join(map(bytes, (*forged.buffers, *likely.buffers))) + b"y" * 3000)
    os.truncate(segment(tmp_path / "data"), end.offset + 5000)
    for path in (tmp_path / "data").glob("index.*"):
        path.unlink()
    assert state_of(tmp_path / "data", boot_id).objects == {}


@pytest.mark.parametrize("boot_id", [BOOT, "another boot"])
def test_damage_in_the_middle_is_reported_with_what_it_costs(folder: Path, boot_id: str, expect_logs: ExpectLogs) -> None:
    expect_logs("The log is damaged")
    before = state_of(folder)
    with opened(folder) as engine:
        engine.sync()
    overwrite(segment(folder), ends(folder)[3] + 40, b"!!!!")
    with opened(folder, boot_id) as engine:
        assert observe(engine) == before
        (found,) = [sentence for sentence in engine.check() if "damaged" in sentence]
        assert "record 5 cannot be read" in found
        assert any("record 5 cannot be read" in sentence for sentence in engine.scrub().damaged)


@pytest.mark.parametrize("boot_id", [BOOT, "another boot"])
def test_damage_in_the_middle_and_no_index_is_never_papered_over(folder: Path, boot_id: str, expect_logs: ExpectLogs) -> None:
    expect_logs("The log is damaged")
    with opened(folder) as engine:
        engine.sync()
    size = segment(folder).stat().st_size
    overwrite(segment(folder), ends(folder)[3] + 40, b"!!!!")
    (folder / "index.db").unlink()
    for _ in range(2):
        with pytest.raises(Corrupt, match=r"record 5 cannot be read; 's3mount store rebuild --salvage'"):
            opened(folder, boot_id)
        with pytest.raises(Corrupt, match="record 5 cannot be read"):
            Engine.rebuild(folder)
    assert segment(folder).stat().st_size == size


def test_a_damaged_log_and_a_sound_index_lose_nothing(folder: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The log is damaged")
    before = state_of(folder)
    with opened(folder) as engine:
        engine.sync()
    overwrite(segment(folder), ends(folder)[3] + 40, b"!!!!")
    with pytest.raises(Corrupt, match="--salvage"):
        Engine.rebuild(folder)
    with opened(folder) as engine:
        assert observe(engine) == before
        assert engine.check() != []
    assert Engine.rebuild(folder, salvage=True).lost == ()
    assert state_of(folder) == before
    (folder / "index.db").unlink()
    with opened(folder) as engine:
        assert observe(engine) == before


def test_a_compaction_heals_a_damaged_log_beneath_a_sound_index(folder: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The log is damaged")
    with opened(folder) as engine:
        engine.sync()
    overwrite(segment(folder), ends(folder)[3] + 40, b"!!!!")
    with opened(folder) as engine:
        engine.compact()
        assert engine.check() == []


def test_salvage_keeps_what_was_put_into_a_bucket_whose_making_is_lost(folder: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The log is damaged")
    before = state_of(folder)
    with opened(folder) as engine:
        engine.sync()
    overwrite(segment(folder), 40, b"!!!!")
    (folder / "index.db").unlink()
    assert Engine.rebuild(folder, salvage=True).lost
    with opened(folder) as engine:
        (bucket,) = engine.buckets()
        assert bucket.name.startswith("salvaged-")
        assert {str(info.key) for info in engine.list(bucket.name).objects} == before.contents().keys()
        assert engine.check() == []


def test_salvage_keeps_everything_but_what_is_damaged(folder: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The log is damaged")
    before = state_of(folder)
    with opened(folder) as engine:
        engine.sync()
    overwrite(segment(folder), ends(folder)[3] + 40, b"!!!!")  # the put of k3
    (folder / "index.db").unlink()
    report = Engine.rebuild(folder, salvage=True)
    assert [sentence for sentence in report.lost if "record 5" in sentence]
    expected = State({key: value for key, value in before.objects.items() if key != "k3"}, before.uploads)
    assert state_of(folder) == expected
    assert state_of(folder, "another boot") == expected
    (folder / "index.db").unlink()
    with opened(folder) as engine:
        assert observe(engine) == expected
        assert engine.check() == []
        engine.put(BUCKET, Key("k3"), b"again")
        assert engine.check() == []


def test_salvage_keeps_the_bodies_that_lost_records_named(folder: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("The log is damaged")
    with opened(folder) as engine:
        engine.sync()
    overwrite(segment(folder), ends(folder)[4] + 40, b"!!!!")  # the put of k4
    (folder / "index.db").unlink()
    assert Engine.rebuild(folder, salvage=True).lost
    (kept,) = (folder / "quarantine").iterdir()
    assert kept.read_bytes() == b"4" * 20000
    with opened(folder) as engine:
        assert leftovers(engine) == []


def test_salvage_of_a_whole_log_loses_nothing(folder: Path) -> None:
    before = state_of(folder)
    assert Engine.rebuild(folder, salvage=True).lost == ()
    assert state_of(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_damaged_the_store_opens_or_says_what_is_wrong(
    folder: Path, tmp_path: Path, seed: int, expect_logs: ExpectLogs
) -> None:
    """Never an exception of another kind, never wrong bytes, and salvage always gives a sound store."""
    expect_logs("The log", "The index cannot be used", "After a power cut")
    chance = random.Random(seed)
    with opened(folder) as engine:
        if seed % 2:
            engine.compact()
        engine.put(BUCKET, Key("loose"), b"l" * 30000, durable=False)
        before = observe(engine)
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size and path.name not in ("format", "spare")]
    for path in chance.sample(sorted(files), chance.randint(1, 3)):
        harm_somewhere(path, chance)
    for boot_id in (BOOT, "another boot"):
        try:
            with opened(folder, boot_id) as engine:
                judge_damaged(engine, before)
        except Corrupt:
            pass
    Engine.rebuild(folder, salvage=True)
    with opened(folder) as engine:
        judge_damaged(engine, before)
        engine.create_bucket("another")
        engine.put("another", Key("works"), LARGE)
        assert [sentence for sentence in engine.check() if not sentence.startswith("I5")] == []
    (folder / "index.db").unlink()
    with opened(folder) as engine:
        judge_damaged(engine, before)


def harm_somewhere(path: Path, chance: random.Random) -> None:
    size = path.stat().st_size
    at = chance.randrange(size)
    match chance.randrange(4):
        case 0:
            os.truncate(path, at)
        case 1:
            overwrite(path, at, chance.randbytes(min(size - at, chance.randint(1, 300))))
        case 2:
            overwrite(path, at, bytes(min(size - at, chance.randint(1, 3000))))
        case _:
            path.unlink()


def judge_damaged(engine: Engine, before: State) -> None:
    """Every object that is there and can be read has the bytes it had, unless scrub names it."""
    engine.check()
    damaged = " ".join(engine.scrub().damaged)
    if BUCKET not in [bucket.name for bucket in engine.buckets()]:
        return
    expected = {"k8": b"8" * 20000, **before.contents()}
    for info in listed(engine):
        try:
            assert f"'{BUCKET}/{info.key}'" in damaged or content_of(engine, info.key) == expected[info.key]
        except Corrupt:
            pass


# -- the rest -----------------------------------------------------------------------------


def test_a_missing_body_is_reported_by_check_and_costs_its_objects_alone(folder: Path) -> None:
    with opened(folder) as engine:
        with engine.index.read() as db:
            statement = "SELECT b.name FROM name n JOIN extent e ON e.file = n.file JOIN body b ON b.id = e.body WHERE n.key = ?"
            ((name,),) = db.execute(statement, (b"k2",))
        engine.bodies.path(name).unlink()
        assert engine.check() == [f"I5: the body {name} has no file."]
        with pytest.raises(Corrupt):
            engine.open_object(BUCKET, Key("k2"))
        engine.put(BUCKET, Key("k2"), b"2" * 20000)
        engine.sync()
        assert engine.check() == []


def test_a_folder_of_a_newer_format_is_left_alone(folder: Path) -> None:
    (folder / "format").write_text('{"format": 2, "id": "x"}')
    with pytest.raises(NewerFormat, match="upgrade"):
        opened(folder)


def test_a_folder_with_a_damaged_format_file_says_so(folder: Path) -> None:
    (folder / "format").write_text("nonsense")
    with pytest.raises(Corrupt, match="format"):
        opened(folder)


def test_a_folder_that_holds_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(Corrupt, match="no data folder"):
        opened(tmp_path)
    assert os.listdir(tmp_path) == ["letter.txt"]

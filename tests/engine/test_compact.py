"""Compaction drops what a snapshot replaces and changes nothing that one sees, also when it is stopped or the power fails."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from s3mount.engine import compact
from s3mount.engine import log as log_module
from s3mount.engine.engine import Engine
from s3mount.engine.layout import Layout
from s3mount.errors import Corrupt, Unavailable
from s3mount.model import Key
from tests.conftest import ExpectLogs
from tests.engine.disks import Crash, ShadowDisk, StoppingDisk, killed
from tests.engine.observe import BUCKET, content_of, leftovers, observe

SEGMENT = 20_000


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module.Log.__init__, "__kwdefaults__", {"segment_bytes": SEGMENT})


def opened(folder: Path, *, boot_id: str = "boot", disk: StoppingDisk | ShadowDisk | None = None) -> Engine:
    return Engine.open(folder, boot_id=boot_id, disk=disk)


def fill(engine: Engine, *, count: int = 60) -> None:
    """Small objects over several segments, most of them replaced later; some large ones; an upload; a bucket with versions."""
    engine.create_bucket(BUCKET)
    engine.create_bucket("versions")
    engine.set_versioning("versions", "enabled")
    for number in range(count):
        engine.put(BUCKET, Key(f"k{number % 20}"), b"%d" % number * 500, durable=False)
        engine.put("versions", Key(f"v{number % 3}"), b"%d" % number, durable=False)
    engine.put(BUCKET, Key("large"), b"large" * 8000, durable=False)
    engine.put_part(BUCKET, engine.create_upload(BUCKET, Key("upload")), 1, b"part")
    engine.delete(BUCKET, Key("k3"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with opened(tmp_path / "data") as engine:
        fill(engine)
        yield engine


def test_compaction_drops_segments_and_changes_nothing(engine: Engine) -> None:
    before, versions, segments = observe(engine), list(engine.versions("versions")), len(engine.layout.segments())
    report = engine.compact()
    assert report.segments > 0
    assert report.moved > 0
    assert report.bytes > report.segments * SEGMENT // 2
    assert len(engine.layout.segments()) < segments
    assert engine.check() == []
    assert engine.scrub().damaged == ()
    assert observe(engine) == before
    assert list(engine.versions("versions")) == versions


def test_an_index_is_made_anew_from_a_snapshot(engine: Engine, tmp_path: Path) -> None:
    engine.compact()
    engine.put(BUCKET, Key("later"), b"later")
    before, versions = observe(engine), list(engine.versions("versions"))
    folder = killed(engine.folder, tmp_path / "copy")
    (folder / "index.db").unlink()
    (folder / "index.db-wal").unlink()
    with opened(folder) as again:
        assert again.check() == []
        assert observe(again) == before
        assert list(again.versions("versions")) == versions


def test_compacting_again_replaces_the_snapshot(engine: Engine) -> None:
    for turn in range(3):
        engine.put(BUCKET, Key("turn"), b"%d" % turn)
        engine.compact()
        assert len(engine.layout.snapshots()) == 1
        assert engine.check() == []


def test_segments_with_much_alive_stay(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as engine:
        engine.create_bucket(BUCKET)
        for number in range(50):
            engine.put(BUCKET, Key(f"k{number}"), b"%d" % number * 1000, durable=False)
        report = engine.compact()
        assert (report.segments, report.moved) == (0, 0)
        assert engine.check() == []


def test_a_reader_of_inline_bytes_outlives_their_segment(engine: Engine) -> None:
    reader = engine.open_object(BUCKET, Key("k0"))
    expected = content_of(engine, "k0")
    for number in range(20):
        engine.delete(BUCKET, Key(f"k{number}"))
    for number in range(60):
        engine.put(BUCKET, Key("fill"), b"%d" % number * 500, durable=False)
    assert engine.compact().segments > 2
    buffer = bytearray(reader.info.size)
    reader.read_into(0, memoryview(buffer))
    assert buffer == expected
    reader.close()


def test_another_process_goes_on_after_a_compaction(engine: Engine) -> None:
    with opened(engine.folder) as other:
        other.put(BUCKET, Key("before"), b"before")
        engine.compact()
        engine.put(BUCKET, Key("between"), b"between")
        other.put(BUCKET, Key("after"), b"after")
        assert observe(other) == observe(engine)
        assert other.check() == []
        other.compact()
        assert engine.check() == []


def test_a_damaged_snapshot_is_never_papered_over(engine: Engine, tmp_path: Path, expect_logs: ExpectLogs) -> None:
    engine.compact()
    before = observe(engine)
    folder = killed(engine.folder, tmp_path / "copy")
    (snapshot,) = (folder / "log").glob("*.snap")
    data = bytearray(snapshot.read_bytes())
    data[len(data) // 2] ^= 1
    snapshot.write_bytes(data)
    with opened(folder) as again:
        assert observe(again) == before
        assert any("snapshot" in sentence for sentence in again.check())
        again.compact()
        assert again.check() == []
    snapshot = next((folder / "log").glob("*.snap"))
    snapshot.write_bytes(snapshot.read_bytes()[:-20])
    (folder / "index.db").unlink()
    with pytest.raises(Corrupt, match="snapshot"):
        opened(folder)


@pytest.mark.slow
def test_a_log_that_is_mostly_dead_is_compacted_by_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "DUE_BYTES", 10 * SEGMENT)
    with opened(tmp_path / "data") as engine:
        engine.create_bucket(BUCKET)
        most = 0
        for number in range(1000):
            engine.put(BUCKET, Key("key"), b"%d" % number * 500, durable=False)
            if number % 20 == 0:
                engine.sync()
                most = max(most, len(engine.layout.segments()))
        engine.stop_compacting()
        assert len(engine.layout.snapshots()) == 1
        assert most < 60
        assert engine.check() == []


def test_closing_stops_a_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, stopped = threading.Event(), threading.Event()

    def go_on(self: compact.Compactor) -> None:
        started.set()
        assert self._stopped.wait(30)
        stopped.set()
        raise Unavailable("stopped")

    monkeypatch.setattr(compact, "DUE_BYTES", 1)
    monkeypatch.setattr(compact.Compactor, "_go_on", go_on)
    with opened(tmp_path / "data") as engine:
        fill(engine)
        engine.sync()
        assert started.wait(30)
    assert stopped.is_set()
    with opened(tmp_path / "data") as engine:
        assert engine.layout.snapshots() == []
        assert engine.check() == []
        assert leftovers(engine) == []


@pytest.mark.slow
def test_compaction_that_is_stopped_at_any_step_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "template") as engine:
        fill(engine)
        before = observe(engine)
    for at in range(1, 200):
        folder = Path(shutil.copytree(tmp_path / "template", tmp_path / f"{at}"))
        disk = StoppingDisk()
        engine = opened(folder, disk=disk)
        disk.at, disk.steps = at, 0
        died = False
        try:
            engine.compact()
        except Crash:
            died = True
        dead = killed(folder, tmp_path / f"{at}-dead")
        engine.close()
        with opened(dead) as again:
            assert again.check() == []
            assert observe(again) == before
            again.sweep(grace_seconds=0)
            again.compact()
            assert leftovers(again) == []
            assert again.check() == []
            assert observe(again) == before
        if not died:
            return
    raise AssertionError("it never ended")


@pytest.mark.parametrize("seed", range(5))
def test_a_power_cut_behind_a_compaction_loses_nothing(tmp_path: Path, seed: int, expect_logs: ExpectLogs) -> None:
    expect_logs("The log was cut", "The index cannot be used", "After a power cut")
    disk = ShadowDisk(tmp_path / "data")
    with opened(tmp_path / "data", disk=disk) as engine:
        fill(engine)
        engine.compact()
        before = observe(engine)
        engine.put(BUCKET, Key("loose"), b"l" * 30_000, durable=False)
        for chance in (None, random.Random(seed)):
            with opened(disk.cut(tmp_path / f"cut-{chance is None}", chance), boot_id="after") as again:
                assert again.check() == []
                found = observe(again)
                found.objects.pop("loose", None)
                assert found == before
    disk.close()


def test_what_is_replaced_while_the_log_is_compacted_keeps_its_segment(tmp_path: Path, expect_logs: ExpectLogs) -> None:
    """The replacement is not synced: a power cut brings back the version that the snapshot names, and its bytes are needed."""
    expect_logs("The log was cut behind record", "The index cannot be used")

    class Meanwhile(ShadowDisk):
        act: Callable[[], object] | None = None

        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            if self.act is not None and target.suffix == ".snap":
                act, self.act = self.act, None
                act()

    def put_all(engine: Engine, mark: bytes, *, durable: bool) -> dict[str, bytes]:
        contents = {f"k{number}": b"%s%d" % (mark, number) * 5000 for number in range(8)}
        for key, content in contents.items():
            engine.put(BUCKET, Key(key), content, durable=durable)
        return contents

    disk = Meanwhile(tmp_path / "data")
    with opened(tmp_path / "data", disk=disk) as engine:
        engine.create_bucket(BUCKET)
        synced = put_all(engine, b"a", durable=True)
        disk.act = partial(put_all, engine, b"b", durable=False)
        engine.compact()
        assert disk.act is None
        cut = disk.cut(tmp_path / "cut")
    disk.close()
    with opened(cut, boot_id="after") as engine:
        assert engine.check() == []
        assert observe(engine).contents() == synced


def test_a_snapshot_that_another_process_drops_meanwhile_is_no_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layout, "snapshots", lambda _: [5])
    engine.sync()
